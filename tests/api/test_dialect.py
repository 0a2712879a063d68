"""The REST Proxy v2: topics, and producing."""

import json
from typing import Any

import pytest

from headwater.api import dialect, dialect_consumers
from headwater.api.routes import table
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.memory import MemoryStore
from tests.api.helpers_dialect import BINARY, JSON, V2, Rest, b64, with_rest
from tests.log.helpers import simulate

OK = {"error_code": None, "error": None}


def offsets(answer: Any) -> list[tuple[int, int]]:
    """Partition and offset of each record of a produce."""
    assert answer.status == 200, answer.body
    body = answer.json
    assert (None, None) == (body["key_schema_id"], body["value_schema_id"])
    assert all(OK.items() <= one.items() for one in body["offsets"])
    return [(one["partition"], one["offset"]) for one in body["offsets"]]


# -- topics ----------------------------------------------------------------------------------------------


def test_topics_are_listed_and_described_as_the_proxy_does() -> None:
    async def main(rest: Rest) -> None:
        replica = {"broker": 0, "leader": True, "in_sync": True}
        partitions = [{"partition": p, "leader": 0, "replicas": [replica]} for p in range(2)]
        assert ["t"] == (await rest.get("/topics")).json
        described = {"name": "t", "configs": {}, "partitions": partitions}
        assert described == (await rest.get("/topics/t")).json
        assert partitions == (await rest.get("/topics/t/partitions")).json
        assert partitions[1] == (await rest.get("/topics/t/partitions/1")).json

    with_rest(main, partitions=2)


def test_the_configs_of_a_topic_are_told() -> None:
    async def main(rest: Rest) -> None:
        await (await rest.namespace()).create_topic("c", 1, {"retention.ms": "5"})
        assert {"retention.ms": "5"} == (await rest.get("/topics/c")).json["configs"]

    with_rest(main)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/topics/nope", 40401),
        ("/topics/nope/partitions", 40401),
        ("/topics/nope/partitions/0", 40401),
        ("/topics/t/partitions/1", 40402),
        ("/topics/t/partitions/-1", 40402),
        ("/topics/t/partitions/x", 40402),
        ("/topics/t/partitions/99999999999999999999", 40402),
    ],
)
def test_what_is_not_there_has_the_proxys_number(path: str, code: int) -> None:
    async def main(rest: Rest) -> None:
        answer = await rest.get(path)
        assert (404, code) == answer.code
        assert V2 == answer.headers["content-type"]
        assert answer.json["message"]

    with_rest(main)


@pytest.mark.parametrize("path", ["/topics/..%2f..%2fmanifest", "/topics/..", "/topics/%2e%2e", "/topics/a%00b"])
def test_tricks_with_paths_are_refused(path: str) -> None:
    async def main(rest: Rest) -> None:
        assert 400 == (await rest.get(path)).status
        assert 400 == (await rest.post(path, {"records": [{"value": 1}]}, kind=JSON)).status

    with_rest(main)


def test_a_name_that_no_topic_has_is_refused_and_appends_nothing() -> None:
    async def main(rest: Rest) -> None:
        answer = await rest.post("/topics/a%20b", {"records": [{"value": 1}]}, kind=JSON)
        assert answer.status in (400, 404)

    with_rest(main)


@pytest.mark.parametrize("accept", ["", V2, JSON, BINARY, "application/json", "*/*", "application/*;q=0.1, text/html"])
def test_answers_come_in_a_type_that_is_accepted(accept: str) -> None:
    async def main(rest: Rest) -> None:
        answer = await rest.get("/topics", **({"accept": accept} if accept else {}))
        assert 200 == answer.status
        expected = accept if accept in (V2, JSON, BINARY, "application/json") else V2
        assert expected == answer.headers["content-type"]

    with_rest(main)


@pytest.mark.parametrize("path", ["/topics", "/topics/t", "/topics/t/partitions/0"])
def test_a_client_that_takes_only_xml_gets_a_406(path: str) -> None:
    async def main(rest: Rest) -> None:
        assert (406, 406) == (await rest.get(path, accept="text/xml")).code

    with_rest(main)


# -- producing -------------------------------------------------------------------------------------------


