"""What the runner adds to a row's way, and tables that every task has whole."""

from __future__ import annotations

import polars as pl

from headwater.log import batch
from headwater.log.namespace import Namespace
from headwater.sim.loop import sim_loop
from headwater.streams import Topology
from headwater.streams.runner.app import App, WorkerOptions
from headwater.types import Record
from headwater.upkeep.offload import inline
from tests.log.helpers import FIXED, network, opened, simulate
from tests.streams import helpers_runner as h

PUT_S, GET_S, LIST_S = 0.1, 0.05, 0.08  # what each request takes on this store


def passing() -> Topology:
    topology = Topology("job")
    topology.stream("in", schema=h.SCHEMA, time="at").to("copy", format="json")
    return topology


async def ends(namespace: Namespace, topic: str) -> int:
    return sum(place.next for place in namespace.topic(topic).partitions)


def test_a_row_waits_for_one_commit_and_no_more() -> None:
    async def main() -> None:
        namespace = await opened(network(profile=FIXED))
        await namespace.create_topic("in", 1)
        await namespace.create_topic("copy", 1)
        app = await App.start(passing(), namespace, WorkerOptions(offload=inline))
        await sim_loop().sleep(10)
        took = []
        for number in range(20):
            await h.put(namespace, 0, [{"k": "a", "at": number, "v": number}])
            began_s = sim_loop().time()
            while await ends(namespace, "copy") <= number:
                await sim_loop().sleep(0.001)
            took.append(sim_loop().time() - began_s)
            await sim_loop().sleep(0.5)
        await app.stop()
        # One conditional PUT; a poll's GET may be under way before it, and once in 32 commits a lone writer LISTs.
        assert sorted(took)[len(took) // 2] <= PUT_S + GET_S + 0.005
        assert max(took) <= PUT_S + GET_S + LIST_S + 0.005

    simulate(main())


# -- global tables ---------------------------------------------------------------------------------------


def named() -> Topology:
    topology = Topology("job")
    names = topology.global_table("names", schema={"k": pl.String, "name": pl.String}, key="k")
    topology.stream("in", schema=h.SCHEMA, time="at").join(names, on="k").to("out", format="json")
    return topology


async def name(namespace: Namespace, key: str, value: str | None) -> None:
    text = None if value is None else f'{{"k": "{key}", "name": "{value}"}}'.encode()
    made = batch.batch_of_records([Record(key=key.encode(), value=text)], default_timestamp=1)
    await namespace.append("names", len(key) % 2, made)


async def with_names() -> Namespace:
    namespace = await opened(network(profile=h.QUICK))
    for topic, partitions in (("in", 3), ("names", 2), ("out", 1)):
        await namespace.create_topic(topic, partitions)
    for key in ("a", "bb", "c"):
        await name(namespace, key, f"first {key}")
    return namespace


async def met(namespace: Namespace) -> list[str]:
    return sorted(row["name"] for _, row in await h.read(namespace, "out") if row)


def test_every_task_has_a_global_table_whole_before_its_streams_meet_it() -> None:
    async def main() -> None:
        namespace = await with_names()
        for partition in range(3):
            await h.put(namespace, partition, [{"k": key, "at": 1, "v": 1} for key in ("a", "bb", "c")])
        await h.once(namespace, named())
        assert sorted(3 * ["first a", "first bb", "first c"]) == await met(namespace)

    simulate(main())


def test_a_row_that_left_a_global_table_does_not_come_back_with_a_restore() -> None:
    async def main() -> None:
        namespace = await with_names()
        await h.put(namespace, 0, [{"k": "a", "at": 1, "v": 1}])
        await h.once(namespace, named())
        await name(namespace, "a", None)
        await namespace.trim("names", 1, namespace.topic("names").partitions[1].next)  # as compaction does
        await h.put(namespace, 0, [{"k": "a", "at": 2, "v": 1}, {"k": "bb", "at": 2, "v": 1}])
        await h.once(namespace, named())
        assert ["first a", "first bb"] == await met(namespace)

    simulate(main())


def test_a_global_table_is_followed_while_the_job_runs() -> None:
    async def main() -> None:
        namespace = await with_names()
        app = await App.start(named(), namespace, WorkerOptions(offload=inline))
        await sim_loop().sleep(5)
        await name(namespace, "a", "second a")
        await sim_loop().sleep(5)
        await h.put(namespace, 2, [{"k": "a", "at": 1, "v": 1}])
        await sim_loop().sleep(5)
        await app.stop()
        assert ["second a"] == await met(namespace)
        assert 0 == changelog_bytes(namespace)

    simulate(main())


def changelog_bytes(namespace: Namespace) -> int:
    """Records of tables in the changelog: there are none, only progress and topology."""
    found = 0
    for place in namespace.topic("job-changelog").partitions:
        for entry in place.tail:
            found += entry.count > 2
    return found
