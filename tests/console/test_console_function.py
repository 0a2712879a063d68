"""The console as the deployed function: a browser that a function URL stands for, over a bucket in memory."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import random
import re
import runpy
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from headwater.api.messages import Request
from headwater.api.runtime import Function
from headwater.api.service import Service
from headwater.api.verbs import AclRule
from headwater.console.function import console
from headwater.console.render import POLICY
from headwater.console.signing import guard
from headwater.log.namespace import Namespace
from headwater.log.operations import CommitOffsets, OffsetEntry
from headwater.store.memory import MemoryStore
from tests.console.test_console import append

HOST = "abcdefghij.lambda-url.eu-central-1.on.aws"
ENVIRONMENT = {"HEADWATER_STORE": "memory://unused", "HEADWATER_AUTH": "iam"}  # as in a stack whose callers sign
APP = Path(__file__).parents[2] / "functions" / "console" / "app.py"


@dataclass
class Page:
    """What a browser got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Browser:
    """Makes the events of payload format 2.0 that the platform makes, and keeps cookies as browsers do."""

    handler: Function
    jar: dict[str, str] = field(default_factory=dict)
    set_cookies: list[str] = field(default_factory=list)

    def get(self, path: str) -> Page:
        return self._ask("GET", path, "", {"accept": "text/html,*/*;q=0.8", "accept-encoding": "gzip, br"})

    def page(self, path: str) -> str:
        found = self.get(path)
        assert 200 == found.status, found.text
        return found.text

    def post(self, path: str, form: dict[str, str], **headers: str) -> Page:
        kind = {"content-type": "application/x-www-form-urlencoded", "origin": f"https://{HOST}"}
        return self._ask("POST", path, urlencode(form), {**kind, "sec-fetch-site": "same-origin", **headers})

    def guard(self, path: str) -> str:
        (found,) = set(re.findall(r'name="guard" value="([0-9a-f]{64})"', self.page(path)))
        return str(found)

    def _ask(self, method: str, path: str, body: str, headers: dict[str, str]) -> Page:
        raw_path, _, raw_query = path.partition("?")
        event: dict[str, Any] = {
            "version": "2.0",
            "rawPath": raw_path,
            "rawQueryString": raw_query,
            "headers": {"host": HOST, "x-forwarded-proto": "https", **headers},
            "requestContext": {
                "domainName": HOST,
                "http": {"method": method, "path": raw_path, "sourceIp": "192.0.2.1"},
            },
            "isBase64Encoded": bool(body),
        }
        if body:
            event["body"] = base64.b64encode(body.encode()).decode()
        if self.jar:
            event["cookies"] = [f"{name}={value}" for name, value in self.jar.items()]
        answer = json.loads(json.dumps(self.handler(event, None)))
        assert "set-cookie" not in answer["headers"], "the format has cookies of their own"
        for cookie in answer.get("cookies", []):
            self.set_cookies.append(cookie)
            name, _, value = cookie.partition(";")[0].partition("=")
            self.jar[name] = value
            if not value:
                del self.jar[name]
        raw = base64.b64decode(answer["body"]) if answer["isBase64Encoded"] else answer["body"].encode()
        if answer["headers"].get("content-encoding") == "gzip":
            raw = gzip.decompress(raw)
        return Page(answer["statusCode"], answer["headers"], raw)


@pytest.fixture(scope="module")
def bucket() -> tuple[MemoryStore, str, str]:
    """A bucket with a topic, a group, and two tokens: of the owner, and of a reader."""
    store = MemoryStore()

    async def fill() -> tuple[str, str]:
        async with await Namespace.open(store, rng=random.Random(1)) as space:
            topic = await space.create_topic("greetings", 2)
            await append(space, [b'{"text": "hello"}', b"\x00\xff\x00"])
            await space.writer.commit(ops=[CommitOffsets(group="readers", offsets=[OffsetEntry(topic.id, 0, 1)])])
            owner = Service(space)
            await owner.change_acls(
                add=[AclRule("reader", "read", "topic", "greetings")]
                + [
                    AclRule("ops", operation, kind, "*")
                    for operation in ("all",)
                    for kind in ("topic", "group", "cluster")
                ]
            )
            return (await owner.create_key("ops"))[1], (await owner.create_key("reader"))[1]

    return store, *asyncio.run(fill())


@pytest.fixture
def browser(bucket: tuple[MemoryStore, str, str]) -> Iterator[Browser]:
    """A browser that nobody has signed in with yet."""
    handler = console(environment=ENVIRONMENT, store=bucket[0])
    yield Browser(handler)
    if handler._loop is not None:
        handler._loop.close()


def signed_in(browser: Browser, token: str) -> None:
    done = browser.post("/console/sign-in", {"token": token})
    assert (303, "/console") == (done.status, done.headers["location"])


PAGES = [
    "/console",
    "/console/topics",
    "/console/topics/greetings",
    "/console/topics/greetings/messages?from=earliest",
    "/console/groups",
    "/console/groups/readers",
    "/console/transactions",
    "/console/streams",
    "/console/commits",
    "/console/commits/2",
    "/console/storage?count=1",
    "/namespaces/default/console/topics",
]


