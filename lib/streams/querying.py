"""SQL over streams, for the common cases: one SELECT becomes the verbs that one would write by hand.

    late = streams.sql(
        "SELECT origin, window_start, count(*) AS n FROM flights WHERE delay > 15 "
        "GROUP BY origin, TUMBLE(INTERVAL '1' HOUR, INTERVAL '10' MINUTE) EMIT FINAL",
        flights=t.stream("flights", …),
    )
    late.to("late-per-hour")

Covered: ``SELECT … FROM a [JOIN b ON a.x = b.y] WHERE … GROUP BY columns [, window] HAVING …``, with the windows
``TUMBLE(size [, grace])``, ``HOP(advance, size [, grace])``, ``SESSION(gap [, grace])`` of event time, the aggregates
of ``agg``, and at the end ``EMIT CHANGES`` (the default) or ``EMIT FINAL``. sqlglot parses, Polars evaluates.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import polars as pl

from headwater.errors import InvalidRequest
from headwater.replay.extras import extra
from headwater.streams import agg
from headwater.streams.agg import Aggregate
from headwater.streams.model import Window
from headwater.streams.stream import GlobalTable, Grouped, Stream, Table
from headwater.streams.windows import hopping, session, tumbling

_EMIT = re.compile(r"\bEMIT\s+(CHANGES|FINAL)\s*;?\s*$", re.IGNORECASE)
_SESSION = re.compile(r"\bSESSION\s*\(", re.IGNORECASE)  # a keyword of its own to the parser
_UNITS: Final = {"MILLISECOND": 1, "SECOND": 1_000, "MINUTE": 60_000, "HOUR": 3_600_000, "DAY": 86_400_000}
_WINDOWS: Final = ("TUMBLE", "HOP", "SESSION_OF")
_COVERED: Final = frozenset({"kind", "expressions", "from_", "from", "joins", "where", "group", "having"})


def sql(query: str, **sources: Stream | Table | GlobalTable) -> Stream | Table:
    """The stream or table that ``query`` describes; its FROM and JOIN name ``sources``.

    A table if it groups without ``EMIT FINAL``. Raises ``InvalidRequest`` for what is not covered, and says what.
    """
    found = _EMIT.search(query)
    is_final = found is not None and found[1].upper() == "FINAL"
    select = _parsed(_renamed(query[: found.start()] if found else query))
    rows = _joined(select, sources)
    where = select.args.get("where")
    if where is not None:
        rows = rows.filter(_expr(where.this))
    group = select.args.get("group")
    if group is None:
        if is_final or _has_aggregate(select) or select.args.get("having"):
            raise InvalidRequest("Aggregates, HAVING and EMIT FINAL need a GROUP BY: a stream never ends.")
        return _selected(rows, select)
    return _grouped(rows, select, group, is_final)


def _renamed(query: str) -> str:
    """The query with another name for SESSION, but for what stands in quotes."""
    parts = re.split(r"('(?:[^']|'')*')", query)
    return "".join(part if part.startswith("'") else _SESSION.sub("SESSION_OF(", part) for part in parts)


def _parsed(query: str) -> Any:
    sqlglot = extra("sqlglot", "streams")
    try:
        parsed = sqlglot.parse(query, dialect="duckdb")
    except sqlglot.errors.ParseError as error:
        raise InvalidRequest(f"This is no SQL: {str(error).splitlines()[0]}") from error
    if len(parsed) != 1 or not isinstance(parsed[0], sqlglot.exp.Select):
        raise InvalidRequest("SQL over streams is one SELECT.")
    select = parsed[0]
    for name, value in select.args.items():
        if value and name not in _COVERED:
            raise InvalidRequest(f"SQL over streams has no {name.strip('_').upper().replace('_', ' ')}.")
    return select


def _joined(select: Any, sources: dict[str, Any]) -> Any:
    from_ = select.args.get("from_") or select.args.get("from")
    if from_ is None:
        raise InvalidRequest("A query names what it reads: FROM a stream or table.")
    rows = _named(from_.this, sources)
    for join in select.args.get("joins") or ():
        on = join.args.get("on")
        conditions = [] if on is None else list(on.flatten()) if on.key == "and" else [on]
        pairs = [_equal(each, from_.this, join.this) for each in conditions]
        if not pairs or join.side not in ("", "LEFT") or join.kind not in ("", "INNER", "OUTER"):
            raise InvalidRequest("A JOIN is inner or LEFT, with a table, ON equal columns: JOIN b ON a.x = b.y.")
        other = _named(join.this, sources)
        if isinstance(other, Stream):
            raise InvalidRequest("SQL joins a stream with tables; for two streams call join(…, within=…).")
        left, right = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        _refuse_hidden(select, join.this.alias_or_name, {name for name in rows.schema if (name, name) not in pairs})
        how = "left" if join.side == "LEFT" else "inner"
        if isinstance(rows, Table):
            rows = rows.join(other, on=left, how=how)  # type: ignore[arg-type]
        else:
            rows = rows.join(other, left_on=left, right_on=right, how=how)
    return rows


def _named(table: Any, sources: dict[str, Any]) -> Any:
    name = getattr(table, "name", "")
    if name not in sources:
        known = ", ".join(sources) or "none"
        raise InvalidRequest(f"There is no source {name or str(table)!r}; sources are given by name, and are: {known}.")
    return sources[name]


def _refuse_hidden(select: Any, alias: str, taken: set[str]) -> None:
    """A column of the right side whose name the left side has too: names of sources do not reach expressions."""
    exp = extra("sqlglot", "streams").exp
    for each in select.expressions + [
        select.args[name] for name in ("where", "group", "having") if select.args.get(name)
    ]:
        for column in each.find_all(exp.Column):
            if column.table == alias and column.name in taken:
                raise InvalidRequest(f"{column.sql()}: both sides have {column.name!r}; rename one before the join.")


def _equal(condition: Any, left: Any, right: Any) -> tuple[str, str]:
    """The columns of ``a.x = b.y``, the left side's first."""
    exp = extra("sqlglot", "streams").exp
    sides = [condition.this, condition.expression] if isinstance(condition, exp.EQ) else []
    if len(sides) != 2 or not all(isinstance(each, exp.Column) for each in sides):
        raise InvalidRequest(f"A JOIN is ON equal columns, not {condition.sql()}.")
    if sides[0].table == right.alias_or_name:
        sides.reverse()
    if sides[1].table not in ("", right.alias_or_name) or sides[0].table not in ("", left.alias_or_name):
        raise InvalidRequest(f"{condition.sql()} names a source that is not in the query.")
    return sides[0].name, sides[1].name


