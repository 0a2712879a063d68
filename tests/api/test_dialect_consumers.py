"""The REST Proxy v2: the routes of consumer instances, their bodies and their errors."""

from typing import Any

import pytest

from tests.api.helpers_dialect import BINARY, JSON, V2, Rest, b64, with_rest

AT = "/consumers/g/instances/c"
PLACES = {"partitions": [{"topic": "t", "partition": 0}]}


# -- create and delete -----------------------------------------------------------------------------------


def test_an_instance_is_created_and_its_uri_leads_to_it() -> None:
    async def main(rest: Rest) -> None:
        made = await rest.post("/consumers/g%C3%A4%20%251", {"name": "c é", "format": "json"})
        assert 200 == made.status
        assert "c é" == made.json["instance_id"]
        base = "https://example.org"
        assert f"{base}/consumers/g%C3%A4%20%251/instances/c%20%C3%A9" == made.json["base_uri"]
        path = made.json["base_uri"].removeprefix(base)
        assert {"topics": [], "partitions": []} == (await rest.get(f"{path}/subscription")).json
        assert 204 == (await rest.delete(path)).status
        assert (404, 40403) == (await rest.delete(path)).code

    with_rest(main)


def test_names_are_made_up_where_none_is_given() -> None:
    async def main(rest: Rest) -> None:
        names = {(await rest.post("/consumers/g", body)).json["instance_id"] for body in (None, {}, {"name": None})}
        assert 3 == len(names)
        assert all(name.startswith("rest-consumer-") for name in names)
        assert "old" == (await rest.post("/consumers/g", {"id": "old", "name": "new"})).json["instance_id"]

    with_rest(main)


def test_a_name_is_taken_within_its_group_alone() -> None:
    async def main(rest: Rest) -> None:
        assert 200 == (await rest.post("/consumers/g", {"name": "c"})).status
        assert (409, 40902) == (await rest.post("/consumers/g", {"name": "c"})).code
        assert 200 == (await rest.post("/consumers/h", {"name": "c"})).status
        assert 204 == (await rest.delete(AT)).status
        assert 200 == (await rest.post("/consumers/g", {"name": "c"})).status

    with_rest(main)


@pytest.mark.parametrize(
    "settings",
    [
        {"format": "binary"},
        {"auto.offset.reset": "none"},
        {"auto.commit.enable": "false"},
        {"auto.commit.enable": True},
        {"enable.auto.commit": False},
        {"fetch.min.bytes": "1024"},
        {"fetch.min.bytes": -1},
        {"consumer.request.timeout.ms": 30_000},
        {"isolation.level": "read_committed"},
        {"session.timeout.ms": "6000"},
    ],
)
def test_settings_of_the_proxy_are_taken_as_text_and_as_numbers(settings: dict[str, Any]) -> None:
    async def main(rest: Rest) -> None:
        assert 200 == (await rest.post("/consumers/g", {"name": "c", **settings})).status

    with_rest(main)


@pytest.mark.parametrize(
    "settings",
    [
        {"format": "avro"},
        {"format": ""},
        {"auto.offset.reset": "largest"},
        {"fetch.min.bytes": "many"},
        {"fetch.min.bytes": 2**40},
        {"consumer.request.timeout.ms": -1},
        {"consumer.request.timeout.ms": "1e3"},
        {"isolation.level": "chaos"},
        {"session.timeout.ms": 5_999},
    ],
)
def test_settings_that_mean_nothing_are_invalid_configuration(settings: dict[str, Any]) -> None:
    async def main(rest: Rest) -> None:
        assert (422, 42204) == (await rest.post("/consumers/g", {"name": "c", **settings})).code
        assert (404, 40403) == (await rest.delete(AT)).code

    with_rest(main)


@pytest.mark.parametrize(
    "body",
    [
        {"name": 5},
        {"name": "c", "format": 1},
        {"name": "c", "auto.commit.enable": "yes"},
        {"name": "c", "auto.commit.enable": 1},
        {"name": "c", "unknown": 1},
        [],
    ],
)
def test_a_body_that_does_not_fit_is_a_422(body: Any) -> None:
    async def main(rest: Rest) -> None:
        assert (422, 422) == (await rest.post("/consumers/g", body)).code

    with_rest(main)


@pytest.mark.parametrize("name", [".", "..", "a/b", "../../manifest", "a\\b", "a\x00b", "a\nb", "x" * 513, "é" * 257])
def test_names_that_are_paths_or_too_long_are_refused(name: str) -> None:
    async def main(rest: Rest) -> None:
        assert 422 == (await rest.post("/consumers/g", {"name": name})).status

    with_rest(main)


