"""What handlers of native routes share: reading parameters strictly, and answering in JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping

from headwater.api import wire
from headwater.api.errors_http import PARTITION_NOT_FOUND
from headwater.api.messages import Call, HttpError, Request, Response, Route
from headwater.api.verbs import ProducerId
from headwater.errors import InvalidRequest
from headwater.limits import HTTP_FETCH_BYTES_MAX

_WHOLE = re.compile(r"[0-9]{1,18}\Z")

PRODUCER = ("headwater-producer-id", "headwater-producer-epoch", "headwater-producer-sequence")
TOKEN = "headwater-token"
ONCE = "idempotency-key"
ONCE_MAX = 200  # characters of an Idempotency-Key

TOKEN_HEADER = {"Headwater-Token": "the token of an Indeterminate answer to this very request"}
ONCE_HEADERS = {
    **TOKEN_HEADER,
    "Idempotency-Key": "makes the request safe to repeat for an hour: it takes effect once",
}
PRODUCER_HEADERS = {
    "Headwater-Producer-Id": "the idempotent producer's id, with its epoch and the batch's first sequence",
    "Headwater-Producer-Epoch": "its epoch",
    "Headwater-Producer-Sequence": "the sequence of the first record",
}


def ok(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Data of the verbs as JSON."""
    return Response(
        status=status, headers={"content-type": "application/json", **(headers or {})}, body=wire.encode(value)
    )


def done() -> Response:
    """It is done, and there is nothing to say."""
    return Response(status=204)


def refuse_fields(call: Call) -> None:
    """Refuse a body that says anything, where there is nothing to say; ``{}`` is as good as none."""
    wire.request(call.request.body or b"{}", wire.Body)


def partition_of(call: Call) -> int:
    """The ``{partition}`` of the path. Raises ``HttpError`` 404 for what is no number."""
    text = call.parts["partition"]
    if not _WHOLE.match(text) or int(text) >= 2**31:
        raise HttpError(404, f"{text[:40]!r} is no partition.", error_code=PARTITION_NOT_FOUND)
    return int(text)


def producer_id_of(call: Call) -> int:
    """The ``{producer}`` of the path. Raises ``HttpError`` 404 for what is no number."""
    text = call.parts["producer"]
    if not _WHOLE.match(text) or int(text) >= 2**62:
        raise HttpError(404, f"{text[:40]!r} is no id of a producer.")
    return int(text)


def whole(call: Call, name: str, default: int, maximum: int = 2**62) -> int:
    """A query parameter that is a whole number from 0 to ``maximum``. Raises ``InvalidRequest``."""
    text = call.request.query.get(name)
    if text is None:
        return default
    if not _WHOLE.match(text) or int(text) > maximum:
        raise InvalidRequest(f"{name} is a whole number from 0 to {maximum}, not {text[:40]!r}.")
    return int(text)


def bytes_max(call: Call, default: int) -> int:
    """How many bytes to read: what was asked for, less if the answer could not hold it."""
    asked = whole(call, "max_bytes", default, HTTP_FETCH_BYTES_MAX)
    return max(1, min(asked, call.answer_bytes_max))


def wait_ms(call: Call) -> float:
    """How long to wait for records: what was asked for, less if there is not that much time."""
    return min(whole(call, "wait_ms", 0), call.wait_ms_max)


def producer_of(call: Call) -> tuple[int, int, int] | None:
    """The producer's id, epoch and sequence in the request's headers. Raises ``InvalidRequest``: all or none."""
    found = [call.request.headers.get(name) for name in PRODUCER]
    if found == [None, None, None]:
        return None
    numbers = [int(text) if text is not None and _WHOLE.match(text) else -1 for text in found]
    if min(numbers) < 0 or numbers[1] >= 2**15 or numbers[2] >= 2**31:
        raise InvalidRequest(f"{', '.join(PRODUCER)} are three whole numbers, and come together.")
    return numbers[0], numbers[1], numbers[2]


def token_of(call: Call, body_token: str = "") -> str:
    """The token of an earlier attempt, from the body or from the headers."""
    return body_token or call.request.headers.get(TOKEN, "")


def once_of(call: Call) -> tuple[str, str]:
    """The Idempotency-Key, and the fingerprint of its request; both "" without one. Raises ``InvalidRequest``.

    Source: draft-ietf-httpapi-idempotency-key-header, whose keys are strings in quotes; they are taken without, too.
    """
    key = call.request.headers.get(ONCE)
    if key is None:
        return "", ""
    key = key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
    if not 1 <= len(key) <= ONCE_MAX or not key.isprintable():
        raise InvalidRequest(f"An Idempotency-Key has 1 to {ONCE_MAX} printable characters.")
    return key, fingerprint(call)


def refuse_once(request: Request, route: Route) -> None:
    """Refuse an Idempotency-Key where it would be passed over, since whoever sends one counts on it."""
    if ONCE in request.headers and request.method == "POST" and "Idempotency-Key" not in route.headers:
        raise InvalidRequest("An Idempotency-Key means nothing here; send the request without one.")


def fingerprint(call: Call) -> str:
    """What makes two requests the same: method, path, query, body and its type."""
    import hashlib

    request = call.request
    digest = hashlib.sha256()
    for part in (request.method, request.path, request.raw_query, request.headers.get("content-type", "")):
        digest.update(part.encode() + b"\x00")
    digest.update(request.body)
    return digest.hexdigest()


def producer_name(producer: wire.Producer | None) -> ProducerId | None:
    """A producer in a body, as the verbs say it."""
    return None if producer is None else producer.plain()
