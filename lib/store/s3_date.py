"""One unsigned HEAD, for the Date of its answer."""

from __future__ import annotations

import email.utils
import urllib.error
import urllib.request
from typing import IO, Any

from headwater.store.s3_clock import UNKNOWN


def read_date_ms(url: str, timeout_s: float) -> int:
    """The Date of whatever ``url`` answers, in ms since 1970; -1 if there is none. Blocks: call it in a thread."""
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(urllib.request.Request(url, method="HEAD"), timeout=timeout_s) as answer:
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        date = error.headers.get("Date")
        error.close()
    except (OSError, ValueError):
        return UNKNOWN
    try:
        return int(email.utils.parsedate_to_datetime(date).timestamp() * 1_000)
    except (TypeError, ValueError):
        return UNKNOWN


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer with a Date like any other."""

    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, *rest: Any) -> None:
        return None
