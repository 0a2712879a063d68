"""Runs a user's processor: its states with their deltas, its timers, and what it forwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
import polars as pl

from headwater.errors import InvalidRequest
from headwater.limits import STREAMS_STATE_PIECE_ROWS, STREAMS_TIMER_CALLS_MAX
from headwater.streams.duration import Duration
from headwater.streams.frames import ENDED, FAILED, MAIN, NEVER, SYSTEM, TIME, WEIGHT, WM
from headwater.streams.model import Process
from headwater.streams.operator import Context, Delta, Operator, Outputs, Size, operator
from headwater.streams.ops.apply import refused, said
from headwater.streams.process import Clock, Processor, Punctuator, State, Timer, timer_of

ROWS, TIMERS = "rows", "timers"  # tags of deltas
_ROWS = {"state": pl.String(), "key": pl.Binary(), "row": pl.Binary()}  # a row that is null was deleted
_TIMERS = {"timer": pl.Int64(), "due": pl.Int64()}


class Running:
    """The context that a processor sees (``ProcessorContext``)."""

    def __init__(self, name: str, task: int, schema: dict[str, pl.DataType]) -> None:
        self.task = task
        self.watermark = NEVER
        self.now_ms = 0
        self.states: dict[str, State] = {}
        self.timers: list[Timer] = []
        self.time = self.mark = NEVER  # of what is forwarded without a time and a watermark of its own
        self.given: list[pl.DataFrame] = []
        self.begun = False
        self._name = name
        self._schema = schema

    def state(self, name: str = "") -> State:
        """The state of that name."""
        return self.states.setdefault(name, State(name))

    def schedule(self, interval: Duration, clock: Clock, call: Punctuator) -> Timer:
        """Begin a timer."""
        if self.begun:
            raise InvalidRequest(f"Processor {self._name!r} schedules a timer outside of init(); do it there.")
        timer = timer_of(interval, clock, call)
        self.timers.append(timer)
        return timer

    def forward(self, frame: pl.DataFrame) -> None:
        """Check rows against the schema and keep them until the call is over."""
        if not isinstance(frame, pl.DataFrame):
            raise InvalidRequest(
                f"Processor {self._name!r} forwards {type(frame).__name__}; it takes a Polars DataFrame."
            )
        if not frame.height:
            return
        missing = [name for name in self._schema if name not in frame.columns]
        if missing:
            raise InvalidRequest(
                f"Processor {self._name!r} forwards rows without {', '.join(missing)}, which its schema has."
            )
        time = pl.col(TIME) if TIME in frame.columns else pl.lit(self.time, pl.Int64())
        mark = pl.col(WM) if WM in frame.columns else pl.lit(self.mark, pl.Int64())
        kept = [name for name in frame.columns if name in SYSTEM and name not in (TIME, WM, WEIGHT)]
        columns = [pl.col(name).cast(dtype) for name, dtype in self._schema.items()]
        made = frame.select(*columns, time.cast(pl.Int64()).alias(TIME), mark.cast(pl.Int64()).alias(WM), *kept)
        if made.get_column(TIME).null_count():
            raise InvalidRequest(f"Processor {self._name!r} forwards rows whose {TIME} is null.")
        self.given.append(made)

    def taken(self) -> Iterator[tuple[str, pl.DataFrame]]:
        """What was forwarded since the last time."""
        given, self.given = self.given, []
        for frame in given:
            yield MAIN, frame


@operator(Process)
class Processes(Operator):
    """One processor of one task."""

    def __init__(self, node: Process, context: Context) -> None:
        made = node.make()
        if not isinstance(made, Processor):
            raise InvalidRequest(
                f"process(make) of {node.name!r} makes a {type(made).__name__}; it makes a headwater.streams.Processor."
            )
        self._processor = made
        self._dead_letters = context.dead_letters
        self._context = Running(node.name, context.task, dict(node.schema))
        self._due: dict[int, int] = {}  # when timers were due as of the last commit
        self._processor.init(self._context)
        self._context.begun = True

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """The processor's own work, and what it forwards meanwhile."""
        newest = frame.get_column(TIME).max()
        assert isinstance(newest, int), "event times are never null"
        # What is older than the watermark that the nodes below have heard is late for them.
        self._context.time, self._context.mark = newest, self._context.watermark
        # The earliest row that is not late, however the partitions' rows come: a timer that was called is due later.
        first = frame.select(pl.max_horizontal(TIME, WM).min()).item()
        for timer in self._context.timers:
            if timer.clock == "event":
                due = _after(first, timer.interval)
                timer.due = due if timer.due == NEVER else min(timer.due, due)
        if self._dead_letters:
            yield from self._guarded(frame)
        else:
            self._processor.process(frame, self._context)
            yield from self._context.taken()

    def _guarded(self, frame: pl.DataFrame) -> Outputs:
        """A call that leaves nothing behind if it fails; then its halves, down to the rows that fail by themselves."""
        context = self._context
        for state in context.states.values():
            state.begin()
        try:
            self._processor.process(frame, context)
        except Exception as error:  # whatever a user's processor raises is about these rows
            why = said(error)
        else:
            for state in context.states.values():
                state.end()
            yield from context.taken()
            return
        context.given.clear()
        for state in context.states.values():
            state.end(undo=True)
        if frame.height == 1:
            yield FAILED, refused(frame, {0: why})
            return
        half = frame.height // 2
        yield from self._guarded(frame.head(half))
        yield from self._guarded(frame.tail(frame.height - half))

    def advance(self, watermark: int, now_ms: int) -> Outputs:
        """Call the timers that are due, those of earlier times first."""
        context = self._context
        context.watermark, context.now_ms = watermark, now_ms
        for at, timer in _due(context.timers, watermark, now_ms):
            if not timer.cancelled:
                # The nodes below have not heard of ``at`` yet, so nothing of that time is late for them.
                context.time = context.mark = at if timer.clock == "event" else max(watermark, 0)
                timer.call(at)
        return list(context.taken())

    def deltas(self) -> Sequence[Delta]:
        """Rows that changed, and timers that were called."""
        found: list[Delta] = []
        names: list[str] = []
        keys: list[bytes] = []
        rows: list[bytes | None] = []
        for name, state in self._context.states.items():
            names += [name] * len(state.changed)
            keys += state.changed
            rows += [state.rows.get(key) for key in state.changed]
            state.changed = {}
        if keys:
            found.append(Delta(ROWS, pl.DataFrame({"state": names, "key": keys, "row": rows}, schema=_ROWS)))
        due = {number: timer.due for number, timer in enumerate(self._context.timers)}
        if due != self._due:
            self._due = due
            found.append(self._timers())
        return found

    def snapshot(self) -> Iterable[Delta]:
        """All rows, and when the timers are due."""
        if self._context.timers:
            yield self._timers()
        for name, state in self._context.states.items():
            keys = list(state.rows)
            for start in range(0, len(keys), STREAMS_STATE_PIECE_ROWS):
                some = keys[start : start + STREAMS_STATE_PIECE_ROWS]
                rows = [state.rows[key] for key in some]
                yield Delta(ROWS, pl.DataFrame({"state": [name] * len(some), "key": some, "row": rows}, schema=_ROWS))

    def restore(self, delta: Delta) -> None:
        """Take back rows or timers. State of a name that the processor asks for no more is kept."""
        if delta.tag == TIMERS:
            timers = self._context.timers
            for number, due in delta.frame.select("timer", "due").iter_rows():
                if number < len(timers):
                    timers[number].due = due
            return
        for name, key, row in delta.frame.select("state", "key", "row").iter_rows():
            self._context.state(name).put(key, row)

    def restored(self) -> None:
        """What came back is committed already."""
        for state in self._context.states.values():
            state.changed = {}
        self._due = {number: timer.due for number, timer in enumerate(self._context.timers)}

    def size(self) -> Size:
        """Rows and bytes of all states, without what Python adds (about 100 bytes a row)."""
        states = self._context.states.values()
        return Size(rows=sum(len(state) for state in states), bytes=sum(state.nbytes for state in states))

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """Rows as ``state``, ``key`` and ``row``, the last two as JSON text; ``keys`` has a column ``key`` of such."""
        found = [
            (name, _json(msgspec.msgpack.decode(key)), _json(msgspec.msgpack.decode(row)))
            for name, state in self._context.states.items()
            for key, row in state.rows.items()
        ]
        schema = {"state": pl.String(), "key": pl.String(), "row": pl.String()}
        frame = pl.DataFrame(found, schema=schema, orient="row")
        if keys is None:
            return frame
        wanted = [_json(key) for key in keys.get_column("key").to_list()]
        return frame.filter(pl.col("key").is_in(wanted))

    def close(self) -> None:
        """Tell the processor."""
        self._processor.close()

    def _timers(self) -> Delta:
        due = [timer.due for timer in self._context.timers]
        return Delta(TIMERS, pl.DataFrame({"timer": list(range(len(due))), "due": due}, schema=_TIMERS))


def _due(timers: Sequence[Timer], watermark: int, now_ms: int) -> list[tuple[int, Timer]]:
    """The calls that are due now, by time; each timer's ``due`` goes on behind them."""
    calls: list[tuple[int, Timer]] = []
    for timer in timers:
        now, interval = (watermark if timer.clock == "event" else now_ms), timer.interval
        if timer.clock == "wall" and timer.due == NEVER:
            timer.due = _after(now, interval)
        if timer.due == NEVER or timer.due > now or now >= ENDED:
            continue
        last = now // interval * interval
        first = last if timer.clock == "wall" else max(timer.due, last - (STREAMS_TIMER_CALLS_MAX - 1) * interval)
        calls += [(at, timer) for at in range(first, last + 1, interval)]
        timer.due = last + interval
    return sorted(calls, key=lambda call: call[0])


def _after(time_ms: int, interval: int) -> int:
    return time_ms // interval * interval + interval


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
