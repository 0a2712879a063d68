"""What upkeep of a namespace costs in which nothing happens."""

from __future__ import annotations

import random

from headwater.api.upkeep import keep_up
from headwater.log import keys
from headwater.log.namespace import Namespace
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.memory import MemoryStore
from headwater.store.metered import Counts, MeteredStore
from headwater.store.prefixed import PrefixedStore
from headwater.upkeep import idle
from headwater.upkeep.offload import inline
from tests.log.helpers import blob, simulate

HOUR_S = 3_600.0


def clock() -> SimClock:
    return SimClock(sim_loop(), start_ms=1_000_000_000_000)


async def opened(store: MeteredStore) -> Namespace:
    log = await Namespace.open(store, clock=clock(), rng=random.Random(1))
    await log.create_topic("t", config={"archive.enable": "false"})
    await log.append("t", 0, blob(3))
    return log


def gets(count: int) -> Counts:
    """Nothing but so many GETs, whatever they brought."""
    return Counts(get=count)


def without_bytes(counts: Counts) -> Counts:
    counts.bytes_in = counts.bytes_out = 0
    return counts


def test_a_namespace_that_rests_costs_a_run_one_get() -> None:
    async def main() -> None:
        store = MeteredStore(MemoryStore(clock=clock()))
        log = await opened(store)
        await keep_up(log, offload=inline)
        for _ in range(20):
            before = store.counts.copy()
            report = await keep_up(log, offload=inline)
            if report.rested:
                assert gets(1) == without_bytes(store.counts - before)
            await log.chain.clock.sleep(60)
        assert report.rested

    simulate(main())


def test_a_commit_ends_the_rest() -> None:
    async def main() -> None:
        store = MeteredStore(MemoryStore(clock=clock()))
        log = await opened(store)
        await keep_up(log, offload=inline)
        assert (await keep_up(log, offload=inline)).rested
        await log.append("t", 0, blob(1))
        assert not (await keep_up(log, offload=inline)).rested

    simulate(main())


def test_it_looks_again_before_half_a_day_is_over() -> None:
    async def main() -> None:
        store = MeteredStore(MemoryStore(clock=clock()))
        log = await opened(store)
        await keep_up(log, offload=inline)
        await log.chain.clock.sleep(13 * HOUR_S)
        assert not (await keep_up(log, offload=inline)).rested

    simulate(main(), limit_s=1_000 * HOUR_S)


def test_a_process_that_begins_cold_reads_the_hint_and_one_slot() -> None:
    async def main() -> None:
        inner = MemoryStore(clock=clock())
        log = await opened(MeteredStore(inner))
        view = PrefixedStore(inner, "default/")
        assert not await idle.rests(view, clock())  # nobody has said so yet
        for _ in range(3):  # what is due goes first; then a run finds nothing and says so
            log.shared(idle.Memory).until_ms = 0
            await keep_up(log, offload=inline)
        metered = MeteredStore(inner)
        assert await idle.rests(PrefixedStore(metered, "default/"), clock())
        assert gets(2) == without_bytes(metered.counts)
        await log.append("t", 0, blob(1))
        assert not await idle.rests(view, clock())

    simulate(main())


def test_a_hint_that_is_old_or_damaged_is_not_believed() -> None:
    async def main() -> None:
        inner = MemoryStore(clock=clock())
        log = await opened(MeteredStore(inner))
        memory = log.shared(idle.Memory)
        far = log.chain.clock.wall_ms() + 48 * 3_600_000
        await memory.note(far, idle=True)
        view = PrefixedStore(inner, "default/")
        assert await idle.rests(view, clock())
        later = SimClock(sim_loop(), start_ms=1_000_000_000_000 + 12 * 3_600_000)
        assert not await idle.rests(view, later)
        await view.put(keys.MAINTAINED, b"{}")
        assert not await idle.rests(view, clock())

    simulate(main())
