"""REST consumer instances: groups that share partitions, processes that come and go, stores that fall silent."""

import asyncio
import random
from typing import Any

import pytest

from headwater.api.instance_store import sweep
from headwater.api.patterns import matching
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.memory import MemoryStore
from tests.api.helpers_dialect import JSON, Consumer, Rest, with_rest
from tests.log.helpers import simulate

NO_COMMITS = {"auto.commit.enable": False}


async def until(consumers: list[Consumer], *, rounds: int = 12, pause_s: float = 1.0) -> dict[str, list[Any]]:
    """Poll in turns until the group has settled; the values that each instance got, by the end of its path."""
    found: dict[str, list[Any]] = {consumer.path[-1]: [] for consumer in consumers}
    for _ in range(rounds):
        for consumer in consumers:
            found[consumer.path[-1]] += await consumer.values()
        await consumers[0].rest.clock.sleep(pause_s)
    return found


# -- sharing ---------------------------------------------------------------------------------------------


def test_two_instances_of_a_group_share_partitions_and_each_record_comes_once() -> None:
    async def main(rest: Rest) -> None:
        a, b = await rest.consumer("a", "t"), await rest.consumer("b", "t")
        await until([a, b])
        assert 2 == len(await a.partitions()) == len(await b.partitions())
        assert [0, 1, 2, 3] == sorted(await a.partitions() + await b.partitions())
        await rest.produce("t", *range(200), keys=True)
        found = await until([a, b])
        assert found["a"]
        assert found["b"]
        assert list(range(200)) == sorted(found["a"] + found["b"])

    with_rest(main, partitions=4)


def test_instances_of_two_groups_each_get_everything() -> None:
    async def main(rest: Rest) -> None:
        await rest.produce("t", *range(50), keys=True)
        for group in ("g", "h"):
            consumer = await rest.consumer("c", "t", group=group)
            assert list(range(50)) == sorted((await until([consumer]))["c"])

    with_rest(main, partitions=4)


def test_a_partition_that_goes_to_another_goes_on_where_it_was_committed() -> None:
    async def main(rest: Rest) -> None:
        await rest.produce("t", *range(100), keys=True)
        a = await rest.consumer("a", "t")
        first = await a.values()
        assert list(range(100)) == sorted(first)
        b = await rest.consumer("b", "t")
        found = await until([a, b])
        assert {"a": [], "b": []} == found
        await rest.produce("t", *range(100, 200), keys=True)
        found = await until([a, b])
        assert list(range(100, 200)) == sorted(found["a"] + found["b"])
        assert found["b"]

    with_rest(main, partitions=4)


def test_a_deleted_instance_hands_over_at_once_and_what_it_read_is_committed() -> None:
    async def main(rest: Rest) -> None:
        a, b = await rest.consumer("a", "t"), await rest.consumer("b", "t")
        await until([a, b])
        await rest.produce("t", *range(100), keys=True)
        got = await a.values() + await b.values()
        assert list(range(100)) == sorted(got)
        assert 204 == (await a.delete()).status
        assert [] == await b.values()
        assert [0, 1, 2, 3] == await b.partitions()
        await rest.produce("t", *range(100, 140), keys=True)
        assert list(range(100, 140)) == sorted(await b.values())

    with_rest(main, partitions=4)


def test_an_instance_that_unsubscribes_hands_over_too_and_can_come_back() -> None:
    async def main(rest: Rest) -> None:
        a, b = await rest.consumer("a", "t"), await rest.consumer("b", "t")
        await until([a, b])
        assert 204 == (await a.delete("/subscription")).status
        await b.values()
        assert [0, 1, 2, 3] == await b.partitions()
        await a.post("/subscription", {"topics": ["t"]})
        await until([a, b])
        assert 2 == len(await a.partitions())

    with_rest(main, partitions=4)


