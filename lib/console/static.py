"""Files that pages need: in the wheel, named after what they hold, so a browser keeps them for ever."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from headwater.api.messages import Call, HttpError, Response, Route

_TYPES: Final = {
    "style.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def address(name: str) -> str:
    """Where the file is served; another text has another address."""
    return f"/console/static/{_digest(name)}/{name}"


@cache
def _read(name: str) -> bytes:
    return (files("headwater.console") / "static" / name).read_bytes()


@cache
def _digest(name: str) -> str:
    return hashlib.sha256(_read(name)).hexdigest()[:16]


async def _file(call: Call) -> Response:
    name = call.parts["name"]
    if name not in _TYPES:
        raise HttpError(404, "There is nothing at this path.")
    fresh = call.parts["digest"] == _digest(name)
    kept = "public, max-age=31536000, immutable" if fresh else "no-store"
    headers = {"content-type": _TYPES[name], "cache-control": kept, "x-content-type-options": "nosniff"}
    return Response(headers=headers, body=_read(name))


ROUTES: Final = (
    Route(
        method="GET",
        pattern="/console/static/{digest}/{name}",
        handler=_file,
        functions=frozenset({"console"}),
        summary="A style sheet, a script or the icon",
        produces=tuple(_TYPES.values()),
        dialect=True,
        open=True,
    ),
)
