"""Records without a key: a compacted topic takes none, at whatever edge they come in."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from headwater.api.service import Service
from headwater.client.producer import Producer
from headwater.errors import Indeterminate, InvalidRequest
from headwater.log import batch, small
from headwater.log.namespace import Namespace
from headwater.types import Batch, Record
from tests.api.helpers_http import Client, Log, app_over
from tests.log.helpers import blob, memory, opened, simulate

COMPACT = {"cleanup.policy": "compact"}
ROWS = [Record(key=b"a", value=b"1", timestamp=1), Record(value=b"2", timestamp=2), Record(value=b"3", timestamp=3)]


def kafka2(rows: list[Record]) -> Batch:
    return batch.batch_of_kafka2(small.batch_of(rows).data, check_records=True)


def arrow(rows: list[Record]) -> Batch:
    return batch.batch_of_arrow(batch.batch_of_records(rows, default_timestamp=0).data)


BUILDERS = [small.batch_of, kafka2, arrow, lambda rows: batch.batch_of_records(rows, default_timestamp=0)]


@pytest.mark.parametrize("build", BUILDERS)
def test_a_record_without_a_key_is_refused_by_its_row(build: Any) -> None:
    async def main() -> None:
        ns = await opened(memory())
        await ns.create_topic("t", 1, COMPACT)
        await ns.create_topic("u", 1)
        with pytest.raises(InvalidRequest, match="Row 1 of the batch for topic 't'") as caught:
            await ns.append("t", 0, build(ROWS))
        assert 1 == caught.value.data["row"]
        with pytest.raises(InvalidRequest, match="batch 1 for topic 't'"):
            await ns.append_many([("u", 0, build(ROWS)), ("t", 0, build(ROWS))])
        await ns.append("t", 0, build(ROWS[:1]))
        await ns.append("u", 0, build(ROWS))
        assert (1, 3) == (ns.topic("t").partitions[0].next, ns.topic("u").partitions[0].next)

    simulate(main())


def test_of_a_repetition_nobody_knows_whether_the_first_attempt_was_taken() -> None:
    async def main() -> None:
        ns = await opened(memory())
        await ns.create_topic("t", 1, COMPACT)
        with pytest.raises(Indeterminate):
            await ns.append("t", 0, small.batch_of(ROWS), token=f"{1:012d}@1")

    simulate(main())


def test_bytes_into_which_nobody_looks_are_taken() -> None:
    async def main() -> None:
        ns = await opened(memory())
        await ns.create_topic("t", 1, COMPACT)
        assert 0 == (await ns.append("t", 0, blob(3))).base_offset

    simulate(main())


def test_it_is_refused_over_http_in_json_and_in_arrow() -> None:
    async def main() -> None:
        app = app_over(memory(), log=Log())
        client = Client(app)
        await client.done("POST", "/admin/topics", {"name": "t", "config": COMPACT})
        path = "/topics/t/partitions/0/records"
        for body in ({"records": [{"key": "a", "value": 1}, {"value": 2}]},):
            refused = await client("POST", path, body)
            assert (400, "InvalidRequest", 1) == (refused.status, refused.json["error"], refused.json["row"])
        made = batch.batch_of_records(ROWS, default_timestamp=0).data
        refused = await client("POST", path, made, kind="application/vnd.apache.arrow.stream")
        assert (400, 1) == (refused.status, refused.json["row"])
        assert 200 == (await client("POST", path, {"records": [{"key": "a", "value": 1}]})).status
        await app.close()

    simulate(main())


async def described(ns: Namespace) -> int:
    return (await ns.refresh()).topics[1].partitions[0].next


def test_a_producer_hears_of_it() -> None:
    async def main() -> None:
        ns = await opened(memory())
        await ns.create_topic("t", 1, COMPACT)
        async with Producer(Service(ns), clock=ns.chain.clock, rng=ns.chain.rng) as producer:
            with pytest.raises(InvalidRequest, match="has no key"):
                await producer.send_and_wait("t", b"v")
            table = pa.table({"key": pa.array([b"a", None]), "value": pa.array([b"1", b"2"])})
            with pytest.raises(InvalidRequest, match="has no key"):
                await (await producer.send_batch("t", table))
            await producer.send_and_wait("t", b"v", key=b"k")
        assert 1 == await described(ns)

    simulate(main())
