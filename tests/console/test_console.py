"""The console without a browser: every page, every refusal, and what an attacker would put into a record."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from html import unescape
from urllib.parse import urlencode

import msgspec
import pyarrow as pa
import pytest

from headwater.api import http
from headwater.api.messages import Request, Response
from headwater.api.runtime import Settings, app_for
from headwater.api.service import Service
from headwater.api.verbs import AclRule
from headwater.console import storage
from headwater.console.app import ConsoleApp
from headwater.console.cells import LINE_MAX, cell
from headwater.console.charts import bars, buckets
from headwater.console.commits import Commit, summary
from headwater.console.jobs import jobs
from headwater.console.process import HOUR_S, Served, process
from headwater.console.render import POLICY, ago, dollars, moment, rate
from headwater.console.signing import guard
from headwater.console.views import PUT_USD, archiving, flow, lag_history, lags, paged
from headwater.errors import Conflict, Fenced, InvalidRequest, NotFound
from headwater.limits import CONSOLE_CELL_BYTES, CONSOLE_FETCH_BYTES, CONSOLE_RECORDS
from headwater.log.batch import batch_of_records, encode_arrow
from headwater.log.codec_schema import TIMESTAMP
from headwater.log.keys import segment_key
from headwater.log.namespace import Namespace
from headwater.log.operations import AlterTopic, CommitOffsets, CreateTopic, InitProducer, OffsetEntry, Reserve
from headwater.log.state import Entry, Partition
from headwater.log.writer import Append
from headwater.meters import Meters, families
from headwater.store.memory import MemoryStore
from headwater.store.metered import MeteredStore
from headwater.streams.cards import Card
from headwater.streams.names import changelog_topic
from headwater.streams.runner.account import PICTURE, Figures, Told, figures_key, picture
from headwater.streams.runner.remains import JOB
from headwater.types import Record
from headwater.words import size
from tests.log.helpers import Fold, chunk

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
BROWSER = {"accept": "text/html,*/*;q=0.8", "host": "log.example"}


@dataclass
class Browser:
    """Asks the app as a browser would."""

    app: ConsoleApp
    space: Namespace
    store: MeteredStore
    cookie: str = ""

    async def get(self, path: str, **headers: str) -> Response:
        return await self._ask("GET", path, b"", headers)

    async def post(self, path: str, form: dict[str, str], **headers: str) -> Response:
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return await self._ask("POST", path, urlencode(form).encode(), kind | headers)

    async def page(self, path: str) -> str:
        response = await self.get(path)
        assert 200 == response.status, response.body
        return response.body.decode()

    async def guard(self, path: str) -> str:
        (found,) = set(re.findall(r'name="guard" value="([0-9a-f]{64})"', await self.page(path)))
        return str(found)

    async def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Response:
        raw_path, _, raw_query = path.partition("?")
        sent = {**BROWSER, **({"cookie": self.cookie} if self.cookie else {})}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        incoming = http.Incoming(method=method, raw_path=raw_path, raw_query=raw_query, headers=sent, body=body)
        return await http.serve(incoming, self.app)


def browsing(test: Callable[[Browser], Awaitable[None]], *, auth: str = "none", empty: bool = False) -> None:
    async def main() -> None:
        store = MeteredStore(MemoryStore())
        async with await Namespace.open(store, rng=random.Random(1)) as space:
            if not empty:
                await filled(space)
            app = app_for("dev", Settings(store="memory://", auth=auth), store=store, kind=ConsoleApp)
            await test(Browser(app, space, store))
            await app.close()

    asyncio.run(main())


async def filled(space: Namespace) -> None:
    topic = await space.create_topic("greetings", 2)
    await append(space, [b'{"text": "hello"}', EVIL.encode(), b"\x00\xff\x00"], key=EVIL.encode())
    await space.writer.commit(ops=[CommitOffsets(group="readers", offsets=[OffsetEntry(topic.id, 0, 1)])])


async def append(space: Namespace, values: list[bytes | None], *, key: bytes = b"k") -> None:
    rows = {
        "timestamp": pa.array([1_000 + i for i in range(len(values))]).cast(TIMESTAMP),
        "key": pa.array([key] * len(values), pa.binary()),
        "value": pa.array(values, pa.binary()),
    }
    await space.append("greetings", 0, encode_arrow(pa.table(rows)))


PAGES = [
    "/console",
    "/console/topics",
    "/console/topics?q=greet&sort=bytes&internal=1",
    "/console/topics/greetings",
    "/console/topics/greetings/messages?from=earliest",
    "/console/groups",
    "/console/groups?sort=members",
    "/console/groups/readers",
    "/console/transactions",
    "/console/streams",
    "/console/commits",
    "/console/commits/2",
    "/console/storage?count=1",
    "/console/storage?orphans=1",
    "/namespaces/default/console/topics",
    *(f"/console/as-of/2{page}" for page in ("", "/topics", "/topics/greetings", "/groups", "/transactions")),
    *(f"/console/as-of/2{page}" for page in ("/streams", "/commits", "/commits/2", "/storage?count=1")),
    "/console/as-of/2/topics/greetings/messages?from=earliest",
    "/namespaces/default/console/as-of/2/topics",
]
EMPTY = [
    *(path for path in PAGES if not re.search("commits/|/greetings|as-of", path)),
    *(f"/console/as-of/0{page}" for page in ("", "/topics", "/groups", "/streams", "/commits", "/storage")),
]


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_a_page_with_a_strict_policy(path: str) -> None:
    async def test(browser: Browser) -> None:
        response = await browser.get(path)
        assert 200 == response.status
        assert POLICY == response.headers["content-security-policy"]
        text = response.body.decode()
        assert text.count("<h1>") == 1
        # No script, style or handler of a page's own: the policy would refuse it anyway.
        assert re.findall(r"<script[^>]*>", text) == re.findall(r'<script src="/console/static/[^"]+" defer>', text)
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=", re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL))

    browsing(test)


@pytest.mark.parametrize("path", EMPTY)
def test_an_empty_namespace_has_pages_too(path: str) -> None:
    async def test(browser: Browser) -> None:
        status = (await browser.get(path)).status
        assert (404 if "readers" in path else 200) == status

    browsing(test, empty=True)


def test_pages_of_the_past_show_what_was_there_then_and_lead_on_in_it() -> None:
    async def test(browser: Browser) -> None:
        then = browser.space.state.seq
        await browser.space.create_topic("later")
        await append(browser.space, [b"afterwards"])
        await browser.space.refresh()
        past = f"/console/as-of/{then}"
        now, before = await browser.page("/console/topics"), await browser.page(f"{past}/topics")
        assert (True, False) == ("later" in now, "later" in before)
        assert (False, True) == ("This is the past" in now, "This is the past" in before)
        assert f'href="{past}/topics/greetings"' in before
        assert 'href="/console/topics">Back to now' in before
        assert f'href="/console/as-of/{then - 1}/topics"' in before
        messages = "/topics/greetings/messages?partition=0&from=0"
        assert "afterwards" in await browser.page(f"/console{messages}")
        read = await browser.page(f"{past}{messages}")
        assert (True, False, False) == ("hello" in read, "afterwards" in read, "Follow live" in read)
        assert 404 == (await browser.get(f"{past}/topics/later")).status
        assert 404 == (await browser.get("/console/as-of/999/topics")).status
        # A group is read as it was, and a page from before it has none.
        assert 200 == (await browser.get(f"{past}/groups/readers")).status
        assert 404 == (await browser.get("/console/as-of/1/groups/readers")).status

    browsing(test)


@pytest.mark.parametrize("deed", ["topics/greetings/delete", "topics/greetings/produce", "groups/readers/reset"])
def test_the_past_is_not_changed(deed: str) -> None:
    async def test(browser: Browser) -> None:
        then = browser.space.state.seq
        form = {"guard": await browser.guard("/console/topics/greetings/messages"), "confirm": "yes"}
        answer = await browser.post(f"/console/as-of/{then}/{deed}", form)
        assert (400, True) == (answer.status, "does not change" in unescape(answer.body.decode()))
        await browser.space.refresh()
        assert then == browser.space.state.seq
        for page in ("topics/greetings", "topics/greetings/messages", "groups/readers", "transactions"):
            assert 'name="guard"' not in await browser.page(f"/console/as-of/{then}/{page}")

    browsing(test)


def test_a_commit_or_a_time_leads_to_the_same_page_as_of_it() -> None:
    async def test(browser: Browser) -> None:
        async def leads(at: str, page: str) -> str:
            answer = await browser.get(f"/console/as-of?{urlencode({'at': at, 'page': page})}")
            return answer.headers["location"] if answer.status == 303 else str(answer.status)

        newest = browser.space.state.seq
        assert "/console/as-of/2/topics?q=a&sort=name" == await leads("2", "/topics?q=a&sort=name")
        assert f"/console/as-of/{newest}/groups" == await leads("2999-01-01", "/groups")
        assert "/console/as-of/0" == await leads("2001-01-01T00:00", "")
        assert "/console/as-of/2" == await leads("2", "https://elsewhere.example")
        assert "/console/as-of/2/%0D%0Ax" == await leads("2", "/\r\nx")
        assert ["404", "404", "400"] == [await leads(at, "") for at in ("0", str(newest + 1), "soon")]

    browsing(test)


def test_what_a_commit_did_is_said_in_words() -> None:
    fold = Fold()
    topic = fold.topic(name="in", partitions=8)
    fold.done(CommitOffsets(group="readers", offsets=[OffsetEntry(topic, number, 0) for number in range(8)]))
    (offsets,) = summary(fold.manifests[-1]).did
    assert offsets.detail.startswith(f"group readers: 0 of {topic}-0, 0 of {topic}-1")
    assert "and 2 more" in offsets.detail
    fold.done(AlterTopic(topic=topic, config={"long": "x" * 100, "retention.ms": None}))
    (altered,) = summary(fold.manifests[-1]).did
    assert (topic, f"long = {'x' * 60}…, retention.ms back to its default") == (altered.topic, altered.detail)


def test_rates_out_are_known_from_the_second_look_on() -> None:
    served = Served()
    assert served.rate(100.0, 1_000, 10) is None
    assert served.rate(100.5, 1_000, 10) is None
    found = served.rate(110.0, 3_000, 30)
    assert found is not None
    assert (10.0, 200.0, 2.0) == (found.span_s, found.bytes_per_s, found.records_per_s)
    found = served.rate(100.0 + 2 * HOUR_S, 5_000, 50)
    assert found is None, "whatever is older than an hour is forgotten"


def test_scripts_in_keys_and_values_are_text() -> None:
    async def test(browser: Browser) -> None:
        text = await browser.page("/console/topics/greetings/messages?from=earliest")
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert 4 <= unescape(text).count("<script>alert(1)</script>")
        tail = (await browser.get("/console/topics/greetings/tail?offset=0")).body.decode()
        assert "<script>alert" not in tail

    browsing(test)


def test_a_browser_at_the_root_finds_the_console_and_a_program_does_not() -> None:
    async def test(browser: Browser) -> None:
        found = await browser.get("/")
        assert (303, "/console") == (found.status, found.headers["location"])
        assert 404 == (await browser.get("/", accept="application/json")).status

    browsing(test)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/console/topics/nothing", 404, "There is no topic"),
        ("/console/groups/nothing", 404, "There is no group"),
        ("/console/nowhere", 404, "There is nothing at this path"),
        ("/console/topics?sort=colour", 400, "sort is one of name"),
        ("/console/topics?page=-1", 400, "page is a number"),
        ("/console/topics?colour=red", 400, "no query parameter"),
        ("/console/commits/0", 404, "There is no commit"),
        ("/console/commits/9999", 404, "There is no commit"),
        ("/console/topics/greetings/messages?partition=2", 404, "has partitions 0 to 1"),
        ("/console/topics/greetings/messages?from=yesterday", 400, "no place to begin"),
        ("/console/topics/greetings/messages?where=colour+%3D%3D+1", 400, "There is no column"),
        ("/console/topics/greetings/messages?where=offset+%3E", 400, "cannot be read"),
        ("/console/topics/greetings/messages?as=gold", 400, "auto, json, avro"),
    ],
)
def test_what_makes_no_sense_is_a_page_that_says_so(path: str, status: int, words: str) -> None:
    async def test(browser: Browser) -> None:
        response = await browser.get(path)
        assert status == response.status
        assert words in unescape(response.body.decode())
        assert POLICY == response.headers["content-security-policy"]

    browsing(test)


# -- records -------------------------------------------------------------------------------------------------


def test_a_condition_and_a_key_choose_records() -> None:
    async def test(browser: Browser) -> None:
        await append(browser.space, [b"one"], key=b"other")
        path = "/console/topics/greetings/messages?from=earliest&"
        for query in ("key=other", urlencode({"where": 'key == "other"'}), urlencode({"where": "offset == 3"})):
            text = await browser.page(path + query)
            assert 1 == text.count('<article class="record">')
            assert "4 records looked at, 1 of them match" in text

    browsing(test)


def test_a_time_is_a_place_to_begin() -> None:
    async def test(browser: Browser) -> None:
        text = await browser.page("/console/topics/greetings/messages?from=1970-01-01T00:00:01.001")
        assert 2 == text.count('<article class="record">')

    browsing(test)


def test_a_page_of_records_reads_little_more_than_it_shows() -> None:
    async def test(browser: Browser) -> None:
        for _ in range(20):
            await append(browser.space, [random.Random(2).randbytes(1_000)] * 400)
        await browser.page("/console/topics/greetings/messages?from=earliest")  # the namespace is open now
        before = browser.store.counts.copy()
        text = await browser.page("/console/topics/greetings/messages?from=100")
        took = browser.store.counts - before
        assert CONSOLE_RECORDS == text.count('<article class="record">')
        assert took.bytes_in <= 2 * CONSOLE_FETCH_BYTES
        assert took.get <= 4

    browsing(test)


@pytest.mark.parametrize(
    ("data", "kind", "text", "cut"),
    [
        (None, "null", "null", False),
        (b"", "text", "", False),
        (b'{"a": 1}', "json", '{"a":1}', False),
        (b'{"a": "%s"}' % (b"x" * LINE_MAX), "json", '{\n  "a": "%s"\n}' % ("x" * LINE_MAX), False),
        (b'{"a":', "text", '{"a":', False),
        (b"\x00\x01", "hex", "0001", False),
        ("ü".encode() * (CONSOLE_CELL_BYTES // 2), "text", "ü" * (CONSOLE_CELL_BYTES // 2), False),
        (b"x" * (CONSOLE_CELL_BYTES + 1), "text", "x" * CONSOLE_CELL_BYTES, True),
        (b"x" + "ü".encode() * CONSOLE_CELL_BYTES, "text", "x" + "ü" * (CONSOLE_CELL_BYTES // 2 - 1), True),
    ],
)
def test_cells_show_what_they_hold_and_are_cut(data: bytes | None, kind: str, text: str, cut: bool) -> None:
    shown = cell(data)
    assert (kind, text, cut) == (shown.kind, shown.text, shown.cut)
    assert len(data or b"") == shown.nbytes


def test_a_cell_can_be_forced_to_text_or_hexadecimal() -> None:
    assert "�" in cell(b"\xff", as_="text").text
    assert "68656c6c 6f" == cell(b"hello", as_="hex").text


# -- changes -------------------------------------------------------------------------------------------------


def test_a_record_that_is_sent_is_there() -> None:
    async def test(browser: Browser) -> None:
        word = await browser.guard("/console/topics/greetings/messages")
        form = {"guard": word, "partition": "1", "key": "en", "value": "hello"}
        done = await browser.post("/console/topics/greetings/produce", form)
        assert 303 == done.status
        assert "hello" in await browser.page(done.headers["location"])

    browsing(test)


def test_a_reset_says_what_it_will_do_and_waits_for_a_yes() -> None:
    async def test(browser: Browser) -> None:
        form = {"guard": await browser.guard("/console/groups/readers"), "topic": "greetings", "to": "earliest"}
        asked = (await browser.post("/console/groups/readers/reset", form)).body.decode()
        assert "1 records of topic greetings, about" in asked
        for to, then in (("time", {"time": "1970-01-01T00:00:01.001"}), ("offset", {"offset": "99"})):
            shown = (await browser.post("/console/groups/readers/reset", {**form, "to": to, **then})).body.decode()
            assert f">{'1' if to == 'time' else '3'}</td>" in shown
        wrong = await browser.post("/console/groups/readers/reset", {**form, "to": "time", "time": "soon"})
        assert (400, True) == (wrong.status, "no place to begin" in wrong.body.decode())
        await browser.space.refresh()
        assert 1 == browser.space.state.groups["readers"].offsets[1][0].offset
        done = await browser.post("/console/groups/readers/reset", {**form, "confirm": "yes"})
        assert (303, "/console/groups/readers") == (done.status, done.headers["location"])
        await browser.space.refresh()
        assert 0 == browser.space.state.groups["readers"].offsets[1][0].offset

    browsing(test)


@pytest.mark.parametrize(("what", "name"), [("topics", "greetings"), ("groups", "readers")])
def test_a_deletion_waits_for_a_yes(what: str, name: str) -> None:
    async def test(browser: Browser) -> None:
        path = f"/console/{what}/{name}"
        form = {"guard": await browser.guard(path)}
        assert "will be gone" in (await browser.post(f"{path}/delete", form)).body.decode()
        assert 200 == (await browser.get(path)).status
        assert 303 == (await browser.post(f"{path}/delete", {**form, "confirm": "yes"})).status
        assert 404 == (await browser.get(path)).status

    browsing(test)


async def reserved(space: Namespace) -> int:
    """A transaction that is open, and holds one record of partition 1."""
    pid = (await space.writer.commit(ops=[InitProducer(tid="shop")])).values["pid"]
    batch = replace(batch_of_records([Record(key=b"k", value=b"v")], default_timestamp=1), producer_id=pid)
    append = Append(topic=1, partition=1, batch=replace(batch, producer_epoch=0, sequence=0))
    await space.writer.commit([append], [Reserve(pid=pid, epoch=0, timeout_ms=60_000)])
    return int(pid)


def test_a_transaction_is_aborted_once_after_a_yes_and_its_producer_is_fenced() -> None:
    async def test(browser: Browser) -> None:
        pid = await reserved(browser.space)
        page = await browser.page("/console/transactions")
        assert "greetings-1: 0" in page  # its last sequence
        form = {"guard": await browser.guard("/console/transactions"), "epoch": "0"}
        path = f"/console/transactions/{pid}/abort"
        asked = unescape((await browser.post(path, form)).body.decode())
        assert "1 records of shop in 1 partitions will never be visible" in asked
        await browser.space.refresh()
        assert browser.space.state.producers[pid].is_busy
        assert 303 == (await browser.post(path, {**form, "confirm": "yes"})).status
        await browser.space.refresh()
        known = browser.space.state.producers[pid]
        assert (False, 1, 1) == (known.is_busy, known.epoch, browser.space.topic("greetings").partitions[1].stable_end)
        assert "epochs before 1" in await browser.page("/console/transactions")
        again = await browser.post(path, {**form, "confirm": "yes"})
        assert (409, True) == (again.status, "Nothing was done" in again.body.decode())

    browsing(test)


def test_what_is_not_open_is_not_aborted() -> None:
    async def test(browser: Browser) -> None:
        owner = Service(browser.space)
        with pytest.raises(NotFound):
            await owner.abort_producer(9, 0)
        pid = (await browser.space.writer.commit(ops=[InitProducer(tid="idle")])).values["pid"]
        with pytest.raises(Conflict):
            await owner.abort_producer(pid, 0)
        busy = await reserved(browser.space)
        with pytest.raises(InvalidRequest):
            await owner.abort_producer(busy, 5)  # an epoch that it has not reached
        await owner.abort_producer(busy, 0)
        with pytest.raises(Fenced):
            await owner.abort_producer(busy, 0)

    browsing(test)


def test_a_transaction_is_aborted_over_http_too() -> None:
    async def test(browser: Browser) -> None:
        pid = await reserved(browser.space)
        path, kind = f"/admin/producers/{pid}/abort", {"content-type": "application/json"}
        assert 204 == (await browser._ask("POST", path, b'{"epoch": 0}', kind)).status
        await browser.space.refresh()
        assert not browser.space.state.producers[pid].is_busy
        refusals = [(path, b'{"epoch": 0}'), (path, b"{}"), ("/admin/producers/x/abort", b'{"epoch": 0}')]
        answers = [await browser._ask("POST", where, body, kind) for where, body in refusals]
        assert [409, 422, 404] == [answer.status for answer in answers]

    browsing(test)


@pytest.mark.parametrize("headers", [{}, {"sec_fetch_site": "cross-site"}, {"origin": "https://evil.example"}], ids=str)
def test_a_form_of_another_site_does_nothing(headers: dict[str, str]) -> None:
    async def test(browser: Browser) -> None:
        word = await browser.guard("/console/topics/greetings") if headers else "0" * 64
        form = {"guard": word, "confirm": "yes"}
        refused = await browser.post("/console/topics/greetings/delete", form, **headers)
        assert 403 == refused.status
        assert "Nothing was done" in refused.body.decode()
        assert 200 == (await browser.get("/console/topics/greetings")).status

    browsing(test)


# -- who may -------------------------------------------------------------------------------------------------


def test_strangers_are_asked_for_a_token_and_a_reader_may_not_delete() -> None:
    async def test(browser: Browser) -> None:
        asked = await browser.get("/console/topics")
        assert (303, "/console/sign-in") == (asked.status, asked.headers["location"])
        assert "Token" in await browser.page("/console/sign-in")
        assert 401 == (await browser.post("/console/topics/greetings/delete", {})).status

        owner = Service(browser.space)
        await owner.change_acls(add=[AclRule("reader", "read", "topic", "greetings")])
        _, token = await owner.create_key("reader")
        signed = await browser.post("/console/sign-in", {"token": token})
        assert 303 == signed.status
        cookie = signed.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
        browser.cookie = cookie.partition(";")[0]

        text = await browser.page("/console/topics/greetings")
        assert "Delete this topic" not in text
        known = Request(method="GET", path="/", headers={"authorization": f"Bearer {token}"}, namespace="default")
        form = {"guard": guard(known), "confirm": "yes"}
        refused = await browser.post("/console/topics/greetings/delete", form)
        assert 403 == refused.status
        assert "You may not do this" in refused.body.decode()
        assert 403 == (await browser.get("/console/commits")).status
        assert 403 == (await browser.post("/console/transactions/0/abort", {**form, "epoch": "0"})).status
        assert "/groups/readers" not in await browser.page("/console/groups")

    browsing(test, auth="token")


@pytest.mark.parametrize("token", ["", "two words", "a;b", "é"])
def test_what_is_no_token_is_said_to_be_none(token: str) -> None:
    async def test(browser: Browser) -> None:
        response = await browser.post("/console/sign-in", {"token": token})
        assert "set-cookie" not in response.headers
        assert "That is no token" in response.body.decode()

    browsing(test, auth="token")


def test_orphans_are_found_as_verify_finds_them_and_not_where_that_takes_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(browser: Browser) -> None:
        assert "There are none" in await browser.page("/console/storage?orphans=1")
        await browser.space.store.put(segment_key(browser.space.state.seq, "writer", 1), b"x" * 77)
        text = await browser.page("/console/storage?orphans=1")
        assert re.search(r"segments</td><td class=\"n\">1</td><td class=\"n\">77 B", text)
        monkeypatch.setattr(storage, "CONSOLE_VERIFY_OBJECTS", 1)
        refused = await browser.get("/console/storage?orphans=1")
        assert (400, True) == (refused.status, "use `headwater verify`" in unescape(refused.body.decode()))

    browsing(test)


def test_the_puts_of_a_commit_are_its_topics_by_their_bytes() -> None:
    fold = Fold()
    one, two = fold.topic(name="one"), fold.topic(name="two")
    commit = replace(
        summary(fold.manifests[-1]), time_ms=1_000, merged=1, records=4, bytes=4, by_topic={one: (1, 1), two: (3, 3)}
    )
    found = flow(fold.state, [commit], 1_000 + 3_600_000 - 1, lambda _: True)
    shares = {name: (round(puts, 3), round(usd / PUT_USD, 3)) for name, _, _, puts, usd in found.topics}
    assert {"one": (0.5, 0.5), "two": (1.5, 1.5)} == shares
    assert 2 == round(found.usd_per_h / PUT_USD, 3)


def test_chunks_that_an_index_page_covers_are_counted_at_their_mean_size() -> None:
    entry = Entry(base=6, count=4, codec="arrow", seq=2, obj="o", pos=0, len=40, crc=0, min=0, max=0)
    part = Partition(next=10, bytes=100, tail=[entry])
    assert 40 + 60 == part.hot_bytes
    assert 40 == Partition(start=6, next=10, bytes=100, tail=[entry]).hot_bytes
    assert 100 == Partition(next=10, bytes=100).hot_bytes
    assert 0 == Partition().hot_bytes


def test_the_archivers_progress_counts_what_can_be_read() -> None:
    fold = Fold()
    topic = fold.topic(name="t")
    fold.done(chunk(topic=topic, count=5))
    (row,) = archiving(fold.state, lambda _: True, 1).rows
    assert (5, 0, 5) == (row.records, row.archived, row.waiting)
    assert [] == archiving(fold.state, lambda _: False, 1).rows


# -- files, numbers, charts ------------------------------------------------------------------------------------


def test_files_are_kept_for_ever_under_a_name_made_of_what_they_hold() -> None:
    async def test(browser: Browser) -> None:
        text = await browser.page("/console")
        for path in set(re.findall(r"/console/static/[0-9a-f]{16}/[a-z.]+", text)):
            found = await browser.get(path, accept="*/*")
            assert (200, True) == (found.status, "immutable" in found.headers["cache-control"])
        assert "no-store" == (await browser.get("/console/static/0/style.css")).headers["cache-control"]
        assert 404 == (await browser.get("/console/static/0/nothing.css")).status

    browsing(test)


def test_numbers_for_people() -> None:
    assert ["0 B", "1023 B", "1.0 KiB", "1,024.0 TiB"] == [size(n) for n in (0, 1_023, 1_024, 2**50)]
    assert ["–", "0.085", "12"] == [rate(n) for n in (0, 0.0849, 12.3)]
    assert ["0 s", "99 s", "2 min", "2 h", "3 d"] == [ago(n) for n in (-5, 99_000, 100_000, 7_200_000, 259_200_000)]
    assert ["$0", "< $0.0001", "$0.0015", "$1,234.50"] == [dollars(n) for n in (0, 1e-9, 0.0015, 1_234.5)]
    assert ["1970-01-01 00:00:00.001", f"{10**18} ms"] == [moment(1), moment(10**18)]


def test_pages_end_where_rows_end() -> None:
    rows = list(range(101))
    assert [100, 1] == [len(paged(rows, number).rows) for number in (1, 2)]
    assert (2, 2) == (paged(rows, 99).number, paged(rows, 99).pages)
    assert (1, []) == (paged([], 5).number, paged([], 5).rows)


def test_charts_hold_what_lies_within_and_are_as_tall_as_they_may_be() -> None:
    def commit(time_ms: int) -> Commit:
        return Commit(
            seq=1,
            time_ms=time_ms,
            writer="w",
            intents=1,
            merged=0,
            records=2,
            bytes=3,
            by_topic={},
            did=(),
            grew={},
            moved={},
        )

    found = buckets([commit(time_ms) for time_ms in (-1, 0, 99, 100)], 0, 100, 2)
    assert [(1, 2, 3), (1, 2, 3)] == found
    assert [(0.0, 0.0, 24.0, 80.0), (60.0, 80.0 - 40.0, 24.0, 40.0)] == bars([2, 0, 1], width=90, height=80)
    assert [] == bars([])


def test_the_lag_of_the_past_is_counted_back_from_now() -> None:
    """As the fold had it after each commit, from the first one that says where the group stood."""
    fold = Fold()
    topic = fold.topic(2)
    expected = []
    for step in range(6):
        fold.done(chunk(topic=topic, count=10 + step))
        if step % 2:
            fold.done(CommitOffsets(group="g", offsets=[OffsetEntry(topic, 0, 3 * step), OffsetEntry(topic, 1, 0)]))
        if "g" in fold.state.groups:
            expected.append((fold.state.seq, lags(fold.state)["g"]))
    commits = [summary(manifest) for manifest in reversed(fold.manifests)]
    found = lag_history(fold.state, fold.state.groups["g"], commits)
    assert expected == [row for row in found if row[0] in dict(expected)]
    assert expected[0][0] == found[0][0]


def test_the_owner_sees_all_but_a_key_of_narrower_scopes_does_not() -> None:
    async def main() -> None:
        async with await Namespace.open(MemoryStore()) as space:
            assert Service(space).may_all
            assert not Service(space, scopes=[AclRule("root", "read", "topic", "t")]).may_all
            assert not Service(space, principal="reader").may_all

    asyncio.run(main())


def test_what_the_process_has_measured_is_told_of_the_namespace_alone() -> None:
    meters = Meters()
    for namespace in ("default", "other"):
        meters.counter(families.COMMITS, namespace).add()
        meters.histogram(families.COMMIT_SECONDS, namespace).observe(0.1)
    for outcome in ("ok", "ok", "NotFound", "Unavailable"):
        meters.counter(families.STORE_REQUESTS, "get", "manifest", outcome).add()
    found = process(meters.snapshot(), "default")
    assert (1, 0) == (found.commits, found.lost)
    assert [("commit", 1)] == [(row.what, row.count) for row in found.latencies]
    assert [("get", 4, 1)] == [(row.kind, row.count, row.failed) for row in found.requests]
    assert [] == process(Meters().snapshot(), "default").requests


def test_a_job_is_shown_by_what_it_has_in_the_state() -> None:
    fold = Fold()
    source = fold.topic(name="in")
    fold.done(CreateTopic(name=changelog_topic("delays"), partitions=2, config={JOB: "delays"}))
    fold.done(chunk(topic=source, count=5))
    fold.done(CommitOffsets(group="delays", offsets=[OffsetEntry(source, 0, 2)]))
    (job,) = jobs(fold.state)
    assert ("delays", "stopped", ["in"], 3) == (job.name, job.state, job.sources, job.lag)
    assert [(0, "", 3, 0), (1, "", 0, 0)] == [(one.number, one.worker, one.lag, one.between) for one in job.tasks]
    assert ([], "", None) == (job.operators, job.svg, job.watermark)
    assert [] == jobs(Fold().state)


def test_what_a_job_tells_is_shown_and_drawn_and_none_of_it_is_believed_to_be_markup() -> None:
    cards = [Card(name="in", kind="Source", shape="topic"), Card(name=EVIL, kind=EVIL, note=EVIL, parents=("in",))]
    told = [
        Figures(
            at_ms=at,
            since_ms=1,
            operators={"in": Told(rows_in=5, watermark=1), EVIL: Told(state_bytes=7, watermark=at)},
        )
        for at in (2_000, 9_000)
    ]
    config = {figures_key(task): msgspec.json.encode(one).decode() for task, one in enumerate(told)}

    async def test(browser: Browser) -> None:
        config[PICTURE] = picture(cards)
        await browser.space.create_topic(changelog_topic("delays"), 2, {JOB: "delays", **config})
        (job,) = jobs(await browser.space.refresh())
        assert ["in", EVIL] == [row.name for row in job.operators]
        assert (10, 2_000, 14) == (job.operators[0].told.rows_in, job.watermark, job.state_bytes)
        assert (1, 2_000, 9_000) == (job.since_ms, job.told_first_ms, job.told_last_ms)
        page = await browser.page("/console/streams/delays")
        assert "<script>alert" not in page
        assert "1970-01-01 00:00:02.000" in page
        assert 1 == page.count('aria-label="Topology of job delays"')
        assert "<style" not in page
        assert 404 == (await browser.get("/console/streams/none")).status
        assert 'href="/console/streams/delays"' in await browser.page("/console/streams")

    browsing(test)