def test_another_takes_over_after_one_has_stopped() -> None:
    async def main(rest: Rest) -> None:
        session = {"session.timeout.ms": 10_000}
        a, b = await rest.consumer("a", "t", **session), await rest.consumer("b", "t", **session)
        await until([a, b])
        await rest.produce("t", *range(100), keys=True)
        lost = await a.values()  # a dies with these: they were never committed
        assert lost
        found = await until([b], rounds=30)
        assert [0, 1, 2, 3] == await b.partitions()
        assert list(range(100)) == sorted(found["b"])
        again = await a.poll()  # and comes back, without a word, as a new member
        assert [] == again
        await until([a, b])
        assert 2 == len(await a.partitions())

    with_rest(main, partitions=4)


def test_what_a_slow_instance_commits_by_itself_after_the_takeover_moves_nothing() -> None:
    async def main(rest: Rest) -> None:
        session = {"session.timeout.ms": 10_000}
        a, b = await rest.consumer("a", "t", **session), await rest.consumer("b", "t", **session)
        await until([a, b])
        await rest.produce("t", *range(20), keys=True)
        mine = await a.partitions()
        await a.values()
        await until([b], rounds=30)
        before = await b.committed()
        stale = {"offsets": [{"topic": "t", "partition": mine[0], "offset": 0}]}
        assert 409 == (await a.post("/offsets", stale)).status
        await a.poll()
        assert before == await b.committed()

    with_rest(main, partitions=4)


def test_partitions_that_are_added_are_read() -> None:
    async def main(rest: Rest) -> None:
        consumer = await rest.consumer("c", "t")
        await consumer.values()
        await (await rest.namespace()).add_partitions("t", 3)
        await rest.post("/topics/t/partitions/2", {"records": [{"value": "new"}]}, kind=JSON)
        assert ["new"] == await consumer.values()
        assert [0, 1, 2] == await consumer.partitions()

    with_rest(main)


def test_new_topics_in_a_subscription_are_read_and_old_ones_given_up() -> None:
    async def main(rest: Rest) -> None:
        await (await rest.namespace()).create_topic("u", 1)
        await rest.produce("t", 1)
        await rest.produce("u", 2)
        consumer = await rest.consumer("c", "t")
        assert [1] == await consumer.values()
        await consumer.post("/subscription", {"topics": ["u"]})
        assert [2] == await consumer.values()
        await rest.produce("t", 3)
        assert [] == await consumer.values()
        assert {"topics": ["u"], "partitions": [{"u": [0]}]} == (await consumer.get("/subscription")).json

    with_rest(main)


def test_a_topic_that_appears_is_read_by_who_waits_for_it() -> None:
    async def main(rest: Rest) -> None:
        consumer = await rest.consumer("c", "later")
        assert [] == await consumer.values()
        await (await rest.namespace()).create_topic("later", 1)
        await rest.produce("later", 1)
        assert [1] == await consumer.values()
        await (await rest.namespace()).delete_topic("later")
        assert [] == await consumer.values()
        assert [] == await consumer.partitions()

    with_rest(main)


# -- patterns --------------------------------------------------------------------------------------------


def test_a_pattern_stands_for_the_topics_that_match_it_now() -> None:
    async def main(rest: Rest) -> None:
        namespace = await rest.namespace()
        for name in ("a-1", "a-2", "b-1", "xa-1"):
            await namespace.create_topic(name, 1)
            await rest.produce(name, name)
        consumer = await rest.consumer("c")
        assert 204 == (await consumer.post("/subscription", {"topic_pattern": "a-.*"})).status
        assert ["a-1", "a-2"] == sorted(await consumer.values())
        assert ["a-1", "a-2"] == (await consumer.get("/subscription")).json["topics"]
        await namespace.create_topic("a-3", 1)
        await rest.produce("a-3", "a-3")
        assert ["a-3"] == await consumer.values()
        await namespace.delete_topic("a-1")
        assert [] == await consumer.values()
        assert ["a-2", "a-3"] == (await consumer.get("/subscription")).json["topics"]

    with_rest(main)


