"""The same without ``await``, for scripts and notebooks.

    with Producer("file://./log") as producer:
        producer.send("greetings", "hello").result()

    with Consumer("file://./log", "greetings", auto_offset_reset="earliest") as consumer:
        for record in consumer:
            print(record.value)

Each object has a thread with an event loop of its own, in which the asynchronous one lives; so heartbeats and
commits go on while the program does something else, and any thread may call any method. A Ctrl-C breaks off the call
that waits. Methods are those of the asynchronous classes, whose docstrings say what they promise.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from headwater.client import admin as asynchronous_admin
from headwater.client import consumer as asynchronous_consumer
from headwater.client import producer as asynchronous_producer
from headwater.client.records import ConsumerRecord, GroupMetadata, OffsetAndTimestamp, RecordMetadata, TopicPartition
from headwater.client.subscription import RebalanceListener
from headwater.errors import InvalidRequest

if TYPE_CHECKING:
    import re

    import pyarrow as pa

    from headwater.api.verbs import Written
    from headwater.client.transaction import InGroup, OffsetsLike
    from headwater.client.transaction import Transaction as AsyncTransaction

T = TypeVar("T")
TP = tuple[str, int]


class _Thread:
    """A thread with an event loop, and calls into it."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def call(self, work: Coroutine[Any, Any, T], unheard: Callable[[T], None] | None = None) -> T:
        """The result of ``work``; it is cancelled, and waited for, if the caller is interrupted.

        A result that comes together with the interruption goes to ``unheard``, since nobody gets it.
        """
        if not self._thread.is_alive() or threading.current_thread() is self._thread:
            work.close()
            raise InvalidRequest("This is closed, or was called from its own thread (as in a rebalance listener).")
        tasks: list[asyncio.Task[T]] = []
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()  # it is done when the task is, and says what became of that

        def begin() -> None:
            tasks.append(self.loop.create_task(work))
            tasks[0].add_done_callback(lambda done: _tell(done, future))

        def cancel() -> None:
            tasks[0].cancel()

        self.loop.call_soon_threadsafe(begin)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                self.loop.call_soon_threadsafe(cancel)
                concurrent.futures.wait([future])
            if unheard is not None and future.exception() is None:
                heard = future.result()
                self.do(lambda: unheard(heard))
            raise

    def do(self, work: Callable[[], T]) -> T:
        """The result of a plain function that must run in the loop's thread."""

        async def there() -> T:
            return work()

        return self.call(there())

    def close(self) -> None:
        """End the loop and the thread. A second call does nothing."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()


class _Face:
    """What all three have: a thread, from ``start`` to ``stop``."""

    _target: Any  # the asynchronous object

    def __init__(self) -> None:
        self._running: _Thread | None = None

    def start(self) -> None:
        """Connect. ``with`` does it. A second call does nothing."""
        if self._running is not None:
            return
        thread = _Thread(f"headwater-{type(self).__name__.lower()}")
        try:
            thread.call(self._target.start())
        except BaseException:
            thread.close()
            raise
        self._running = thread

    def stop(self) -> None:
        """Finish, and let go. A second call does nothing."""
        self._end(self._target.stop)

    def _end(self, stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        thread, self._running = self._running, None
        if thread is not None:
            try:
                thread.call(stop())
            finally:
                thread.close()

    close = stop

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(lambda: self._target.__aexit__(kind, error, trace))

    def __repr__(self) -> str:
        return f"blocking.{self._target!r}"

    @property
    def _there(self) -> _Thread:
        if self._running is None:
            raise InvalidRequest(
                f"This {type(self).__name__.lower()} is not running: use it as `with …`, or start() it first."
            )
        return self._running


class Producer(_Face):
    """See ``headwater.client.Producer``; futures are those of ``concurrent.futures``."""

    def __init__(self, target: Any, **options: Any) -> None:
        super().__init__()
        self._target: asynchronous_producer.Producer = asynchronous_producer.Producer(target, **options)

    def __enter__(self) -> Producer:
        self.start()
        return self

    def send(
        self, topic: str, value: Any = None, key: Any = None, **record: Any
    ) -> concurrent.futures.Future[RecordMetadata]:
        """Waits while the buffer is full; the future says where the record lies."""
        return _outward(self._there.call(self._target.send(topic, value, key, **record)))

    def send_and_wait(self, topic: str, value: Any = None, key: Any = None, **record: Any) -> RecordMetadata:
        """Send, and wait until it is in the log."""
        return self._there.call(self._target.send_and_wait(topic, value, key, **record))

    def send_batch(
        self, topic: str, data: pa.Table | pa.RecordBatch, *, partition: int | None = None
    ) -> concurrent.futures.Future[list[RecordMetadata]]:
        """Send an Arrow table."""
        return _outward(self._there.call(self._target.send_batch(topic, data, partition=partition)))

    def send_table(
        self, topic: str, data: pa.Table | pa.RecordBatch, **how: Any
    ) -> concurrent.futures.Future[list[RecordMetadata]]:
        """Send a table whose columns are those of the topic's schema."""
        return _outward(self._there.call(self._target.send_table(topic, data, **how)))

    def flush(self) -> None:
        """Wait until everything sent before is settled; raises what nobody has looked at."""
        self._there.call(self._target.flush())

    def partitions_for(self, topic: str) -> set[int]:
        """The partitions of a topic."""
        return self._there.call(self._target.partitions_for(topic))

    def transaction(self) -> Transaction:
        """``with producer.transaction() as t`` commits at its end and aborts on an exception."""
        return Transaction(self._there, self._there.do(self._target.transaction))


