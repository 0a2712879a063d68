"""The fold, rule by rule: the bound, one past it, and the same thing twice."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from headwater.errors import Corrupt
from headwater.limits import PRODUCER_BATCHES, PRODUCER_IDLE_MS, WINDOW
from headwater.log.operations import (
    AclRule,
    AddPartitions,
    AlterTopic,
    AnyOp,
    ChangeAcls,
    CommitOffsets,
    CreateTopic,
    DeleteGroup,
    DeleteOffsets,
    DeleteTopic,
    DropScram,
    EndReserve,
    EndTransaction,
    ExpireReserve,
    InitProducer,
    JoinClassic,
    JoinGroup,
    LeaveGroup,
    OffsetEntry,
    RaiseFloor,
    Reserve,
    ReserveOffsets,
    RevokeKey,
    SetKey,
    SetQuota,
    SyncClassic,
    TrimLog,
)
from headwater.log.state import Partition, State, apply
from headwater.log.state import fold as fold_module
from headwater.log.state.producers import EPOCH_LAST
from tests.log.helpers import Fold, chunk, manifest
from tests.log.helpers_groups import scram_op


def bytes_of(state: State) -> bytes:
    names = [name for name in State.__struct_fields__ if name not in ("seq", "time_ms", "recent")]
    return msgspec.json.encode({name: getattr(state, name) for name in names})


def part(fold: Fold, topic: int = 1, partition: int = 0) -> Partition:
    found = fold.state.partition(topic, partition)
    assert found is not None
    return found


def places(fold: Fold, topic: int = 1, partition: int = 0) -> list[tuple[int, int, str]]:
    return [(e.base, e.count, e.codec) for e in part(fold, topic, partition).tail]


def refused(fold: Fold, code: str, *what: Any, time: int = 0) -> None:
    """The intent is refused with this code and leaves the state as it was, to the byte."""
    before = bytes_of(fold.state)
    outcome = fold.do(*what, time=time)
    assert code == outcome.error
    assert ([], {}) == (outcome.bases, outcome.values)
    assert outcome.message.endswith(".")
    assert before == bytes_of(fold.state)


# -- the chain --------------------------------------------------------------------------------------


def test_a_manifest_that_is_not_the_successor_is_corrupt_and_changes_nothing() -> None:
    fold = Fold()
    fold.topic()
    before = msgspec.json.encode(fold.state)
    for seq in (1, 3, 0x7FFF):
        with pytest.raises(Corrupt):
            apply(fold.state, manifest(seq))
    assert before == msgspec.json.encode(fold.state)


def test_manifest_time_never_goes_back() -> None:
    fold = Fold()
    fold.commit(time=50)
    fold.commit(time=20)
    assert 50 == fold.state.time_ms


def test_offsets_are_dense_over_intents_and_manifests() -> None:
    fold = Fold()
    fold.topic(partitions=2)
    outcomes = fold.commit(
        fold.intent(chunk(count=3), chunk(count=2), chunk(partition=1, count=4)), fold.intent(chunk(count=1))
    )
    assert [[0, 3, 0], [5]] == [outcome.bases for outcome in outcomes]
    assert [6] == fold.done(chunk(count=9)).bases
    assert (15, 15) == (part(fold).next, part(fold).stable_end)
    assert [(0, 3), (3, 2), (5, 1), (6, 9)] == [(e.base, e.count) for e in part(fold).tail]


# -- once, and in time (R3, R4) -----------------------------------------------------------------------


def test_a_repeated_id_gets_the_first_outcome_and_changes_nothing() -> None:
    fold = Fold()
    fold.topic()
    intent = fold.intent(chunk(count=3))
    first, twice = fold.commit(intent, intent)
    assert ([0], 2) == (first.bases, first.seq)
    assert first == twice
    before = bytes_of(fold.state)
    assert [first] == fold.commit(intent)
    assert before == bytes_of(fold.state)


def test_a_repeated_refusal_stays_refused_even_when_it_would_be_accepted_now() -> None:
    fold = Fold()
    intent = fold.intent(chunk())
    assert "no_topic" == fold.commit(intent)[0].error
    fold.topic()
    assert (1, "no_topic") == (fold.commit(intent)[0].seq, fold.state.recent[intent.id].error)
    assert 0 == part(fold).next


def test_an_intent_is_on_time_at_exactly_the_window_and_late_one_past_it() -> None:
    for wait, error in ((WINDOW - 1, ""), (WINDOW, "late")):
        fold = Fold()
        fold.topic()
        intent = fold.intent(chunk())
        fold.skip(wait)
        outcome = fold.commit(intent)[0]
        assert error == outcome.error
        assert intent.tip + wait + 1 == outcome.seq


def test_a_late_intent_is_not_remembered_and_may_be_published_anew() -> None:
    fold = Fold()
    fold.topic()
    late = fold.intent(chunk(), tip=0, name="again")
    fold.past_the_window()
    assert "late" == fold.commit(late)[0].error
    assert "again" not in fold.state.recent
    assert [0] == fold.done(chunk(), name="again").bases


def test_an_intent_is_void_until_the_one_is_decided_after_which_it_comes() -> None:
    fold = Fold()
    fold.topic()
    first, refused = fold.intent(chunk(count=2), name="first"), fold.intent(chunk(topic=9), name="refused")
    second, third = (fold.intent(chunk(), after=name) for name in ("first", "refused"))
    assert ["early", "early", ""] == [each.error for each in fold.commit(second, third, first)]
    assert second.id not in fold.state.recent
    assert [[2], [], [3]] == [each.bases for each in fold.commit(second, refused, third)]
    assert 4 == part(fold).next


def test_what_an_intent_comes_after_is_remembered_for_as_long_as_it_may_be_committed() -> None:
    fold = Fold()
    fold.topic()
    first = fold.intent(chunk())
    second = fold.intent(chunk(), after=first.id)
    fold.commit(first)
    fold.skip(WINDOW - 2)
    assert [1] == fold.commit(second)[0].bases
    assert second.tip + WINDOW == fold.state.seq


def test_an_intent_from_the_future_is_void() -> None:
    fold = Fold()
    fold.topic()
    for ahead in (1, 2, WINDOW):
        assert "late" == fold.commit(fold.intent(chunk(), tip=fold.state.seq + ahead))[0].error
    assert 0 == part(fold).next


def test_ids_are_remembered_for_just_as_long_as_a_second_sending_could_be_on_time() -> None:
    fold = Fold()
    fold.topic()
    intent = fold.intent(chunk())
    first = fold.commit(intent)[0]
    fold.skip(WINDOW - 1)
    assert intent.id in fold.state.recent
    assert (first.seq + WINDOW - 1, intent.tip + WINDOW) == (fold.state.seq, fold.state.seq)
    fold.skip(1)
    assert intent.id not in fold.state.recent
    assert "late" == fold.commit(intent)[0].error
    assert 1 == part(fold).next


def test_the_last_manifest_of_the_window_still_knows_the_first_outcome() -> None:
    fold = Fold()
    fold.topic()
    intent = fold.intent(chunk())
    first = fold.commit(intent)[0]
    fold.skip(WINDOW - 2)
    assert intent.tip + WINDOW == fold.state.seq + 1
    assert [first] == fold.commit(intent)
    assert 1 == part(fold).next


def test_an_intent_is_all_or_nothing_wherever_the_refusal_comes() -> None:
    fold = Fold()
    fold.topic(partitions=2)
    pid = fold.producer("x")
    fold.done(CommitOffsets(group="g", offsets=[OffsetEntry(1, 0, 0)]))
    fold.done(JoinGroup(group="h", member="m", topics=["t", "new"]))
    fold.done(JoinClassic(group="c", member="m", protocol_type="consumer", protocols=[("range", "")]))
    good = [
        CreateTopic(name="new", partitions=3),
        AddPartitions(topic=1, total=5),
        AlterTopic(topic=1, config={"a": "b"}),
        InitProducer(),
        InitProducer(tid="y"),
        InitProducer(tid="x"),
        CommitOffsets(group="g", offsets=[OffsetEntry(1, 0, 5), OffsetEntry(1, 1, 6)]),
        CommitOffsets(group="fresh", offsets=[OffsetEntry(1, 1, 6)]),
        CommitOffsets(group="h", offsets=[OffsetEntry(1, 0, 5)], generation=1, member="m"),
        JoinGroup(group="h", member="n", topics=["t"], instance="i"),
        JoinGroup(group="h", member="o", topics=["new"], instance="i"),
        LeaveGroup(group="h", member="m"),
        SyncClassic(group="c", member="m", generation=1, assignments={"m": "eA=="}),
        JoinClassic(group="c", member="n", protocol_type="consumer", protocols=[("range", "")]),
        LeaveGroup(group="c", member="m"),
        LeaveGroup(group="c", member="n"),
        JoinGroup(group="c", member="n", topics=["t"]),
        ChangeAcls(add=[AclRule("p", "read", "topic", "t")]),
        SetKey(key="key1", hash="a" * 64, principal="p"),
        RevokeKey(key="key1"),
        SetQuota(principal="p", requests_per_s=5),
        scram_op("u"),
        scram_op("u", iterations=8_192),
        DropScram(user="u", mechanism="SCRAM-SHA-256"),
        scram_op("v"),
        DeleteOffsets(group="g", partitions=[(1, 0)]),
        DeleteGroup(group="g"),
        DeleteGroup(group="fresh"),
        RaiseFloor(floor=1),
        DeleteTopic(topic=1),
    ]
    for end in range(1, len(good) + 1):
        refused(fold, "no_topic", *good[:end], chunk(topic=99))
        refused(fold, "no_topic", *good[:end], DeleteTopic(topic=99))
    assert [0] == fold.done(chunk(pid=pid, epoch=0, seq=0)).bases


# -- topics ---------------------------------------------------------------------------------------------


def test_topic_ids_are_never_used_again_and_an_append_to_a_deleted_one_is_refused() -> None:
    fold = Fold()
    assert 1 == fold.topic(name="a")
    fold.done(DeleteTopic(topic=1))
    assert 2 == fold.topic(name="a")
    refused(fold, "no_topic", chunk(topic=1))
    refused(fold, "no_topic", DeleteTopic(topic=1))
    assert [0] == fold.done(chunk(topic=2)).bases


def test_a_taken_name_is_refused_and_free_again_after_deletion() -> None:
    fold = Fold()
    fold.topic(name="a")
    refused(fold, "exists", CreateTopic(name="a", partitions=1))
    fold.done(DeleteTopic(topic=1), CreateTopic(name="a", partitions=2))
    assert 2 == len(fold.state.topics[2].partitions)


def test_partitions_only_grow() -> None:
    fold = Fold()
    fold.topic(partitions=2)
    refused(fold, "no_partition", chunk(partition=2))
    for total in (1, 2):
        refused(fold, "invalid", AddPartitions(topic=1, total=total))
    fold.done(AddPartitions(topic=1, total=3))
    assert [0] == fold.done(chunk(partition=2)).bases
    refused(fold, "no_partition", chunk(partition=3))


def test_partitions_of_the_namespace_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.log.state.topics.PARTITIONS_MAX", 5)
    fold = Fold()
    fold.topic(partitions=3, name="a")
    refused(fold, "invalid", CreateTopic(name="b", partitions=3))
    refused(fold, "invalid", AddPartitions(topic=1, total=6))
    fold.done(CreateTopic(name="b", partitions=2))
    refused(fold, "invalid", CreateTopic(name="c", partitions=1))


def test_configs_are_set_and_taken_back() -> None:
    fold = Fold()
    fold.done(CreateTopic(name="a", partitions=1, config={"k": "1", "l": "2"}))
    fold.done(AlterTopic(topic=1, config={"k": None, "m": "3", "never": None}))
    assert {"l": "2", "m": "3"} == fold.state.topics[1].config


def test_the_log_start_moves_forward_only_and_not_past_the_stable_end() -> None:
    fold = Fold()
    fold.topic()
    fold.done(chunk(count=10))
    fold.done(TrimLog(topic=1, partition=0, before=10))
    fold.done(TrimLog(topic=1, partition=0, before=4))
    assert 10 == part(fold).start
    refused(fold, "out_of_range", TrimLog(topic=1, partition=0, before=11))
    pid = fold.producer()
    fold.done(Reserve(pid=pid, epoch=0, timeout_ms=9), chunk(pid=pid, epoch=0))
    refused(fold, "out_of_range", TrimLog(topic=1, partition=0, before=11))


def test_segments_below_the_floor_are_gone_and_those_at_it_are_not() -> None:
    fold = Fold()
    fold.topic()
    fold.skip(9)
    refused(fold, "invalid", RaiseFloor(floor=fold.state.seq + 2))
    fold.done(RaiseFloor(floor=6))
    fold.done(RaiseFloor(floor=2))
    assert 6 == fold.state.floor
    refused(fold, "gone", chunk(obj=f"segment/{5:020d}-w-1"))
    fold.done(chunk(obj=f"segment/{6:020d}-w-1"))
    fold.done(chunk(obj=""))


@pytest.mark.parametrize("key", ["segment/5-w-1", "segment/", f"manifest/{9:020d}", "x", f"segment/{'٣' * 20}-w-1"])
def test_a_chunk_names_a_segment_or_is_refused(key: str) -> None:
    fold = Fold()
    fold.topic()
    refused(fold, "invalid", chunk(obj=key))


# -- sequences --------------------------------------------------------------------------------------------


def test_the_last_five_batches_are_known_again_and_the_sixth_oldest_is_refused() -> None:
    fold = Fold()
    fold.topic()
    pid = fold.producer()
    for i in range(PRODUCER_BATCHES + 1):
        assert [2 * i] == fold.done(chunk(count=2, pid=pid, epoch=0, seq=2 * i)).bases
    before = bytes_of(fold.state)
    for i in range(1, PRODUCER_BATCHES + 1):
        assert [2 * i] == fold.done(chunk(count=2, pid=pid, epoch=0, seq=2 * i)).bases
    assert before == bytes_of(fold.state)
    refused(fold, "out_of_order", chunk(count=2, pid=pid, epoch=0, seq=0))


def test_a_sequence_that_skips_or_overlaps_is_refused() -> None:
    fold = Fold()
    fold.topic()
    pid = fold.producer()
    refused(fold, "out_of_order", chunk(pid=pid, epoch=0, seq=1))
    fold.done(chunk(count=3, pid=pid, epoch=0, seq=0))
    for seq, count in ((4, 1), (2, 1), (0, 2), (1, 3)):
        refused(fold, "out_of_order", chunk(count=count, pid=pid, epoch=0, seq=seq))
    assert [3] == fold.done(chunk(pid=pid, epoch=0, seq=3)).bases


def test_sequences_wrap_to_zero_behind_two_to_the_31() -> None:
    fold = Fold()
    fold.topic()
    pid = fold.producer()
    fold.done(chunk(count=2**31 - 1, pid=pid, epoch=0, seq=0))
    last = chunk(count=1, pid=pid, epoch=0, seq=2**31 - 1)
    assert [2**31 - 1] == fold.done(last).bases
    assert [2**31] == fold.done(chunk(count=4, pid=pid, epoch=0, seq=0)).bases
    assert [2**31 - 1] == fold.done(last).bases


def test_a_batch_may_straddle_the_wrap() -> None:
    fold = Fold()
    fold.topic()
    pid = fold.producer()
    fold.done(chunk(count=2**31 - 1, pid=pid, epoch=0, seq=0))
    fold.done(chunk(count=5, pid=pid, epoch=0, seq=2**31 - 1))
    refused(fold, "out_of_order", chunk(pid=pid, epoch=0, seq=5))
    fold.done(chunk(pid=pid, epoch=0, seq=4))


def test_after_an_epoch_bump_sequences_begin_at_zero_in_every_partition() -> None:
    fold = Fold()
    fold.topic(partitions=2)
    pid = fold.producer("x")
    fold.done(chunk(count=5, pid=pid, epoch=0, seq=0))
    assert {"pid": pid, "epoch": 1} == fold.done(InitProducer(tid="x", pid=pid, epoch=0)).values
    refused(fold, "out_of_order", chunk(pid=pid, epoch=1, seq=5))
    assert [5] == fold.done(chunk(pid=pid, epoch=1, seq=0)).bases
    assert [0] == fold.done(chunk(partition=1, pid=pid, epoch=1, seq=0)).bases
    refused(fold, "fenced", chunk(pid=pid, epoch=0, seq=5))


def test_sequences_belong_to_one_partition() -> None:
    fold = Fold()
    fold.topic(partitions=2)
    pid = fold.producer()
    assert [0, 0] == fold.done(
        chunk(count=2, pid=pid, epoch=0, seq=0), chunk(count=2, partition=1, pid=pid, epoch=0, seq=0)
    ).bases
    assert [2] == fold.done(chunk(partition=1, pid=pid, epoch=0, seq=2)).bases


def test_a_batch_twice_in_one_intent_lands_once() -> None:
    fold = Fold()
    fold.topic()
    pid = fold.producer()
    twice = chunk(count=2, pid=pid, epoch=0, seq=0)
    assert [0, 0] == fold.done(twice, twice).bases
    assert 2 == part(fold).next


def test_a_refused_sequence_leaves_no_trace_in_the_producer() -> None:
    """Found by the model: a refused first sequence left an empty entry for the topic behind."""
    fold = Fold()
    fold.topic()
    pid = fold.producer()
    refused(fold, "out_of_order", chunk(pid=pid, epoch=0, seq=3))
    refused(fold, "no_topic", chunk(pid=pid, epoch=0, seq=0), chunk(topic=9))
    assert {} == fold.state.producers[pid].sequences


# -- producers and transactions ------------------------------------------------------------------------------


def test_a_transactional_id_keeps_its_producer_and_each_init_fences_the_one_before() -> None:
    fold = Fold()
    fold.topic()
    first = fold.done(InitProducer(tid="x")).values
    second = fold.done(InitProducer(tid="x")).values
    assert {"pid": first["pid"], "epoch": first["epoch"] + 1} == second
    refused(fold, "fenced", chunk(pid=first["pid"], epoch=first["epoch"]))
    refused(fold, "invalid", chunk(pid=first["pid"], epoch=5))
    refused(fold, "unknown_producer", chunk(pid=77, epoch=0))


def test_a_producer_bumps_its_own_epoch_only_while_it_is_the_current_one() -> None:
    """KIP-360: a producer that lost track takes the next epoch, unless somebody else did."""
    fold = Fold()
    pid = fold.producer("x")
    assert 1 == fold.done(InitProducer(tid="x", pid=pid, epoch=0)).values["epoch"]
    refused(fold, "fenced", InitProducer(tid="x", pid=pid, epoch=0))
    refused(fold, "invalid", InitProducer(tid="x", pid=pid, epoch=2))
    refused(fold, "fenced", InitProducer(tid="x", pid=pid + 1, epoch=1))
    refused(fold, "unknown_producer", InitProducer(tid="y", pid=pid, epoch=1))
    refused(fold, "unknown_producer", InitProducer(pid=77, epoch=0))


def test_past_the_last_epoch_a_producer_gets_a_new_id() -> None:
    fold = Fold()
    fold.topic()
    pid = fold.producer("x")
    fold.state.producers[pid].epoch = EPOCH_LAST - 1
    assert {"pid": pid, "epoch": EPOCH_LAST} == fold.done(InitProducer(tid="x")).values
    fold.done(chunk(pid=pid, epoch=EPOCH_LAST, seq=0))
    assert {"pid": pid + 1, "epoch": 0} == fold.done(EndTransaction(pid=pid, epoch=EPOCH_LAST)).values
    refused(fold, "unknown_producer", chunk(pid=pid, epoch=EPOCH_LAST, seq=1))
    assert {"pid": pid + 1, "epoch": 1} == fold.done(InitProducer(tid="x")).values


def test_a_refusal_behind_the_last_bump_puts_the_producer_back_into_its_place_in_line() -> None:
    """Found by the model: it came back at the end of the line, so another one was forgotten first."""
    fold = Fold()
    pid = fold.producer("x")
    fold.producer("y")
    fold.state.producers[pid].epoch = EPOCH_LAST
    refused(fold, "no_topic", InitProducer(tid="x"), DeleteTopic(topic=9))
    assert [pid, pid + 1] == list(fold.state.producers)


def test_ending_a_transaction_fences_all_its_appends_and_bumps_once() -> None:
    fold = Fold()
    fold.topic(partitions=2)
    pid = fold.producer("x")
    end = EndTransaction(pid=pid, epoch=0)
    outcome = fold.done(end, end, chunk(pid=pid, epoch=0), chunk(partition=1, pid=pid, epoch=0))
    assert ([0, 0], {"pid": pid, "epoch": 1}) == (outcome.bases, outcome.values)
    refused(fold, "fenced", end, chunk(pid=pid, epoch=0))
    refused(fold, "fenced", chunk(pid=pid, epoch=0))
    refused(fold, "invalid", EndTransaction(pid=pid, epoch=2))


def test_one_intent_ends_the_transaction_of_one_producer() -> None:
    """The second bump would silently have replaced the first, and left a zombie unfenced."""
    fold = Fold()
    one, two = fold.producer("x"), fold.producer("y")
    refused(fold, "invalid", EndTransaction(pid=one, epoch=0), EndTransaction(pid=two, epoch=0))
    refused(fold, "invalid", EndTransaction(pid=one, epoch=0), EndReserve(pid=two, epoch=0, commit=True))


def test_a_producer_that_got_a_new_id_in_an_intent_cannot_end_in_it() -> None:
    """It was a KeyError in the fold: one such intent would have stopped every process for good."""
    fold = Fold()
    pid = fold.producer("x")
    fold.state.producers[pid].epoch = EPOCH_LAST
    refused(fold, "invalid", EndTransaction(pid=pid, epoch=EPOCH_LAST), InitProducer(tid="x"))


def test_idle_producers_are_forgotten_after_a_week_of_manifest_time() -> None:
    fold = Fold()
    fold.topic()
    pid, other = fold.producer("x"), fold.producer()
    fold.do(chunk(pid=other, epoch=0), time=1)
    fold.commit(time=PRODUCER_IDLE_MS)
    assert [pid, other] == list(fold.state.producers)
    fold.commit(time=PRODUCER_IDLE_MS + 1)
    assert ([other], {}) == (list(fold.state.producers), fold.state.transactional)
    refused(fold, "unknown_producer", chunk(pid=pid, epoch=0), time=PRODUCER_IDLE_MS + 1)
    assert {"pid": other + 1, "epoch": 0} == fold.done(InitProducer(tid="x")).values


def test_the_producer_idle_longest_goes_first_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_module, "PRODUCERS_MAX", 3)
    fold = Fold()
    fold.topic()
    pids = [fold.producer() for _ in range(3)]
    fold.done(chunk(pid=pids[0], epoch=0))
    fold.producer()
    assert [pids[2], pids[0], pids[2] + 1] == list(fold.state.producers)


def test_a_refused_intent_keeps_no_producer_alive() -> None:
    fold = Fold()
    fold.topic()
    pid = fold.producer()
    refused(fold, "no_topic", chunk(pid=pid, epoch=0), chunk(topic=9), time=500)
    assert 0 == fold.state.producers[pid].last_ms


# -- reservations ------------------------------------------------------------------------------------------------


def reserved(fold: Fold, pid: int, *chunks: Any, epoch: int = 0, timeout_ms: int = 100, time: int = 0) -> list[int]:
    return fold.done(Reserve(pid=pid, epoch=epoch, timeout_ms=timeout_ms), *chunks, time=time).bases


def test_a_reservation_holds_readers_back_until_it_is_committed() -> None:
    fold = Fold()
    fold.topic(partitions=2)
    pid = fold.producer("x")
    fold.done(chunk(count=2))
    assert [2, 0] == reserved(fold, pid, chunk(count=3, pid=pid, epoch=0), chunk(partition=1, pid=pid, epoch=0))
    assert (5, 2) == (part(fold).next, part(fold).stable_end)
    assert [5] == fold.done(chunk(count=4)).bases
    assert (9, 2, 0) == (part(fold).next, part(fold).stable_end, part(fold, 1, 1).stable_end)
    assert 1 == fold.done(EndReserve(pid=pid, epoch=0, commit=True)).values["epoch"]
    assert (9, 9, 1) == (part(fold).next, part(fold).stable_end, part(fold, 1, 1).stable_end)
    assert [(0, 2, "arrow"), (2, 3, "arrow"), (5, 4, "arrow")] == places(fold)
    assert ([], 0) == (fold.state.producers[pid].open, fold.state.producers[pid].deadline_ms)
    refused(fold, "fenced", EndReserve(pid=pid, epoch=0, commit=True))


def test_an_aborted_reservation_leaves_a_gap_of_its_size() -> None:
    fold = Fold()
    fold.topic()
    pid = fold.producer("x")
    reserved(fold, pid, chunk(count=3, pid=pid, epoch=0))
    fold.done(chunk(count=1))
    fold.done(EndReserve(pid=pid, epoch=0, commit=False))
    assert [(0, 3, "gap"), (3, 1, "arrow")] == places(fold)
    assert 4 == part(fold).stable_end


def test_an_inline_chunk_that_is_opened_later_still_points_to_the_manifest_that_carries_it() -> None:
    fold = Fold()
    fold.topic()
    pid = fold.producer("x")
    reserved(fold, pid, chunk(pid=pid, epoch=0, obj=""))
    carrier = fold.state.seq
    fold.done(EndReserve(pid=pid, epoch=0, commit=True))
    entry = part(fold).tail[0]
    assert (f"manifest/{carrier:020d}", fold.state.seq) == (entry.obj, entry.seq)


def test_a_reservation_expires_when_manifest_time_reaches_its_deadline_and_not_before() -> None:
    fold = Fold()
    fold.topic()
    pid = fold.producer("x")
    reserved(fold, pid, chunk(pid=pid, epoch=0), timeout_ms=100, time=1_000)
    reserved(fold, pid, chunk(pid=pid, epoch=0), timeout_ms=100, time=1_050)
    assert 1_100 == fold.state.producers[pid].deadline_ms
    refused(fold, "not_expired", ExpireReserve(pid=pid), time=1_099)
    assert {"pid": pid, "epoch": 1} == fold.done(ExpireReserve(pid=pid), time=1_100).values
    assert [(0, 1, "gap"), (1, 1, "gap")] == places(fold)
    refused(fold, "not_expired", ExpireReserve(pid=pid), time=9_999)
    refused(fold, "not_expired", ExpireReserve(pid=77))
    refused(fold, "fenced", EndReserve(pid=pid, epoch=0, commit=True))


def test_a_new_instance_voids_what_its_predecessor_reserved() -> None:
    fold = Fold()
    fold.topic()
    pid = fold.producer("x")
    reserved(fold, pid, chunk(pid=pid, epoch=0))
    fold.done(InitProducer(tid="x"))
    assert ([(0, 1, "gap")], 1) == (places(fold), part(fold).stable_end)


def test_readers_stop_at_the_first_of_several_reservations() -> None:
    fold = Fold()
    fold.topic()
    one, two = fold.producer("x"), fold.producer("y")
    reserved(fold, one, chunk(count=2, pid=one, epoch=0))
    reserved(fold, two, chunk(count=2, pid=two, epoch=0))
    reserved(fold, one, chunk(count=2, pid=one, epoch=0))
    fold.done(EndReserve(pid=two, epoch=0, commit=True))
    assert (0, [(2, 2, "arrow")]) == (part(fold).stable_end, places(fold))
    fold.done(EndReserve(pid=one, epoch=0, commit=False))
    assert (6, [(0, 2, "gap"), (2, 2, "arrow"), (4, 2, "gap")]) == (part(fold).stable_end, places(fold))


def test_nobody_reserves_offsets_for_another_and_the_refusal_leaves_no_hole() -> None:
    """Found by the model: the refusal left the partition's next offset moved, a hole that nothing ever fills."""
    fold = Fold()
    fold.topic()
    one, two = fold.producer("x"), fold.producer("y")
    refused(fold, "invalid", Reserve(pid=one, epoch=0, timeout_ms=9), chunk(count=3, pid=two, epoch=0))
    refused(fold, "invalid", Reserve(pid=one, epoch=0, timeout_ms=9), chunk(count=3))
    assert [0] == fold.done(chunk()).bases


