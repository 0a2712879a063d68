"""Aggregates: what a group is summed up as. Each is made of partial sums that merge, so no row is kept for it.

    flights.group_by("origin").aggregate(n=agg.count(), mean=agg.mean("delay"), worst=agg.arg_max("tailnum", "delay"))

An argument is a column's name or a Polars expression over rows. Nulls count as in SQL: ``count()`` counts rows,
``count("x")`` those in which x is not null, and the others pass over nulls; but a sum of no value is 0, as in Polars.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import polars as pl

from headwater.streams.frames import TIME, WEIGHT

Value: TypeAlias = "str | pl.Expr"
Kind: TypeAlias = Literal[
    "count", "sum", "mean", "min", "max", "first", "last", "n_unique", "var", "arg_max", "arg_min", "collect"
]
INVERTIBLE: Final = frozenset({"count", "sum", "mean"})


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One aggregate. ``partial`` sums up rows, ``merge`` sums up partial sums, ``final`` is what users see of them."""

    kind: Kind
    value: pl.Expr | None = None
    by: pl.Expr | None = None

    @property
    def invertible(self) -> bool:
        """Whether a row can be taken back, so that it works over tables."""
        return self.kind in INVERTIBLE

    def parts(self, name: str) -> list[str]:
        """The columns of its partial sums."""
        return [f"{name}|{part}" for part in _PARTS[self.kind]]

    def partial(self, name: str, *, weighted: bool = False) -> list[pl.Expr]:
        """Over the rows of a group, in order of arrival; ``weighted`` by ``_weight``."""
        made = _weighted(self) if weighted else _plain(self)
        return [expr.alias(part) for expr, part in zip(made, self.parts(name), strict=True)]

    def merge(self, name: str) -> list[pl.Expr]:
        """Over partial sums of a group, older ones first; the columns keep their names."""
        columns = [pl.col(part) for part in self.parts(name)]
        return [expr.alias(part) for expr, part in zip(_merged(self.kind, columns), self.parts(name), strict=True)]

    def final(self, name: str) -> pl.Expr:
        """From the partial sums of a row, the value."""
        return _final(self.kind, [pl.col(part) for part in self.parts(name)]).alias(name)


_PARTS: dict[Kind, tuple[str, ...]] = {
    "count": ("n",),
    "sum": ("sum",),
    "mean": ("sum", "n"),
    "min": ("min",),
    "max": ("max",),
    "first": ("value", "at"),
    "last": ("value", "at"),
    "n_unique": ("values",),
    "var": ("n", "mean", "m2"),
    "arg_max": ("value", "at"),
    "arg_min": ("value", "at"),
    "collect": ("values",),
}


def _plain(agg: Aggregate) -> list[pl.Expr]:
    if agg.value is None:
        return [pl.len().cast(pl.Int64)]
    value = agg.value
    n = value.is_not_null().sum().cast(pl.Int64)
    match agg.kind:
        case "count":
            return [n]
        case "sum":
            return [value.sum()]
        case "mean":
            return [value.cast(pl.Float64).sum(), n]
        case "min":
            return [value.min()]
        case "max":
            return [value.max()]
        case "first" | "arg_min":
            at = pl.col(TIME) if agg.by is None else agg.by
            return [value.filter(at == at.min()).first(), at.min()]
        case "last":
            at = pl.col(TIME)
            return [value.filter(at == at.max()).last(), at.max()]
        case "arg_max":
            assert agg.by is not None
            return [value.filter(agg.by == agg.by.max()).first(), agg.by.max()]
        case "n_unique":
            return [value.drop_nulls().unique(maintain_order=True)]
        case "var":
            number = value.cast(pl.Float64)
            return [n, number.mean(), ((number - number.mean()) ** 2).sum()]
        case "collect":
            return [value]


def _weighted(agg: Aggregate) -> list[pl.Expr]:
    weight = pl.col(WEIGHT).cast(pl.Int64)
    if agg.value is None:
        return [weight.sum()]
    n = (weight * agg.value.is_not_null()).sum()
    match agg.kind:
        case "count":
            return [n]
        case "sum":
            return [(agg.value * weight).sum()]
        case "mean":
            return [(agg.value.cast(pl.Float64) * weight).sum(), n]
    raise AssertionError(f"{agg.kind} over a table is refused when the topology is built")