def test_a_pattern_matches_only_what_its_principal_may_see() -> None:
    async def main(rest: Rest) -> None:
        rules = [
            {"principal": "ann", "operation": "read", "resource": "group", "name": "g"},
            {"principal": "ann", "operation": "read", "resource": "topic", "name": "t"},
            {"principal": "ann", "operation": "describe", "resource": "topic", "name": "t"},
        ]
        await (await rest.namespace()).create_topic("tt", 1)
        added = await rest.post("/admin/acls", {"add": rules}, kind="application/json")
        assert added.status < 300, added.body
        ann = {"x_principal": "ann"}
        path = "/consumers/g/instances/c"
        assert 200 == (await rest.post("/consumers/g", {"name": "c", "format": "json"}, **ann)).status
        assert 204 == (await rest.post(f"{path}/subscription", {"topic_pattern": ".*"}, **ann)).status
        for _ in range(2):
            assert 200 == (await rest.get(f"{path}/records?timeout=0", **ann)).status
            assert ["t"] == (await rest.get(f"{path}/subscription", **ann)).json["topics"]

    with_rest(main)


def test_patterns_that_would_take_other_engines_for_ever_take_no_time() -> None:
    names = ["a" * 249 + str(i) for i in range(200)]
    for pattern in ("(a+)+b", "(a|a)*b", "(.*)(.*)(.*)(.*)(.*)x", "(a*)*" * 40 + "b"):
        assert [] == matching(pattern, names)
    assert ["ab", "b"] == matching("a?b|c", ["b", "ab", "abc", "cb"])


# -- polls -----------------------------------------------------------------------------------------------


def test_a_long_poll_waits_for_records_and_no_longer() -> None:
    async def main(rest: Rest) -> None:
        consumer = await rest.consumer("c", "t")
        await consumer.values()
        begun = rest.clock.elapsed_s()

        async def later() -> None:
            await rest.clock.sleep(4)
            await rest.produce("t", 1)

        found, _ = await asyncio.gather(consumer.values(20_000), later())
        assert [1] == found
        assert 4 <= rest.clock.elapsed_s() - begun < 5.5
        begun = rest.clock.elapsed_s()
        assert [] == await consumer.values(3_000)
        assert 3 == pytest.approx(rest.clock.elapsed_s() - begun, abs=0.1)

    with_rest(main)


def test_a_long_poll_hears_of_records_from_another_process() -> None:
    async def main() -> None:
        store = MemoryStore(clock=SimClock(sim_loop()))
        one, other = Rest(store, seed=1), Rest(store, seed=2)
        await (await one.namespace()).create_topic("t", 1)
        consumer = await one.consumer("c", "t")
        await consumer.values()

        async def later() -> None:
            await other.clock.sleep(3)
            await other.produce("t", 1)

        found, _ = await asyncio.gather(consumer.values(20_000), later())
        assert [1] == found

    simulate(main())


def test_a_poll_waits_for_as_many_bytes_as_the_instance_wants() -> None:
    async def main(rest: Rest) -> None:
        consumer = await rest.consumer("c", "t", **{"fetch.min.bytes": 1_000})
        await consumer.values()

        async def trickle() -> None:
            for i in range(30):
                await rest.clock.sleep(0.5)
                await rest.produce("t", i)

        found, _ = await asyncio.gather(consumer.values(20_000), trickle())
        assert 8 <= len(found) < 20
        assert [*range(len(found), 30)] == await consumer.values(1_000)
        await rest.produce("t", "few")
        assert ["few"] == await consumer.values(1_000)

    with_rest(main)


def test_a_long_poll_keeps_a_short_session_alive() -> None:
    async def main(rest: Rest) -> None:
        a = await rest.consumer("a", "t", **{"session.timeout.ms": 6_000})
        b = await rest.consumer("b", "t", **{"session.timeout.ms": 6_000})
        await until([a, b])
        mine = await a.partitions()
        for _ in range(3):
            await asyncio.gather(a.values(28_000), b.values(28_000))
        assert mine == await a.partitions()

    with_rest(main, partitions=2)


