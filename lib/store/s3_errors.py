"""What an answer of S3, or the lack of one, means: did it happen, and what now (C7).

Both clients describe a failure as a ``Failure``; the one table is here. Nothing of a client's own text goes into
an error but the service's code and message: a signature error would otherwise show session tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from headwater.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    HeadwaterError,
    Indeterminate,
    InvalidRequest,
    NotFound,
    Raced,
    Throttled,
    Unauthorized,
    Unavailable,
)

Verb: TypeAlias = Literal["get", "head", "list", "put", "put_if_absent", "put_if_match", "delete"]
Kind: TypeAlias = Literal["answer", "not_sent", "lost", "credentials"]

READS = ("get", "head", "list")
CONDITIONAL = ("put_if_absent", "put_if_match")
WHO_ARE_YOU = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "RequestTimeTooSkewed",  # this machine's clock is wrong
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
}
SLOW_DOWN = {"SlowDown", "ServiceUnavailable", "RequestLimitExceeded", "Throttling", "ThrottlingException"}
SLOW_DOWN |= {"TooManyRequests", "TooManyRequestsException", "SlowDownRead", "SlowDownWrite"}
BODY_LATE = {"RequestTimeout", "IncompleteBody"}  # the service gave up on the body, so it has nothing to apply
ELSEWHERE = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraint"}
RETRY_AFTER_MS = 1_000  # when a throttling service does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a request failed.

    ``answer``: the service answered with ``status`` and, mostly, ``code``. ``not_sent``: no connection came about,
    so the service saw nothing. ``lost``: it was sent, and no whole answer came. ``credentials``: there are none.
    """

    kind: Kind
    status: int = 0
    code: str = ""
    message: str = ""
    retry_after_ms: int = RETRY_AFTER_MS


def translated(failure: Failure, verb: Verb, key: str, url: str, bucket: str) -> HeadwaterError:
    """The error to raise for ``verb`` on ``key`` (for a list: its prefix) of the store ``url``."""
    what = f"{verb} of {key!r} in {url}"
    said = f"{failure.status} {failure.code}".strip() + (f" ({failure.message[:200]})" if failure.message else "")
    if failure.kind == "credentials":
        return Unauthorized(f"The {what} was not sent: there are no usable AWS credentials. {failure.message[:200]}")
    if failure.kind == "not_sent":
        return Unavailable(f"The {what} was not sent: no connection to the store. {failure.message[:200]}")
    if failure.kind == "lost":
        return _unknown(verb, key, f"The {what} was sent and no whole answer came. {failure.message[:200]}")
    if failure.status in (301, 307, 308) or failure.code in ELSEWHERE:
        return InvalidRequest(f"The bucket {bucket!r} is in another region than asked (option region): {said}.")
    if failure.code in WHO_ARE_YOU or failure.status == 401:
        return Unauthorized(f"The store does not accept the credentials for the {what}: {said}.")
    if failure.status == 403:
        return Forbidden(f"The store does not allow the {what}: {said}.")
    if failure.status == 404:
        return _missing(failure, verb, key, url, bucket)
    if failure.status in (409, 412):
        return _lost_race(failure, verb, key, url, said)
    if failure.status == 429 or failure.code in SLOW_DOWN:
        return Throttled(f"The store turned the {what} away: {said}.", retry_after_ms=failure.retry_after_ms)
    if failure.code in BODY_LATE:
        return Unavailable(f"The {what} was not applied: {said}.")
    if failure.status == 501:
        return InvalidRequest(f"The store cannot do the {what}: {said}. Use a store that can.")
    if 400 <= failure.status < 500:
        return InvalidRequest(f"The store refuses the {what}: {said}.")
    return _unknown(verb, key, f"The store failed at the {what}: {said or 'no status'}.")


def _unknown(verb: Verb, key: str, message: str) -> HeadwaterError:
    """A read changes nothing, so it may be asked again; a write may have been applied."""
    return Unavailable(message) if verb in READS else Indeterminate(message, token=key)


def _missing(failure: Failure, verb: Verb, key: str, url: str, bucket: str) -> HeadwaterError:
    # A HEAD has no body, so its 404 does not tell a missing bucket from a missing key.
    if failure.code == "NoSuchBucket" or (verb in ("list", "put", "put_if_absent", "delete") and not failure.code):
        return NotFound(f"There is no bucket {bucket!r} at {url}.", bucket=bucket)
    if verb == "put_if_match":
        return Conflict(f"The object {key!r} in {url} is gone.")
    return NotFound(f"No object {key!r} in {url}.")


def _lost_race(failure: Failure, verb: Verb, key: str, url: str, said: str) -> HeadwaterError:
    if verb not in CONDITIONAL:
        return Unavailable(f"The {verb} of {key!r} in {url} met another operation and was not applied: {said}.")
    if failure.status == 409:
        return Raced(f"A race for {key!r} in {url} was given up, perhaps without a winner: {said}.")
    if verb == "put_if_absent":
        return AlreadyExists(f"The key {key!r} is taken in {url}.")
    return Conflict(f"The object {key!r} in {url} has changed.")
