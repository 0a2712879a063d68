"""Spark's filters as conditions of Arrow, for a replay to skip files and row groups by.

Spark still tests every row itself, so a filter that is left out costs time and nothing else. Left out is what the two
sides see differently: fractions, for Spark counts NaN as the greatest number of all and as equal to itself.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset as ds
from pyspark.sql.datasource import (
    EqualTo,
    Filter,
    GreaterThan,
    GreaterThanOrEqual,
    In,
    IsNotNull,
    IsNull,
    LessThan,
    LessThanOrEqual,
)

_COMPARE: Final[dict[type, Callable[[Any, Any], Any]]] = {
    EqualTo: operator.eq,
    GreaterThan: operator.gt,
    GreaterThanOrEqual: operator.ge,
    LessThan: operator.lt,
    LessThanOrEqual: operator.le,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition on one column, in a form that travels: ``value`` is a plain one, or a tuple of them for ``in``."""

    column: str
    kind: str
    value: Any = None


def conditions_of(filters: Iterable[Filter]) -> list[Condition]:
    """What can be used of the filters."""
    return [condition for condition in map(_test, filters) if condition is not None]


def expression(conditions: Iterable[Condition], schema: pa.Schema) -> Any | None:
    """All of them at once, as far as they fit the columns of ``schema``; None if there is nothing to go by."""
    found: Any = None
    for condition in conditions:
        one = _expression(condition, schema)
        if one is not None:
            found = one if found is None else found & one
    return found


def bounds(conditions: Iterable[Condition], column: str) -> tuple[int, int | None]:
    """The whole numbers ``[low, high)`` of the column for which all conditions can hold; None is no upper end."""
    low, high = 0, None
    for condition in conditions:
        if condition.column != column or not isinstance(condition.value, int):
            continue
        start, end = _range(condition)
        low = max(low, start)
        high = end if high is None else high if end is None else min(high, end)
    return low, high


def _test(given: Filter) -> Condition | None:
    path: Sequence[str] = getattr(given, "attribute", ())
    if len(path) != 1:
        return None
    if isinstance(given, IsNull | IsNotNull):
        return Condition(column=path[0], kind=type(given).__name__)
    if isinstance(given, In):
        return Condition(column=path[0], kind="In", value=tuple(given.value))
    if type(given) in _COMPARE:
        return Condition(column=path[0], kind=type(given).__name__, value=getattr(given, "value", None))
    return None


_BY_NAME: Final = {kind.__name__: compare for kind, compare in _COMPARE.items()}


def _expression(condition: Condition, schema: pa.Schema) -> Any | None:
    if condition.column not in schema.names:
        return None
    kind = schema.field(condition.column).type
    field = ds.field(condition.column)
    if condition.kind == "IsNull":
        return field.is_null()
    if condition.kind == "IsNotNull":
        return field.is_valid()
    if not _alike(kind):
        return None
    try:
        if condition.kind == "In":
            return field.isin(pa.array(condition.value, _literal_type(kind)))
        return _BY_NAME[condition.kind](field, pa.scalar(condition.value, _literal_type(kind)))
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return None  # a value that the column cannot have: Spark will say so row by row


def _alike(kind: Any) -> bool:
    """Whether Arrow and Spark compare values of the type in the same way."""
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_boolean(kind)
        or types.is_string(kind)
        or types.is_binary(kind)
        or types.is_date32(kind)
        or types.is_timestamp(kind)
    )


def _literal_type(kind: Any) -> pa.DataType:
    """Spark's times are finer than a topic's: they are compared in microseconds, not cut to milliseconds."""
    return pa.timestamp("us", kind.tz) if pa.types.is_timestamp(kind) else kind


def _range(condition: Condition) -> tuple[int, int | None]:
    value = int(condition.value)
    match condition.kind:
        case "EqualTo":
            return value, value + 1
        case "GreaterThan":
            return value + 1, None
        case "GreaterThanOrEqual":
            return value, None
        case "LessThan":
            return 0, max(value, 0)
        case "LessThanOrEqual":
            return 0, max(value + 1, 0)
    return 0, None
