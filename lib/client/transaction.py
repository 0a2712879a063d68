"""Transactions: records of many partitions and a group's offsets that become visible together, or not at all.

    async with Producer(url, transactional_id="enricher") as producer:
        async with producer.transaction() as t:
            await t.send("out", value)
            await t.send_offsets(consumer.positions(), consumer)

Nothing is sent before the commit, which is one request and one conditional write; so an abort costs nothing, and no
reader ever waits for an open transaction. Only what exceeds one request is sent ahead, as part of a transaction of
several requests, and no manifest names it before the commit either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from headwater import tracing
from headwater.client.backoff import Backoff
from headwater.client.encoding import HeadersLike, Topics, row_of
from headwater.client.gathering import Delivery, Item, Told, together
from headwater.client.records import GroupMetadata, OffsetAndMetadata, RecordMetadata
from headwater.client.sender import request_span
from headwater.errors import Fenced, HeadwaterError, Indeterminate, InvalidRequest, StorageFull, Throttled, Unavailable
from headwater.log.outcomes import UnknownProducer

if TYPE_CHECKING:
    from types import TracebackType

    import pyarrow as pa

    from headwater.api.verbs import Batch, GroupOffsets, ProducerId, Verbs, Written
    from headwater.client.producer import Producer

OffsetsLike: TypeAlias = Mapping[Any, int | OffsetAndMetadata]  # by TopicPartition, or the plain pair


class InGroup(Protocol):
    """A consumer, as far as a transaction needs it."""

    def group_metadata(self) -> GroupMetadata: ...


class Transactions:
    """The transactions of one producer, one after the other, and the identity that they hand on."""

    def __init__(self, producer: Producer, verbs: Verbs) -> None:
        self.producer = producer
        self.verbs = verbs
        self.identity: ProducerId | None = None
        self.fenced: Fenced | None = None
        self._open: Transaction | None = None

    def begin(self) -> Transaction:
        """A new one. Raises ``InvalidRequest`` while another is open, ``Fenced`` once a newer producer took over."""
        if self.fenced is not None:
            raise Fenced(self.fenced.message)
        if self._open is not None and self._open.state in ("open", "indeterminate"):
            raise InvalidRequest(
                f"A transaction of {self.producer.transactional_id!r} is {self._open.state}: commit or abort it first."
            )
        self._open = Transaction(self)
        return self._open

    async def identify(self) -> ProducerId:
        """The producer's identity; taken at the first transaction, which fences all producers before this one."""
        if self.identity is None:
            identifying = self.verbs.init_producer
            self.identity = await self.persist(lambda: identifying(self.producer.transactional_id))
        return self.identity

    async def persist(self, call: Any) -> Any:
        """Make a call that may be repeated, again and again until ``delivery_timeout_ms``."""
        producer = self.producer
        backoff = Backoff(producer.clock, producer.rng)
        deadline_s = producer.clock.elapsed_s() + producer.delivery_timeout_s
        while True:
            try:
                return await call()
            except StorageFull:
                raise
            except (Throttled, Unavailable, Indeterminate) as error:
                if not await backoff.pause(error, deadline_s):
                    raise


