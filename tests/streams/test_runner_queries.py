"""Interactive queries: a store asked in process, over HTTP, of another worker, and as it was."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import aiohttp
import pytest

from headwater.errors import InvalidRequest, NotFound
from headwater.log.namespace import Namespace
from headwater.store.memory import MemoryStore
from headwater.streams.runner import asking
from headwater.streams.runner.app import App, WorkerOptions, run_once
from headwater.streams.runner.queries import Misdirected
from headwater.upkeep.offload import inline
from tests.log.helpers import simulate
from tests.streams import helpers_runner as h


async def found(app: App) -> dict[str, tuple[int, int]]:
    rows = (await app.store("forever").frame()).to_dicts()
    return {row["k"]: (row["n"], row["total"]) for row in rows}


def test_a_store_answers_for_a_key_and_for_all_and_as_it_was() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)
        first = h.events(random.Random(1), 40)
        await h.put(namespace, 0, first)
        commit = (await h.once(namespace)).commit
        second = h.events(random.Random(2), 40)
        await h.put(namespace, 1, second)
        app = await App.start(h.job(), namespace, h.OPTIONS)
        await h.until(lambda: len(app.worker.tasks) == 2 and all(t.is_running for t in app.worker.tasks.values()))
        await asyncio.sleep(5)

        assert "forever" in app.stores()
        expected = h.expected_latest(first + second)
        assert expected == await found(app)
        for key, (n, total) in expected.items():
            (row,) = await app.store("forever").get(key)
            assert (n, total) == (row["n"], row["total"])
        assert [] == await app.store("forever").get("nobody")
        was = (await app.store("forever").as_of(commit)).to_dicts()
        assert h.expected_latest(first) == {row["k"]: (row["n"], row["total"]) for row in was}
        (one,) = (await app.store("forever").as_of(commit, "k1")).to_dicts()
        assert h.expected_latest(first)["k1"] == (one["n"], one["total"])
        await app.stop()

    simulate(main())


def test_questions_that_make_no_sense_are_refused() -> None:
    async def main() -> None:
        namespace = await h.bucket(1)
        app = await App.start(h.job(), namespace, h.OPTIONS)
        await h.until(lambda: len(app.worker.tasks) == 1 and app.worker.tasks[0].is_running)
        with pytest.raises(NotFound, match=r"has no store 'nothing'; it has .*forever"):
            app.store("nothing")
        with pytest.raises(InvalidRequest, match="asked by k"):
            await app.store("forever").get()
        with pytest.raises(InvalidRequest):
            await app.store("forever").get("a", "b")
        await app.stop()

    simulate(main())


def test_a_key_that_another_worker_has_is_answered_with_its_name() -> None:
    async def main() -> None:
        namespace = await h.bucket(2)
        await h.put(namespace, 0, h.events(random.Random(3), 40))
        apps = [
            await App.start(
                h.job(),
                await h.another(namespace, 10 + n),
                WorkerOptions(offload=inline, address=f"http://worker{n}:1"),
            )
            for n in range(2)
        ]
        await h.until(lambda: all(len(app.worker.tasks) == 1 for app in apps))
        await asyncio.sleep(20)
        for key in h.expected_latest(h.events(random.Random(3), 40)):
            answers = []
            for app in apps:
                try:
                    answers.append(len(await app.store("forever").get(key)))
                except Misdirected as error:
                    answers.append(error.data["address"])
            assert 1 in answers
            owner = answers.index(1)
            assert f"http://worker{owner}:1" == answers[1 - owner]
        for app in apps:
            await app.stop()

    simulate(main())


# -- over HTTP, on real sockets ---------------------------------------------------------------------------


async def _get(session: aiohttp.ClientSession, url: str) -> tuple[int, Any]:
    async with session.get(url) as response:
        return response.status, await response.json()


def test_workers_answer_over_http_and_send_each_other_s_keys_on() -> None:
    async def main() -> None:
        store = MemoryStore()
        namespace = await Namespace.open(store, "ns")
        await h.topics(namespace, 2)
        rows = h.events(random.Random(4), 40)
        await h.put(namespace, 0, rows)
        commit = (await run_once(h.job(), namespace, options=h.OPTIONS)).commit
        apps = [
            await App.start(h.job(), await Namespace.open(store, "ns"), h.OPTIONS, listen="127.0.0.1:0")
            for _ in range(2)
        ]
        async with asyncio.timeout(30):
            while not all(len(app.worker.tasks) == 1 and _running(app) for app in apps):
                await asyncio.sleep(0.05)
        expected = h.expected_latest(rows)
        async with aiohttp.ClientSession() as session:
            base = apps[0].address
            status, document = await _get(session, f"{base}/stores")
            assert (200, "job", 2) == (status, document["job"], document["tasks"])
            assert ["k"] == next(each["keys"] for each in document["stores"] if each["name"] == "forever")
            statuses = set()
            for key in expected:
                status, document = await _get(session, f"{base}/stores/forever?key={key}")
                statuses.add(status)
                if status == 421:
                    assert apps[1].address == document["address"]
            assert {200, 421} == statuses
            status, document = await _get(session, f"{base}/stores/forever?as_of={commit}&limit=2")
            assert (200, 2) == (status, len(document["rows"]))
            assert 404 == (await _get(session, f"{base}/stores/nothing"))[0]
            assert 400 == (await _get(session, f"{base}/stores/forever?limit=many"))[0]
            status, document = await _get(session, f"{base}/metrics.json")
            assert (200, "job") == (status, document["job"])
            assert (200, "ok") == ((await _get(session, f"{base}/health"))[0], "ok")
        for key, (n, total) in expected.items():
            (row,) = await asking.rows(namespace, "job", "forever", [key])
            assert (n, total) == (row["n"], row["total"])
        everything = await asking.rows(namespace, "job", "forever")
        assert expected == {row["k"]: (row["n"], row["total"]) for row in everything}
        with pytest.raises(NotFound):
            await asking.rows(namespace, "job", "nothing", ["a"])
        for app in apps:
            await app.stop()
            await app.worker.namespace.close()
        await namespace.close()

    asyncio.run(main())


def _running(app: App) -> bool:
    return all(task.is_running for task in app.worker.tasks.values())


def test_asking_a_job_without_a_server_says_how_to_start_one() -> None:
    async def main() -> None:
        namespace = await h.bucket(1)
        with pytest.raises(NotFound, match="--listen"):
            await asking.rows(namespace, "job", "forever", ["a"])

    simulate(main())
