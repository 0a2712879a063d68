"""Credentials over HTTP: what is signed is what arrives, and nobody opens anything before it is known who asks."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from headwater.api import http
from headwater.api.app import App
from headwater.api.auth import UNKNOWN, Authenticator, SigningKey
from headwater.api.messages import Response
from headwater.api.service import Service
from headwater.sim.loop import SimClock, sim_loop
from tests.api.helpers_http import app_over
from tests.log.helpers import memory, opened, simulate
from tests.log.helpers_store import Scripted

HOST = "127.0.0.1:8080"
KEYS = {"AKROOT": SigningKey(secret="secret", principal="root")}


async def ask(app: App, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Response:
    path, _, query = target.partition("?")
    found = {name.lower(): value for name, value in headers.items()}
    return await http.serve(
        http.Incoming(
            method=method, raw_path=path, raw_query=query, headers=found, body=body, host=HOST, scheme="http"
        ),
        app,
    )


def signature(
    monkeypatch: pytest.MonkeyPatch, method: str, target: str, body: bytes = b"", **headers: str
) -> dict[str, str]:
    """The headers of a request as botocore signs it, now by the simulation's clock."""
    now = datetime.fromtimestamp(SimClock(sim_loop()).wall_ms() / 1_000, UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: now)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    request = AWSRequest(method=method, url=f"http://{HOST}{target}", data=body, headers=sent)
    botocore.auth.SigV4Auth(Credentials("AKROOT", "secret"), "lambda", "us-east-1").add_auth(request)
    return {"host": HOST, **dict(request.headers.items())}


def said(response: Response) -> Any:
    return json.loads(response.body)


def test_a_signed_request_is_served_and_its_replay_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        app = app_over(memory(), clock=SimClock(sim_loop()), auth=_sigv4(), served=("default", "other"))
        body = b'{"name":"t","partitions":2}'
        headers = signature(monkeypatch, "POST", "/admin/topics", body, content_type="application/json")
        assert 401 == (await ask(app, "POST", "/namespaces/other/admin/topics", headers, body)).status
        assert 401 == (await ask(app, "POST", "/admin/topics", headers, body.replace(b"2", b"3"))).status
        assert 401 == (await ask(app, "POST", "/admin/topics/", headers, body)).status
        assert 201 == (await ask(app, "POST", "/admin/topics", headers, body)).status
        replayed = await ask(app, "POST", "/admin/topics", headers, body)
        assert (401, "no") == (replayed.status, said(replayed)["applied"])
        assert "used before" in said(replayed)["message"]
        target = "/topics/t/partitions/0/records?from=earliest&max_bytes=100"
        assert 200 == (await ask(app, "GET", target, signature(monkeypatch, "GET", target))).status
        assert 401 == (await ask(app, "GET", target + "0", signature(monkeypatch, "GET", target))).status

    simulate(main())


def test_a_compressed_body_is_signed_as_it_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        app = app_over(memory(), clock=SimClock(sim_loop()), auth=_sigv4())
        body = gzip.compress(b'{"name":"t"}')
        sent = {"content_type": "application/json", "content_encoding": "gzip"}
        headers = signature(monkeypatch, "POST", "/admin/topics", body, **sent)
        assert 201 == (await ask(app, "POST", "/admin/topics", headers, body)).status

    simulate(main())


def test_an_api_key_opens_its_own_namespace_and_no_other() -> None:
    async def main() -> None:
        store = memory()
        clock = SimClock(sim_loop())
        app = app_over(store, clock=clock, auth=Authenticator("token", clock), served=("ns", "other"))
        namespace = await opened(store)
        info, token = await Service(namespace).create_key("ann")
        good = {"authorization": f"Bearer {token}"}
        assert 200 == (await ask(app, "GET", "/namespaces/ns/admin/topics", good)).status
        refusals = [
            await ask(app, "GET", "/namespaces/other/admin/topics", good),
            await ask(app, "GET", "/namespaces/nowhere/admin/topics", good),
            await ask(app, "GET", "/namespaces/ns/admin/topics", {"authorization": f"Bearer {token}x"}),
            await ask(app, "GET", "/namespaces/ns/admin/topics", {"authorization": f"Bearer hw_none_{token}"}),
            await ask(app, "GET", "/namespaces/ns/admin/topics", {}),
            await ask(app, "GET", "/namespaces/nowhere/admin/topics", {}),
        ]
        await Service(namespace).revoke_key(info.key)
        await sim_loop().sleep(6)
        refusals.append(await ask(app, "GET", "/namespaces/ns/admin/topics", good))
        # All alike, but for the id of each request.
        told = {(refusal.status, re.sub(rb'"id":"[0-9a-f]{16}"', b'"id":""', refusal.body)) for refusal in refusals}
        assert [401] == [status for status, _ in told]
        assert UNKNOWN == said(refusals[0])["message"]
        assert token.rpartition("_")[2] not in refusals[0].body.decode()

    simulate(main())


def test_whoever_is_nobody_opens_no_namespace() -> None:
    async def main() -> None:
        store = Scripted(memory())
        clock = SimClock(sim_loop())
        for auth in (_sigv4(), Authenticator("iam", clock), Authenticator("token", clock)):
            app = app_over(store, clock=SimClock(sim_loop()), auth=auth, served=("tenant-*",))
            for number in range(5):
                assert 401 == (await ask(app, "GET", f"/namespaces/tenant-{number}/admin/topics", {})).status
        assert 0 == store.calls.total()

    simulate(main())


def _sigv4() -> Authenticator:
    return Authenticator("sigv4", SimClock(sim_loop()), sigv4_keys=KEYS)
