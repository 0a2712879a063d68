"""Cold starts, catching up, and what R5 forbids a process that slept."""

from __future__ import annotations

import asyncio
import random
import tracemalloc

import pytest

from headwater.clock import SystemClock
from headwater.errors import Corrupt, Unavailable
from headwater.limits import CATCH_UP_PARALLEL_MAX, MANIFEST_BYTES_MAX, STALE_AFTER_S
from headwater.log import chain as chain_module
from headwater.log import keys, snapshot
from headwater.log.chain import Chain
from headwater.log.intents import Intent, Manifest
from headwater.log.operations import CreateTopic
from headwater.log.options import Options
from headwater.log.state import Outcome, State
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.base import ObjectStore
from headwater.store.memory import MemoryStore
from tests.log.helpers import Fold, chunk, manifest, memory, simulate, stored
from tests.log.helpers_store import Act, Gate, Scripted, after, away, ok, slow, then


class World:
    """A bucket with a log of so many topics, one a manifest."""

    def __init__(self) -> None:
        self.truth = memory()
        self.store = Scripted(self.truth)
        self.fold = Fold()

    async def grow(self, manifests: int) -> None:
        for _ in range(manifests):
            seq = self.fold.state.seq + 1
            self.fold.do(CreateTopic(name=f"t{seq}", partitions=1))
            await self.truth.put_if_absent(keys.manifest_key(seq), stored(self.fold.manifests[-1]))

    async def snap(self, *, latest: bool = True) -> int:
        seq = self.fold.state.seq
        await self.truth.put(keys.snapshot_key(seq), snapshot.encode(self.fold.state))
        if latest:
            await self.truth.put(keys.LATEST, snapshot.encode_latest(seq))
        return seq

    async def collect(self, boundary: int) -> None:
        """What the collector does: the marker first, then the manifests below it."""
        await self.truth.put_if_absent(keys.boundary_key(boundary), b"")
        await self.truth.delete([keys.manifest_key(seq) for seq in range(1, boundary)])

    async def stray(self, seq: int) -> None:
        """A writer that slept takes a slot that was collected."""
        ops = [CreateTopic(name="stray", partitions=1)]
        made = manifest(seq, Intent(id="stray", tip=seq - 1, ops=ops), writer="sleeper")
        await self.truth.put_if_absent(keys.manifest_key(seq), stored(made))

    def chain(self, options: Options | None = None, store: ObjectStore | None = None) -> Chain:
        return Chain(
            store or self.store,
            clock=SimClock(sim_loop()),
            rng=random.Random(1),
            options=options or Options(),
        )

    def same(self, chain: Chain) -> None:
        assert snapshot.encode(self.fold.state) == snapshot.encode(chain.state)


# -- cold start ----------------------------------------------------------------------------------------


def test_an_empty_bucket_is_the_empty_state() -> None:
    async def main() -> None:
        world = World()
        chain = world.chain()
        await chain.refresh()
        assert (0, False) == (chain.state.seq, chain.is_stale())
        assert {"get": 2, "list": 2} == dict(world.store.calls)

    simulate(main())


@pytest.mark.parametrize("tail", [0, 1, 7, 50])
def test_a_cold_start_reads_latest_a_snapshot_and_the_tail(tail: int) -> None:
    async def main() -> None:
        world = World()
        await world.grow(40)
        await world.snap()
        await world.collect(41)
        await world.grow(tail)
        chain = world.chain()
        await chain.refresh()
        world.same(chain)
        assert world.store.calls["get"] <= 2 + tail + 2 * CATCH_UP_PARALLEL_MAX

    simulate(main())


def test_a_cold_start_does_not_cost_more_when_history_grows() -> None:
    async def gets(history: int) -> int:
        world = World()
        await world.grow(history)
        await world.snap()
        await world.grow(5)
        await world.chain().refresh()
        return world.store.calls["get"]

    assert simulate(gets(10)) == simulate(gets(400))


