"""Each kind of violation is planted in a small history and found; the clean histories are clean."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from headwater.errors import AlreadyExists, Conflict, HeadwaterError, Indeterminate, NotFound
from headwater.sim.checker import KINDS, Final, check
from headwater.sim.faults import Faults, Process, SimBucket, SimStore
from headwater.sim.history import (
    TP,
    Append,
    Gap,
    Got,
    History,
    OffsetCommit,
    OffsetFetch,
    Pipeline,
    Read,
    Transaction,
)
from headwater.sim.latency import S3_EXPRESS
from headwater.sim.loop import run, sim_loop
from tests.sim.test_checker_groups import BAD as BAD_GROUPS

A: TP = ("a", 0)
B: TP = ("b", 0)
G = ("g", A)

Planted = tuple[History, Final]


def history() -> History:
    return History(lambda: 0.0)


def final(*a: str, b: tuple[str, ...] = (), offset: int | None = None, **more: Any) -> Final:
    """Partition ``a`` holds these uids from offset 0, partition ``b`` those, the group ``g`` is at ``offset``."""
    records = {A: list(enumerate(a)), B: list(enumerate(b))}
    return Final(records=records, offsets={} if offset is None else {G: offset}, **more)


def put(h: History, base: int | None, *uids: str, tp: TP = A, producer: str = "p", epoch: int = 0, **more: Any) -> int:
    """An append; ``base=None`` leaves it open."""
    call = h.append(producer, producer, tp, uids, epoch=epoch, **more)
    if base is not None:
        h.ok(call, base)
    return call


def txn(h: History, *, a: tuple[str, ...] = (), b: tuple[str, ...] = (), **more: Any) -> int:
    sends = tuple((tp, uids) for tp, uids in ((A, a), (B, b)) if uids)
    return h.invoke("t", Transaction(producer="t", sends=sends, **more))


def read(h: History, start: int, *uids: str, reader: str = "r", end: bool = False, seek: bool = False) -> int:
    """A read that returns ``uids`` from offset ``start`` on."""
    call = h.invoke(reader, Read(reader=reader, tp=A, start=start, seek=seek))
    records = tuple(enumerate(uids, start))
    h.ok(call, Got(records=records, next=start + len(uids), to_end=end))
    return call


def commit(h: History, value: int, *, generation: int | None = None, owner: str = "c") -> int:
    return h.invoke(owner, OffsetCommit(group="g", offsets=((A, value),), owner=owner, generation=generation))


def committed(h: History, value: int, **more: Any) -> None:
    h.ok(commit(h, value, **more))


def fetched(h: History, value: int | None) -> None:
    h.ok(h.invoke("c", OffsetFetch(group="g", tp=A)), value)


# -- bad histories ------------------------------------------------------------------------------------


def lost() -> Planted:
    h = history()
    put(h, 0, "x", "y")
    return h, final("x")


def lost_without_a_base() -> Planted:
    h = history()
    h.ok(put(h, None, "x"))
    return h, final()


def misplaced() -> Planted:
    h = history()
    put(h, 0, "x", producer="p")
    put(h, 0, "y", producer="q")
    return h, final("x", "y")


def misplaced_in_another_partition() -> Planted:
    h = history()
    put(h, 0, "x")
    return h, final(b=("x",))


def retry_answered_differently() -> Planted:
    h = history()
    put(h, 0, "x")
    put(h, 1, "x")
    return h, final("x")


def duplicate() -> Planted:
    h = history()
    h.unknown(put(h, None, "x"))
    return h, final("x", "x")


def duplicate_across_partitions() -> Planted:
    h = history()
    put(h, 0, "x")
    return h, final("x", b=("x",))


def invented() -> Planted:
    h = history()
    return h, final("ghost")


def read_before_it_was_sent() -> Planted:
    h = history()
    read(h, 0, "x")
    put(h, 0, "x")
    return h, final("x")


def failed_visible() -> Planted:
    h = history()
    h.fail(put(h, None, "x"), "Fenced")
    return h, final("x")


def aborted_visible() -> Planted:
    h = history()
    h.fail(txn(h, a=("x",)))
    return h, final("x")


def aborted_read() -> Planted:
    h = history()
    call = txn(h, a=("x",))
    read(h, 0, "x")
    h.fail(call)
    return h, final()


def aborted_read_and_visible() -> Planted:
    h = history()
    h.fail(txn(h, a=("x",)))
    read(h, 0, "x")
    return h, final("x")


def torn_unknown() -> Planted:
    h = history()
    h.unknown(txn(h, a=("x",), b=("y",)))
    return h, final("x")


def torn_committed() -> Planted:
    h = history()
    h.ok(txn(h, a=("x",), b=("y",)), (0, 0))
    return h, final(b=("y",))


def torn_offsets_missing() -> Planted:
    h = history()
    committed(h, 3)
    h.unknown(txn(h, a=("x",), group="g", offsets=((A, 7),)))
    return h, final("x", offset=3)


def torn_records_missing() -> Planted:
    h = history()
    committed(h, 3)
    h.unknown(txn(h, a=("x",), group="g", offsets=((A, 7),)))
    return h, final(offset=7)


def torn_aborted_offsets() -> Planted:
    h = history()
    h.fail(txn(h, a=("x",), group="g", offsets=((A, 7),)))
    return h, final(offset=7)


def gap() -> Planted:
    h = history()
    put(h, 0, "x")
    put(h, 2, "y")
    return h, Final(records={A: [(0, "x"), (2, "y")]}, offsets={})


def gap_larger_than_declared() -> Planted:
    h, bad = gap()
    put(h, 4, "z")
    h.declare(Gap(tp=A, start=1, end=2))
    return h, Final(records={A: [*bad.records[A], (4, "z")]}, offsets={})


def offsets_that_fall() -> Planted:
    h = history()
    put(h, 0, "x")
    put(h, 1, "y", producer="q")
    return h, Final(records={A: [(1, "y"), (0, "x")]}, offsets={})


def disorder() -> Planted:
    h = history()
    put(h, 1, "x")
    put(h, 0, "y")
    return h, final("y", "x")


def disorder_within_an_append() -> Planted:
    h = history()
    h.unknown(put(h, None, "x", "y"))
    return h, final("y", "x")


def zombie_append_by_place() -> Planted:
    h = history()
    old = put(h, None, "x", epoch=1)
    put(h, 0, "y", epoch=2)
    h.unknown(old)
    return h, final("y", "x")


def zombie_append_by_time() -> Planted:
    h = history()
    put(h, 0, "y", epoch=2)
    put(h, 0, "x", epoch=1, tp=B)
    return h, final("y", b=("x",))


def zombie_commit() -> Planted:
    h = history()
    committed(h, 5, generation=2)
    committed(h, 4, generation=1, owner="zombie")
    return h, final(offset=5)


def disagreement() -> Planted:
    h = history()
    put(h, 0, "x", producer="p")
    put(h, 1, "y", producer="q")
    read(h, 0, "x", "y")
    read(h, 0, "y", reader="s")
    return h, final("x", "y")


def vanished() -> Planted:
    h = history()
    h.unknown(put(h, None, "x"))
    read(h, 0, "x")
    return h, final()


def went_back() -> Planted:
    h = history()
    put(h, 0, "x", "y")
    read(h, 0, "x", "y")
    read(h, 1, "y")
    return h, final("x", "y")


def went_back_within_a_read() -> Planted:
    h = history()
    put(h, 0, "x", "y")
    call = h.invoke("r", Read(reader="r", tp=A, start=0))
    h.ok(call, Got(records=((0, "x"), (0, "x"), (1, "y")), next=2))
    return h, final("x", "y")


def skipped_within_a_read() -> Planted:
    h = history()
    put(h, 0, "x", "y", "z")
    call = h.invoke("r", Read(reader="r", tp=A, start=0))
    h.ok(call, Got(records=((0, "x"), (2, "z")), next=3))
    return h, final("x", "y", "z")


def skipped_between_polls() -> Planted:
    h = history()
    put(h, 0, "x", "y", "z")
    read(h, 0, "x")
    read(h, 2, "z")
    return h, final("x", "y", "z")


def skipped_by_an_empty_poll() -> Planted:
    h = history()
    put(h, 0, "x")
    call = h.invoke("r", Read(reader="r", tp=A, start=0))
    h.ok(call, Got(records=(), next=1))
    return h, final("x")


def stale_after_an_ack() -> Planted:
    h = history()
    put(h, 0, "x")
    read(h, 0, end=True)
    return h, final("x")


def stale_after_anothers_read() -> Planted:
    h = history()
    h.unknown(put(h, None, "x"))
    read(h, 0, "x", reader="s")
    read(h, 0, end=True)
    return h, final("x")


def offset_lost() -> Planted:
    h = history()
    committed(h, 5)
    return h, final()


def offset_overwritten_by_an_older_one() -> Planted:
    h = history()
    committed(h, 5)
    committed(h, 7)
    return h, final(offset=5)


def offset_invented() -> Planted:
    h = history()
    fetched(h, 9)
    return h, final()


def offset_regress() -> Planted:
    h = history()
    first = commit(h, 5)
    second = commit(h, 7)
    fetched(h, 7)
    fetched(h, 5)
    h.ok(first)
    h.ok(second)
    return h, final(offset=7)


def fenced_offset_refused() -> Planted:
    h = history()
    committed(h, 5, generation=2)
    h.fail(commit(h, 4, generation=1, owner="zombie"), "Fenced")
    return h, final(offset=4)


def fenced_offset_that_landed_late() -> Planted:
    h = history()
    late = commit(h, 4, generation=1, owner="zombie")
    committed(h, 5, generation=2)
    h.unknown(late)
    return h, final(offset=4)


def fenced_transaction() -> Planted:
    h = history()
    h.fail(txn(h, a=("x",), group="g", offsets=((A, 7),)), "Fenced")
    return h, final(offset=7)


def pipeline(outputs: tuple[str, ...], offset: int) -> Planted:
    h = history()
    h.declare(Pipeline(group="g", inputs=(A,), outputs=(B,)))
    put(h, 0, "x", "y")
    committed(h, offset)
    for base, uid in enumerate(outputs):
        put(h, base, uid, tp=B, producer=f"f{base}", idempotent=False)
    return h, final("x", "y", b=outputs, offset=offset)


BAD: list[tuple[Callable[[], Planted], set[str]]] = [
    (lost, {"lost"}),
    (lost_without_a_base, {"lost"}),
    (misplaced, {"misplaced"}),
    (misplaced_in_another_partition, {"misplaced"}),
    (retry_answered_differently, {"misplaced"}),
    (duplicate, {"duplicate"}),
    (duplicate_across_partitions, {"duplicate"}),
    (invented, {"invented"}),
    (read_before_it_was_sent, {"invented"}),
    (failed_visible, {"failed-visible"}),
    (aborted_visible, {"aborted-visible"}),
    (aborted_read, {"aborted-read", "vanished"}),
    (aborted_read_and_visible, {"aborted-read", "aborted-visible"}),
    (torn_unknown, {"torn"}),
    (torn_committed, {"torn"}),
    (torn_offsets_missing, {"torn"}),
    (torn_records_missing, {"torn"}),
    (torn_aborted_offsets, {"torn"}),
    (gap, {"gap"}),
    (gap_larger_than_declared, {"gap"}),
    (offsets_that_fall, {"gap"}),
    (disorder, {"disorder"}),
    (disorder_within_an_append, {"disorder"}),
    (zombie_append_by_place, {"zombie-append"}),
    (zombie_append_by_time, {"zombie-append"}),
    (zombie_commit, {"zombie-commit"}),
    (disagreement, {"disagreement", "duplicate"}),
    (vanished, {"vanished"}),
    (went_back, {"went-back"}),
    (went_back_within_a_read, {"went-back"}),
    (skipped_within_a_read, {"skipped"}),
    (skipped_between_polls, {"skipped"}),
    (skipped_by_an_empty_poll, {"skipped"}),
    (stale_after_an_ack, {"stale"}),
    (stale_after_anothers_read, {"stale"}),
    (offset_lost, {"offset-lost"}),
    (offset_overwritten_by_an_older_one, {"offset-lost"}),
    (offset_invented, {"offset-invented"}),
    (offset_regress, {"offset-regress"}),
    (fenced_offset_refused, {"fenced-offset"}),
    (fenced_offset_that_landed_late, {"fenced-offset"}),
    (fenced_transaction, {"fenced-offset"}),
    (lambda: pipeline(("f:x",), 2), {"pipeline-missing"}),
    (lambda: pipeline(("f:x", "f:x"), 1), {"pipeline-duplicate"}),
    (lambda: pipeline(("f:x", "f:y"), 1), {"pipeline-early"}),
    (lambda: pipeline(("f:x", "f:y", "f:z"), 2), {"pipeline-orphan"}),
]


def name_of(value: Any) -> str:
    return "+".join(sorted(value)) if isinstance(value, set) else value.__name__.strip("<>")


@pytest.mark.parametrize(("planted", "kinds"), BAD, ids=name_of)
def test_a_planted_violation_is_found_and_nothing_else(planted: Callable[[], Planted], kinds: set[str]) -> None:
    found = check(*planted())
    assert kinds == {violation.kind for violation in found}
    assert all(violation.detail for violation in found)


def test_every_kind_of_violation_is_planted() -> None:
    assert set(KINDS) == {kind for _, kinds in [*BAD, *BAD_GROUPS] for kind in kinds}


# -- good histories -----------------------------------------------------------------------------------


def everything_once() -> Planted:
    h = history()
    put(h, 0, "x1", "x2")
    read(h, 0, "x1", "x2", end=True)
    put(h, 2, "q1", producer="q")
    h.ok(txn(h, a=("t1",), b=("t2",), group="g", offsets=((A, 2),), generation=1), (3, 0))
    fetched(h, 2)
    read(h, 2, "q1", "t1", end=True)
    read(h, 4, end=True)
    read(h, 0, "x1", "x2", "q1", "t1", seek=True)
    read(h, 0, "x1", reader="s")
    committed(h, 4, generation=1)
    fetched(h, 4)
    h.declare(Pipeline(group="g", inputs=(B,), outputs=(A,)))
    return h, final("x1", "x2", "q1", "t1", b=("t2",), offset=4)


def unknown_calls_that_took_effect() -> Planted:
    h = history()
    h.unknown(put(h, None, "x"))
    put(h, None, "y")  # never ended
    h.unknown(txn(h, a=("z",), b=("w",), group="g", offsets=((A, 1),)))
    return h, final("x", "y", "z", b=("w",), offset=1)


def unknown_calls_that_did_not() -> Planted:
    h = history()
    h.unknown(put(h, None, "x"))
    put(h, None, "y")
    committed(h, 1)
    h.unknown(txn(h, a=("z",), b=("w",), group="g", offsets=((A, 2),)))
    h.unknown(commit(h, 3))
    return h, final(offset=1)


def a_repeated_append_is_answered_alike() -> Planted:
    h = history()
    h.unknown(put(h, None, "x", epoch=1))
    put(h, 1, "y", epoch=2)
    put(h, 0, "x", epoch=1)  # the fenced owner asks again about what it had written before
    return h, final("x", "y")


def a_refused_call_repeated_with_success() -> Planted:
    h = history()
    h.fail(put(h, None, "x"), "Throttled")
    put(h, 0, "x")
    h.fail(txn(h, a=("y",), b=("z",)), "Fenced")
    read(h, 0, "x", end=True)
    h.ok(txn(h, a=("y",), b=("z",), epoch=1), (1, 0))
    return h, final("x", "y", b=("z",))


def a_transaction_redone_in_smaller_parts() -> Planted:
    h = history()
    h.unknown(txn(h, a=("x", "y")))
    h.ok(txn(h, a=("x",), epoch=1), (0,))
    return h, final("x")


def duplicates_that_nobody_promised_to_prevent() -> Planted:
    h = history()
    put(h, 0, "x", idempotent=False)
    put(h, 2, "y", idempotent=False)
    return h, final("x", "x", "y", "x")


def a_declared_gap() -> Planted:
    h = history()
    put(h, 0, "x")
    h.fail(txn(h, a=("t1", "t2")))
    h.fail(txn(h, a=("t3",)))
    put(h, 4, "y")
    h.declare(Gap(tp=A, start=1, end=3))
    h.declare(Gap(tp=A, start=3, end=4))
    call = h.invoke("r", Read(reader="r", tp=A, start=0))
    h.ok(call, Got(records=((0, "x"), (4, "y")), next=5, to_end=True))
    return h, Final(records={A: [(0, "x"), (4, "y")]}, offsets={})


def records_below_the_log_start() -> Planted:
    h = history()
    put(h, 0, "x", "y")
    h.unknown(txn(h, a=("z",), b=("w",)))
    read(h, 0, "x", "y", "z")
    put(h, 3, "v")
    return h, Final(records={A: [(3, "v")], B: [(0, "w")]}, offsets={}, log_start={A: 3})


def concurrent_calls_in_either_order() -> Planted:
    h = history()
    first, second = put(h, None, "x", producer="p"), put(h, None, "y", producer="q")
    reading = h.invoke("r", Read(reader="r", tp=A, start=0))
    h.ok(first, 1)
    h.ok(second, 0)
    h.ok(reading, Got(records=(), next=0, to_end=True))  # it began before either was acknowledged
    one, other = commit(h, 1), commit(h, 2, owner="d")
    fetched(h, None)
    h.ok(other)
    h.ok(one)
    return h, final("y", "x", offset=1)


def offsets_that_go_back_on_purpose_or_by_a_late_commit() -> Planted:
    h = history()
    h.unknown(commit(h, 1))
    committed(h, 5)
    fetched(h, 5)
    fetched(h, 1)
    committed(h, 9)
    fetched(h, 9)
    committed(h, 2, owner="admin")
    fetched(h, 2)
    return h, final(offset=2)


def a_crash_leaves_its_calls_open() -> Planted:
    h = history()
    call = put(h, None, "x")
    h.crash("p")
    h.unknown(call, "CancelledError")  # the dying task reports, too late
    assert ["invoke", "note", "unknown"] == [event.kind for event in h.events]
    return h, final("x")


GOOD: list[Callable[[], Planted]] = [
    everything_once,
    unknown_calls_that_took_effect,
    unknown_calls_that_did_not,
    a_repeated_append_is_answered_alike,
    a_refused_call_repeated_with_success,
    a_transaction_redone_in_smaller_parts,
    duplicates_that_nobody_promised_to_prevent,
    a_declared_gap,
    records_below_the_log_start,
    concurrent_calls_in_either_order,
    offsets_that_go_back_on_purpose_or_by_a_late_commit,
    a_crash_leaves_its_calls_open,
    lambda: pipeline(("f:y", "f:x"), 2),
    lambda: pipeline((), 0),
]


@pytest.mark.parametrize("clean", GOOD, ids=name_of)
def test_a_clean_history_is_clean(clean: Callable[[], Planted]) -> None:
    assert [] == check(*clean())


def test_offsets_are_judged_only_if_they_were_asked_for() -> None:
    h, end = offset_lost()
    assert [] == check(h, Final(records=end.records))


# -- the history itself -------------------------------------------------------------------------------


def test_the_digest_tells_histories_apart_and_repeats() -> None:
    made: list[Callable[[], Planted]] = [
        lost,
        misplaced,
        everything_once,
        gap,
        a_declared_gap,
        lambda: pipeline(("f:x",), 1),
    ]
    digests = [plant()[0].digest() for plant in made]
    assert digests == [plant()[0].digest() for plant in made]
    assert len(made) == len(set(digests))


def test_a_digest_covers_time_answers_and_declarations() -> None:
    def with_(now: float, base: int, *, declared: bool = False) -> str:
        h = History(lambda: now)
        put(h, base, "x")
        if declared:
            h.declare(Gap(tp=A, start=0, end=1))
        return h.digest()

    assert 4 == len({with_(0, 0), with_(1, 0), with_(0, 1), with_(0, 0, declared=True)})


def test_a_call_ends_once() -> None:
    h = history()
    call = put(h, 0, "x")
    with pytest.raises(AssertionError, match="once"):
        h.ok(call, 0)


def test_one_base_offset_stands_for_one_send() -> None:
    h = history()
    call = h.invoke("p", Append(producer="p", sends=((A, ("x",)),)))
    h.ok(call, 3)
    fetched(h, 3)
    assert [(3,), 3] == [event.answer for event in h.events if event.kind == "ok"]


# -- the kit together: a toy log, right and wrong -----------------------------------------------------


async def toy_append(store: SimStore, uid: str, slot: int, bug: str) -> int:
    """Put one record into the first free slot of a log of one object per offset (R2 in twelve lines)."""
    while True:
        try:
            await store.put_if_absent(f"log/{slot:06}", uid.encode())
        except AlreadyExists:
            if bug != "a 412 is always somebody else's" and await toy_get(store, slot) == uid:
                return slot
            slot += 1
        except Indeterminate:
            slot += bug == "after silence take the next slot"
        except Conflict:
            slot += bug == "a 409 has a winner"
        except HeadwaterError:
            if bug == "a 503 is an ack":
                return slot
        else:
            return slot


async def toy_get(store: SimStore, slot: int) -> str | None:
    while True:
        try:
            return (await store.get(f"log/{slot:06}")).data.decode()
        except NotFound:
            return None
        except HeadwaterError:
            await sim_loop().sleep(0.1)


async def toy_writer(h: History, store: SimStore, name: str, bug: str) -> None:
    slot = 0
    for n in range(6):
        uid = f"{name}-{n}"
        call = put(h, None, uid, producer=name)
        slot = await toy_append(store, uid, slot, bug)
        h.ok(call, slot)


async def toy_reader(h: History, store: SimStore, name: str, bug: str) -> None:
    slot = 0
    for _ in range(20):
        call = h.invoke(name, Read(reader=name, tp=A, start=slot))
        uid = await toy_get(store, slot)
        records = () if uid is None else ((slot, uid),)
        slot += len(records)
        h.ok(call, Got(records=records, next=slot, to_end=uid is None))
        slot += bug == "a reader counts twice" and slot == 5
        await sim_loop().sleep(0.05)


async def toy_world(seed: int, bug: str) -> Planted:
    loop, rng = sim_loop(), random.Random(seed)
    h, bucket = History(loop.time), SimBucket(loop)
    faults = Faults.swarm(rng, rate_max=0.08, timeout_s=1.0, late_s=(0.01, 30.0))
    tasks = []
    for n, work in enumerate([toy_writer] * 3 + [toy_reader] * 2):
        crash_at = rng.choice([None, None, rng.randrange(1, 40)])
        process = Process(f"p{n}", loop, crash_at=crash_at, on_crash=lambda dead: h.crash(dead.name))
        store = SimStore(
            bucket, loop=loop, rng=random.Random(rng.random()), profile=S3_EXPRESS, faults=faults, process=process
        )
        tasks.append(process.spawn(work(h, store, process.name, bug)))
    await asyncio.gather(*tasks, return_exceptions=True)
    await loop.sleep(100)  # what is late has landed
    records = [(int(key[4:]), bucket.objects[key].data.decode()) for key in bucket.keys]
    return h, Final(records={A: records})


def test_a_right_toy_log_passes_every_seed_and_repeats_itself() -> None:
    for seed in range(40):
        h, end = run(toy_world(seed, ""))
        assert [] == check(h, end)
        if seed < 5:
            assert h.digest() == run(toy_world(seed, ""))[0].digest()


TOY_BUGS = {
    "after silence take the next slot": {"duplicate", "gap", "disorder"},
    "a 412 is always somebody else's": {"duplicate", "gap", "disorder"},
    "a 409 has a winner": {"gap"},
    "a 503 is an ack": {"lost", "misplaced"},
    "a reader counts twice": {"skipped"},
}


@pytest.mark.parametrize("bug", TOY_BUGS)
def test_a_wrong_toy_log_is_found_out(bug: str) -> None:
    found = {violation.kind for seed in range(40) for violation in check(*run(toy_world(seed, bug)))}
    assert found & TOY_BUGS[bug]
