"""The runner: what a job writes is the same however it is run, and what stops it says so."""

from __future__ import annotations

import asyncio
import random

import polars as pl
import pytest

from headwater.errors import Conflict, InvalidRequest, NotFound
from headwater.groups.describe import lag
from headwater.log import batch
from headwater.log.namespace import Namespace
from headwater.sim.loop import SimClock, sim_loop
from headwater.streams import Topology, agg, tumbling
from headwater.streams.failures import IncompatibleTopology, OperatorFailed
from headwater.streams.runner import reading, stepping
from headwater.streams.runner.app import App, WorkerOptions, run
from headwater.streams.runner.reading import DataLost
from headwater.types import Record
from headwater.upkeep.offload import inline
from tests.log.helpers import memory, opened, simulate
from tests.streams import helpers_runner as h


async def filled(rng: random.Random, *, partitions: int = 3) -> tuple[Namespace, list[h.Row]]:
    namespace = await h.bucket(partitions)
    rows: list[h.Row] = []
    for number in range(4):
        for partition in range(partitions):
            made = h.events(rng, 30, start=number * 3_000)
            rows += made
            await h.put(namespace, partition, made)
    await h.ended(namespace)
    return namespace, rows


async def check(namespace: Namespace, rows: list[h.Row]) -> None:
    """Every output is what a plain program makes of the same events."""
    copies = h.expected_copies(rows)
    found = await h.copied(namespace)
    assert copies == {place: count for place, count in found.items() if place[0] != "end"}
    windows = h.expected_windows(rows)
    finals = await h.finals(namespace)
    assert set(finals.values()) <= {1}
    assert sorted(windows.values()) == sorted((n, total) for _, _, n, total in finals)
    assert h.expected_latest(rows) == await h.latest(namespace)


# -- three runners, one result ---------------------------------------------------------------------------


def test_a_run_that_ends_processes_what_is_there_and_leaves_the_group() -> None:
    async def main() -> None:
        namespace, rows = await filled(random.Random(1))
        report = await h.once(namespace)
        await check(namespace, rows)
        assert {} == namespace.state.groups["job"].members
        assert report.records > len(rows), "and what went through the repartition"
        assert 0 == (await h.once(namespace)).records

    simulate(main())


def test_a_job_that_has_read_all_has_no_lag_nor_has_its_own_state() -> None:
    async def main() -> None:
        namespace, _ = await filled(random.Random(1))
        await h.once(namespace)
        behind = {(row.topic, row.partition): row.lag for row in lag(namespace.state, "job")}
        assert set(behind.values()) == {0}
        assert ("job-changelog", 0) in behind, "a group that owns its state's partitions shows them"

    simulate(main())


def test_many_workers_one_and_runs_that_end_give_the_same() -> None:
    async def one(workers: int) -> tuple[object, ...]:
        namespace, rows = await filled(random.Random(2))
        if workers == 0:
            for _ in range(3):
                await h.once(namespace, batch_bytes=1)
        else:
            apps = [
                await App.start(h.job(), await h.another(namespace, seed + 10), WorkerOptions(offload=inline))
                for seed in range(workers)
            ]
            await sim_loop().sleep(60)
            for app in apps:
                await app.stop()
        await check(namespace, rows)
        return await h.copied(namespace), await h.finals(namespace), await h.latest(namespace)

    async def main() -> None:
        once, alone, three = await one(0), await one(1), await one(3)
        assert once == alone == three

    simulate(main())


def test_events_that_come_while_it_runs_are_processed_and_a_stop_commits_them() -> None:
    async def main() -> None:
        rng = random.Random(3)
        namespace = await h.bucket()
        app = await App.start(h.job(), namespace, h.OPTIONS)
        rows: list[h.Row] = []
        for number in range(10):
            made = h.events(rng, 20, start=number * 2_000)
            rows += made
            await h.put(namespace, number % 3, made)
            await sim_loop().sleep(0.7)
        await sim_loop().sleep(5)
        await app.stop()
        assert h.expected_copies(rows) == await h.copied(namespace)
        assert h.expected_latest(rows) == await h.latest(namespace)

    simulate(main())


def test_tasks_move_to_workers_that_join_and_back_when_they_leave() -> None:
    async def main() -> None:
        namespace, rows = await filled(random.Random(4))
        first = await App.start(h.job(), await h.another(namespace, 11), h.OPTIONS)
        await h.until(lambda: len(first.worker.tasks) == 3)
        second = await App.start(h.job(), await h.another(namespace, 12), h.OPTIONS)
        await h.until(lambda: len(second.worker.tasks) == 1 and len(first.worker.tasks) == 2)
        await second.stop()
        await h.until(lambda: len(first.worker.tasks) == 3 and all(t.is_running for t in first.worker.tasks.values()))
        await sim_loop().sleep(5)
        await first.stop()
        await check(namespace, rows)

    simulate(main())


