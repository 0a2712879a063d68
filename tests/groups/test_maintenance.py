"""What a sweep takes away, and what it leaves alone."""

from __future__ import annotations

import asyncio

from headwater.groups.classic import join_classic
from headwater.groups.maintenance import SweepReport
from headwater.limits import LEASE_ORPHAN_MS, OFFSETS_RETENTION_MS
from tests.groups.helpers_members import Life, Place, alive, end, shares
from tests.log.helpers import simulate


def test_a_sweep_over_a_healthy_group_does_nothing() -> None:
    async def main() -> None:
        place = Place()
        log = await place.topics(t=2)
        await log.commit_offsets("idle", {("t", 0): 1})
        lives = await alive(place, 2)
        sweeper = await place.process()
        manifests, before = place.manifests(), place.counts(sweeper)
        assert SweepReport() == await sweeper.sweep()
        spent = place.counts(sweeper) - before
        assert (0, 0, 2, 1, 0) == (spent.put, spent.put_conditional, spent.get, spent.list, spent.head)
        assert manifests == place.manifests()
        await end(*lives)

    simulate(main())


def test_members_without_a_lease_are_expelled_from_all_groups() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        lives = await alive(place, 2)
        others = [Life(await place.process(), f"x{n}", group="h").start() for n in range(2)]
        await place.loop.sleep(60.0)
        await end(*lives, others[0])
        await place.loop.sleep(60.0)
        report = await (await place.process()).sweep()
        assert (("g", "m0"), ("g", "m1")) == report.expelled, "of h, the survivor took care"
        assert 2 == shares(others[1])[0]
        assert SweepReport() == await (await place.process()).sweep()
        await others[1].kill()

    simulate(main())


def test_sweeps_at_the_same_time_make_one_decision() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        lives = await alive(place, 3)
        await end(*lives)
        await place.loop.sleep(60.0)
        sweepers = [await place.process() for _ in range(3)]
        reports = await asyncio.gather(*(sweeper.sweep() for sweeper in sweepers))
        assert [("g", "m0"), ("g", "m1"), ("g", "m2")] == sorted(pair for r in reports for pair in r.expelled)

    simulate(main())


def test_leases_of_nobody_go_when_they_are_older_than_any_session() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=2)
        (one,) = await alive(place, 1)
        stranger = await place.process()
        await stranger.leases.renew("g", "never joined", session_ms=45_000)
        await place.loop.sleep(LEASE_ORPHAN_MS / 1_000)
        assert 0 == (await stranger.sweep()).leases_dropped
        await place.loop.sleep(1.0)
        assert 1 == (await stranger.sweep()).leases_dropped
        assert ["ns/lease/g/m0"] == place.leases()
        await one.kill()

    simulate(main())


def test_offsets_of_groups_without_members_go_after_a_week() -> None:
    async def main() -> None:
        place = Place()
        log = await place.topics(t=2, gone=1)
        await log.commit_offsets("old", {("t", 0): 1, ("gone", 0): 1})
        sweeper = await place.process()
        await place.loop.sleep(OFFSETS_RETENTION_MS / 1_000 / 2)
        await log.commit_offsets("old", {("t", 1): 2})
        await log.delete_topic("gone")
        assert ("old",) == (await sweeper.sweep()).expired, "offsets of a deleted topic go at once"
        await place.loop.sleep(OFFSETS_RETENTION_MS / 1_000 / 2 + 1.0)
        assert ("old",) == (await sweeper.sweep()).expired
        assert {("t", 1): 2} == {tp: known.offset for tp, known in (await log.committed("old")).items()}
        assert () == (await sweeper.sweep()).expired
        await place.loop.sleep(OFFSETS_RETENTION_MS / 1_000)
        assert ("old",) == (await sweeper.sweep()).expired
        assert "old" not in (await log.refresh()).groups

    simulate(main(), limit_s=40 * 86_400.0)


def test_offsets_of_a_group_with_members_stay() -> None:
    async def main() -> None:
        place = Place()
        log = await place.topics(t=1)
        life = Life(await place.process(), "a").start()
        await place.loop.sleep(1.0)
        await log.commit_offsets("g", {("t", 0): 1}, generation=1, member="a")
        await place.loop.sleep(7_200.0)
        assert () == (await (await place.process()).sweep(idle_ms=3_600_000)).expired
        await life.kill()

    simulate(main())


def test_a_join_phase_that_everybody_has_left_alone_is_ended() -> None:
    async def main() -> None:
        place = Place()
        await place.topics(t=1)
        lost = asyncio.ensure_future(
            join_classic(
                await place.process(),
                "g",
                "a",
                protocol_type="consumer",
                protocols=[("range", b"")],
                delay_ms=5_000,
            )
        )
        await place.loop.sleep(1.0)
        lost.cancel()
        sweeper = await place.process()
        assert () == (await sweeper.sweep()).ended
        await place.loop.sleep(5.0)
        assert ("g",) == (await sweeper.sweep()).ended
        assert "completing" == sweeper.namespace.state.groups["g"].phase
        await place.loop.sleep(60.0)
        assert (("g", "a"),) == (await sweeper.sweep()).expelled
        assert "empty" == sweeper.namespace.state.groups["g"].phase

    simulate(main())