def test_partitions_take_turns_so_that_none_waits_for_ever() -> None:
    async def main(rest: Rest) -> None:
        for partition in range(4):
            records = [{"value": [partition, i], "partition": partition} for i in range(100)]
            await rest.post("/topics/t", {"records": records}, kind=JSON)
        consumer = await rest.consumer("c", "t")
        seen = [await consumer.poll(max_bytes=1) for _ in range(8)]
        assert [0, 1, 2, 3] * 2 == [poll[0]["partition"] for poll in seen]
        assert [1] * 8 == [len(poll) for poll in seen]

    with_rest(main, partitions=4)


def test_polls_at_the_same_time_share_the_records_between_them() -> None:
    async def main() -> None:
        store = MemoryStore(clock=SimClock(sim_loop()))
        processes = [Rest(store, seed=seed) for seed in range(3)]
        await (await processes[0].namespace()).create_topic("t", 2)
        await processes[0].produce("t", *range(60), keys=True)
        consumer = await processes[0].consumer("c", "t", **NO_COMMITS)
        found: list[Any] = []

        async def client(rest: Rest) -> None:
            for _ in range(12):
                answer = await consumer.at(rest).get("/records?timeout=0&max_bytes=300", accept=JSON)
                if answer.status == 200:
                    found.extend(record["value"] for record in answer.json)
                else:
                    assert 409 == answer.status, answer.body

        await asyncio.gather(*map(client, processes))
        while more := await consumer.values():
            found += more
        assert list(range(60)) == sorted(found)

    simulate(main())


def test_what_an_answer_brought_is_read_again_if_nobody_committed_it() -> None:
    async def main(rest: Rest) -> None:
        await rest.produce("t", *range(10))
        a = await rest.consumer("a", "t", **NO_COMMITS)
        assert list(range(10)) == await a.values()
        await a.post("/offsets", {"offsets": [{"topic": "t", "partition": 0, "offset": 4}]})
        assert 204 == (await a.delete()).status
        b = await rest.consumer("b", "t", **NO_COMMITS)
        assert list(range(4, 10)) == await b.values()

    with_rest(main)


def test_a_poll_whose_answer_was_lost_is_repeated_under_its_key() -> None:
    async def main(rest: Rest) -> None:
        await rest.produce("t", *range(30), keys=True)
        consumer = await rest.consumer("c", "t")
        found: list[Any] = []

        async def poll(key: str) -> list[Any]:
            answer = await consumer.get("/records?timeout=0&max_bytes=800", idempotency_key=key)
            assert 200 == answer.status, answer.body
            return [record["value"] for record in answer.json]

        for i in range(20):
            lost = await poll(f"poll-{i}")
            assert lost == await poll(f"poll-{i}") == await poll(f"poll-{i}")
            assert sum((await consumer.committed()).values()) == len(found)  # never what only this poll returned
            found += lost
        assert list(range(30)) == sorted(found)
        assert [] == await poll("poll-20")
        assert 400 == (await consumer.get("/records", idempotency_key="")).status

    with_rest(main, partitions=3)


def test_an_instance_that_begins_at_the_end_misses_nothing_after_its_first_poll() -> None:
    async def main(rest: Rest) -> None:
        await rest.produce("t", "before")
        consumer = await rest.consumer("c", "t", **{"auto.offset.reset": "latest"})
        assert [] == await consumer.values()
        await rest.produce("t", "after")
        assert ["after"] == await consumer.values()

    with_rest(main)


# -- processes and time ----------------------------------------------------------------------------------


def test_any_process_serves_any_request_of_an_instance() -> None:
    async def main() -> None:
        store = MemoryStore(clock=SimClock(sim_loop()))
        first = Rest(store, seed=99)
        await (await first.namespace()).create_topic("t", 3)
        await first.produce("t", *range(100), keys=True)
        consumer = await first.consumer("c", "t")
        found: list[Any] = []
        for seed in range(12):  # each request is a process of its own, as with functions
            found += await consumer.at(Rest(store, seed=seed)).values(max_bytes=1_000)
        while more := await consumer.values():
            found += more
        assert list(range(100)) == sorted(found)

    simulate(main())


