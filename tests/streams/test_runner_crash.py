"""A worker dies at each of its awaits, one world for each: what comes out is what comes out undisturbed."""

from __future__ import annotations

import random
from typing import Any

import pytest

from headwater.errors import HeadwaterError, Indeterminate, Throttled, Unavailable
from headwater.log.namespace import Namespace
from headwater.log.outcomes import UnknownMember
from headwater.sim.faults import Faults, Process, SimBucket, SimStore
from headwater.sim.latency import Profile
from headwater.sim.loop import SimClock, sim_loop
from headwater.streams.runner import changelog
from headwater.streams.runner.app import App, WorkerOptions, run_once
from headwater.upkeep.offload import inline
from tests.log.helpers import FIXED, simulate
from tests.streams import helpers_runner as h

OPTIONS = WorkerOptions(offload=inline, session_ms=6_000, batch_bytes=1, num_standbys=1)


async def place(
    bucket: SimBucket,
    seed: int,
    *,
    process: Process | None = None,
    faults: Faults | None = None,
    profile: Profile = FIXED,
) -> Namespace:
    options: dict[str, Any] = {} if faults is None else {"faults": faults}
    store = SimStore(bucket, loop=sim_loop(), rng=random.Random(seed), profile=profile, process=process, **options)
    return await Namespace.open(
        store, "ns", clock=SimClock(sim_loop(), process=process), rng=random.Random(seed + 1_000)
    )


async def world(rows: list[h.Row]) -> SimBucket:
    bucket = SimBucket(sim_loop())
    namespace = await place(bucket, 1)
    await h.topics(namespace, 2)
    for partition in range(2):
        for start in range(0, len(rows), 10):
            await h.put(namespace, partition, rows[start : start + 10])
    await h.ended(namespace)
    await namespace.close()
    return bucket


async def outcome(bucket: SimBucket) -> tuple[object, ...]:
    """What the outputs hold once a last, undisturbed run has ended."""
    namespace = await place(bucket, 2)
    await run_once(h.job(), namespace, options=OPTIONS)
    found = await h.copied(namespace), await h.finals(namespace), await h.latest(namespace)
    await namespace.close()
    return found


@pytest.mark.parametrize("part", range(4))
def test_a_run_that_dies_at_any_await_is_taken_up_without_loss_or_repetition(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changelog, "STREAMS_CHANGELOG_BYTES_MIN", 40_000)
    rows = h.events(random.Random(1), 10)

    async def dying(crash_at: int) -> tuple[tuple[object, ...], int]:
        bucket = await world(rows)
        process = Process("w", sim_loop(), crash_at=crash_at)

        async def live() -> None:
            namespace = await place(bucket, 3, process=process)
            await run_once(h.job(), namespace, options=OPTIONS)
            await namespace.close()

        task = process.spawn(live())
        await h.until(task.done, limit_s=300)
        return await outcome(bucket), process.awaits

    calm, awaits = simulate(dying(10**9))
    assert awaits > 20
    for crash_at in range(1 + part, awaits, 4):
        found, _ = simulate(dying(crash_at))
        assert calm == found, f"the worker died at await {crash_at}"


@pytest.mark.parametrize("seed", range(6))
def test_workers_that_come_go_freeze_and_die_on_a_bad_store_make_no_difference(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changelog, "STREAMS_CHANGELOG_BYTES_MIN", [1, 40_000, 8 << 20][seed % 3])
    rng = random.Random(seed)
    rows = h.events(random.Random(seed), 40)
    bad = Faults.swarm(random.Random(seed), rate_max=0.04, until_s=60.0, timeout_s=3.0, late_s=(0.5, 20.0))

    async def calm() -> tuple[object, ...]:
        return await outcome(await world(rows))

    async def wild() -> tuple[object, ...]:
        bucket = await world(rows)

        async def live(process: Process, number: int) -> None:
            try:
                namespace = await place(bucket, 100 + number, process=process, faults=bad, profile=h.QUICK)
                if rng.random() < 0.4:
                    await run_once(h.job(), namespace, options=OPTIONS)
                    return
                app = await App.start(h.job(), namespace, OPTIONS)
                await sim_loop().sleep(rng.uniform(1, 20))
                await app.stop()
            except (Unavailable, Indeterminate, Throttled, UnknownMember):
                return

        living: list[tuple[Process, Any]] = []
        everyone = []
        for number in range(30):
            process = Process(f"w{number}", sim_loop(), crash_at=rng.choice([None, rng.randrange(5, 400)]))
            living.append((process, process.spawn(live(process, number))))
            everyone.append(living[-1][1])
            await sim_loop().sleep(rng.uniform(0.2, 4))
            living = [(process, task) for process, task in living if process.alive and not task.done()]
            if living and rng.random() < 0.2:
                rng.choice(living)[0].crash()
            if living and rng.random() < 0.2:
                rng.choice(living)[0].pause(rng.uniform(1, 15))
        for process, _ in living:
            process.crash()
        await sim_loop().sleep(60)
        for task in everyone:
            if task.done() and not task.cancelled() and task.exception() is not None:
                raise task.exception()
        return await outcome(bucket)

    assert simulate(calm()) == simulate(wild())


def test_a_zombie_that_wakes_up_is_fenced_and_writes_nothing() -> None:
    rows = h.events(random.Random(5), 40)

    async def main() -> None:
        bucket = await world(rows)
        process = Process("zombie", sim_loop())
        namespace = await place(bucket, 3, process=process)
        task = process.spawn(run_once(h.job(), namespace, options=OPTIONS))
        await sim_loop().sleep(1.5)
        process.pause(120)
        found = await outcome(bucket)
        await sim_loop().sleep(300)
        assert task.done()
        if task.exception() is not None:
            assert isinstance(task.exception(), HeadwaterError)
        assert found == await outcome(bucket)

    simulate(main())