def _selected(rows: Stream | Table, select: Any) -> Stream | Table:
    items = select.expressions
    if len(items) == 1 and items[0].is_star:
        return rows
    return rows.select(*[_expr(each) for each in items])


def _grouped(rows: Stream | Table, select: Any, group: Any, is_final: bool) -> Stream | Table:
    exp = extra("sqlglot", "streams").exp
    window: Window | None = None
    by: list[str] = []
    for each in group.expressions:
        if isinstance(each, exp.Column):
            by.append(each.name)
        elif _window_name(each) in _WINDOWS and window is None:
            window = _window(each)
        else:
            raise InvalidRequest(f"GROUP BY takes columns and one window, not {each.sql()}.")
    aggregates: dict[str, Aggregate] = {}
    items = [_lifted(each.copy(), aggregates) for each in select.expressions]
    having = select.args.get("having")
    condition = _lifted(having.this.copy(), aggregates) if having is not None else None
    if not by or not aggregates:
        raise InvalidRequest("A query with GROUP BY has at least one column to group by, and at least one aggregate.")
    grouped: Grouped = rows.group_by(*by)
    grouped = grouped if window is None else grouped.window(window)
    if is_final and window is None:
        raise InvalidRequest("EMIT FINAL needs a window: without one a group is never final.")
    table = grouped.aggregate(**aggregates)  # type: ignore[arg-type]
    made: Stream | Table = table.suppress() if is_final else table
    if condition is not None:
        made = made.filter(_expr(condition))
    return made.select(*[_expr(each) for each in items])


