"""Share groups in the fold, against a naive one that knows each offset by itself."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.groups.describe import lag
from headwater.limits import MEMBERS_MAX
from headwater.log import operations as ops
from headwater.log import operations_shares as share_ops
from headwater.log import snapshot
from headwater.log.state import Share, State, shares
from headwater.log.state.model import Member
from tests.log.helpers import Fold, chunk

GROUP = "q"


def fold(*partitions: int, kept: int = 0) -> Fold:
    """A topic with so many records in each partition, and a share group with one member."""
    made = Fold()
    made.done(ops.CreateTopic(name="t", partitions=max(len(partitions), 1)))
    for number, count in enumerate(partitions):
        if count:
            made.done(chunk(1, number, count))
    made.done(share_ops.JoinShare(group=GROUP, member="m", topics=["t"]))
    if kept:
        made.done(ops.TrimLog(topic=1, partition=0, before=kept))
    return made


def claim(holder: str = "a", records: int = 10, *, locks: int = 100, start: int = 0) -> share_ops.ClaimShare:
    return share_ops.ClaimShare(
        group=GROUP, topic=1, partition=0, holder=holder, records=records, locks=locks, start=start
    )


def settle(holder: str, *marks: tuple[Any, ...]) -> share_ops.SettleShare:
    return share_ops.SettleShare(
        group=GROUP, topic=1, partition=0, holder=holder, marks=[share_ops.ShareMark(*mark) for mark in marks]
    )


def free(holder: str, *claims: int) -> share_ops.FreeShare:
    return share_ops.FreeShare(group=GROUP, topic=1, partition=0, holder=holder, claims=list(claims))


def share(state: State) -> Share:
    return state.groups[GROUP].shares[1][0]


def spans(state: State) -> list[tuple[int, int, int, int]]:
    return [(span.base, span.end, span.count, span.claim) for span in share(state).spans]


# -- records -----------------------------------------------------------------------------------------------


@dataclass
class Plain:
    """Each offset by itself: (count, claim), or None when it is done."""

    end: int
    floor: int = 0
    start: int | None = None
    next: int = 0
    offsets: dict[int, tuple[int, int] | None] = field(default_factory=dict)
    holders: dict[int, str] = field(default_factory=dict)

    def claim(self, holder: str, records: int, locks: int, start: int, number: int) -> int:
        if self.start is None:
            self.start = self.next = start
        for offset in range(self.start, max(self.floor, self.start)):
            if not (self.offsets.get(offset) or (0, 0))[1]:
                self.offsets[offset] = None
        self.next = max(self.next, self.floor)
        taken = [o for o in sorted(self.offsets) if (known := self.offsets[o]) and not known[1]][:records]
        room = locks - sum(known is not None for known in self.offsets.values())
        fresh = max(min(records - len(taken), room, self.end - self.next), 0)
        for offset in taken:
            self.offsets[offset] = ((self.offsets[offset] or (0, 0))[0], number)
        for offset in range(self.next, self.next + fresh):
            self.offsets[offset] = (0, number)
        self.next += fresh
        self.holders[number] = holder
        self._move()
        return len(taken) + fresh

    def settle(self, holder: str, marks: list[tuple[int, int, int, int, bool]]) -> bool:
        if self.start is None:
            return False
        after = dict(self.offsets)
        for base, end, number, count, back in marks:
            for offset in range(base, end):
                known = after.get(offset)
                if known is None or known[1] != number or self.holders.get(number) != holder:
                    return False
                after[offset] = None if count < 0 else (max(count, known[0]), 0 if back else number)
        self.offsets = after
        self._move()
        return True

    def free(self, holder: str, numbers: list[int]) -> None:
        for offset, known in self.offsets.items():
            if known and known[1] in numbers and self.holders[known[1]] == holder:
                self.offsets[offset] = (known[0], 0)

    def _move(self) -> None:
        assert self.start is not None
        while self.start < self.next and self.offsets[self.start] is None:
            del self.offsets[self.start]
            self.start += 1

    def seen(self) -> tuple[int | None, int, list[tuple[int, int, int]]]:
        rows = [(o, *(known or (-1, 0))) for o, known in sorted(self.offsets.items())]
        return self.start, self.next, rows


def seen(state: State) -> tuple[int | None, int, list[tuple[int, int, int]]]:
    known = state.groups[GROUP].shares.get(1, {}).get(0)
    if known is None:
        return None, 0, []
    rows = [(o, span.count, span.claim) for span in known.spans for o in range(span.base, span.end)]
    assert [o for o, _, _ in rows] == list(range(known.start, known.next)), "spans meet end to end"
    assert not known.spans or not known.spans[0].is_done
    assert {span.claim for span in known.spans} - {0} == set(known.holders)
    return known.start, known.next, rows


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_spans_stand_as_each_offset_by_itself_does_and_refusals_change_nothing(seed: int) -> None:
    rng = random.Random(seed)
    made, plain = fold(rng.randint(1, 30)), Plain(0)
    plain.end = made.state.topics[1].partitions[0].next
    issued: list[int] = [1]
    for _ in range(40):
        holder, before = rng.choice("ab"), msgspec.json.encode(made.state.groups)
        match rng.choice(["claim", "claim", "settle", "settle", "settle", "free", "append", "trim"]):
            case "claim":
                records, locks = rng.randint(1, 12), rng.choice([5, 100])
                outcome = made.do(claim(holder, records, locks=locks, start=2))
                number = outcome.values["claim"]
                assert plain.claim(holder, records, locks, 2, number) == outcome.values["records"]
                assert number not in issued or not outcome.values["records"]
                issued += [number] * bool(outcome.values["records"])
            case "settle":
                known = made.state.groups[GROUP].shares.get(1, {}).get(0)
                held = [span for span in known.spans if span.claim] if known else []
                marks = []
                for span in rng.sample(held, min(len(held), rng.randint(0, 2))):
                    base = rng.randint(span.base, span.end - 1)
                    end = rng.randint(base + 1, span.end + rng.choice([0, 0, 0, 2]))
                    marks.append((base, end, span.claim, rng.choice([-1, -1, 1, 3]), rng.random() < 0.3))
                marks = marks or [(0, 1, rng.choice(issued), -1, False)]
                outcome = made.do(settle(holder, *marks))
                assert plain.settle(holder, marks) == (not outcome.error)
                if outcome.error:
                    assert outcome.error in ("fenced", "gone")
                    assert before == msgspec.json.encode(made.state.groups)
            case "free":
                numbers = rng.sample(issued, min(len(issued), 2))
                if plain.start is not None:
                    made.done(free(holder, *numbers))
                    plain.free(holder, numbers)
            case "append":
                made.done(chunk(1, 0, 5))
                plain.end += 5
            case "trim":
                plain.floor = min(plain.floor + rng.randint(0, 4), plain.end)
                made.done(ops.TrimLog(topic=1, partition=0, before=plain.floor))
        assert plain.seen() == seen(made.state)
    at = made.state.seq
    again = snapshot.decode(snapshot.encode(made.state), at)
    assert msgspec.json.encode(again) == msgspec.json.encode(made.state)


def test_two_claims_never_hold_one_offset_and_what_is_done_is_claimed_by_nobody() -> None:
    made = fold(10)
    first = made.done(claim("a", 4)).values["claim"]
    second = made.done(claim("b", 4)).values["claim"]
    assert [(0, 4, 0, first), (4, 8, 0, second)] == spans(made.state)
    made.done(settle("a", (0, 2, first, -1), (3, 4, first, 2, True)))
    assert [(2, 3, 0, first), (3, 4, 2, 0), (4, 8, 0, second)] == spans(made.state)
    third = made.done(claim("b", 3)).values["claim"]
    assert [(2, 3, 0, first), (3, 4, 2, third), (4, 8, 0, second), (8, 10, 0, third)] == spans(made.state)
    assert 2 == share(made.state).start


def test_whoever_was_freed_of_a_claim_settles_nothing_under_it() -> None:
    made = fold(4)
    first = made.done(claim("a", 4)).values["claim"]
    made.done(free("b", first))  # not its own
    assert [(0, 4, 0, first)] == spans(made.state)
    made.done(free("a", first))
    again = made.done(claim("a", 4)).values["claim"]
    assert "fenced" == made.do(settle("a", (0, 1, first, -1))).error
    assert "fenced" == made.do(settle("b", (0, 1, again, -1))).error
    assert [(0, 4, 0, again)] == spans(made.state)


def test_deliveries_that_are_known_are_never_forgotten() -> None:
    made = fold(1)
    number = made.done(claim("a", 1)).values["claim"]
    made.done(settle("a", (0, 1, number, 3)))
    made.done(settle("a", (0, 1, number, 1, True)))
    assert [(0, 1, 3, 0)] == spans(made.state)


def test_a_claim_takes_no_more_than_locks_allow() -> None:
    made = fold(50)
    assert 7 == made.done(claim("a", 50, locks=7)).values["records"]
    assert 0 == made.done(claim("b", 50, locks=7)).values["records"]
    assert 1 == made.done(claim("b", 50, locks=8)).values["records"]


def test_a_group_begins_where_it_is_told_to_and_not_unasked() -> None:
    made = fold(9, kept=3)
    assert "gone" == made.do(claim(start=-1)).error
    made.done(claim(records=2, start=0))
    assert [(3, 5)] == [span[:2] for span in spans(made.state)]
    assert (
        "no_group"
        == made.do(share_ops.ClaimShare(group="x", topic=1, partition=0, holder="a", records=1, locks=9)).error
    )
    assert (
        "no_partition"
        == made.do(
            share_ops.ClaimShare(group=GROUP, topic=1, partition=9, holder="a", records=1, locks=9, start=0)
        ).error
    )


# -- groups --------------------------------------------------------------------------------------------------


def member(name: str, *topics: str) -> Member:
    return Member(id=name, topics=list(topics))


@pytest.mark.parametrize(("members", "partitions"), [(1, 1), (1, 5), (3, 2), (5, 1), (4, 4), (3, 7)])
def test_every_partition_has_a_member_and_every_member_a_partition(members: int, partitions: int) -> None:
    target = shares.simple([member(f"m{n}", "t") for n in range(members)], {"t": (1, partitions)})
    places = [partition for each in target.values() for partition in each.get(1, [])]
    assert set(range(partitions)) == set(places)
    assert all(each.get(1) for each in target.values())
    assert max(members, partitions) == len(places)


def test_a_group_that_shares_is_no_other_until_it_is_deleted() -> None:
    made = fold(1)
    commit = ops.CommitOffsets(group=GROUP, offsets=[ops.OffsetEntry(1, 0, 1)])
    assert "group_kind" == made.do(commit).error
    made.done(ops.LeaveGroup(group=GROUP, member="m"))
    assert "group_kind" == made.do(ops.JoinGroup(group=GROUP, member="c", topics=["t"])).error
    assert "group_kind" == made.do(commit).error
    made.done(ops.DeleteGroup(group=GROUP))
    made.done(ops.JoinGroup(group=GROUP, member="c", topics=["t"]))
    assert "group_kind" == made.do(share_ops.JoinShare(group=GROUP, member="m", topics=["t"])).error


def test_a_group_with_committed_offsets_does_not_begin_to_share() -> None:
    made = fold(1)
    made.done(ops.CommitOffsets(group="plain", offsets=[ops.OffsetEntry(1, 0, 1)]))
    assert "group_kind" == made.do(share_ops.JoinShare(group="plain", member="m", topics=["t"])).error


def test_members_hear_of_new_partitions_and_of_each_other() -> None:
    made = fold(0)
    made.done(share_ops.JoinShare(group=GROUP, member="n", topics=["t"]))
    made.done(ops.AddPartitions(topic=1, total=3))
    owned = {name: known.owned for name, known in made.state.groups[GROUP].members.items()}
    assert {"m": {1: [0, 2]}, "n": {1: [1]}} == {n: {t: list(p) for t, p in o.items()} for n, o in owned.items()}
    made.done(ops.LeaveGroup(group=GROUP, member="m"))
    left = made.state.groups[GROUP].members["n"]
    assert [0, 1, 2] == list(left.owned[1])
    assert made.state.groups[GROUP].generation == left.epoch


def test_joining_again_changes_nothing_and_one_too_many_is_refused() -> None:
    made = fold(1)
    before = made.state.groups[GROUP].generation
    made.done(share_ops.JoinShare(group=GROUP, member="m", topics=["t"]))
    assert before == made.state.groups[GROUP].generation
    made.done(*(share_ops.JoinShare(group=GROUP, member=f"m{n}", topics=["t"]) for n in range(MEMBERS_MAX - 1)))
    assert "group_full" == made.do(share_ops.JoinShare(group=GROUP, member="last", topics=["t"])).error


def test_beginning_anew_fences_old_claims_and_waits_until_members_are_gone() -> None:
    made = fold(6)
    number = made.done(claim("a", 3)).values["claim"]
    reset = share_ops.ResetShares(group=GROUP, starts=[(1, 0, 2)])
    assert "group_busy" == made.do(reset).error
    assert "group_busy" == made.do(share_ops.ForgetShares(group=GROUP, topics=[1])).error
    made.done(ops.LeaveGroup(group=GROUP, member="m"))
    epoch = share(made.state).epoch
    made.done(reset)
    assert (2, 2, []) == (share(made.state).start, share(made.state).next, spans(made.state))
    assert epoch < share(made.state).epoch
    assert "fenced" == made.do(settle("a", (2, 3, number, -1))).error
    made.done(share_ops.ForgetShares(group=GROUP, topics=[1]))
    assert {} == made.state.groups[GROUP].shares


def test_a_group_can_be_told_where_to_begin_before_anybody_joins() -> None:
    """As franz-go's suite does it, and `kafka-share-groups.sh --reset-offsets`."""
    made = fold(6)
    made.done(share_ops.ResetShares(group="new", starts=[(1, 0, 2)]))
    assert ("share", {}, 2) == (
        made.state.groups["new"].kind,
        made.state.groups["new"].members,
        made.state.groups["new"].shares[1][0].start,
    )
    made.done(share_ops.JoinShare(group="new", member="m", topics=["t"]))
    begun = share_ops.ClaimShare(group="new", topic=1, partition=0, holder="a", records=1, locks=9)
    assert 1 == made.done(begun).values["records"]
    assert (2, 3) == (made.state.groups["new"].shares[1][0].start, made.state.groups["new"].shares[1][0].next)
    made.done(ops.CommitOffsets(group="consumers", offsets=[ops.OffsetEntry(1, 0, 1, "")]))
    assert "group_kind" == made.do(share_ops.ResetShares(group="consumers", starts=[(1, 0, 2)])).error