class Transaction:
    """One transaction: ``async with`` it. ``state`` is open, committed, aborted or indeterminate."""

    def __init__(self, transactions: Transactions) -> None:
        self.state = "open"
        self.written: Written | None = None
        self._all = transactions
        self._producer = transactions.producer
        self._gathering = self._producer.gathering()
        self._items: list[Item] = []  # in the order of the request
        self._offsets: list[GroupOffsets] = []
        self._nbytes = 0
        self._token = ""
        self._server_side = ""  # the id of the transaction of several requests, once one was needed
        self._adding = asyncio.Lock()

    async def __aenter__(self) -> Transaction:
        await self._all.identify()  # whoever was fenced hears of it before working
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if self.state == "open":
                await self.commit()
        elif self.state == "open":
            await self.abort()

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
        """Add a record. The future is done when the transaction is: with its place, or with why it has none.

        Raises ``InvalidRequest`` and ``NotFound`` as ``Producer.send``; the transaction stays open.
        """
        self._check_open()
        producer, topics = self._producer, self._producer.topics
        row = row_of(topic, key, value, headers, producer._serializers)
        partitions = topics.known(topic, producer.clock.elapsed_s()) or await topics.count(topic)
        if partition is None:
            partition = topics.partition(topic, row, partitions)
        else:
            Topics.checked(topic, partition, partitions)
        delivery = self._delivery()
        self._gathering.append(
            (topic, partition),
            row.key,
            row.value,
            producer.clock.wall_ms() if timestamp_ms is None else timestamp_ms,
            row.headers,
            nbytes=row.nbytes,
            now_s=producer.clock.elapsed_s(),
            delivery=delivery,
        )
        await self._grow(row.nbytes)
        return delivery

    async def send_batch(
        self, topic: str, data: pa.Table | pa.RecordBatch, *, partition: int | None = None
    ) -> asyncio.Future[list[RecordMetadata]]:
        """Add an Arrow table, as ``Producer.send_batch`` takes it."""
        self._check_open()
        items = await self._producer.items_of(self._producer.topics, topic, data, partition)
        deliveries = []
        for item in items:
            item.deliveries.append(self._delivery())
            deliveries += item.deliveries
            self._gathering.add(item)
            await self._grow(item.nbytes)
        return together(deliveries)

    async def send_offsets(self, offsets: OffsetsLike, group: InGroup | GroupMetadata | str) -> None:
        """Commit a group's offsets with the transaction (KIP-447): fenced by the consumer's place in its group."""
        from headwater.api.verbs import GroupOffset, GroupOffsets

        self._check_open()
        if isinstance(group, str):
            group = GroupMetadata(group)
        whose = group if isinstance(group, GroupMetadata) else group.group_metadata()
        places = {tp: OffsetAndMetadata(given) if isinstance(given, int) else given for tp, given in offsets.items()}
        self._offsets.append(
            GroupOffsets(
                group=whose.group,
                offsets={
                    (tp[0], tp[1]): GroupOffset(offset=place.offset, metadata=place.metadata)
                    for tp, place in places.items()
                },
                member=whose.member,
                generation=whose.generation,
            )
        )

    async def commit(self) -> Written | None:
        """Make it all visible; what was written, or None if there was nothing to write.

        Raises:
            Fenced: a newer producer or a newer owner of the partitions has taken over. Nothing is visible. Stop.
            NotFound, InvalidRequest, Conflict: nothing is visible, and nothing will be: do it anew.
            Unavailable, Throttled: nothing is visible, and the transaction is still open: commit again, or abort.
            Indeterminate: call ``commit`` again: it takes effect once, and then says so.
        """
        if self.state not in ("open", "indeterminate"):
            raise InvalidRequest(f"This transaction is {self.state}; begin a new one.")
        self._collect()
        if not (self._items or self._offsets or self._server_side):
            self.state = "committed"
            return None
        try:
            self.written = await self._commit()
        except Indeterminate as error:
            self.state, self._token = "indeterminate", error.token or self._token
            raise
        except (Unavailable, Throttled):
            raise
        except HeadwaterError as error:
            self._end("aborted", error)
            if isinstance(error, Fenced) and await self._was_overtaken():
                self._all.fenced = error
            elif isinstance(error, UnknownProducer):
                self._all.identity = None
            raise
        except BaseException:
            self.state = "indeterminate"
            raise
        self._all.identity = self.written.producer
        self.state = "committed"
        for item, placed in zip(self._items, self.written.appended, strict=True):
            item.settle(placed.base_offset)
        return self.written

    async def abort(self) -> None:
        """Forget it. Nothing was visible, nothing will be. Raises ``InvalidRequest`` if a commit is undecided."""
        if self.state == "aborted":
            return
        if self.state != "open":
            raise InvalidRequest(f"This transaction is {self.state} and cannot be aborted.")
        server_side, self._server_side = self._server_side, ""
        self._end("aborted", InvalidRequest("The transaction was aborted."))
        if server_side:
            await self._all.persist(lambda: self._all.verbs.abort(server_side))

    # -- below ----------------------------------------------------------------------------------------------

    async def _commit(self) -> Written:
        identity = await self._all.identify()
        if self._server_side:
            await self._spill(0)
            return await self._persist(lambda token: self._all.verbs.commit(self._server_side))
        batches = [(item.topic, item.partition, _batch(item)) for item in self._items]
        with request_span(self._items) if self._items and tracing.is_on() else nullcontext():
            return await self._persist(
                lambda token: self._all.verbs.transact(identity, batches, self._offsets, token=token)
            )

    async def _persist(self, call: Any) -> Written:
        """The commit, sent again under its token while its fate is unknown or it is turned away."""
        producer = self._producer
        backoff = Backoff(producer.clock, producer.rng)
        deadline_s = producer.clock.elapsed_s() + producer.delivery_timeout_s
        silence: Indeterminate | None = None
        last: HeadwaterError
        while True:
            try:
                written: Written = await call(self._token)
                return written
            except Indeterminate as error:
                self._token = error.token or self._token
                silence = last = error
                if not self._token and not self._server_side:
                    raise  # without an identity a second commit would find itself fenced by the first
            except StorageFull as error:
                raise silence or error from error
            except (Throttled, Unavailable) as error:
                last = error
            if not await backoff.pause(last, deadline_s):
                raise silence or last

    async def _was_overtaken(self) -> bool:
        """Whether it was the producer that was fenced, and not the group's member: by asking for its next epoch."""
        try:
            self._all.identity = await self._all.verbs.init_producer(
                self._producer.transactional_id, current=self._all.identity
            )
        except HeadwaterError as error:
            return isinstance(error, Fenced)
        return False

    async def _grow(self, nbytes: int) -> None:
        self._nbytes += nbytes
        if self._nbytes > self._producer.request_bytes_max:
            await self._spill(self._producer.request_bytes_max)

    async def _spill(self, bytes_max: int) -> None:
        """Send what has gathered ahead, as a part of a transaction of several requests. Nothing of it is visible."""
        async with self._adding:
            if self._nbytes <= bytes_max and bytes_max:
                return
            if not self._server_side:
                identity = await self._all.identify()
                timeout_ms = int(self._producer.delivery_timeout_s * 1_000)
                self._server_side = await self._all.verbs.begin(identity, timeout_ms=timeout_ms)
            sent = len(self._items)
            self._collect()
            fresh, self._nbytes = self._items[sent:], 0
            offsets = self._offsets if not bytes_max else []
            if fresh or offsets:
                await self._add(fresh, offsets)

    async def _add(self, items: list[Item], offsets: list[GroupOffsets]) -> None:
        batches = [(item.topic, item.partition, _batch(item)) for item in items]
        try:
            await self._all.verbs.add(self._server_side, batches, offsets)
        except BaseException as error:
            # Without these records a commit would make half of the transaction visible.
            self._end(
                "aborted", error if isinstance(error, HeadwaterError) else Unavailable(f"It broke off: {error!r}")
            )
            raise

    def _collect(self) -> None:
        """Encode what has gathered, behind what is encoded already."""
        self._gathering.close_all()
        items = self._gathering.drop()
        for item in items:
            item.encode(self._producer.compression)
        self._items += items

    def _end(self, state: str, error: BaseException) -> None:
        self.state = state
        for item in (*self._items, *self._gathering.drop()):
            item.fail(error)

    def _delivery(self) -> Delivery:
        delivery: Delivery = Told()
        # The commit raises for all of them; who does not look at single futures need not hear of it twice.
        delivery.add_done_callback(lambda done: delivery.hush() and None)
        return delivery

    def _check_open(self) -> None:
        if self.state != "open":
            raise InvalidRequest(f"This transaction is {self.state}; begin a new one.")


def _batch(item: Item) -> Batch:
    assert item.batch is not None, "collected items are encoded"
    return item.batch
