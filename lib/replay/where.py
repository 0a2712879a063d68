"""Conditions as people write them, as expressions of Arrow: ``dep_delay > 60 and carrier in ("UA", "AA")``.

The words are Python's: names of columns, numbers, texts, True, False and None; ``== != < <= > >= in``, ``is None``,
``and``, ``or``, ``not`` and brackets. Texts fit themselves to the column: bytes, times, dates and decimals are read
from them. Nothing is evaluated but these.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset as ds

from headwater.errors import InvalidRequest

CHARS_MAX: Final = 10_000
_COMPARE: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_MIRROR: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
    ast.Eq: ast.Eq,
    ast.NotEq: ast.NotEq,
}


def parse_where(condition: str, schema: pa.Schema) -> Any:
    """The condition on columns of ``schema``.

    Raises:
        InvalidRequest: it cannot be read, names an unknown column, or compares what cannot be compared.
    """
    if len(condition) > CHARS_MAX:
        raise InvalidRequest(f"A condition has at most {CHARS_MAX} characters.")
    try:
        tree = ast.parse(condition.strip(), mode="eval")
        return _logic(tree.body, schema)
    except (SyntaxError, RecursionError, ValueError, MemoryError) as error:
        raise InvalidRequest(
            f"The condition {condition[:200]!r} cannot be read: write it as in 'dep_delay > 60 and carrier == \"UA\"'."
        ) from error


def _logic(node: ast.expr, schema: pa.Schema) -> Any:
    if isinstance(node, ast.BoolOp):
        found = _logic(node.values[0], schema)
        for each in node.values[1:]:
            right = _logic(each, schema)
            found = found & right if isinstance(node.op, ast.And) else found | right
        return found
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_logic(node.operand, schema)
    if isinstance(node, ast.Compare):
        return _chain(node, schema)
    if isinstance(node, ast.Name):
        if pa.types.is_boolean(_column(node, schema).type):
            return ds.field(node.id)
        raise InvalidRequest(f"Column {node.id!r} is no condition by itself: compare it with something.")
    raise _strange(node)


def _chain(node: ast.Compare, schema: pa.Schema) -> Any:
    """``1 < x <= 5`` is two comparisons."""
    sides = [node.left, *node.comparators]
    found: Any = None
    for left, op, right in zip(sides, node.ops, sides[1:], strict=False):
        one = _compare(left, op, right, schema)
        found = one if found is None else found & one
    return found


def _compare(left: ast.expr, op: ast.cmpop, right: ast.expr, schema: pa.Schema) -> Any:
    if not isinstance(left, ast.Name) and isinstance(right, ast.Name) and type(op) in _MIRROR:
        left, op, right = right, _MIRROR[type(op)](), left
    if not isinstance(left, ast.Name):
        raise _strange(left)
    column = _column(left, schema)
    field = ds.field(left.id)
    if isinstance(right, ast.Name) and type(op) in _COMPARE:
        _column(right, schema)
        return _COMPARE[type(op)](field, ds.field(right.id))
    value = _literal(right)
    if isinstance(op, ast.In | ast.NotIn) and isinstance(value, list | tuple | set):
        found = field.isin(pa.array([_scalar(each, column).as_py() for each in value], column.type))
        return ~found if isinstance(op, ast.NotIn) else found
    if value is None and isinstance(op, ast.Is | ast.IsNot | ast.Eq | ast.NotEq):
        return field.is_null() if isinstance(op, ast.Is | ast.Eq) else field.is_valid()
    if type(op) not in _COMPARE or isinstance(value, list | tuple | set) or value is None:
        raise _strange(right)
    return _COMPARE[type(op)](field, _scalar(value, column))


def _column(node: ast.Name, schema: pa.Schema) -> Any:
    if node.id not in schema.names:
        raise InvalidRequest(f"There is no column {node.id!r}; there are {', '.join(schema.names)}.", column=node.id)
    return schema.field(node.id)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise _strange(node) from error


def _scalar(value: Any, column: pa.Field[Any]) -> Any:
    """The value as the column has it; a number stays as it is where the column would cut it."""
    kind = column.type
    try:
        if isinstance(value, str) and pa.types.is_timestamp(kind):
            zoned = pa.scalar(value).cast(pa.timestamp("us", "UTC" if _has_zone(value) else None))
            return zoned.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.timestamp("us", kind.tz))
        if isinstance(value, str) and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            return pa.scalar(value.encode(), kind)
        if isinstance(value, str):
            return pa.scalar(value).cast(kind)
        if isinstance(value, float) and pa.types.is_integer(kind):
            return pa.scalar(value)
        return pa.scalar(value, kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise InvalidRequest(
            f"Column {column.name!r} is {kind} and cannot be compared with {value!r}.", column=column.name
        ) from error


def _has_zone(text: str) -> bool:
    tail = text[10:]
    return tail.endswith("Z") or "+" in tail or "-" in tail


def _strange(node: ast.AST) -> InvalidRequest:
    return InvalidRequest(
        f"{ast.unparse(node)[:200]!r} has no meaning in a condition: there are columns, values, == != < <= > >= in, "
        "is None, and, or, not."
    )
