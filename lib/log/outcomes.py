"""From the fold's outcome to the caller's error: the one table."""

from __future__ import annotations

from headwater.errors import (
    AlreadyExists,
    Conflict,
    Corrupt,
    Fenced,
    HeadwaterError,
    InvalidRequest,
    NotFound,
)
from headwater.log.state import Outcome


class OutOfOrder(Conflict):
    """A sequence number does not follow the last one: a batch before it is missing, or it is too old a repetition."""

    what_now = "Do not skip or reorder batches; after a lost one, take a new epoch and go on from what is committed."


class UnknownProducer(Conflict):
    """The producer id was never given out, or was forgotten after a long silence."""

    what_now = "Ask for a new producer id and check what was committed before sending again."


class UnknownMember(Conflict):
    """The group has let go of this member: it left, its session ended, or its static successor took its place."""

    what_now = "Give up every partition without committing, and join again under a new member id."


class Rebalancing(Conflict):
    """The group is between two generations (classic protocol)."""

    what_now = "Join again, then go on with what you are assigned."


class KeyReused(Conflict):
    """An Idempotency-Key came with another request than the first time."""

    status = 422
    what_now = "Take a fresh key for a new request; repeat a request only as it was."


class ExpiredTransaction(Conflict):
    """The transaction was open for longer than it had said. Nothing of it is visible."""

    what_now = "Begin a new transaction and do it anew, with a longer timeout_ms if it needs one."


class ExpiredUpload(Conflict):
    """The upload was not committed in time. Nothing of it is visible."""

    what_now = "Ask for a new upload and send the bytes again."


_ERRORS: dict[str, type[HeadwaterError]] = {
    "no_topic": NotFound,
    "no_partition": NotFound,
    "no_group": NotFound,
    "gone": NotFound,
    "exists": AlreadyExists,
    "fenced": Fenced,
    "stale": Conflict,
    "ended": Conflict,
    "incompatible": Conflict,
    "group_busy": Conflict,
    "not_expired": Conflict,
    "group_full": Conflict,
    "group_kind": Conflict,
    "inconsistent_protocol": Conflict,
    "unknown_member": UnknownMember,
    "rebalancing": Rebalancing,
    "key_reused": KeyReused,
    "no_key": NotFound,
    "no_user": NotFound,
    "too_many": InvalidRequest,
    "out_of_order": OutOfOrder,
    "unknown_producer": UnknownProducer,
    "invalid": InvalidRequest,
    "out_of_range": InvalidRequest,
}


def checked(outcome: Outcome) -> Outcome:
    """The outcome if the intent was applied; else the error that its refusal means. Nothing of it was applied."""
    if not outcome.error:
        return outcome
    refusal = _ERRORS.get(outcome.error, Corrupt)
    raise refusal(f"{outcome.message} (decided by manifest {outcome.seq})", reason=outcome.error)