def test_a_stale_latest_costs_gets_but_is_right() -> None:
    async def main() -> None:
        world = World()
        await world.grow(3)
        await world.snap()
        await world.grow(30)
        await world.snap(latest=False)
        chain = world.chain()
        await chain.refresh()
        world.same(chain)

    simulate(main())


@pytest.mark.parametrize("broken", ["no latest", "no snapshot of latest", "latest below the boundary"])
def test_when_the_hint_is_of_no_use_the_newest_snapshot_is_listed(broken: str) -> None:
    async def main() -> None:
        world = World()
        await world.grow(10)
        first = await world.snap()
        await world.grow(10)
        await world.snap(latest=False)
        await world.grow(3)
        if broken == "no latest":
            await world.truth.delete([keys.LATEST])
        elif broken == "no snapshot of latest":
            await world.truth.delete([keys.snapshot_key(first)])
        await world.collect(21)
        chain = world.chain()
        await chain.refresh()
        world.same(chain)

    simulate(main())


def test_without_snapshots_the_log_is_folded_from_its_first_manifest() -> None:
    async def main() -> None:
        world = World()
        await world.grow(100)
        await world.truth.put(keys.LATEST, snapshot.encode_latest(50))  # … which was lost
        chain = world.chain()
        await chain.refresh()
        world.same(chain)

    simulate(main())


def test_a_boundary_right_above_the_snapshot_is_fine_and_one_more_is_corrupt() -> None:
    async def main() -> None:
        world = World()
        await world.grow(10)
        await world.snap()
        await world.grow(5)
        await world.collect(11)
        chain = world.chain()
        await chain.refresh()
        world.same(chain)
        await world.collect(12)
        with pytest.raises(Corrupt, match="Manifests below 12 are deleted"):
            await world.chain().refresh()

    simulate(main())


def test_a_corrupt_manifest_stops_the_fold_before_it_and_every_time() -> None:
    async def main() -> None:
        world = World()
        await world.grow(3)
        chain = world.chain()
        await chain.refresh()
        await world.grow(2)
        await world.truth.put(keys.manifest_key(4), b"x" * 200)
        for _ in range(2):
            with pytest.raises(Corrupt, match="manifest/00000000000000000004"):
                await chain.refresh()
            assert 3 == chain.state.seq

    simulate(main())


def test_a_cold_start_that_fails_shows_nobody_half_a_state() -> None:
    async def main() -> None:
        world = World()
        await world.grow(5)
        await world.truth.put(keys.manifest_key(4), b"x" * 200)
        chain = world.chain()
        for _ in range(2):
            with pytest.raises(Corrupt):
                await chain.refresh()
            assert 0 == chain.state.seq
            assert chain.is_stale()

    simulate(main())


# -- R5 ----------------------------------------------------------------------------------------------------


async def slept(world: World, chain: Chain, seconds: float = 2 * STALE_AFTER_S) -> None:
    """While the process sleeps the log moves on, its part is collected, and a sleeper takes the next slot."""
    seq = chain.state.seq + 1
    await world.grow(20)
    await world.snap()
    await world.collect(world.fold.state.seq)
    await world.stray(seq)
    await sim_loop().sleep(seconds)


@pytest.mark.parametrize("how", ["refresh", "step"])
def test_a_stray_is_never_folded_after_an_hour(how: str) -> None:
    async def main() -> None:
        world = World()
        await world.grow(5)
        chain = world.chain()
        seen: list[Manifest] = []
        chain.listeners.append(lambda made, outcomes: seen.append(made))
        await chain.refresh()
        await slept(world, chain)
        if how == "step":
            assert not await chain.step()
        else:
            await chain.refresh()
        world.same(chain)
        assert "sleeper" not in {made.writer for made in seen}

    simulate(main())


