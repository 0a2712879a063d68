"""Native routes over a bucket in memory: what each answers, and that nothing half-applies."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pyarrow as pa
import pytest

from headwater.api import frames, media
from headwater.api.verbs import Written
from headwater.api.wire import decode
from headwater.log import batch, small
from headwater.types import Batch, Record
from tests.api.helpers_http import Client, Log, app_over
from tests.log.helpers import memory, simulate

PARTITION = "/topics/t/partitions/0"
RECORDS = f"{PARTITION}/records"
JSON = "application/json"


def served(test: Callable[[Client], Awaitable[None]], **how: Any) -> None:
    """Run a test against an app with a topic ``t`` of two partitions; no mistake of ours may be logged."""

    async def main() -> None:
        log = Log()
        app = app_over(memory(), clock=sim_clock(), log=log, **how)
        client = Client(app)
        await client.done("POST", "/admin/topics", {"name": "t", "partitions": 2})
        await test(client)
        assert [] == log.lines
        await app.close()

    simulate(main())


def sim_clock() -> Any:
    from headwater.sim.loop import SimClock, sim_loop

    return SimClock(sim_loop())


def record(value: bytes | None = b"v", key: bytes | None = b'"k"', timestamp: int = 1_000) -> Record:
    return Record(value=value, key=key, timestamp=timestamp)


def arrow(*values: bytes) -> Batch:
    return batch.batch_of_records([record(value) for value in values], default_timestamp=1)


def kafka2(*values: bytes, **producer: int) -> Batch:
    return small.batch_of([record(value) for value in values], **producer)


def stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


async def values(client: Client, path: str = RECORDS, query: str = "") -> list[Any]:
    """The values of a partition, read as Arrow."""
    answer = await client.done("GET", path, query=query, headers={"accept": media.ARROW})
    return pa.ipc.open_stream(answer.body).read_all().column("value").to_pylist()


# -- produce ---------------------------------------------------------------------------------------------


def test_json_records_are_appended_and_come_back_as_they_were() -> None:
    async def test(client: Client) -> None:
        sent = {"records": [{"key": "a", "value": {"n": 1}}, {"value": None}, {"value": [1.50, "ü"], "timestamp": 7}]}
        done = await client.done("POST", RECORDS, sent)
        (appended,) = done.json["appended"]
        assert ("t", 0, 0, 3) == tuple(appended[name] for name in ("topic", "partition", "base_offset", "count"))
        answer = await client.done("GET", RECORDS)
        assert media.KAFKA_JSON == answer.headers["content-type"]
        assert [("a", {"n": 1}), (None, None), (None, [1.50, "ü"])] == [(r["key"], r["value"]) for r in answer.json]
        assert 7 == answer.json[2]["timestamp"]
        assert {"0": "0", "3": "3"} == {
            answer.headers["headwater-base-offset"]: "0",
            answer.headers["headwater-next-offset"]: answer.headers["headwater-count"],
        }

    served(test)


def test_binary_records_are_appended() -> None:
    async def test(client: Client) -> None:
        sent = {"records": [{"value": base64.b64encode(b"\xff\x00").decode()}]}
        await client.done("POST", RECORDS, sent, kind=media.KAFKA_BINARY)
        assert [b"\xff\x00"] == await values(client)
        answer = await client.done("GET", RECORDS, headers={"accept": media.KAFKA_BINARY})
        assert "/wA=" == answer.json[0]["value"]

    served(test)


@pytest.mark.parametrize("made", [arrow(b"1", b"2"), kafka2(b"1", b"2")], ids=["arrow", "kafka2"])
def test_batches_are_taken_as_they_are(made: Batch) -> None:
    async def test(client: Client) -> None:
        kind = media.ARROW if made.codec == "arrow" else media.KAFKA2
        await client.done("POST", RECORDS, made.data, kind=kind)
        assert [b"1", b"2"] == await values(client)
        answer = await client.done("GET", RECORDS, headers={"accept": media.FRAME})
        fetched = frames.unpack_fetched(answer.body)
        assert [(made.codec, made.data)] == [(chunk.codec, chunk.data) for chunk in fetched.chunks]

    served(test)


def test_arrow_streams_of_fewer_columns_and_other_types_are_taken_too() -> None:
    async def test(client: Client) -> None:
        await client.done("POST", RECORDS, stream(pa.table({"value": ["a", "b"]})), kind=media.ARROW)
        assert [b"a", b"b"] == await values(client)

    served(test)


def test_a_frame_is_appended_wholly_or_not_at_all() -> None:
    async def test(client: Client) -> None:
        body = frames.pack([("t", 0, arrow(b"1")), ("t", 1, kafka2(b"2", b"3"))])
        done = await client.done("POST", "/batches", body, kind=media.FRAME)
        assert [(0, 0, 1), (1, 0, 2)] == [
            (each["partition"], each["base_offset"], each["count"]) for each in done.json["appended"]
        ]
        bad = frames.pack([("t", 0, arrow(b"4")), ("t", 7, arrow(b"5"))])
        refused = await client("POST", "/batches", bad, kind=media.FRAME)
        assert (404, 40402, "no") == (refused.status, refused.json["error_code"], refused.json["applied"])
        assert [b"1"] == await values(client)

    served(test)


@pytest.mark.parametrize(
    "change",
    [{"count": 2}, {"crc": 1}, {"codec": "kafka2"}, {"producer_id": 5}, {"topic": "../x"}],
    ids=lambda change: next(iter(change)),
)
def test_a_frame_that_lies_about_its_bytes_is_refused(change: dict[str, Any]) -> None:
    async def test(client: Client) -> None:
        header, parts = frames.decode(frames.pack([("t", 0, arrow(b"1"))]))
        header["batches"][0] |= change
        answer = await client("POST", "/batches", frames.encode(header, parts), kind=media.FRAME)
        assert (400, "no") == (answer.status, answer.json["applied"])
        assert [] == await values(client)

    served(test)


def test_a_batch_of_a_producer_is_appended_once_and_in_order() -> None:
    async def test(client: Client) -> None:
        producer = (await client.done("POST", "/producers", {})).json

        async def send(sequence: int, epoch: int | None = None) -> Any:
            headers = {
                "Headwater-Producer-Id": str(producer["id"]),
                "Headwater-Producer-Epoch": str(producer["epoch"] if epoch is None else epoch),
                "Headwater-Producer-Sequence": str(sequence),
            }
            return await client("POST", RECORDS, {"records": [{"value": sequence}]}, headers=headers)

        first, again = await send(0), await send(0)
        assert 200 == first.status
        assert 0 == first.json["appended"][0]["base_offset"] == again.json["appended"][0]["base_offset"]
        skipped = await send(5)
        assert (409, "OutOfOrder") == (skipped.status, skipped.json["error"])
        assert [b"0"] == await values(client)

    served(test)


@pytest.mark.parametrize(
    "headers",
    [
        {"headwater-producer-id": "1"},
        {"headwater-producer-id": "x", "headwater-producer-epoch": "0", "headwater-producer-sequence": "0"},
        {"headwater-producer-id": "1", "headwater-producer-epoch": "-1", "headwater-producer-sequence": "0"},
        {"headwater-producer-id": "1", "headwater-producer-epoch": "40000", "headwater-producer-sequence": "0"},
        {"headwater-token": "x"},
        {"headwater-token": "x" * 200 + "@1"},
        {"idempotency-key": ""},
        {"idempotency-key": "x" * 300},
    ],
)
def test_senseless_headers_are_refused(headers: dict[str, str]) -> None:
    async def test(client: Client) -> None:
        answer = await client("POST", RECORDS, {"records": [{"value": 1}]}, headers=headers)
        assert (400, "no") == (answer.status, answer.json["applied"])
        assert [] == await values(client)

    served(test)


def test_an_idempotency_key_makes_a_request_happen_once() -> None:
    async def test(client: Client) -> None:
        async def send(value: int, key: str) -> Any:
            return await client("POST", RECORDS, {"records": [{"value": value}]}, headers={"Idempotency-Key": key})

        first, again, quoted = await send(1, "one"), await send(1, "one"), await send(1, '"one"')
        assert [200, 200, 200] == [first.status, again.status, quoted.status]
        assert first.json == again.json == quoted.json
        other = await send(2, "one")
        assert (422, "KeyReused") == (other.status, other.json["error"])
        assert 200 == (await send(2, "two")).status
        assert [b"1", b"2"] == await values(client)

    served(test)


def test_a_key_is_refused_where_it_would_be_passed_over() -> None:
    async def test(client: Client) -> None:
        body = {"transactional_id": "x", "records": [{"topic": "t", "value": 1}]}
        for path, sent in (("/transactions", body), ("/producers", {}), ("/admin/keys", {"principal": "a"})):
            answer = await client("POST", path, sent, headers={"idempotency-key": "one"})
            assert (400, "no") == (answer.status, answer.json["applied"])
        assert [] == await values(client)

    served(test)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", JSON, 400),
        (b"\xff", JSON, 400),
        (b'{"records":[{"value":"\xff"}]}', JSON, 400),
        (b"[]", JSON, 422),
        (b"{}", JSON, 422),
        (b'{"records":[]}', JSON, 422),
        (b'{"records":[{"value":1,"x":2}]}', JSON, 422),
        (b'{"records":[{"value":1}],"x":2}', JSON, 422),
        (b'{"records":[{"value":1,"partition":1}]}', JSON, 422),
        (b'{"records":[{"value":1,"timestamp":-5}]}', JSON, 422),
        (b'{"records":[{"value":"%%%"}]}', media.KAFKA_BINARY, 422),
        (b'{"records":[{"value":5}]}', media.KAFKA_BINARY, 422),
        (b"nonsense", media.ARROW, 400),
        (arrow(b"1").data[:-9], media.ARROW, 400),
        (stream(pa.table({"other": ["a"]})), media.ARROW, 400),
        (stream(pa.table({"value": pa.array([], pa.binary())})), media.ARROW, 400),
        (b"nonsense" * 20, media.KAFKA2, 400),
        (kafka2(b"1").data[:-1] + b"\x07", media.KAFKA2, 400),
        (frames.pack([("t", 0, arrow(b"1"))]), media.FRAME, 415),
        (b"x", "text/plain", 415),
        (b"x", "", 415),
        (b"", JSON, 400),
    ],
)
def test_bad_bodies_are_refused_and_nothing_is_appended(body: bytes, kind: str, status: int) -> None:
    async def test(client: Client) -> None:
        answer = await client("POST", RECORDS, body, kind=kind)
        assert (status, "no") == (answer.status, answer.json["applied"]), answer.body
        assert [] == await values(client)

    served(test)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/topics/none/partitions/0/records", 404, 40401),
        ("/topics/t/partitions/2/records", 404, 40402),
        ("/topics/t/partitions/-1/records", 404, 40402),
        ("/topics/t/partitions/x/records", 404, 40402),
        ("/topics/t/partitions/99999999999/records", 404, 40402),
        ("/topics/t/partitions/%D9%A3/records", 404, 40402),
        ("/topics/a%20b/partitions/0/records", 404, 40401),
        ("/topics/" + "x" * 300 + "/partitions/0/records", 404, 40401),
    ],
)
def test_places_that_do_not_exist_are_not_found(path: str, status: int, code: int) -> None:
    async def test(client: Client) -> None:
        for answer in (await client("POST", path, {"records": [{"value": 1}]}), await client("GET", path)):
            assert answer.status in (status, 400)
            if answer.status == 404:
                assert code == answer.json["error_code"]

    served(test)


# -- fetch -----------------------------------------------------------------------------------------------


async def filled(client: Client) -> None:
    """Ten records with times 0, 10, …, in batches of two."""
    for n in range(0, 10, 2):
        records = [{"value": m, "timestamp": 10 * m} for m in (n, n + 1)]
        await client.done("POST", RECORDS, {"records": records})


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("", 0),
        ("from=earliest", 0),
        ("offset=0", 0),
        ("offset=3", 3),
        ("offset=10", None),
        ("from=latest", None),
        ("timestamp=0", 0),
        ("timestamp=31", 4),
        ("timestamp=1000", None),
    ],
)
@pytest.mark.parametrize("kind", [media.ARROW, media.KAFKA_JSON])
def test_a_fetch_begins_where_it_is_told_to(query: str, first: int | None, kind: str) -> None:
    async def test(client: Client) -> None:
        await filled(client)
        answer = await client.done("GET", RECORDS, query=query, headers={"accept": kind})
        if kind == media.ARROW:
            offsets = pa.ipc.open_stream(answer.body).read_all().column("offset").to_pylist()
        else:
            offsets = [each["offset"] for each in answer.json]
        start = 10 if first is None else first
        assert list(range(start, 10)) == offsets
        assert (str(start), "10", str(10 - start)) == tuple(
            answer.headers[f"headwater-{name}"] for name in ("base-offset", "next-offset", "count")
        )

    served(test)


@pytest.mark.parametrize("kind", [media.ARROW, media.KAFKA_JSON, media.FRAME])
def test_next_offset_leads_through_everything_in_small_bites(kind: str) -> None:
    async def test(client: Client) -> None:
        await filled(client)
        at, bites = 0, 0
        while at < 10:
            answer = await client.done("GET", RECORDS, query=f"offset={at}&max_bytes=1", headers={"accept": kind})
            at, bites = int(answer.headers["headwater-next-offset"]), bites + 1
        assert at == 10
        assert 5 <= bites <= 10

    served(test)


def rows_of(answer: Any, kind: str) -> list[tuple[int, Any]]:
    """Offsets and values in an answer."""
    if kind == media.FRAME:
        tables = [chunk.decode() for chunk in frames.unpack_fetched(answer.body).chunks]
    elif kind == media.ARROW:
        tables = pa.ipc.open_stream(answer.body).read_all().to_batches()
    else:
        return [(each["offset"], json.dumps(each["value"]).encode()) for each in answer.json]
    return [
        pair
        for table in tables
        for pair in zip(table.column("offset").to_pylist(), table.column("value").to_pylist(), strict=True)
    ]


@pytest.mark.parametrize("kind", [media.ARROW, media.KAFKA_JSON, media.FRAME])
def test_batches_of_both_codecs_are_read_alike(kind: str) -> None:
    async def test(client: Client) -> None:
        await client.done("POST", RECORDS, arrow(b"1", b"2").data, kind=media.ARROW)
        await client.done("POST", RECORDS, kafka2(b"3", b"4").data, kind=media.KAFKA2)
        await client.done("POST", RECORDS, {"records": [{"value": 5}]})
        answer = await client.done("GET", RECORDS, headers={"accept": kind})
        assert list(enumerate([b"1", b"2", b"3", b"4", b"5"])) == rows_of(answer, kind)

    served(test)


def test_a_record_larger_than_an_answer_is_refused_with_a_way_out() -> None:
    async def test(client: Client) -> None:
        import random

        made = arrow(random.Random(1).randbytes(400_000))
        await client.done("POST", RECORDS, made.data, kind=media.ARROW)
        for kind in (media.FRAME, media.ARROW, media.KAFKA_BINARY):
            answer = await client("GET", RECORDS, headers={"accept": kind})
            assert (413, "no") == (answer.status, answer.json["applied"])

    served(test, answer_bytes_max=30_000)


@pytest.mark.parametrize("kind", [media.ARROW, media.KAFKA_JSON, media.FRAME])
def test_a_batch_larger_than_an_answer_comes_in_pieces(kind: str) -> None:
    async def test(client: Client) -> None:
        import random

        rng = random.Random(1)
        sent = [rng.randbytes(500).hex().encode() for _ in range(200)]
        made = batch.batch_of_records([record(b'"' + value + b'"') for value in sent], default_timestamp=1)
        await client.done("POST", RECORDS, made.data, kind=media.ARROW)
        at, got = 0, []
        while at < 200:
            answer = await client.done("GET", RECORDS, query=f"offset={at}", headers={"accept": kind})
            assert len(answer.body) < 40_000
            assert at == int(answer.headers["headwater-base-offset"])
            found = rows_of(answer, kind)
            assert list(range(at, int(answer.headers["headwater-next-offset"]))) == [offset for offset, _ in found]
            assert len(found) == int(answer.headers["headwater-count"])
            got += [value for _, value in found]
            at += len(found)
        assert [b'"' + value + b'"' for value in sent] == got

    served(test, answer_bytes_max=30_000)


@pytest.mark.parametrize(
    "query",
    [
        "offset=-1",
        "offset=x",
        "offset=",
        "offset=1e3",
        "offset=%D9%A3",
        "offset=99999999999999999999",
        "offset=1&from=latest",
        "timestamp=1&offset=1",
        "from=middle",
        "max_bytes=x",
        "max_bytes=999999999999",
        "wait_ms=-1",
        "as_of=x",
        "unknown=1",
        "offset=1&offset=1",
    ],
)
def test_senseless_queries_are_refused(query: str) -> None:
    async def test(client: Client) -> None:
        assert 400 == (await client("GET", RECORDS, query=query)).status

    served(test)


def test_an_offset_outside_the_log_carries_the_range() -> None:
    async def test(client: Client) -> None:
        await filled(client)
        answer = await client("GET", RECORDS, query="offset=11")
        assert (416, 0, 10) == (answer.status, answer.json["log_start"], answer.json["high_watermark"])

    served(test)


def test_a_fetch_as_of_a_commit_ends_where_the_log_ended_then() -> None:
    async def test(client: Client) -> None:
        first = (await client.done("POST", RECORDS, {"records": [{"value": 1}]})).json["appended"][0]
        await client.done("POST", RECORDS, {"records": [{"value": 2}]})
        assert [b"1"] == await values(client, query=f"as_of={first['commit']}")
        assert [b"1", b"2"] == await values(client)

    served(test)


def test_a_long_poll_waits_for_a_record_and_no_longer() -> None:
    async def test(client: Client) -> None:
        import asyncio

        clock = client.app.clock
        poll = asyncio.ensure_future(client("GET", RECORDS, query="wait_ms=20000"))
        await clock.sleep(1)
        await client.done("POST", RECORDS, {"records": [{"value": 1}]})
        assert [1] == [each["value"] for each in (await poll).json]
        before = clock.elapsed_s()
        assert [] == (await client.done("GET", RECORDS, query="offset=1&wait_ms=999999")).json
        assert 25 < clock.elapsed_s() - before < 40

    served(test)


def test_head_answers_like_get_without_a_body() -> None:
    async def test(client: Client) -> None:
        await filled(client)
        answer = await client.done("HEAD", RECORDS)
        assert (b"", "10") == (answer.body, answer.headers["headwater-next-offset"])

    served(test)


def test_offsets_and_their_times() -> None:
    async def test(client: Client) -> None:
        await filled(client)
        said = (await client.done("GET", f"{PARTITION}/offsets")).json
        assert (0, 10) == (said["beginning_offset"], said["end_offset"])
        for at, offset in (("earliest", 0), ("latest", 10), ("45", 5)):
            assert offset == (await client.done("GET", f"{PARTITION}/offsets", query=f"at={at}")).json["offset"]
        assert 400 == (await client("GET", f"{PARTITION}/offsets", query="at=x")).status
        assert 404 == (await client("GET", "/topics/t/partitions/5/offsets")).status

    served(test)


def test_ranges_and_uploads_need_a_store_that_presigns() -> None:
    async def test(client: Client) -> None:
        await filled(client)
        assert 400 == (await client("GET", f"{PARTITION}/ranges", query="offset=0")).status
        assert 400 == (await client("GET", f"{PARTITION}/ranges")).status
        assert 400 == (await client("POST", f"{PARTITION}/uploads", {"length": 10})).status
        assert 422 == (await client("POST", f"{PARTITION}/uploads", {"length": 0})).status
        assert (await client("POST", "/uploads/none", {})).status in (400, 404)

    served(test)


# -- transactions ----------------------------------------------------------------------------------------


def test_a_transaction_in_json_is_all_or_nothing() -> None:
    async def test(client: Client) -> None:
        body: dict[str, Any] = {
            "transactional_id": "tx",
            "records": [{"topic": "t", "partition": 0, "value": 1}, {"topic": "t", "partition": 1, "value": 2}],
            "offsets": [{"group": "g", "offsets": [{"topic": "t", "partition": 0, "offset": 1}]}],
        }
        done: Written = decode((await client.done("POST", "/transactions", body)).body, Written)
        assert [(0, 0), (1, 0)] == [(each.partition, each.base_offset) for each in done.appended]
        assert 1 == len({each.commit for each in done.appended})
        found = (await client.done("GET", "/groups/g/offsets")).json["offsets"]
        assert [("t", 0, 1)] == [(each["topic"], each["partition"], each["offset"]) for each in found]
        body["records"][1]["partition"] = 9
        assert 404 == (await client("POST", "/transactions", body)).status
        assert [b"1"] == await values(client)

    served(test)


def test_records_of_a_transaction_go_to_the_partition_of_their_key() -> None:
    async def test(client: Client) -> None:
        records = [{"topic": "t", "key": key, "value": key} for key in ("a", "b", "c", "d", "a")]
        await client.done("POST", "/transactions", {"transactional_id": "tx", "records": records})
        found = [await values(client, f"/topics/t/partitions/{n}/records") for n in (0, 1)]
        for n, part in enumerate(found):
            assert [n] * len(part) == [small.partition_of(value, 2) for value in part]
        assert 5 == len(found[0] + found[1])

    served(test)


def test_a_transaction_of_a_frame() -> None:
    async def test(client: Client) -> None:
        producer = (await client.done("POST", "/producers", {"transactional_id": "tx"})).json
        body = frames.pack([("t", 0, arrow(b"1"))], {"producer": producer, "offsets": []})
        done = await client.done("POST", "/transactions", body, kind=media.FRAME)
        assert producer["id"] == done.json["producer"]["id"]
        zombie = await client("POST", "/transactions", body, kind=media.FRAME)
        assert (409, "Fenced") == (zombie.status, zombie.json["error"])
        assert [b"1"] == await values(client)

    served(test)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"transactional_id": "x"}, 400),
        ({"transactional_id": "x", "producer": {"id": 1, "epoch": 0}, "records": []}, 422),
        ({"transactional_id": "x", "token": "abcd@1", "records": [{"topic": "t", "value": 1}]}, 422),
        ({"transactional_id": "x", "records": [{"value": 1}]}, 422),
        ({"transactional_id": "x", "records": [{"topic": "none", "value": 1}]}, 404),
        ({"transactional_id": "x" * 600, "records": [{"topic": "t", "value": 1}]}, 422),
        ({"producer": {"id": 77, "epoch": 0}, "records": [{"topic": "t", "value": 1}]}, 409),
    ],
)
def test_senseless_transactions_are_refused(body: dict[str, Any], status: int) -> None:
    async def test(client: Client) -> None:
        answer = await client("POST", "/transactions", body)
        assert (status, "no") == (answer.status, answer.json["applied"]), answer.body
        assert [] == await values(client)

    served(test)


def test_a_transaction_of_several_requests() -> None:
    async def test(client: Client) -> None:
        producer = (await client.done("POST", "/producers", {"transactional_id": "tx"})).json
        name = (await client.done("POST", "/transactions/begin", {"producer": producer})).json["transaction"]
        body = {"records": [{"topic": "t", "partition": 0, "value": 1}]}
        assert 204 == (await client.done("POST", f"/transactions/{name}/records", body)).status
        framed = frames.pack([("t", 0, arrow(b"2"))])
        await client.done("POST", f"/transactions/{name}/records", framed, kind=media.FRAME)
        assert [] == await values(client)
        first = await client.done("POST", f"/transactions/{name}/commit")
        assert first.json == (await client.done("POST", f"/transactions/{name}/commit", {})).json
        assert 422 == (await client("POST", f"/transactions/{name}/commit", {"x": 1})).status
        assert [b"1", b"2"] == await values(client)
        assert 409 == (await client("POST", f"/transactions/{name}/abort")).status
        assert (await client("POST", "/transactions/none/commit")).status in (400, 404)

    served(test)


def test_an_aborted_transaction_leaves_nothing() -> None:
    async def test(client: Client) -> None:
        producer = (await client.done("POST", "/producers", {"transactional_id": "tx"})).json
        name = (await client.done("POST", "/transactions/begin", {"producer": producer})).json["transaction"]
        body = {"records": [{"topic": "t", "partition": 0, "value": 1}]}
        await client.done("POST", f"/transactions/{name}/records", body)
        await client.done("POST", f"/transactions/{name}/abort")
        await client.done("POST", f"/transactions/{name}/abort")
        assert 409 == (await client("POST", f"/transactions/{name}/commit")).status
        assert [] == await values(client)

    served(test)


def test_a_transaction_that_took_too_long_is_over() -> None:
    async def test(client: Client) -> None:
        producer = (await client.done("POST", "/producers", {"transactional_id": "tx"})).json
        begun = {"producer": producer, "timeout_ms": 1_000}
        name = (await client.done("POST", "/transactions/begin", begun)).json["transaction"]
        body = {"records": [{"topic": "t", "partition": 0, "value": 1}]}
        await client.done("POST", f"/transactions/{name}/records", body)
        await client.app.clock.sleep(120)
        for path in ("commit", "records"):
            late = await client("POST", f"/transactions/{name}/{path}", body if path == "records" else b"")
            assert (409, "ExpiredTransaction", "no") == (late.status, late.json["error"], late.json["applied"])
        assert [] == await values(client)

    served(test)


# -- groups ----------------------------------------------------------------------------------------------


def test_members_join_own_commit_and_leave() -> None:
    async def test(client: Client) -> None:
        beat = (await client.done("POST", "/groups/g/members/m1/heartbeat", {"topics": ["t"], "joining": True})).json
        assert [("t", 0), ("t", 1)] == sorted((each["topic"], each["partition"]) for each in beat["owned"])
        commit = {
            "offsets": [{"topic": "t", "partition": 0, "offset": 0, "metadata": "m"}],
            "member": "m1",
            "generation": beat["epoch"],
        }
        assert 204 == (await client("POST", "/groups/g/offsets", commit)).status
        zombie = await client("POST", "/groups/g/offsets", {**commit, "member": "m2"})
        assert 409 == zombie.status
        assert ["m1"] == [each["member"] for each in (await client.done("GET", "/groups/g")).json["members"]]
        assert 409 == (await client("DELETE", "/groups/g")).status
        assert 204 == (await client("DELETE", "/groups/g/members/m1")).status
        gone = await client("POST", "/groups/g/members/m1/heartbeat", {})
        assert (409, "UnknownMember") == (gone.status, gone.json["error"])
        drop = {"partitions": [{"topic": "t", "partition": 0}]}
        assert 204 == (await client("DELETE", "/groups/g/offsets", drop)).status

    served(test)


def test_a_group_is_listed_has_lag_and_is_deleted() -> None:
    async def test(client: Client) -> None:
        await filled(client)
        commit = {"offsets": [{"topic": "t", "partition": 0, "offset": 4}]}
        await client.done("POST", "/groups/g%20g/offsets", commit)
        assert ["g g"] == [each["group"] for each in (await client.done("GET", "/groups")).json["groups"]]
        for path in ("/lag", "/groups/g%20g/lag"):
            lag = {each["partition"]: each["lag"] for each in (await client.done("GET", path)).json["lag"]}
            assert 6 == lag[0]
        assert 204 == (await client("DELETE", "/groups/g%20g")).status
        assert 404 == (await client("GET", "/groups/g%20g")).status

    served(test)


# -- administration --------------------------------------------------------------------------------------


def test_topics_are_made_changed_and_deleted() -> None:
    async def test(client: Client) -> None:
        made = await client.done("POST", "/admin/topics", {"name": "u", "config": {"retention.ms": "5"}})
        assert (201, "u") == (made.status, made.json["name"])
        assert 409 == (await client("POST", "/admin/topics", {"name": "u"})).status
        await client.done("PATCH", "/admin/topics/u", {"config": {"retention.ms": None}})
        await client.done("POST", "/admin/topics/u/partitions", {"total": 3})
        found = (await client.done("GET", "/admin/topics/u")).json
        assert ({}, 3) == (found["config"], len(found["partitions"]))
        assert ["t", "u"] == [each["name"] for each in (await client.done("GET", "/admin/topics")).json["topics"]]
        assert 204 == (await client.done("DELETE", "/admin/topics/u")).status
        assert 404 == (await client("DELETE", "/admin/topics/u")).status
        for name in ("", "a/b", "..", "a b", "x" * 250):
            assert (await client("POST", "/admin/topics", {"name": name})).status in (400, 422)

    served(test)


def test_records_are_trimmed() -> None:
    async def test(client: Client) -> None:
        await filled(client)
        path = "/admin/topics/t/partitions/0/trim"
        assert {"log_start": 4} == (await client.done("POST", path, {"before": 4})).json
        assert {"log_start": 10} == (await client.done("POST", path, {"before": -1})).json
        assert 416 == (await client("GET", RECORDS, query="offset=3")).status

    served(test)


def test_rules_keys_and_quotas() -> None:
    async def test(client: Client) -> None:
        rule = {"principal": "alice", "operation": "read", "resource": "topic", "name": "t"}
        await client.done("POST", "/admin/acls", {"add": [rule]})
        (found,) = (await client.done("GET", "/admin/acls")).json["acls"]
        assert rule.items() <= found.items()
        as_alice = {"x-principal": "alice"}
        assert 200 == (await client("GET", RECORDS, headers=as_alice)).status
        denied = await client("POST", RECORDS, {"records": [{"value": 1}]}, headers=as_alice)
        assert (403, "no") == (denied.status, denied.json["applied"])
        await client.done("POST", "/admin/acls", {"remove": [rule]})
        made = await client.done("POST", "/admin/keys", {"principal": "alice", "scopes": [rule]})
        assert (201, "no-store") == (made.status, made.headers["cache-control"])
        (key,) = (await client.done("GET", "/admin/keys")).json["keys"]
        assert made.json["key"] == key
        assert made.json["token"] not in str(key)
        assert 204 == (await client("DELETE", f"/admin/keys/{key['key']}")).status
        assert 404 == (await client("DELETE", f"/admin/keys/{key['key']}")).status
        await client.done("PUT", "/admin/quotas/alice", {"requests_per_s": 1})
        assert [("alice", 1)] == [
            (each["principal"], each["requests_per_s"])
            for each in (await client.done("GET", "/admin/quotas")).json["quotas"]
        ]

    served(test)


def test_who_has_used_up_a_quota_is_told_when_to_come_back() -> None:
    async def test(client: Client) -> None:
        await client.done("PUT", "/admin/quotas/alice", {"requests_per_s": 1})
        answers = [await client("GET", RECORDS, headers={"x-principal": "alice"}) for _ in range(20)]
        last = answers[-1]
        assert (429, "Throttled") == (last.status, last.json["error"])
        assert int(last.headers["retry-after"]) >= 1
        assert last.json["retry_after_ms"] > 0

    served(test)


def test_upkeep_reports_what_it_did() -> None:
    async def test(client: Client) -> None:
        await client.done("POST", "/groups/g/members/m1/heartbeat", {"topics": ["t"], "joining": True})
        await client.app.clock.sleep(600)
        report = (await client.done("POST", "/maintain")).json
        assert (1, []) == (report["members_expelled"], report["failed"])

    served(test)
