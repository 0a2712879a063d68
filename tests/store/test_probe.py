from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from headwater.errors import AlreadyExists, Forbidden, Indeterminate, InvalidRequest, Raced, Unavailable
from headwater.store import Body, Stat, open_store
from headwater.store.memory import MemoryStore
from headwater.store.metered import MeteredStore
from headwater.store.probe import PROBE_KEYS, PROBE_WRITERS, probe_conditional_writes
from tests.store.faulty import faulty_s3


class IgnoresTheCondition(MemoryStore):
    """As many servers do: 200 to everybody, and the last one stays."""

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        return await self.put(key, body)


class LooksBeforeItWrites(MemoryStore):
    """The condition is checked, but not in one step with the write."""

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        taken = key in self._shelf.objects
        await asyncio.sleep(0)
        if taken:
            raise AlreadyExists("taken")
        return await self.put(key, body)


class WinnerIsOverwritten(MemoryStore):
    """One is told that it won, and another one's bytes are kept."""

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        if key in self._shelf.objects:
            await self.put(key, b"somebody else's")
            raise AlreadyExists("taken")
        return await self.put(key, body)


class SequentialOverwrite(MemoryStore):
    """Races are fair, but a later writer gets through."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        self.calls[key] = self.calls.get(key, 0) + 1
        return await (self.put if self.calls[key] > PROBE_WRITERS else super().put_if_absent)(key, body)


class RacesHaveNoWinner(MemoryStore):
    """409 to everybody in a race; one alone wins."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        self.calls[key] = self.calls.get(key, 0) + 1
        if self.calls[key] <= PROBE_WRITERS:
            raise Raced("given up")
        return await super().put_if_absent(key, body)


class LosesAnswers(MemoryStore):
    """Honest, but the winner never hears of it."""

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        await super().put_if_absent(key, body)
        raise Indeterminate("lost")


def probe(store: MemoryStore) -> None:
    asyncio.run(probe_conditional_writes(store, rng=random.Random(1)))


async def keys(store: MemoryStore) -> list[str]:
    return [stat.key async for stat in store.list("")]


@pytest.mark.parametrize(
    ("fake", "says"),
    [
        (IgnoresTheCondition, f"{PROBE_WRITERS} of {PROBE_WRITERS} racing writers won"),
        (LooksBeforeItWrites, "racing writers won"),
        (WinnerIsOverwritten, "did not hold the winner's bytes"),
        (SequentialOverwrite, "a taken key was written again"),
    ],
)
def test_a_store_that_fakes_the_condition_is_refused_by_name(fake: Callable[[], MemoryStore], says: str) -> None:
    store = fake()
    store.url = "s3://fake/bucket"
    with pytest.raises(InvalidRequest, match=says) as error:
        probe(store)
    assert "s3://fake/bucket" in str(error.value)
    assert "use a store" in str(error.value)
    assert [] == asyncio.run(keys(store))


@pytest.mark.parametrize("honest", [MemoryStore, RacesHaveNoWinner])
def test_an_honest_store_passes_and_nothing_stays(honest: Callable[[], MemoryStore]) -> None:
    store = honest()
    probe(store)
    probe(store)
    assert [] == asyncio.run(keys(store))


def test_lost_answers_prove_nothing_against_a_store() -> None:
    class LateIsRefused(LosesAnswers):
        async def put_if_absent(self, key: str, body: Body) -> Stat:
            if key in self._shelf.objects:
                raise AlreadyExists("taken")
            return await super().put_if_absent(key, body)

    probe(LateIsRefused())


@pytest.mark.parametrize("error", [Unavailable("away"), Forbidden("no")])
def test_a_store_that_is_away_is_not_called_a_liar(error: Exception) -> None:
    class Away(MemoryStore):
        async def put_if_absent(self, key: str, body: Body) -> Stat:
            raise error

    with pytest.raises(type(error)):
        probe(Away())


@pytest.mark.parametrize("client", ["obstore", "aioboto3"])
def test_a_blind_server_is_refused_over_http(client: str) -> None:
    async def work() -> None:
        async with faulty_s3("blind") as fake:
            store = open_store(f"s3://bucket/p?endpoint_url={fake.url}&client={client}")
            with pytest.raises(InvalidRequest, match="racing writers won") as error:
                await probe_conditional_writes(store, rng=random.Random(1))
            assert fake.url in str(error.value)
            assert {} == fake.objects
            fake.fault = ""
            await probe_conditional_writes(store, rng=random.Random(2))
            await store.aclose()

    asyncio.run(work())


def test_the_probe_costs_what_it_says() -> None:
    metered = MeteredStore(MemoryStore())
    asyncio.run(probe_conditional_writes(metered, rng=random.Random(1)))
    counts = metered.counts
    assert (PROBE_KEYS * (PROBE_WRITERS + 1), PROBE_KEYS, 1) == (counts.put_conditional, counts.get, counts.delete)
    assert metered.cost_usd() < 0.00015
