"""What is done to a job from outside: pause, savepoint, restart, reset, status."""

from __future__ import annotations

import random

import orjson
import polars as pl
import pytest

from headwater.errors import Conflict, InvalidRequest, NotFound
from headwater.log import batch
from headwater.log import operations as ops
from headwater.log.namespace import Namespace
from headwater.sim.loop import sim_loop
from headwater.streams import Topology, agg
from headwater.streams.runner import control
from headwater.streams.runner.app import App
from headwater.streams.runner.job import prepare
from headwater.streams.runner.once import is_idle, reached, source_goals
from headwater.types import Record
from tests.log.helpers import simulate
from tests.streams import helpers_runner as h


async def fed(namespace: Namespace, seed: int) -> list[h.Row]:
    """More events in both partitions, processed."""
    made = []
    for partition in range(2):
        rows = h.events(random.Random(seed * 10 + partition), 20, start=seed * 3_000)
        await h.put(namespace, partition, rows)
        made += rows
    await h.once(namespace)
    return made


def beginning(namespace: Namespace) -> dict[tuple[str, int], int]:
    return {("in", number): 0 for number in range(len(namespace.topic("in").partitions))}


def test_a_paused_job_holds_still_in_every_worker_until_it_is_resumed() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)
        app = await App.start(h.job(), await h.another(namespace, 11), h.OPTIONS)
        await sim_loop().sleep(3)
        await control.pause(namespace, "job")
        await sim_loop().sleep(2)
        rows = h.events(random.Random(1), 20)
        await h.put(namespace, 0, rows)
        await sim_loop().sleep(20)
        assert "paused" == (await control.status(namespace, "job"))["state"]
        assert {} == await h.copied(namespace)
        await app.stop()
        assert 0 == (await h.once(namespace)).records, "a run that ends does not go around it"
        await control.pause(namespace, "job", paused=False)
        await h.once(namespace)
        assert h.expected_copies(rows) == await h.copied(namespace)

    simulate(main())


def test_a_restart_brings_state_and_offsets_back_and_leaves_the_outputs() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)
        first = await fed(namespace, 1)
        saved = await control.savepoint(namespace, "job", "before")
        second = await fed(namespace, 2)
        assert {"before": saved["commit"]} == (await control.status(namespace, "job"))["savepoints"]
        table = await h.latest(namespace)
        assert h.expected_latest(first + second) == table

        await control.restart(namespace, "job", saved["commit"])
        await h.once(namespace)
        assert table == await h.latest(namespace), "counted once more from where it was"
        copies = h.expected_copies(first) + h.expected_copies(second) + h.expected_copies(second)
        assert copies == await h.copied(namespace)

    simulate(main())


def counted() -> Topology:
    """How many keys of a table have each label: what leaves one group enters another."""
    made = Topology("job")
    places = made.table("live", schema={"k": pl.String, "label": pl.String}, key=("k",), format="json")
    places.group_by("label").aggregate(n=agg.count()).to("newest", key=("label",), format="json")
    return made


async def labelled(namespace: Namespace, **labels: str) -> None:
    """Rows of the table, keyed as its partitions are read."""
    records = [
        Record(key=key.encode(), value=orjson.dumps({"k": key, "label": label})) for key, label in labels.items()
    ]
    await namespace.append("live", 0, batch.batch_of_records(records, default_timestamp=1))


async def counts(namespace: Namespace) -> dict[str, int]:
    """The newest row of each label."""
    rows = {key: row for key, row in await h.read(namespace, "newest") if key is not None}
    return {key.decode(): row["n"] for key, row in rows.items() if row is not None}


def test_a_restart_brings_tables_back_whose_changes_cancel_out_the_second_time() -> None:
    """Seed 61725 of the simulation: a count went to none and back to one, with a restart in between."""

    async def main() -> None:
        namespace = await h.bucket(1)
        await namespace.create_topic("live", 1)
        await namespace.create_topic("newest", 1)
        await labelled(namespace, a="x", b="y")
        await h.once(namespace, counted())
        saved = (await control.savepoint(namespace, "job"))["commit"]
        await labelled(namespace, a="z", c="new")
        await h.once(namespace, counted())
        assert {"y": 1, "z": 1, "new": 1} == await counts(namespace)
        await control.restart(namespace, "job", saved)
        assert {"x": 1, "y": 1} == await counts(namespace), "as it was then"
        await labelled(namespace, a="x", c="y")
        await h.once(namespace, counted())
        assert {"x": 1, "y": 2} == await counts(namespace)
        await control.restart(namespace, "job", saved)
        await h.once(namespace, counted())
        assert {"x": 1, "y": 2} == await counts(namespace), "and again"

    simulate(main())


def test_a_restart_in_the_middle_reads_again_what_lay_in_a_repartition_topic() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)
        rows: list[h.Row] = []
        for partition in range(2):
            made = h.events(random.Random(partition), 60)
            rows += made
            for start in range(0, 60, 6):
                await h.put(namespace, partition, made[start : start + 6])
        first = namespace.state.seq
        await h.once(namespace, batch_bytes=1)
        expected, last = h.expected_latest(rows), namespace.state.seq
        tried = 0
        for commit in range(first + 1, last, 3):
            try:
                await control.restart(namespace, "job", commit)
            except NotFound:
                continue  # nothing was committed then
            await h.once(namespace)
            assert expected == await h.latest(namespace), f"restarted at commit {commit}"
            tried += 1
        assert tried > 3

    simulate(main())