@pytest.mark.parametrize("how", ["refresh", "step"])
def test_a_stray_is_never_folded_when_the_process_pauses_between_get_and_fold(how: str) -> None:
    async def main() -> None:
        world = World()
        await world.grow(5)
        chain = world.chain()
        seen: list[Manifest] = []
        chain.listeners.append(lambda made, outcomes: seen.append(made))
        await chain.refresh()

        async def long_before() -> None:
            await slept(world, chain)

        # The stray is there when the GET arrives; the process then sleeps over its answer.
        world.store.will("get", after(long_before))
        await (chain.step() if how == "step" else chain.refresh())
        world.same(chain)
        assert "sleeper" not in {made.writer for made in seen}

    simulate(main())


def test_a_404_heard_in_a_long_sleep_proves_no_tip() -> None:
    async def main() -> None:
        world = World()
        await world.grow(5)
        chain = world.chain()
        await chain.refresh()

        async def sleep() -> None:
            await slept(world, chain)

        async def missing(store: Scripted, act: object) -> object:
            try:
                return await ok(store, act)  # type: ignore[arg-type]
            finally:
                await sleep()

        world.store.will("get", missing)
        assert not await chain.step()
        world.same(chain)

    simulate(main())


def test_a_stray_behind_the_snapshot_is_not_told_to_listeners_and_not_kept() -> None:
    """A cold start reads an old hint, and before it goes on the manifests behind it are collected."""

    async def main() -> None:
        world = World()
        await world.grow(10)
        await world.snap()
        seen: list[str] = []
        chain = world.chain()
        chain.listeners.append(lambda made, outcomes: seen.append(made.writer))

        async def meanwhile() -> None:
            await world.grow(30)
            await world.snap()
            await world.collect(40)
            await world.stray(11)

        world.store.will("get", ok, then(meanwhile))
        await chain.refresh()
        world.same(chain)
        assert "sleeper" not in seen

    simulate(main())


@pytest.mark.parametrize(("age_s", "gets", "lists"), [(STALE_AFTER_S, 1, 0), (STALE_AFTER_S + 1, 3, 2)])
def test_within_an_hour_the_tip_costs_one_get_and_after_it_a_new_start(age_s: float, gets: int, lists: int) -> None:
    async def main() -> None:
        world = World()
        await world.grow(5)
        await world.snap()
        chain = world.chain()
        await chain.refresh()
        world.store.calls.clear()
        await sim_loop().sleep(age_s)
        await chain.refresh()
        assert (gets, lists) == (world.store.calls["get"], world.store.calls["list"])

    simulate(main())


# -- at the tip ---------------------------------------------------------------------------------------------


def test_refresh_sees_what_was_there_before_the_call_and_steps_go_one_by_one() -> None:
    async def main() -> None:
        world = World()
        chain = world.chain()
        await chain.refresh()
        await world.grow(3)
        assert [True, True, True, False] == [await chain.step() for _ in range(4)]
        await world.grow(40)
        await chain.refresh()
        world.same(chain)

    simulate(main())


def test_a_look_ends_at_the_first_number_without_a_manifest() -> None:
    async def main() -> None:
        world = World()
        chain = world.chain()
        await chain.refresh()
        await world.grow(2)
        world.store.calls.clear()
        await chain.refresh()
        world.same(chain)
        assert {"get": 3} == world.store.calls

    simulate(main())


@pytest.mark.parametrize("known", [0, 5])
@pytest.mark.parametrize("each", [1, 3])
def test_a_refresh_ends_though_others_write_faster_than_it_reads(each: int, known: int) -> None:
    """A gateway whose store dawdled followed the tip for ever, and so never began to serve."""
    grown_max = 3_000

    async def main() -> None:
        world = World()
        chain = world.chain()
        await world.grow(known)
        if known:
            await chain.refresh()
        await world.grow(100)
        before = world.fold.state.seq

        async def outpaced(_: Scripted, act: Act) -> object:
            if world.fold.state.seq < grown_max:
                await world.grow(each)
            return await act()

        world.store.always["get"] = outpaced
        await chain.refresh()
        assert before <= chain.state.seq < world.fold.state.seq < grown_max
        assert world.store.calls["head"] <= 8
        world.store.always.clear()
        await chain.refresh()
        world.same(chain)

    simulate(main())


