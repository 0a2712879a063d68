"""Administration through the service: rules, keys and quotas, and the record that each change leaves."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest

from headwater.api.quotas import Quotas
from headwater.api.service import Service
from headwater.api.verbs import AclRule, GroupOffset, GroupOffsets, KeyInfo, QuotaInfo
from headwater.errors import Conflict, Forbidden, InvalidRequest, NotFound, Throttled
from headwater.log.state.model import Quota
from headwater.store.base import ObjectStore
from tests.log.helpers import blob, keys_under, memory, opened, simulate

READ = AclRule("ann", "read", "topic", "t")
SCOPE = AclRule("*", "read", "topic", "t")


async def root(store: ObjectStore | None = None, *, seed: int = 1, **options: Any) -> Service:
    return Service(await opened(store or memory(), seed=seed), **options)


async def audited(service: Service) -> list[dict[str, Any]]:
    """The records of the audit topic, oldest first."""
    found = await service.fetch("__audit", 0, 0)
    return [json.loads(value) for chunk in found.chunks for value in chunk.decode().column("value").to_pylist()]


# -- rules ---------------------------------------------------------------------------------------------


def test_rules_are_added_listed_and_removed_and_hold_at_once() -> None:
    async def main() -> None:
        one = await root()
        await one.create_topic("t")
        ann, bob = (Service(one._space, principal=name) for name in ("ann", "bob"))
        await bob.fetch("t", 0, 0)
        await one.change_acls([READ])
        await one.change_acls([READ])
        assert [READ] == list(await one.acls())
        await ann.fetch("t", 0, 0)
        with pytest.raises(Forbidden):
            await bob.fetch("t", 0, 0)
        await one.change_acls(remove=[READ])
        assert [] == list(await one.acls())
        await bob.fetch("t", 0, 0)

    simulate(main())


# -- keys ----------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_kept_as_a_hash() -> None:
    async def main() -> None:
        store = memory()
        one = await root(store)
        info, token = await one.create_key("ann", scopes=[AclRule("ann", "read", "topic", "t")])
        prefix, key, secret = token.split("_", 2)
        assert ("hw", info.key) == (prefix, key)
        assert 256 <= len(secret) * 6
        assert hashlib.sha256(secret.encode()).hexdigest() == one._space.state.keys[key].hash
        assert ("ann", (SCOPE,), 0) == (info.principal, tuple(info.scopes), info.expires_ms)
        assert [info] == list(await one.keys())
        stored = b"".join([(await store.get(name)).data for name in await keys_under(store, "")])
        assert secret.encode() not in stored
        assert secret not in json.dumps(await audited(one))
        assert secret not in repr(info) + repr(one)

    simulate(main())


def test_no_two_keys_are_alike() -> None:
    async def main() -> None:
        one = await root()
        made = [await one.create_key("ann") for _ in range(3)]
        assert 3 == len({info.key for info, _ in made}) == len({token.split("_", 2)[2] for _, token in made})

    simulate(main())


def test_a_key_is_revoked_once() -> None:
    async def main() -> None:
        one = await root()
        info, _ = await one.create_key("ann")
        await one.revoke_key(info.key)
        assert [] == list(await one.keys())
        with pytest.raises(NotFound):
            await one.revoke_key(info.key)

    simulate(main())


def test_a_key_expires_in_the_future_or_never() -> None:
    async def main() -> None:
        one = await root()
        now_ms = one._space.chain.clock.wall_ms()
        with pytest.raises(InvalidRequest):
            await one.create_key("ann", expires_ms=now_ms)
        info, _ = await one.create_key("ann", expires_ms=now_ms + 1_000)
        assert now_ms + 1_000 == info.expires_ms

    simulate(main())


def test_nobody_makes_a_key_that_can_do_more_than_its_maker() -> None:
    async def main() -> None:
        one = await root()
        admin = Service(one._space, principal="admin")
        with pytest.raises(Forbidden):
            await admin.create_key("root")
        await one.create_key("root")
        alter, all_topics = AclRule("*", "alter", "cluster", "*"), AclRule("*", "all", "topic", "*")
        narrow = Service(one._space, principal="admin", scopes=[alter, SCOPE])
        for scopes in ([], [all_topics], [SCOPE, all_topics]):
            with pytest.raises(Forbidden):
                await narrow.create_key("admin", scopes=scopes)
        info, _ = await narrow.create_key("admin", scopes=[SCOPE])
        assert isinstance(info, KeyInfo)

    simulate(main())


# -- quotas --------------------------------------------------------------------------------------------


def test_a_quota_is_set_listed_lifted_and_holds_at_once() -> None:
    async def main() -> None:
        one = await root()
        await one.create_topic("t")
        await one.set_quota("ann", requests_per_s=1, produce_bytes_per_s=5)
        assert [QuotaInfo(principal="ann", requests_per_s=1, produce_bytes_per_s=5)] == list(await one.quotas())
        assert {"ann": Quota(5, -1, 1)} == one._space.state.quotas
        ann = Service(one._space, principal="ann", quotas=Quotas(one._space.chain.clock))
        await ann.topic("t")
        with pytest.raises(Throttled):
            await ann.topic("t")
        await one.set_quota("ann")
        assert [] == list(await one.quotas())
        await ann.topic("t")

    simulate(main())


# -- audit ---------------------------------------------------------------------------------------------


def test_every_change_leaves_its_record_and_nothing_else_does() -> None:
    async def main() -> None:
        one = await root(principal="boss", host="10.0.0.1")
        await one.create_topic("t", 2, {"k": "v"})
        await one.add_partitions("t", 3)
        await one.alter_topic("t", {"k": None})
        await one.produce([("t", 0, blob(3))])
        await one.delete_records("t", 0, 2)
        await one.delete_records("t", 0, 2)  # nothing moves
        await one.commit_offsets(GroupOffsets(group="g", offsets={("t", 0): GroupOffset(offset=1)}))
        await one.fetch("t", 0, 2)
        await one.delete_offsets("g", [("t", 0)])
        await one.delete_group("g")
        await one.delete_topic("t")
        await one.set_quota("*", requests_per_s=9)
        info, _ = await one.create_key("ann", scopes=[SCOPE])
        await one.revoke_key(info.key)
        await one.change_acls([AclRule("boss", "all", "cluster", "*"), READ])
        await one.change_acls(remove=[READ])
        records = await audited(one)
        assert [
            ("create", "topic", "t", {"partitions": 2, "config": {"k": "v"}}),
            ("add_partitions", "topic", "t", {"total": 3}),
            ("alter", "topic", "t", {"config": {"k": None}}),
            ("trim", "topic", "t", {"partition": 0, "before": 2}),
            ("delete_offsets", "group", "g", {"partitions": [["t", 0]]}),
            ("delete", "group", "g", {}),
            ("delete", "topic", "t", {}),
            (
                "set_quota",
                "cluster",
                "kafka-cluster",
                {"principal": "*", "requests_per_s": 9, "produce_bytes_per_s": -1, "fetch_bytes_per_s": -1},
            ),
            (
                "create_key",
                "cluster",
                "kafka-cluster",
                {
                    "key": info.key,
                    "principal": "ann",
                    "scopes": [["*", "read", "topic", "t", "literal", True]],
                    "expires_ms": 0,
                },
            ),
            ("revoke_key", "cluster", "kafka-cluster", {"key": info.key}),
            (
                "change_acls",
                "cluster",
                "kafka-cluster",
                {
                    "add": [
                        ["boss", "all", "cluster", "*", "literal", True],
                        ["ann", "read", "topic", "t", "literal", True],
                    ],
                    "remove": [],
                },
            ),
            (
                "change_acls",
                "cluster",
                "kafka-cluster",
                {"add": [], "remove": [["ann", "read", "topic", "t", "literal", True]]},
            ),
        ] == [(r["action"], r["resource"], r["name"], r["details"]) for r in records]
        assert {("boss", "10.0.0.1")} == {(record["principal"], record["host"]) for record in records}
        times = [record["time"] for record in records]
        assert sorted(times) == times

    simulate(main())


def test_the_record_is_keyed_by_principal_and_lies_in_the_manifest_of_its_change() -> None:
    async def main() -> None:
        one = await root(principal="boss")
        made = await one.create_topic("t")
        found = await one.fetch("__audit", 0, 0)
        assert [b"boss"] == found.chunks[0].decode().column("key").to_pylist()
        assert (made.commit, 0, 1) == (found.commit, found.chunks[0].base, found.chunks[0].count)
        (entry,) = (await one._space.reader.locate("__audit", 0, 0, bytes_max=1_000)).entries
        assert made.commit == entry.seq

    simulate(main())


def test_a_change_that_is_refused_by_the_log_leaves_no_record() -> None:
    async def main() -> None:
        one = await root()
        await one.create_topic("t")
        await one.heartbeat("g", "m", topics=["t"], joining=True)
        for call in (one.create_topic("t"), one.delete_group("g"), one.add_partitions("t", 1)):
            with pytest.raises((Conflict, InvalidRequest)):
                await call
        assert ["create"] == [record["action"] for record in await audited(one)]

    simulate(main())


def test_processes_that_audit_for_the_first_time_at_once_make_one_topic() -> None:
    async def main() -> None:
        store = memory()
        services = [await root(store, seed=seed, principal=f"p{seed}") for seed in range(1, 5)]
        await asyncio.gather(*(one.create_topic(f"t{i}") for i, one in enumerate(services)))
        records = await audited(services[0])
        assert ["p1", "p2", "p3", "p4"] == sorted(record["principal"] for record in records)
        assert ["t0", "t1", "t2", "t3"] == [topic.name for topic in await services[1].topics()]

    simulate(main())
