"""``GET /metrics`` of a resident process, in Prometheus's text format 0.0.4.

Whoever may describe the cluster may read it, by the credentials of every other request; and it tells of the namespace
that was asked for, and of the process, but of no other namespace: ``/namespaces/{ns}/metrics`` has those of ``ns``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from headwater.api import access
from headwater.api.messages import Call, Response, Route
from headwater.groups import describe
from headwater.log.namespace import Namespace
from headwater.meters import Distribution, Family, Reading, families

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


async def metrics(call: Call) -> Response:
    """Everything that this process has counted for the namespace, and its groups' lag as of what it has folded.

    Cost: no request to the store; about 1 us a number, and 1 us for each partition that a group reads.
    """
    scopes = None if call.scopes is None else access.rules_of(call.scopes)
    access.check(call.namespace.state, call.principal, scopes, "describe", "cluster")
    return Response(headers={"content-type": TEXT}, body=text(call.namespace).encode())


def text(namespace: Namespace) -> str:
    """The metrics that concern ``namespace``, as text."""
    meters = namespace.chain.options.meters
    lines: list[str] = []
    found = meters.snapshot()
    for family, labels, value in _gauges(namespace):
        cells = found[family.name].cells
        cells[labels] = value
    for reading in found.values():
        lines += _family(reading, namespace.name)
    return "".join(f"{line}\n" for line in lines)


def _gauges(namespace: Namespace) -> Iterator[tuple[Family, tuple[str, ...], float]]:
    """What is not counted but looked up, in the fold as this process knows it."""
    state, name = namespace.state, namespace.name
    yield families.CHAIN_COMMIT, (name,), float(state.seq)
    yield families.CHAIN_AGE, (name,), namespace.chain.age_s()
    yield families.GROUPS, (name,), float(len(state.groups))
    sums: dict[tuple[str, str], float] = {}
    kept: set[str] = set()
    for row in describe.lag(state):
        if row.group not in kept and len(kept) >= families.KEPT["group"]:
            continue  # /groups/lag tells of all of them
        kept.add(row.group)
        sums[row.group, row.topic] = sums.get((row.group, row.topic), 0.0) + row.lag
    for (group, topic), lag in sums.items():
        yield families.GROUP_LAG, (name, group, topic), lag


def _family(reading: Reading, namespace: str) -> Iterator[str]:
    """HELP, TYPE and one line for each number of one family; nothing if there is none."""
    family = reading.family
    own = family.labels.index("namespace") if "namespace" in family.labels else -1
    cells = {key: cell for key, cell in reading.cells.items() if own < 0 or key[own] == namespace}
    if not cells:
        return
    name = f"{family.name}_total" if family.kind == "counter" else family.name
    yield f"# HELP {name} {_escaped(family.help)}"
    yield f"# TYPE {name} {family.kind}"
    for key, cell in sorted(cells.items()):
        labels = [f'{label}="{_escaped(value, quoted=True)}"' for label, value in zip(family.labels, key, strict=True)]
        if isinstance(cell, Distribution):
            yield from _buckets(name, labels, cell)
        else:
            yield f"{name}{_braced(labels)} {_number(cell)}"


def _buckets(name: str, labels: list[str], found: Distribution) -> Iterator[str]:
    below = 0
    for bound, count in zip((*found.bounds, float("inf")), found.counts, strict=True):
        below += count
        end = f'le="{_number(bound)}"'
        yield f"{name}_bucket{_braced([*labels, end])} {below}"
    yield f"{name}_sum{_braced(labels)} {_number(found.sum)}"
    yield f"{name}_count{_braced(labels)} {below}"


def _braced(labels: list[str]) -> str:
    return "{" + ",".join(labels) + "}" if labels else ""


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(float(value))


def _escaped(value: str, *, quoted: bool = False) -> str:
    value = value.replace("\\", "\\\\").replace("\n", "\\n")
    return value.replace('"', '\\"') if quoted else value


ROUTES: Final = (
    Route(
        method="GET",
        pattern="/metrics",
        handler=metrics,
        functions=frozenset(),
        summary="Metrics of this process and of the namespace, for Prometheus.",
        produces=("text/plain",),
    ),
)
