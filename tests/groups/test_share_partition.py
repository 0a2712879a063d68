"""The locks of a share-partition against a plain model that knows each record by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.groups.share_partition import (
    ACCEPT,
    GAP,
    REJECT,
    RELEASE,
    RENEW,
    Acquired,
    NotAcquired,
    Parting,
    Said,
    SharePartition,
    State,
)
from headwater.log.operations_shares import ShareMark

LIMIT, LOCK_S, OFFSETS = 3, 10.0, 24


@dataclass
class Record:
    """One record, in plain words."""

    claim: int
    count: int
    state: str = "available"
    member: str = ""
    until_s: float = 0.0
    turn: int = 0  # of a leaving one: by which parting, …
    again: bool = False  # … and whether it comes back


@dataclass
class Model:
    """Each record by itself."""

    records: dict[int, Record] = field(default_factory=dict)

    def held(self, member: str, offset: int) -> bool:
        known = self.records.get(offset)
        return known is not None and known.state == "acquired" and known.member == member

    def acquire(self, member: str, base: int, end: int, until_s: float) -> list[tuple[int, int]]:
        found = []
        for offset in range(base, end):
            known = self.records.get(offset)
            if known is not None and known.state == "available":
                known.count += 1
                known.state, known.member, known.until_s = "acquired", member, until_s
                found.append((offset, known.count))
        return found

    def acknowledge(self, said: list[Said], until_s: float, turn: int) -> None:
        for each in said:
            for offset in range(each.base, each.end):
                known = self.records[offset]
                if each.type == RENEW:
                    known.until_s = until_s
                else:
                    known.state, known.turn = "leaving", turn
                    known.again = each.type == RELEASE and known.count < LIMIT

    def expire(self, now_s: float) -> None:
        for known in self.records.values():
            if known.state == "acquired" and known.until_s <= now_s:
                known.state = "spent" if known.count >= LIMIT else "available"

    def release(self, member: str) -> None:
        for known in self.records.values():
            if known.state == "acquired" and known.member == member:
                known.state, known.count = "available", known.count - 1

    def leave(self, state: str, turn: int) -> None:
        for known in self.records.values():
            if known.state == state:
                known.state, known.turn, known.again = "leaving", turn, False

    def confirm(self, parting: Parting) -> None:
        for offset, known in list(self.records.items()):
            if known.state == "leaving" and known.turn == parting.turn:
                if known.again:
                    known.state = "available"
                else:
                    del self.records[offset]

    def seen(self) -> dict[int, tuple[str, int, int]]:
        return {offset: (r.state, r.count, r.claim) for offset, r in sorted(self.records.items())}


def seen(machine: SharePartition) -> dict[int, tuple[str, int, int]]:
    runs = machine.runs
    assert all(left.end <= right.base for left, right in pairwise(runs)), "runs do not overlap"
    assert all(run.base < run.end for run in runs)
    return {o: (run.state.value, run.count, run.claim) for run in runs for o in range(run.base, run.end)}


ranges = st.tuples(st.integers(0, OFFSETS - 1), st.integers(1, 8)).map(lambda r: (r[0], min(r[0] + r[1], OFFSETS)))
members = st.sampled_from("ab")
steps = st.one_of(
    st.tuples(st.just("acquire"), members, ranges),
    st.tuples(st.just("say"), members, st.lists(st.tuples(ranges, st.integers(0, 4)), min_size=1, max_size=3)),
    st.tuples(st.just("wait"), st.floats(0, 8)),
    st.tuples(st.just("release"), members),
    st.tuples(st.just("spend"), ranges),
    st.tuples(st.just("unsaid")),
    st.tuples(st.just("spare")),
    st.tuples(st.just("confirm"), st.integers(0, 9)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=40))
def test_runs_of_records_stand_as_each_record_by_itself_does(taken: list[tuple]) -> None:  # type: ignore[type-arg]
    machine, model, now_s = SharePartition(), Model(), 0.0
    for base, end, claim in ((0, 9, 1), (9, 14, 2), (17, OFFSETS, 3)):
        machine.gain(base, end, count=0, claim=claim)
        model.records |= {offset: Record(claim, 0) for offset in range(base, end)}
    waiting: list[Parting] = []
    for step in taken:
        match step:
            case ("acquire", member, (base, end)):
                got = machine.acquire(member, base, end, until_s=now_s + LOCK_S)
                each = [(offset, run.count) for run in got for offset in range(run.base, run.end)]
                assert model.acquire(member, base, end, now_s + LOCK_S) == each
            case ("say", member, words):
                said = [Said(base, end, kind) for (base, end), kind in words]
                offsets = [offset for each in said for offset in range(each.base, each.end)]
                lawful = len(set(offsets)) == len(offsets) and all(model.held(member, o) for o in offsets)
                before = seen(machine)
                try:
                    parting = machine.acknowledge(member, said, until_s=now_s + LOCK_S, limit=LIMIT)
                except NotAcquired:
                    assert not lawful
                    assert before == seen(machine)
                    continue
                assert lawful
                model.acknowledge(said, now_s + LOCK_S, parting.turn)
                waiting.append(parting)
            case ("wait", seconds):
                now_s += seconds
                machine.expire(now_s, limit=LIMIT)
                model.expire(now_s)
            case ("release", member):
                machine.release(member)
                model.release(member)
            case ("spend", (base, end)):
                machine.spend(base, end)
                for offset in range(base, end):
                    if offset in model.records and model.records[offset].state == "available":
                        model.records[offset].state = "spent"
            case ("unsaid",):
                waiting.append(machine.unsaid())
                model.leave("spent", waiting[-1].turn)
            case ("spare",):
                waiting.append(machine.spare())
                model.leave("available", waiting[-1].turn)
            case ("confirm", which):
                # The log's answers come in the order in which they were asked for, or not.
                if waiting:
                    parting = waiting.pop(which % len(waiting))
                    model.confirm(parting)
                    machine.confirm(parting)
        assert model.seen() == seen(machine)
        assert all(count <= LIMIT for _, count, _ in seen(machine).values())
        first = next((o for o, (state, _, _) in seen(machine).items() if state == "available"), None)
        run = machine.available()
        assert first == (run.base if run else None)


def held(count: int = 0) -> SharePartition:
    machine = SharePartition()
    machine.gain(0, 10, count=count, claim=7)
    return machine


def test_an_accepted_record_is_nobodys_until_the_log_knows_and_gone_afterwards() -> None:
    machine = held()
    assert [Acquired(0, 4, 1)] == machine.acquire("a", 0, 4, until_s=1.0)
    parting = machine.acknowledge("a", [Said(0, 2, ACCEPT), Said(2, 3, REJECT), Said(3, 4, GAP)], until_s=9, limit=5)
    assert [ShareMark(0, 4, 7, -1)] == parting.marks
    machine.expire(5.0, limit=5)
    assert [Acquired(4, 10, 1)] == machine.acquire("b", 0, 10, until_s=9.0)
    with pytest.raises(NotAcquired):
        machine.acknowledge("a", [Said(0, 1, ACCEPT)], until_s=9, limit=5)
    machine.confirm(parting)
    assert [(4, 10)] == [(run.base, run.end) for run in machine.runs]


def test_a_released_record_comes_again_and_the_last_time_it_does_not() -> None:
    machine = held(count=3)
    machine.acquire("a", 0, 1, until_s=1.0)
    parting = machine.acknowledge("a", [Said(0, 1, RELEASE)], until_s=9, limit=5)
    assert [ShareMark(0, 1, 7, 4)] == parting.marks
    machine.confirm(parting)
    assert [Acquired(0, 1, 5)] == machine.acquire("b", 0, 1, until_s=1.0)
    assert [ShareMark(0, 1, 7, -1)] == machine.acknowledge("b", [Said(0, 1, RELEASE)], until_s=9, limit=5).marks


def test_a_lock_is_over_at_its_time_and_a_renewed_one_later() -> None:
    machine = held()
    machine.acquire("a", 0, 2, until_s=10.0)
    assert [] == machine.acknowledge("a", [Said(1, 2, RENEW)], until_s=20.0, limit=5).marks
    assert not machine.expire(9.9, limit=5)
    assert machine.expire(10.0, limit=5)
    assert [State.AVAILABLE, State.ACQUIRED] == [run.state for run in machine.runs][:2]
    assert [ShareMark(0, 1, 7, 1)] == machine.unsaid().marks


def test_what_a_closed_session_held_was_not_delivered() -> None:
    machine = held(count=4)
    machine.acquire("a", 0, 10, until_s=10.0)
    machine.release("a")
    assert [Acquired(0, 10, 5)] == machine.acquire("b", 0, 10, until_s=1.0)


def test_a_count_that_is_stored_late_does_not_bring_back_what_was_accepted_meanwhile() -> None:
    machine = held()
    machine.acquire("a", 0, 1, until_s=1.0)
    machine.expire(1.0, limit=5)
    late = machine.unsaid()
    machine.acquire("a", 0, 1, until_s=5.0)
    accepted = machine.acknowledge("a", [Said(0, 1, ACCEPT)], until_s=5.0, limit=5)
    machine.confirm(late)
    assert State.LEAVING is machine.runs[0].state
    machine.confirm(accepted)
    assert [(1, 10)] == [(run.base, run.end) for run in machine.runs]
