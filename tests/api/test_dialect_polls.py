"""The REST Proxy v2: what consumer instances read, where they go on, and what they commit."""

import pytest

from tests.api.helpers_dialect import BINARY, JSON, V2, Rest, b64, with_rest

PLACES = {"partitions": [{"topic": "t", "partition": 0}]}


# -- records ---------------------------------------------------------------------------------------------


def test_records_come_in_order_once_and_as_they_were_sent() -> None:
    async def main(rest: Rest) -> None:
        await rest.post("/topics/t", {"records": [{"key": {"k": 1}, "value": [1, None]}, {"value": None}]}, kind=JSON)
        consumer = await rest.consumer("c", "t")
        now = rest.clock.wall_ms()
        first = {"topic": "t", "key": {"k": 1}, "value": [1, None], "partition": 0, "offset": 0, "timestamp": now}
        second = {"topic": "t", "key": None, "value": None, "partition": 0, "offset": 1, "timestamp": now}
        assert [first, second] == await consumer.poll()
        assert [] == await consumer.poll()
        await rest.produce("t", "more")
        assert ["more"] == await consumer.values()

    with_rest(main)


def test_what_was_sent_in_one_format_is_read_in_the_other() -> None:
    async def main(rest: Rest) -> None:
        await rest.post("/topics/t", {"records": [{"value": {"a": 1}}]}, kind=JSON)
        await rest.post("/topics/t", {"records": [{"value": b64(b'{"b":2}')}]}, kind=BINARY)
        assert [{"a": 1}, {"b": 2}] == await (await rest.consumer("j", "t", group="j")).values()
        await rest.consumer("b", "t", group="b", format="binary")
        answer = await rest.get("/consumers/b/instances/b/records", accept=BINARY)
        assert BINARY == answer.headers["content-type"]
        assert [b64(b'{"a": 1}'), b64(b'{"b":2}')] == [record["value"] for record in answer.json]

    with_rest(main)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (JSON, JSON),
        (V2, V2),
        ("*/*", JSON),
        ("", JSON),
        ("application/json", "application/json"),
        (f"{BINARY}, {V2};q=0.1", V2),
        (f"{BINARY}, {JSON};q=0.1", JSON),
    ],
)
def test_the_format_is_that_of_the_instance_where_the_client_takes_it(accept: str, expected: str) -> None:
    async def main(rest: Rest) -> None:
        consumer = await rest.consumer("c", "t")
        answer = await consumer.get("/records?timeout=0", **({"accept": accept} if accept else {}))
        assert (200, expected) == (answer.status, answer.headers["content-type"])

    with_rest(main)


def test_another_format_than_that_of_the_instance_is_a_40601() -> None:
    async def main(rest: Rest) -> None:
        consumer = await rest.consumer("c", "t")
        assert (406, 40601) == (await consumer.get("/records", accept=BINARY)).code
        assert (406, 406) == (await consumer.get("/records", accept="text/xml")).code
        assert (406, 406) == (await consumer.get("/records", accept="application/vnd.kafka.avro.v2+json")).code

    with_rest(main)


def test_a_value_that_is_no_json_is_named_and_can_be_passed() -> None:
    async def main(rest: Rest) -> None:
        records = [{"value": b64(b"1")}, {"value": b64(b"\x00not json")}, {"value": b64(b"[3]")}]
        await rest.post("/topics/t", {"records": records}, kind=BINARY)
        consumer = await rest.consumer("c", "t")
        assert [1] == await consumer.values()
        for _ in range(2):
            answer = await consumer.get("/records?timeout=0", accept=JSON)
            assert (406, 40601) == answer.code
            assert 1 == answer.json["offset"]
        past = {"offsets": [{"topic": "t", "partition": 0, "offset": 2}]}
        assert 204 == (await consumer.post("/positions", past)).status
        assert [[3]] == await consumer.values()

    with_rest(main)


def test_a_first_record_that_is_no_json_can_be_passed_too() -> None:
    async def main(rest: Rest) -> None:
        await rest.post("/topics/t", {"records": [{"value": b64(b"x")}, {"value": b64(b"2")}]}, kind=BINARY)
        consumer = await rest.consumer("c", "t")
        assert (406, 40601) == (await consumer.get("/records?timeout=0")).code
        past = {"offsets": [{"topic": "t", "partition": 0, "offset": 1}]}
        assert 204 == (await consumer.post("/positions", past)).status
        assert [2] == await consumer.values()

    with_rest(main)


def test_no_topics_end_a_subscription_as_in_kafka() -> None:
    async def main(rest: Rest) -> None:
        consumer = await rest.consumer("c", "t")
        await consumer.poll()
        assert 204 == (await consumer.post("/subscription", {"topics": []})).status
        assert (409, 40903) == (await consumer.get("/records")).code
        assert 204 == (await consumer.post("/assignments", PLACES)).status

    with_rest(main)


def test_an_instance_without_a_subscription_reads_nothing() -> None:
    async def main(rest: Rest) -> None:
        assert (409, 40903) == (await (await rest.consumer("c")).get("/records")).code

    with_rest(main)


@pytest.mark.parametrize("query", ["timeout=x", "max_bytes=x", "timeout=1.5", "timeout=", "timeout=99999999", "what=1"])
def test_queries_that_mean_nothing_are_refused(query: str) -> None:
    async def main(rest: Rest) -> None:
        assert 400 == (await (await rest.consumer("c", "t")).get(f"/records?{query}")).status

    with_rest(main)


def test_negative_numbers_stand_for_the_defaults_as_the_proxy_has_it() -> None:
    async def main(rest: Rest) -> None:
        consumer = await rest.consumer("c", "t", **{"consumer.request.timeout.ms": 700})
        begun = rest.clock.elapsed_s()
        assert [] == await consumer.poll(-1, max_bytes=-1)
        assert 0.7 == pytest.approx(rest.clock.elapsed_s() - begun, abs=0.05)

    with_rest(main)


