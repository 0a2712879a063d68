"""Topologies by name, as a command line and an environment give them."""

from __future__ import annotations

import importlib
from typing import Any

from headwater.errors import InvalidRequest
from headwater.streams.model import Spec
from headwater.streams.topology import Topology


def load_topology(place: str, what: str = "The topology") -> Topology | Spec:
    """The topology at ``module:attribute``: an object, or what a function without arguments makes.

    ``module`` may be written as a path, as in ``jobs/delays.py``; ``attribute`` may have dots. ``what`` is what named
    it, for messages.

    Raises:
        InvalidRequest: there is no such module or attribute, or it is no topology; the message says which.
    """
    module, _, attribute = place.partition(":")
    if not module or not attribute:
        raise InvalidRequest(f"{what} is named as module:attribute, as in jobs.delays:topology, not {place!r}.")
    module = module.removesuffix(".py").replace("/", ".")
    found = _imported(module, what)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise InvalidRequest(f"{what}: module {module!r} has no {attribute!r}.")
        found = getattr(found, part)
    made = found() if callable(found) else found
    if not isinstance(made, Topology | Spec):
        raise InvalidRequest(f"{what}: {place} is no topology but {type(made).__name__}.")
    return made


def _imported(module: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and lacks something itself
        raise InvalidRequest(f"{what}: there is no module {module!r} on the Python path.") from error
