"""Whole worlds: a seed decides everything, clean seeds are clean, and every hazard that is planted is found."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from typing import Any

import pytest
from msgspec.structs import replace

from headwater.errors import AlreadyExists, HeadwaterError
from headwater.groups.leases import Leases
from headwater.log.chain import Chain
from headwater.log.committer import Committer
from headwater.log.following import Follower
from headwater.log.hedge import Hedge
from headwater.log.journal import Journal
from headwater.log.namespace import Namespace
from headwater.log.queue import Pending
from headwater.log.reader import Fetched, Reader
from headwater.log.state import Outcome, Partition, State
from headwater.log.turns import Turns
from headwater.log.writer import Writer
from headwater.sim.faults import Burst, Faults
from headwater.sim.loop import run, sim_loop
from headwater.sim.members import Crew
from headwater.sim.sweep import judge, sweep
from headwater.sim.world import Plan, World, simulate
from tests.sim.helpers_worlds import Plant, expect_notice, noticed


@pytest.mark.parametrize("seed", range(40))
def test_a_seed_keeps_every_promise(seed: int) -> None:
    assert [] == judge(seed)["violations"]


# Seeds that found a bug of the engine, and what it was.
REGRESSIONS = {
    1178: "a first join, long on its way, brought back a member that was expelled since, and told it that it owns",
    610: "a static member that came back while the leader assigned (classic protocol) got nothing",
    1602: "a reload that failed midway left the process with an empty state",
    2063: "a reload that failed midway left the process with a snapshot's old state",
    101719: "of two requests for one end the second was turned away, and the first came through (the actor's mistake)",
    5822: "a cold start called the history lost when the collector took a snapshot between LIST and GET",
}


@pytest.mark.parametrize("seed", REGRESSIONS, ids=[f"{seed}: {story}" for seed, story in REGRESSIONS.items()])
def test_what_a_seed_found_does_not_come_back(seed: int) -> None:
    assert [] == judge(seed)["violations"]


def test_the_same_seed_gives_the_same_history_twice() -> None:
    for seed in (3, 58, 1472):
        first, again = simulate(seed), simulate(seed)
        assert first.digest == again.digest
        assert first.events == again.events > 0


def test_different_seeds_give_different_worlds() -> None:
    assert 20 == len({simulate(seed).digest for seed in range(20)})


def test_a_sweep_reports_seeds_faults_and_speed() -> None:
    report = sweep(0, 12, jobs=1).as_dict()
    assert 12 == report["seeds"]
    assert 0 == report["violations"]
    assert report["histories_per_s"] > 0
    assert report["faults"]


def test_a_sweep_on_two_processes_finds_what_one_finds() -> None:
    alone, together = sweep(0, 24, jobs=1).as_dict(), sweep(0, 24, jobs=2).as_dict()
    for name in ("seeds", "events", "commits", "requests", "faults"):
        assert alone[name] == together[name]


def test_plans_cover_every_kind_of_trouble() -> None:
    plans = [Plan.draw(seed) for seed in range(200)]
    assert {True, False} == {plan.long_sleep for plan in plans}
    for name in ("crash_rate", "pause_rate", "skew_ms", "pipelines", "members", "reservers"):
        assert any(getattr(plan, name) for plan in plans)
        assert not all(getattr(plan, name) for plan in plans)
    crews = [Crew.draw(seed) for seed in range(200)]
    assert {0, 1, 2, 3, 5} == {crew.consumers for crew in crews}
    assert {0, 1} == {crew.janitors for crew in crews}
    assert {0, 1, 2, 3} == {crew.classics for crew in crews}
    assert {0, 2, 3, 4} == {crew.movers for crew in crews}


def test_a_machine_that_starts_late_knows_the_time_of_day() -> None:
    # Seed 1665: clocks of processes that started after days began at the beginning, so no deadline ever passed.
    async def main() -> None:
        world = World(Plan.draw(0), sim_loop())
        await world.loop.sleep(3 * 86_400.0)
        log = await world.handle(None, calm=True)
        assert abs(log.chain.clock.wall_ms() - world.bucket.wall_ms()) <= 2_000

    run(main())


# -- planted bugs: first the hazards of DESIGN, then those that seeds have found in this engine ---------


def _module(name: str) -> Any:
    return importlib.import_module(f"headwater.log.{name}")


def forget_intent_ids(patch: pytest.MonkeyPatch) -> None:
    """R3 off: an intent that two manifests name is applied twice."""
    fold = _module("state.fold")
    original = fold._decide

    def decide(state: Any, intent: Any, touched: Any) -> Outcome:
        state.recent.pop(intent.id, None)
        return original(state, intent, touched)

    patch.setattr(fold, "_decide", decide)


def ignore_lateness(patch: pytest.MonkeyPatch) -> None:
    """R4 off: an intent may be committed long after its id is forgotten."""
    fold = _module("state.fold")
    original = fold._decide

    def decide(state: Any, intent: Any, touched: Any) -> Outcome:
        return original(state, replace(intent, tip=state.seq - 1), touched)

    patch.setattr(fold, "_decide", decide)


def take_a_lost_answer_for_a_loss(patch: pytest.MonkeyPatch) -> None:
    """R2 off: whatever goes wrong with a PUT, the batch is sent again under a new identity."""
    original = Writer.commit

    async def commit(self: Writer, appends: Any = (), ops: Any = (), *, token: str = "", **who: Any) -> Outcome:
        try:
            return await original(self, appends, ops, **who)
        except HeadwaterError:
            return await original(self, appends, ops, **who)

    patch.setattr(Writer, "commit", commit)


def trust_old_knowledge(patch: pytest.MonkeyPatch) -> None:
    """R5 off: however long a process slept, it goes on from what it knew."""
    patch.setattr(Chain, "is_stale", lambda self: self._known_at is None)


def acknowledge_what_is_published(patch: pytest.MonkeyPatch) -> None:
    """Offsets are answered before the data is in the chain."""
    original = Committer._race

    async def race(self: Committer, pieces: Any, deadline_s: float, **how: Any) -> bool:
        for piece in pieces:
            pending = self.queue._unanswered.get(piece.intent.id)
            if pending is not None and piece.intent.appends and not pending.outcome.done():
                bases = [
                    found.next if (found := self.chain.state.partition(c.topic, c.partition)) else 0
                    for c in piece.intent.appends
                ]
                values = {"pid": 1, "epoch": 1, "topic": 1}
                pending.outcome.set_result(Outcome(self.chain.state.seq + 1, "", "", bases, values))
        return await original(self, pieces, deadline_s, **how)

    patch.setattr(Committer, "_race", race)


def never_fence(patch: pytest.MonkeyPatch) -> None:
    """An old epoch may go on writing."""

    def fence(state: Any, pid: int, epoch: int) -> Any:
        return state.producers[pid]

    for name in ("producers", "transactions", "appends"):
        patch.setattr(_module(f"state.{name}"), "fence", fence)


def let_zombie_members_commit(patch: pytest.MonkeyPatch) -> None:
    """A member of an old generation may move the group's offsets."""
    patch.setattr(_module("state.groups"), "_fence", lambda group, op: None)