def test_a_transaction_cannot_end_over_ranges_that_are_still_reserved() -> None:
    """Past the last epoch they would have belonged to nobody, and readers waited behind them for ever."""
    for epoch in (0, EPOCH_LAST):
        fold = Fold()
        fold.topic()
        pid = fold.producer("x")
        fold.state.producers[pid].epoch = epoch
        reserved(fold, pid, chunk(pid=pid, epoch=epoch), epoch=epoch)
        refused(fold, "invalid", EndTransaction(pid=pid, epoch=epoch))
        fold.done(EndReserve(pid=pid, epoch=epoch, commit=True))
        assert 1 == part(fold).stable_end


def test_a_reserved_range_of_a_deleted_topic_ends_without_harm() -> None:
    fold = Fold()
    fold.topic()
    pid = fold.producer("x")
    reserved(fold, pid, chunk(pid=pid, epoch=0))
    fold.done(DeleteTopic(topic=1))
    fold.done(EndReserve(pid=pid, epoch=0, commit=True))
    assert (0, []) == (fold.state.tail_entries, fold.state.producers[pid].open)


def test_a_producer_with_reserved_ranges_is_never_forgotten() -> None:
    fold = Fold()
    fold.topic()
    pid = fold.producer("x")
    reserved(fold, pid, chunk(pid=pid, epoch=0))
    fold.commit(time=9 * PRODUCER_IDLE_MS)
    assert [pid] == list(fold.state.producers)
    fold.done(ExpireReserve(pid=pid))
    fold.commit(time=99 * PRODUCER_IDLE_MS)
    assert [] == list(fold.state.producers)


