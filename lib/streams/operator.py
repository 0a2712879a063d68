"""What an operator is at run time: a pure machine that takes frames and time, and owns one node's state of one task.

No operator reads a clock or a store. All that it did since the last commit is in ``deltas``; the runner puts them into
the changelog by the same intent as outputs and offsets. If that intent is refused the task is thrown away and made
anew from the changelog, so an operator never needs to undo anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import polars as pl

    from headwater.streams.model import Node, Schema

Outputs: TypeAlias = "Iterable[tuple[str, pl.DataFrame]]"  # (output, frame): MAIN, LATE, FAILED, or a branch


@dataclass(frozen=True, slots=True)
class Delta:
    """A change of state: ``frame`` is the operator's own affair, ``tag`` says which kind it is."""

    tag: str
    frame: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Size:
    """What a state holds in memory, and on disk where it was spilled."""

    rows: int = 0
    bytes: int = 0
    spilled: int = 0

    @classmethod
    def of(cls, frames: Iterable[pl.DataFrame]) -> Size:
        """What frames take that are in memory."""
        held = list(frames)
        return cls(sum(each.height for each in held), sum(int(each.estimated_size()) for each in held))

    def __add__(self, other: Size) -> Size:
        return Size(self.rows + other.rows, self.bytes + other.bytes, self.spilled + other.spilled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What an operator may know about where it runs.

    ``inputs`` are the schemas of its parents' frames without system columns, by port. ``spill`` is a folder of its own
    for state that outgrows ``memory_max`` bytes; empty where there is none. ``read`` names the columns that whoever is
    below looks at, where that is known.
    """

    task: int
    inputs: Sequence[Schema]
    tables: Sequence[bool]  # by port: whether that parent is a table
    spill: str = ""
    memory_max: int = 0
    dead_letters: bool = False  # whether rows that a function refuses have somewhere to go
    read: frozenset[str] | None = None


class Operator:
    """The base: a stateless operator overrides ``process`` alone.

    ``behind`` (ms): how far behind its own watermark a row that it gives may be, as when it waits for the grace of a
    window. The nodes below hear a watermark that is held back by so much, so that they are not done before its rows
    come. (Flink's operators hold theirs back likewise.)
    """

    behind: int = 0

    def process(self, port: int, frame: pl.DataFrame) -> Outputs:
        """Take a frame of the parent number ``port``. Frames are never empty and never changed in place."""
        raise NotImplementedError

    def advance(self, watermark: int, now_ms: int) -> Outputs:
        """Called once after the frames of each step, and by itself when time passes.

        ``watermark``: no row with ``_wm`` below it will come that was not late in its own partition. ``now_ms`` is the
        runner's wall clock, for punctuation only.
        """
        return ()

    def deltas(self) -> Sequence[Delta]:
        """What changed since the last call, so that ``restore`` of all of them in order gives this state."""
        return ()

    def snapshot(self) -> Iterable[Delta]:
        """The whole state, in pieces; ``restore`` of them into a new one gives it."""
        return ()

    def restore(self, delta: Delta) -> None:
        """Take back a delta or a piece of a snapshot, in the order in which they were given."""
        raise NotImplementedError

    def restored(self) -> None:
        """All deltas are back: build what serves lookups."""

    def size(self) -> Size:
        """What the state takes. Cheap: asked after every commit."""
        return Size()

    def query(self, keys: pl.DataFrame | None) -> pl.DataFrame:
        """Rows of the state as users know them (interactive queries): those of ``keys``, or all."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of files."""


Maker: TypeAlias = "Callable[[Any, Context], Operator]"
MAKERS: dict[type[Node], Maker] = {}  # filled by the modules of `ops`


def operator(kind: type[Node]) -> Callable[[Maker], Maker]:
    """Register what makes operators of nodes of ``kind``: ``@operator(Filter)`` above a class or function."""

    def register(make: Maker) -> Maker:
        MAKERS[kind] = make
        return make

    return register