def grant_what_is_not_released(patch: pytest.MonkeyPatch) -> None:
    """A partition goes to its new owner while the old one still holds it."""
    members = _module("state.members")
    original = members._revoked

    def revoked(state: Any, member: Any, group: Any) -> Any:
        return replace(original(state, member, group), revoking={}, revoking_ms=0)

    patch.setattr(members, "_revoked", revoked)


def grant_in_the_old_generation(patch: pytest.MonkeyPatch) -> None:
    """A new target does not begin a new generation."""
    members = _module("state.members")
    original = members._retarget

    def retarget(state: Any, group: Any) -> None:
        before = max(group.generation, 1)
        original(state, group)
        group.generation = before

    patch.setattr(members, "_retarget", retarget)


def believe_in_every_lease(patch: pytest.MonkeyPatch) -> None:
    """Nobody is ever expelled."""
    coordinator = importlib.import_module("headwater.groups.coordinator")
    patch.setattr(coordinator, "overdue", lambda member, lease, now_ms: "")


def forget_to_renew(patch: pytest.MonkeyPatch) -> None:
    """A lease is written once and never again."""

    original = Leases.renew

    async def renew(self: Leases, group: str, member: str, *, session_ms: int) -> None:
        if (group, member) not in self._seen:
            await original(self, group, member, session_ms=session_ms)

    patch.setattr(Leases, "renew", renew)