def test_a_group_is_not_made_where_its_reset_is_refused() -> None:
    made = fold(1)
    made.do(share_ops.ResetShares(group="new", starts=[(1, 99, 0)]))
    assert "new" not in made.state.groups


def test_idle_groups_are_forgotten_but_not_what_they_have_shared() -> None:
    made = fold(1)
    made.done(claim("a", 1))
    made.done(ops.LeaveGroup(group=GROUP, member="m"))
    assert "not_expired" == made.do(ops.ExpireOffsets(group=GROUP, idle_ms=0)).error


def test_what_was_shared_of_a_deleted_topic_goes_when_the_group_changes() -> None:
    made = fold(1)
    made.done(claim("a", 1))
    made.done(ops.DeleteTopic(topic=1))
    assert {} == made.state.groups[GROUP].shares


def test_configs_of_a_group_need_no_group_and_go_one_by_one() -> None:
    made = Fold()
    made.done(share_ops.AlterGroup(group="g", config={"a": "1", "b": "2"}))
    made.done(share_ops.AlterGroup(group="g", config={"a": None}))
    assert {"g": {"b": "2"}} == made.state.group_configs
    made.done(share_ops.AlterGroup(group="g", config={"b": None}))
    assert {} == made.state.group_configs


def test_a_state_from_before_share_groups_is_read_as_one_without_any() -> None:
    made = fold(1)
    plain = msgspec.json.decode(msgspec.json.encode(made.state))
    del plain["group_configs"]
    for group in plain["groups"].values():
        del group["shares"]
    old = msgspec.json.decode(msgspec.json.encode(plain), type=State)
    assert {} == old.group_configs
    assert {} == old.groups[GROUP].shares


def test_the_lag_of_a_group_that_shares_is_what_it_is_not_done_with() -> None:
    made = fold(10)
    number = made.done(claim("a", 6)).values["claim"]
    made.done(settle("a", (0, 2, number, -1), (4, 5, number, -1)))
    (row,) = lag(made.state, GROUP)
    assert (2, 10, 7) == (row.committed, row.end, row.lag)
    made.done(ops.TrimLog(topic=1, partition=0, before=5))
    (row,) = lag(made.state, GROUP)
    assert 5 == row.lag
