"""What some topologies mean, in plain Python: no frames, no engine, one record after another.

The reference of ``streams_judge`` shares the operators with what it judges. These share nothing but its words.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from headwater.log.chunk import Chunk
from headwater.sim.checker import Violation
from headwater.sim.chronicle import rows_of
from headwater.sim.streams_jobs import DISORDER_MS, IDLING
from headwater.sim.streams_judge import TP, Kept, latest_of
from headwater.sim.streams_plan import StreamsPlan

Row: TypeAlias = dict[str, Any]
NEVER = -(2**62)


def compare(plan: StreamsPlan, found: Kept, inputs: Mapping[TP, list[Chunk]]) -> list[Violation]:
    """How what a job has left differs from what its topology means; nothing for those that have no model,

    nor for a job that was brought back, whose outputs are there more than once.
    """
    judge = MODELS.get(plan.play)
    if judge is None or plan.repeats:
        return []
    return [Violation("model", detail) for detail in judge(plan, found, inputs)]


class Stamped:
    """The readable rows of a topic in each partition, with the watermark before each; and where each one ends."""

    def __init__(self, plan: StreamsPlan, topic: str, inputs: Mapping[TP, list[Chunk]]) -> None:
        self.rows: list[tuple[Row, int]] = []
        self.marks: list[int] = []
        for number in range(plan.partitions):
            mark = NEVER
            for _, row in sorted(pair for chunk in inputs.get((topic, number), ()) for pair in rows_of(chunk)):
                event = _event(row.value)
                if event is not None:
                    self.rows.append((event, mark))
                    mark = max(mark, event["ts"] - DISORDER_MS)
            self.marks.append(mark)

    @property
    def reached(self) -> int:
        """How far event time has come behind a repartition: as far as in the slowest partition."""
        return min(self.marks)


def _event(value: bytes | None) -> Row | None:
    try:
        return None if value is None else msgspec.json.decode(value)
    except msgspec.DecodeError:
        return None


def _tumbled(plan: StreamsPlan, found: Kept, inputs: Mapping[TP, list[Chunk]]) -> Iterable[str]:
    """Ten seconds, a second of grace; what ``picky`` cannot stand is a dead letter."""
    stamped, windows, late = Stamped(plan, "in", inputs), defaultdict[Any, list[int]](list), 0
    for row, mark in stamped.rows:
        if row["id"] % 11 == 5 or row["v"] == 8 or (row["v"] is not None and row["v"] % 7 == 3):
            continue
        start = row["ts"] - row["ts"] % 10_000
        if start + 11_000 <= mark:
            late += 1
        else:
            windows[row["g"], start].append((row["v"] or 0) * 2)
    wanted = sorted(
        (str(group), start, len(rows), sum(rows), max(rows))
        for (group, start), rows in windows.items()
        if start + 11_000 <= stamped.reached
    )
    fields = ("n", "total", "newest")
    has = sorted((str(row["g"]), _ms(row["window_start"]), *map(row.get, fields)) for row in _rows(found, "out"))
    yield from _unlike("windows", has, wanted)
    yield from _unlike("late rows", [len(list(_rows(found, "late")))], [late])


def _hopped(plan: StreamsPlan, found: Kept, inputs: Mapping[TP, list[Chunk]]) -> Iterable[str]:
    """Ten seconds every five, two of grace, each key in its own partition."""
    windows: dict[Any, list[int]] = defaultdict(list)
    for row, mark in Stamped(plan, "in", inputs).rows:
        last = row["ts"] - row["ts"] % 5_000
        for start in (last, last - 5_000):
            if start + 12_000 > mark:
                windows[row["k"], start].append((row["v"] or 0) * 2)
    wanted = sorted((str(key), start, len(rows), sum(rows)) for (key, start), rows in windows.items())
    values = [msgspec.json.decode(value) for value in latest_of(found, "newest").values()]
    has = sorted((str(row["k"]), _ms(row["window_start"]), row["n"], row["total"]) for row in values)
    yield from _unlike("windows", has, wanted)


def _pairs(plan: StreamsPlan, found: Kept, inputs: Mapping[TP, list[Chunk]]) -> Iterable[str]:
    """Every pair of rows of a key within four seconds, neither of which came when the other's time was over."""
    others: dict[str, list[tuple[Row, int]]] = defaultdict(list)
    for row, mark in Stamped(plan, "other", inputs).rows:
        others[row["k"]].append((row, mark))
    wanted = sorted(
        (row["id"], other["id"])
        for row, mark in Stamped(plan, "in", inputs).rows
        for other, its in others.get(row["k"], ())
        if abs(row["ts"] - other["ts"]) <= 4_000 and row["k"] is not None
        if max(mark, its) <= min(row["ts"], other["ts"]) + 5_000
    )
    yield from _unlike("pairs", sorted((row["id"], row["id_right"]) for row in _rows(found, "out")), wanted)