def _merged(kind: Kind, parts: list[pl.Expr]) -> list[pl.Expr]:
    match kind:
        case "count" | "sum" | "mean":
            return [part.sum() for part in parts]
        case "min":
            return [parts[0].min()]
        case "max":
            return [parts[0].max()]
        case "first" | "arg_min":
            value, at = parts
            return [value.filter(at == at.min()).first(), at.min()]
        case "last":
            value, at = parts
            return [value.filter(at == at.max()).last(), at.max()]
        case "arg_max":
            value, at = parts
            return [value.filter(at == at.max()).first(), at.max()]
        case "n_unique":
            return [parts[0].explode().drop_nulls().unique(maintain_order=True)]
        case "collect":
            return [parts[0].explode()]
        case "var":
            n, mean, m2 = parts
            total = n.sum()
            whole = (n * mean).sum() / total  # Chan et al., Updating Formulae, 1979
            return [total, whole, m2.sum() + (n * (mean - whole) ** 2).sum()]


def _final(kind: Kind, parts: list[pl.Expr]) -> pl.Expr:
    match kind:
        case "mean":
            total, n = parts
            return pl.when(n != 0).then(total / n)
        case "n_unique":
            return parts[0].list.len().cast(pl.Int64)
        case "var":
            n, _, m2 = parts
            return pl.when(n > 1).then(m2 / (n - 1))
        case _:
            return parts[0]


def _expr(value: Value) -> pl.Expr:
    return pl.col(value) if isinstance(value, str) else value


def count(value: Value | None = None) -> Aggregate:
    """How many rows, or how many of them have a ``value``. Int64."""
    return Aggregate("count", None if value is None else _expr(value))


def sum(value: Value) -> Aggregate:  # noqa: A001 - what everybody calls it
    """The sum; 0 of none."""
    return Aggregate("sum", _expr(value))


def mean(value: Value) -> Aggregate:
    """The mean. Float64; null of none."""
    return Aggregate("mean", _expr(value))


def min(value: Value) -> Aggregate:  # noqa: A001 - what everybody calls it
    """The least value."""
    return Aggregate("min", _expr(value))


def max(value: Value) -> Aggregate:  # noqa: A001 - what everybody calls it
    """The greatest value."""
    return Aggregate("max", _expr(value))


def first(value: Value) -> Aggregate:
    """The value of the row with the least event time; of several the one that arrived first."""
    return Aggregate("first", _expr(value))


def last(value: Value) -> Aggregate:
    """The value of the row with the greatest event time; of several the one that arrived last."""
    return Aggregate("last", _expr(value))


def n_unique(value: Value) -> Aggregate:
    """How many different values. Exact: its state holds them all."""
    return Aggregate("n_unique", _expr(value))


def var(value: Value) -> Aggregate:
    """The sample variance. Float64; null of fewer than two."""
    return Aggregate("var", _expr(value))


def arg_max(value: Value, by: Value) -> Aggregate:
    """``value`` in the row with the greatest ``by``; of several the one that arrived first."""
    return Aggregate("arg_max", _expr(value), _expr(by))


def arg_min(value: Value, by: Value) -> Aggregate:
    """``value`` in the row with the least ``by``; of several the one that arrived first."""
    return Aggregate("arg_min", _expr(value), _expr(by))


def collect(value: Value) -> Aggregate:
    """All values as a list, in order of arrival. Its state grows with the group."""
    return Aggregate("collect", _expr(value))


def described(agg: Aggregate, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """What an upgrade must leave alone: the kind, and the types of the partial sums over rows of ``schema``."""
    frame = pl.LazyFrame(schema={**schema, TIME: pl.Int64}).group_by(pl.lit(0)).agg(agg.partial(name))
    types = frame.collect_schema()
    return {"kind": agg.kind, "parts": {part: str(types[part]) for part in agg.parts(name)}}
