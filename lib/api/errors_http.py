"""The one table from errors to HTTP: status, the REST Proxy's number, headers, and a JSON body.

Every body answers the two questions of ``headwater.errors``: did it happen (``applied``) and what now (``what_now``).
``error_code`` is the Kafka REST Proxy v2's number where it has one, and the status where not.
"""

from __future__ import annotations

import msgspec

from headwater.api.messages import HttpError, Response
from headwater.errors import (
    Corrupt,
    HeadwaterError,
    Indeterminate,
    NotFound,
    OffsetOutOfRange,
    Throttled,
    Unauthorized,
    Unavailable,
)

JSON = "application/json"
KAFKA_JSON = "application/vnd.kafka.v2+json"

TOPIC_NOT_FOUND = 40401
PARTITION_NOT_FOUND = 40402
OUT_OF_RANGE = 41601  # ours: the REST Proxy has no number for it
KAFKA_ERROR = 50002
KAFKA_RETRIABLE_ERROR = 50003


def code_of(error: HeadwaterError) -> int:
    """The ``error_code`` of an error."""
    if isinstance(error, HttpError):
        return error.error_code
    if isinstance(error, OffsetOutOfRange):
        return OUT_OF_RANGE
    if isinstance(error, NotFound):
        return _not_found(error)
    if isinstance(error, Corrupt):
        return KAFKA_ERROR
    return KAFKA_RETRIABLE_ERROR if isinstance(error, Unavailable) else error.status


def respond(error: HeadwaterError, *, dialect: bool = False, name: str = "") -> Response:
    """An error as an answer; the body is the same in the dialect, whose own clients read its first two fields.

    ``name`` is the request's id, by which the log knows it; the body has it as ``id``, whatever the error carries.
    """
    body = {"error_code": code_of(error), **error.as_dict()}
    if name:
        body["id"] = name
    return Response(
        status=error.status,
        headers={"content-type": KAFKA_JSON if dialect else JSON, **headers_of(error)},
        body=msgspec.json.encode(body),
    )


def headers_of(error: HeadwaterError) -> dict[str, str]:
    """What HTTP wants said beside the body: when to come back, how to log in, which methods there are."""
    if isinstance(error, Throttled):
        return {"retry-after": str(max(1, -(-error.retry_after_ms // 1_000)))}
    if isinstance(error, Unavailable):
        return {"retry-after": "1"}
    if isinstance(error, Unauthorized):
        return {"www-authenticate": "Bearer"}
    if isinstance(error, HttpError) and "allow" in error.data:
        return {"allow": str(error.data["allow"])}
    return {}


def unexpected(name: str, reads: bool) -> Response:
    """The answer to an error of our own, which the log of the function knows by ``name``, the id of the request."""
    body = {
        "error_code": 500,
        "error": "InternalError",
        "message": f"The service made a mistake; its log knows it as {name}.",
        "applied": "no" if reads else "unknown",
        "what_now": "Tell the operator the id. Repeat a write only under the same identity.",
        "id": name,
    }
    return Response(status=500, headers={"content-type": JSON}, body=msgspec.json.encode(body))


def too_late(harmless: bool, seconds: float) -> HeadwaterError:
    """The request took all the time that there was. Unless it is ``harmless``, a write may have been sent."""
    if harmless:
        return HttpError(504, f"The answer was not there within {seconds:.1f} s; nothing was done. Ask again, or less.")
    return Indeterminate(f"The request took more than {seconds:.1f} s and was left; it may or may not take effect.")


def _not_found(error: NotFound) -> int:
    reason = error.data.get("reason")
    if "partition" in error.data or reason == "no_partition":
        return PARTITION_NOT_FOUND
    return TOPIC_NOT_FOUND if "topic" in error.data or reason == "no_topic" else error.status