def test_who_is_set_a_last_manifest_and_sleeps_begins_again() -> None:
    async def main() -> None:
        world = World()
        chain = world.chain()
        await chain.refresh()
        await world.grow(300)
        world.store.will("head", slow(sim_loop(), STALE_AFTER_S + 1))
        loads = chain.loads
        await chain.refresh()
        world.same(chain)
        assert (loads + 1, 0.0) == (chain.loads, chain.age_s())

    simulate(main())


def test_concurrent_refreshes_share_the_work_and_none_is_answered_by_an_older_look() -> None:
    async def main() -> None:
        world = World()
        chain = world.chain()
        await chain.refresh()
        world.store.calls.clear()
        gate = Gate()
        world.store.will("get", gate)
        first = asyncio.ensure_future(chain.refresh())
        await sim_loop().sleep(0.001)
        assert 1 == gate.waiting
        late = [asyncio.ensure_future(chain.refresh()) for _ in range(50)]
        await sim_loop().sleep(0.001)
        await world.grow(1)  # acknowledged before the others are answered, perhaps unseen by the first look
        gate.opened.set()
        await asyncio.gather(first, *late)
        world.same(chain)
        assert 3 == world.store.calls["get"]

    simulate(main())


def test_a_look_that_was_cancelled_answers_nobody() -> None:
    async def main() -> None:
        world = World()
        chain = world.chain()
        await chain.refresh()
        first_gate, second_gate = Gate(), Gate()
        world.store.will("get", first_gate, second_gate)
        first = asyncio.ensure_future(chain.refresh())
        await sim_loop().sleep(0.001)
        second, third = asyncio.ensure_future(chain.refresh()), asyncio.ensure_future(chain.refresh())
        await sim_loop().sleep(0.001)
        first_gate.opened.set()
        await first
        await sim_loop().sleep(0.001)
        assert 1 == second_gate.waiting
        await world.grow(1)  # acknowledged before the second look, which saw nothing of it
        second.cancel()
        await third
        world.same(chain)

    simulate(main())


def test_concurrent_refreshes_share_a_failure_too() -> None:
    async def main() -> None:
        world = World()
        chain = world.chain(Options(store_retry_s=10))
        await chain.refresh()
        world.store.always["get"] = away
        start = chain.clock.elapsed_s()
        results = await asyncio.gather(*(chain.refresh() for _ in range(10)), return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in results)
        assert chain.clock.elapsed_s() - start <= 2 * 10

    simulate(main())


def test_refreshes_steps_and_loads_at_once_fold_every_manifest_exactly_once() -> None:
    async def main(seed: int) -> None:
        rng = random.Random(seed)
        world = World()
        await world.grow(5)
        await world.snap()
        store = Scripted(world.truth)

        async def jitter(scripted: Scripted, act: object) -> object:
            await sim_loop().sleep(rng.random())
            answer = await ok(scripted, act)  # type: ignore[arg-type]
            await sim_loop().sleep(rng.random())
            return answer

        store.always = {"get": jitter, "list": jitter}  # type: ignore[dict-item]
        chain = world.chain(store=store)
        told: list[int] = []
        chain.listeners.append(lambda made, outcomes: told.append(made.seq))

        async def busy(call: object) -> None:
            for _ in range(10):
                await call()  # type: ignore[operator]
                await sim_loop().sleep(rng.random())

        async def growing() -> None:
            for _ in range(30):
                await world.grow(rng.choice([0, 1, 3]))
                await sim_loop().sleep(rng.random())

        await chain.refresh()
        await asyncio.gather(growing(), *(busy(call) for call in (chain.refresh, chain.step, chain.step)))
        await chain.refresh()
        world.same(chain)
        assert list(range(6, world.fold.state.seq + 1)) == told

    for seed in range(20):
        simulate(main(seed))


