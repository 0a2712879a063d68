"""Which namespace a client is in: by its user, by its client id, else the listener's.

    user:alice=orders        who proves to be alice, by SASL or TLS, is in the namespace orders
    user:team-*=team         … and whoever's name begins so; the longest one that fits counts, a whole name first
    client:billing-*=billing whose client id begins so, on listeners that ask nobody who it is

A user is checked by the keys and SCRAM users of the namespace that it is led to, so each namespace has its own. A
client id proves nothing: where clients say who they are it leads nowhere, or a user of one namespace would enter
another. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from headwater.errors import InvalidRequest
from headwater.log.keys import check_namespace

Kind: TypeAlias = Literal["user", "client"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """``name`` is a whole name, or one that ends in ``*``."""

    kind: Kind
    name: str
    namespace: str

    def fits(self, name: str) -> bool:
        """Whether the name is led this way."""
        if self.name.endswith("*"):
            return name.startswith(self.name[:-1])
        return name == self.name


def parse_route(text: str) -> Route:
    """The route in ``user:alice=orders``. Raises ``InvalidRequest``."""
    who, mark, namespace = text.rpartition("=")
    kind, colon, name = who.partition(":")
    if not mark or not colon or not name or kind not in ("user", "client"):
        form = "user:NAME=NAMESPACE or client:NAME=NAMESPACE, where NAME may end in *"
        raise InvalidRequest(f"{text!r} is no route: write {form}.")
    return Route(kind=cast(Kind, kind), name=name, namespace=check_namespace(namespace))


def namespace_for(routes: Sequence[Route], kind: Kind, name: str, otherwise: str) -> str:
    """The namespace of who is called so; ``otherwise`` if no route fits."""
    fitting = [route for route in routes if route.kind == kind and route.fits(name)] if name else []
    if not fitting:
        return otherwise
    return max(fitting, key=lambda route: (not route.name.endswith("*"), len(route.name))).namespace