def test_json_values_are_kept_byte_for_byte() -> None:
    async def main(rest: Rest) -> None:
        body = b'{"records":[{"key":[1, 2],"value":{"a" :1.50,"b":"\\u00e9\xc3\xa9"}},{"value":null},{"value":1e400}]}'
        assert [(0, 0), (0, 1), (0, 2)] == offsets(await rest.post("/topics/t", body, kind=JSON))
        fetched = await (await rest.namespace()).reader.fetch("t", 0, 0)
        (chunk,) = fetched.chunks
        rows = chunk.decode()
        assert [b"[1, 2]", None, None] == rows.column("key").to_pylist()
        assert [b'{"a" :1.50,"b":"\\u00e9\xc3\xa9"}', None, b"1e400"] == rows.column("value").to_pylist()

    with_rest(main)


def test_binary_values_are_what_their_base64_stands_for() -> None:
    async def main(rest: Rest) -> None:
        records = [{"key": b64(b"k\x00"), "value": b64(b"\xff" * 9)}, {"value": None}, {"value": ""}]
        assert 3 == len(offsets(await rest.post("/topics/t", {"records": records}, kind=BINARY)))
        (chunk,) = (await (await rest.namespace()).reader.fetch("t", 0, 0)).chunks
        assert [b"k\x00", None, None] == chunk.decode().column("key").to_pylist()
        assert [b"\xff" * 9, None, b""] == chunk.decode().column("value").to_pylist()

    with_rest(main)


def test_times_and_headers_are_kept_and_records_without_a_time_have_the_present_one() -> None:
    async def main(rest: Rest) -> None:
        headers = [{"key": "h", "value": b64(b"\x00x")}, {"key": "n", "value": None}]
        records = [{"value": 1, "timestamp": 77, "headers": headers}, {"value": 2}, {"value": 3, "timestamp": None}]
        now = rest.clock.wall_ms()
        await rest.post("/topics/t", {"records": records}, kind=JSON)
        consumer = await rest.consumer("c", "t")
        found = await consumer.poll()
        assert headers == found[0]["headers"]
        assert "headers" not in found[1]
        assert 77 == found[0]["timestamp"]
        assert now == found[1]["timestamp"] == found[2]["timestamp"]

    with_rest(main)


@pytest.mark.parametrize("count", [7, 64, 65, 700])
def test_keys_go_to_their_partitions_and_offsets_come_in_the_order_of_the_records(count: int) -> None:
    async def main(rest: Rest) -> None:
        from headwater.log.partitioner import partition_of

        records = [{"key": f"k{i % 50}", "value": i} for i in range(count)]
        found = offsets(await rest.post("/topics/t", {"records": records}, kind=JSON))
        assert [partition_of(f'"k{i % 50}"'.encode(), 5) for i in range(count)] == [place for place, _ in found]
        seen: dict[int, int] = {}
        for partition, offset in found:
            assert seen.get(partition, 0) == offset
            seen[partition] = offset + 1
        stored = await (await rest.namespace()).reader.fetch("t", found[0][0], 0)
        values = [value for chunk in stored.chunks for value in chunk.decode().column("value").to_pylist()]
        assert [str(i).encode() for i, place in enumerate(found) if place[0] == found[0][0]] == values

    with_rest(main, partitions=5)


def test_records_without_a_key_share_one_partition_and_requests_spread() -> None:
    async def main(rest: Rest) -> None:
        chosen = set()
        for _ in range(40):
            found = offsets(await rest.produce("t", 1, 2, 3))
            assert 1 == len({partition for partition, _ in found})
            chosen.add(found[0][0])
        assert {0, 1, 2} == chosen

    with_rest(main, partitions=3)


def test_a_record_may_name_its_partition() -> None:
    async def main(rest: Rest) -> None:
        records = [{"key": "k", "value": 1, "partition": p} for p in (2, 0, 2)]
        assert [(2, 0), (0, 0), (2, 1)] == offsets(await rest.post("/topics/t", {"records": records}, kind=JSON))
        many = [{"value": i, "partition": i % 3} for i in range(300)]
        found = offsets(await rest.post("/topics/t", {"records": many}, kind=JSON))
        assert [i % 3 for i in range(300)] == [partition for partition, _ in found]

    with_rest(main, partitions=3)


def test_all_records_of_a_request_are_one_commit() -> None:
    async def main(rest: Rest) -> None:
        namespace = await rest.namespace()
        before = namespace.state.seq
        await rest.produce("t", *range(100), keys=True)
        assert before + 1 == namespace.state.seq

    with_rest(main, partitions=6)


def test_a_path_with_a_partition_takes_all_records_there() -> None:
    async def main(rest: Rest) -> None:
        records = [{"key": "a", "value": 1}, {"key": "b", "value": 2, "partition": 2}, {"value": 3}]
        found = offsets(await rest.post("/topics/t/partitions/2", {"records": records}, kind=JSON))
        assert [(2, 0), (2, 1), (2, 2)] == found
        other = {"records": [{"value": 1, "partition": 1}]}
        assert (422, 422) == (await rest.post("/topics/t/partitions/2", other, kind=JSON)).code

    with_rest(main, partitions=3)