def _of_table(plan: StreamsPlan, found: Kept, inputs: Mapping[TP, list[Chunk]]) -> Iterable[str]:
    """The newest row of each key that was not deleted, counted by name."""
    table: dict[bytes | None, str] = {}
    for number in range(plan.partitions):
        for _, row in sorted(pair for chunk in inputs.get(("live", number), ()) for pair in rows_of(chunk)):
            if row.value is None:
                table.pop(row.key, None)
            else:
                table[row.key] = msgspec.json.decode(row.value)["label"]
    counts: dict[str, int] = defaultdict(int)
    for name in table.values():
        counts[name] += 1
    values = [msgspec.json.decode(value) for value in latest_of(found, "newest").values()]
    yield from _unlike("counts", sorted((row["label"], row["n"]) for row in values), sorted(counts.items()))


def _idling(plan: StreamsPlan, found: Kept, inputs: Mapping[TP, list[Chunk]]) -> Iterable[str]:
    """A window is given once, and each row is in one or late; whatever time the silent partitions let it be."""
    wanted: Counter[tuple[Any, int]] = Counter()
    for row, _ in Stamped(plan, "in", inputs).rows:
        wanted[row["g"], row["ts"] // 10_000 * 10_000] += 1
    held: Counter[tuple[Any, int]] = Counter()
    given: Counter[tuple[Any, int]] = Counter()
    for row in _rows(found, "out"):
        at = row["g"], _ms(row["window_start"])
        held[at] += row["n"]
        given[at] += 1
    for row in _rows(found, "late"):
        held[row["g"], row["ts"] // 10_000 * 10_000] += 1
    if twice := [at for at, times in given.items() if times > 1]:
        yield f"windows that were given more than once: {twice[:3]}"
    if much := held - wanted:
        yield f"rows that were never sent: {list(much.items())[:3]}"
    # What the last record of all opens stays open.
    ended = {at: count for at, count in (wanted - held).items() if plan.ends and at[0] != "end"}
    if ended:
        yield f"rows that are in no window and not late: {list(ended.items())[:3]}"


MODELS = {"tumbled": _tumbled, "hopped": _hopped, "pairs": _pairs, "of table": _of_table, IDLING: _idling}


def _rows(found: Kept, topic: str) -> Iterable[Row]:
    for (name, _), parts in found.records.items():
        if name == topic:
            for placed in parts:
                values: Any = placed.column("value").to_pylist()
                for value in values:
                    yield msgspec.json.decode(value)


def _ms(value: str) -> int:
    return int(datetime.fromisoformat(value).timestamp() * 1_000)


def _unlike(what: str, found: list[Any], wanted: list[Any]) -> Iterable[str]:
    if found != wanted:
        much = [each for each in found if each not in wanted][:3]
        missing = [each for each in wanted if each not in found][:3]
        yield f"{what}: {len(found)} and not {len(wanted)}; too many {much}, missing {missing}"