def test_a_reset_job_begins_anew() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)
        rows = await fed(namespace, 1)
        plan = await control.plan_reset(namespace, "job", beginning(namespace))
        assert "trim" == plan["how"]
        assert plan["state_records"] > 0
        assert rows
        assert h.expected_copies(rows) == await h.copied(namespace)

        await control.reset(namespace, "job", beginning(namespace))
        assert all(place.start == place.next for place in namespace.topic("job-changelog").partitions)
        await h.once(namespace)
        assert h.expected_latest(rows) == await h.latest(namespace)
        assert h.expected_copies(rows) + h.expected_copies(rows) == await h.copied(namespace)

    simulate(main())


def test_a_reset_takes_a_source_that_was_made_anew() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)
        await fed(namespace, 1)
        await namespace.delete_topic("in")
        await namespace.create_topic("in", 2)
        await control.reset(namespace, "job", beginning(namespace))
        before = await h.copied(namespace)
        rows = await fed(namespace, 2)
        assert h.expected_latest(rows) == await h.latest(namespace)
        assert before + h.expected_copies(rows) == await h.copied(namespace)

    simulate(main())


def test_a_reset_names_and_deletes_repartition_topics_that_no_node_has_any_more() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)
        await fed(namespace, 1)
        now = set(control.remains(namespace.state, "job").repartitions)
        assert now, "events of one key lie in both partitions"
        await namespace.create_topic("job-old-repartition", 2, {"streams.job": "job"})
        plan = await control.plan_reset(namespace, "job", beginning(namespace))
        assert sorted({"job-old-repartition", *now}) == plan["deleted_topics"]
        await control.reset(namespace, "job", beginning(namespace))
        assert [] == list(control.remains(namespace.state, "job").repartitions)
        await h.once(namespace)
        assert now == set(control.remains(namespace.state, "job").repartitions), "those that are needed are there again"

    simulate(main())


def test_a_reset_after_a_source_has_grown_lets_the_job_run_with_more_tasks() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)
        rows = await fed(namespace, 1)
        await namespace.add_partitions("in", 3)
        assert "delete" == (await control.plan_reset(namespace, "job", beginning(namespace)))["how"]
        await control.reset(namespace, "job", beginning(namespace))
        await h.once(namespace)
        assert h.expected_latest(rows) == await h.latest(namespace)
        assert 3 == len(namespace.topic("job-changelog").partitions)

    simulate(main())


def test_reset_and_restart_are_refused_while_members_are_active() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)
        await fed(namespace, 1)
        commit = (await control.savepoint(namespace, "job"))["commit"]
        app = await App.start(h.job(), await h.another(namespace, 11), h.OPTIONS)
        await sim_loop().sleep(5)
        for refused in (
            control.reset(namespace, "job", beginning(namespace)),
            control.restart(namespace, "job", commit),
        ):
            with pytest.raises(Conflict, match="1 active members"):
                await refused
        assert [app.worker.seat.member] == list(namespace.state.groups["job"].members)
        await app.stop()
        await control.reset(namespace, "job", beginning(namespace))

    simulate(main())


def test_a_member_that_was_killed_is_no_obstacle_once_its_session_is_over() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)
        await fed(namespace, 1)
        await namespace.writer.commit(ops=[ops.JoinGroup(group="job", member="ghost", topics=["in"])])
        await control.reset(namespace, "job", beginning(namespace))
        assert {} == namespace.state.groups["job"].members

    simulate(main())


def test_what_cannot_be_gone_back_to_is_refused_and_nothing_is_changed() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)
        with pytest.raises(NotFound, match="no job 'job'"):
            await control.savepoint(namespace, "job")
        empty = namespace.state.seq
        await fed(namespace, 1)
        with pytest.raises(NotFound):
            await control.restart(namespace, "job", empty)
        with pytest.raises(NotFound, match="has not been made yet"):
            await control.restart(namespace, "job", 10**6)
        commit = (await control.savepoint(namespace, "job"))["commit"]
        await fed(namespace, 2)
        await namespace.trim("in", 0, 30)
        with pytest.raises(InvalidRequest, match="which retention has taken"):
            await control.restart(namespace, "job", commit)
        assert {} == namespace.state.groups["job"].members

    simulate(main())


def test_a_run_whose_repartition_topic_is_deleted_under_it_says_so() -> None:
    """Seed 62966 of the simulation: a reset by somebody whom the run had not noticed, and then a KeyError."""

    async def main() -> None:
        namespace = await h.bucket(2)
        await fed(namespace, 1)
        job = await prepare(namespace, h.job())
        goals = source_goals(namespace.state, job)
        assert reached(namespace.state, job, goals)
        (name,) = job.repartitions
        await namespace.delete_topic(name)
        assert not reached(namespace.state, job, {(name, 0): 0}), "nobody reaches the end of what is gone"
        assert not is_idle(namespace.state, job, goals, now_ms=0)
        with pytest.raises(NotFound, match="was deleted while the job ran"):
            job.check(namespace.state)

    simulate(main())