# -- groups ----------------------------------------------------------------------------------------------------------


def offsets(offset: int, generation: int = -1, member: str = "", topic: int = 1) -> CommitOffsets:
    return CommitOffsets(group="g", offsets=[OffsetEntry(topic, 0, offset)], generation=generation, member=member)


def committed(fold: Fold) -> int:
    return fold.state.groups["g"].offsets[1][0].offset


def test_while_a_group_has_members_only_they_move_its_offsets() -> None:
    fold = Fold()
    fold.topic()
    fold.done(offsets(5))
    refused(fold, "fenced", offsets(6, 0, "m"))
    fold.done(JoinGroup(group="g", member="m", topics=["t"]))
    for wrong in (offsets(6), offsets(6, 0, "m"), offsets(6, 2, "m"), offsets(6, 1, "n"), offsets(6, -1, "m")):
        refused(fold, "fenced", wrong)
    fold.done(offsets(6, 1, "m"))
    assert 6 == committed(fold)
    fold.done(LeaveGroup(group="g", member="m"))
    for over in (offsets(7, 1, "m"), offsets(7, 2, "m")):
        refused(fold, "fenced", over)
    fold.done(offsets(2))
    assert 2 == committed(fold)


def test_nothing_is_left_of_the_join_phase_of_a_group_whose_members_leave_as_its_protocol_changes() -> None:
    fold = Fold()
    classic = [("range", "")]
    fold.done(JoinClassic(group="g", member="m", protocol_type="consumer", protocols=classic, topics=["t"]))
    fold.done(JoinGroup(group="g", member="n", topics=["t"], epoch=-1), *(LeaveGroup("g", each) for each in "mn"))
    group = fold.state.groups["g"]
    assert ("consumer", "empty", 0, {}) == (group.kind, group.phase, group.deadline_ms, group.members)