def test_a_worker_that_the_group_let_go_of_starts_again_from_what_is_committed() -> None:
    async def main() -> None:
        namespace, rows = await filled(random.Random(5))
        app = await App.start(h.job(), await h.another(namespace, 11), h.OPTIONS)
        await h.until(lambda: len(app.worker.tasks) == 3)
        before = app.worker.seat.member
        from headwater.groups.coordinator import Coordinator

        await Coordinator(namespace).leave("job", before, reason="somebody thought it dead")
        await h.until(lambda: app.worker.seat.member != before and len(app.worker.tasks) == 3)
        await sim_loop().sleep(5)
        await app.stop()
        await check(namespace, rows)

    simulate(main())


# -- time ------------------------------------------------------------------------------------------------


def test_the_wall_clock_may_jump_and_results_stay_the_same() -> None:
    async def main() -> None:
        rng = random.Random(6)
        namespace = await h.bucket()
        clock = SimClock(sim_loop())
        other = await opened(namespace.bucket, seed=9, clock=clock)
        app = await App.start(h.job(), other, h.OPTIONS)
        rows: list[h.Row] = []
        for number in range(6):
            made = h.events(rng, 20, start=number * 3_000)
            rows += made
            await h.put(namespace, number % 3, made)
            clock.jump(rng.choice([-86_400_000, 3_600_000, -5_000]))
            await sim_loop().sleep(3)
        await h.ended(namespace)
        await sim_loop().sleep(10)
        await app.stop()
        await check(namespace, rows)

    simulate(main())


def test_a_silent_partition_holds_windows_back_until_it_is_idle() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)
        topology = Topology("job")
        events = topology.stream("in", schema=h.SCHEMA, time="at", idle="30s")
        counts = events.group_by("k").window(tumbling("10s")).aggregate(n=agg.count(), total=agg.sum("v"))
        counts.suppress().to("final", format="json")
        app = await App.start(topology, namespace, h.OPTIONS)
        await h.put(namespace, 0, [{"k": "a", "at": 1_000, "v": 1}, {"k": "b", "at": 60_000, "v": 1}])
        await sim_loop().sleep(15)
        assert {} == await h.finals(namespace)
        await sim_loop().sleep(30)
        assert 1 == len(await h.finals(namespace))
        await app.stop()

    simulate(main())


def test_a_run_that_ends_knows_of_silence_since_an_earlier_run() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)

        def topology() -> Topology:
            made = Topology("job")
            events = made.stream("in", schema=h.SCHEMA, time="at", idle="30s")
            counts = events.group_by("k").window(tumbling("10s")).aggregate(n=agg.count(), total=agg.sum("v"))
            counts.suppress().to("final", format="json")
            return made

        await h.put(namespace, 0, [{"k": "a", "at": 1_000, "v": 1}])
        await h.put(namespace, 1, [{"k": "a", "at": 1_000, "v": 1}])
        await h.once(namespace, topology())
        await sim_loop().sleep(60)
        await h.put(namespace, 0, [{"k": "b", "at": 60_000, "v": 1}])
        await h.once(namespace, topology())
        assert [("a", 2, 2)] == [(k, n, total) for k, _, n, total in await h.finals(namespace)]

    simulate(main())


# -- holding still, and holding little -------------------------------------------------------------------


def test_a_paused_app_takes_nothing_and_goes_on_where_it_was() -> None:
    async def main() -> None:
        namespace, rows = await filled(random.Random(7))
        app = await App.start(h.job(), await h.another(namespace, 11), h.OPTIONS)
        app.pause()
        await sim_loop().sleep(30)
        assert {} == await h.copied(namespace)
        app.resume()
        await sim_loop().sleep(30)
        await app.stop()
        await check(namespace, rows)

    simulate(main())


def test_reading_ahead_is_bounded_while_a_task_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "STREAMS_LANE_BYTES", 4_000)

    async def main() -> None:
        namespace, rows = await filled(random.Random(8), partitions=2)
        for number in range(50):
            made = h.events(random.Random(number), 30, start=20_000_000)
            rows += made
            await h.put(namespace, 0, made)
        app = await App.start(
            h.job(), await h.another(namespace, 11), WorkerOptions(offload=inline, buffer_bytes=6_000)
        )
        app.pause()
        await sim_loop().sleep(30)
        held = app.metrics()["buffered_bytes"]
        assert 0 < held <= 6_000 + 2 * 4_000, "the budget, and a fetch of each lane that was under way"
        app.resume()
        await sim_loop().sleep(60)
        assert 0 == app.metrics()["buffered_bytes"]
        await app.stop()
        assert h.expected_latest(rows) == await h.latest(namespace)

    simulate(main())


