"""The producer: records in, futures of their places out. Batched, in order, and each exactly once.

    async with Producer("s3://bucket/prefix", value_serializer="json") as producer:
        placed = await producer.send_and_wait("clicks", {"page": "/"}, key="user-1")

``await producer.send(…)`` returns when the record has its place in a batch, with a future of where it will lie.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Unpack

from headwater import tracing
from headwater.client.connection import Connection, ConnectOptions, shown
from headwater.client.encoding import HeadersLike, Partitioner, Topics, row_of
from headwater.client.gathering import Delivery, Gathering, Item, Told, together
from headwater.client.records import RecordMetadata
from headwater.client.sender import Sender, SendOptions
from headwater.client.serializers import SerializerLike, serializer
from headwater.clock import Clock
from headwater.errors import HeadwaterError, InvalidRequest
from headwater.limits import (
    BATCH_BYTES_MAX,
    CLIENT_DIRECT_BYTES_MAX,
    CLIENT_ROWS_MAX,
    CLIENT_UNSEEN_MAX,
    MIB,
    WRITE_BUFFER_BYTES_MAX,
)

if TYPE_CHECKING:
    from types import TracebackType

    import pyarrow as pa

    from headwater.api.verbs import Verbs
    from headwater.client.transaction import Transaction
    from headwater.log.codec_schema import Compression

COMPRESSIONS: dict[str | None, Compression] = {"zstd": "zstd", "lz4": "lz4", "none": None, None: None}


class Producer:
    """Sends records to topics; any number of tasks may use one at once.

    Args:
        target: the URL of a bucket or a service (``connect`` says more), or ``Verbs``.
        linger_ms: how long a record waits for company before its batch is sent.
        batch_size: bytes of records at which a batch is sent without waiting.
        compression: ``zstd``, ``lz4`` or ``none``.
        enable_idempotence: number the batches, so that sending one again never applies it twice.
        acks: ``all``; every acknowledgement comes from the bucket.
        max_in_flight: requests at once. Each partition has one at a time, so order holds for any number.
        buffer_memory: bytes that wait or are in flight; ``send`` waits while there are more.
        delivery_timeout_ms: after this a record that is not acknowledged fails: with ``Unavailable`` if it is surely
            not in the log, with ``Indeterminate`` if it may be.
        transactional_id: for ``transaction()``; a newer producer of this id fences this one.
        partitioner: ``murmur2`` as in Kafka, or a function of key (or None) and the number of partitions.
        connection: what ``connect`` takes besides the URL: namespace, token, auth, …
    """

    def __init__(
        self,
        target: str | Verbs,
        *,
        linger_ms: float = 5,
        batch_size: int = MIB,
        compression: Literal["zstd", "lz4", "none"] | None = "zstd",
        enable_idempotence: bool = True,
        acks: Literal["all", -1] = "all",
        max_in_flight: int = 5,
        buffer_memory: int = WRITE_BUFFER_BYTES_MAX,
        delivery_timeout_ms: float = 120_000,
        transactional_id: str = "",
        key_serializer: SerializerLike = None,
        value_serializer: SerializerLike = None,
        partitioner: Partitioner = "murmur2",
        clock: Clock | None = None,
        rng: random.Random | None = None,
        **connection: Unpack[ConnectOptions],
    ) -> None:
        if acks not in ("all", -1):
            raise InvalidRequest(f"acks is 'all', not {acks!r}: whatever is acknowledged here is in the bucket.")
        if compression not in COMPRESSIONS:
            raise InvalidRequest(f"The compression is zstd, lz4 or none, not {compression!r}.")
        if not 1 <= batch_size <= BATCH_BYTES_MAX // 2:
            raise InvalidRequest(f"batch_size is 1 to {BATCH_BYTES_MAX // 2} bytes, not {batch_size}.")
        if linger_ms < 0 or delivery_timeout_ms <= 0 or max_in_flight < 1 or buffer_memory < 1:
            raise InvalidRequest("linger_ms is 0 or more; max_in_flight, buffer_memory and timeouts are more than 0.")
        self.transactional_id = transactional_id
        self.batch_size = batch_size
        self.linger_s = linger_ms / 1_000
        self.delivery_timeout_s = delivery_timeout_ms / 1_000
        self.compression: Compression = COMPRESSIONS[compression]
        self._connection = Connection(target, clock=clock, rng=rng, **connection)
        self.clock = self._connection.clock
        self.rng = self._connection.rng
        self._serializers = serializer(key_serializer), serializer(value_serializer)
        self._partitioner: Partitioner = partitioner
        self.request_bytes_max = CLIENT_DIRECT_BYTES_MAX  # less where a service stands in between
        self._options = SendOptions(
            idempotent=enable_idempotence,
            requests_max=max_in_flight,
            delivery_timeout_s=self.delivery_timeout_s,
        )
        self._buffer_bytes_max = buffer_memory
        self._buffered = self._unyielded = 0
        self._door = asyncio.Lock()
        self._room = asyncio.Event()
        self._failed: deque[Told[Any]] = deque(maxlen=CLIENT_UNSEEN_MAX)
        self._topics: Topics | None = None
        self._sender: Sender | None = None
        self._transactions: Any = None

    def __repr__(self) -> str:
        return f"Producer({shown(self._connection._target)})"

    # -- its life --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, and begin to send. ``async with`` does it. A second call does nothing."""
        if self._topics is not None:
            return
        verbs = await self._connection.open()
        self.request_bytes_max = getattr(verbs, "request_bytes_max", CLIENT_DIRECT_BYTES_MAX)
        self._options = replace(self._options, request_bytes_max=self.request_bytes_max)
        self._topics = Topics(
            verbs, partitioner=self._partitioner, batch_bytes=self.batch_size, clock=self.clock, rng=self.rng
        )
        if self.transactional_id:
            from headwater.client.transaction import Transactions

            self._transactions = Transactions(self, verbs)
            return
        self._sender = Sender(
            verbs, self.gathering(), self._options, clock=self.clock, rng=self.rng, settled=self._note
        )
        self._sender.start()

    async def stop(self) -> None:
        """Send what is left, and let go. Raises what ``flush`` raises, after letting go. A second call does nothing."""
        try:
            if self._sender is not None:
                await self.flush()
        finally:
            sender, self._sender, self._topics, self._transactions = self._sender, None, None, None
            if sender is not None:
                await sender.close()
            await self._connection.close()

    async def __aenter__(self) -> Producer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        except HeadwaterError:
            if error is None:
                raise  # else the error that ended the block is the story to tell

    # -- sending ------------------------------------------------------------------------------------------

    async def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        *,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: HeadersLike | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        """Give a record its place in a batch; returns the future of its place in the log.

        Waits while the buffer is full, and up to a minute to learn of a topic from a service that is away. Records of
        one partition are in the order of the calls.

        Raises:
            InvalidRequest, NotFound: not sent: the record, the topic or the partition is wrong.
            Unavailable: not sent: nobody said how many partitions the topic has.
            (by the future) Unavailable: not in the log; Indeterminate: perhaps in the log; and what the service said.

        Cost: about 5 us; 1 request for all that gathers within ``linger_ms``.
        """
        if self.transactional_id:
            raise InvalidRequest(
                "This producer is transactional: `async with producer.transaction() as t` and t.send()."
            )
        sender, topics = self._running()
        row = row_of(topic, key, value, headers, self._serializers)
        now_s = self.clock.elapsed_s()
        partitions = topics.known(topic, now_s) or await topics.count(topic)
        if partition is None:
            partition = topics.partition(topic, row, partitions)
        elif not 0 <= partition < partitions:
            await self._recheck(topic, partition)
        if self._door.locked() or self._buffered + row.nbytes > self._buffer_bytes_max:
            await self._wait_for_room(row.nbytes)
        self._buffered += row.nbytes
        delivery: Delivery = Told()
        if tracing.is_on():
            delivery.trace = tracing.here()
        timestamp = self.clock.wall_ms() if timestamp_ms is None else timestamp_ms
        if sender.gathering.append(
            (topic, partition),
            row.key,
            row.value,
            timestamp,
            row.headers,
            nbytes=row.nbytes,
            now_s=now_s,
            delivery=delivery,
        ):
            sender.poke()
        self._unyielded += row.nbytes
        if self._unyielded >= self.batch_size:
            self._unyielded = 0
            await self.clock.sleep(0)  # a program that only sends must let the sender run as well
        return delivery

    async def send_and_wait(self, topic: str, value: Any = None, key: Any = None, **record: Any) -> RecordMetadata:
        """``send``, and wait until it is in the log."""
        return await (await self.send(topic, value, key, **record))

    async def send_batch(
        self, topic: str, data: pa.Table | pa.RecordBatch, *, partition: int | None = None
    ) -> asyncio.Future[list[RecordMetadata]]:
        """Send an Arrow table with the columns value, and perhaps key, timestamp and headers: the fast way.

        Rows go to partitions by the ``key`` column, all of them to ``partition`` if one is given. The future has one
        ``RecordMetadata`` for each batch that was made of the table, with its ``count``.

        Raises:
            InvalidRequest: a column or a row does not fit, and nothing is sent.

        Cost: hashing and compression, about 3 M records/s of 100 B; nothing is done for a single record.
        """
        if self.transactional_id:
            raise InvalidRequest("This producer is transactional: begin a transaction, and use its send_batch().")
        sender, topics = self._running()
        items = await self.items_of(topics, topic, data, partition)
        deliveries = []
        for item in items:
            await self._wait_for_room(item.nbytes)
            self._buffered += item.nbytes
            delivery: Delivery = Told()
            if tracing.is_on():
                delivery.trace = tracing.here()
            item.deliveries.append(delivery)
            sender.gathering.add(item)
            sender.poke()
            deliveries.append(delivery)
        whole = together(deliveries)
        whole.add_done_callback(lambda done: self._failed.append(whole) if whole.unseen else None)
        return whole

    async def send_table(
        self,
        topic: str,
        data: pa.Table | pa.RecordBatch,
        *,
        key: str = "",
        timestamp: str = "",
        partition: int | None = None,
    ) -> asyncio.Future[list[RecordMetadata]]:
        """Send the rows of a table whose columns are those of the topic's schema: each becomes one value.

        Columns that may be null may be missing. ``key`` and ``timestamp`` name columns that are a record's key (as
        text) and time as well. What readers get back as typed columns is this table.

        Raises:
            InvalidRequest: the topic has no schema, or a column or a row does not fit; nothing is sent.
            NotFound: no such topic.

        Cost: 1 request for the schema, about 9 µs a row of 20 columns for JSON and 33 µs for Avro, and ``send_batch``.
        """
        from headwater.client.schemas import records_of_table

        self._running(any_kind=True)
        versions = await self._connection.verbs.schemas(topic)
        records = records_of_table(topic, versions, data, key=key, timestamp=timestamp)
        return await self.send_batch(topic, records, partition=partition)

    async def flush(self) -> None:
        """Return when everything that was sent before is settled.

        Raises the first error of a record whose future nobody has looked at, so that no loss goes unnoticed.
        """
        sender, _ = self._running()
        await sender.flush()
        failed, self._failed = self._failed, deque(maxlen=CLIENT_UNSEEN_MAX)
        errors = [delivery.hush() for delivery in failed if delivery.unseen]
        for error in errors:
            if error is not None:
                raise error

    async def partitions_for(self, topic: str) -> set[int]:
        """The partitions of a topic. Raises ``NotFound``."""
        _, topics = self._running(any_kind=True)
        return set(range(await topics.count(topic)))

    def transaction(self) -> Transaction:
        """A transaction: ``async with producer.transaction() as t`` commits at its end and aborts on an exception.

        Raises ``InvalidRequest`` without a transactional id, and while another one is open.
        """
        if not self.transactional_id:
            raise InvalidRequest("A transaction needs a producer with a transactional_id.")
        self._running(any_kind=True)
        made: Transaction = self._transactions.begin()
        return made

    # -- what a transaction uses as well -----------------------------------------------------------------

    @property
    def topics(self) -> Topics:
        """What is known of topics."""
        return self._running(any_kind=True)[1]

    def gathering(self) -> Gathering:
        """A new place for records to gather, by this producer's settings."""
        return Gathering(batch_bytes=self.batch_size, linger_s=self.linger_s, compression=self.compression)

    async def items_of(
        self, topics: Topics, topic: str, data: pa.Table | pa.RecordBatch, partition: int | None
    ) -> list[Item]:
        """A table as encoded batches. Raises ``InvalidRequest``, ``NotFound``."""
        import pyarrow as pa

        from headwater.log.batch import encode_arrow

        table = pa.Table.from_batches([data]) if isinstance(data, pa.RecordBatch) else data
        if not isinstance(table, pa.Table):
            raise InvalidRequest(f"A batch is an Arrow Table or RecordBatch, not {type(data).__name__}.")
        partitions = await topics.count(topic)
        if partition is None:
            parts = topics.split(topic, table, partitions)
        else:
            if not 0 <= partition < partitions:
                await self._recheck(topic, partition)
            parts = {partition: table}
        now_ms, now_s = self.clock.wall_ms(), self.clock.elapsed_s()
        return [
            Item(topic, index, now_s, encode_arrow(piece, compression=self.compression, default_timestamp=now_ms))
            for index, part in parts.items()
            for piece in _pieces(part, self.batch_size)
        ]

    async def _recheck(self, topic: str, partition: int) -> None:
        """The topic may have grown since it was looked up."""
        _, topics = self._running(any_kind=True)
        topics.forget(topic)
        Topics.checked(topic, partition, await topics.count(topic))

    # -- the buffer ---------------------------------------------------------------------------------------

    async def _wait_for_room(self, nbytes: int) -> None:
        """Wait until the buffer has room, in the order of the callers: memory is bounded however fast they are."""
        async with self._door:
            while self._buffered and self._buffered + nbytes > self._buffer_bytes_max:
                self._room.clear()
                if self._sender is not None:
                    self._sender.gathering.close_all()  # a full buffer gains nothing by lingering
                    self._sender.poke()
                await self._room.wait()

    def _note(self, item: Item) -> None:
        """An item is settled: its bytes are free, and its failures wait for somebody to look at them."""
        self._buffered -= item.nbytes
        self._room.set()
        if item.deliveries[0].unseen:
            self._failed.extend(item.deliveries)

    def _running(self, *, any_kind: bool = False) -> tuple[Sender, Topics]:
        if self._topics is None or (self._sender is None and not any_kind):
            raise InvalidRequest("This producer is not running: use it as `async with …`, or await start() first.")
        if self._sender is not None and self._sender.failure is not None:
            raise RuntimeError("The producer broke down and sends nothing any more.") from self._sender.failure
        return self._sender, self._topics  # type: ignore[return-value]


def _pieces(table: pa.Table, batch_bytes: int) -> list[pa.Table]:
    """The table in pieces of about ``batch_bytes`` each, so that a batch stays within its bounds."""
    rows = table.num_rows
    if not rows:
        return []
    step = min(max(rows * batch_bytes // max(table.nbytes, 1), 1), CLIENT_ROWS_MAX)
    return [table.slice(at, step) for at in range(0, rows, step)]
