"""An ``App`` that also serves the console: a browser's cookie stands for a token, and its errors are pages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final

import msgspec

from headwater.api.app import App
from headwater.api.messages import Request, Response, Route
from headwater.console import actions, pages, signing
from headwater.console.render import BASE, below_past, page, past_of, redirect, root_of
from headwater.console.static import ROUTES as STATIC

ROUTES: Final[tuple[Route, ...]] = (*STATIC, *signing.ROUTES, *pages.ROUTES, *actions.ROUTES)


class ConsoleApp(App):
    """Serves ``routes`` and the console below ``/console``."""

    def __init__(self, routes: Iterable[Route], **options: Any) -> None:
        super().__init__((*routes, *ROUTES), **options)

    async def serve(self, request: Request, *, budget_s: float | None = None) -> Response:
        """The response to one request. Never raises."""
        if request.path == "/" and request.method in ("GET", "HEAD") and _is_browser(request):
            return redirect(BASE)
        if request.path != BASE and not request.path.startswith(f"{BASE}/"):
            return await super().serve(request, budget_s=budget_s)
        if past_of(request) is not None:
            request = replace(request, path=below_past(request.path))
        response = await super().serve(_with_token(request), budget_s=budget_s)
        if response.status < 400 or not response.headers.get("content-type", "").startswith("application/json"):
            return response
        return _as_page(request, response)


def _is_browser(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _with_token(request: Request) -> Request:
    """A browser keeps its token in a cookie that scripts cannot read and other sites cannot send."""
    if "authorization" in request.headers:
        return request
    token = token_of(request)
    return replace(request, headers={**request.headers, "authorization": f"Bearer {token}"}) if token else request


def token_of(request: Request) -> str:
    """The token in the request's cookie, or nothing."""
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(request.headers.get("cookie", ""))
    except CookieError:
        return ""
    found = cookies.get(signing.COOKIE)
    return found.value if found else ""


def _as_page(request: Request, response: Response) -> Response:
    """What the API would say in JSON, for people."""
    if response.status == 401 and request.method in ("GET", "HEAD"):
        return redirect(f"{root_of(request)}/sign-in")
    try:
        told = msgspec.json.decode(response.body)
    except msgspec.DecodeError:
        told = {}
    told = told if isinstance(told, dict) else {}
    return page(
        "error.html",
        base=root_of(request),
        title=_TITLES.get(response.status, "This did not work"),
        status=response.status,
        message=str(told.get("message", "")),
        what_now=str(told.get("what_now", "")),
        applied=str(told.get("applied", "")),
        identity=str(told.get("id", "")),
    )


_TITLES: Final = {
    400: "This request makes no sense here",
    401: "Who are you?",
    403: "You may not do this",
    404: "There is no such thing",
    409: "Somebody was faster",
    413: "This is too large to show",
    416: "There are no such offsets",
    429: "Too much at once",
    503: "The store does not answer",
    504: "Nobody knows yet whether it happened",
}
