"""Streams and tables as users hold them while they build a topology. Each verb adds a node and checks it at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from headwater.errors import InvalidRequest
from headwater.streams import model
from headwater.streams.agg import Aggregate as Agg
from headwater.streams.agg import count as count_rows
from headwater.streams.duration import Duration, millis
from headwater.streams.flowing import Flowing, Keys, Row, as_is, columns_of, shown
from headwater.streams.frames import LATE, WINDOW_END, WINDOW_START
from headwater.streams.model import Emit, How, Schema, Window
from headwater.streams.typing import MOMENT, check_columns, inferred, schema_of

if TYPE_CHECKING:
    from headwater.streams.topology import Topology


class Stream(Flowing):
    """An unbounded sequence of rows, each of which is a fact of its own (Kafka Streams' KStream)."""

    # -- row by row ------------------------------------------------------------------------------------

    def filter(self, expr: pl.Expr, *, name: str = "") -> Stream:
        """The rows for which ``expr`` is true; not those for which it is null."""
        return Stream(self._topology, self._filtered(expr, name))

    def select(self, *exprs: Any, name: str = "", **named: Any) -> Stream:
        """Only these columns: names, expressions, or ``new=expression``."""
        return Stream(self._topology, self._selected(exprs, named, False, name))

    def with_columns(self, *exprs: Any, name: str = "", **named: Any) -> Stream:
        """These columns beside or in place of those that are there."""
        return Stream(self._topology, self._selected(exprs, named, True, name))

    def drop(self, *columns: str, name: str = "") -> Stream:
        """All columns but these."""
        check_columns(columns, self.node.schema, "drop")
        return self.select(*[each for each in self.node.schema if each not in columns], name=name)

    def rename(self, mapping: Mapping[str, str], *, name: str = "") -> Stream:
        """The same rows with other names of columns."""
        check_columns(tuple(mapping), self.node.schema, "rename")
        return self.select(*[pl.col(each).alias(mapping.get(each, each)) for each in self.node.schema], name=name)

    def map(self, fn: Callable[[Row], Row | None], *, schema: Any, name: str = "") -> Stream:
        """A Python function for each row; None drops it. 50 to 500 times slower than expressions."""
        return self._applied("map", fn, schema, name)

    def flat_map(self, fn: Callable[[Row], list[Row]], *, schema: Any, name: str = "") -> Stream:
        """A Python function that makes any number of rows of each. 50 to 500 times slower than expressions."""
        return self._applied("flat_map", fn, schema, name)

    def map_batches(self, fn: Callable[[pl.DataFrame], pl.DataFrame], *, schema: Any, name: str = "") -> Stream:
        """A Python function for each micro-batch. It may drop and add rows, and keeps ``_time`` and ``_wm``."""
        return self._applied("batch", fn, schema, name)

    def explode(self, column: str, *, name: str = "") -> Stream:
        """A row for each item of a list column; a null or an empty list gives one row with null."""
        check_columns((column,), self.node.schema, "explode")
        dtype = self.node.schema[column]
        if not isinstance(dtype, pl.List):
            raise InvalidRequest(f"explode takes a list; column {column!r} is {dtype}.")
        schema = inferred(self.node.schema, lambda frame: frame.explode(column), "explode")
        keys = () if column in self.node.keys else self.node.keys
        return Stream(
            self._topology,
            self._topology.add(
                model.Explode, "explode", name, parents=(self._node,), schema=schema, keys=keys, column=column
            ),
        )

    def merge(self, *others: Stream, name: str = "") -> Stream:
        """The rows of all these streams, which have the same columns."""
        streams = (self, *others)
        for other in others:
            if dict(other.node.schema) != dict(self.node.schema):
                raise InvalidRequest(
                    f"merge needs the same columns: {self._node!r} has {shown(self.node.schema)} and "
                    f"{other._node!r} has {shown(other.node.schema)}."
                )
        same = {stream.node.keys for stream in streams}
        return Stream(
            self._topology,
            self._topology.add(
                model.Merge,
                "merge",
                name,
                parents=tuple(stream._node for stream in streams),
                schema=self.schema,
                keys=self.node.keys if len(same) == 1 else (),
            ),
        )

    def split(self, branches: Mapping[str, pl.Expr], *, name: str = "") -> dict[str, Stream]:
        """Each row goes to the first branch whose expression is true; ``lit(True)`` takes the rest."""
        made = self._topology.named("split", name)
        for branch, expr in branches.items():
            found = inferred(self.node.schema, lambda frame, it=expr: frame.select(it.alias("it")), f"Split {made!r}")  # type: ignore[misc]
            if found["it"] != pl.Boolean() or branch in ("", LATE):
                raise InvalidRequest(f"Branch {branch!r} of {made!r} needs a name and a Boolean expression.")
        self._topology.add(
            model.Split, "split", made, parents=(self._node,), branches=tuple(branches.items()), **as_is(self.node)
        )
        return {branch: self._output(made, branch) for branch in branches}

    def repartition(self, *keys: str, name: str = "") -> Stream:
        """The same rows, each in the partition that its ``keys`` decide; through an internal topic if needed."""
        return Stream(self._topology, self._topology.partitioned(self._node, tuple(keys), name, always=True))

    def to_table(self, key: Keys, *, store: str = "", memory_max: int = 0, name: str = "") -> Table:
        """The newest row of each ``key`` (KIP-523)."""
        keys = columns_of(key)
        parent = self._topology.partitioned(self._node, keys)
        node = self._topology.add(
            model.Materialize,
            "to_table",
            name,
            parents=(parent,),
            schema=self.schema,
            keys=self._topology.nodes[parent].keys,
            is_table=True,
            by=keys,
            store=store,
            memory_max=memory_max,
        )
        return Table(self._topology, node, keys)

    def process(self, make: Callable[[], Any], *, schema: Any, store: str = "", name: str = "") -> Stream:
        """A processor of your own, with named state and timers: ``make()`` gives one for each task."""
        made = self._topology.named("process", name)
        return Stream(
            self._topology,
            self._topology.add(
                model.Process,
                "process",
                made,
                parents=(self._node,),
                schema=schema_of(schema, f"process {made!r}"),
                make=make,
                store=store,
            ),
        )

    # -- groups and joins ------------------------------------------------------------------------------

    def group_by(self, *columns: str, name: str = "") -> Grouped:
        """Groups of rows that are equal in ``columns``; repartitioned if need be."""
        return Grouped(self, columns, name)

    def join(
        self,
        other: Stream | Table | GlobalTable,
        *,
        on: Keys | None = None,
        left_on: Keys | None = None,
        right_on: Keys | None = None,
        within: Duration | None = None,
        before: Duration = 0,
        after: Duration = 0,
        how: How = "inner",
        grace: Duration = 0,
        suffix: str = "_right",
        memory_max: int = 0,
        name: str = "",
    ) -> Stream:
        """Rows of this stream with rows of ``other`` that have the same key.

        With a stream: those whose event times lie within each other's reach (``within``, or from ``before`` to
        ``after`` of the left row's). With a table: the table's row as it is when the row arrives.
        """
        left, right = columns_of(left_on or on), columns_of(right_on or on)
        if isinstance(other, Stream):
            if within is None and not before and not after:
                raise InvalidRequest('A join of two streams has a window: within="10s", or before= and after=.')
            reach = (within, within) if within is not None else (before, after)
            times = {"before": millis(reach[0], "before"), "after": millis(reach[1], "after")}
            return self._joined("stream", other, how, left, right, name, suffix, memory_max, grace, **times)
        kind: Literal["global", "table"] = "global" if isinstance(other, GlobalTable) else "table"
        if how == "outer" or within is not None or before or after:
            raise InvalidRequest("A stream meets a table's present rows: how is inner or left, and there is no window.")
        right = right or other.key
        if set(right) != set(other.key):
            raise InvalidRequest(f"A table is joined by its key ({', '.join(other.key)}), not by {', '.join(right)}.")
        return self._joined(kind, other, how, left or right, right, name, suffix, memory_max, grace)

    def join_asof(
        self,
        other: Stream,
        *,
        on: Keys | None = None,
        left_on: Keys | None = None,
        right_on: Keys | None = None,
        tolerance: Duration | None = None,
        how: Literal["inner", "left"] = "left",
        grace: Duration = 0,
        suffix: str = "_right",
        name: str = "",
    ) -> Stream:
        """Each row with the newest row of ``other`` of its key that is not younger, at most ``tolerance`` older.

        Rows wait until the watermark has passed them, so that the result is exact.
        """
        left, right = columns_of(left_on or on), columns_of(right_on or on)
        reach = -1 if tolerance is None else millis(tolerance, "The tolerance")
        return self._joined("asof", other, how, left, right, name, suffix, 0, grace, tolerance=reach)

    @property
    def late(self) -> Stream:
        """The rows that came too late for the windows of this join or aggregate."""
        if not isinstance(self.node, model.Join | model.Aggregate):
            raise InvalidRequest(f"{self._node!r} has no windows, so nothing is late for it.")
        return self._output(self._node, LATE)

    # -- below -----------------------------------------------------------------------------------------

    def _output(self, node: str, output: str) -> Stream:
        parent = self._topology.nodes[node]
        # What is late for a join comes as its rows do, with nothing on the other side.
        source = parent if isinstance(parent, model.Split | model.Join) else self._topology.nodes[parent.parents[0]]
        made = self._topology.output(node, output, schema=dict(source.schema), keys=source.keys)
        return Stream(self._topology, made)

    def _applied(self, mode: Literal["map", "flat_map", "batch"], fn: Any, schema: Any, name: str) -> Stream:
        made = self._topology.named(mode, name)
        node = self._topology.add(
            model.Apply,
            mode,
            made,
            parents=(self._node,),
            schema=schema_of(schema, f"{mode} {made!r}"),
            fn=fn,
            mode=mode,
        )
        return Stream(self._topology, node)

    def _joined(
        self,
        kind: Literal["stream", "table", "global", "asof"],
        other: Flowing,
        how: How,
        left: tuple[str, ...],
        right: tuple[str, ...],
        name: str,
        suffix: str,
        memory_max: int,
        grace: Duration,
        **times: int,
    ) -> Stream:
        node = self._topology.join(
            kind,
            self._node,
            other._node,
            name,
            how=how,
            left_on=left,
            right_on=right,
            suffix=suffix,
            memory_max=memory_max,
            grace=millis(grace, "The grace of a join"),
            **times,
        )
        return Stream(self._topology, node)


class Grouped:
    """Rows of a stream or table by the values of some columns; say what to make of each group."""

    def __init__(self, parent: Flowing, by: tuple[str, ...], name: str, window: Window | None = None) -> None:
        if not by:
            raise InvalidRequest("group_by needs at least one column; group by a constant to have one group.")
        check_columns(by, parent.node.schema, "group_by")
        self._parent = parent
        self._by = by
        self._name = name
        self._window = window

    def window(self, window: Window) -> Grouped:
        """The same groups, cut in event time: ``tumbling``, ``hopping``, ``sliding`` or ``session``."""
        if self._parent.node.is_table:
            raise InvalidRequest("Windows are for streams: the rows of a table have no time of their own.")
        return Grouped(self._parent, self._by, self._name, window)

    def count(self, *, name: str = "", store: str = "", emit: Emit = "update") -> Table:
        """How many rows, as column ``count``."""
        return self.aggregate(count=count_rows(), name=name, store=store, emit=emit)

    def aggregate(
        self, *, name: str = "", store: str = "", emit: Emit = "update", memory_max: int = 0, **aggs: Agg
    ) -> Table:
        """A row for each group (and window): ``total=agg.sum("x")``. A windowed table can be ``suppress``-ed."""
        made = self._parent._topology.named("aggregate", name or self._name)
        if not aggs:
            raise InvalidRequest(f"Aggregate {made!r} has no aggregate: aggregate(n=agg.count()).")
        if emit == "final" and self._window is None:
            raise InvalidRequest(f"Aggregate {made!r} has no window, so its results are never final.")
        schema, given = self._schema(made, aggs), tuple(aggs.items())
        return self._grouped(model.Aggregate, made, schema, emit, store, aggs=given, memory_max=memory_max)

    def reduce(self, fn: Callable[[Row, Row], Row], *, name: str = "", store: str = "", emit: Emit = "update") -> Table:
        """Groups folded by ``fn(row so far, next row)``, in order of arrival. A Python call for each row: slow."""
        made = self._parent._topology.named("reduce", name or self._name)
        if self._parent.node.is_table:
            raise InvalidRequest(f"Reduce {made!r}: the rows of a table can be taken back, and a fold cannot.")
        return self._grouped(model.Reduce, made, {**self._parent.schema, **self._times()}, emit, store, fn=fn)

    def _grouped(
        self, make: type[model.Node], made: str, schema: Schema, emit: Emit, store: str, **fields: Any
    ) -> Table:
        """A node that keeps something of each group, behind a repartition if need be."""
        topology, window = self._parent._topology, self._window
        parent = topology.partitioned(self._parent._node, self._by)
        node = topology.add(
            make,
            make.__name__.lower(),
            made,
            parents=(parent,),
            schema=schema,
            keys=topology.nodes[parent].keys,
            is_table=emit == "update",
            by=self._by,
            window=window,
            emit=emit,
            store=store,
            **fields,
        )
        return Table(topology, node, (*self._by, *((WINDOW_START,) if window else ())))

    def _times(self) -> Schema:
        return {WINDOW_START: MOMENT, WINDOW_END: MOMENT} if self._window else {}

    def _schema(self, made: str, aggs: Mapping[str, Agg]) -> Schema:
        parent = self._parent.node
        for column, agg in aggs.items():
            if column in (*self._by, WINDOW_START, WINDOW_END) or column.startswith("_"):
                raise InvalidRequest(f"Aggregate {made!r}: {column!r} is taken.")
            if parent.is_table and not agg.invertible:
                raise InvalidRequest(
                    f"Aggregate {made!r}: {agg.kind} over a table cannot take back a row; "
                    "count, sum and mean can. Or aggregate the stream that the table is made of."
                )
        partial = [expr for column, agg in aggs.items() for expr in agg.partial(column)]
        final = [agg.final(column) for column, agg in aggs.items()]
        found = inferred(
            parent.schema,
            lambda frame: frame.group_by(self._by).agg(partial).select(*self._by, *final),
            f"Aggregate {made!r}",
        )
        by = {name: found.pop(name) for name in self._by}
        return {**by, **self._times(), **found}


class Table(Flowing):
    """Rows by key, each of which replaces the one before it (Kafka Streams' KTable)."""

    def __init__(self, topology: Topology, node: str, key: tuple[str, ...]) -> None:
        super().__init__(topology, node)
        self.key = key

    def filter(self, expr: pl.Expr, *, name: str = "") -> Table:
        """The rows for which ``expr`` is true; a row that ceases to be so is gone."""
        return Table(self._topology, self._filtered(expr, name), self.key)

    def select(self, *exprs: Any, name: str = "", **named: Any) -> Table:
        """Only these columns, among which is the key."""
        return self._narrowed(self._selected(exprs, named, False, name))

    def with_columns(self, *exprs: Any, name: str = "", **named: Any) -> Table:
        """These columns beside or in place of those that are there."""
        return self._narrowed(self._selected(exprs, named, True, name))

    def group_by(self, *columns: str, name: str = "") -> Grouped:
        """Groups of the table's present rows: a row that changes leaves one group and enters another."""
        return Grouped(self, columns, name)

    def join(
        self,
        other: Table | GlobalTable,
        *,
        how: How = "inner",
        on: Keys | None = None,
        suffix: str = "_right",
        memory_max: int = 0,
        name: str = "",
    ) -> Table:
        """A table of both tables' rows of each key; with a global table ``on`` names the columns of this one."""
        if isinstance(other, GlobalTable):
            if how == "outer":
                raise InvalidRequest("A global table is looked up: how is inner or left.")
            left, right, kind = columns_of(on) or other.key, other.key, "global"
        else:
            left, right, kind = columns_of(on) or self.key, columns_of(on) or other.key, "tables"
            if set(left) != set(self.key) or set(right) != set(other.key):
                raise InvalidRequest(
                    f"Tables are joined by their keys: this one has ({', '.join(self.key)}), "
                    f"the other ({', '.join(other.key)})."
                )
        node = self._topology.join(
            kind,
            self._node,
            other._node,
            name,
            how=how,
            left_on=left,
            right_on=right,
            suffix=suffix,
            memory_max=memory_max,
        )
        return Table(self._topology, node, self.key)

    def suppress(self) -> Stream:
        """The final row of each window, once the watermark has passed its end and grace (KIP-328)."""
        node = self.node
        if not isinstance(node, model.Aggregate | model.Reduce) or node.window is None:
            raise InvalidRequest(f"{self._node!r} has no windows, so its rows are never final.")
        self._topology.finalized(self._node)
        return Stream(self._topology, self._node)

    def to_stream(self, *, name: str = "") -> Stream:
        """The table's changes: each new row, and rows that are gone with ``deleted`` true."""
        node = self.node
        if not node.is_table:
            return Stream(self._topology, self._node)
        if "deleted" in node.schema:
            raise InvalidRequest(f"{self._node!r} has a column 'deleted' already; rename it before to_stream().")
        made = self._topology.add(
            model.Changelog,
            "to_stream",
            name,
            parents=(self._node,),
            schema={**self.schema, "deleted": pl.Boolean()},
            keys=node.keys,
            by=self.key,
        )
        return Stream(self._topology, made)

    @property
    def late(self) -> Stream:
        """The rows that came too late for their windows."""
        return Stream(self._topology, self._node).late

    def _sink_key(self) -> tuple[str, ...]:
        return self.key

    def _narrowed(self, node: str) -> Table:
        check_columns(self.key, self._topology.nodes[node].schema, "The key of a table stays")
        return Table(self._topology, node, self.key)


class GlobalTable(Flowing):
    """A table that every task has whole (Kafka Streams' GlobalKTable)."""

    def __init__(self, topology: Topology, node: str, key: tuple[str, ...]) -> None:
        super().__init__(topology, node)
        self.key = key