def watch_nobody(patch: pytest.MonkeyPatch) -> None:
    """The ring is broken: members look after nobody."""
    patch.setattr(importlib.import_module("headwater.groups.coordinator"), "_successor", lambda *args: None)


def answer_members_from_memory(patch: pytest.MonkeyPatch) -> None:
    """A heartbeat is answered from what the process knows, without a look at the tip."""

    async def refresh(self: Namespace) -> State:
        return self.chain.state

    patch.setattr(Namespace, "refresh", refresh)


def keep_the_assignments_of_the_last_generation(patch: pytest.MonkeyPatch) -> None:
    """A generation of the classic protocol begins with what members had, before its leader has assigned anything."""
    machine = _module("state.classic")
    original = machine._complete

    def complete(state: Any, group: Any) -> None:
        before = {name: member.assignment for name, member in group.members.items()}
        original(state, group)
        group.members = {name: replace(m, assignment=before[name]) for name, m in group.members.items()}
        if any(before.values()):
            group.phase = "stable"

    patch.setattr(machine, "_complete", complete)


def keep_the_offsets_of_a_refused_intent(patch: pytest.MonkeyPatch) -> None:
    """All or nothing off: what a refused intent did before its refusal stays."""
    patch.setattr(_module("state.change").Change, "roll_back", lambda self: None)


def read_past_reservations(patch: pytest.MonkeyPatch) -> None:
    """Readers do not stop at an open reservation and take its offsets for empty ones."""
    patch.setattr(Partition, "stable_end", property(lambda self: self.next), raising=False)


def skip_a_batch_that_begins_below_the_offset(patch: pytest.MonkeyPatch) -> None:
    """A fetch that starts in the middle of a batch misses the rest of it."""
    original = Reader._fetch_now

    async def fetch(self: Reader, topic: str, partition: int, offset: int, bytes_max: int, state: Any) -> Fetched:
        found = await original(self, topic, partition, offset, bytes_max, state)
        chunks = [chunk for chunk in found.chunks if chunk.base >= offset]
        return Fetched(
            chunks=chunks,
            next_offset=found.next_offset,
            log_start=found.log_start,
            high_watermark=found.high_watermark,
            stable_end=found.stable_end,
            commit=found.commit,
        )

    patch.setattr(Reader, "_fetch_now", fetch)


def answer_from_a_stale_state(patch: pytest.MonkeyPatch) -> None:
    """A reader does not make sure of the tip."""
    original = Reader.fetch

    async def fetch(self: Reader, *args: Any, **options: Any) -> Fetched:
        return await original(self, *args, **(options | {"fresh": False, "wait_ms": 0}))

    patch.setattr(Reader, "fetch", fetch)


def commit_before_the_bytes_are_stored(patch: pytest.MonkeyPatch) -> None:
    """I2 off: a manifest names a segment whose upload has only begun."""
    original = Writer._upload

    async def upload(self: Writer, pack: Any) -> None:
        if self.chain.rng.random() < 0.2 and pack.stored is not None:
            pack.stored.set_result(("segment/00000000000000000000-nobody-1", 256))
            return
        await original(self, pack)

    patch.setattr(Writer, "_upload", upload)


def delete_the_stray(patch: pytest.MonkeyPatch) -> None:
    """R5 as it was first written: a PUT that was answered behind the boundary is removed as a stray."""
    original = Journal._slept

    async def slept(self: Journal, seq: int) -> None:
        await self.chain.store.delete([_module("keys").manifest_key(seq)])
        await original(self, seq)

    patch.setattr(Journal, "_slept", slept)


def void_the_offsets_of_a_committed_transaction(patch: pytest.MonkeyPatch) -> None:
    """A transaction's records become visible, and its offsets do not move."""
    groups = _module("state.groups")
    original = groups.release

    def release(change: Any, name: str, pid: int, *, commit: bool) -> None:
        original(change, name, pid, commit=False)

    patch.setattr(groups, "release", release)


def move_the_offsets_of_an_aborted_transaction(patch: pytest.MonkeyPatch) -> None:
    """A transaction's offsets move although it was aborted."""
    groups = _module("state.groups")
    original = groups.release

    def release(change: Any, name: str, pid: int, *, commit: bool) -> None:
        original(change, name, pid, commit=True)

    patch.setattr(groups, "release", release)


