"""Documents: one change after another, whoever makes them, on stores that say little and answer late."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from headwater.api.documents import Document, Documents, Held
from headwater.errors import Corrupt, Indeterminate, InvalidRequest, NotFound, Unavailable, UpgradeRequired
from headwater.log.chain import Chain
from headwater.sim.loop import sim_loop
from headwater.store.base import Blob, ObjectStore
from tests.log.helpers import Parts, memory, simulate
from tests.log.helpers_store import Act, Scripted, away, lost_answer, lost_request, then


class Count(Document, frozen=True, kw_only=True):
    count: int = 0
    text: str = ""


def counts(store: ObjectStore, seed: int = 1) -> Documents[Count]:
    chain: Chain = Parts(store, seed=seed).chain
    return Documents(chain, Count, folder="count", what="counter")


def one_more(held: Held[Count]) -> Count:
    return structs.replace(held.doc, count=held.doc.count + 1)


def up_to(count: int) -> Any:
    """A decision that knows its own work when it sees it."""
    return lambda held: one_more(held) if held.doc.count < count else None


def test_changes_of_many_processes_follow_one_another() -> None:
    async def main() -> None:
        store = memory()
        name = await counts(store).create(Count())

        async def add(seed: int) -> None:
            documents = counts(store, seed)
            for _ in range(5):
                await documents.change(await documents.load(name, ""), one_more)

        await asyncio.gather(*(add(seed) for seed in range(2, 10)))
        assert 40 == (await counts(store).load(name, "")).doc.count

    simulate(main())


def test_the_age_is_told_by_the_stores_clock_through_all_changes() -> None:
    async def main() -> None:
        documents = counts(memory())
        name = await documents.create(Count())
        born_ms = (await documents.load(name, "")).begun_ms
        for second in range(1, 4):
            await sim_loop().sleep(1)
            held = await documents.load(name, "")
            assert (born_ms, second * 1_000) == (held.begun_ms, held.now_ms - held.begun_ms)
            assert (True, False) == (held.older_than(second * 1_000 - 1), held.older_than(second * 1_000))
            await documents.change(held, one_more)

    simulate(main())


def _taciturn(answer: Blob) -> Blob:
    return structs.replace(answer, stat=structs.replace(answer.stat, date_ms=-1))


async def taciturn(store: Scripted, act: Act) -> Any:
    return _taciturn(await act())


def test_a_store_that_does_not_tell_the_time_with_its_objects_is_asked_for_it() -> None:
    async def main() -> None:
        store = Scripted(memory())
        store.always["get"] = taciturn
        documents = counts(store)
        name = await documents.create(Count())
        await sim_loop().sleep(2)
        held = await documents.load(name, "")
        assert (2_000, 1) == (held.now_ms - held.begun_ms, store.calls["head"])

    simulate(main())


def test_a_document_that_changes_between_two_looks_is_looked_at_again() -> None:
    async def main() -> None:
        inner = memory()
        other = counts(inner, 2)
        name = await other.create(Count())
        store = Scripted(inner)

        async def change() -> None:
            await sim_loop().sleep(3)
            await other.change(await other.load(name, ""), one_more)

        store.always["get"] = taciturn
        store.will("get", _then_taciturn(then(change)))
        held = await counts(store).load(name, "")
        assert (1, 3_000, 2) == (held.doc.count, held.now_ms - held.begun_ms, store.calls["head"])

    simulate(main())


def _then_taciturn(step: Any) -> Any:
    async def both(store: Scripted, act: Act) -> Any:
        return _taciturn(await step(store, act))

    return both


@pytest.mark.parametrize("trouble", [lost_answer, lost_request, away])
def test_a_change_that_knows_its_own_work_is_made_once(trouble: Any) -> None:
    async def main() -> None:
        store = Scripted(memory())
        documents = counts(store)
        store.will("put_if_absent", trouble, trouble)
        name = await documents.create(Count())
        store.will("put_if_match", trouble, trouble, trouble)
        held = await documents.change(await documents.load(name, ""), up_to(1))
        assert (1, held.doc) == (held.doc.count, (await documents.load(name, "")).doc)

    simulate(main())


def test_a_write_that_lands_late_changes_nothing_that_came_after_it() -> None:
    async def main() -> None:
        inner = memory()
        store = Scripted(inner)
        late: list[Act] = []

        async def kept(store: Scripted, act: Act) -> Any:
            late.append(act)
            raise Indeterminate("No answer yet.")

        documents = counts(store)
        store.will("put_if_absent", kept)
        name = await documents.create(Count())
        store.will("put_if_match", kept)
        await documents.change(await documents.load(name, ""), up_to(1))
        for act in late:
            with pytest.raises(Exception, match=r"taken|changed"):
                await act()
        assert 1 == (await documents.load(name, "")).doc.count

    simulate(main())


@pytest.mark.parametrize(("trouble", "error"), [(lost_request, Indeterminate), (away, Unavailable)])
def test_the_deadline_says_what_is_known(trouble: Any, error: type[Exception]) -> None:
    async def main() -> None:
        store = Scripted(memory())
        documents = counts(store)
        name = await documents.create(Count())
        held = await documents.load(name, "")
        store.always["put_if_match"] = trouble
        with pytest.raises(error):
            await documents.change(held, one_more)
        del store.always["put_if_match"]
        store.will("put_if_match", lost_answer)
        store.always["get"] = away
        with pytest.raises(Indeterminate):  # it is in, and cannot be looked at
            await documents.change(held, one_more)

    simulate(main())


def test_bytes_that_are_no_document_are_corrupt_and_newer_ones_ask_for_an_upgrade() -> None:
    async def main() -> None:
        store = memory()
        documents = counts(store)
        name = await documents.create(Count())
        for body, error in (
            (b"", Corrupt),
            (b"{", Corrupt),
            (b"\xff", Corrupt),
            (b"[]", Corrupt),
            (b'{"count":"x"}', Corrupt),
            (b'{"count":1,"colour":"red"}', UpgradeRequired),
            (b'{"v":2,"count":[]}', UpgradeRequired),
            (b'{"v":2}', UpgradeRequired),
            (b"[" * 100_000, Corrupt),
        ):
            await store.put(f"count/{name}", body)
            with pytest.raises(error) as caught:
                await documents.load(name, "")
            assert f"count/{name}" == caught.value.data["key"]

    simulate(main())


def test_a_document_is_bounded_and_belongs_to_one() -> None:
    async def main() -> None:
        documents = counts(memory())
        with pytest.raises(InvalidRequest, match="at most"):
            await documents.create(Count(text="x" * (4 << 20)))
        name = await documents.create(Count(principal="ann"))
        for principal in ("", "bob", "ANN"):
            with pytest.raises(NotFound):
                await documents.load(name, principal)
        held = await documents.load(name, "ann")
        with pytest.raises(InvalidRequest):
            await documents.change(held, lambda now: structs.replace(now.doc, text="x" * (4 << 20)))
        await documents.chain.store.delete([f"count/{name}"])
        with pytest.raises(NotFound):
            await documents.change(held, one_more)

    simulate(main())
