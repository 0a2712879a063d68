"""The simulated bucket, each fault of the way to it, and processes that crash and pause."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headwater.errors import (
    AlreadyExists,
    Conflict,
    HeadwaterError,
    Indeterminate,
    InvalidRequest,
    NotFound,
    Raced,
    Throttled,
    Unavailable,
)
from headwater.sim.faults import (
    CALM,
    FAULT_KINDS,
    HOSTILE,
    LIST_PAGE_KEYS,
    ROUGH,
    Burst,
    Faults,
    Process,
    SimBucket,
    SimStore,
)
from headwater.sim.latency import S3_EXPRESS, S3_STANDARD, ZERO, Profile
from headwater.sim.loop import SimClock, run, sim_loop
from headwater.store.base import ObjectStore, Stat

FIXED = Profile("fixed", put=(100, 100), get=(50, 50), list=(80, 80))  # every request takes exactly this


def store_of(
    bucket: SimBucket,
    *,
    faults: Faults = CALM,
    profile: Profile = ZERO,
    process: Process | None = None,
    seed: int = 1,
) -> SimStore:
    return SimStore(bucket, loop=sim_loop(), rng=random.Random(seed), profile=profile, faults=faults, process=process)


def fresh(**options: Any) -> tuple[SimBucket, SimStore]:
    bucket = SimBucket(sim_loop())
    return bucket, store_of(bucket, **options)


async def keys_of(store: ObjectStore, prefix: str, **options: Any) -> list[str]:
    return [stat.key async for stat in store.list(prefix, **options)]


# -- the bucket ---------------------------------------------------------------------------------------


def test_objects_are_written_read_by_range_and_deleted() -> None:
    async def main() -> None:
        bucket, store = fresh()
        assert isinstance(store, ObjectStore)
        stat = await store.put("a/b", [b"01234", memoryview(b"56789")])
        assert ("a/b", 10) == (stat.key, stat.size)
        blob = await store.get("a/b", start=3, end=6)
        assert (b"345", 10, stat.etag) == (blob.data, blob.stat.size, blob.stat.etag)
        assert b"89" == (await store.get("a/b", start=8, end=99)).data
        assert stat.etag == (await store.head("a/b")).etag
        await store.delete(["a/b", "never/there"])
        with pytest.raises(NotFound):
            await store.get("a/b")
        with pytest.raises(NotFound):
            await store.head("a/b")
        counted = bucket.counters.as_dict()
        assert {"put": 1, "get": 3, "head": 2, "list": 0, "delete": 1, "missing": 2, "refused": 0} == {
            kind: count for kind, count in counted.items() if not kind.startswith("bytes")
        }
        assert (10, 5) == (counted["bytes_in"], counted["bytes_out"])
        await store.aclose()

    run(main())


def test_of_many_racing_writers_exactly_one_creates_the_key() -> None:
    async def main() -> None:
        bucket = SimBucket(sim_loop())
        stores = [store_of(bucket, profile=S3_STANDARD, seed=seed) for seed in range(32)]
        tries = [store.put_if_absent("slot", str(n).encode()) for n, store in enumerate(stores)]
        answers = await asyncio.gather(*tries, return_exceptions=True)
        (winner,) = (n for n, answer in enumerate(answers) if isinstance(answer, Stat))
        assert 31 == sum(isinstance(answer, AlreadyExists) for answer in answers) == bucket.counters.refused
        assert str(winner).encode() == bucket.objects["slot"].data

    run(main())


def test_put_if_match_replaces_only_what_it_saw() -> None:
    async def main() -> None:
        _, store = fresh()
        first = await store.put("k", b"1")
        second = await store.put_if_match("k", b"2", first.etag)
        with pytest.raises(AlreadyExists):
            await store.put_if_match("k", b"3", first.etag)
        assert b"2" == (await store.get("k")).data
        await store.delete(["k"])
        with pytest.raises(Conflict):
            await store.put_if_match("k", b"4", second.etag)

    run(main())


def test_the_stores_clock_is_its_own_and_stamps_what_it_stores() -> None:
    async def main() -> None:
        bucket = SimBucket(sim_loop(), start_ms=5_000_400, resolution_ms=1_000)
        store = store_of(bucket, profile=FIXED)
        await store.put("k", b"")
        await sim_loop().sleep(60)
        stat = await store.head("k")
        assert (5_000_000, 5_060_000) == (stat.modified_ms, stat.date_ms)
        quiet = store_of(SimBucket(sim_loop(), taciturn=True))
        stat = await quiet.put("k", b"")
        assert (-1, -1) == (stat.modified_ms, stat.date_ms)
        assert (await quiet.head("k")).modified_ms > 0

    run(main())


def test_a_list_is_sorted_and_bounded_by_prefix_start_and_limit() -> None:
    async def main() -> None:
        _, store = fresh()
        for key in ("b/2", "a/1", "b/10", "b/é", "b/1", "c/1", "b/\U0001f600", "b/\uffee"):
            await store.put(key, b"")
        assert ["b/1", "b/10", "b/2", "b/é", "b/\uffee", "b/\U0001f600"] == await keys_of(store, "b/")
        assert ["b/10", "b/2"] == await keys_of(store, "b/", start_after="b/1", limit=2)
        assert [] == await keys_of(store, "b/", start_after="c")
        assert ["b/1"] == await keys_of(store, "b/", start_after="a", limit=1)
        assert [] == await keys_of(store, "b/", limit=0)
        assert 8 == len(await keys_of(store, ""))

    run(main())


def test_each_page_of_a_list_costs_a_request_and_shows_its_own_instant() -> None:
    async def main() -> None:
        bucket, store = fresh(profile=FIXED)
        for n in range(LIST_PAGE_KEYS + 10):
            bucket.put(f"k/{n:06}", b"")
        seen: list[str] = []
        start_s = sim_loop().time()
        async for stat in store.list("k/"):
            if not seen:  # between the pages: one behind the listing, one ahead of it, and one gone
                bucket.put("k/000000-new", b"")
                bucket.put("k/999999", b"")
                bucket.delete(["k/001005"])
            seen.append(stat.key)
        assert [f"k/{n:06}" for n in range(LIST_PAGE_KEYS + 10) if n != 1005] + ["k/999999"] == seen
        assert 2 == bucket.counters.list
        assert 0.16 == pytest.approx(sim_loop().time() - start_s)

    run(main())


def test_a_full_last_page_is_not_followed_by_an_empty_one() -> None:
    async def main() -> None:
        bucket, store = fresh()
        for n in range(LIST_PAGE_KEYS):
            bucket.put(f"k/{n:06}", b"")
        assert LIST_PAGE_KEYS == len(await keys_of(store, "k/"))
        assert 1 == bucket.counters.list

    run(main())


def test_keys_that_some_store_could_not_hold_are_refused() -> None:
    async def main() -> None:
        bucket, store = fresh()
        await store.put("k" * 1024, b"")
        for key in ("k" * 1025, "", "a//b", "a/../b"):
            with pytest.raises(InvalidRequest):
                await store.put(key, b"")
        await store.put("folder/file", b"")
        for key in ("folder", "folder/file/below"):
            with pytest.raises(InvalidRequest, match="folder of"):
                await store.put(key, b"")
        assert 2 == len(bucket.objects) == len(bucket.keys)

    run(main())


def test_a_request_is_applied_between_its_sending_and_its_answer() -> None:
    async def main() -> list[float]:
        landed: list[float] = []
        for seed in range(20):
            bucket, store = fresh(profile=FIXED, seed=seed)
            start_s = sim_loop().time()
            task = asyncio.create_task(store.put("k", b""))
            while not bucket.objects:
                await sim_loop().sleep(0.001)
            landed.append(sim_loop().time() - start_s)
            await task
            assert 0.1 == pytest.approx(sim_loop().time() - start_s)
        return landed

    landed = run(main())
    assert 0 < min(landed) < 0.03
    assert 0.07 < max(landed) <= 0.101


# -- faults -------------------------------------------------------------------------------------------


def certain(kind: str, **more: Any) -> Faults:
    return Faults(**{kind: 1.0, **more})


WRITES: dict[str, Callable[[SimStore, str], Awaitable[Any]]] = {
    "put": lambda store, etag: store.put("k", b"new"),
    "put_if_absent": lambda store, etag: store.put_if_absent("free", b"new"),
    "put_if_match": lambda store, etag: store.put_if_match("k", b"new", etag),
    "delete": lambda store, etag: store.delete(["k"]),
}
CONDITIONAL = ("put_if_absent", "put_if_match")

ANSWERS: dict[str, tuple[type[HeadwaterError], bool]] = {
    "refused": (Unavailable, False),
    "throttled": (Throttled, False),
    "unavailable": (Unavailable, False),
    "lost_request": (Indeterminate, False),
    "lost_answer": (Indeterminate, True),
    "false_503": (Unavailable, True),
    "raced": (Raced, False),
    "own_412": (AlreadyExists, True),
}


STRIKES = [(kind, op) for kind in ANSWERS for op in WRITES if kind not in ("raced", "own_412") or op in CONDITIONAL]


@pytest.mark.parametrize(("kind", "op"), STRIKES)
def test_a_write_that_a_fault_strikes_is_applied_or_not_as_its_kind_says(kind: str, op: str) -> None:
    error, applied = ANSWERS[kind]

    async def main() -> None:
        bucket, store = fresh(profile=FIXED, faults=certain(kind))
        etag = bucket.put("k", b"old").etag
        before = bucket.versions, len(bucket.objects)
        with pytest.raises(error):
            await WRITES[op](store, etag)
        assert applied == ((bucket.versions, len(bucket.objects)) != before)
        assert {kind: 1} == store.struck
        await sim_loop().sleep(1_000)
        assert applied == ((bucket.versions, len(bucket.objects)) != before)

    run(main())


@pytest.mark.parametrize("kind", ["refused", "throttled", "unavailable", "lost_request", "lost_answer", "late"])
def test_a_read_that_fails_can_be_tried_again(kind: str) -> None:
    async def main() -> None:
        bucket, store = fresh(faults=certain(kind))
        bucket.put("k", b"")
        for call in (store.get("k"), store.head("k"), keys_of(store, "k")):
            with pytest.raises(Throttled if kind == "throttled" else Unavailable):
                await call

    run(main())


def test_a_late_write_lands_after_its_caller_gave_up() -> None:
    async def main() -> None:
        bucket, store = fresh(faults=certain("late", late_s=(30.0, 60.0)))
        with pytest.raises(Indeterminate):
            await store.put_if_absent("k", b"late")
        assert 10.0 == sim_loop().time()
        await sim_loop().sleep(29)
        assert {} == bucket.objects
        await sim_loop().sleep(32)
        assert b"late" == bucket.objects["k"].data

    run(main())


def test_a_late_put_never_takes_a_filled_slot() -> None:
    async def main() -> None:
        bucket, store = fresh(faults=certain("late"))
        with pytest.raises(Indeterminate):
            await store.put_if_absent("k", b"late")
        store.set_faults(CALM)
        await store.put_if_absent("k", b"first")
        await sim_loop().sleep(1_000)
        assert b"first" == bucket.objects["k"].data

    run(main())


def test_a_late_plain_put_overwrites_what_came_after_it() -> None:
    async def main() -> None:
        bucket, store = fresh(faults=certain("late"))
        with pytest.raises(Indeterminate):
            await store.put("latest", b"old")
        store.set_faults(CALM)
        await store.put("latest", b"new")
        await sim_loop().sleep(1_000)
        assert b"old" == bucket.objects["latest"].data

    run(main())


def test_a_lost_race_may_be_told_as_409() -> None:
    async def main() -> None:
        bucket, store = fresh(faults=certain("raced_taken"))
        await store.put_if_absent("k", b"first")
        with pytest.raises(Raced):
            await store.put_if_absent("k", b"second")
        assert b"first" == bucket.objects["k"].data

    run(main())


def test_an_answer_slower_than_the_timeout_leaves_the_caller_without_one() -> None:
    async def main() -> None:
        bucket, store = fresh(profile=FIXED, faults=certain("spike", spike_factor=(200.0, 200.1)))
        with pytest.raises(Indeterminate):
            await store.put("k", b"")
        assert 10.0 == sim_loop().time()
        await sim_loop().sleep(20)
        assert {"k"} == set(bucket.objects)
        with pytest.raises(Unavailable):
            await store_of(bucket, profile=FIXED, faults=Faults(timeout_s=0.01)).get("k")

    run(main())


def test_a_spike_stretches_the_latency() -> None:
    async def main() -> float:
        _, store = fresh(profile=FIXED, faults=certain("spike", spike_factor=(10.0, 20.0)))
        await store.put("k", b"")
        return sim_loop().time()

    assert 1.0 <= run(main()) <= 2.0


def test_a_partial_delete_says_so_and_leaves_some_keys() -> None:
    async def main() -> None:
        bucket, store = fresh(faults=certain("partial_delete"))
        for n in range(100):
            bucket.put(f"k{n}", b"")
        with pytest.raises(Unavailable):
            await store.delete([f"k{n}" for n in range(100)])
        assert 20 < len(bucket.objects) < 80

    run(main())


def test_a_burst_turns_requests_away_while_it_lasts() -> None:
    async def main() -> None:
        _, store = fresh(faults=Faults(bursts=(Burst(start_s=10, end_s=20),)))
        outcomes: list[str] = []
        for _ in range(30):
            try:
                await store.put("k", b"")
                outcomes.append("ok")
            except (Throttled, Unavailable) as error:
                outcomes.append(type(error).__name__)
            await sim_loop().sleep(1)
        assert ["ok"] * 10 == outcomes[:10] == outcomes[20:]
        assert {"Throttled", "Unavailable"} == set(outcomes[10:20])

    run(main())


def test_after_until_s_nothing_new_goes_wrong() -> None:
    async def main() -> None:
        _, store = fresh(faults=certain("unavailable", until_s=5.0))
        with pytest.raises(Unavailable):
            await store.put("k", b"")
        await sim_loop().sleep(6)
        await store.put("k", b"")

    run(main())


def test_swarms_differ_by_seed_and_leave_kinds_out() -> None:
    swarms = [Faults.swarm(random.Random(seed), timeout_s=3.0) for seed in range(50)]
    assert swarms[7] == Faults.swarm(random.Random(7), timeout_s=3.0)
    assert 50 == len(set(swarms))
    assert all(any(getattr(swarm, kind) == 0.0 for swarm in swarms) for kind in FAULT_KINDS)
    assert all(any(getattr(swarm, kind) > 0.0 for swarm in swarms) for kind in FAULT_KINDS)
    assert all(3.0 == swarm.timeout_s for swarm in swarms)


@pytest.mark.parametrize("faults", [CALM, ROUGH, HOSTILE])
def test_one_seed_gives_one_history(faults: Faults) -> None:
    async def main() -> list[str]:
        bucket = SimBucket(sim_loop())
        log: list[str] = []

        async def worker(n: int) -> None:
            store = store_of(bucket, profile=S3_EXPRESS, faults=faults, seed=n)
            for i in range(40):
                try:
                    await store.put_if_absent(f"slot/{i}", b"%d" % n)
                    await store.get(f"slot/{i + 1}")
                except HeadwaterError as error:
                    log.append(f"{sim_loop().time()} {n} {error}")

        await asyncio.gather(*(worker(n) for n in range(4)))
        return [*log, *(f"{key}={bucket.objects[key].data!r}" for key in bucket.keys), str(bucket.counters)]

    assert run(main()) == run(main())


# -- processes ----------------------------------------------------------------------------------------


def test_a_process_crashes_before_the_request_or_after_it_was_applied() -> None:
    async def main(crash_at: int) -> tuple[list[str], int, bool]:
        process = Process("p", sim_loop(), crash_at=crash_at)
        bucket, store = fresh(process=process)

        async def work() -> None:
            for n in range(3):
                await store.put(f"k{n}", b"")

        task = process.spawn(work())
        await sim_loop().sleep(1)
        return sorted(bucket.objects), process.awaits, task.cancelled()

    assert ([], 1, True) == run(main(1))
    assert (["k0"], 2, True) == run(main(2))
    assert (["k0"], 3, True) == run(main(3))
    assert (["k0", "k1", "k2"], 6, False) == run(main(7))


def test_a_crash_ends_every_task_of_the_process_but_not_its_requests() -> None:
    async def main() -> None:
        crashed: list[str] = []
        process = Process("p", sim_loop(), on_crash=lambda dead: crashed.append(dead.name))
        bucket, store = fresh(process=process, profile=FIXED)
        other = asyncio.create_task(sim_loop().sleep(5))

        async def cleaner() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await store.put("from-beyond-the-grave", b"")

        async def work() -> None:
            inner = asyncio.create_task(cleaner())
            await store.put("in-flight", b"")
            await inner

        task = process.spawn(work(), name="work")
        await sim_loop().sleep(0.001)
        process.crash()
        process.crash()
        await sim_loop().sleep(1)
        assert task.cancelled()
        assert "p/work" == task.get_name()
        assert [] == sim_loop().pending(process)
        assert ["in-flight"] == list(bucket.objects)
        assert ["p"] == crashed
        assert not other.done()

    run(main())


def test_a_late_write_of_a_dead_process_still_lands() -> None:
    async def main() -> None:
        process = Process("p", sim_loop())
        bucket, store = fresh(process=process, faults=certain("late"))
        process.spawn(store.put_if_absent("k", b""))
        await sim_loop().sleep(1)
        process.crash()
        await sim_loop().sleep(1_000)
        assert ["k"] == list(bucket.objects)

    run(main())


def test_a_paused_process_resumes_when_the_pause_ends_and_its_clock_went_on() -> None:
    async def main() -> None:
        process = Process("p", sim_loop(), pauses=[(3, 3_600.0)])
        bucket, store = fresh(process=process, profile=FIXED)
        clock = SimClock(sim_loop(), process=process)

        async def work() -> tuple[float, float]:
            await store.put("k", b"")  # struck after the request was applied, before the answer is seen
            return sim_loop().time(), clock.elapsed_s()

        async def other() -> float:
            await clock.sleep(0.2)  # another task of the same process sleeps into the pause
            return sim_loop().time()

        first, second = process.spawn(work()), process.spawn(other())
        await sim_loop().sleep(1)
        assert ["k"] == list(bucket.objects)
        assert not first.done()
        await asyncio.wait({first, second})
        assert (3600.1, 3600.1) == pytest.approx(first.result())
        assert second.result() >= 3600.1

    run(main())


def test_a_process_that_crashes_in_its_pause_never_resumes() -> None:
    async def main() -> None:
        process = Process("p", sim_loop())
        bucket, store = fresh(process=process)
        process.pause(10)
        process.pause(5)
        task = process.spawn(store.put("k", b""))
        await sim_loop().sleep(9)
        assert not task.done()
        process.crash()
        await sim_loop().sleep(9)
        assert task.cancelled()
        assert {} == bucket.objects

    run(main())


def test_a_dead_process_stays_dead() -> None:
    async def main() -> None:
        process = Process("p", sim_loop())
        process.crash()
        _, store = fresh(process=process)
        with pytest.raises(asyncio.CancelledError):
            await store.put("k", b"")
        with pytest.raises(asyncio.CancelledError):
            await SimClock(sim_loop(), process=process).sleep(1)

    run(main())