def test_waiting_for_growth_ends_with_it_or_with_the_time() -> None:
    async def main() -> None:
        world = World()
        chain = world.chain()
        await chain.refresh()
        start = chain.clock.elapsed_s()
        assert not await chain.grown(0, 2.0)
        assert 2.0 == pytest.approx(chain.clock.elapsed_s() - start)
        waiting = asyncio.ensure_future(chain.grown(0, 99.0))
        await sim_loop().sleep(0.001)
        await world.grow(1)
        await chain.step()
        assert await waiting
        assert await chain.grown(0, 0.0)
        assert chain.clock.elapsed_s() - start < 3

    simulate(main())


# -- memory -----------------------------------------------------------------------------------------------------


async def long_log(truth: MemoryStore, manifests: int, payload: int) -> None:
    data = b"x" * payload
    fold = Fold()
    fold.topic()
    await truth.put(keys.manifest_key(1), stored(fold.manifests[0]))
    for seq in range(2, manifests + 2):
        made = manifest(seq, Intent(id=f"id-{seq}", tip=seq - 1, appends=[chunk(obj="", pos=4_096, len=10)]))
        await truth.put(keys.manifest_key(seq), stored(made, data))


@pytest.mark.parametrize(
    ("bound", "parallel"),
    [(1, 1), (MANIFEST_BYTES_MAX, 1), (3 * MANIFEST_BYTES_MAX, 3), (1 << 40, CATCH_UP_PARALLEL_MAX)],
)
def test_manifests_in_flight_while_catching_up_are_bounded_by_the_setting(bound: int, parallel: int) -> None:
    async def main() -> None:
        truth = memory()
        await long_log(truth, 60, 200_000)
        store = Scripted(truth)
        store.always["get"] = slow(sim_loop(), 0.1)
        chain = World().chain(Options(catch_up_bytes_max=bound), store)
        await chain.refresh()
        assert 61 == chain.state.seq
        assert parallel == store.requests_peak
        assert store.bytes_peak <= max(bound, MANIFEST_BYTES_MAX)

    simulate(main())


def test_one_slow_manifest_holds_up_no_other_while_catching_up() -> None:
    """A gateway that starts over a store that refuses every tenth request: 1,500 manifests took a minute in rounds."""

    async def main() -> None:
        truth = memory()
        await long_log(truth, 400, 5_000)
        store = Scripted(truth)
        rng = random.Random(1)

        async def now_and_then(scripted: Scripted, act: object) -> object:
            await sim_loop().sleep(1.0 if rng.random() < 0.05 else 0.01)
            return await ok(scripted, act)  # type: ignore[arg-type]

        store.always["get"] = now_and_then  # type: ignore[assignment]
        chain = World().chain(Options(), store)
        await chain.refresh()
        assert 401 == chain.state.seq
        assert CATCH_UP_PARALLEL_MAX == store.requests_peak
        # A twentieth of 400 GETs take a second, by sixteen at once; in rounds of sixteen more than half would.
        assert chain.clock.elapsed_s() < 12

    simulate(main())


def test_catching_up_with_a_log_larger_than_the_bound_takes_bounded_memory() -> None:
    bound = 8 * 1024 * 1024

    async def main() -> int:
        truth = MemoryStore()
        await long_log(truth, 80, 999_000)
        options = Options(catch_up_bytes_max=bound)
        chain = Chain(Copying(truth), clock=SystemClock(), rng=random.Random(1), options=options)
        chain.inline.bytes_max = 1_000_000
        tracemalloc.start()
        try:
            await chain.refresh()
            assert 81 == chain.state.seq
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # Not in the simulation, which keeps finished tasks and their results for a while. Nothing here waits.
    assert asyncio.run(main()) < bound


