"""The fold's rules for transactions that reserve: offsets, epochs that stay, ends that are asked for again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headwater.limits import PRODUCER_IDLE_MS, TRANSACTION_OFFSETS_MAX
from headwater.log import snapshot
from headwater.log.operations import (
    CommitOffsets,
    DeleteGroup,
    DeleteOffsets,
    DeleteTopic,
    EndReserve,
    EndTransaction,
    ExpireOffsets,
    ExpireReserve,
    InitProducer,
    JoinGroup,
    OffsetEntry,
    Reserve,
    ReserveOffsets,
)
from headwater.log.state import Ended, State
from headwater.log.state.groups import pending_offsets
from headwater.log.state.producers import EPOCH_LAST, last_end
from tests.log.helpers import Fold, chunk
from tests.log.test_fold import part, refused

MINUTE = 60_000


def ready(tid: str = "x", *, partitions: int = 2) -> tuple[Fold, int]:
    fold = Fold()
    fold.topic(partitions=partitions)
    return fold, fold.producer(tid)


def commits(offset: int, partition: int = 0, group: str = "g", **more: Any) -> CommitOffsets:
    return CommitOffsets(group=group, offsets=[OffsetEntry(1, partition, offset)], **more)


def moves(pid: int, offset: int, epoch: int = 0, *, after: int = -1, **more: Any) -> ReserveOffsets:
    return ReserveOffsets(pid=pid, epoch=epoch, timeout_ms=MINUTE, offsets=commits(offset, **more), after=after)


def ends(pid: int, epoch: int = 0, *, commit: bool = True, bump: bool = True, after: int = -1) -> EndReserve:
    return EndReserve(pid=pid, epoch=epoch, commit=commit, bump=bump, after=after)


def offset(fold: Fold, partition: int = 0, group: str = "g") -> int | None:
    known = fold.state.groups[group].offsets.get(1, {}).get(partition)
    return known.offset if known else None


def reserve(fold: Fold, pid: int, epoch: int = 0, **more: Any) -> None:
    fold.done(Reserve(pid=pid, epoch=epoch, timeout_ms=MINUTE), chunk(pid=pid, epoch=epoch, **more))


# -- offsets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("commit", [True, False])
def test_offsets_move_at_the_end_together_with_the_records_or_not_at_all(commit: bool) -> None:
    fold, pid = ready()
    fold.done(commits(1))
    reserve(fold, pid)
    fold.done(moves(pid, 5))
    fold.done(moves(pid, 7), moves(pid, 3, partition=1))
    assert (1, {1: {0, 1}}) == (offset(fold), pending_offsets(fold.state, "g"))
    fold.done(ends(pid, commit=commit), time=9)
    assert ((7, 3) if commit else (1, None)) == (offset(fold), offset(fold, 1))
    assert ({}, []) == (pending_offsets(fold.state, "g"), fold.state.producers[pid].groups)
    assert (9 if commit else 0) == fold.state.groups["g"].offsets[1][0].time_ms


def test_offsets_alone_are_a_transaction_that_can_expire_and_keeps_its_producer() -> None:
    fold, pid = ready()
    fold.done(moves(pid, 5), time=1_000)
    fold.commit(time=9 * PRODUCER_IDLE_MS)
    assert [pid] == list(fold.state.producers)
    fold.done(ExpireReserve(pid=pid))
    assert (None, {}) == (offset(fold), pending_offsets(fold.state, "g"))
    refused(fold, "fenced", ends(pid))
    refused(fold, "not_expired", ExpireReserve(pid=pid))


def test_a_transaction_takes_no_longer_than_the_owner_of_its_producer_wanted() -> None:
    fold, _ = ready()
    pid = fold.done(InitProducer(tid="y", timeout_ms=100)).values["pid"]
    for epoch, asked_ms, expected_ms in ((0, 50, 50), (1, 100, 100), (2, MINUTE, 100)):
        fold.done(Reserve(pid=pid, epoch=epoch, timeout_ms=asked_ms), chunk(pid=pid, epoch=epoch))
        assert fold.state.time_ms + expected_ms == fold.state.producers[pid].deadline_ms
        fold.done(ends(pid, epoch))


def test_the_group_fences_offsets_when_they_come_and_not_at_the_end() -> None:
    fold, pid = ready()
    topic = fold.state.topics[1].name
    fold.done(JoinGroup(group="g", member="n", topics=[topic]))
    generation = fold.state.groups["g"].generation
    refused(fold, "fenced", moves(pid, 5, generation=generation, member="stranger"))
    refused(fold, "fenced", moves(pid, 5, generation=generation + 1, member="n"))
    fold.done(moves(pid, 5, generation=generation, member="n"))
    fold.done(JoinGroup(group="g", member="o", topics=[topic]))
    fold.done(ends(pid))
    assert 5 == offset(fold)
    fold.done(moves(pid, 6, epoch=1))  # without a member the transactional id alone is asked for
    refused(fold, "fenced", commits(6))


def test_the_later_word_on_a_place_wins_whoever_ends_last() -> None:
    fold, one = ready("x")
    two = fold.producer("y")
    fold.done(moves(one, 5))
    fold.done(commits(8))
    fold.done(ends(one))
    assert 8 == offset(fold), "a plain commit came after the transaction's"
    fold.done(moves(one, 10, epoch=1), moves(one, 1, epoch=1, partition=1))
    fold.done(moves(two, 12))
    fold.done(ends(two))
    fold.done(ends(one, 1))
    assert (12, 1) == (offset(fold), offset(fold, 1))
    fold.done(moves(two, 20, epoch=1))
    fold.done(moves(one, 30, epoch=2))
    fold.done(ends(two, 1))
    assert 20 == offset(fold)
    fold.done(ends(one, 2))
    assert 30 == offset(fold)


def test_what_is_deleted_under_a_transaction_takes_its_offsets_along() -> None:
    fold, pid = ready()
    fold.done(moves(pid, 5), moves(pid, 6, partition=1))
    fold.done(DeleteOffsets(group="g", partitions=[(1, 0)]))
    assert {1: {1}} == pending_offsets(fold.state, "g")
    refused(fold, "not_expired", ExpireOffsets(group="g", idle_ms=0), time=9_999)
    fold.done(DeleteGroup(group="g"))
    assert {} == pending_offsets(fold.state, "g")
    fold.done(ends(pid))
    assert "g" not in fold.state.groups
    fold.done(moves(pid, 5, epoch=1), moves(pid, 5, epoch=1, group="h"))
    fold.done(DeleteTopic(topic=1))
    fold.done(ends(pid, 1))
    assert {} == fold.state.groups["h"].offsets


def test_a_transaction_holds_a_bounded_number_of_offsets_and_the_refusal_leaves_no_trace() -> None:
    fold, pid = ready(partitions=TRANSACTION_OFFSETS_MAX + 1)
    entries = [OffsetEntry(1, n, 5) for n in range(TRANSACTION_OFFSETS_MAX)]
    wish = ReserveOffsets(pid=pid, epoch=0, timeout_ms=MINUTE, offsets=CommitOffsets(group="g", offsets=entries))
    fold.done(wish)
    before = msgspec.json.encode(fold.state.groups)
    refused(fold, "too_many", moves(pid, 1, partition=TRANSACTION_OFFSETS_MAX))
    refused(fold, "too_many", moves(pid, 1, group="h"))
    assert before == msgspec.json.encode(fold.state.groups)
    fold.done(wish)  # the same places again are no more


def test_a_refused_intent_takes_its_moved_offsets_back() -> None:
    fold, pid = ready()
    fold.done(commits(1))
    fold.done(moves(pid, 5))
    before = msgspec.json.encode([fold.state.groups, fold.state.producers])
    refused(fold, "no_topic", ends(pid), chunk(topic=9))
    refused(fold, "no_topic", moves(pid, 6, partition=1), chunk(topic=9))
    refused(fold, "no_topic", commits(8), chunk(topic=9))
    assert before == msgspec.json.encode([fold.state.groups, fold.state.producers])


# -- ends --------------------------------------------------------------------------------------------------------


def test_without_a_bump_the_producer_goes_on_under_its_epoch_and_its_sequences() -> None:
    fold, pid = ready()
    for n in range(3):
        reserve(fold, pid, seq=n)
        assert {"pid": pid, "epoch": 0} == fold.done(ends(pid, bump=False)).values
    refused(fold, "out_of_order", Reserve(pid=pid, epoch=0, timeout_ms=9), chunk(pid=pid, epoch=0, seq=0, count=3))
    assert 3 == part(fold).stable_end


def test_an_end_is_repeated_without_effect_and_its_opposite_refused() -> None:
    fold, pid = ready()
    reserve(fold, pid)
    fold.done(ends(pid, bump=False))
    for _ in range(2):
        assert {"pid": pid, "epoch": 0} == fold.done(ends(pid, bump=False)).values
        refused(fold, "ended", ends(pid, bump=False, commit=False))
    assert 1 == fold.state.producers[pid].steps
    reserve(fold, pid)
    fold.done(ends(pid, bump=False, commit=False))
    refused(fold, "ended", ends(pid, bump=False))
    fold.done(Reserve(pid=pid, epoch=0, timeout_ms=9), ends(pid, bump=False))  # one that begins, and holds nothing


def test_a_late_request_of_one_transaction_never_joins_the_next() -> None:
    fold, pid = ready()
    reserve(fold, pid)
    fold.done(ends(pid, bump=False, after=0))
    reserve(fold, pid)
    refused(fold, "stale", ends(pid, bump=False, after=0))
    refused(fold, "stale", moves(pid, 4, after=0))
    fold.done(moves(pid, 5, after=1))
    fold.done(moves(pid, 6, after=2))
    refused(fold, "stale", moves(pid, 5, after=1))
    refused(fold, "stale", Reserve(pid=pid, epoch=0, timeout_ms=9), ends(pid, bump=False, after=0))
    fold.done(ends(pid, bump=False, after=3))
    assert (6, 2) == (offset(fold), part(fold).stable_end)


def test_how_a_transaction_ended_is_found_by_who_missed_the_answer() -> None:
    fold, pid = ready()
    reserve(fold, pid)
    fold.done(ends(pid))
    found = last_end(fold.state, "x", pid, 0)
    assert found is not None
    assert (1, Ended(pid, 0, "commit")) == (found[0].epoch, found[1])
    assert [None] * 3 == [last_end(fold.state, *who) for who in (("x", pid, 1), ("x", pid + 1, 0), ("y", pid, 0))]
    reserve(fold, pid, 1)
    assert None is last_end(fold.state, "x", pid, 0), "the producer has gone on, so it had its answer"


def test_past_the_last_epoch_it_is_found_under_the_new_id() -> None:
    fold, pid = ready()
    fold.done(InitProducer(tid="x", timeout_ms=7))
    fold.state.producers[pid].epoch = EPOCH_LAST
    reserve(fold, pid, EPOCH_LAST)
    new = fold.done(ends(pid, EPOCH_LAST, commit=False)).values["pid"]
    found = last_end(fold.state, "x", pid, EPOCH_LAST)
    assert found is not None
    assert (new, 7, Ended(pid, EPOCH_LAST, "abort")) == (found[0].id, found[0].timeout_ms, found[1])


@pytest.mark.parametrize(
    "after", [InitProducer(tid="x"), EndTransaction(pid=1, epoch=1)], ids=["a new instance", "another client"]
)
def test_a_zombie_is_told_nothing_of_its_successor(after: Any) -> None:
    fold, pid = ready()
    reserve(fold, pid)
    fold.done(ends(pid))
    fold.done(after)
    assert None is last_end(fold.state, "x", pid, 0)


def test_a_producer_that_bumps_its_own_epoch_finds_that_it_did() -> None:
    fold, pid = ready()
    fold.done(InitProducer(tid="x", pid=pid, epoch=0))
    found = last_end(fold.state, "x", pid, 0)
    assert found is not None
    assert (1, "renew") == (found[0].epoch, found[1].how)


def test_two_ends_in_one_intent_must_agree() -> None:
    fold, pid = ready()
    reserve(fold, pid)
    refused(fold, "ended", ends(pid), ends(pid, commit=False))
    assert 1 == fold.done(ends(pid), ends(pid)).values["epoch"]


@pytest.mark.parametrize("first", [True, False])
def test_an_end_that_brings_its_batches_is_no_repetition(first: bool) -> None:
    fold, pid = ready()
    reserve(fold, pid, seq=0)
    fold.done(ends(pid, commit=first, bump=False))
    brings = EndReserve(pid=pid, epoch=0, commit=True, bump=False, after=1, brings=True)
    assert [1] == fold.done(brings, chunk(pid=pid, epoch=0, seq=1)).bases
    assert [] == part(fold).held
    refused(fold, "stale", brings, chunk(pid=pid, epoch=0, seq=2))
    assert 0 == fold.done(ends(pid, bump=False)).values["epoch"]  # repeated, it is as any other
    refused(fold, "ended", ends(pid, commit=False, bump=False))


# -- what was written before -------------------------------------------------------------------------------------


def test_a_snapshot_of_before_is_read() -> None:
    fold, pid = ready()
    reserve(fold, pid)
    fold.done(commits(1))
    plain = msgspec.json.decode(msgspec.json.encode(fold.state))
    for known in plain["producers"].values():
        for name in ("timeout_ms", "groups", "ended", "steps"):
            del known[name]
    for known in plain["groups"].values():
        del known["pending"]
    assert fold.state == msgspec.convert(plain, State, strict=False)
    assert fold.state == snapshot.decode(snapshot.encode(fold.state), fold.state.seq)