@pytest.mark.parametrize("name", ["...", "a.b", "a~b", "%2F", "?", "#", "x" * 512, "é" * 256, "💧" * 128, "a b", "*"])
def test_any_other_name_works_and_lies_below_its_group_in_the_bucket(name: str) -> None:
    async def main(rest: Rest) -> None:
        from urllib.parse import quote

        group = quote(name, safe="")
        made = await rest.post(f"/consumers/{group}", {"name": name})
        assert 200 == made.status, made.body
        path = made.json["base_uri"].removeprefix("https://example.org")
        assert 204 == (await rest.post(f"{path}/subscription", {"topics": ["t"]})).status
        assert ["t"] == (await rest.get(f"{path}/subscription")).json["topics"]
        store = (await rest.namespace()).store
        keys = [stat.key async for stat in store.list("consumer/")]
        assert 1 == len(keys)
        assert 3 == len(keys[0].split("/"))
        assert 204 == (await rest.delete(path)).status
        assert [] == [stat.key async for stat in store.list("consumer/")]

    with_rest(main)


@pytest.mark.parametrize("group", ["..", "%2e%2e", "a%2fb", "a%5cb", "a%00", "%ff"])
def test_tricks_with_paths_are_refused(group: str) -> None:
    async def main(rest: Rest) -> None:
        assert 400 == (await rest.post(f"/consumers/{group}", {"name": "c"})).status
        assert 400 == (await rest.get(f"/consumers/{group}/instances/c/records")).status
        assert 400 == (await rest.delete(f"/consumers/g/instances/{group}")).status

    with_rest(main)


def test_instances_of_another_principal_look_as_if_they_were_not_there() -> None:
    async def main(rest: Rest) -> None:
        await rest.consumer("c", "t")
        assert 200 == (await rest.get(f"{AT}/subscription")).status
        assert (404, 40403) == (await rest.get(f"{AT}/subscription", x_principal="ann")).code
        assert (404, 40403) == (await rest.get(f"{AT}/records", x_principal="ann")).code

    with_rest(main)


def test_who_has_no_right_to_a_group_creates_nothing_in_it() -> None:
    async def main(rest: Rest) -> None:
        rule = {"principal": "ann", "operation": "read", "resource": "group", "name": "hers", "allow": True}
        assert (await rest.post("/admin/acls", {"add": [rule]}, kind="application/json")).status < 300
        assert 403 == (await rest.post("/consumers/g", {"name": "c"}, x_principal="ann")).status
        assert 200 == (await rest.post("/consumers/hers", {"name": "c"}, x_principal="ann")).status

    with_rest(main)


# -- every route -----------------------------------------------------------------------------------------

