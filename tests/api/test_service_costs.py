"""What verbs cost in requests, lost answers, and that nothing is in flight when a service is closed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headwater.api.service import Service
from headwater.api.verbs import AclRule, GroupOffset, GroupOffsets
from headwater.errors import Indeterminate, InvalidRequest
from headwater.limits import ACCESS_STALE_S
from headwater.log.options import Options
from headwater.sim.loop import sim_loop
from tests.log.helpers import blob, memory, opened, simulate, still_running
from tests.log.helpers_store import Scripted, away, lost_answer

OFFSETS = GroupOffsets(group="g", offsets={("t", 0): GroupOffset(offset=0)})


async def warm(**options: Any) -> tuple[Service, Scripted]:
    """A service over a store that counts, which has made a topic and an audit record already."""
    store = Scripted(memory())
    one = Service(await opened(store, options=Options(**options)), principal="ann")
    await one.create_topic("t", 2)
    await one.commit_offsets(OFFSETS)
    await one._space.drain()
    store.calls.clear()
    return one, store


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda s: s.produce([("t", 0, blob())]), {"put_if_absent": 1}),
        (lambda s: s.produce([("t", p % 2, blob()) for p in range(50)], once="k"), {"put_if_absent": 1}),
        (lambda s: s.init_producer("x"), {"put_if_absent": 1}),
        (lambda s: s.commit_offsets(OFFSETS), {"put_if_absent": 1}),
        (lambda s: s.commit_offsets(GroupOffsets(group="g", offsets={})), {}),
        (lambda s: s.create_topic("u"), {"put_if_absent": 1}),
        (lambda s: s.alter_topic("t", {"k": "v"}), {"put_if_absent": 1}),
        (lambda s: s.change_acls([AclRule("ann", "all", "topic", "*")]), {"put_if_absent": 1}),
        (lambda s: s.create_key("bob"), {"put_if_absent": 1}),
        (lambda s: s.fetch("t", 0, 0), {"get": 1}),
        (lambda s: s.topics(), {"get": 1}),
        (lambda s: s.topic("t"), {"get": 1}),
        (lambda s: s.offset_of("t", 0), {"get": 1}),
        (lambda s: s.committed("g"), {"get": 1}),
        (lambda s: s.lag(), {"get": 1}),
        (lambda s: s.groups(), {"get": 1}),
        (lambda s: s.keys(), {"get": 1}),
    ],
)
def test_a_write_is_one_put_and_a_read_one_get(
    call: Callable[[Service], Awaitable[Any]], expected: dict[str, int]
) -> None:
    async def main() -> None:
        one, store = await warm()
        await call(one)
        assert expected == dict(store.calls)

    simulate(main())


def test_a_transaction_is_one_put() -> None:
    async def main() -> None:
        one, store = await warm()
        who = await one.init_producer("x")
        store.calls.clear()
        await one.transact(who, [("t", 0, blob()), ("t", 1, blob())], [OFFSETS])
        assert {"put_if_absent": 1} == dict(store.calls)

    simulate(main())


def test_a_writer_that_nobody_has_told_anything_for_long_looks_first() -> None:
    async def main() -> None:
        one, store = await warm()
        await one._space.chain.clock.sleep(ACCESS_STALE_S + 1)
        await one.produce([("t", 0, blob())])
        await one.produce([("t", 0, blob())])
        assert {"get": 1, "put_if_absent": 2} == dict(store.calls)

    simulate(main())


def test_a_refusal_costs_nothing() -> None:
    async def main() -> None:
        one, store = await warm()
        for call in (one.produce([]), one.fetch("no/topic", 0, 0), one.create_topic("u", 0)):
            with pytest.raises(InvalidRequest):
                await call
        assert {} == dict(store.calls)

    simulate(main())


@pytest.mark.parametrize("options", [{}, {"once": "k"}])
def test_a_lost_answer_is_learnt_by_its_token(options: dict[str, str]) -> None:
    async def main() -> None:
        one, store = await warm(commit_timeout_s=10)
        store.will("put_if_absent", lost_answer)
        store.always["put_if_absent"] = away
        with pytest.raises(Indeterminate) as caught:
            await one.produce([("t", 0, blob(2)), ("t", 1, blob(3))], **options)
        store.always.clear()
        await one.produce([("t", 0, blob(1))])
        for _ in range(2):
            done = await one.produce([("t", 0, blob(2)), ("t", 1, blob(3))], token=caught.value.token, **options)
            assert [(0, 0, 2), (1, 0, 3)] == [(a.partition, a.base_offset, a.count) for a in done]
        assert 3 == (await one.offset_of("t", 0)).offset

    simulate(main())


def test_a_transaction_whose_answer_was_lost_is_learnt_by_its_token_and_gives_the_next_epoch() -> None:
    async def main() -> None:
        one, store = await warm(commit_timeout_s=10)
        who = await one.init_producer("x")
        store.will("put_if_absent", lost_answer)
        store.always["put_if_absent"] = away
        with pytest.raises(Indeterminate) as caught:
            await one.transact(who, [("t", 0, blob())])
        store.always.clear()
        for _ in range(2):
            done = await one.transact(who, [("t", 0, blob())], token=caught.value.token)
            assert (who.id, who.epoch + 1) == (done.producer.id, done.producer.epoch)
        assert 1 == (await one.offset_of("t", 0)).offset

    simulate(main())


def test_a_token_of_another_request_is_refused() -> None:
    async def main() -> None:
        one, store = await warm(commit_timeout_s=10)
        who = await one.init_producer("x")
        store.will("put_if_absent", lost_answer)
        store.always["put_if_absent"] = away
        with pytest.raises(Indeterminate) as caught:
            await one.produce([("t", 0, blob())])
        store.always.clear()
        token = caught.value.token
        for call in (
            one.produce([("t", 0, blob()), ("t", 0, blob())], token=token),
            one.transact(who, [("t", 0, blob())], token=token),
        ):
            with pytest.raises(InvalidRequest, match="another request"):
                await call
        assert 1 == (await one.offset_of("t", 0)).offset

    simulate(main())


def test_nothing_is_in_flight_when_a_service_is_closed() -> None:
    async def main() -> None:
        one, _ = await warm()
        await one.produce([("t", 0, blob(size=600_000))])
        await one.aclose()
        assert [] == still_running(sim_loop())

    simulate(main())