class Transaction:
    """See ``headwater.client.Transaction``."""

    def __init__(self, thread: _Thread, inner: AsyncTransaction) -> None:
        self._there = thread
        self._inner = inner

    @property
    def state(self) -> str:
        """``open``, ``committed``, ``aborted`` or ``indeterminate``."""
        return self._inner.state

    def __enter__(self) -> Transaction:
        self._there.call(self._inner.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._there.call(self._inner.__aexit__(kind, error, trace))

    def send(
        self, topic: str, value: Any = None, key: Any = None, **record: Any
    ) -> concurrent.futures.Future[RecordMetadata]:
        """Add a record."""
        return _outward(self._there.call(self._inner.send(topic, value, key, **record)))

    def send_batch(
        self, topic: str, data: pa.Table | pa.RecordBatch, *, partition: int | None = None
    ) -> concurrent.futures.Future[list[RecordMetadata]]:
        """Add an Arrow table."""
        return _outward(self._there.call(self._inner.send_batch(topic, data, partition=partition)))

    def send_offsets(self, offsets: OffsetsLike, group: InGroup | GroupMetadata | str) -> None:
        """Commit a group's offsets with the transaction; ``group`` is a consumer, its metadata, or a name."""
        whose = group if isinstance(group, str | GroupMetadata) else group.group_metadata()
        self._there.call(self._inner.send_offsets(offsets, whose))

    def commit(self) -> Written | None:
        """Make it all visible."""
        return self._there.call(self._inner.commit())

    def abort(self) -> None:
        """Forget it."""
        self._there.call(self._inner.abort())


class Consumer(_Face):
    """See ``headwater.client.Consumer``. A rebalance listener runs in the consumer's thread and must not call it."""

    def __init__(self, target: Any, *topics: str, **options: Any) -> None:
        super().__init__()
        self._target: asynchronous_consumer.Consumer = asynchronous_consumer.Consumer(target, *topics, **options)

    def __enter__(self) -> Consumer:
        self.start()
        return self

    def __iter__(self) -> Iterator[ConsumerRecord]:
        return self

    def __next__(self) -> ConsumerRecord:
        return self._there.call(self._target.__anext__(), self._take_back)

    def subscribe(
        self,
        topics: Iterable[str] | str = (),
        pattern: str | re.Pattern[str] | None = None,
        listener: RebalanceListener | None = None,
    ) -> None:
        """Read these topics, or those that begin with a match of ``pattern``."""
        self._now(lambda: self._target.subscribe(topics, pattern, listener))

    def assign(self, partitions: Iterable[TP]) -> None:
        """Read exactly these partitions."""
        self._now(lambda: self._target.assign(partitions))

    def unsubscribe(self) -> None:
        """Read nothing, and leave the group."""
        self._there.call(self._target.unsubscribe())

    def subscription(self) -> frozenset[str]:
        """The topics that are subscribed to."""
        return self._now(self._target.subscription)

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that are being read."""
        return self._now(self._target.assignment)

    def getmany(
        self, *partitions: TP, timeout_ms: float = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Records that are at hand, by partition."""
        wish = self._target.getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)
        return self._there.call(wish, lambda found: self._take_back(*(rows[0] for rows in found.values())))

    def getone(self, *partitions: TP, timeout_ms: float | None = None) -> ConsumerRecord | None:
        """The next record."""
        return self._there.call(self._target.getone(*partitions, timeout_ms=timeout_ms), self._take_back)

    def poll(self, timeout: float | None = None) -> ConsumerRecord | None:
        """The next record, or None after ``timeout`` seconds, as confluent-kafka has it."""
        return self.getone(timeout_ms=None if timeout is None else timeout * 1_000)

    def poll_arrow(self, *partitions: TP, timeout_ms: float = 0) -> dict[TopicPartition, pa.Table]:
        """All that is at hand, as Arrow."""
        return self._there.call(self._target.poll_arrow(*partitions, timeout_ms=timeout_ms), self._take_tables_back)

    def seek(self, partition: TP, offset: int) -> None:
        """Go on at ``offset``."""
        self._there.call(self._target.seek(partition, offset))

    def seek_to_beginning(self, *partitions: TP) -> None:
        """Go on at the start of the log."""
        self._there.call(self._target.seek_to_beginning(*partitions))

    def seek_to_end(self, *partitions: TP) -> None:
        """Go on at the end of the log."""
        self._there.call(self._target.seek_to_end(*partitions))

    def position(self, partition: TP) -> int:
        """The offset that is handed out next."""
        return self._there.call(self._target.position(partition))

    def positions(self) -> Mapping[TopicPartition, Any]:
        """All positions, as ``commit`` and ``send_offsets`` take them."""
        return self._there.do(self._target.positions)

    def pause(self, *partitions: TP) -> None:
        """Hand out nothing of these until ``resume``."""
        self._there.do(lambda: self._target.pause(*partitions))

    def resume(self, *partitions: TP) -> None:
        """Go on handing out."""
        self._there.do(lambda: self._target.resume(*partitions))

    def paused(self) -> frozenset[TopicPartition]:
        """The partitions that are paused."""
        return self._there.do(self._target.paused)

    def commit(self, offsets: OffsetsLike | None = None, *, asynchronous: bool = False) -> None:
        """Commit offsets, or all positions; with ``asynchronous`` without waiting, and without hearing of an error."""
        if asynchronous:
            self._there.do(lambda: self._target.commit_async(offsets).add_done_callback(_passed_over))
        else:
            self._there.call(self._target.commit(offsets))

    def committed(self, partition: TP) -> int | None:
        """The group's committed offset of a partition, or None."""
        return self._there.call(self._target.committed(partition))

    def group_metadata(self) -> GroupMetadata:
        """What fences a transaction's ``send_offsets``."""
        return self._there.do(self._target.group_metadata)

    def beginning_offsets(self, partitions: Iterable[TP]) -> dict[TopicPartition, int]:
        """The first offset of each."""
        return self._there.call(self._target.beginning_offsets(partitions))

    def end_offsets(self, partitions: Iterable[TP]) -> dict[TopicPartition, int]:
        """One past the last offset of each."""
        return self._there.call(self._target.end_offsets(partitions))

    def offsets_for_times(self, times: Mapping[TP, int]) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record at or after a time in each."""
        return self._there.call(self._target.offsets_for_times(times))

    def lag(self, *partitions: TP) -> dict[TopicPartition, int]:
        """Records between the positions and the ends of the log."""
        return self._there.call(self._target.lag(*partitions))

    def topics(self) -> set[str]:
        """The topics there are."""
        return self._there.call(self._target.topics())

    def _take_back(self, *firsts: ConsumerRecord | None) -> None:
        """Hand records out again that nobody got, since the call was interrupted: from the first one of each on."""
        for record in firsts:
            if record is not None and (record.topic, record.partition) in self._target.assignment():
                self._target.rewind((record.topic, record.partition), record.offset)

    def _take_tables_back(self, tables: Mapping[TopicPartition, pa.Table]) -> None:
        for tp, table in tables.items():
            if tp in self._target.assignment():
                self._target.rewind(tp, table.column("offset")[0].as_py())

    def _now(self, work: Callable[[], T]) -> T:
        """In the loop's thread if there is one; before ``start`` anywhere."""
        return work() if self._running is None else self._running.do(work)


