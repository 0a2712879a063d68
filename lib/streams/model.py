"""What a topology is made of: nodes, as plain data. Built by ``topology``, cut up by ``plan``, run by ``task``.

A node names its parents; data flows from parents to children in *frames* (``headwater.streams.frames``). Nothing here
reads a clock, a store or a record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import polars as pl

    from headwater.streams.agg import Aggregate as Agg

Schema: TypeAlias = "dict[str, pl.DataType]"
Format: TypeAlias = Literal["json", "avro", "arrow", "bytes", "frame"]
How: TypeAlias = Literal["inner", "left", "outer"]
Emit: TypeAlias = Literal["update", "final"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How event time is cut. All times in ms.

    ``tumbling``: ``size``, advancing by ``size``. ``hopping``: ``size``, advancing by ``advance``. ``sliding``: for
    each record the ``size`` before it, itself included. ``session``: runs of records with less than ``gap`` between.
    A record that is later than ``grace`` behind the end of its window goes to the late output.
    """

    kind: Literal["tumbling", "hopping", "sliding", "session"]
    size: int = 0
    advance: int = 0
    gap: int = 0
    grace: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node: its ``name`` is unique in its topology and names its state, so it must stay the same across upgrades.

    ``schema`` is what its frames hold besides the system columns; ``keys`` the columns whose values decide the
    partition that its rows lie in, empty if nothing is known of that. ``is_table`` says that frames are changes of a
    table: rows have a ``_weight`` of +1 or -1.
    """

    name: str
    parents: tuple[str, ...] = ()
    schema: Schema = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    is_table: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Node):
    """A topic that is read. ``key`` are the columns that its record keys are made of.

    ``time`` is a column of event time, empty for the record's timestamp.

    ``out_of_order`` is how far behind the newest row of its partition a row may be and not be late (ms). After
    ``idle`` ms without a record a partition no longer holds back the watermark; -1 waits for ever.
    """

    topic: str
    format: Format
    key: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None
    time: str = ""
    out_of_order: int = 0
    idle: int = 60_000
    kind: Literal["stream", "table", "global"] = "stream"
    store: str = ""
    whole: Schema = field(default_factory=dict)  # all columns of the values, of which ``schema`` may be some


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter(Node):
    """Rows for which ``expr`` is true."""

    expr: pl.Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class Select(Node):
    """New columns from old ones; ``keep`` keeps the others as well."""

    exprs: tuple[pl.Expr, ...]
    keep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply(Node):
    """A Python function: over whole frames (``batch``), or over rows as dicts, which is 50 to 500 times slower.

    ``mode`` map: a row becomes a row, or None for none; flat_map: a list of rows; batch: a frame becomes a frame.
    """

    fn: Callable[..., Any]
    mode: Literal["map", "flat_map", "batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explode(Node):
    """A row for each item of a list column (flat_map without Python)."""

    column: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge(Node):
    """The rows of all parents, which have the same schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split(Node):
    """Each row goes to the first branch whose expression is true; rows of no branch end here.

    Children read a branch through a ``Branch``.
    """

    branches: tuple[tuple[str, pl.Expr], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch(Node):
    """One output of its parent besides the main one: a branch of a ``Split``, or ``late``."""

    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Repartition(Node):
    """Rows travel through an internal topic to the partition that ``by`` says. Cut off by the plan where needless."""

    by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate(Node):
    """Groups of ``by``, in windows or for ever. Outputs: main, and ``late``."""

    by: tuple[str, ...]
    aggs: tuple[tuple[str, Agg], ...]
    window: Window | None = None
    emit: Emit = "update"
    store: str = ""
    memory_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduce(Node):
    """Groups folded by a Python function ``fn(old row, new row) -> row``, in order of arrival: slow, and said so."""

    by: tuple[str, ...]
    fn: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
    window: Window | None = None
    emit: Emit = "update"
    store: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Join(Node):
    """Parents: left, right. ``kind`` says what they are.

    ``stream``: rows within ``before``/``after`` ms of each other; ``table``: the left stream's rows meet the right
    table as it is then; ``tables``: a table of both; ``global``: as ``table``, with a table that every task has whole;
    ``asof``: each left row meets the newest right row that is not younger, at most ``tolerance`` ms old.
    Outputs: main, and ``late``.
    """

    kind: Literal["stream", "table", "tables", "global", "asof"]
    how: How
    left_on: tuple[str, ...]
    right_on: tuple[str, ...]
    before: int = 0
    after: int = 0
    grace: int = 0
    tolerance: int = -1
    suffix: str = "_right"
    store: str = ""
    memory_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Changelog(Node):
    """A table's changes as a stream: new rows only (``to_stream``). Rows that are gone come with ``deleted`` true.

    ``by`` is the table's key, of which a frame's last row says whether it is there.
    """

    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Materialize(Node):
    """A stream as a table: the newest row of each key (``to_table``)."""

    by: tuple[str, ...]
    store: str = ""
    memory_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Process(Node):
    """A user's processor (``headwater.streams.process.Processor``), with its named state and its timers."""

    make: Callable[[], Any]
    store: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink(Node):
    """A topic that is written: ``key`` columns become the record key; of a table deleted rows become tombstones."""

    topic: str
    format: Format
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A whole topology: its nodes in an order in which parents come first, by name."""

    job: str
    nodes: Mapping[str, Node]
    dead_letters: str = ""  # the topic for records that fail; without one a failure stops the job