def test_the_next_batch_is_computed_while_the_last_commit_is_in_flight() -> None:
    async def main() -> None:
        namespace, rows = await filled(random.Random(9), partitions=1)
        in_flight: list[bool] = []
        app: App | None = None

        async def noting(function: object, *args: object) -> object:
            in_flight.extend(task._commit is not None for task in (app.worker.tasks.values() if app else ()))
            return await inline(function, *args)  # type: ignore[arg-type]

        slow = await h.another(namespace, 11)
        app = await App.start(h.job(), slow, WorkerOptions(offload=noting, batch_bytes=1))
        await sim_loop().sleep(30)
        await app.stop()
        assert any(in_flight)
        await check(namespace, rows)

    simulate(main())


# -- what is refused -------------------------------------------------------------------------------------


def test_a_topic_that_is_missing_is_named() -> None:
    async def main() -> None:
        namespace = await opened(memory())
        await namespace.create_topic("in", 2)
        with pytest.raises(NotFound, match=r"'copy' does not exist; job 'job' needs it for"):
            await h.once(namespace)
        assert None is namespace.state.named("job-changelog")

    simulate(main())


def test_a_source_that_has_grown_is_refused_and_what_to_do_is_said() -> None:
    async def main() -> None:
        namespace, _ = await filled(random.Random(10), partitions=2)
        await h.once(namespace)
        await namespace.add_partitions("in", 3)
        with pytest.raises(IncompatibleTopology, match=r"2 tasks .* make it 3 now"):
            await h.once(namespace)

    simulate(main())


def test_a_source_that_grows_while_the_job_runs_stops_it() -> None:
    async def main() -> None:
        namespace, _ = await filled(random.Random(11), partitions=2)
        app = await App.start(h.job(), namespace, h.OPTIONS)
        await sim_loop().sleep(5)
        await namespace.add_partitions("in", 3)
        with pytest.raises(Conflict, match="Topic 'in' has 3 partitions now and had 2"):
            await app.wait()

    simulate(main())


def test_state_of_a_topology_that_cannot_be_followed_is_refused_with_the_operator_and_the_reason() -> None:
    async def main() -> None:
        namespace, _ = await filled(random.Random(12))
        await h.once(namespace)
        before = await h.latest(namespace)
        await h.put(namespace, 0, h.events(random.Random(12), 3))
        with pytest.raises(IncompatibleTopology, match=r"'forever': by was .*\"k\".* and is .*\"v\""):
            await h.once(namespace, h.job(key="v"))
        assert before == await h.latest(namespace)

    simulate(main())


def test_a_record_that_cannot_be_read_stops_the_job_which_resumes_there() -> None:
    async def main() -> None:
        namespace = await h.bucket(1)
        good = h.events(random.Random(13), 5)
        await h.put(namespace, 0, good)
        await h.once(namespace)
        await h.put(namespace, 0, [b"{not json", {"k": "a", "at": 1, "v": 1}])
        with pytest.raises(OperatorFailed, match="topic 'in', partition 0 at offset 5"):
            await h.once(namespace)
        assert h.expected_copies(good) == await h.copied(namespace)
        assert 5 == (await namespace.committed("job"))["in", 0].offset
        assert {} == namespace.state.groups["job"].members, "it has left the group nevertheless"

    simulate(main())


def test_with_dead_letters_a_record_that_cannot_be_read_goes_there_with_the_error() -> None:
    async def main() -> None:
        namespace = await h.bucket(1)
        await namespace.create_topic("dead", 1)
        topology = Topology("job", dead_letters="dead")
        topology.stream("in", schema=h.SCHEMA, time="at").to("copy", format="json")
        await h.put(namespace, 0, [{"k": "a", "at": 1, "v": 1}, b"{not json", {"k": "b", "at": 2, "v": 1}])
        await h.once(namespace, topology)
        assert {("a", 1, 1): 1, ("b", 2, 1): 1} == await h.copied(namespace)
        fetched = await namespace.reader.fetch("dead", 0, 0)
        (dead,) = fetched.chunks[0].decode().to_pylist()
        assert b"{not json" == dead["value"]
        assert any(b"in" == header["value"] for header in dead["headers"])

    simulate(main())


