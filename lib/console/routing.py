"""Routes of the console, and the numbers in its queries and forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from headwater.api.messages import Handler, Route
from headwater.console.render import BASE
from headwater.errors import InvalidRequest

FORM: Final = "application/x-www-form-urlencoded"
CONSOLE: Final = frozenset({"console"})
DIGITS_MAX: Final = 18  # of a number: all of them fit 63 bits


def page_at(path: str, handler: Handler, summary: str, query: Mapping[str, str] | None = None) -> Route:
    """A page that shows, with the parameters of its query."""
    return Route(
        method="GET",
        pattern=f"{BASE}{path}",
        handler=handler,
        functions=CONSOLE,
        summary=summary,
        produces=("text/html", "application/json"),
        query=query or {},
    )


def form_at(path: str, handler: Handler, summary: str) -> Route:
    """A form that changes something."""
    return Route(
        method="POST",
        pattern=f"{BASE}{path}",
        handler=handler,
        functions=CONSOLE,
        summary=summary,
        consumes=(FORM,),
        produces=("text/html",),
    )


def open_to_all(route: Route) -> Route:
    """The same for whoever asks, before it is known who that is."""
    return replace(route, open=True, dialect=True)


def whole(name: str, text: str) -> int:
    """A whole number of 0 or more. Raises ``InvalidRequest``."""
    text = text.strip()
    if not text.isascii() or not text.isdecimal() or len(text) > DIGITS_MAX:
        raise InvalidRequest(f"{name} is a number of 0 or more, not {text[:40]!r}.")
    return int(text)
