"""Signing in and out: the token goes into a cookie that scripts cannot read and other sites cannot send.

A form that changes something carries a second word, made of the cookie's, that only pages of this site can know.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final
from urllib.parse import parse_qsl

from headwater.api.messages import Call, HttpError, Request, Response
from headwater.console.render import BASE, page, redirect
from headwater.console.routing import form_at, open_to_all, page_at
from headwater.limits import CONSOLE_FORM_FIELDS_MAX

COOKIE: Final = "headwater_token"
_MARK: Final = b"headwater console form"


def form_of(request: Request) -> dict[str, str]:
    """The fields of a form. Raises ``HttpError``."""
    try:
        pairs = parse_qsl(
            request.body.decode(), keep_blank_values=True, max_num_fields=CONSOLE_FORM_FIELDS_MAX, errors="strict"
        )
    except ValueError as error:
        raise HttpError(400, "This is no form that this console has sent.") from error
    return dict(pairs)


def guard(request: Request) -> str:
    """The word that a form must carry to be believed: who can read our pages knows it, another site does not."""
    secret = request.headers.get("authorization", "")
    return hmac.new(_MARK, f"{secret}\n{request.namespace}".encode(), hashlib.sha256).hexdigest()


def check_guard(request: Request, form: dict[str, str]) -> None:
    """Refuse a form that another site has sent in the browser's name.

    Without sign-in there is no secret to make the word of, so there the browser's own word counts too (Fetch
    Metadata, and Origin where a browser has no such header).
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HttpError(403, "This form was sent by another site. Nothing was done.")
    origin = request.headers.get("origin", "")
    if origin not in ("", "null") and origin.partition("://")[2] != request.headers.get("host", ""):
        raise HttpError(403, "This form was sent by another site. Nothing was done.")
    if not hmac.compare_digest(form.get("guard", ""), guard(request)):
        raise HttpError(
            403, "This page is too old, or you signed in as somebody else since. Nothing was done; reload it."
        )


async def _sign_in(call: Call) -> Response:
    return page("sign_in.html", title="Sign in")


async def _signed_in(call: Call) -> Response:
    token = form_of(call.request).get("token", "").strip()
    if not token or any(char in token for char in ' ;,"\\') or not token.isascii():
        return page("sign_in.html", title="Sign in", wrong="That is no token: it begins with a key's name and a dot.")
    secure = "" if call.request.base_url.startswith("http://") else "; Secure"
    cookie = f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict{secure}"
    return redirect(BASE, {"set-cookie": cookie})


async def _sign_out(call: Call) -> Response:
    return redirect(f"{BASE}/sign-in", {"set-cookie": f"{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"})


ROUTES: Final = (
    open_to_all(page_at("/sign-in", _sign_in, "The form that asks for a token")),
    open_to_all(form_at("/sign-in", _signed_in, "Keep the token in a cookie")),
    open_to_all(form_at("/sign-out", _sign_out, "Forget the token")),
)