def test_records_that_retention_took_first_stop_the_job_unless_told_to_skip_them() -> None:
    async def main() -> None:
        namespace = await h.bucket(1)
        await h.put(namespace, 0, h.events(random.Random(14), 5))
        await h.once(namespace)
        later = h.events(random.Random(15), 4)
        await h.put(namespace, 0, h.events(random.Random(16), 5))
        await h.put(namespace, 0, later)
        await namespace.trim("in", 0, 10)
        with pytest.raises(DataLost, match=r"next offset of topic 'in', partition 0 is 5"):
            await h.once(namespace)
        await h.once(namespace, lost="skip")
        assert 14 == (await namespace.committed("job"))["in", 0].offset

    simulate(main())


def test_settings_that_make_no_sense_are_refused() -> None:
    async def main() -> None:
        namespace = await h.bucket(1)
        for settings in ({"num_standbys": 99}, {"reset": "middle"}, {"lost": "maybe"}):
            with pytest.raises(InvalidRequest):
                await run(h.job(), namespace, **settings)

    simulate(main())


# -- beginnings ------------------------------------------------------------------------------------------


def test_a_job_that_begins_at_the_end_of_its_sources_remembers_that_place() -> None:
    async def main() -> None:
        namespace = await h.bucket(1)
        await h.put(namespace, 0, h.events(random.Random(17), 5))
        await h.once(namespace, reset="latest")
        assert {} == await h.copied(namespace)
        later = h.events(random.Random(18), 4)
        await h.put(namespace, 0, later)
        await h.once(namespace, reset="latest")
        assert h.expected_copies(later) == await h.copied(namespace)

    simulate(main())


def test_a_job_whose_offsets_were_forgotten_goes_on_where_its_state_is() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)
        rows = h.events(random.Random(19), 20)
        await h.put(namespace, 0, rows)
        await h.once(namespace)
        from headwater.log import operations as ops

        await namespace.writer.commit(ops=[ops.DeleteGroup(group="job")])
        more = h.events(random.Random(20), 20)
        await h.put(namespace, 1, more)
        await h.once(namespace)
        assert h.expected_copies(rows + more) == await h.copied(namespace)
        assert h.expected_latest(rows + more) == await h.latest(namespace)

    simulate(main())


def test_what_went_through_a_repartition_is_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "STREAMS_TRIM_BYTES", 1)

    async def main() -> None:
        namespace, rows = await filled(random.Random(21))
        await h.once(namespace, batch_bytes=1)
        between = [topic for topic in namespace.state.topics.values() if topic.name.endswith("-repartition")]
        assert between
        assert all(place.start == place.next for topic in between for place in topic.partitions)
        await check(namespace, rows)

    simulate(main())


def test_a_table_is_read_before_the_streams_that_meet_it() -> None:
    async def main() -> None:
        namespace = await opened(memory())
        for name in ("in", "names", "out"):
            await namespace.create_topic(name, 1)
        for at in range(20):
            record = Record(key=b"k%d" % at, value=b'{"k": "k%d", "name": "n%d"}' % (at, at))
            await namespace.append("names", 0, batch.batch_of_records([record], default_timestamp=9_000_000))
        await h.put(namespace, 0, [{"k": f"k{at}", "at": at, "v": at} for at in range(20)])
        topology = Topology("job")
        names = topology.table("names", schema={"k": pl.String, "name": pl.String}, key="k")
        events = topology.stream("in", schema=h.SCHEMA, time="at").repartition("k")
        events.join(names, on="k").to("out", format="json")
        await h.once(namespace, topology)
        assert {f"n{at}" for at in range(20)} == {row["name"] for _, row in await h.read(namespace, "out") if row}

    simulate(main())


def test_a_cancelled_run_leaves_the_group_and_nothing_behind() -> None:
    async def main() -> None:
        namespace, rows = await filled(random.Random(22))
        running = asyncio.ensure_future(run(h.job(), await h.another(namespace, 11), options=h.OPTIONS))
        await sim_loop().sleep(0.5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await namespace.refresh()
        assert {} == namespace.state.groups["job"].members
        await h.once(namespace)
        await check(namespace, rows)

    simulate(main())


def test_a_task_that_is_cancelled_twice_lets_go_of_everything_all_the_same() -> None:
    """A worker that loses its group cancels its tasks, and once more if it is stopped meanwhile (seed 20695)."""

    async def main() -> None:
        namespace, _ = await filled(random.Random(23))
        app = await App.start(h.job(), await h.another(namespace, 11), h.OPTIONS)
        while not any(task.computer for task in app.worker.tasks.values()):
            await sim_loop().sleep(0.01)
        tasks, lives = list(app.worker.tasks.values()), list(app.worker._lives.values())
        for life in lives * 2:
            life.cancel()
            await asyncio.sleep(0)
        await asyncio.wait(lives)
        assert [None] * len(tasks) == [task.computer for task in tasks]
        assert not any(task._commit is not None and not task._commit.done() for task in tasks)
        await app.abandon()

    simulate(main())
