"""Libraries that only some people need: imported when they are used, and asked for by name when they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from headwater.errors import NotFound


class ExtraMissing(NotFound):
    """An optional library is not installed. Not applied."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"This needs {library}, which is not installed.", library=library, extra=extra)
        self.what_now = f"Install it: pip install 'headwater[{extra}]'"


def extra(module: str, name: str) -> Any:
    """The module, which the extra ``name`` of Headwater installs.

    Raises:
        ExtraMissing: it is not installed; the error says what to type.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the library is there, and lacks something itself
        raise ExtraMissing(error.name.partition(".")[0], name) from error
