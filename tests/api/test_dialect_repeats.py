"""The REST Proxy v2: quotas, stores that are away, and requests that are sent again."""

import random
from typing import Any

from headwater.sim.faults import Burst, Faults, SimBucket, SimStore
from headwater.sim.loop import sim_loop
from tests.api.helpers_dialect import JSON, Rest, with_rest
from tests.log.helpers import simulate


def offsets(answer: Any) -> list[tuple[int, int]]:
    """Partition and offset of each record of a produce."""
    assert answer.status == 200, answer.body
    return [(one["partition"], one["offset"]) for one in answer.json["offsets"]]


def test_a_principal_beyond_its_quota_hears_when_to_come_back() -> None:
    async def main(rest: Rest) -> None:
        quota = {"requests_per_s": 1}
        put = await rest.ask("PUT", "/admin/quotas/ann", quota, kind="application/json")
        assert put.status < 300, put.body
        answers = [await rest.get("/topics", x_principal="ann") for _ in range(5)]
        assert 200 == answers[0].status
        assert (429, 429) == answers[-1].code
        assert int(answers[-1].headers["retry-after"]) >= 1

    with_rest(main)


def test_a_store_that_is_away_is_a_retriable_error() -> None:
    async def main() -> None:
        loop = sim_loop()
        away = Faults(bursts=(Burst(start_s=100, end_s=1_000),))
        rest = Rest(SimStore(SimBucket(loop), loop=loop, rng=random.Random(1), faults=away))
        await (await rest.namespace()).create_topic("t", 1)
        await rest.clock.sleep(150)
        assert (503, 50003) == (await rest.get("/topics")).code
        refused = await rest.post("/topics/t", {"records": [{"value": 1}]}, kind=JSON)
        assert (refused.status, refused.json["applied"]) in ((503, "no"), (504, "unknown"))
        await rest.clock.sleep(1_000)
        assert [(0, 0)] == offsets(await rest.produce("t", 1))

    simulate(main())


def test_a_produce_that_got_no_answer_is_repeated_under_its_token() -> None:
    """The second sending goes to the partition of the first one, and finds that it was applied."""

    async def main() -> None:
        loop = sim_loop()
        bucket = SimBucket(loop)
        calm = Rest(SimStore(bucket, loop=loop, rng=random.Random(1)))
        await (await calm.namespace()).create_topic("t", 9)
        repeated = 0
        for seed in range(12):
            store = SimStore(bucket, loop=loop, rng=random.Random(seed))
            rough, body = Rest(store, seed=seed), {"records": [{"value": seed}, {"value": -seed}]}
            await rough.namespace()
            store.set_faults(Faults(lost_answer=1.0, until_s=loop.time() + 200))
            answer = await rough.post("/topics/t", body, kind=JSON)
            await rough.clock.sleep(300)
            if answer.status == 504:
                repeated += 1
                answer = await rough.post("/topics/t", body, kind=JSON, headwater_token=answer.json["token"])
            assert 200 == answer.status, answer.body
        ends = [partition.next for partition in (await (await calm.namespace()).refresh()).named("t").partitions]  # type: ignore[union-attr]
        assert 24 == sum(ends)
        assert repeated

    simulate(main())


# -- safe repetition -------------------------------------------------------------------------------------


def test_an_idempotency_key_makes_a_repetition_answer_the_same() -> None:
    async def main(rest: Rest) -> None:
        body = {"records": [{"value": 1}, {"key": "a", "value": 2}]}
        first = await rest.post("/topics/t", body, kind=JSON, idempotency_key="one")
        for _ in range(5):
            assert offsets(first) == offsets(await rest.post("/topics/t", body, kind=JSON, idempotency_key="one"))
        assert 2 == sum(p.next for p in (await rest.namespace()).topic("t").partitions)
        other = {"records": [{"value": 1}, {"key": "a", "value": 3}]}
        assert 422 == (await rest.post("/topics/t", other, kind=JSON, idempotency_key="one")).status
        assert 200 == (await rest.post("/topics/t", other, kind=JSON, idempotency_key="two")).status
        assert 400 == (await rest.post("/topics/t", other, kind=JSON, idempotency_key="")).status

    with_rest(main, partitions=5)


def test_a_producers_sequence_makes_a_repetition_answer_the_same() -> None:
    async def main(rest: Rest) -> None:
        producer = (await rest.post("/producers", {}, kind="application/json")).json["id"]
        path, body = "/topics/t/partitions/0", {"records": [{"value": 1}, {"value": 2}]}
        named = {"headwater_producer_id": str(producer), "headwater_producer_epoch": "0"}
        for _ in range(2):
            answer = await rest.post(path, body, kind=JSON, **named, headwater_producer_sequence="0")
            assert [(0, 0), (0, 1)] == offsets(answer)
        answer = await rest.post(path, body, kind=JSON, **named, headwater_producer_sequence="2")
        assert [(0, 2), (0, 3)] == offsets(answer)
        assert 409 == (await rest.post(path, body, kind=JSON, **named, headwater_producer_sequence="9")).status
        for bad in ("-1", "x", ""):
            assert 400 == (await rest.post(path, body, kind=JSON, **named, headwater_producer_sequence=bad)).status
        assert 400 == (await rest.post("/topics/t", body, kind=JSON, **named, headwater_producer_sequence="4")).status
        assert 400 == (await rest.post(path, body, kind=JSON, **named)).status
        (chunk, *_) = (await (await rest.namespace()).reader.fetch("t", 0, 0)).chunks
        from headwater.log import kafka2

        (header,) = kafka2.headers_of(chunk.data)
        assert (producer, 0, 0) == (header.producer_id, header.producer_epoch, header.sequence)

    with_rest(main)