def test_application_json_is_the_json_format() -> None:
    async def main(rest: Rest) -> None:
        body = {"records": [{"value": {"a": 1}}]}
        kind = "Application/JSON; charset=utf-8"
        assert [(0, 0)] == offsets(await rest.post("/topics/t", body, kind=kind, accept="application/json"))

    with_rest(main)


@pytest.mark.parametrize(
    "kind",
    [
        "",
        V2,
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/vnd.kafka.avro.v2+json",
        "application/vnd.kafka.protobuf.v2+json",
        "application/vnd.kafka.jsonschema.v2+json",
        "application/vnd.kafka.json.v1+json",
        "*/*",
    ],
)
def test_other_types_of_bodies_are_refused(kind: str) -> None:
    async def main(rest: Rest) -> None:
        for path in ("/topics/t", "/topics/t/partitions/0"):
            assert (415, 415) == (await rest.post(path, {"records": [{"value": 1}]}, kind=kind)).code
        assert 0 == (await rest.namespace()).topic("t").partitions[0].next

    with_rest(main)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff\xfe",
        b'{"records":[{"value":"\xff"}]}',
        b'{"records":[{"value":01}]}',
        b'{"records":[{"value":NaN}]}',
        b'{"records":[{"value":1}]}x',
        b'{"records":[{"value":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
        b'{"records":[{"value":"a\nb"}]}',
        b'{"records":[{"value":"\\ud800"}]}',
    ],
)
def test_what_is_no_json_is_a_400_and_appends_nothing(body: bytes) -> None:
    async def main(rest: Rest) -> None:
        answer = await rest.post("/topics/t", body, kind=JSON)
        assert (400, 400) == answer.code
        assert "no" == answer.json["applied"]
        assert 0 == (await rest.namespace()).topic("t").partitions[0].next

    with_rest(main)


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "x",
        None,
        {"records": []},
        {"records": {}},
        {"records": [1]},
        {"records": [{"value": 1}], "more": 1},
        {"records": [{"value": 1, "Key": 2}]},
        {"records": [{"value": 1, "partition": "0"}]},
        {"records": [{"value": 1, "partition": -1}]},
        {"records": [{"value": 1, "partition": 2**31}]},
        {"records": [{"value": 1, "timestamp": "now"}]},
        {"records": [{"value": 1, "timestamp": -2}]},
        {"records": [{"value": 1, "timestamp": 2**62}]},
        {"records": [{"value": 1, "headers": [{"value": ""}]}]},
        {"records": [{"value": 1, "headers": [{"key": "h", "value": "no base64"}]}]},
        {"records": [{"value": 1, "headers": {"h": "x"}}]},
    ],
)
def test_json_that_does_not_fit_is_a_422_and_appends_nothing(body: Any) -> None:
    async def main(rest: Rest) -> None:
        data = json.dumps(body).encode()
        assert (422, 422) == (await rest.post("/topics/t", data, kind=JSON)).code
        assert 0 == (await rest.namespace()).topic("t").partitions[0].next

    with_rest(main)


@pytest.mark.parametrize("value", ["!!", "AA", "AA==\n", "A", 5, {"a": 1}])
def test_binary_values_that_are_no_base64_are_a_422(value: Any) -> None:
    async def main(rest: Rest) -> None:
        for name in ("key", "value"):
            answer = await rest.post("/topics/t", {"records": [{"value": "AA=="}, {name: value}]}, kind=BINARY)
            assert (422, 422) == answer.code
            assert f"records[1].{name}" in answer.json["message"]

    with_rest(main)


@pytest.mark.parametrize("name", ["key_schema", "value_schema", "key_schema_id", "value_schema_id"])
def test_schemas_are_refused_with_their_number_and_null_ones_are_passed_over(name: str) -> None:
    async def main(rest: Rest) -> None:
        schema: Any = 1 if name.endswith("id") else '"string"'
        records = [{"value": 1}]
        assert (422, 42205) == (await rest.post("/topics/t", {"records": records, name: schema}, kind=JSON)).code
        assert 200 == (await rest.post("/topics/t", {"records": records, name: None}, kind=JSON)).status

    with_rest(main)


