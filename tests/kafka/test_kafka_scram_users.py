"""SCRAM users as admin tools see and change them, and as all gateways know them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from kio.schema.errors import ErrorCode as E

from headwater.api.service import Service
from headwater.kafka import sasl
from headwater.kafka.gateway import Settings
from headwater.kafka.model import Fields, Peer
from headwater.kafka.routes import parse_route
from headwater.limits import AUTH_RETRY_S, SCRAM_ITERATIONS_MAX, SCRAM_ITERATIONS_MIN
from headwater.log.namespace import Namespace
from headwater.log.operations import AclRule
from headwater.store.memory import MemoryStore
from tests.kafka.helpers_peer import ask, peer
from tests.kafka.test_kafka_access import ALTER_SCRAM, AUTHENTICATE, DESCRIBE_SCRAM, Client, say, users_of
from tests.log.helpers import memory, opened, simulate

SHA256, SHA512 = 1, 2
NAMES = {SHA256: "SCRAM-SHA-256", SHA512: "SCRAM-SHA-512"}


def wish(name: str = "ann", password: str = "pencil", mechanism: int = SHA256, **changed: Any) -> Fields:
    """What an admin client sends to give somebody a password."""
    iterations, salt = changed.get("iterations", SCRAM_ITERATIONS_MIN), b"salt" * 6
    digest = "sha256" if mechanism == SHA256 else "sha512"
    salted = hashlib.pbkdf2_hmac(digest, password.encode(), salt, SCRAM_ITERATIONS_MIN)
    made = {"name": name, "mechanism": mechanism, "iterations": iterations, "salt": salt, "salted_password": salted}
    return {**made, **changed}


async def alter(known: Peer, *upsertions: Fields, gone: list[tuple[str, int]] | None = None) -> dict[str, E]:
    deletions = [{"name": name, "mechanism": mechanism} for name, mechanism in gone or []]
    answer = await ask(known, ALTER_SCRAM, deletions=deletions, upsertions=list(upsertions))
    return {each["user"]: E(each["error_code"]) for each in answer["results"]}


async def described(known: Peer) -> dict[str, list[tuple[int, int]]]:
    answer = await ask(known, DESCRIBE_SCRAM, users=None)
    return {
        each["user"]: [(info["mechanism"], info["iterations"]) for info in each["credential_infos"]]
        for each in answer["results"]
    }


async def enters(namespace: Namespace, user: str, password: str, mechanism: int = SHA256, **settings: Any) -> E:
    """What a new connection of the user is answered in the end."""
    known = peer(namespace, "", settings=Settings(**settings))
    client = Client(NAMES[mechanism], user, password)
    challenge = await say(known, NAMES[mechanism], client.first())
    if challenge["error_code"]:
        return E(challenge["error_code"])
    answer = await ask(known, AUTHENTICATE, auth_bytes=client.final(bytes(challenge["auth_bytes"])))
    return E(answer["error_code"])


@pytest.mark.parametrize("mechanism", [SHA256, SHA512])
def test_a_user_made_at_one_gateway_enters_at_another_until_it_is_deleted(mechanism: int) -> None:
    async def main() -> None:
        store = MemoryStore()
        here, there = await opened(store), await opened(store)
        assert {"ann": E.none} == await alter(peer(here), wish(mechanism=mechanism))
        await here.chain.clock.sleep(AUTH_RETRY_S + 0.1)
        assert E.none == await enters(there, "ann", "pencil", mechanism)
        assert E.sasl_authentication_failed == await enters(there, "ann", "crayon", mechanism)
        assert E.sasl_authentication_failed == await enters(there, "eve", "pencil", mechanism)
        await alter(peer(here), wish(password="crayon", mechanism=mechanism), wish("bob", mechanism=mechanism))
        await here.chain.clock.sleep(AUTH_RETRY_S + 0.1)
        assert E.none == await enters(there, "ann", "crayon", mechanism)
        assert {"ann": E.none} == await alter(peer(here), gone=[("ann", mechanism)])
        await here.chain.clock.sleep(AUTH_RETRY_S + 0.1)
        assert E.sasl_authentication_failed == await enters(there, "ann", "crayon", mechanism)

    simulate(main())


def test_nothing_that_the_log_keeps_is_a_password() -> None:
    async def main() -> None:
        namespace = await opened(memory())
        sent = wish()
        await alter(peer(namespace), sent)
        kept = namespace.state.scram["ann"]["SCRAM-SHA-256"]
        salted = bytes(sent["salted_password"])
        assert sasl.kept_of("SCRAM-SHA-256", salted) == {
            "stored_key": kept.stored_key,
            "server_key": kept.server_key,
        }
        records = [chunk.decode() async for chunk in namespace.reader.chunks("__audit", 0, 0)]
        audit = b"".join(value for table in records for value in table.column("value").to_pylist())
        assert b"set_scram" in audit and b"ann" in audit
        assert not [each for each in (kept.stored_key, kept.server_key, "pencil") if each.encode() in audit]

    simulate(main())


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"iterations": SCRAM_ITERATIONS_MIN}, E.none),
        ({"iterations": SCRAM_ITERATIONS_MIN - 1}, E.unacceptable_credential),
        ({"iterations": SCRAM_ITERATIONS_MAX}, E.none),
        ({"iterations": SCRAM_ITERATIONS_MAX + 1}, E.unacceptable_credential),
        ({"name": ""}, E.unacceptable_credential),
        ({"name": "*"}, E.unacceptable_credential),
        ({"salt": b""}, E.unacceptable_credential),
        ({"salted_password": b"short"}, E.unacceptable_credential),
        ({"mechanism": SHA512}, E.unacceptable_credential),  # salted for the other one
        ({"mechanism": 0}, E.unsupported_sasl_mechanism),
        ({"mechanism": 3}, E.unsupported_sasl_mechanism),
    ],
)
def test_a_password_that_makes_no_sense_is_refused_alone(changed: Fields, code: E) -> None:
    async def main() -> None:
        root = peer(await opened(memory()))
        sent = {**wish(), **changed}
        expected = {sent["name"]: code, "bob": E.none}
        assert expected == await alter(root, sent, wish("bob"))
        assert sorted(name for name, found in expected.items() if found is E.none) == sorted(await described(root))

    simulate(main())


def test_each_alteration_is_one_of_its_user_and_mechanism() -> None:
    async def main() -> None:
        root = peer(await opened(memory()))
        assert {"ann": E.duplicate_resource, "bob": E.none} == await alter(root, wish(), wish(), wish("bob"))
        assert {"ann": E.none} == await alter(root, wish(), wish(mechanism=SHA512))
        assert [(SHA256, 4_096), (SHA512, 4_096)] == (await described(root))["ann"]
        assert {"ann": E.duplicate_resource} == await alter(root, wish(), gone=[("ann", SHA256)])
        assert {"eve": E.resource_not_found} == await alter(root, gone=[("eve", SHA256)])
        assert {"ann": E.none} == await alter(root, gone=[("ann", SHA256), ("ann", SHA512)])
        assert {"ann": E.resource_not_found} == await alter(root, gone=[("ann", SHA256)])
        assert ["bob"] == list(await described(root))

    simulate(main())


def test_users_of_the_file_come_first_and_are_not_changed_from_here(tmp_path: Path) -> None:
    async def main() -> None:
        namespace = await opened(memory())
        file = users_of(tmp_path, ann="pencil", root="crayon")
        assert {"ann": E.none} == await alter(peer(namespace), wish(password="other"))  # at a gateway without the file
        both = peer(namespace, settings=Settings(scram=file))
        assert {"ann": E.policy_violation, "bob": E.none} == await alter(both, wish(), wish("bob"))
        assert ["ann", "bob", "root"] == sorted(await described(both))
        assert E.none == await enters(namespace, "ann", "pencil", scram=file)
        assert E.sasl_authentication_failed == await enters(namespace, "ann", "other", scram=file)
        some = await ask(both, DESCRIBE_SCRAM, users=[{"name": name} for name in ("ann", "eve", "bob", "bob")])
        codes = {"ann": E.none, "eve": E.resource_not_found, "bob": E.duplicate_resource}
        assert codes == {each["user"]: each["error_code"] for each in some["results"]}

    simulate(main())


def test_only_who_may_alter_the_cluster_makes_users_and_only_root_makes_root() -> None:
    async def main() -> None:
        namespace = await opened(memory())
        allow = [AclRule("bob", each, "cluster", "*") for each in ("describe", "alter")]  # type: ignore[arg-type]
        await Service(namespace).change_acls(allow)
        ann, bob = peer(namespace, "ann"), peer(namespace, "bob")
        assert E.cluster_authorization_failed == (await ask(ann, DESCRIBE_SCRAM, users=None))["error_code"]
        assert {"ann": E.cluster_authorization_failed} == await alter(ann, wish())
        assert {"ann": E.none, "root": E.cluster_authorization_failed} == await alter(bob, wish(), wish("root"))
        narrow = peer(namespace, "bob", scopes=allow)
        assert {"eve": E.cluster_authorization_failed} == await alter(narrow, wish("eve"))
        assert {"root": E.none} == await alter(peer(namespace), wish("root"))
        assert {"root": E.cluster_authorization_failed} == await alter(bob, gone=[("root", SHA256)])

    simulate(main())


def test_a_user_is_one_of_the_namespace_that_it_is_led_to() -> None:
    async def main() -> None:
        store = memory()
        home = await opened(store)
        orders = await Namespace.open(store, "orders", clock=home.chain.clock, rng=home.chain.rng)
        await alter(peer(orders), wish("ann"))
        await alter(peer(home), wish("bob"))
        routes = (parse_route("user:ann=orders"),)
        assert E.none == await enters(home, "ann", "pencil", routes=routes)
        assert E.none == await enters(home, "bob", "pencil", routes=routes)
        assert E.sasl_authentication_failed == await enters(home, "ann", "pencil", routes=(parse_route("user:ann=x"),))
        _, token = await Service(orders).create_key("ann")
        known = peer(home, "", settings=Settings(routes=routes))
        assert E.none == (await say(known, "PLAIN", f"\0ann\0{token}".encode()))["error_code"]
        assert ("orders", "ann") == (known.namespace.name, known.service.principal)
        elsewhere = peer(home, "", settings=Settings(routes=routes))
        refused = await say(elsewhere, "PLAIN", f"\0bob\0{token}".encode())  # a key of orders, in the default namespace
        assert (E.sasl_authentication_failed, "") == (refused["error_code"], elsewhere.principal)

    simulate(main())
