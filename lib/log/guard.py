"""The one place where values meet the schema of their topic on the way in: before anything of them is stored.

The log does not know what a schema means. The layer above does (``headwater.schemas.guard``), and it is loaded by name
when the first batch for a topic with a schema comes by: a topic without one costs a look into the state, and imports
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from headwater.errors import Indeterminate, InvalidRequest
from headwater.log.config import TopicConfig
from headwater.log.operations import AnyOp, Once
from headwater.log.state import State, Topic

if TYPE_CHECKING:
    from headwater.log.writer import Append

_CHECKER = "headwater.schemas.guard"


def refuse_misfits(state: State, appends: Sequence[Append], ops: Sequence[AnyOp] = (), *, token: str = "") -> None:
    """Refuse batches with a value that does not fit its topic's schema, or without a key that its topic needs.

    Of a batch into which nobody has looked it is not known whether all of its records have a key.

    What may be a repetition (it has the ``token`` of an earlier attempt, or an idempotency key among its ``ops``) may
    fit any version: the first attempt may have passed by an older one. With a token a batch that fits none may have
    been sent before the topic had a schema, and then nothing is known of that attempt.

    Raises:
        InvalidRequest: names the batch, the row and the field. Nothing was applied.
        Indeterminate: as above.
    """
    for number, append in enumerate(appends):
        topic = state.topics.get(append.topic)
        if topic is None or not (topic.schemas or append.batch.keyless >= 0):
            continue
        batch = "the batch" if len(appends) == 1 else f"batch {number}"
        where = f"of {batch} for topic {topic.name!r}, partition {append.partition},"
        try:
            _refuse_keyless(topic, append.batch.keyless, where)
            if topic.schemas:
                check: Any = import_module(_CHECKER).check
                check(topic.schemas, append.batch, where, bool(token) or any(isinstance(op, Once) for op in ops))
        except InvalidRequest as error:
            if token:
                raise Indeterminate(f"{error.message} What the first attempt did is not known.", token=token) from error
            raise


def _refuse_keyless(topic: Topic, row: int, where: str) -> None:
    """A compacted topic keeps the latest record of each key, so it takes none without one, as in Kafka."""
    if row >= 0 and "compact" in topic.config.get("cleanup.policy", "") and TopicConfig.of(topic.config).compact:
        raise InvalidRequest(
            f"Row {row} {where} has no key, and a topic with cleanup.policy=compact takes only records that have one.",
            row=row,
        )
