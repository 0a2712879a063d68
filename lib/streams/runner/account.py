"""What a job tells of itself in its own state: its picture, and for each task rows, watermarks and sizes by operator.

Both are configs of the changelog topic. A task changes its own with a step that it commits anyway, by the same intent,
at its first step, then every ten seconds at most, and once more when it falls quiet or stops. So what is told costs no
request of its own while rows flow, holds as of the very commit that it stands in (and of every earlier one, for whoever
looks back), outlives every worker, is there for functions and for jobs that nobody runs, and goes with the changelog.
Pure, and without Polars: whoever shows jobs needs nothing of what computes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headwater.limits import STREAMS_FIGURES_BYTES, STREAMS_PICTURE_BYTES, STREAMS_TOLD_MS
from headwater.streams.cards import Card

if TYPE_CHECKING:
    from headwater.streams.operator import Size
    from headwater.streams.task import Flow

PICTURE: Final = "streams.topology"  # a config of the changelog: what is drawn of each node
FIGURES: Final = "streams.figures."  # configs of the changelog, by task: what each told last
_WATERMARK_MAX: Final = 2**62  # beyond it either way: nothing was seen yet, or the input has ended


class Told(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One operator in one task. Rows since ``Figures.since_ms``; ``watermark`` in ms, None before anything was seen."""

    rows_in: int = 0
    rows_out: int = 0
    rows_late: int = 0
    watermark: int | None = None
    state_rows: int = 0
    state_bytes: int = 0


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a task told at ``at_ms``. A new life of the task, wherever it is, counts on from here."""

    at_ms: int
    since_ms: int
    operators: dict[str, Told] = {}


class Account:
    """What one task has told, and whether it owes more. ``kept`` is what its last life told, if anything."""

    def __init__(self, kept: str, now_ms: int) -> None:
        self._before = figures_of(kept)
        self._since_ms = self._before.since_ms if self._before is not None else now_ms
        self._told_s = float("-inf")
        self._worked_s = 0.0
        self.is_owed = False  # something was committed since

    def is_due(self, now_s: float) -> bool:
        """Whether the next commit is to tell."""
        return now_s >= self._told_s + STREAMS_TOLD_MS / 1_000

    def is_quiet(self, now_s: float) -> bool:
        """Whether to tell what is owed by a commit of its own: a row that comes meanwhile would have to wait for it."""
        return self.is_owed and now_s >= self._worked_s + STREAMS_TOLD_MS / 1_000

    def owes(self, now_s: float) -> None:
        """A step was committed, and nothing told with it."""
        self._worked_s, self.is_owed = now_s, True

    def told(self, flows: Mapping[str, Flow], sizes: Mapping[str, Size], now_s: float, now_ms: int) -> str:
        """What to tell now. Cost: 2 us an operator."""
        self._told_s, self.is_owed = now_s, False
        before = self._before.operators if self._before is not None else {}
        operators = {name: _told(flow, sizes.get(name), before.get(name, Told())) for name, flow in flows.items()}
        return _fitting(Figures(at_ms=now_ms, since_ms=self._since_ms, operators=operators))


def figures_key(task: int) -> str:
    """The config that a task's figures stand in."""
    return f"{FIGURES}{task}"


def figures_of(text: str) -> Figures | None:
    """What a task told; None if it told nothing that this version knows."""
    try:
        return msgspec.json.decode(text, type=Figures)
    except msgspec.DecodeError:
        return None


def picture(cards: Sequence[Card]) -> str:
    """What is told of a topology; of a very large one without its columns, and of a larger one nothing."""
    for told in (cards, [msgspec.structs.replace(card, columns=()) for card in cards]):
        text = msgspec.json.encode(told)
        if len(text) <= STREAMS_PICTURE_BYTES:
            return text.decode()
    return ""


def picture_of(text: str) -> list[Card]:
    """What is drawn of each node, parents first; nothing if nothing was told that this version can draw."""
    try:
        cards = msgspec.json.decode(text, type=list[Card])
    except msgspec.DecodeError:
        return []
    known: set[str] = set()
    for card in cards:
        if card.name in known or not known.issuperset(card.parents):
            return []
        known.add(card.name)
    return cards


def summed(tasks: Sequence[Figures]) -> dict[str, Told]:
    """Operators over tasks: rows and state in all, and the lowest watermark, which is what windows wait for."""
    found: dict[str, Told] = {}
    for figures in tasks:
        for name, one in figures.operators.items():
            so_far = found.get(name)
            found[name] = one if so_far is None else _plus(so_far, one)
    return found


def as_data(told: Told) -> dict[str, Any]:
    """For answers in JSON."""
    return msgspec.structs.asdict(told)


def _told(flow: Flow, size: Size | None, before: Told) -> Told:
    return Told(
        rows_in=before.rows_in + flow.rows_in,
        rows_out=before.rows_out + flow.rows_out,
        rows_late=before.rows_late + flow.rows_late,
        watermark=flow.watermark if -_WATERMARK_MAX < flow.watermark < _WATERMARK_MAX else None,
        state_rows=size.rows if size is not None else 0,
        state_bytes=size.bytes + size.spilled if size is not None else 0,
    )


def _plus(one: Told, other: Told) -> Told:
    marks = [mark for mark in (one.watermark, other.watermark) if mark is not None]
    return Told(
        rows_in=one.rows_in + other.rows_in,
        rows_out=one.rows_out + other.rows_out,
        rows_late=one.rows_late + other.rows_late,
        watermark=min(marks, default=None),
        state_rows=one.state_rows + other.state_rows,
        state_bytes=one.state_bytes + other.state_bytes,
    )


def _fitting(figures: Figures) -> str:
    """As JSON, with as many operators as fit: every commit of a state's snapshot carries it."""
    text = msgspec.json.encode(figures)
    while len(text) > STREAMS_FIGURES_BYTES:
        kept = len(figures.operators) * STREAMS_FIGURES_BYTES // (len(text) + 1)
        figures = msgspec.structs.replace(figures, operators=dict(list(figures.operators.items())[:kept]))
        text = msgspec.json.encode(figures)
    return text.decode()
