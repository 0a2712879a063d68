"""Transactions of several requests: all or nothing, once, whatever process serves which request and dies where."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from headwater.api.documents import Documents
from headwater.api.transactions import TransactionDocument, Transactions
from headwater.api.verbs import GroupOffset, GroupOffsets, ProducerId, Written
from headwater.errors import Conflict, Fenced, HeadwaterError, Indeterminate, InvalidRequest, NotFound, Unavailable
from headwater.limits import DOCUMENT_KEEP_MS, TRANSACTION_MS_MAX, WINDOW
from headwater.log import keys
from headwater.log.namespace import Namespace
from headwater.log.operations import RaiseFloor
from headwater.log.outcomes import ExpiredTransaction, UnknownProducer
from headwater.sim.loop import sim_loop
from headwater.store.memory import MemoryStore
from headwater.types import Batch
from tests.api.helpers_crash import Crash, mortal
from tests.log.helpers import blob, keys_under, memory, opened, simulate
from tests.log.helpers_store import Scripted, away, lost_answer, lost_request, raced

BATCHES = [("t", 0, blob(count=2)), ("t", 1, blob(count=3, size=40))]
OFFSETS = GroupOffsets(group="g", offsets={("t", 0): GroupOffset(offset=7, metadata="m")})


async def start(store: MemoryStore) -> tuple[Namespace, ProducerId]:
    """A namespace with the topic ``t`` of two partitions, and a transactional producer."""
    namespace = await opened(store)
    await namespace.create_topic("t", 2)
    return namespace, await producer_of(namespace)


async def producer_of(namespace: Namespace, tid: str = "tx") -> ProducerId:
    made = await namespace.producer(tid)
    return ProducerId(id=made.id, epoch=made.epoch, transactional_id=tid)


async def ends(store: MemoryStore) -> tuple[list[int], dict[tuple[str, int], int]]:
    """What anyone sees: where each partition of ``t`` ends, and what ``g`` has committed. Every byte is readable."""
    namespace = await opened(store, seed=99)
    for partition in (0, 1):
        async for _ in namespace.reader.chunks("t", partition, 0):
            pass
    committed = await namespace.committed("g")
    return (
        [partition.next for partition in namespace.topic("t").partitions],
        {place: found.offset for place, found in committed.items()},
    )


NOTHING: tuple[list[int], dict[tuple[str, int], int]] = ([0, 0], {})
ALL = ([2, 3], {("t", 0): 7})


def test_nothing_is_visible_before_commit_and_everything_after() -> None:
    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        transactions = Transactions(namespace)
        tx = await transactions.begin(producer)
        await transactions.add(tx, BATCHES[:1])
        await transactions.add(tx, BATCHES[1:], [OFFSETS])
        assert NOTHING == await ends(store)
        written = await transactions.commit(tx)
        assert ALL == await ends(store)
        assert [("t", 0, 0, 2), ("t", 1, 0, 3)] == [
            (a.topic, a.partition, a.base_offset, a.count) for a in written.appended
        ]
        assert {written.commit} == {a.commit for a in written.appended}
        assert replace(producer, epoch=producer.epoch + 1) == written.producer
        assert "m" == (await namespace.committed("g"))["t", 0].metadata
        assert written == await transactions.commit(tx)
        assert ALL == await ends(store)

    simulate(main())


def test_each_request_may_be_served_by_another_process() -> None:
    async def main() -> None:
        store = memory()
        _, producer = await start(store)
        places = [Transactions(await opened(store, seed=seed)) for seed in range(2, 7)]
        tx = await places[0].begin(producer)
        await places[1].add(tx, BATCHES[:1])
        await places[2].add(tx, BATCHES[1:], [OFFSETS])
        written = await places[3].commit(tx)
        assert written == await places[4].commit(tx)
        assert ALL == await ends(store)

    simulate(main())


def test_a_transaction_that_only_moves_offsets_or_does_nothing_commits_too() -> None:
    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        transactions = Transactions(namespace)
        tx = await transactions.begin(producer)
        await transactions.add(tx, [], [OFFSETS])
        written = await transactions.commit(tx)
        assert [] == list(written.appended)
        assert ([0, 0], {("t", 0): 7}) == await ends(store)
        empty = await transactions.begin(written.producer)
        await transactions.add(empty, [])
        assert written.producer.epoch + 1 == (await transactions.commit(empty)).producer.epoch

    simulate(main())


# -- aborting, and being too late -----------------------------------------------------------------------


def test_an_aborted_transaction_leaves_nothing_and_may_be_aborted_again() -> None:
    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        transactions = Transactions(namespace)
        tx = await transactions.begin(producer)
        await transactions.add(tx, BATCHES, [OFFSETS])
        await transactions.abort(tx)
        await transactions.abort(tx)
        assert NOTHING == await ends(store)
        with pytest.raises(Conflict, match="aborted"):
            await transactions.commit(tx)
        with pytest.raises(Conflict, match="aborted"):
            await transactions.add(tx, BATCHES)

    simulate(main())


def test_after_commit_neither_abort_nor_add_is_possible() -> None:
    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        transactions = Transactions(namespace)
        tx = await transactions.begin(producer)
        await transactions.add(tx, BATCHES, [OFFSETS])
        await transactions.commit(tx)
        with pytest.raises(Conflict, match="committed"):
            await transactions.abort(tx)
        with pytest.raises(Conflict, match="committed"):
            await transactions.add(tx, BATCHES)
        assert ALL == await ends(store)

    simulate(main())


@pytest.mark.parametrize(("waited_ms", "expired"), [(60_000, False), (60_001, True)])
def test_a_transaction_expires_by_the_stores_clock_one_past_its_time(waited_ms: int, expired: bool) -> None:
    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        transactions = Transactions(namespace)
        tx = await transactions.begin(producer, 60_000)
        await transactions.add(tx, BATCHES, [OFFSETS])
        await sim_loop().sleep(waited_ms / 1_000)
        if not expired:
            await transactions.commit(tx)
            assert ALL == await ends(store)
            return
        with pytest.raises(ExpiredTransaction, match="had 60000 ms"):
            await transactions.add(tx, BATCHES)
        for _ in range(2):
            with pytest.raises(ExpiredTransaction) as caught:
                await transactions.commit(tx)
        assert ("no", 409) == (caught.value.applied, caught.value.status)
        await transactions.abort(tx)
        assert NOTHING == await ends(store)

    simulate(main())


def test_a_commit_that_began_in_time_is_finished_after_it() -> None:
    async def main() -> None:
        store = memory()
        _, producer = await start(store)
        dying, namespace = await mortal(store, seed=2)
        transactions = Transactions(namespace)
        tx = await transactions.begin(producer, 1_000)
        await transactions.add(tx, BATCHES, [OFFSETS])
        dying.dies(1, applied=False)  # the document says committing, and the manifest is not written
        with pytest.raises((Crash, HeadwaterError)):
            await transactions.commit(tx)
        await sim_loop().sleep(100)
        later = Transactions(await opened(store, seed=3))
        with pytest.raises(Conflict, match="commit again"):
            await later.abort(tx)
        await later.commit(tx)
        assert ALL == await ends(store)

    simulate(main())


def test_a_newer_epoch_fences_the_commit_for_ever() -> None:
    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        transactions = Transactions(namespace)
        tx = await transactions.begin(producer)
        await transactions.add(tx, BATCHES, [OFFSETS])
        successor = await producer_of(await opened(store, seed=2))
        assert producer.epoch + 1 == successor.epoch
        for _ in range(2):
            with pytest.raises(Fenced):
                await transactions.commit(tx)
        with pytest.raises(Fenced):
            await transactions.add(tx, BATCHES)
        await transactions.abort(tx)
        with pytest.raises(Fenced):
            await transactions.begin(producer)
        assert NOTHING == await ends(store)

    simulate(main())


def test_bytes_that_were_collected_abort_the_transaction() -> None:
    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        transactions = Transactions(namespace)
        tx = await transactions.begin(producer)
        await transactions.add(tx, BATCHES)
        await namespace.writer.commit(ops=[RaiseFloor(floor=namespace.state.seq + 1)])
        for _ in range(2):
            with pytest.raises(NotFound, match="collected"):
                await transactions.commit(tx)
        assert NOTHING == await ends(store)

    simulate(main())


# -- crashes --------------------------------------------------------------------------------------------


async def _all_of_it(namespace: Namespace, producer: ProducerId) -> str:
    transactions = Transactions(namespace)
    tx = await transactions.begin(producer)
    await transactions.add(tx, BATCHES[:1])
    await transactions.add(tx, BATCHES[1:], [OFFSETS])
    return tx


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("manifests", [0, WINDOW - 2, WINDOW + 5])
def test_a_crash_at_any_write_of_commit_is_finished_by_the_next_call(applied: bool, manifests: int) -> None:
    """… also when so many manifests have passed that nobody remembers the intent."""

    async def crashed_at(write: int) -> bool:
        store = memory()
        _, producer = await start(store)
        dying, namespace = await mortal(store, seed=2)
        tx = await _all_of_it(namespace, producer)
        dying.dies(write, applied=applied)
        try:
            first = await Transactions(namespace).commit(tx)
        except (Crash, HeadwaterError):
            first = None
        later = await opened(store, seed=3)
        await pass_by(later, manifests)
        written = await Transactions(later).commit(tx)
        assert first in (None, written)
        assert ALL == await ends(store)
        assert written == await Transactions(await opened(store, seed=4)).commit(tx)
        assert ALL == await ends(store)
        return dying.dead

    async def main() -> None:
        deaths = [await crashed_at(write) for write in range(5)]
        assert [True, True, True, False, False] == deaths  # committing, the manifest, committed

    simulate(main())


async def pass_by(namespace: Namespace, manifests: int) -> None:
    await namespace.refresh()
    for _ in range(manifests):
        await namespace.writer.commit(ops=[RaiseFloor(floor=0)])
    await namespace.drain()


@pytest.mark.parametrize("applied", [False, True])
def test_an_add_that_died_is_in_wholly_or_not_at_all(applied: bool) -> None:
    async def main() -> None:
        for write, inside in ((0, False), (1, applied)):  # the segment, the document
            store = memory()
            _, producer = await start(store)
            dying, namespace = await mortal(store, seed=2)
            tx = await Transactions(namespace).begin(producer)
            dying.dies(write, applied=applied)
            with pytest.raises((Crash, HeadwaterError)):
                await Transactions(namespace).add(tx, BATCHES, [OFFSETS])
            await Transactions(await opened(store, seed=3)).commit(tx)
            assert (ALL if inside else NOTHING) == await ends(store)

    simulate(main())


def test_many_who_commit_at_once_commit_once_and_hear_the_same() -> None:
    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        tx = await _all_of_it(namespace, producer)
        places = [Transactions(await opened(store, seed=seed)) for seed in range(2, 8)]
        first, *others = await asyncio.gather(*(place.commit(tx) for place in places))
        assert [first] * 5 == others
        assert ALL == await ends(store)

    simulate(main())


def test_a_void_commit_that_was_never_made_is_made_anew_under_a_fresh_identity() -> None:
    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        transactions = Transactions(namespace)
        tx = await _all_of_it(namespace, producer)
        documents = Documents(namespace.chain, TransactionDocument, folder="transaction", what="transaction")
        held = await documents.change(await documents.load(tx, ""), transactions._committing)
        await pass_by(namespace, WINDOW)
        await transactions.commit(tx)
        now = await documents.load(tx, "")
        assert ("done", True, True) == (
            now.doc.state,
            now.doc.intent != held.doc.intent,
            now.doc.tip >= held.doc.tip + WINDOW,
        )
        assert ALL == await ends(store)

    simulate(main())


def test_an_outcome_that_was_collected_is_never_guessed() -> None:
    async def main() -> None:
        store = memory()
        _, producer = await start(store)
        dying, namespace = await mortal(store, seed=2)
        tx = await _all_of_it(namespace, producer)
        dying.dies(1, applied=True)
        with pytest.raises((Crash, HeadwaterError)):
            await Transactions(namespace).commit(tx)
        later = await opened(store, seed=3)
        await pass_by(later, 2 * WINDOW)
        await later.house.snapshot()
        seq = later.state.seq
        await store.put(f"ns/{keys.boundary_key(seq)}", b"")
        old = [stat.key async for stat in store.list("ns/snapshot/") if not stat.key.endswith(str(seq))]
        await store.delete([*old, *(f"ns/{keys.manifest_key(number)}" for number in range(1, seq))])
        with pytest.raises(Indeterminate, match="no longer known"):
            await Transactions(await opened(store, seed=4)).commit(tx)
        assert ALL == await ends(store)

    simulate(main())


# -- a store that falls silent ------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [lost_answer, lost_request, raced, away])
def test_a_silent_store_neither_loses_nor_doubles_an_add(trouble: Any) -> None:
    async def main() -> None:
        inner = memory()
        _, producer = await start(inner)
        store = Scripted(inner)
        transactions = Transactions(await opened(store, seed=2))
        store.will("put_if_absent", trouble)
        tx = await transactions.begin(producer)
        for batches in (BATCHES[:1], BATCHES[1:]):
            store.will("put_if_match", trouble, trouble)
            await transactions.add(tx, batches, [OFFSETS])
        store.will("put_if_match", trouble)
        store.will("put_if_absent", trouble)
        await transactions.commit(tx)
        assert ALL == await ends(inner)

    simulate(main())


@pytest.mark.parametrize(("trouble", "error"), [(lost_request, Indeterminate), (away, Unavailable)])
def test_a_store_that_stays_away_is_said_to_be(trouble: Any, error: type[HeadwaterError]) -> None:
    async def main() -> None:
        inner = memory()
        _, producer = await start(inner)
        store = Scripted(inner)
        transactions = Transactions(await opened(store, seed=2))
        tx = await transactions.begin(producer, TRANSACTION_MS_MAX)
        store.always["put_if_match"] = trouble
        with pytest.raises(error):
            await transactions.add(tx, BATCHES)
        del store.always["put_if_match"]
        await transactions.commit(tx)
        assert NOTHING == await ends(inner)

    simulate(main())


# -- adders -------------------------------------------------------------------------------------------------


def test_adders_at_once_all_get_in() -> None:
    async def main() -> None:
        store = memory()
        _, producer = await start(store)
        places = [Transactions(await opened(store, seed=seed)) for seed in range(2, 10)]
        tx = await places[0].begin(producer)
        await asyncio.gather(
            *(place.add(tx, [("t", number % 2, blob(count=1, fill=number))]) for number, place in enumerate(places))
        )
        written = await places[0].commit(tx)
        assert 8 == len(written.appended)
        assert ([4, 4], {}) == await ends(store)

    simulate(main())


def test_a_numbered_batch_that_is_added_twice_is_there_once() -> None:
    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        transactions = Transactions(namespace)
        tx = await transactions.begin(producer)
        numbered = [("t", 0, _numbered(producer, 0, 2)), ("t", 1, _numbered(producer, 0, 3))]
        for _ in range(2):
            await transactions.add(tx, numbered)
        await transactions.add(tx, [("t", 0, _numbered(producer, 2, 1))])
        assert [2, 3, 1] == [appended.count for appended in (await transactions.commit(tx)).appended]
        assert ([3, 3], {}) == await ends(store)

    simulate(main())


def test_a_gap_in_the_numbers_refuses_all_of_it() -> None:
    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        transactions = Transactions(namespace)
        tx = await transactions.begin(producer)
        await transactions.add(tx, [("t", 1, _numbered(producer, 0, 1)), ("t", 0, _numbered(producer, 5, 1))])
        with pytest.raises(Conflict, match="sequence 5"):
            await transactions.commit(tx)
        assert NOTHING == await ends(store)

    simulate(main())


def _numbered(producer: ProducerId, sequence: int, count: int) -> Batch:
    return replace(blob(count=count), producer_id=producer.id, producer_epoch=producer.epoch, sequence=sequence)


# -- who may, and what fits -----------------------------------------------------------------------------------


def test_a_transaction_of_somebody_else_does_not_exist() -> None:
    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        transactions = Transactions(namespace)
        tx = await transactions.begin(producer, principal="ann")
        strangers: list[Callable[[], Awaitable[object]]] = [
            lambda: transactions.add(tx, BATCHES, principal="bob"),
            lambda: transactions.commit(tx, principal="bob"),
            lambda: transactions.abort(tx),
        ]
        for act in strangers:
            with pytest.raises(NotFound) as caught:
                await act()
            assert f"There is no transaction {tx!r}." == caught.value.message
        await transactions.commit(tx, principal="ann")

    simulate(main())


@pytest.mark.parametrize(
    "tx", ["", ".", "..", "../manifest/1", "a" * 31, "A" * 32, "a" * 33, "é" * 32, "a" * 31 + "\n"]
)
def test_an_id_that_was_never_given_out_is_not_found_and_reads_nothing(tx: str) -> None:
    async def main() -> None:
        inner = memory()
        await start(inner)
        store = Scripted(inner)
        transactions = Transactions(await opened(store, seed=2))
        before = store.calls.copy()
        with pytest.raises(NotFound, match="There is no transaction"):
            await transactions.commit(tx)
        assert before == store.calls

    simulate(main())


def test_ids_differ_and_have_160_bits() -> None:
    async def main() -> None:
        namespace, producer = await start(memory())
        ids = {await Transactions(namespace).begin(producer) for _ in range(20)}
        assert (20, {32}) == (len(ids), {len(tx) for tx in ids})

    simulate(main())


def test_what_does_not_fit_is_refused_at_the_door() -> None:
    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        transactions = Transactions(namespace)
        for timeout_ms in (0, TRANSACTION_MS_MAX + 1):
            with pytest.raises(InvalidRequest):
                await transactions.begin(producer, timeout_ms)
        with pytest.raises(UnknownProducer):
            await transactions.begin(replace(producer, id=77))
        with pytest.raises(InvalidRequest):
            await transactions.begin(replace(producer, epoch=9))
        tx = await transactions.begin(producer)
        bad: list[tuple[str, int, Batch]] = [
            ("nope", 0, blob()),
            ("t", 2, blob()),
            ("t", -1, blob()),
        ]
        for batch in bad:
            with pytest.raises(NotFound):
                await transactions.add(tx, [batch])
        with pytest.raises(InvalidRequest, match="producer 77"):
            await transactions.add(tx, [("t", 0, blob(producer_id=77, producer_epoch=0))])
        with pytest.raises(InvalidRequest):
            await transactions.add(tx, [("t", 0, blob(size=0))])
        large = {("t", 0): GroupOffset(offset=1, metadata="x" * 4_096)}
        with pytest.raises(InvalidRequest, match="at most"):
            await transactions.add(tx, [], [GroupOffsets(group=f"g{n}", offsets=large) for n in range(600)])
        await transactions.commit(tx)
        assert NOTHING == await ends(store)

    simulate(main())


def test_a_transaction_takes_so_many_batches_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.api.transactions.INTENT_APPENDS_MAX", 3)

    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        transactions = Transactions(namespace)
        tx = await transactions.begin(producer)
        await transactions.add(tx, BATCHES)
        with pytest.raises(InvalidRequest, match="at most 3 batches"):
            await transactions.add(tx, BATCHES)
        await transactions.add(tx, BATCHES[:1])
        assert 3 == len((await transactions.commit(tx)).appended)

    simulate(main())


def test_a_partition_that_another_process_added_is_known() -> None:
    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        other = await opened(store, seed=2)
        await namespace.add_partitions("t", 3)
        transactions = Transactions(other)
        tx = await transactions.begin(producer)
        await transactions.add(tx, [("t", 2, blob())])
        assert 2 == (await transactions.commit(tx)).appended[0].partition

    simulate(main())


def test_documents_are_swept_a_day_after_their_last_change() -> None:
    async def main() -> None:
        store = memory()
        namespace, producer = await start(store)
        transactions = Transactions(namespace)
        old = await transactions.begin(producer)
        await sim_loop().sleep(DOCUMENT_KEEP_MS / 1_000)
        young = await transactions.begin(producer)
        assert 0 == await transactions.sweep()
        await sim_loop().sleep(0.001)
        assert 1 == await transactions.sweep()
        assert [f"ns/transaction/{young}"] == await keys_under(store, "ns/transaction/")
        with pytest.raises(NotFound):
            await transactions.commit(old)

    simulate(main())


def test_written_names_the_producer_under_its_transactional_id() -> None:
    async def main() -> None:
        namespace, producer = await start(memory())
        transactions = Transactions(namespace)
        tx = await transactions.begin(replace(producer, transactional_id=""))
        written: Written = await transactions.commit(tx)
        assert "tx" == written.producer.transactional_id

    simulate(main())
