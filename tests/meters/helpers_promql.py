"""What is wrong with a query, as far as the list of metrics can tell: names, labels, and what a kind allows.

The grammar is Prometheus's own (promql-parser); here its tree is walked once, and each node says what labels come out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import promql_parser as promql

from headwater.meters import Family, families, prometheus

TARGET: Final = frozenset({"instance", "job"})  # labels that Prometheus gives to what it scrapes
RATES: Final = frozenset({"rate", "irate", "increase"})
SLOPES: Final = frozenset({"delta", "idelta", "deriv", "predict_linear"})

SERIES: Final[dict[str, Family]] = {name: family for family in families.ALL for name in prometheus.series(family)}


@dataclass(slots=True)
class Query:
    """What was found out about one query: ``labels`` of its result, families it uses, and what is wrong with it."""

    labels: frozenset[str] = frozenset()
    used: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)


def read(text: str) -> Query:
    """Parse and check a query. Grafana's variables have values already."""
    query = Query()
    try:
        tree = promql.parse(text)
    except Exception as error:
        query.wrong.append(f"no PromQL: {error}")
        return query
    query.labels = _labels(tree, query, within="")
    return query


def _labels(node: Any, query: Query, within: str) -> frozenset[str]:
    """The labels that ``node`` can have; ``within`` is the function around it."""
    match node:
        case promql.VectorSelector():
            return _selected(node, query, within)
        case promql.MatrixSelector():
            return _selected(node.vector_selector, query, within)
        case promql.AggregateExpr():
            return _aggregated(node, query)
        case promql.BinaryExpr():
            return _combined(node, query, within)
        case promql.Call():
            return _called(node, query)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return _labels(node.expr, query, within)
        case promql.NumberLiteral() | promql.StringLiteral():
            return frozenset()
    raise AssertionError(f"{type(node).__name__} is not known here")


def _selected(node: Any, query: Query, within: str) -> frozenset[str]:
    if node.name == "up":
        known = TARGET
    else:
        family = SERIES.get(node.name)
        if family is None:
            query.wrong.append(f"there is no {node.name}")
            return TARGET
        query.used.add(family.name)
        if (within in RATES) != (family.kind != "gauge") or (within in SLOPES and family.kind != "gauge"):
            query.wrong.append(f"{node.name} is of a {family.kind}, and stands in {within or 'no function'}")
        known = TARGET | frozenset(family.labels) | ({"le"} if node.name.endswith("_bucket") else set())
    _check(query, known, (each.name for each in node.matchers.matchers), node.name)
    return known


def _aggregated(node: Any, query: Query) -> frozenset[str]:
    inner = _labels(node.expr, query, "")
    if node.modifier is None:
        return inner if str(node.op) in ("topk", "bottomk") else frozenset()
    named = frozenset(node.modifier.labels)
    _check(query, inner, named, str(node.op))
    return named if node.modifier.type == promql.AggModifierType.By else inner - named


def _combined(node: Any, query: Query, within: str) -> frozenset[str]:
    left, right = (_labels(side, query, within) for side in (node.lhs, node.rhs))
    if node.modifier is not None and node.modifier.matching is not None:
        _check(query, left & right, node.modifier.matching.labels, str(node.op))
    elif left and right and left != right and str(node.op) != "or":
        query.wrong.append(f"{node.op} never finds a pair: {sorted(left)} on one side, {sorted(right)} on the other")
    return left & right if str(node.op) == "or" else left or right


def _called(node: Any, query: Query) -> frozenset[str]:
    name = node.func.name
    inner = [_labels(argument, query, name) for argument in node.args]
    found = next((labels for labels in inner if labels), frozenset())
    if name == "histogram_quantile":
        if "le" not in found:
            query.wrong.append("histogram_quantile needs the label le of a _bucket")
        return found - {"le"}
    return found


def _check(query: Query, known: frozenset[str], asked: Iterator[str] | Any, where: str) -> None:
    query.wrong += [f"{where} has no label {name}, only {sorted(known)}" for name in asked if name not in known]
