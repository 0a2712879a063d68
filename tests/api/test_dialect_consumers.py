"""The REST Proxy v2: the routes of consumer instances, their bodies and their errors."""

from typing import Any

import pytest

from tests.api.helpers_dialect import V2, Rest, with_rest

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
        {"topic_pattern": "x" * 4_097},
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
