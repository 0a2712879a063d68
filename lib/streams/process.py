"""Processors: what operators do not cover, in Python, with named state and timers (Kafka Streams' Processor API).

    class Limits(Processor):
        def init(self, context):
            self.counts = context.state("counts")
            context.schedule("1m", "event", self.forget)

        def process(self, frame, context):
            for row in frame.iter_rows(named=True):
                self.counts[row["user"]] = {"n": self.counts.get(row["user"], {"n": 0})["n"] + 1}
            context.forward(frame.filter(pl.col("amount") > 1_000))

        def forget(self, at_ms): ...

    payments.process(Limits, schema={…}, store="limits").to("suspicious")

Work on whole frames where it can be done; a loop over rows costs microseconds for each. State is committed with the
output and the offsets, so it is exactly once as well. What a processor keeps in its own attributes is not: it is gone
when the task moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import msgspec
import polars as pl

from headwater.errors import InvalidRequest
from headwater.streams.duration import Duration, millis
from headwater.streams.frames import NEVER

Clock: TypeAlias = Literal["event", "wall"]
Punctuator: TypeAlias = Callable[[int], None]


class Processor:
    """The base of users' processors: one is made for each task. Nothing but its context may connect it to the world."""

    def init(self, context: ProcessorContext) -> None:
        """Called once, before anything else: take states and schedule timers here, in the same order every time."""

    def process(self, frame: pl.DataFrame, context: ProcessorContext) -> None:
        """Take a frame: the columns of the stream that is read, and ``_time``, the event time in ms.

        Whatever it raises stops the job, which resumes where it stood: nothing of the micro-batch is committed. With a
        topic for dead letters the call's state and rows are taken back, and it is called again with halves of the
        frame, so that the rows on which it raises go there and the others count. (What a timer raises stops the job.)
        """
        raise NotImplementedError

    def close(self) -> None:
        """The task ends, or moves away."""


class ProcessorContext(Protocol):
    """What a processor may do."""

    @property
    def task(self) -> int:
        """The number of its task: the partition that it owns."""

    @property
    def watermark(self) -> int:
        """How far event time has come (ms)."""

    @property
    def now_ms(self) -> int:
        """Wall-clock time as of the last step (ms): for what need not come out the same twice."""

    def state(self, name: str = "") -> State:
        """The state of that name: the same one each time."""

    def schedule(self, interval: Duration, clock: Clock, call: Punctuator) -> Timer:
        """Have ``call(at_ms)`` called every ``interval``, aligned to it, from ``init`` alone.

        ``event``: for each multiple of the interval behind the earliest row, once the watermark passes it and the rows
        of the micro-batch are done. If it passes many at once the oldest comes first; all but the newest
        ``STREAMS_TIMER_CALLS_MAX`` are skipped. ``wall``: at most one call a step, however long the job was away.
        """

    def forward(self, frame: pl.DataFrame) -> None:
        """Give rows of the schema that was stated. Without a column ``_time`` they have the time of what made them:
        the newest row of the frame, or the timer's time.
        """


@dataclass(slots=True)
class Timer:
    """One schedule. ``due`` (ms) is the time of its next call; ``NEVER`` until time is known."""

    interval: int
    clock: Clock
    call: Punctuator
    due: int = NEVER
    cancelled: bool = False

    def cancel(self) -> None:
        """No call any more in this life of the task."""
        self.cancelled = True


@dataclass(slots=True)
class State(MutableMapping[Any, Any]):
    """A mapping of keys to rows, kept in the changelog.

    Keys are texts, numbers, bytes or tuples of them; rows are dicts, lists, texts, numbers, bytes, dates and times:
    what msgpack holds. A row that was read is a copy: assign it again once it is changed. About 1 µs a call.
    """

    name: str
    rows: dict[bytes, bytes] = field(default_factory=dict)
    changed: dict[bytes, None] = field(default_factory=dict)  # keys, changed since the last commit, in order
    nbytes: int = 0
    before: dict[bytes, bytes | None] | None = None  # the rows as they were, while a call may be taken back

    def __getitem__(self, key: Any) -> Any:
        return _read(self.rows[_written(key)])

    def __setitem__(self, key: Any, row: Any) -> None:
        self.put(_written(key), _written(row))

    def __delitem__(self, key: Any) -> None:
        written = _written(key)
        if written not in self.rows:
            raise KeyError(key)
        self.put(written, None)

    def __contains__(self, key: Any) -> bool:
        return _written(key) in self.rows

    def __iter__(self) -> Iterator[Any]:
        return iter([_key(each) for each in self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def put(self, key: bytes, row: bytes | None) -> None:
        """Set or delete (None) a row as it is written."""
        old = self.rows.pop(key, None)
        if self.before is not None:
            self.before.setdefault(key, old)
        if old is not None:
            self.nbytes -= len(key) + len(old)
        if row is not None:
            self.rows[key] = row
            self.nbytes += len(key) + len(row)
        self.changed.pop(key, None)
        self.changed[key] = None  # at the end, as in ``rows``: so a restored state has the same order

    def begin(self) -> None:
        """Remember from now on what rows were."""
        self.before = {}

    def end(self, *, undo: bool = False) -> None:
        """Remember no more; with ``undo`` the rows are as they were, and go to the changelog once more."""
        before, self.before = self.before or {}, None
        for key, row in before.items() if undo else ():
            self.put(key, row)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def _written(value: Any) -> bytes:
    try:
        return _encode(value)
    except (TypeError, ValueError, OverflowError, msgspec.EncodeError) as error:
        raise InvalidRequest(f"State cannot hold {type(value).__name__}: {error}") from error


def _read(data: bytes) -> Any:
    return _decode(data)


def _key(data: bytes) -> Any:
    key = _decode(data)
    return tuple(key) if isinstance(key, list) else key


def timer_of(interval: Duration, clock: Clock, call: Punctuator) -> Timer:
    """A timer that has not begun. Raises ``InvalidRequest`` for an interval that is not positive."""
    every = millis(interval, "interval")
    if every <= 0:
        raise InvalidRequest("A timer's interval is at least a millisecond.")
    if clock not in ("event", "wall"):
        raise InvalidRequest(f"A timer goes by event or wall time, not {clock!r}.")
    return Timer(every, clock, call)


__all__ = ["Clock", "Processor", "ProcessorContext", "Punctuator", "State", "Timer", "timer_of"]