def test_a_zombie_of_an_older_generation_takes_its_appends_down_with_it() -> None:
    fold = Fold()
    fold.topic()
    pid = fold.producer("x")
    fold.done(JoinGroup(group="g", member="zombie", topics=["t"]))
    fold.done(LeaveGroup(group="g", member="zombie"), JoinGroup(group="g", member="m", topics=["t"]))
    refused(fold, "fenced", EndTransaction(pid=pid, epoch=0), offsets(1, 1, "zombie"), chunk(pid=pid, epoch=0))
    refused(fold, "fenced", EndTransaction(pid=pid, epoch=0), offsets(1, 1, "m"), chunk(pid=pid, epoch=0))
    assert 0 == part(fold).next


def joins(kind: str, member: str, as_of: int, instance: str = "") -> AnyOp:
    if kind == "consumer":
        return JoinGroup(group="g", member=member, topics=["t"], instance=instance, as_of=as_of)
    offers = [("range", "")]
    return JoinClassic(
        group="g", member=member, protocol_type="consumer", protocols=offers, instance=instance, as_of=as_of
    )


@pytest.mark.parametrize("kind", ["consumer", "classic"])
def test_a_join_from_before_its_member_left_brings_nobody_back(kind: str) -> None:
    """Found by seed 1178: a first join, long on its way, brought back an expelled member, who heard that it owned."""
    fold = Fold()
    fold.topic()
    before = fold.state.seq
    fold.done(joins(kind, "m", before))
    fold.done(LeaveGroup(group="g", member="m"))
    left = fold.state.seq
    refused(fold, "unknown_member", joins(kind, "m", before))
    refused(fold, "unknown_member", joins(kind, "m", left - 1))
    fold.done(joins(kind, "n", before))
    fold.done(joins(kind, "m", left))
    refused(fold, "unknown_member", joins(kind, "m", before))
    assert ["n", "m"] == list(fold.state.groups["g"].members)


