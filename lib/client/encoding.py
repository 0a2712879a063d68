"""What a producer does with a record before it is sent: serialize it, choose its partition, count its bytes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from headwater import tracing
from headwater.client.backoff import Backoff
from headwater.client.gathering import RECORD_OVERHEAD_BYTES, Headers
from headwater.client.serializers import Serializer, plain
from headwater.clock import Clock
from headwater.errors import HeadwaterError, Indeterminate, InvalidRequest, Throttled, Unavailable
from headwater.limits import CLIENT_BLOCK_S, CLIENT_KEYS_CACHED_MAX, CLIENT_METADATA_AGE_S, RECORD_BYTES_MAX
from headwater.types import Header

if TYPE_CHECKING:
    import pyarrow as pa

    from headwater.api.verbs import TopicInfo, Verbs
    from headwater.log.partitioner import Sticky

HeadersLike: TypeAlias = Mapping[str, bytes | str | None] | Iterable[tuple[str, bytes | str | None]]
Partitioner: TypeAlias = Literal["murmur2"] | Callable[[bytes | None, int], int]


class Row(msgspec.Struct, frozen=True, gc=False):
    """A record as bytes. A msgspec struct, since one is made for each record."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    nbytes: int


def row_of(
    topic: str, key: Any, value: Any, headers: HeadersLike | None, serializers: tuple[Serializer, Serializer]
) -> Row:
    """The record as bytes. Raises ``InvalidRequest``: a serializer refuses it, or it is too large."""
    key_bytes = _serialized(topic, "key", key, serializers[0])
    value_bytes = _serialized(topic, "value", value, serializers[1])
    pairs = headers_of(headers) if headers else ()
    if tracing.is_on() and not any(name == tracing.PARENT for name, _ in pairs):
        pairs += tracing.inject()
    size = (len(key_bytes) if key_bytes else 0) + (len(value_bytes) if value_bytes else 0)
    if pairs:
        size += sum(len(name) + len(data or b"") for name, data in pairs)
    if size > RECORD_BYTES_MAX:
        raise InvalidRequest(
            f"The record for topic {topic!r} has {size} bytes; at most {RECORD_BYTES_MAX} are allowed."
        )
    return Row(key_bytes, value_bytes, pairs, size + RECORD_OVERHEAD_BYTES)


def headers_of(headers: HeadersLike) -> tuple[Header, ...]:
    """Headers as pairs of text and bytes. Raises ``InvalidRequest``."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    try:
        made = tuple((key, plain(value)) for key, value in pairs)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"Headers are a mapping or pairs of name and bytes: {error}") from error
    for key, _ in made:
        if not isinstance(key, str):
            raise InvalidRequest(f"A header's name is text, not {type(key).__name__}.")
    return made


def _serialized(topic: str, what: str, given: Any, serialize: Serializer) -> bytes | None:
    if given is None or (serialize is plain and type(given) is bytes):
        return given
    try:
        made = serialize(given)
    except HeadwaterError:
        raise
    except Exception as error:
        raise InvalidRequest(f"The {what} serializer refused a record for topic {topic!r}: {error!r}") from error
    if made is not None and not isinstance(made, bytes):
        raise InvalidRequest(f"The {what} serializer made {type(made).__name__} of a record, not bytes.")
    return made


class Topics:
    """What is known of topics: how many partitions they have, and which partition comes next without a key."""

    def __init__(
        self, verbs: Verbs, *, partitioner: Partitioner, batch_bytes: int, clock: Clock, rng: random.Random
    ) -> None:
        if partitioner != "murmur2" and not callable(partitioner):
            raise InvalidRequest(f"The partitioner is 'murmur2' or a function of key and count, not {partitioner!r}.")
        self.verbs = verbs
        self.clock = clock
        self.rng = rng
        self.commit = 0  # the newest manifest that an answer spoke of
        self._partitioner = partitioner
        self._batch_bytes = batch_bytes
        self._known: dict[str, tuple[int, float]] = {}
        self._asking: dict[str, asyncio.Task[TopicInfo]] = {}
        self._chosen: dict[tuple[str, int], dict[bytes, int]] = {}
        self._sticky: dict[str, Sticky] = {}

    def known(self, topic: str, now_s: float) -> int:
        """The partitions of a topic as last heard, 0 if that is too long ago."""
        count, until_s = self._known.get(topic, (0, 0.0))
        return count if now_s < until_s else 0

    async def count(self, topic: str) -> int:
        """The partitions of a topic; a service that is away for a while is asked again.

        Raises ``NotFound``, and what else the verb raises; ``Unavailable`` after ``CLIENT_BLOCK_S``.
        """
        if found := self.known(topic, self.clock.elapsed_s()):
            return found
        task = self._asking.get(topic)
        if task is None:
            # One question, however many records wait for its answer.
            task = self._asking[topic] = asyncio.get_running_loop().create_task(self._ask(topic))
            task.add_done_callback(lambda done: self._asking.pop(topic, None))
        info = await asyncio.shield(task)
        return len(info.partitions)

    async def _ask(self, topic: str) -> TopicInfo:
        backoff, deadline_s = Backoff(self.clock, self.rng), self.clock.elapsed_s() + CLIENT_BLOCK_S
        while True:
            try:
                info = await self.verbs.topic(topic)
                break
            except (Throttled, Unavailable, Indeterminate) as error:
                if not await backoff.pause(error, deadline_s):
                    raise
        self._known[topic] = (len(info.partitions), self.clock.elapsed_s() + CLIENT_METADATA_AGE_S)
        self.commit = max(self.commit, info.commit)
        return info

    def forget(self, topic: str) -> None:
        """Look it up again next time."""
        self._known.pop(topic, None)

    def partition(self, topic: str, row: Row, partitions: int) -> int:
        """Where a record without a given partition goes."""
        if callable(self._partitioner):
            return self.checked(topic, self._partitioner(row.key, partitions), partitions)
        if row.key is None:
            return self.sticky(topic, partitions, row.nbytes)
        chosen = self._chosen.setdefault((topic, partitions), {})
        partition = chosen.get(row.key)
        if partition is None:
            from headwater.log.partitioner import partition_of

            if len(chosen) >= CLIENT_KEYS_CACHED_MAX:
                chosen.clear()
            partition = chosen[row.key] = partition_of(row.key, partitions)
        return partition

    def sticky(self, topic: str, partitions: int, nbytes: int) -> int:
        """Where the next ``nbytes`` bytes of records without a key go."""
        from headwater.log.partitioner import Sticky

        if topic not in self._sticky:
            self._sticky[topic] = Sticky(self._batch_bytes, self.rng)
        return self._sticky[topic].take(partitions, nbytes)

    def split(self, topic: str, table: pa.Table, partitions: int) -> dict[int, pa.Table]:
        """The rows of a table by their partition, whole columns at a time."""
        from headwater.log import partitioner

        if callable(self._partitioner):
            raise InvalidRequest("A partitioner of your own knows single keys: name the partition of the batch.")
        return partitioner.split(table, partitions, self.sticky(topic, partitions, table.nbytes))

    @staticmethod
    def checked(topic: str, partition: Any, partitions: int) -> int:
        """The partition, if there is one of that number. Raises ``InvalidRequest``."""
        if not isinstance(partition, int) or not 0 <= partition < partitions:
            raise InvalidRequest(
                f"Topic {topic!r} has partitions 0 to {partitions - 1}, and no partition {partition!r}.",
                topic=topic,
            )
        return partition
