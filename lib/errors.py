"""The error tree. Every error answers two questions: did it happen, and what now?

    HeadwaterError
      InvalidRequest        not applied   change the request
      Unauthorized          not applied   give valid credentials
      Forbidden             not applied   ask for the right, or stop
      NotFound              not applied   create it, or stop
        OffsetOutOfRange    not applied   fetch inside the range it carries
      Conflict              not applied   someone was first: read, decide again
        AlreadyExists       not applied   the key (or the topic) is taken
        Raced               not applied   a race, maybe without a winner: read, try again
        Fenced              not applied   a newer epoch or generation owns this: stop
      Throttled             not applied   come back after ``retry_after_ms``
      Unavailable           not applied   retry with backoff
        StorageFull         not applied   free some space first: no retry helps
      Indeterminate         unknown       retry only with the same identity
      Corrupt               -             stored bytes break a rule: alarm

``applied`` is "no", "unknown" or "-"; ``status`` is the HTTP status that an edge answers with.
A caller that needs the numbers of a message finds them as attributes, never by parsing text.
"""

from __future__ import annotations


class HeadwaterError(Exception):
    """The root of every error that Headwater raises on purpose."""

    applied = "no"
    status = 500
    what_now = "Read the message and the cause below it."

    def __init__(self, message: str, **data: object) -> None:
        super().__init__(message)
        self.message = message
        self.data = data

    def __str__(self) -> str:
        return self.message

    def as_dict(self) -> dict[str, object]:
        """The error as plain data, for ``--json`` and for HTTP bodies."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "applied": self.applied,
            "what_now": self.what_now,
            **{name: value for name, value in self.data.items() if isinstance(value, str | int | float | bool | None)},
        }


class InvalidRequest(HeadwaterError):
    """The request breaks a rule or a limit. Nothing was done."""

    status = 400
    what_now = "Change the request; the same one will fail again."


class Unauthorized(HeadwaterError):
    """The store or the service does not know who asks."""

    status = 401
    what_now = "Give valid credentials and try again."


class Forbidden(HeadwaterError):
    """The caller is known and may not do this."""

    status = 403
    what_now = "Ask the owner for the right, or stop."


class NotFound(HeadwaterError):
    """What was named does not exist."""

    status = 404
    what_now = "Create it first, or name another."


class OffsetOutOfRange(NotFound):
    """The offset lies outside ``[log_start, high_watermark)`` of the partition."""

    status = 416
    what_now = "Fetch an offset inside the range that the message names."

    def __init__(self, message: str, *, log_start: int, high_watermark: int) -> None:
        super().__init__(message, log_start=log_start, high_watermark=high_watermark)
        self.log_start = log_start
        self.high_watermark = high_watermark


class Conflict(HeadwaterError):
    """Somebody was first, so this was not applied."""

    status = 409
    what_now = "Read the present state and decide again."


class AlreadyExists(Conflict):
    """A key or a name is taken (S3: 412 PreconditionFailed)."""


class Raced(Conflict):
    """A race that the store gave up on, perhaps without a winner (S3: 409 ConditionalRequestConflict)."""

    what_now = "Read the key: if it is free, send the same write again."


class Fenced(Conflict):
    """A newer producer epoch or group generation owns this."""

    what_now = "Stop: another instance has taken over."


class Throttled(HeadwaterError):
    """Too much at once; the request was turned away (S3: 503 SlowDown)."""

    status = 429
    what_now = "Wait for retry_after_ms, then send it again."

    def __init__(self, message: str, *, retry_after_ms: int = 1_000) -> None:
        super().__init__(message, retry_after_ms=retry_after_ms)
        self.retry_after_ms = retry_after_ms


class Unavailable(HeadwaterError):
    """The other side cannot serve now; the request was not applied."""

    status = 503
    what_now = "Try again with backoff."


class StorageFull(Unavailable):
    """The disk or the quota is full. Not retried: it would be full again."""

    status = 507
    what_now = "Free some space, then try again."


class Indeterminate(HeadwaterError):
    """The write was sent and no answer came: it may or may not take effect, now or later.

    ``token`` names the write. Sending it again under the same token tells what became of it;
    sending it under a new one may apply it twice.
    """

    applied = "unknown"
    status = 504
    what_now = "Send it again under the same identity to learn the outcome."

    def __init__(self, message: str, *, token: str = "") -> None:
        super().__init__(message, token=token)
        self.token = token


class Corrupt(HeadwaterError):
    """Stored bytes break a rule of the format. Nothing is skipped: somebody must look."""

    applied = "-"
    what_now = "Raise an alarm, run `headwater verify`, and restore the object from a good copy."


class UpgradeRequired(Corrupt):
    """Stored bytes are of a newer format than this program knows (R9)."""

    what_now = "Upgrade this program first; the data is fine."
