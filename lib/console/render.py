"""Pages from templates: everything that comes from outside is escaped, and no page runs a script but our own file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from headwater.api.messages import Request, Response
from headwater.console.static import address
from headwater.replay.extras import extra
from headwater.words import amount, size, span

BASE: Final = "/console"
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_PAST: Final = re.compile(rf"^(?:/namespaces/[^/]+)?{BASE}/as-of/([0-9]{{1,18}})(?=/|$)")
HEADERS: Final[Mapping[str, str]] = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def page(template: str, *, status: int = 200, **values: Any) -> Response:
    """A page as a response."""
    values = {
        "base": BASE,
        "root": BASE,
        "here": "",
        "namespace": "",
        "principal": "",
        "guard": "",
        "commit": 0,
        "past": None,
    } | values
    body = _environment().get_template(template).render(status=status, **values)
    return Response(status=status, headers=HEADERS, body=body.encode("utf-8", "replace"))


def check_installed() -> None:
    """Raises ``ExtraMissing`` if what draws pages is not installed."""
    _environment()


def root_of(request: Request) -> str:
    """Where the console of the request's namespace is."""
    return f"/namespaces/{request.namespace}{BASE}" if request.raw_path.startswith("/namespaces/") else BASE


def base_of(request: Request) -> str:
    """What links of a page begin with: of a page of the past they stay there."""
    past = past_of(request)
    return root_of(request) if past is None else f"{root_of(request)}/as-of/{past}"


def past_of(request: Request) -> int | None:
    """The commit as of which the request looks; None for now. It is a part of the path, so every link keeps it."""
    found = _PAST.match(request.raw_path)
    return int(found[1]) if found else None


def below_past(path: str) -> str:
    """The path of the page, without the commit as of which it is looked at."""
    return _PAST.sub(BASE, path)


def redirect(where: str, headers: Mapping[str, str] | None = None) -> Response:
    """Go there with GET."""
    return Response(status=303, headers={"location": where, "cache-control": "no-store", **(headers or {})})


@cache
def _environment() -> Any:
    jinja = extra("jinja2", "console")
    made = jinja.Environment(
        loader=jinja.PackageLoader("headwater.console"),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["asset"] = address
    made.filters.update(moment=moment, size=size, number=number, rate=rate, ago=ago, dollars=dollars, count=amount)
    return made


def moment(ms: int) -> str:
    """A time in ms since 1970, in UTC."""
    try:
        return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(" ", "milliseconds").removesuffix("+00:00")
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"


def number(value: float) -> str:
    """Digits in groups of three."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def rate(value: float) -> str:
    """A rate; a dash where nothing flows, so that what does stands out."""
    return "–" if not value else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def ago(ms: float) -> str:
    """A span in ms, in one unit; none is negative, whatever clocks say."""
    return span(max(0.0, ms / 1_000))


def dollars(value: float) -> str:
    """A price, with as many digits as it takes."""
    if 0 < value < 0.0001:
        return "< $0.0001"
    return "$0" if not value else f"${value:,.2f}" if value >= 1 else f"${value:.2g}"