def _window_name(node: Any) -> str:
    return str(getattr(node, "name", "") or "").upper()


def _window(node: Any) -> Window:
    given = [_millis(each) for each in node.expressions]
    makers: dict[str, tuple[int, Callable[..., Window]]] = {
        "TUMBLE": (1, lambda size, grace=0: tumbling(size, grace=grace)),
        "HOP": (2, lambda advance, size, grace=0: hopping(size, advance, grace=grace)),
        "SESSION_OF": (1, lambda gap, grace=0: session(gap, grace=grace)),
    }
    least, make = makers[_window_name(node)]
    if not least <= len(given) <= least + 1:
        raise InvalidRequest(f"{node.sql()} takes {least} or {least + 1} intervals.")
    return make(*given)


def _millis(node: Any) -> int:
    exp = extra("sqlglot", "streams").exp
    unit = str(getattr(node, "unit", "") or "").upper().removesuffix("S")
    if not isinstance(node, exp.Interval) or unit not in _UNITS or not str(node.this.name).isdigit():
        raise InvalidRequest(f"A window takes intervals, such as INTERVAL '10' SECOND, not {node.sql()}.")
    return int(str(node.this.name)) * _UNITS[unit]


def _has_aggregate(select: Any) -> bool:
    exp = extra("sqlglot", "streams").exp
    return any(each.find(exp.AggFunc) is not None for each in select.expressions)


def _lifted(node: Any, aggregates: dict[str, Aggregate]) -> Any:
    """The expression with each aggregate replaced by the column that will hold it."""
    exp = extra("sqlglot", "streams").exp
    name = node.alias if isinstance(node, exp.Alias) else ""

    def replaced(each: Any) -> Any:
        if not isinstance(each, exp.AggFunc):
            return each
        column = name if name and each.parent is node else f"agg_{len(aggregates)}"
        if not name and each is node:
            column = re.sub(r"\W+", "_", each.sql().lower()).strip("_")
        aggregates[column] = _aggregate(each)
        return exp.column(column)

    return node.transform(replaced)


def _aggregate(node: Any) -> Aggregate:
    exp = extra("sqlglot", "streams").exp
    if isinstance(node, exp.Count):
        if isinstance(node.this, exp.Distinct):
            if len(node.this.expressions) != 1:
                raise InvalidRequest(f"{node.sql()}: count distinct values of one expression.")
            return agg.n_unique(_expr(node.this.expressions[0]))
        return agg.count() if isinstance(node.this, exp.Star) or node.this is None else agg.count(_expr(node.this))
    one: dict[Any, Callable[[pl.Expr], Aggregate]] = {
        exp.Sum: agg.sum,
        exp.Avg: agg.mean,
        exp.Min: agg.min,
        exp.Max: agg.max,
        exp.First: agg.first,
        exp.Last: agg.last,
        exp.Variance: agg.var,
        exp.ArrayAgg: agg.collect,
    }
    two = {exp.ArgMax: agg.arg_max, exp.ArgMin: agg.arg_min}
    if type(node) in two:
        return two[type(node)](_expr(node.this), _expr(node.expression))
    if type(node) in one and node.this is not None:
        return one[type(node)](_expr(node.this))
    raise InvalidRequest(f"SQL over streams has no aggregate {node.sql()}.")


def _expr(node: Any) -> pl.Expr:
    """An expression of one row, as Polars reads it; columns lose the names of their sources."""
    exp = extra("sqlglot", "streams").exp
    plain = node.copy()
    for column in [*plain.find_all(exp.Column)]:
        column.set("table", None)
    try:
        found: pl.Expr = pl.sql_expr(plain.sql(dialect="duckdb"))
        return found
    except pl.exceptions.PolarsError as error:
        raise InvalidRequest(f"{node.sql()}: {str(error).splitlines()[0]}") from error