ROUTES: list[tuple[str, str, Any]] = [
    ("DELETE", "", None),
    ("POST", "/subscription", {"topics": ["t"]}),
    ("GET", "/subscription", None),
    ("DELETE", "/subscription", None),
    ("POST", "/assignments", PLACES),
    ("GET", "/assignments", None),
    ("POST", "/positions", {"offsets": [{"topic": "t", "partition": 0, "offset": 0}]}),
    ("POST", "/positions/beginning", PLACES),
    ("POST", "/positions/end", PLACES),
    ("GET", "/records", None),
    ("POST", "/offsets", None),
    ("POST", "/offsets", {"offsets": [{"topic": "t", "partition": 0, "offset": 0}]}),
    ("GET", "/offsets", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_an_instance_that_is_not_there_is_a_40403(method: str, path: str, body: Any) -> None:
    async def main(rest: Rest) -> None:
        answer = await rest.ask(method, AT + path, body)
        assert (404, 40403) == answer.code
        assert V2 == answer.headers["content-type"]

    with_rest(main)


@pytest.mark.parametrize(("method", "path", "body"), [route for route in ROUTES if route[2] is not None])
def test_bodies_of_another_type_or_shape_are_refused(method: str, path: str, body: Any) -> None:
    async def main(rest: Rest) -> None:
        await rest.consumer("c")
        for kind in ("", "text/plain", "application/vnd.kafka.avro.v2+json"):
            assert (415, 415) == (await rest.ask(method, AT + path, body, kind=kind)).code
        assert (400, 400) == (await rest.ask(method, AT + path, b"{")).code
        assert (400, 400) == (await rest.ask(method, AT + path, b'{"\xff":1}')).code
        assert (422, 422) == (await rest.ask(method, AT + path, {**body, "more": 1})).code
        assert (422, 422) == (await rest.ask(method, AT + path, [])).code
        assert (406, 406) == (await rest.ask(method, AT + path, body, accept="text/html")).code

    with_rest(main)


@pytest.mark.parametrize(
    "path", ["/positions", "/positions/beginning", "/positions/end", "/assignments", "/subscription"]
)
def test_a_body_that_is_missing_is_refused(path: str) -> None:
    async def main(rest: Rest) -> None:
        await rest.consumer("c")
        assert (await rest.post(AT + path)).status in (400, 415)

    with_rest(main)


@pytest.mark.parametrize(
    "place",
    [
        {"topic": "t"},
        {"partition": 0},
        {"topic": "t", "partition": -1},
        {"topic": "t", "partition": "0"},
        {"topic": "", "partition": 0},
        {"topic": "x" * 250, "partition": 0},
        {"topic": "t", "partition": 0, "more": 1},
    ],
)
def test_places_that_do_not_fit_are_a_422(place: Any) -> None:
    async def main(rest: Rest) -> None:
        await rest.consumer("c")
        for path in ("/assignments", "/positions/beginning", "/positions/end"):
            assert (422, 422) == (await rest.post(AT + path, {"partitions": [place]})).code
        for path in ("/positions", "/offsets"):
            assert (422, 422) == (await rest.post(AT + path, {"offsets": [{**place, "offset": 0}]})).code

    with_rest(main)


@pytest.mark.parametrize("offset", [-1, 2**62 + 1, "0", None, 1.5])
def test_offsets_that_do_not_fit_are_a_422(offset: Any) -> None:
    async def main(rest: Rest) -> None:
        await rest.consumer("c")
        body = {"offsets": [{"topic": "t", "partition": 0, "offset": offset}]}
        assert (422, 422) == (await rest.post(f"{AT}/positions", body)).code
        assert (422, 422) == (await rest.post(f"{AT}/offsets", body)).code

    with_rest(main)


# -- subscriptions and assignments -----------------------------------------------------------------------


def test_a_subscription_is_told_replaced_and_ended() -> None:
    async def main(rest: Rest) -> None:
        consumer = await rest.consumer("c", "t", "u", "t")
        assert ["t", "u"] == (await consumer.get("/subscription")).json["topics"]
        assert 204 == (await consumer.post("/subscription", {"topics": ["v"]})).status
        assert ["v"] == (await consumer.get("/subscription")).json["topics"]
        assert 204 == (await consumer.delete("/subscription")).status
        assert 204 == (await consumer.delete("/subscription")).status
        assert {"topics": [], "partitions": []} == (await consumer.get("/subscription")).json

    with_rest(main)


def test_topics_a_pattern_and_partitions_exclude_each_other() -> None:
    async def main(rest: Rest) -> None:
        consumer = await rest.consumer("c")
        wishes = {
            "topics": ("/subscription", {"topics": ["t"]}),
            "pattern": ("/subscription", {"topic_pattern": "t.*"}),
            "assigned": ("/assignments", PLACES),
        }
        for first, (path, body) in wishes.items():
            assert 204 == (await consumer.post(path, body)).status
            for second, (other, wish) in wishes.items():
                if first != second:
                    assert (409, 40903) == (await consumer.post(other, wish)).code
            assert 204 == (await consumer.post(path, body)).status
            assert 204 == (await consumer.delete("/subscription")).status

    with_rest(main)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"topics": None},
        {"topics": ["t"], "topic_pattern": "t"},
        {"topics": "t"},
        {"topic_pattern": ""},
        {"topic_pattern": "("},
        {"topic_pattern": "a)|(b"},
        {"topic_pattern": "\\Qa"},
        {"topic_pattern": "(?=a)"},
        {"topic_pattern": "(a)\\1"},
        {"topic_pattern": "x" * 250},
        {"topic_pattern": 5},
    ],
)
def test_subscriptions_that_mean_nothing_are_a_422(body: Any) -> None:
    async def main(rest: Rest) -> None:
        await rest.consumer("c")
        assert (422, 422) == (await rest.post(f"{AT}/subscription", body)).code

    with_rest(main)


def test_names_that_no_topic_can_have_are_refused() -> None:
    async def main(rest: Rest) -> None:
        await rest.consumer("c")
        for name in ("", "a b", "..", "a/b", "x" * 250):
            assert 400 == (await rest.post(f"{AT}/subscription", {"topics": [name]})).status

    with_rest(main)


def test_partitions_can_be_assigned_by_hand() -> None:
    async def main(rest: Rest) -> None:
        await rest.produce("t", *range(20), keys=True)
        consumer = await rest.consumer("c")
        places = [{"topic": "t", "partition": p} for p in (2, 0, 2)]
        assert 204 == (await consumer.post("/assignments", {"partitions": places})).status
        assert [2, 0] == await consumer.partitions()
        assert {0, 2} == {record["partition"] for record in await consumer.poll()}
        assert [] == await consumer.poll()
        wider = [{"topic": "t", "partition": p} for p in (1, 2)]
        assert 204 == (await consumer.post("/assignments", {"partitions": wider})).status
        assert {1} == {record["partition"] for record in await consumer.poll()}
        assert 204 == (await consumer.post("/assignments", {"partitions": []})).status
        assert (409, 40903) == (await consumer.get("/records")).code

    with_rest(main, partitions=3)


def test_what_does_not_exist_cannot_be_assigned() -> None:
    async def main(rest: Rest) -> None:
        consumer = await rest.consumer("c")
        for topic, partition, code in (("t", 1, 40402), ("nope", 0, 40401)):
            body = {"partitions": [{"topic": "t", "partition": 0}, {"topic": topic, "partition": partition}]}
            assert (404, code) == (await consumer.post("/assignments", body)).code
        assert [] == await consumer.partitions()

    with_rest(main)


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