def test_the_folder_holds_this_function() -> None:
    assert "console" == runpy.run_path(str(APP))["handler"].name


def test_whoever_has_no_token_sees_the_form_alone_whatever_the_other_functions_ask_for(browser: Browser) -> None:
    for path in PAGES:
        asked = browser.get(path)
        assert 303 == asked.status
        assert asked.headers["location"].endswith("/console/sign-in")
    found = browser.get("/console/sign-in")
    assert (200, POLICY) == (found.status, found.headers["content-security-policy"])
    assert 401 == browser.post("/console/topics/greetings/delete", {"confirm": "yes"}).status
    assert 200 == browser.get("/healthz").status


def test_a_person_signs_in_sees_every_page_acts_and_signs_out(
    browser: Browser, bucket: tuple[MemoryStore, str, str]
) -> None:
    signed_in(browser, bucket[1])
    (cookie,) = browser.set_cookies
    assert {"HttpOnly", "SameSite=Strict", "Secure", "Path=/"} <= set(cookie.split("; "))
    for path in PAGES:
        found = browser.get(path)
        assert (200, POLICY) == (found.status, found.headers["content-security-policy"]), path
        assert 1 == found.text.count("<h1>")
    form = {"guard": browser.guard("/console/topics/greetings/messages"), "partition": "1", "value": "by a function"}
    done = browser.post("/console/topics/greetings/produce", form)
    assert 303 == done.status
    assert "by a function" in browser.page(done.headers["location"])
    form = {"guard": form["guard"], "topic": "greetings", "to": "earliest"}
    assert "will be read again" in browser.post("/console/groups/readers/reset", form).text
    assert 303 == browser.post("/console/groups/readers/reset", {**form, "confirm": "yes"}).status
    out = browser.post("/console/sign-out", {"guard": form["guard"]})
    assert (303, "/console/sign-in", {}) == (out.status, out.headers["location"], browser.jar)
    assert 303 == browser.get("/console").status


def test_a_key_that_may_only_read_changes_nothing(browser: Browser, bucket: tuple[MemoryStore, str, str]) -> None:
    signed_in(browser, bucket[2])
    assert "hello" in unescape(browser.page("/console/topics/greetings/messages?from=earliest"))
    assert 403 == browser.get("/console/storage").status
    # A page without forms has no word for them.
    known = Request(method="GET", path="/", headers={"authorization": f"Bearer {bucket[2]}"}, namespace="default")
    form = {"guard": guard(known), "confirm": "yes"}
    refused = browser.post("/console/topics/greetings/delete", form)
    assert 403 == refused.status
    assert "You may not do this" in refused.text


def test_a_form_of_another_site_does_nothing_here_either(
    browser: Browser, bucket: tuple[MemoryStore, str, str]
) -> None:
    signed_in(browser, bucket[1])
    form = {"guard": browser.guard("/console/topics/greetings"), "confirm": "yes"}
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
        assert 403 == browser.post("/console/topics/greetings/delete", form, **headers).status


def test_the_live_tail_answers_at_once_with_what_is_new(browser: Browser, bucket: tuple[MemoryStore, str, str]) -> None:
    signed_in(browser, bucket[1])
    page = browser.page("/console/topics/greetings/messages?from=earliest&partition=0")
    (url,) = re.findall(r'data-url="([^"]+)"', page)
    (end,) = re.findall(r'data-next="(\d+)"', page)
    answer = json.loads(browser.page(f"{unescape(url)}&offset={end}"))
    assert (int(end), False) == (answer["next"], "<article" in answer["html"])
    form = {"guard": browser.guard("/console/topics/greetings/messages"), "partition": "0", "value": "followed"}
    assert 303 == browser.post("/console/topics/greetings/produce", form).status
    answer = json.loads(browser.page(f"{unescape(url)}&offset={end}"))
    assert (int(end) + 1, True) == (answer["next"], "followed" in answer["html"])


def test_files_come_whole_and_are_kept(browser: Browser) -> None:
    found = {}
    for path in set(re.findall(r'"(/console/static/[^"]+)"', browser.page("/console/sign-in"))):
        file = browser.get(path)
        assert (200, "public, max-age=31536000, immutable") == (file.status, file.headers["cache-control"])
        found[path.rpartition("/")[2]] = (file.headers["content-type"].partition(";")[0], file.body)
    static = APP.parents[2] / "lib" / "console" / "static"
    kinds = {"style.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}
    assert {name: (kind, (static / name).read_bytes()) for name, kind in kinds.items()} == found


def test_it_serves_pages_and_nothing_of_the_api(browser: Browser, bucket: tuple[MemoryStore, str, str]) -> None:
    signed_in(browser, bucket[1])
    for path in ("/topics", "/groups", "/admin/topics", "/metrics"):
        assert 404 == browser.get(path).status
    assert (303, "/console") == ((found := browser.get("/")).status, found.headers["location"])
