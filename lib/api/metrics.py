"""``GET /metrics`` of a resident process, in Prometheus's text format 0.0.4.

Whoever may describe the cluster may read it, by the credentials of every other request; and it tells of the namespace
that was asked for, and of the process, but of no other namespace: ``/namespaces/{ns}/metrics`` has those of ``ns``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from headwater.api import access
from headwater.api.messages import Call, Response, Route
from headwater.groups import describe
from headwater.limits import METER_GROUPS_MAX, METER_LAG_PARTITIONS_MAX, METER_LAGS_MAX
from headwater.log.namespace import Namespace
from headwater.meters import Sample, families, prometheus


async def metrics(call: Call) -> Response:
    """Everything that this process has counted for the namespace, and its groups' lag as of what it has folded.

    Cost: no request to the store; about 1 us a number, and what ``gauges`` costs.
    """
    scopes = None if call.scopes is None else access.rules_of(call.scopes)
    access.check(call.namespace.state, call.principal, scopes, "describe", "cluster")
    return Response(headers={"content-type": prometheus.CONTENT_TYPE}, body=text(call.namespace).encode())


def text(namespace: Namespace) -> str:
    """The metrics that concern ``namespace``, as text."""
    found = namespace.chain.options.meters.snapshot()
    for family, labels, value in gauges(namespace):
        found[family.name].cells[labels] = value
    return prometheus.text(found.values(), namespace.name)


def gauges(namespace: Namespace) -> Iterator[Sample]:
    """What is not counted but looked up in the fold, as this process knows it: samples for ``Meters.collect``.

    Of the lag at most ``METER_LAGS_MAX`` pairs of group and topic, of at most ``METER_GROUPS_MAX`` groups, and of no
    further group after ``METER_LAG_PARTITIONS_MAX`` partitions: ``/groups/lag`` tells of all of them.

    Cost: no request to the store; 1 us for each of these partitions.
    """
    state, name = namespace.state, namespace.name
    yield Sample(families.CHAIN_COMMIT, (name,), float(state.seq))
    yield Sample(families.CHAIN_AGE, (name,), namespace.chain.age_s())
    yield Sample(families.GROUPS, (name,), float(len(state.groups)))
    lags_left, partitions_left = METER_LAGS_MAX, METER_LAG_PARTITIONS_MAX
    for group in list(islice(state.groups, METER_GROUPS_MAX)):
        if lags_left <= 0 or partitions_left <= 0:
            return
        for topic, (lag, partitions) in islice(describe.lag_by_topic(state, group).items(), lags_left):
            yield Sample(families.GROUP_LAG, (name, group, topic), lag)
            lags_left, partitions_left = lags_left - 1, partitions_left - partitions


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
