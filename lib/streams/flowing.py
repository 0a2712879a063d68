"""What streams and tables share while a topology is built: a place in it, columns, and the verbs that both have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from headwater.errors import InvalidRequest
from headwater.streams import model
from headwater.streams.model import Format, Schema
from headwater.streams.typing import check_columns, inferred, schema_of

if TYPE_CHECKING:
    from headwater.streams.topology import Topology

Keys: TypeAlias = "str | tuple[str, ...] | list[str]"
Row: TypeAlias = "dict[str, Any]"


def columns_of(given: Keys | None) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)


class Flowing:
    """What streams and tables share: a place in a topology, and columns."""

    def __init__(self, topology: Topology, node: str) -> None:
        self._topology = topology
        self._node = node

    @property
    def node(self) -> model.Node:
        """The node whose rows these are."""
        return self._topology.nodes[self._node]

    @property
    def schema(self) -> Schema:
        """The columns, with their Polars types."""
        return dict(self.node.schema)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._node!r}, {self.schema})"

    def to(self, topic: str, *, key: Keys | None = None, format: Format = "json", name: str = "") -> None:  # noqa: A002
        """Write every row to ``topic``: ``key`` columns as its key, all columns as its value.

        Of a table the key is the table's, and a row that is gone becomes a tombstone.
        """
        keys = columns_of(key) or self._sink_key()
        check_columns(keys, self.node.schema, f"The key for topic {topic!r}")
        self._topology.add(
            model.Sink, "to", name, parents=(self._node,), schema=self.schema, topic=topic, format=format, key=keys
        )

    def _sink_key(self) -> tuple[str, ...]:
        return ()

    def _filtered(self, expr: pl.Expr, name: str) -> str:
        made = self._topology.named("filter", name)
        node = self.node
        found = inferred(node.schema, lambda frame: frame.select(expr.alias("it")), f"Filter {made!r}")
        if found["it"] != pl.Boolean():
            raise InvalidRequest(f"Filter {made!r} needs a Boolean; this expression is {found['it']}.")
        return self._topology.add(model.Filter, "filter", made, parents=(self._node,), expr=expr, **as_is(node))

    def _selected(self, exprs: tuple[Any, ...], named: dict[str, Any], keep: bool, name: str) -> str:
        made = self._topology.named("with_columns" if keep else "select", name)
        given = tuple([_expr(each) for each in exprs] + [_value(each).alias(as_) for as_, each in named.items()])
        node = self.node
        schema = inferred(
            node.schema, lambda frame: frame.with_columns(given) if keep else frame.select(given), f"Select {made!r}"
        )
        schema_of(schema, f"select {made!r}")
        kept = _keys_after(node, given, keep)
        return self._topology.add(
            model.Select,
            "select",
            made,
            parents=(self._node,),
            schema=schema,
            keys=kept,
            is_table=node.is_table,
            exprs=given,
            keep=keep,
        )


def as_is(node: model.Node) -> dict[str, Any]:
    """The fields of a node that gives its parent's rows unchanged."""
    return {"schema": dict(node.schema), "keys": node.keys, "is_table": node.is_table}


def _expr(given: Any) -> pl.Expr:
    return pl.col(given) if isinstance(given, str) else _value(given)


def _value(given: Any) -> pl.Expr:
    return given if isinstance(given, pl.Expr) else pl.lit(given)


def _keys_after(node: model.Node, exprs: tuple[pl.Expr, ...], keep: bool) -> tuple[str, ...]:
    """The columns that still decide the partition: those that come through unchanged."""
    made: dict[str, pl.Expr] = {}
    for expr in exprs:
        for name in inferred(node.schema, lambda frame, it=expr: frame.select(it), "select"):  # type: ignore[misc]
            made[name] = expr
    for key in node.keys:
        if key not in made:
            if not keep:
                return ()
        elif not made[key].meta.eq(pl.col(key)):
            return ()
    return node.keys


def shown(schema: Schema) -> str:
    """Columns and types, for messages."""
    return ", ".join(f"{name} {dtype}" for name, dtype in schema.items())
