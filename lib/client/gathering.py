"""Records gather into batches here, partition by partition, in the order in which they came. No I/O, no clock.

    append ──► open item ──(full, or old enough)──► due ──► take ──► in flight ──► settled
                                                      ▲                 │
                                                      └─── put_back ────┘

A partition that is in flight is *busy*: its next items gather on and are due only when it is back. So batches of a
partition are in order, whatever is sent again, and the slower the other side the larger the batches.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from headwater.client.records import RecordMetadata
from headwater.errors import HeadwaterError
from headwater.limits import BATCH_RECORDS_MAX, PRODUCER_BATCHES
from headwater.types import Batch, Header

if TYPE_CHECKING:
    from headwater.log.codec_schema import Compression

T = TypeVar("T")
TP: TypeAlias = tuple[str, int]
Headers: TypeAlias = tuple[Header, ...]
RECORD_OVERHEAD_BYTES = 32  # what a record takes beside its key, value and headers: timestamp, offsets, validity


class Told(asyncio.Future[T]):
    """A future that tells whether somebody has looked at its failure. ``trace`` is the context it was asked for in."""

    trace: Any = None

    @property
    def unseen(self) -> bool:
        """Whether it failed and nobody knows yet."""
        return self.done() and not self.cancelled() and bool(self._log_traceback)

    def hush(self) -> BaseException | None:
        """The error, if it failed, which counts as having been seen from now on."""
        return None if not self.done() or self.cancelled() else self.exception()


Delivery: TypeAlias = Told[RecordMetadata]  # of one record, or of one batch


def together(deliveries: list[Delivery]) -> Told[list[RecordMetadata]]:
    """One future of all of them, which fails with the first error once all are settled."""
    whole: Told[list[RecordMetadata]] = Told()
    left = len(deliveries)

    def landed(done: asyncio.Future[RecordMetadata]) -> None:
        nonlocal left
        left -= 1
        if left or whole.done():
            return
        errors = [error for delivery in deliveries if (error := delivery.hush()) is not None]
        if errors:
            whole.set_exception(errors[0])
        else:
            whole.set_result([delivery.result() for delivery in deliveries])

    for delivery in deliveries:
        delivery.add_done_callback(landed)
    if not deliveries:
        whole.set_result([])
    return whole


class Item:
    """A batch of one partition: rows that still gather, or bytes that were encoded already (``batch``)."""

    __slots__ = (
        "batch", "born_s", "closed", "deliveries", "done", "headers", "keys", "nbytes", "partition", "renewed", "times",
        "topic", "values",
    )  # fmt: skip

    def __init__(self, topic: str, partition: int, born_s: float, batch: Batch | None = None) -> None:
        self.topic = topic
        self.partition = partition
        self.born_s = born_s
        self.batch = batch
        self.nbytes = 0 if batch is None else len(batch.data)
        self.closed = batch is not None
        self.renewed = False  # sent again once already under a new identity
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.times: list[int] = []
        self.headers: list[Headers] = []
        self.deliveries: list[Delivery] = []
        self.done = asyncio.get_running_loop().create_future()

    @property
    def tp(self) -> TP:
        return self.topic, self.partition

    def encode(self, compression: Compression) -> Batch:
        """The batch, encoded at the first call. Raises ``InvalidRequest``. Cost: the compression."""
        if self.batch is None:
            self.batch = encoded(self.keys, self.values, self.times, self.headers, compression)
            self.keys, self.values, self.headers = [], [], []
        return self.batch

    def settle(self, base: int) -> None:
        """Tell everybody where their records lie."""
        topic, partition = self.topic, self.partition
        assert self.batch is not None
        if not self.times:
            placed = RecordMetadata(topic, partition, base, self.batch.timestamp_max, self.batch.count)
            _answer(self.deliveries[0], placed)
        for index, (delivery, timestamp) in enumerate(zip(self.deliveries, self.times, strict=False)):
            _answer(delivery, RecordMetadata(topic, partition, base + index, timestamp))
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Tell everybody that their records are not, or perhaps not, in the log."""
        for delivery in self.deliveries:
            if not delivery.done():
                delivery.set_exception(error)
        if not self.done.done():
            self.done.set_result(None)


def _answer(delivery: Delivery, placed: RecordMetadata) -> None:
    if not delivery.done():
        delivery.set_result(placed)


def encoded(
    keys: list[bytes | None],
    values: list[bytes | None],
    times: list[int],
    headers: list[Headers],
    compression: Compression,
) -> Batch:
    """Rows as one batch of the ``arrow`` codec, whole columns at a time. Raises ``InvalidRequest``."""
    import pyarrow as pa

    from headwater.log.batch import RECORD_SCHEMA, encode_arrow
    from headwater.log.codec_kafka2 import header_column

    columns: list[Any] = [
        pa.array(times, pa.int64()).cast(RECORD_SCHEMA.field("timestamp").type),
        pa.array(keys, pa.binary()),
        pa.array(values, pa.binary()),
        header_column(headers),
    ]
    return encode_arrow(pa.RecordBatch.from_arrays(columns, schema=RECORD_SCHEMA), compression=compression)