def test_an_answer_holds_about_max_bytes_and_at_least_one_record() -> None:
    async def main(rest: Rest) -> None:
        await rest.produce("t", *["x" * 1_000] * 50)
        consumer = await rest.consumer("c", "t")
        assert 1 == len(await consumer.poll(max_bytes=1))
        assert 4 == len(await consumer.poll(max_bytes=4_500))
        assert 45 == len(await consumer.poll())

    with_rest(main)


# -- positions and offsets -------------------------------------------------------------------------------


def test_positions_are_moved_to_offsets_to_the_beginning_and_to_the_end() -> None:
    async def main(rest: Rest) -> None:
        await rest.produce("t", *range(5))
        consumer = await rest.consumer("c", "t")
        assert [0, 1, 2, 3, 4] == await consumer.values()
        to_three = {"offsets": [{"topic": "t", "partition": 0, "offset": 3, "metadata": "passed over"}]}
        assert 204 == (await consumer.post("/positions", to_three)).status
        assert [3, 4] == await consumer.values()
        assert 204 == (await consumer.post("/positions/beginning", PLACES)).status
        assert [0, 1, 2, 3, 4] == await consumer.values()
        assert 204 == (await consumer.post("/positions/beginning", PLACES)).status
        assert 204 == (await consumer.post("/positions/end", PLACES)).status
        assert [] == await consumer.values()
        await rest.produce("t", 5)
        assert [5] == await consumer.values()

    with_rest(main)


def test_partitions_of_others_cannot_be_moved() -> None:
    async def main(rest: Rest) -> None:
        consumer = await rest.consumer("c")
        await consumer.post("/assignments", PLACES)
        for topic, partition in (("t", 1), ("u", 0)):
            place = {"topic": topic, "partition": partition}
            assert (409, 40903) == (await consumer.post("/positions", {"offsets": [{**place, "offset": 0}]})).code
            assert (409, 40903) == (await consumer.post("/positions/beginning", {"partitions": [place]})).code
            assert (409, 40903) == (await consumer.post("/positions/end", {"partitions": [place]})).code

    with_rest(main, partitions=2)


def test_a_position_outside_the_log_is_reset_as_the_instance_says() -> None:
    async def main(rest: Rest) -> None:
        await rest.produce("t", *range(5))
        await (await rest.namespace()).trim("t", 0, 2)
        outside = {"offsets": [{"topic": "t", "partition": 0, "offset": 99}]}
        for reset, expected in (("earliest", [2, 3, 4]), ("latest", [])):
            consumer = await rest.consumer("c", group=reset, **{"auto.offset.reset": reset})
            await consumer.post("/assignments", PLACES)
            assert 204 == (await consumer.post("/positions", outside)).status
            assert expected == await consumer.values()
        consumer = await rest.consumer("c", group="none", **{"auto.offset.reset": "none"})
        assert (409, 40903) == (await consumer.post("/assignments", PLACES)).code
        await consumer.post("/offsets", outside)
        assert 204 == (await consumer.post("/assignments", PLACES)).status
        assert (409, 40903) == (await consumer.get("/records")).code

    with_rest(main)


def test_offsets_are_committed_as_given_with_their_metadata() -> None:
    async def main(rest: Rest) -> None:
        await rest.produce("t", *range(5))
        consumer = await rest.consumer("c", "t", **{"auto.commit.enable": False})
        assert 5 == len(await consumer.poll())
        assert {"offsets": []} == (await consumer.get("/offsets")).json
        given = {"topic": "t", "partition": 0, "offset": 3, "metadata": "m"}
        assert [given] == (await consumer.post("/offsets", {"offsets": [given]})).json
        assert {"offsets": [given]} == (await consumer.get("/offsets")).json
        assert {"offsets": [given]} == (await consumer.get("/offsets", body=PLACES)).json
        other = {"partitions": [{"topic": "t", "partition": 7}]}
        assert {"offsets": []} == (await consumer.get("/offsets", body=other)).json

    with_rest(main)


def test_an_empty_commit_commits_what_the_polls_returned() -> None:
    async def main(rest: Rest) -> None:
        await rest.produce("t", *range(9))
        consumer = await rest.consumer("c", "t", **{"auto.commit.enable": False})
        await consumer.poll(max_bytes=1)
        await consumer.poll(max_bytes=1)
        assert {} == await consumer.committed()
        assert 200 == (await consumer.post("/offsets")).status
        assert {0: 2} == await consumer.committed()
        assert [] == (await consumer.post("/offsets")).json

    with_rest(main)


def test_offsets_of_what_does_not_exist_are_refused() -> None:
    async def main(rest: Rest) -> None:
        consumer = await rest.consumer("c")
        for topic, partition, code in (("nope", 0, 40401), ("t", 9, 40402)):
            body = {"offsets": [{"topic": topic, "partition": partition, "offset": 0}]}
            answer = await consumer.post("/offsets", body)
            assert 404 == answer.status
            assert answer.json["error_code"] in (code, 404)

    with_rest(main)


def test_automatic_commits_are_those_of_the_poll_before() -> None:
    async def main(rest: Rest) -> None:
        await rest.produce("t", *range(9))
        consumer = await rest.consumer("c", "t")
        await consumer.poll(max_bytes=1)
        assert {} == await consumer.committed()
        await consumer.poll(max_bytes=1)
        assert {0: 1} == await consumer.committed()
        await consumer.poll()
        assert {0: 2} == await consumer.committed()
        await consumer.poll()
        assert {0: 9} == await consumer.committed()

    with_rest(main)