def move_offsets_before_the_end(patch: pytest.MonkeyPatch) -> None:
    """A transaction's offsets move when they come."""
    groups = _module("state.groups")
    original = groups.reserve

    def reserve(change: Any, op: Any, pid: int) -> str:
        name: str = original(change, op, pid)
        groups.release(change, name, pid, commit=True)
        return name

    patch.setattr(groups, "reserve", reserve)


def keep_the_first_word_on_a_place(patch: pytest.MonkeyPatch) -> None:
    """What a transaction says again of the same place does not count."""
    groups = _module("state.groups")
    original = groups.reserve

    def reserve(change: Any, op: Any, pid: int) -> str:
        group = change.state.groups.get(op.group)
        if group is not None and group.pending.get(pid):
            return str(op.group)
        return str(original(change, op, pid))

    patch.setattr(groups, "reserve", reserve)


def forget_how_a_transaction_ended(patch: pytest.MonkeyPatch) -> None:
    """An end that is asked for again is a new one: its opposite is answered as if it had been done."""
    patch.setattr(_module("state.transactions"), "_is_repetition", lambda change, producer, how: False)


def let_late_requests_join_the_next_transaction(patch: pytest.MonkeyPatch) -> None:
    """An end or a move that comes late counts for whatever is open by then."""
    patch.setattr(_module("state.transactions"), "_check_after", lambda producer, after: None)


def commit_what_has_expired(patch: pytest.MonkeyPatch) -> None:
    """A transaction whose time is up is opened, though its producer is told that it is fenced."""
    transactions = _module("state.transactions")
    original = transactions._end

    def end(change: Any, producer: Any, *, commit: bool) -> None:
        late = producer.is_busy and change.state.time_ms >= producer.deadline_ms
        original(change, producer, commit=commit or late)

    patch.setattr(transactions, "_end", end)


def wait_for_no_classic_member(patch: pytest.MonkeyPatch) -> None:
    """A group that changes its protocol grants partitions at once, whatever its classic members still hold."""
    patch.setattr(_module("state.migration"), "is_open", lambda group: False)


def tell_classic_members_nothing_new(patch: pytest.MonkeyPatch) -> None:
    """A classic member in a consumer group is not sent to join again when it owns something else by now."""
    patch.setattr(_module("state.migration"), "knows_all", lambda member: True)


def take_what_a_hedge_finds_for_its_own(patch: pytest.MonkeyPatch) -> None:
    """A slot that is taken when a manifest is sent twice is believed to hold that manifest."""
    original = Hedge.send

    async def send(self: Hedge, request: Any) -> None:
        with contextlib.suppress(*[AlreadyExists] * (self.after_s > 0)):
            await original(self, request)

    patch.setattr(Hedge, "send", send)


def commit_segments_in_any_order(patch: pytest.MonkeyPatch) -> None:
    """R11 off: the fold takes a writer's intents in the order in which others happen to name them."""
    fold = _module("state.fold")
    original = fold._decide

    def decide(state: Any, intent: Any, touched: Any) -> Outcome:
        return original(state, replace(intent, after=""), touched)

    patch.setattr(fold, "_decide", decide)


def publish_without_an_order(patch: pytest.MonkeyPatch) -> None:
    """A segment does not say which intent it comes after."""
    patch.setattr(Follower, "_last_before", lambda self, segment: "")


PLANTS: dict[Plant, int] = {
    forget_intent_ids: 60,
    ignore_lateness: 100,
    take_a_lost_answer_for_a_loss: 60,
    trust_old_knowledge: 60,
    acknowledge_what_is_published: 60,
    never_fence: 60,
    let_zombie_members_commit: 60,
    grant_what_is_not_released: 60,
    grant_in_the_old_generation: 60,
    believe_in_every_lease: 60,
    forget_to_renew: 60,
    watch_nobody: 120,
    answer_members_from_memory: 60,
    keep_the_assignments_of_the_last_generation: 60,
    keep_the_offsets_of_a_refused_intent: 100,
    read_past_reservations: 60,
    skip_a_batch_that_begins_below_the_offset: 60,
    answer_from_a_stale_state: 60,
    commit_before_the_bytes_are_stored: 60,
    delete_the_stray: 100,
    void_the_offsets_of_a_committed_transaction: 60,
    move_the_offsets_of_an_aborted_transaction: 60,
    move_offsets_before_the_end: 60,
    keep_the_first_word_on_a_place: 60,
    forget_how_a_transaction_ended: 60,
    let_late_requests_join_the_next_transaction: 60,
    commit_what_has_expired: 60,
    wait_for_no_classic_member: 60,
    tell_classic_members_nothing_new: 60,
    take_what_a_hedge_finds_for_its_own: 60,
    commit_segments_in_any_order: 60,
    publish_without_an_order: 60,
}


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    expect_notice("engine", plant, range(PLANTS[plant]), monkeypatch)


