"""Earlier states: right at every commit, whatever snapshots there are, and refused once their manifests are gone."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from headwater.errors import Corrupt, InvalidRequest, NotFound
from headwater.limits import HISTORY_STATES_MAX
from headwater.log import keys
from headwater.log.history import state_at
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.log.state import State
from tests.log.helpers import blob, memory, opened, simulate
from tests.log.helpers_store import Scripted

NEVER = Options(snapshot_every=1 << 30)


async def _history(namespace: Namespace, appends: int) -> list[State]:
    """The state after each commit, kept on the way."""
    states = [State()]
    namespace.chain.listeners.append(lambda manifest, outcomes: states.append(_copy(namespace.state)))
    await namespace.create_topic("t", 2)
    for number in range(appends):
        await namespace.append("t", number % 2, blob(count=number + 1))
    await namespace.drain()
    return states


def _copy(state: State) -> State:
    return msgspec.json.decode(msgspec.json.encode(state), type=State)


def _ends(state: State) -> list[int]:
    topic = state.named("t")
    return [] if topic is None else [partition.next for partition in topic.partitions]


@pytest.mark.parametrize("every", [1 << 30, 16, 3, 1])
def test_the_state_as_of_every_commit_is_what_it_was_then(every: int) -> None:
    async def main() -> None:
        store = memory()
        states = await _history(await opened(store, options=Options(snapshot_every=every)), 40)
        reader = await opened(store, seed=2, options=NEVER)
        assert [_ends(state) for state in states] == [
            _ends(await state_at(reader.chain, seq)) for seq in range(len(states))
        ]
        assert 41 == reader.state.seq

    simulate(main())


def test_a_past_state_stays_as_it_was_while_the_log_grows() -> None:
    async def main() -> None:
        namespace = await opened(memory())
        await namespace.create_topic("t")
        now = await state_at(namespace.chain, 1)
        await namespace.append("t", 0, blob(count=5))
        assert [0] == _ends(now)
        assert [5] == _ends(namespace.state)
        assert now is await state_at(namespace.chain, 1)

    simulate(main())


def test_a_commit_of_another_process_is_found_by_looking_at_the_tip() -> None:
    async def main() -> None:
        store = memory()
        first, second = await opened(store), await opened(store, seed=2)
        await first.create_topic("t", 3)
        assert [0, 0, 0] == _ends(await state_at(second.chain, 1))

    simulate(main())


def test_the_future_is_not_found_and_a_negative_commit_is_invalid() -> None:
    async def main() -> None:
        namespace = await opened(memory())
        await namespace.create_topic("t")
        with pytest.raises(NotFound, match="Commit 2 has not been made yet: the log is at commit 1"):
            await state_at(namespace.chain, 2)
        with pytest.raises(InvalidRequest):
            await state_at(namespace.chain, -1)

    simulate(main())


def test_a_commit_behind_the_boundary_is_not_found_even_if_its_slot_was_filled_again() -> None:
    async def main() -> None:
        store = memory()
        await _history(await opened(store, options=Options(snapshot_every=16)), 40)
        await store.put(f"ns/{keys.boundary_key(20)}", b"")
        reader = await opened(store, seed=2, options=NEVER)
        with pytest.raises(NotFound, match="manifest 1, which leads to it, was collected"):
            await state_at(reader.chain, 10)  # the manifests are all there, and may be anyone's by now
        await store.delete([f"ns/{keys.manifest_key(seq)}" for seq in range(1, 20)])
        with pytest.raises(NotFound, match="was collected"):
            await state_at(reader.chain, 10)
        with pytest.raises(NotFound, match="was collected"):
            await state_at(reader.chain, 18)  # from the snapshot of 16
        assert 16 == (await state_at(reader.chain, 16)).seq  # a snapshot needs no manifest
        assert 33 == (await state_at(reader.chain, 33)).seq

    simulate(main())


def test_a_hole_that_no_collector_made_is_corrupt() -> None:
    async def main() -> None:
        store = memory()
        await _history(await opened(store, options=NEVER), 20)
        reader = await opened(store, seed=2)
        await store.delete([f"ns/{keys.manifest_key(7)}"])
        assert 6 == (await state_at(reader.chain, 6)).seq
        with pytest.raises(Corrupt, match="Manifest 7 is missing"):
            await state_at(reader.chain, 8)

    simulate(main())


def test_few_past_states_are_kept_and_asking_at_once_reads_once() -> None:
    async def main() -> None:
        inner = memory()
        await _history(await opened(inner, options=NEVER), 20)
        store = Scripted(inner)
        reader = await opened(store, seed=2, options=NEVER)
        before = store.calls["get"]
        states = await asyncio.gather(*(state_at(reader.chain, 10) for _ in range(8)))
        assert 10 == store.calls["get"] - before
        assert all(state is states[0] for state in states)
        for seq in range(11, 11 + HISTORY_STATES_MAX):
            await state_at(reader.chain, seq)
        assert states[0] is not await state_at(reader.chain, 10)

    simulate(main())
