"""Gateways that know of each other: who lives, what that costs, and where clients are sent."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from kio.schema.errors import ErrorCode as E

from headwater.errors import InvalidRequest
from headwater.kafka.fleet import FOLDER, Card, Door, Fleet
from headwater.kafka.gateway import Auth, Gateway, Listener, Listening, Settings
from headwater.kafka.model import Address, Fields, Peer
from headwater.kafka.placing import Node, Places, zone_in
from headwater.kafka.routes import namespace_for, parse_route
from headwater.limits import (
    KAFKA_CARD_DEAD_MS,
    KAFKA_CARD_KEEP_MS,
    KAFKA_CARD_RENEW_S,
    KAFKA_LED_MAX,
    KAFKA_LONELY_LOOK_S,
)
from headwater.log.namespace import Namespace
from headwater.sim.faults import Faults, SimStore
from tests.kafka.helpers_peer import ask, peer
from tests.log.helpers import SimClock, keys_under, network, opened, sim_loop, simulate

METADATA, FIND, CLUSTER, FETCH, LIST_GROUPS, CREATE, REASSIGN = 3, 10, 60, 1, 16, 19, 45
DEAD_S = KAFKA_CARD_DEAD_MS / 1_000


def card(node: int, zone: str = "", *, namespaces: tuple[str, ...] = ("ns",), name: str = "TEST") -> Card:
    return Card(node, zone, [Door(name, f"host-{node}", 9_092, list(namespaces))])


def a_fleet(store: Any, seed: int, log: Any = lambda _: None) -> Fleet:
    return Fleet(store, SimClock(sim_loop()), random.Random(seed), log)


def nodes_of(fleet: Fleet) -> list[int]:
    return sorted(each.node for each in fleet.others)


class Counting:
    """A store that counts what is asked of it."""

    def __init__(self, store: SimStore) -> None:
        self.requests = 0
        self._store = store

    def __getattr__(self, name: str) -> Any:
        self.requests += 1
        return getattr(self._store, name)


# -- who lives ---------------------------------------------------------------------------------------------


def test_gateways_know_of_each_other_until_one_stops_or_dies() -> None:
    async def main() -> None:
        store, clock = network(), SimClock(sim_loop())
        one, two, three = (a_fleet(store, seed) for seed in (1, 2, 3))
        for fleet, node in ((one, 1), (two, 2), (three, 3)):
            await fleet.enter(card(node))
        assert [1, 2] == nodes_of(three)
        tasks = [sim_loop().create_task(fleet.keep()) for fleet in (one, two, three)]
        await clock.sleep(DEAD_S * 5)
        await one.look()
        assert [2, 3] == nodes_of(one)
        tasks[1].cancel()
        await two.leave()
        await two.leave()
        tasks[2].cancel()  # dies without a word
        await clock.sleep(KAFKA_CARD_RENEW_S)
        await one.look()
        assert [3] == nodes_of(one)
        await clock.sleep(DEAD_S)
        await one.look()
        assert [] == nodes_of(one)
        assert 2 == len(await keys_under(store, FOLDER))
        await clock.sleep(KAFKA_CARD_KEEP_MS / 1_000 + KAFKA_LONELY_LOOK_S)
        assert [one._key] == await keys_under(store, FOLDER)  # the dead one's card is swept
        tasks[0].cancel()

    simulate(main())


def test_who_was_alone_shows_itself_as_soon_as_it_sees_another() -> None:
    async def main() -> None:
        store, clock = network(), SimClock(sim_loop())
        one, two = a_fleet(store, 1), a_fleet(store, 2)
        await one.enter(card(1))
        keep = sim_loop().create_task(one.keep())
        await clock.sleep(600)
        await two.enter(card(2))
        assert [] == nodes_of(two)  # the card of the lonely one is old
        await one.look()
        await clock.sleep(KAFKA_CARD_RENEW_S)
        await two.look()
        assert ([2], [1]) == (nodes_of(one), nodes_of(two))
        keep.cancel()

    simulate(main())


def test_who_has_just_come_is_named_by_all_within_a_moment() -> None:
    """For five seconds one gateway named two of them and the other one, and clients let go of the second one."""

    async def main() -> None:
        store, clock = network(), SimClock(sim_loop())
        one, two = a_fleet(store, 1), a_fleet(store, 2)
        await one.enter(card(1))
        await one.look()
        await two.enter(card(2))
        await clock.sleep(0.6)
        await one.look()
        assert ([2], [1]) == (nodes_of(one), nodes_of(two))

    simulate(main())


@pytest.mark.parametrize("apart_s", [0.0, 1.0, 17.0, 45.0, 600.0, 631.0])
def test_gateways_find_each_other_though_no_client_asks(apart_s: float) -> None:
    """Those that were alone when the other looked renewed no card, and were dead for each other from then on."""

    async def main() -> None:
        store, clock = network(), SimClock(sim_loop())
        fleets = [a_fleet(store, 1), a_fleet(store, 2)]
        keeping = []
        for number, fleet in enumerate(fleets):
            await fleet.enter(card(1 + number))
            keeping.append(sim_loop().create_task(fleet.keep()))
            await clock.sleep(apart_s if number == 0 else 0.0)
        for _ in range(5):
            await clock.sleep(KAFKA_LONELY_LOOK_S + 3 * KAFKA_CARD_RENEW_S)
            assert ([2], [1]) == (nodes_of(fleets[0]), nodes_of(fleets[1]))
        for task in keeping:
            task.cancel()

    simulate(main())


def test_gateways_find_each_other_again_after_one_stood_still() -> None:
    async def main() -> None:
        store, clock = network(), SimClock(sim_loop())
        one, two = a_fleet(store, 1), a_fleet(store, 2)
        await one.enter(card(1))
        await two.enter(card(2))
        keeping = [sim_loop().create_task(fleet.keep()) for fleet in (one, two)]
        await clock.sleep(DEAD_S)
        keeping[1].cancel()  # the second one is not given the processor for a while
        await clock.sleep(10 * DEAD_S)
        assert [] == nodes_of(one)
        keeping[1] = sim_loop().create_task(two.keep())
        await clock.sleep(2 * KAFKA_LONELY_LOOK_S)
        assert ([2], [1]) == (nodes_of(one), nodes_of(two))
        for task in keeping:
            task.cancel()

    simulate(main())


@pytest.mark.parametrize(("others", "asking", "most"), [(0, False, 1), (0, True, 12), (1, False, 13), (1, True, 24)])
def test_it_costs_so_many_requests_a_minute(others: int, asking: bool, most: int) -> None:
    async def main() -> None:
        store, clock = network(), SimClock(sim_loop())
        counted = Counting(store)
        fleets = [a_fleet(counted, 1), *(a_fleet(store, 2 + number) for number in range(others))]
        tasks = []
        for number, fleet in enumerate(fleets):
            await fleet.enter(card(number))
            tasks.append(sim_loop().create_task(fleet.keep()))
        await clock.sleep(KAFKA_LONELY_LOOK_S * 2)
        before, minutes = counted.requests, 10
        for _ in range(minutes * 60):
            await clock.sleep(1.0)
            if asking:
                await fleets[0].look()
        spent = (counted.requests - before) / minutes
        assert most * 0.7 - 1 <= spent <= most + 0.5
        for task in tasks:
            task.cancel()

    simulate(main())


def test_a_store_that_fails_hides_nobody_and_is_told_of_once() -> None:
    async def main() -> None:
        store, clock, told = network(), SimClock(sim_loop()), []
        one, two = a_fleet(store, 1, told.append), a_fleet(network(store.bucket, seed=5), 2)
        await two.enter(card(2))
        await one.enter(card(1))
        store.set_faults(Faults(unavailable=1.0))
        for _ in range(3):
            await clock.sleep(KAFKA_CARD_RENEW_S)
            await one.look()
        assert ([2], 1) == (nodes_of(one), len(told))
        blind = a_fleet(store, 3)
        await blind.enter(card(3))  # a gateway starts nevertheless
        assert [] == nodes_of(blind)

    simulate(main())


def test_cards_that_are_none_and_those_of_newer_programs_do_no_harm() -> None:
    async def main() -> None:
        store = network()
        await store.put(f"{FOLDER}7-x", b"\xff no card")
        await store.put(f"{FOLDER}8-x", b'{"node": "eight"}')
        await store.put(f"{FOLDER}9-x", b'{"node": 9, "colour": "red", "doors": []}')
        one = a_fleet(store, 1)
        await one.enter(card(1))
        assert [9] == nodes_of(one)
        assert [1] == [node.id for node in one.places("TEST", "ns", Node(1, "h", 1)).nodes]

    simulate(main())


def test_one_number_for_two_gateways_is_told() -> None:
    async def main() -> None:
        store, told = network(), []
        one, two = a_fleet(store, 1), a_fleet(store, 2, told.append)
        await one.enter(card(7))
        await two.enter(Card(7, "", [Door("TEST", "elsewhere", 1, ["ns"])]))
        assert "--node-id" in told[0]
        same = a_fleet(store, 3, told.append)
        await same.enter(card(7))  # behind the same address as the first
        assert 2 == len(told)  # … it meets the second

    simulate(main())


def test_others_are_reached_through_the_listener_of_the_same_name_and_namespace() -> None:
    async def main() -> None:
        store = network()
        here = a_fleet(store, 1)
        for seed, other in enumerate([card(2), card(3, name="OTHER"), card(4, namespaces=("orders",))], 2):
            await a_fleet(store, seed).enter(other)
        await here.enter(card(1))
        me = Node(1, "me", 1)
        assert [me, Node(2, "host-2", 9_092)] == list(here.places("TEST", "ns", me).nodes)
        assert [me, Node(4, "host-4", 9_092)] == list(here.places("TEST", "orders", me).nodes)
        assert [me, Node(3, "host-3", 9_092)] == list(here.places("OTHER", "ns", me).nodes)

    simulate(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0"])
def test_a_loopback_address_is_for_clients_of_the_same_machine(host: str) -> None:
    async def main() -> None:
        store, me = network(), Node(1, "127.0.0.1", 1)
        await a_fleet(store, 2).enter(Card(2, "", [Door("TEST", host, 2, ["ns"])], "laptop"))
        for seed, (machine, nodes) in enumerate({"laptop": [1, 2], "desk": [1]}.items(), 3):
            here = a_fleet(store, seed)
            await here.enter(Card(1, "", [], machine))
            assert nodes == [node.id for node in here.places("TEST", "ns", me).nodes]

    simulate(main())


# -- where clients are sent -----------------------------------------------------------------------------------


def test_a_gateway_that_goes_leaves_only_its_own_places() -> None:
    nodes = [Node(number, f"h{number}", 1) for number in range(1, 6)]
    places = [f"ns/{topic}/{number}" for topic in range(40) for number in range(25)]
    before = {place: Places(nodes).leader(place, "").id for place in places}
    after = {place: Places(nodes[1:]).leader(place, "").id for place in places}
    assert {place for place in places if before[place] != after[place]} == {p for p in places if before[p] == 1}
    shares = Counter(before.values())
    assert 150 < min(shares.values()) <= max(shares.values()) < 250  # of 1,000 by 5
    assert before == {place: Places(nodes).leader(place, "").id for place in reversed(places)}


@pytest.mark.parametrize("partitions", [1, 2, 3, 6, 12, 25, 100])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_partitions_of_a_topic_are_spread_evenly_and_few_move_when_a_gateway_goes(
    partitions: int, count: int
) -> None:
    """Of twelve partitions one of three gateways led six, by mere chance."""
    nodes = [Node(number, f"h{number}", 1) for number in range(count + 1)]
    moved = own = 0
    for topic in range(40):
        before, after = (
            [each.id for (each,) in Places(there).replicas(f"ns/{topic}", partitions, "")]
            for there in (nodes, nodes[1:])
        )
        assert max(Counter(before).values()) <= -(-partitions // (count + 1))
        moved += sum(a != b for a, b in zip(before, after, strict=True))
        own += before.count(0)
    assert own <= moved <= 3 * own


def test_what_clients_say_of_their_zone_is_not_remembered() -> None:
    places = Places([Node(1, "a", 1, "eu-1a"), Node(2, "b", 1, "eu-1b")])
    found = [places.replicas("ns/1", 4, f"no-{number}") for number in range(100)]
    assert all(each is found[0] for each in found)
    assert 1 == len(places._spread)
    assert 6 == len(places.replicas("ns/1", 6, "")), "as many as there are by now"


def test_clients_are_led_by_their_own_zone_and_every_zone_has_a_replica() -> None:
    nodes = [Node(1, "a", 1, "eu-1a"), Node(2, "b", 1, "eu-1a"), Node(3, "c", 1, "eu-1b")]
    places = Places(nodes)
    for zone, ids in (("eu-1a", {1, 2}), ("eu-1b", {3}), ("eu-1c", {1, 2, 3}), ("", {1, 2, 3})):
        found = places.replicas("ns/1", 50, zone)
        assert ids == {leader.id for leader, *_ in found}
        assert all(["eu-1a", "eu-1b"] == sorted(node.zone for node in each) for each in found)
    assert {1, 2} == {places.leader(f"p{number}", "eu-1a").id for number in range(50)}


@pytest.mark.parametrize(
    ("client", "zone"),
    [
        ("zone=eu-1a", "eu-1a"),
        ("headwater_zone=eu-1a", "eu-1a"),
        ("billing,zone=eu-1a,x=y", "eu-1a"),
        ("billing;headwater_zone=eu-1a", "eu-1a"),
        ("billing/zone=eu-1a", "eu-1a"),
        ("billing zone=eu-1a", "eu-1a"),
        ("timezone=utc", ""),
        ("zone=", ""),
        ("", ""),
    ],
)
def test_a_client_id_may_name_a_zone(client: str, zone: str) -> None:
    assert zone == zone_in(client)


def test_routes_lead_by_the_longest_name_that_fits() -> None:
    routes = [parse_route(text) for text in ("user:team-*=team", "user:team-a=a", "user:*=all", "client:team-*=c")]
    led = {name: namespace_for(routes, "user", name, "home") for name in ("team-a", "team-ab", "ann", "")}
    assert {"team-a": "a", "team-ab": "team", "ann": "all", "": "home"} == led
    assert ("c", "home") == tuple(namespace_for(routes, "client", name, "home") for name in ("team-x", "ann"))
    for text in ("", "ann=orders", "user:=orders", "user:ann", "group:ann=orders", "user:ann=Orders", "user:ann="):
        with pytest.raises(InvalidRequest):
            parse_route(text)


# -- what handlers say ----------------------------------------------------------------------------------------


async def two_zones(zone: str = "eu-1a") -> tuple[Namespace, Peer]:
    """A namespace with a topic of 20 partitions, and a client of gateway 1, beside gateway 2 in eu-1b."""
    store = network()
    namespace = await opened(store)
    await a_fleet(store, 9).enter(card(2, "eu-1b"))
    gateway = Gateway(store, (), Settings(node_id=1, zone=zone), clock=namespace.chain.clock, rng=random.Random(3))
    await gateway.fleet.enter(card(1, zone))
    await namespace.create_topic("t", 20)
    return namespace, peer(namespace, gateway=gateway)


async def leaders(known: Peer, client: str) -> set[int]:
    answer = await ask(known, METADATA, client=client, topics=[{"name": "t"}])
    return {part["leader_id"] for part in answer["topics"][0]["partitions"]}


def test_partitions_may_be_reassigned_to_where_metadata_says_they_are() -> None:
    """Only to the gateway that was asked, though Metadata named another one as the replica."""

    async def main() -> None:
        _, known = await two_zones(zone="")
        answer = await ask(known, METADATA, topics=[{"name": "t"}])
        rows = answer["topics"][0]["partitions"]
        assert {2} < {node for row in rows for node in row["replica_nodes"]}
        for shift, code in ((0, E.none), (1, E.invalid_replica_assignment)):
            wanted = [
                {"partition_index": row["partition_index"], "replicas": [node + shift for node in row["replica_nodes"]]}
                for row in rows
            ]
            found = await ask(known, REASSIGN, topics=[{"name": "t", "partitions": wanted}])
            assert {code} == {E(row["error_code"]) for row in found["responses"][0]["partitions"]}

    simulate(main())


def test_metadata_names_all_gateways_and_leaders_near_the_client() -> None:
    async def main() -> None:
        _, known = await two_zones()
        answer = await ask(known, METADATA, topics=[{"name": "t"}])
        assert [(1, "127.0.0.1", "eu-1a"), (2, "host-2", "eu-1b")] == [
            (each["node_id"], each["host"], each["rack"]) for each in answer["brokers"]
        ]
        assert all([1, 2] == sorted(part["replica_nodes"]) for part in answer["topics"][0]["partitions"])
        assert {1, 2} == await leaders(known, "app")
        assert {1} == await leaders(known, "app,zone=eu-1a")
        assert {2} == await leaders(known, "app,zone=eu-1b")
        assert {1, 2} == await leaders(known, "app,zone=eu-1c")
        known.zone = "eu-1b"  # what its listener says of it
        assert ({2}, {1}) == (await leaders(known, "app"), await leaders(known, "app,zone=eu-1a"))
        cluster = await ask(known, CLUSTER)
        assert ([1, 2], 1) == ([each["broker_id"] for each in cluster["brokers"]], cluster["controller_id"])

    simulate(main())


def test_the_coordinator_is_the_gateway_that_is_asked_or_one_in_the_clients_zone() -> None:
    async def main() -> None:
        _, known = await two_zones()
        for client, node in (("app", 1), ("zone=eu-1a", 1), ("zone=eu-1b", 2), ("zone=eu-1c", 1)):
            answer = await ask(known, FIND, client=client, key_type=0, coordinator_keys=["g"])
            assert [node] == [each["node_id"] for each in answer["coordinators"]]

    simulate(main())


async def coordinators(known: Peer, *keys: str) -> list[int]:
    answer = await ask(known, FIND, client="zone=eu-1b", key_type=0, coordinator_keys=keys)
    return [each["node_id"] for each in answer["coordinators"]]


def test_who_asks_again_has_not_reached_its_coordinator_and_stays() -> None:
    """A gateway is shown for 16 s after its death, and a session may end after 10."""

    async def main() -> None:
        namespace, known = await two_zones()
        sleep = namespace.chain.clock.sleep
        assert [2, 2] == await coordinators(known, "g", "h")
        await sleep(0.5)
        assert [1, 2] == await coordinators(known, "g", "i")
        assert [1, 1] == await coordinators(known, "g", "i")
        assert [2] == await coordinators(peer(namespace, gateway=known.gateway), "g")  # another connection
        await sleep(DEAD_S + 1)
        await a_fleet(namespace.bucket, 9).enter(card(2, "eu-1b"))
        await sleep(5)
        assert [2] == await coordinators(known, "h")

    simulate(main())


def test_a_connection_remembers_so_many_coordinators() -> None:
    async def main() -> None:
        _, known = await two_zones()
        keys = [f"g{n}" for n in range(KAFKA_LED_MAX + 1)]
        assert {2} == set(await coordinators(known, *keys))
        assert [2, 1, 1] == await coordinators(known, "g0", "g2", keys[-1])  # g1 went for g0
        assert KAFKA_LED_MAX >= len(known.led)

    simulate(main())


def test_a_consumer_of_another_zone_is_sent_to_a_gateway_there() -> None:
    async def main() -> None:
        _, known = await two_zones()
        for rack, preferred in (("", -1), ("eu-1a", -1), ("eu-1b", 2), ("eu-1c", -1)):
            row = await fetched(known, rack)
            assert (E.none, preferred) == (row["error_code"], row["preferred_read_replica"])
            assert b"" == bytes(row["records"])  # librdkafka takes null for a broken answer

    simulate(main())


async def fetched(known: Peer, rack: str) -> Fields:
    topic = {"topic": "t", "partitions": [{"partition": 3, "fetch_offset": 0, "partition_max_bytes": 1 << 20}]}
    answer = await ask(known, FETCH, 12, rack_id=rack, max_wait=0, min_bytes=1, max_bytes=1 << 20, topics=[topic])
    found: Fields = answer["responses"][0]["partitions"][0]
    return found


def test_a_group_is_listed_by_one_of_the_gateways() -> None:
    async def main() -> None:
        namespace, known = await two_zones()
        other_gateway = Gateway(
            namespace.bucket, (), Settings(node_id=2), clock=namespace.chain.clock, rng=random.Random(4)
        )
        other = peer(namespace, gateway=other_gateway)
        await other_gateway.fleet.enter(card(2))
        names = [f"g{number}" for number in range(20)]
        for name in names:
            await namespace.commit_offsets(name, {("t", 0): 1})
        lists = [[each["group_id"] for each in (await ask(each, LIST_GROUPS))["groups"]] for each in (known, other)]
        assert names != sorted(lists[0]) and sorted(names) == sorted(lists[0] + lists[1])

    simulate(main())


# -- namespaces of one gateway --------------------------------------------------------------------------------


def test_client_ids_lead_to_namespaces_that_share_nothing() -> None:
    async def main() -> None:
        store = network()
        clock = SimClock(sim_loop())
        routes = (parse_route("client:billing-*=billing"), parse_route("user:ann=orders"))
        gateway = Gateway(store, (), Settings(node_id=1, routes=routes), clock=clock, rng=random.Random(1))
        here = Listening(Listener(name="TEST", namespace="shared"), Address(host="h", port=1))
        shared, billing = [await gateway.peer_for(here, "h", None, client) for client in ("app", "billing-7")]
        assert ("shared", "billing") == (shared.namespace.name, billing.namespace.name)
        for known in (shared, billing):
            await known.namespace.create_topic("t", 1)
        await shared.namespace.commit_offsets("g", {("t", 0): 1})
        assert [["g"], []] == [
            [each["group_id"] for each in (await ask(known, LIST_GROUPS))["groups"]] for known in (shared, billing)
        ]
        clusters = {(await ask(known, METADATA, topics=[]))["cluster_id"] for known in (shared, billing)}
        assert 2 == len(clusters)
        asked = {"session_id": 0, "session_epoch": 0, "max_wait": 0, "max_bytes": 1}
        topic = {"topic": "t", "partitions": [{"partition": 0, "fetch_offset": 0, "partition_max_bytes": 1}]}
        session = (await ask(shared, FETCH, 12, **asked, topics=[topic]))["session_id"]
        again = {**asked, "session_id": session, "session_epoch": 1}
        assert E.none == (await ask(shared, FETCH, 12, **again))["error_code"]
        assert E.fetch_session_id_not_found == (await ask(billing, FETCH, 12, **again))["error_code"]
        assert gateway.shelf(shared.namespace) is not gateway.shelf(billing.namespace)
        for known in (shared, billing):
            await known.namespace.close()

    simulate(main())


@pytest.mark.parametrize("auth", ["sasl", "tls"])
def test_where_clients_say_who_they_are_a_client_id_leads_nowhere(auth: Auth) -> None:
    async def main() -> None:
        routes = (parse_route("client:*=billing"), parse_route("user:ann=orders"))
        settings = Settings(node_id=1, routes=routes)
        gateway = Gateway(network(), (), settings, clock=SimClock(sim_loop()), rng=random.Random(1))
        listener = Listener(name="TEST", namespace="shared", auth=auth)
        here = Listening(listener, Address(host="h", port=1))
        subject = {"subject": ((("commonName", "ann"),),)} if auth == "tls" else None
        known = await gateway.peer_for(here, "h", subject, "billing-7")
        assert ("orders" if auth == "tls" else "shared") == known.namespace.name
        assert (["orders", "shared"], ["billing", "shared"]) == (
            settings.namespaces_of(listener),
            settings.namespaces_of(Listener(namespace="shared")),
        )
        await known.namespace.close()

    simulate(main())
