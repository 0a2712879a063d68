"""Branches share every object with their origin, and neither can harm the other."""

from __future__ import annotations

import random

import pytest

from headwater.errors import AlreadyExists, Conflict, InvalidRequest, NotFound, Unavailable
from headwater.log import keys
from headwater.log.batch import batch_of_records
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.memory import MemoryStore
from headwater.types import Batch, Record
from headwater.upkeep.branch import Branch, branch, branches, drop_branch
from tests.log.helpers import simulate


def words(*values: str) -> Batch:
    return batch_of_records([Record(key=b"k", value=each.encode()) for each in values], default_timestamp=5)


async def opened(store: MemoryStore, name: str = "main", seed: int = 1) -> Namespace:
    clock = SimClock(sim_loop(), start_ms=1_000_000)
    options = Options(inline_bytes_max=200, snapshot_every=5)  # some batches lie in segments
    return await Namespace.open(store, name, clock=clock, rng=random.Random(seed), options=options)


async def contents(space: Namespace, topic: str = "t") -> list[bytes]:
    await space.refresh()
    found: list[bytes] = []
    for number, place in enumerate(space.topic(topic).partitions):
        async for chunk in space.reader.chunks(topic, number, place.start):
            found += chunk.decode().column("value").to_pylist()
    return found


async def origin(store: MemoryStore) -> Namespace:
    main = await opened(store)
    await main.create_topic("t")
    await main.create_topic("other")
    for i in range(8):
        await main.append("t", 0, words(f"a{i}", "x" * (50 * i)))
    await main.append("other", 0, words("o"))
    await main.commit_offsets("g", {("t", 0): 4, ("other", 0): 1})
    return main


VALUES = [value for i in range(8) for value in (f"a{i}".encode(), b"x" * (50 * i))]


def test_a_branch_begins_as_its_origin_was_and_goes_its_own_way() -> None:
    async def main() -> None:
        store = MemoryStore()
        one = await origin(store)
        made = await branch(one, "copy")
        assert Branch(namespace="copy", origin="main", commit=one.state.seq) == made
        await one.append("t", 0, words("theirs"))
        copy = await opened(store, "copy", 2)
        assert VALUES == await contents(copy)
        assert 4 == (await copy.committed("g"))["t", 0].offset
        await copy.append("t", 0, words("ours"))
        await copy.create_topic("mine")
        for i in range(20):
            await copy.append("mine", 0, words(f"m{i}"))
        await copy.drain()
        assert [*VALUES, b"ours"] == await contents(copy)
        assert [*VALUES, b"theirs"] == await contents(one)
        again = await opened(store, "copy", 3)
        assert [*VALUES, b"ours"] == await contents(again)
        assert 20 == len(await contents(again, "mine"))
        assert [made] == await branches(one)

    simulate(main())


def test_no_object_is_copied() -> None:
    async def main() -> None:
        store = MemoryStore()
        one = await origin(store)
        await branch(one, "copy")
        theirs = [key async for key in _under(store, "copy/")]
        assert ["boundary", "latest", "manifest", "snapshot"] == sorted(key.split("/")[1] for key in theirs)

    simulate(main())


def test_a_branch_of_an_earlier_commit_and_of_one_topic() -> None:
    async def main() -> None:
        store = MemoryStore()
        one = await origin(store)
        await branch(one, "early", at=4)
        early = await opened(store, "early", 2)
        assert VALUES[:4] == await contents(early)
        await branch(one, "single", topic="t")
        single = await opened(store, "single", 3)
        assert VALUES == await contents(single)
        assert ["t"] == list(single.state.names)
        assert {("t", 0)} == set(await single.committed("g"))
        await single.create_topic("other")

    simulate(main())