@pytest.mark.parametrize("kind", ["consumer", "classic"])
def test_a_static_member_is_not_pushed_out_by_a_late_join_of_its_old_self(kind: str) -> None:
    fold = Fold()
    fold.topic()
    before = fold.state.seq
    fold.done(joins(kind, "old", before, "i"))
    fold.done(joins(kind, "new", before, "i"))
    refused(fold, "unknown_member", joins(kind, "old", before, "i"))
    assert ["new"] == list(fold.state.groups["g"].members)


def test_who_left_is_remembered_as_long_as_older_joins_may_come() -> None:
    fold = Fold()
    fold.topic()
    before = fold.state.seq
    fold.done(joins("consumer", "m", before))
    fold.done(LeaveGroup(group="g", member="m"))
    fold.done(DeleteGroup(group="g"))
    fold.skip(before + WINDOW - fold.state.seq - 1)
    refused(fold, "unknown_member", joins("consumer", "m", before))
    assert 1 == len(fold.state.departed)
    fold.skip(4)
    assert {} == fold.state.departed
    refused(fold, "unknown_member", joins("consumer", "m", before))
    fold.done(joins("consumer", "m", fold.state.seq))


def test_a_refused_intent_leaves_nobody_departed() -> None:
    fold = Fold()
    fold.topic()
    fold.done(joins("consumer", "m", fold.state.seq))
    fold.done(LeaveGroup(group="g", member="m"))
    fold.done(joins("consumer", "m", fold.state.seq), joins("consumer", "n", fold.state.seq))
    fold.done(LeaveGroup(group="g", member="n"))
    before = list(fold.state.departed.items())
    refused(fold, "no_topic", LeaveGroup(group="g", member="m"), DeleteTopic(topic=9))
    assert before == list(fold.state.departed.items())