class Admin(_Face):
    """See ``headwater.client.Admin``: the same methods, each of which waits until it is done."""

    def __init__(self, target: Any, **options: Any) -> None:
        super().__init__()
        self._target: asynchronous_admin.Admin = asynchronous_admin.Admin(target, **options)

    def __enter__(self) -> Admin:
        self.start()
        return self

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        method: Callable[..., Coroutine[Any, Any, Any]] = getattr(self._target, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._there.call(method(*args, **kwargs))

        call.__name__, call.__doc__ = name, method.__doc__
        return call

    def __dir__(self) -> Sequence[str]:
        return sorted({*super().__dir__(), *(name for name in dir(self._target) if not name.startswith("_"))})


def _outward(inner: asyncio.Future[T]) -> concurrent.futures.Future[T]:
    """A future for other threads. Cancelling it leaves the record on its way."""
    outer: concurrent.futures.Future[T] = concurrent.futures.Future()
    outer.set_running_or_notify_cancel()

    inner.get_loop().call_soon_threadsafe(inner.add_done_callback, lambda done: _tell(done, outer))
    return outer


def _tell(done: asyncio.Future[T], outer: concurrent.futures.Future[T]) -> None:
    if done.cancelled():
        outer.set_exception(concurrent.futures.CancelledError())
    elif (error := done.exception()) is not None:
        outer.set_exception(error)
    else:
        outer.set_result(done.result())


def _passed_over(done: asyncio.Task[None]) -> None:
    if not done.cancelled():
        done.exception()
