"""Worlds in which a group shares records: they keep the promises, are deterministic, and notice planted bugs."""

from __future__ import annotations

from typing import Any

import pytest

from headwater.groups import share_partition, shares
from headwater.groups.share_partition import SharePartition, State
from headwater.groups.shares import Shares
from headwater.log.state import fold
from headwater.log.state import shares as state_of
from headwater.log.state.model import Span
from headwater.sim import shares as world
from headwater.sim.sweep import judge
from tests.sim.helpers_worlds import Plant, expect_notice, missing, played

SEEDS = range(4, 8)
DEEDS = ("delivered", "delivered again", "accepted", "rejected", "released", "renewed", "released all", "closed")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_world_keeps_its_promises(seed: int) -> None:
    assert [] == played("shares", seed)["violations"]


def test_a_few_worlds_have_seen_everything() -> None:
    assert set() == missing("shares", SEEDS, DEEDS)


def test_a_seed_is_the_same_world_twice() -> None:
    assert played("shares", 1) == judge(1, "shares")


@pytest.mark.parametrize("seed", [139, 172, 594, 630])
def test_what_worlds_have_found_stays_mended(seed: int) -> None:
    # 139: two claims at once look at one process's lease. 172: a claim is heard of after others have freed it.
    # 594 and 630: a claim that took nothing has the number of another's that did.
    assert [] == played("shares", seed)["violations"]


# -- plants ------------------------------------------------------------------------------------------------


def answer_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """A gateway says that a record is accepted, and tells the log later, if it lives."""

    async def soon(self: Any, work: Any) -> Any:
        import asyncio

        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    original = Shares._whatever_becomes_of_the_caller

    async def whatever(self: Any, work: Any) -> Any:
        if work.__name__ == "_settle":
            return await soon(self, work)
        return await original(self, work)

    patch.setattr(Shares, "_whatever_becomes_of_the_caller", whatever)


def trust_a_lease_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A process that was frozen goes on as if nobody had taken it for dead."""
    patch.setattr(Shares, "is_leased", property(lambda self: self._leased_s > float("-inf")))


def hand_out_what_was_freed(patch: pytest.MonkeyPatch) -> None:
    """A claim that was heard of late is handed out, although its process was asleep and taken for dead."""

    def lapse(self: Any) -> None:
        self._held.clear()

    patch.setattr(Shares, "_lapse", lapse)


def take_the_living_for_dead(patch: pytest.MonkeyPatch) -> None:
    """Claims are freed of processes whose leases are good."""
    patch.setattr(shares, "SHARE_LEASE_MS", 3_000)
    patch.setattr(Shares, "is_leased", property(lambda self: 0 <= self._now_s() - self._leased_s < 12.0), raising=True)


def claim_what_is_claimed(patch: pytest.MonkeyPatch) -> None:
    """A claim takes what another one holds."""
    patch.setattr(Span, "is_free", property(lambda self: self.count >= 0))


def deliver_without_a_limit(patch: pytest.MonkeyPatch) -> None:
    """A record is delivered as often as it is released."""
    original = SharePartition._leaves
    patch.setattr(SharePartition, "_leaves", staticmethod(lambda parting, again, _: original(parting, again, 99)))


def hand_out_what_leaves(patch: pytest.MonkeyPatch) -> None:
    """A lock's time is up while its record's acknowledgement is on its way, and the record is handed out again."""
    original = SharePartition.expire

    def expire(self: Any, now_s: float, *, limit: int) -> bool:
        self._runs = [
            share_partition.replace(run, state=State.ACQUIRED, until_s=0.0) if run.state is State.LEAVING else run
            for run in self._runs
        ]
        return original(self, now_s, limit=limit)

    patch.setattr(SharePartition, "expire", expire)


def forget_the_dead(patch: pytest.MonkeyPatch) -> None:
    """What a dead process held is nobody's for ever."""

    async def dead(*_: Any) -> dict[str, list[int]]:
        return {}

    patch.setattr(Shares, "_dead", dead)


def free_what_is_done(patch: pytest.MonkeyPatch) -> None:
    """Giving records back brings back those that are done."""

    def free(change: Any, op: Any) -> None:
        share = state_of._share(change, op.group, op.topic, op.partition)
        spans = [Span(span.base, span.end, 0) for span in share.spans]
        state_of._keep(change, share, spans, share.next)

    patch.setitem(fold._OPERATIONS, state_of.FreeShare, free)


PLANTS: dict[Plant, range] = {  # from where a world was seen to notice, since each costs half a second
    answer_before_the_commit: range(6, 60),
    trust_a_lease_for_ever: range(16, 60),
    hand_out_what_was_freed: range(15, 75),
    take_the_living_for_dead: range(17, 60),
    claim_what_is_claimed: range(10),
    deliver_without_a_limit: range(1, 10),
    hand_out_what_leaves: range(1, 30),
    forget_the_dead: range(30),
    free_what_is_done: range(60),
}


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_noticed(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    if plant is hand_out_what_was_freed:
        monkeypatch.setattr(world, "DROWSY_RATE", 1.0)
    expect_notice("shares", plant, PLANTS[plant], monkeypatch)


@pytest.mark.parametrize("seed", [15, 38])
def test_a_world_of_drowsy_processes_keeps_its_promises(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "DROWSY_RATE", 1.0)
    verdict = judge(seed, "shares")
    assert [] == verdict["violations"]
    assert verdict["deeds"]["naps"]