def test_a_group_with_members_is_busy() -> None:
    fold = Fold()
    fold.topic()
    fold.topic(name="u")
    fold.done(CommitOffsets(group="g", offsets=[OffsetEntry(2, 0, 5)]))
    fold.done(JoinGroup(group="g", member="m", topics=["t"]))
    refused(fold, "group_busy", DeleteGroup(group="g"))
    refused(fold, "group_busy", DeleteOffsets(group="g", partitions=[(2, 0), (1, 0)]))
    fold.done(DeleteOffsets(group="g", partitions=[(2, 0)]))
    assert {} == fold.state.groups["g"].offsets
    refused(fold, "group_kind", JoinClassic(group="g", member="n", protocol_type="consumer", protocols=[("range", "")]))
    fold.done(LeaveGroup(group="g", member="m"))
    refused(fold, "unknown_member", LeaveGroup(group="g", member="m"))
    fold.done(DeleteGroup(group="g"))
    refused(fold, "no_group", DeleteGroup(group="g"))
    refused(fold, "no_group", DeleteOffsets(group="g", partitions=[]))


def test_what_members_subscribe_to_that_only_their_peers_understand_may_be_any_topic() -> None:
    fold = Fold()
    fold.topic()
    fold.done(JoinClassic(group="g", member="m", protocol_type="connect", protocols=[("range", "")]))
    refused(fold, "group_busy", DeleteOffsets(group="g", partitions=[(1, 0)]))