class Copying:
    """A store whose every answer is a copy, as one from a network is."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.url, self.key_bytes_max = inner.url, inner.key_bytes_max
        self.list, self.put, self.delete, self.head = inner.list, inner.put, inner.delete, inner.head

    async def get(self, key: str, *, start: int = 0, end: int | None = None):  # type: ignore[no-untyped-def]
        blob = await self.inner.get(key, start=start, end=end)
        return type(blob)(data=bytes(bytearray(blob.data)), stat=blob.stat)


def test_listeners_hear_nothing_of_what_a_cold_start_folds() -> None:
    async def main() -> None:
        truth = memory()
        await long_log(truth, 100, 10_000)
        chain = World().chain(store=truth)
        heard: list[int] = []
        chain.listeners.append(lambda made, _: heard.append(made.seq))
        await chain.refresh()
        assert chain.state.seq >= 100
        assert [] == heard

    simulate(main())


def test_a_fold_that_broke_off_is_replaced_by_a_state_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        world = World()
        await world.grow(3)
        chain = world.chain()
        await chain.refresh()
        await world.grow(1)
        whole = chain_module.apply

        def broken(state: State, made: Manifest) -> list[Outcome]:
            state.seq, state.time_ms = made.seq, -1
            raise MemoryError

        monkeypatch.setattr(chain_module, "apply", broken)
        with pytest.raises(MemoryError):
            await chain.refresh()
        monkeypatch.setattr(chain_module, "apply", whole)
        await chain.refresh()
        assert 4 == chain.state.seq
        assert chain.state.time_ms >= 0
        world.same(chain)

    simulate(main())


# -- following ------------------------------------------------------------------------------------------------


def test_a_look_that_finds_a_manifest_does_not_ask_whether_it_is_the_last_one() -> None:
    async def main() -> None:
        world = World()
        chain = world.chain()
        await chain.refresh()
        await world.grow(1)
        world.store.calls.clear()
        await chain.follow(chain.state.seq)
        assert (1, True) == (world.store.calls["get"], chain.is_behind)
        world.same(chain)
        await chain.follow(chain.state.seq)
        assert (2, False) == (world.store.calls["get"], chain.is_behind)
        assert 0.0 == chain.age_s()

    simulate(main())


def test_who_follows_a_log_that_is_far_ahead_catches_up_as_a_refresh_does() -> None:
    async def main() -> None:
        world = World()
        chain = world.chain()
        await chain.refresh()
        await world.grow(100)
        for _ in range(chain_module.FOLLOWED_MAX + 1):
            await chain.follow(chain.state.seq)
        world.same(chain)
        assert not chain.is_behind

    simulate(main())


def test_all_who_follow_share_a_look_whatever_it_finds() -> None:
    async def main() -> None:
        world = World()
        chain = world.chain()
        await chain.refresh()
        for found in (0, 1):
            world.store.calls.clear()
            gate = Gate()
            world.store.will("get", gate)
            waiting = [asyncio.ensure_future(chain.follow(chain.state.seq)) for _ in range(50)]
            await sim_loop().sleep(0.001)
            await world.grow(found)
            gate.opened.set()
            await asyncio.gather(*waiting)
            assert (1, found == 1) == (world.store.calls["get"], chain.is_behind)

    simulate(main())


def test_a_look_of_a_follower_that_is_cancelled_or_fails_leaves_the_next_one_free_to_look() -> None:
    async def main() -> None:
        world = World()
        chain = world.chain(Options(store_retry_s=0.0))
        await chain.refresh()
        before, gate = world.store.calls["get"], Gate()
        world.store.will("get", gate)
        first = asyncio.ensure_future(chain.follow(0))
        await sim_loop().sleep(0.001)
        world.store.will("get", away)
        second, third = asyncio.ensure_future(chain.follow(0)), asyncio.ensure_future(chain.follow(0))
        await sim_loop().sleep(0.001)
        first.cancel()
        with pytest.raises(Unavailable):
            await second
        await third
        assert 2 == world.store.calls["get"] - before
        await world.grow(1)
        await chain.follow(0)
        world.same(chain)

    simulate(main())