class Gathering:
    """What waits to be sent, by partition."""

    def __init__(self, *, batch_bytes: int, linger_s: float, compression: Compression) -> None:
        self.batch_bytes = batch_bytes
        self.linger_s = linger_s
        self.compression: Compression = compression
        self.open: set[Item] = set()  # everything that is not settled, in flight or not
        self._queues: dict[TP, deque[Item]] = {}

    def append(
        self,
        tp: TP,
        key: bytes | None,
        value: bytes | None,
        timestamp: int,
        headers: Headers,
        *,
        nbytes: int,
        now_s: float,
        delivery: Delivery,
    ) -> bool:
        """Add a record. Whether that changes when something is due: it is the first one of an item, or fills it."""
        queue = self._queues.get(tp)
        if queue is None:
            queue = self._queues[tp] = deque()
        item = queue[-1] if queue and not queue[-1].closed else None
        news = item is None
        if item is not None and item.nbytes + nbytes > self.batch_bytes:
            item.closed, item, news = True, None, True
        if item is None:
            item = Item(tp[0], tp[1], now_s)
            queue.append(item)
            self.open.add(item)
        item.keys.append(key)
        item.values.append(value)
        item.times.append(timestamp)
        item.headers.append(headers)
        item.deliveries.append(delivery)
        item.nbytes += nbytes
        if item.nbytes >= self.batch_bytes or len(item.keys) >= BATCH_RECORDS_MAX:
            item.closed = news = True
        return news

    def add(self, item: Item) -> None:
        """Add a batch behind what its partition has gathered, which is closed by it."""
        queue = self._queues.setdefault(item.tp, deque())
        if queue:
            queue[-1].closed = True
        queue.append(item)
        self.open.add(item)

    def close_all(self) -> None:
        """Make everything due at once."""
        for queue in self._queues.values():
            if queue:
                queue[-1].closed = True

    def due_s(self, busy: set[TP]) -> float | None:
        """When the next item is due, on the clock that ``now_s`` is of; None if nothing waits. Past means now."""
        heads = (queue[0] for tp, queue in self._queues.items() if queue and tp not in busy)
        return min((0.0 if head.closed else head.born_s + self.linger_s for head in heads), default=None)

    def take(self, now_s: float, busy: set[TP], bytes_max: int) -> list[Item]:
        """The items that are due, of partitions that are not busy: in order, at most ``PRODUCER_BATCHES`` of each,
        since the log remembers no more of their sequences, and ``bytes_max`` in all, but at least one.
        """
        taken: list[Item] = []
        size = 0
        for tp, queue in self._queues.items():
            if tp in busy:
                continue
            for _ in range(min(PRODUCER_BATCHES, len(queue))):
                head = queue[0]
                if not head.closed and head.born_s + self.linger_s > now_s:
                    break
                if taken and size + head.nbytes > bytes_max:
                    return self._turned(tp, taken)
                head.closed = True
                taken.append(queue.popleft())
                size += head.nbytes
        return taken

    def _turned(self, tp: TP, taken: list[Item]) -> list[Item]:
        """Let the partitions behind ``tp`` go first next time, so that none starves."""
        order = list(self._queues)
        at = order.index(tp)
        self._queues = {place: self._queues[place] for place in order[at:] + order[:at]}
        return taken

    def put_back(self, items: Iterable[Item]) -> None:
        """Put items that were taken in front of their partitions again."""
        for item in reversed(list(items)):
            self._queues.setdefault(item.tp, deque()).appendleft(item)

    def expired(self, before_s: float, busy: set[TP]) -> list[Item]:
        """Take out the items that were born before ``before_s`` and are not in flight."""
        gone: list[Item] = []
        for tp, queue in self._queues.items():
            while tp not in busy and queue and queue[0].born_s < before_s:
                gone.append(queue.popleft())
        return gone

    def drop(self) -> list[Item]:
        """Take out everything that is not in flight."""
        gone = [item for queue in self._queues.values() for item in queue]
        self._queues.clear()
        return gone

    def encode(self, items: list[Item], refuse: Callable[[Item, HeadwaterError], None]) -> list[Item]:
        """The items as bytes; those that cannot be are refused, and not among them."""
        fit = []
        for item in items:
            try:
                item.encode(self.compression)
            except HeadwaterError as error:
                refuse(item, error)
            else:
                fit.append(item)
        return fit
