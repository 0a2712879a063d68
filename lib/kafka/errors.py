"""From our errors to Kafka's codes, with the text for those answers that carry one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kio.schema.errors import ErrorCode

from headwater import errors
from headwater.kafka.messages import Fields
from headwater.log import outcomes

_CODES: Final[Mapping[type[errors.HeadwaterError], ErrorCode]] = {
    errors.HeadwaterError: ErrorCode.unknown_server_error,
    errors.InvalidRequest: ErrorCode.invalid_request,
    errors.Unauthorized: ErrorCode.sasl_authentication_failed,
    errors.Forbidden: ErrorCode.topic_authorization_failed,
    errors.NotFound: ErrorCode.unknown_topic_or_partition,
    errors.OffsetOutOfRange: ErrorCode.offset_out_of_range,
    errors.Conflict: ErrorCode.invalid_request,
    errors.AlreadyExists: ErrorCode.topic_already_exists,
    errors.Fenced: ErrorCode.invalid_producer_epoch,
    errors.Throttled: ErrorCode.throttling_quota_exceeded,
    errors.Unavailable: ErrorCode.not_enough_replicas,  # nothing was appended, and clients try again
    errors.Indeterminate: ErrorCode.not_enough_replicas_after_append,  # perhaps it was; an idempotent retry finds out
    errors.StorageFull: ErrorCode.kafka_storage_error,
    errors.Corrupt: ErrorCode.kafka_storage_error,
    outcomes.OutOfOrder: ErrorCode.out_of_order_sequence_number,
    outcomes.UnknownProducer: ErrorCode.unknown_producer_id,
    outcomes.UnknownMember: ErrorCode.unknown_member_id,
    outcomes.Rebalancing: ErrorCode.rebalance_in_progress,
}


class Refusal(errors.InvalidRequest):
    """What Kafka has a code of its own for, and we have no error. Nothing was done."""

    def __init__(self, code: ErrorCode, message: str, **data: object) -> None:
        super().__init__(message, **data)
        self.code = code


def code_of(error: errors.HeadwaterError, **special: ErrorCode) -> ErrorCode:
    """Kafka's code. ``special`` has other codes for classes by name, as in ``Fenced=ErrorCode.illegal_generation``.

    A refusal brings its own; else a more special class is looked for first.
    """
    if isinstance(error, Refusal):
        return error.code
    for kind in type(error).__mro__:
        if kind.__name__ in special:
            return special[kind.__name__]
        if kind in _CODES:
            return _CODES[kind]
    return ErrorCode.unknown_server_error


def told(error: errors.HeadwaterError, **special: ErrorCode) -> Fields:
    """The code and the text, for what has fields for both. ``special`` as for ``code_of``."""
    return {"error_code": code_of(error, **special), "error_message": error.message}