def test_a_hedge_that_believes_the_first_of_its_sendings_that_fails_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rare: all other sendings must be turned away, this one land behind the deadline, and the slot be free until then.

    So these worlds hedge what takes longer than 5 ms, are busy for 1.5 of 2.5 seconds, have many requests that are late
    by less than a second, and a deadline that comes before: one in ten notices.
    """
    draw = Plan.draw
    busy = tuple(Burst(start_s=at_s, end_s=at_s + 1.5, share=0.5) for at_s in (3.0, 5.5, 8.0, 10.5, 13.0, 15.5))
    faults = Faults(late=0.4, timeout_s=0.6, late_s=(0.02, 0.5), bursts=busy, until_s=16.0)

    def hedged(seed: int) -> Plan:
        plan = draw(seed)
        options = dataclasses.replace(plan.options, hedge_ms=5.0, commit_timeout_s=0.2)
        return dataclasses.replace(plan, faults=faults, options=options, active_s=16.0)

    monkeypatch.setattr(Plan, "draw", hedged)
    assert [] == [found for seed in range(60) for found in judge(seed)["violations"]]
    monkeypatch.setattr(_module("hedge"), "_tells", lambda task: True)
    assert any("failed-visible" in noticed("engine", seed) for seed in range(60))


def test_who_publishes_before_it_has_caught_up_keeps_every_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two follows of a thousand are so far behind; here whoever finds one manifest more believes that it is."""
    follow, behind = Follower.follow, 0

    async def counted(self: Follower, group: list[Pending], deadline_s: float, *, is_behind: bool = False) -> None:
        nonlocal behind
        behind += is_behind
        await follow(self, group, deadline_s, is_behind=is_behind)

    monkeypatch.setattr(Follower, "follow", counted)
    monkeypatch.setattr(Turns, "looks_first", lambda self, age_s: self._cooperative and bool(self._others))
    monkeypatch.setattr(Turns, "is_outrun", lambda self, ahead, age_s: True)
    assert [] == [found for seed in range(30) for found in judge(seed)["violations"]]
    assert behind > 300


def test_processes_that_take_turns_keep_every_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """These processes mostly have one thing to send at a time; here that is enough to take turns."""
    wait, waited = Committer._await_turn, 0

    async def counted(self: Committer) -> None:
        nonlocal waited
        waited += self.turns.rotates
        await wait(self)

    monkeypatch.setattr(Committer, "_await_turn", counted)
    monkeypatch.setattr(_module("rotation"), "BUSY_INTENTS", 1)
    assert [] == [found for seed in range(30) for found in judge(seed)["violations"]]
    assert waited > 300


def test_a_join_that_brings_back_who_left_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rare: of two thousand seeds one found it, so these worlds are like that one: five consumers and long sleeps."""
    plan, crew = Plan.draw(1178), dataclasses.replace(Crew.draw(1178), movers=0)  # there were none yet, …
    plan = dataclasses.replace(plan, options=dataclasses.replace(plan.options, hedge_ms=0.0))  # … nor hedges
    monkeypatch.setattr(Plan, "draw", lambda seed: dataclasses.replace(plan, seed=seed))
    monkeypatch.setattr(Crew, "draw", lambda seed: crew)
    monkeypatch.setattr(_module("state.members"), "check_not_departed", lambda change, name, member, as_of: None)
    for seed in range(500, 900):
        found = judge(seed)["violations"]
        if found:
            assert {"two-owners"} == {each["kind"] for each in found}
            return
    pytest.fail("400 seeds did not notice a member that had left and was back")