def test_a_branch_of_a_branch_reads_all_three_folders() -> None:
    async def main() -> None:
        store = MemoryStore()
        one = await origin(store)
        await branch(one, "b1")
        b1 = await opened(store, "b1", 2)
        await b1.append("t", 0, words("b1", "y" * 300))
        await branch(b1, "b2")
        b2 = await opened(store, "b2", 3)
        await b2.append("t", 0, words("b2"))
        for i in range(20):
            await b2.append("other", 0, words(f"z{i}"))
        await b2.drain()
        assert [*VALUES, b"b1", b"y" * 300, b"b2"] == await contents(await opened(store, "b2", 4))
        with pytest.raises(Conflict, match="b2"):
            await drop_branch(one, "b1")
        with pytest.raises(NotFound, match="itself a branch"):
            await branch(b1, "b3", at=2)
        assert await drop_branch(b1, "b2") > 20
        assert await drop_branch(one, "b1") > 2
        assert [] == await branches(one)
        assert [] == [key async for key in _under(store, "b1/")]
        assert VALUES == await contents(one)

    simulate(main())


def test_names_that_are_taken_stay_what_they_are() -> None:
    async def main() -> None:
        store = MemoryStore()
        one = await origin(store)
        other = await opened(store, "taken", 2)
        await other.create_topic("t")
        await other.append("t", 0, words("mine"))
        with pytest.raises(AlreadyExists):
            await branch(one, "taken")
        await branch(one, "copy")
        with pytest.raises(AlreadyExists):
            await branch(one, "copy", topic="t")
        for name in ("main", "A", "a/b", ""):
            with pytest.raises(InvalidRequest):
                await branch(one, name)
        with pytest.raises(NotFound):
            await branch(one, "x", topic="nothing")
        with pytest.raises(NotFound):
            await branch(one, "x", at=99)
        with pytest.raises(NotFound):
            await drop_branch(one, "taken")
        assert [b"mine"] == await contents(other)
        assert ["copy"] == [each.namespace for each in await branches(one)]

    simulate(main())


def test_a_pin_of_a_name_that_another_took_does_not_delete_the_other() -> None:
    async def main() -> None:
        store = MemoryStore()
        one = await origin(store)
        await branch(one, "copy")
        pin = f"main/{keys.branch_key(one.state.seq, 'copy')}"
        kept = (await store.get(pin)).data
        await drop_branch(one, "copy")
        fresh = await opened(store, "copy", 2)
        await fresh.create_topic("t")
        await fresh.append("t", 0, words("mine"))
        await store.put(pin, kept)
        assert 0 == await drop_branch(one, "copy")
        assert [b"mine"] == await contents(await opened(store, "copy", 3))

    simulate(main())


def test_whoever_opened_the_name_while_it_was_empty_starts_again_on_the_branch() -> None:
    async def main() -> None:
        store = MemoryStore()
        one = await origin(store)
        sleeper = await opened(store, "copy", 2)
        await branch(one, "copy")
        with pytest.raises(Unavailable, match="branch of 'main'"):
            await sleeper.refresh()
        assert VALUES == await contents(sleeper)
        await sleeper.append("t", 0, words("late"))
        assert [*VALUES, b"late"] == await contents(await opened(store, "copy", 3))

    simulate(main())


class Dying(MemoryStore):
    """Fails every request from the ``left``-th write on."""

    left = 1 << 30

    async def put(self, key, body):  # type: ignore[no-untyped-def]
        self._count()
        return await super().put(key, body)

    async def put_if_absent(self, key, body):  # type: ignore[no-untyped-def]
        self._count()
        return await super().put_if_absent(key, body)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise InvalidRequest("the process died here")


def test_a_branch_that_was_interrupted_anywhere_is_finished_by_the_same_call() -> None:
    async def main() -> None:
        for alive in range(12):
            store = Dying()
            one = await origin(store)
            await one.drain()
            commit = one.state.seq
            store.left = alive
            try:
                await branch(one, "copy")
                done = True
            except InvalidRequest:
                done = False
            store.left = 1 << 30
            await one.append("t", 0, words("later"))
            if done:
                return
            made = await branch(await opened(store, seed=9), "copy")
            copy = await opened(store, "copy", 2)
            late = made.commit > commit
            assert [*VALUES, *([b"later"] if late else [])] == await contents(copy)
        raise AssertionError("it never came to its end")

    simulate(main())


async def _under(store: MemoryStore, prefix: str):  # type: ignore[no-untyped-def]
    async for stat in store.list(prefix):
        yield stat.key