def test_a_transaction_moves_offsets_of_a_group_that_waits_for_its_leaders_assignment() -> None:
    """Java's and librdkafka's producers take the refusal for their end; Kafka has none for them."""
    fold = Fold()
    fold.topic()
    pid = fold.producer("x")
    fold.done(JoinClassic(group="g", member="m", protocol_type="consumer", protocols=[("range", "")]))
    assert "completing" == fold.state.groups["g"].phase
    moved = CommitOffsets(group="g", offsets=[OffsetEntry(1, 0, 5)], generation=1, member="m")
    refused(fold, "rebalancing", moved)
    fold.done(ReserveOffsets(pid=pid, epoch=0, timeout_ms=1_000, offsets=moved))
    refused(fold, "fenced", ReserveOffsets(pid=pid, epoch=0, timeout_ms=1_000, offsets=replace(moved, generation=0)))


def test_offsets_are_committed_for_partitions_that_exist() -> None:
    fold = Fold()
    fold.topic()
    refused(fold, "no_topic", offsets(1, topic=9))
    refused(fold, "no_partition", CommitOffsets(group="g", offsets=[OffsetEntry(1, 0, 1), OffsetEntry(1, 1, 1)]))
    assert {} == fold.state.groups
    fold.done(offsets(1))
    fold.done(DeleteOffsets(group="g", partitions=[(1, 0), (1, 9)]))
    assert {} == fold.state.groups["g"].offsets


def test_a_group_made_and_deleted_in_a_refused_intent_was_never_there() -> None:
    """Found by the model: undoing it was a KeyError in the fold."""
    fold = Fold()
    fold.topic()
    refused(fold, "no_topic", offsets(1), DeleteGroup(group="g"), DeleteTopic(topic=9))
