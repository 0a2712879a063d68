"""Every function does its work with the rights that template.yaml gives its role, and needs each of them.

The functions' own apps run over one bucket in memory, each behind its role's policy and the bucket's.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest

from headwater.api import upkeep
from headwater.api.app import App
from headwater.api.messages import Request
from headwater.api.runtime import Settings, app_for
from headwater.console.app import ConsoleApp
from headwater.console.signing import guard
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.memory import MemoryStore
from headwater.upkeep.branch import branch
from tests.api.helpers_http import Client, Log
from tests.deploy.helpers_template import CONSOLE, FUNCTIONS, GuardedStore, Stack
from tests.log.helpers import simulate

KAFKA_JSON = "application/vnd.kafka.json.v2+json"
BIG = "x" * 700_000  # more than rides inside a manifest
SETTINGS = Settings(store="memory://", auth="none", namespaces=("default", "copy"))


@dataclass
class Deployed:
    """The five functions over one bucket."""

    clients: dict[str, Client]
    stores: dict[str, GuardedStore]
    logs: dict[str, Log]

    async def __call__(self, function: str, method: str, path: str, body: Any = b"", **how: Any) -> Any:
        answer = await self.clients[function].done(method, path, body, **how)
        await self.clients[function].app.drain()
        return answer.json if answer.body[:1] in (b"{", b"[") else answer.body

    async def again(self, function: str) -> None:
        """Let the function start anew, as the platform does when it likes."""
        self.clients[function] = Client(made(function, self.stores[function], self.logs[function], seed=99))

    def refused(self) -> dict[str, list[str]]:
        return {name: store.refused for name, store in self.stores.items() if store.refused}


def made(function: str, store: GuardedStore, log: Log, *, seed: int) -> Any:
    options = Options(snapshot_every=4, threads=False)  # so that these few commits reach every kind of object
    clock = SimClock(sim_loop())
    return app_for(
        function,
        SETTINGS,
        store=store,
        clock=clock,
        rng=random.Random(seed),
        options=options,
        log=log,
        kind=ConsoleApp if function == CONSOLE else App,
    )


def deployed(test: Callable[[Deployed], Awaitable[None]], **parameters: str) -> Deployed:
    """Run ``test`` on a fresh deployment."""
    stack = Stack(**parameters)
    bucket, _, prefix = stack.store.removeprefix("s3://").partition("/")

    names = (*FUNCTIONS, CONSOLE) if parameters.get("Console") == "yes" else FUNCTIONS

    async def main() -> Deployed:
        inner = MemoryStore(clock=SimClock(sim_loop()))
        stores = {
            name: GuardedStore(inner, stack.policy(name), stack.bucket_policy(), f"arn:aws:s3:::{bucket}", prefix + "/")
            for name in names
        }
        logs = {name: Log() for name in names}
        clients = {n: Client(made(n, stores[n], logs[n], seed=seed)) for seed, n in enumerate(names)}
        over = Deployed(clients, stores, logs)
        await test(over)
        for client in over.clients.values():
            await client.app.close()
        return over

    return simulate(main(), limit_s=30 * 86_400)


async def topics(run: Deployed) -> None:
    await run("admin", "POST", "/admin/topics", {"name": "t", "partitions": 2})
    for number in range(1, 5):
        await run("admin", "PATCH", "/admin/topics/t", {"config": {"retention.ms": f"{number}000"}})
    await run("admin", "POST", "/admin/topics/t/partitions", {"total": 3})
    await run("admin", "GET", "/admin/topics/t")


async def security(run: Deployed) -> None:
    made = await run("admin", "POST", "/admin/keys", {"principal": "p"})
    await run("admin", "GET", "/admin/keys")
    await run("admin", "DELETE", f"/admin/keys/{made['key']['key']}")
    await run("admin", "PUT", "/admin/quotas/p", {"requests_per_s": 1_000_000})
    await run("admin", "GET", "/admin/quotas")
    await run("admin", "GET", "/admin/acls")


async def appends(run: Deployed, function: str) -> None:
    for value in ("small", BIG, "a", "b", "c", "d"):
        await run(function, "POST", "/topics/t", {"records": [{"key": "k", "value": value}]}, kind=KAFKA_JSON)
    record = {"topic": "t", "partition": 0, "value": "one request"}
    await run(function, "POST", "/transactions", {"transactional_id": f"tx-{function}", "records": [record]})
    for end in ("commit", "abort"):
        producer = await run(function, "POST", "/producers", {"transactional_id": f"tx-{function}"})
        begun = await run(function, "POST", "/transactions/begin", {"producer": producer})
        path = f"/transactions/{begun['transaction']}"
        await run(function, "POST", f"{path}/records", {"records": [{"topic": "t", "partition": 1, "value": end}]})
        await run(function, "POST", f"{path}/{end}")


async def reads(run: Deployed, function: str) -> None:
    for path in ("/topics", "/topics/t", "/topics/t/partitions", "/topics/t/partitions/0/offsets"):
        await run(function, "GET", path)
    for partition in (0, 1, 2):
        await run(function, "GET", f"/topics/t/partitions/{partition}/records", query="offset=0")
        await run(function, "GET", f"/topics/t/partitions/{partition}/records", query="timestamp=0")


async def membership(run: Deployed) -> None:
    for member in ("m1", "m2"):
        await run("groups", "POST", f"/groups/g/members/{member}/heartbeat", {"topics": ["t"], "joining": True})
    await run("groups", "POST", "/groups/g/members/m1/heartbeat", {"topics": ["t"]})
    for path in ("/groups", "/groups/g", "/groups/g/lag", "/lag", "/groups/g/offsets"):
        await run("groups", "GET", path)
    await run("groups", "DELETE", "/groups/g/members/m2")
    await run("groups", "DELETE", "/groups/g/members/m1")


async def instances(run: Deployed) -> None:
    kind = "application/vnd.kafka.v2+json"
    made = await run("groups", "POST", "/consumers/r", {"name": "i", "format": "json"}, kind=kind)
    assert "i" == made["instance_id"]
    path = "/consumers/r/instances/i"
    await run("groups", "POST", f"{path}/subscription", {"topics": ["t"]}, kind=kind)
    await run("groups", "GET", f"{path}/records", query="timeout=0", headers={"accept": KAFKA_JSON})
    await run("groups", "POST", f"{path}/offsets", b"", kind=kind)
    await run("groups", "DELETE", path, kind=kind)


async def everything(run: Deployed) -> None:
    await topics(run)
    await security(run)
    await appends(run, "produce")
    await appends(run, "groups")
    for name in FUNCTIONS:
        await run.again(name)
    await reads(run, "fetch")
    await reads(run, "groups")
    await membership(run)
    await instances(run)
    report = await run("maintain", "POST", "/maintain", {})
    assert [] == report["failed"]


@pytest.mark.parametrize("prefix", ["headwater", "a"])
def test_functions_do_their_work_with_the_rights_they_have(prefix: str) -> None:
    run = deployed(everything, Prefix=prefix)
    assert {} == run.refused()
    assert [] == [line for log in run.logs.values() for line in log.lines]


def test_each_kind_of_object_is_written_by_whom_it_should_be() -> None:
    run = deployed(everything)
    writes = {n: {kind for action, kind in store.used if action == "PutObject"} for n, store in run.stores.items()}
    log = {"manifest", "snapshot", "index", "latest"}
    assert log | {".probe"} <= writes["admin"]
    assert log | {"segment", "transaction"} <= writes["produce"]
    assert {"manifest", "segment", "transaction", "lease", "consumer"} <= writes["groups"]
    assert set() == writes["fetch"]
    assert {"lease", "consumer"} & set.union(*(writes[n] for n in FUNCTIONS if n != "groups")) == set()


def test_maintenance_may_take_away_what_has_expired() -> None:
    async def test(run: Deployed) -> None:
        await topics(run)
        producer = await run("produce", "POST", "/producers", {"transactional_id": "tx"})
        for _ in range(3):
            await run("produce", "POST", "/transactions/begin", {"producer": producer, "timeout_ms": 1_000})
        await run("groups", "POST", "/groups/g/members/m/heartbeat", {"topics": ["t"], "joining": True})
        await run("groups", "POST", "/consumers/r", {"name": "i"}, kind="application/vnd.kafka.v2+json")
        for _ in range(3):
            await SimClock(sim_loop()).sleep(50_000)
            report = await upkeep.keep_up(await run.clients["maintain"].app.opened("default"))
            assert () == report.failed

    run = deployed(test)
    assert {} == run.refused()
    gone = {kind for action, kind in run.stores["maintain"].used if action == "DeleteObject"}
    assert {"transaction", "lease", "consumer"} <= gone


def test_maintenance_archives_and_collects_with_the_rights_of_its_role() -> None:
    async def test(run: Deployed) -> None:
        await run("admin", "POST", "/admin/topics", {"name": "t", "partitions": 1})
        for value in ("small", BIG, "a", "b", "c"):
            await run("produce", "POST", "/topics/t", {"records": [{"value": value}]}, kind=KAFKA_JSON)
        space = await run.clients["maintain"].app.opened("default")
        collected = 0
        for _ in range(8):
            report = await upkeep.keep_up(space)
            assert () == report.failed
            collected += report.objects_collected
            await SimClock(sim_loop()).sleep(86_400)
        assert 0 == space.state.topics[1].partitions[0].hot - space.state.topics[1].partitions[0].next
        assert collected > 5
        await run.again("fetch")
        found = await run("fetch", "GET", "/topics/t/partitions/0/records", query="offset=0")
        assert b"small" in (found if isinstance(found, bytes) else json.dumps(found).encode())

    run = deployed(test)
    assert {} == run.refused()
    gone = {kind for action, kind in run.stores["maintain"].used if action == "DeleteObject"}
    assert {"manifest", "segment", "snapshot", "index"} <= gone


def test_functions_serve_branches_and_compacted_topics_with_the_rights_of_their_roles() -> None:
    async def test(run: Deployed) -> None:
        await run("admin", "POST", "/admin/topics", {"name": "t", "partitions": 1})
        await run("admin", "POST", "/admin/topics", {"name": "c", "config": {"cleanup.policy": "compact"}})
        for value in ("one", BIG, "three"):
            for topic in ("t", "c"):
                sent = {"records": [{"key": "k", "value": value}]}
                await run("produce", "POST", f"/topics/{topic}", sent, kind=KAFKA_JSON)
        space = await run.clients["maintain"].app.opened("default")
        report = await upkeep.keep_up(space, archive_now=True)
        assert ((), 3) == (report.failed, report.files_archived), "both, and the audit's topic"
        assert () == (await upkeep.keep_up(space)).failed
        async with await Namespace.open(run.stores["fetch"].inner, clock=SimClock(sim_loop())) as owner:
            await branch(owner, "copy")
        for function in ("fetch", "groups"):
            found = await run(function, "GET", "/namespaces/copy/topics/t/partitions/0/records", query="offset=0")
            assert b"three" in json.dumps(found).encode()
            latest = await run(function, "GET", "/topics/c/partitions/0/records", query="offset=0")
            assert [2] == [record["offset"] for record in latest]
        sent = {"records": [{"value": "mine"}]}
        await run("produce", "POST", "/namespaces/copy/topics/t", sent, kind=KAFKA_JSON)
        copy = await run.clients["maintain"].app.opened("copy")
        report = await upkeep.keep_up(copy, archive_now=True)
        assert ((), 1) == (report.failed, report.files_archived)

    run = deployed(test)
    assert {} == run.refused()
    assert ("GetObject", "archive") in run.stores["fetch"].used


def test_the_console_shows_and_changes_with_the_rights_of_its_role() -> None:
    async def test(run: Deployed) -> None:
        await topics(run)
        await appends(run, "produce")
        await membership(run)
        word = guard(Request(method="GET", path="/", namespace="default"))
        kind = "application/x-www-form-urlencoded"
        pages = ("", "/topics", "/topics/t", "/topics/t/messages", "/groups", "/groups/g", "/transactions", "/streams")
        for path in (*pages, "/commits", "/commits/3", "/storage"):
            page = await run.clients[CONSOLE]("GET", f"/console{path}")
            assert 200 == page.status, path
        noise = random.Random(1).randbytes(900_000).hex()  # more than rides inside a manifest, also compressed
        sent = [("topics/t/produce", {"partition": "0", "value": value}) for value in ("s", noise, "a", "b")]
        for path, form in (*sent, ("groups/g/delete", {"confirm": "yes"}), ("topics/t/delete", {"confirm": "yes"})):
            body = urlencode({"guard": word, **form})
            assert 303 == (await run.clients[CONSOLE]("POST", f"/console/{path}", body, kind=kind)).status
            await run.clients[CONSOLE].app.drain()
        assert 404 == (await run.clients[CONSOLE]("GET", "/console/topics/t")).status

    run = deployed(test, Console="yes")
    assert {} == run.refused()
    used = run.stores[CONSOLE].used
    assert {"manifest", "segment", "snapshot"} <= {kind for action, kind in used if action == "PutObject"}
    assert [] == [kind for action, kind in used if action == "DeleteObject"]


def test_a_role_that_lacks_a_right_shows_here() -> None:
    async def test(run: Deployed) -> None:
        run.stores["produce"].policy = run.stores["fetch"].policy
        await topics(run)
        answer = await run.clients["produce"]("POST", "/topics/t", {"records": [{"value": 1}]}, kind=KAFKA_JSON)
        assert 500 <= answer.status or answer.status in (401, 403)

    assert ["produce"] == list(deployed(test).refused())