def test_an_instance_that_nobody_asks_for_is_gone_after_five_minutes() -> None:
    async def main(rest: Rest) -> None:
        consumer = await rest.consumer("c", "t")
        await consumer.values()
        await rest.clock.sleep(299)
        assert 200 == (await consumer.get("/subscription")).status
        await consumer.values()
        await rest.clock.sleep(299)
        assert [] == await consumer.values()
        await rest.clock.sleep(301)
        assert (404, 40403) == (await consumer.get("/records")).code
        await rest.consumer("c", "t")  # and its name is free
        assert [] == await consumer.values()

    with_rest(main)


def test_documents_of_expired_instances_are_swept() -> None:
    async def main(rest: Rest) -> None:
        namespace = await rest.namespace()
        await rest.consumer("old", "t")
        await rest.clock.sleep(601)
        await rest.consumer("new", "t")
        assert 1 == await sweep(namespace.chain)
        assert 0 == await sweep(namespace.chain)
        assert ["consumer/g/new"] == [stat.key async for stat in namespace.store.list("consumer/")]

    with_rest(main)


def test_quiet_polls_of_a_settled_instance_write_nothing_but_the_lease() -> None:
    async def main(rest: Rest) -> None:
        namespace = await rest.namespace()
        consumer = await rest.consumer("c", "t")
        await until([consumer], rounds=3)
        seq, before = namespace.state.seq, (await namespace.store.head("consumer/g/c")).etag
        for _ in range(20):
            assert [] == await consumer.values(1_000)
        assert seq == namespace.state.seq
        assert before == (await namespace.store.head("consumer/g/c")).etag

    with_rest(main)


def test_a_document_that_is_damaged_is_a_500_and_says_no_more() -> None:
    async def main(rest: Rest) -> None:
        await rest.consumer("c", "t")
        store = (await rest.namespace()).store
        data = bytearray((await store.get("consumer/g/c")).data)
        data[30] ^= 1
        await store.put("consumer/g/c", bytes(data))
        answer = await rest.get("/consumers/g/instances/c/records")
        assert (500, 50002) == answer.code

    with_rest(main)


# -- chaos -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_members_that_come_and_go_lose_no_record(seed: int) -> None:
    """Producers, instances that are created, deleted or forgotten; every record is delivered at least once."""

    async def main() -> None:
        store, rng = MemoryStore(clock=SimClock(sim_loop())), random.Random(seed)
        processes = [Rest(store, seed=seed * 10 + i) for i in range(3)]
        await (await processes[0].namespace()).create_topic("t", 5)
        found: list[Any] = []
        consumers: list[Consumer] = []
        made = sent = 0
        for _ in range(60):
            rest = rng.choice(processes)
            action = rng.random()
            if action < 0.2:
                await rest.produce("t", *range(sent, sent + 10), keys=True)
                sent += 10
            elif action < 0.3 and len(consumers) < 4:
                made += 1
                consumers.append(await rest.consumer(f"c{made}", "t", **{"session.timeout.ms": 6_000}))
            elif action < 0.36 and consumers:
                gone = consumers.pop(rng.randrange(len(consumers)))
                if rng.random() < 0.5:
                    assert (await gone.at(rest).delete()).status in (204, 404)
            elif consumers:
                found += await rng.choice(consumers).at(rest).values(rng.choice([0, 500]), max_bytes=2_000)
            await rest.clock.sleep(rng.random())
        last = await processes[0].consumer("last", "t", **{"session.timeout.ms": 6_000})
        for _ in range(60):
            for consumer in (*consumers, last):
                found += await consumer.values()
            await processes[0].clock.sleep(1)
        assert set(range(sent)) == set(found)

    simulate(main())
