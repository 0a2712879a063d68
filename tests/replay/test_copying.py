from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headwater.errors import Fenced, InvalidRequest
from headwater.log.namespace import Namespace
from headwater.log.producer import Transaction
from headwater.replay import copying
from headwater.replay.copying import COLUMNS, Copied, copy, group_of
from headwater.replay.stream import Replay, open_replay
from headwater.store.memory import MemoryStore
from tests.replay.archives import archive_all, fill


async def opened(store: MemoryStore) -> Namespace:
    return await Namespace.open(store)


async def source(log: Namespace) -> None:
    await log.create_topic("t", 2)
    await fill(log, "t", 0, 50)
    await fill(log, "t", 1, 30)
    await archive_all(log, "t", 0, 0, 20)


async def reading(log: Namespace, **options: Any) -> Replay:
    return await open_replay(log, "t", columns=COLUMNS, **options)


async def values(log: Namespace, partition: int) -> list[bytes]:
    replay = await open_replay(log, "u", partitions=[partition])
    return [value async for batch in replay.batches() for value in batch.column("value").to_pylist()]


def test_a_run_that_was_thought_dead_can_copy_nothing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "COPY_BYTES", 500)
    real = Transaction.commit

    async def main() -> None:
        store = MemoryStore()
        async with await opened(store) as first, await opened(store) as second:
            await source(first)
            overtaken = asyncio.Event()

            async def commit(self: Transaction) -> Any:
                if self.producer.namespace is first and not overtaken.is_set():
                    overtaken.set()
                    await copy(second, await reading(second), "u", "g")
                return await real(self)

            monkeypatch.setattr(Transaction, "commit", commit)
            with pytest.raises(Fenced):
                await copy(first, await reading(first), "u", "g")
            for partition, count in ((0, 50), (1, 30)):
                assert [b"v%d" % i for i in range(count)] == await values(second, partition)

    asyncio.run(main())


def test_merged_by_time_each_record_is_there_once_however_often_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "COPY_BYTES", 700)

    async def main() -> None:
        async with await opened(MemoryStore()) as log:
            await source(log)
            done: list[Copied] = []
            for end in (10, 25, None):
                places = {} if end is None else {"end": end}
                done.append(await copy(log, await reading(log, order="timestamp", **places), "u", "g"))
            assert ([20, 30, 30], [0, 20, 50]) == ([each.records for each in done], [each.before for each in done])
            for partition, count in ((0, 50), (1, 30)):
                assert [b"v%d" % i for i in range(count)] == await values(log, partition)

    asyncio.run(main())


def test_what_a_condition_leaves_out_is_not_read_again() -> None:
    async def main() -> None:
        async with await opened(MemoryStore()) as log:
            await source(log)
            condition = [("offset", "<", 5)]
            first = await copy(log, await reading(log, filter=condition), "u", "g")
            again = await copy(log, await reading(log, filter=condition), "u", "g")
            assert ((10, 0), (0, 80)) == ((first.records, first.before), (again.records, again.before))

    asyncio.run(main())


def test_a_topic_is_not_copied_into_itself() -> None:
    async def main() -> None:
        async with await opened(MemoryStore()) as log:
            await source(log)
            with pytest.raises(InvalidRequest, match="into itself"):
                await copy(log, await reading(log), "t", "g")

    asyncio.run(main())


def test_a_groups_name_follows_from_the_plan_alone() -> None:
    plan = {"topic": "t", "where": "x > 1"}
    assert group_of("u", plan) == group_of("u", dict(reversed(plan.items())))
    assert len({group_of("u", plan), group_of("v", plan), group_of("u", {**plan, "where": "x > 2"})}) == 3