def test_topics_and_partitions_that_do_not_exist_are_404_and_append_nothing() -> None:
    async def main(rest: Rest) -> None:
        body = {"records": [{"value": 1}]}
        assert (404, 40401) == (await rest.post("/topics/nope", body, kind=JSON)).code
        assert (404, 40401) == (await rest.post("/topics/nope/partitions/0", body, kind=JSON)).code
        assert (404, 40402) == (await rest.post("/topics/t/partitions/2", body, kind=JSON)).code
        assert (404, 40402) == (await rest.post("/topics/t/partitions/x", body, kind=JSON)).code
        mixed = {"records": [{"value": 1, "partition": 0}, {"value": 1, "partition": 7}]}
        namespace = await rest.namespace()
        before = namespace.state.seq
        assert (404, 40402) == (await rest.post("/topics/t", mixed, kind=JSON)).code
        assert before == namespace.state.seq

    with_rest(main, partitions=2)


def test_a_partition_that_was_added_elsewhere_is_found() -> None:
    async def main() -> None:
        store = MemoryStore(clock=SimClock(sim_loop()))
        one, other = Rest(store, seed=1), Rest(store, seed=2)
        await (await one.namespace()).create_topic("t", 1)
        await one.produce("t", 1)
        await (await other.namespace()).add_partitions("t", 3)
        body = {"records": [{"value": 1}]}
        assert [(2, 0)] == offsets(await one.post("/topics/t/partitions/2", body, kind=JSON))

    simulate(main())


@pytest.mark.parametrize("count", [1, 100])
def test_a_record_that_is_too_large_is_a_400_and_appends_nothing(count: int) -> None:
    async def main(rest: Rest) -> None:
        records = [{"value": "x"}] * count + [{"value": "x" * (8 << 20)}]
        assert (400, 400) == (await rest.post("/topics/t", {"records": records}, kind=JSON)).code
        assert 0 == (await rest.namespace()).topic("t").partitions[0].next

    with_rest(main)


def test_strimzis_async_answers_without_offsets_when_the_records_are_stored() -> None:
    async def main(rest: Rest) -> None:
        body = {"records": [{"value": 1}]}
        assert 204 == (await rest.post("/topics/t?async=true", body, kind=JSON)).status
        assert 1 == (await rest.namespace()).topic("t").partitions[0].next
        assert [(0, 1)] == offsets(await rest.post("/topics/t/partitions/0?async=false", body, kind=JSON))
        assert (400, 400) == (await rest.post("/topics/t?async=perhaps", body, kind=JSON)).code

    with_rest(main)


def test_there_is_one_broker_in_name() -> None:
    async def main(rest: Rest) -> None:
        assert {"brokers": [0]} == (await rest.get("/brokers")).json

    with_rest(main)


# -- access and the table --------------------------------------------------------------------------------


def test_who_may_not_write_learns_nothing_of_topics() -> None:
    async def main(rest: Rest) -> None:
        rule = {"principal": "ann", "operation": "write", "resource": "topic", "name": "mine", "allow": True}
        added = await rest.post("/admin/acls", {"add": [rule]}, kind="application/json")
        assert added.status < 300, added.body
        body = {"records": [{"value": 1}]}
        for path in ("/topics/t", "/topics/nope", "/topics/t/partitions/0", "/topics/t/partitions/9"):
            assert 403 == (await rest.post(path, body, kind=JSON, x_principal="ann")).status
        assert 403 == (await rest.get("/topics/t", x_principal="ann")).status
        assert [] == (await rest.get("/topics", x_principal="ann")).json

    with_rest(main)


def test_functions_serve_the_parts_of_the_dialect_that_are_theirs() -> None:
    def served(function: str) -> set[str]:
        return {f"{route.method} {route.pattern}" for route in table(function) if route.dialect}

    ours = {f"{route.method} {route.pattern}" for route in (*dialect.ROUTES, *dialect_consumers.ROUTES)}
    writes = {"POST /topics/{topic}", "POST /topics/{topic}/partitions/{partition}"}
    reads = {
        f"GET /topics{rest}" for rest in ("", "/{topic}", "/{topic}/partitions", "/{topic}/partitions/{partition}")
    }
    assert ours == served("groups") == served("dev")
    assert writes == served("produce")
    assert reads | {"GET /brokers"} == served("fetch") == served("admin")
    assert set() == served("maintain")


def test_queries_that_a_route_does_not_know_are_refused() -> None:
    async def main(rest: Rest) -> None:
        assert (400, 400) == (await rest.get("/topics?verbose=1")).code
        assert (400, 400) == (await rest.post("/topics/t?sync=1", {"records": [{"value": 1}]}, kind=JSON)).code

    with_rest(main)
