"""The service over a bucket in memory: what every verb does for somebody who may do everything."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from headwater.api.service import Service
from headwater.api.verbs import GroupOffset, GroupOffsets, OffsetAt, PartitionInfo, ProducerId, Verbs
from headwater.errors import AlreadyExists, Conflict, Fenced, InvalidRequest, NotFound, OffsetOutOfRange
from headwater.log.batch import batch_of_records
from headwater.log.outcomes import KeyReused, UnknownProducer
from headwater.types import Batch, Record
from tests.log.helpers import blob, memory, opened, simulate


async def service(store: Any = None, **options: Any) -> Service:
    """A service of ``root``, unless told otherwise, in a process of its own."""
    seed = options.pop("seed", 1)
    return Service(await opened(store if store is not None else memory(), seed=seed), **options)


def records(*values: bytes, at: int = 1_000) -> Batch:
    return batch_of_records(
        [Record(value=value, timestamp=at + i) for i, value in enumerate(values)], default_timestamp=0
    )


def test_the_service_has_every_verb() -> None:
    async def main() -> None:
        found: Verbs = await service()
        assert "ns" == found.namespace
        assert "Service('ns', principal='root')" == repr(found)
        await found.aclose()

    simulate(main())


# -- topics --------------------------------------------------------------------------------------------


def test_a_topic_is_made_listed_changed_trimmed_and_deleted() -> None:
    async def main() -> None:
        one = await service()
        made = await one.create_topic("t", 2, {"retention.ms": "1000"})
        assert ("t", {"retention.ms": "1000"}) == (made.name, made.config)
        assert [PartitionInfo(partition=p, log_start=0, end=0, stable_end=0) for p in range(2)] == made.partitions
        await one.create_topic("a")
        assert ["a", "t"] == [topic.name for topic in await one.topics()]
        await one.add_partitions("t", 3)
        await one.alter_topic("t", {"retention.ms": None, "k": "v"})
        found = await one.topic("t")
        assert (3, {"k": "v"}) == (len(found.partitions), found.config)
        await one.produce([("t", 0, blob(5))])
        assert 2 == await one.delete_records("t", 0, 2)
        assert 2 == await one.delete_records("t", 0, 1)
        assert 5 == await one.delete_records("t", 0, -1)
        with pytest.raises(InvalidRequest):
            await one.delete_records("t", 0, 6)
        await one.delete_topic("t")
        with pytest.raises(NotFound):
            await one.topic("t")

    simulate(main())


def test_offsets_are_found_at_both_ends_and_by_time() -> None:
    async def main() -> None:
        one = await service()
        await one.create_topic("t")
        await one.produce([("t", 0, records(b"a", b"b", b"c"))])
        await one.delete_records("t", 0, 1)
        assert OffsetAt(offset=1) == await one.offset_of("t", 0, "earliest")
        assert OffsetAt(offset=3) == await one.offset_of("t", 0)
        assert OffsetAt(offset=2, timestamp=1_002) == await one.offset_of("t", 0, 1_002)
        assert OffsetAt(offset=3) == await one.offset_of("t", 0, 9_999)

    simulate(main())


# -- writing -------------------------------------------------------------------------------------------


def test_batches_for_many_partitions_are_appended_by_one_commit() -> None:
    async def main() -> None:
        one = await service()
        await one.create_topic("t", 2)
        done = await one.produce([("t", 0, blob(2)), ("t", 1, blob(3)), ("t", 0, blob(1))])
        assert [(0, 0, 2), (1, 0, 3), (0, 2, 1)] == [(a.partition, a.base_offset, a.count) for a in done]
        assert 1 == len({a.commit for a in done})
        with pytest.raises(NotFound):
            await one.produce([("t", 0, blob()), ("t", 2, blob())])
        assert 3 == (await one.offset_of("t", 0)).offset

    simulate(main())


def test_a_key_does_a_request_once_and_a_repetition_gets_its_first_answer() -> None:
    async def main() -> None:
        store = memory()
        one, two = await service(store), await service(store, seed=2)
        await one.create_topic("t", 2)
        first = await one.produce([("t", 0, blob(2))], once="k", request="r")
        await one.produce([("t", 0, blob())])
        again = await two.produce([("t", 0, blob(2, fill=9))], once="k", request="r")
        assert list(first) == list(again)
        for other in ([("t", 1, blob(2))], [("t", 0, blob(1))]):
            with pytest.raises(KeyReused) as refused:
                await one.produce(other, once="k", request="r")
            assert "'k'" in refused.value.message
        with pytest.raises(KeyReused):
            await one.produce([("t", 0, blob(2))], once="k", request="s")
        assert 3 == (await one.offset_of("t", 0)).offset

    simulate(main())


def test_without_a_fingerprint_the_bytes_are_the_request() -> None:
    async def main() -> None:
        one = await service()
        await one.create_topic("t")
        first = await one.produce([("t", 0, blob(fill=1))], once="k")
        assert list(first) == list(await one.produce([("t", 0, blob(fill=1))], once="k"))
        with pytest.raises(KeyReused):
            await one.produce([("t", 0, blob(fill=2))], once="k")

    simulate(main())


def test_keys_of_one_principal_mean_nothing_for_another() -> None:
    async def main() -> None:
        store = memory()
        one, two = await service(store, principal="a"), await service(store, principal="b", seed=2)
        await one.create_topic("t")
        await one.produce([("t", 0, blob())], once="k", request="r")
        assert 1 == (await two.produce([("t", 0, blob())], once="k", request="s"))[0].base_offset

    simulate(main())


def test_a_sequence_that_is_sent_twice_lands_once() -> None:
    async def main() -> None:
        one = await service()
        await one.create_topic("t")
        who = await one.init_producer()
        batch = blob(2, producer_id=who.id, producer_epoch=who.epoch, sequence=0)
        first = await one.produce([("t", 0, batch)])
        assert 0 == first[0].base_offset == (await one.produce([("t", 0, batch)]))[0].base_offset
        assert 2 == (await one.offset_of("t", 0)).offset
        renewed = await one.init_producer(current=who)
        assert (who.id, who.epoch + 1) == (renewed.id, renewed.epoch)
        with pytest.raises(Fenced):
            await one.produce([("t", 0, replace(batch, sequence=2))])
        with pytest.raises(UnknownProducer):
            await one.produce([("t", 0, replace(batch, producer_id=99))])

    simulate(main())


def test_a_transaction_is_one_commit_and_fences_its_predecessors() -> None:
    async def main() -> None:
        one = await service()
        await one.create_topic("t", 2)
        old = await one.init_producer("tid")
        who = await one.init_producer("tid")
        assert (old.id, old.epoch + 1, "tid") == (who.id, who.epoch, who.transactional_id)
        offsets = GroupOffsets(group="g", offsets={("t", 0): GroupOffset(offset=7, metadata="m")})
        with pytest.raises(Fenced):
            await one.transact(old, [("t", 0, blob())], [offsets])
        assert {} == await one.committed("g")
        done = await one.transact(who, [("t", 0, blob(2)), ("t", 1, blob(3))], [offsets])
        assert [(0, 0, 2), (1, 0, 3)] == [(a.partition, a.base_offset, a.count) for a in done.appended]
        assert {done.commit} == {a.commit for a in done.appended}
        assert ProducerId(id=who.id, epoch=who.epoch + 1, transactional_id="tid") == done.producer
        assert (7, "m") == ((await one.committed("g"))[("t", 0)].offset, (await one.committed("g"))[("t", 0)].metadata)
        with pytest.raises(Fenced):
            await one.transact(who, [("t", 0, blob())])

    simulate(main())


def test_a_transaction_needs_a_transactional_id_of_its_own() -> None:
    async def main() -> None:
        one = await service()
        await one.create_topic("t")
        plain, mine = await one.init_producer(), await one.init_producer("mine")
        with pytest.raises(InvalidRequest):
            await one.transact(plain, [("t", 0, blob())])
        with pytest.raises(InvalidRequest):
            await one.begin(plain)
        with pytest.raises(UnknownProducer):
            await one.transact(ProducerId(id=99, epoch=0), [("t", 0, blob())])
        for tid in ("", "other"):
            with pytest.raises(InvalidRequest):
                await one.init_producer(tid, current=mine)

    simulate(main())


# -- reading -------------------------------------------------------------------------------------------


def test_what_was_appended_is_fetched_and_a_poll_waits_for_it() -> None:
    async def main() -> None:
        one = await service()
        await one.create_topic("t")
        empty = await one.fetch("t", 0, 0, wait_ms=200)
        assert ([], 0) == (empty.chunks, empty.next_offset)
        await one.produce([("t", 0, blob(2, fill=5))])
        found = await one.fetch("t", 0, 0)
        assert ([bytes([5]) * 10], 2, 2) == ([c.data for c in found.chunks], found.next_offset, found.high_watermark)
        with pytest.raises(OffsetOutOfRange):
            await one.fetch("t", 0, 3)

    simulate(main())


def test_as_of_a_commit_the_log_ends_where_it_ended_then() -> None:
    async def main() -> None:
        one = await service()
        await one.create_topic("t")
        first = (await one.produce([("t", 0, blob(2))]))[0]
        await one.produce([("t", 0, blob(3))])
        then = await one.fetch("t", 0, 0, as_of=first.commit)
        assert ([0], 2, 2, first.commit) == (
            [c.base for c in then.chunks],
            then.next_offset,
            then.high_watermark,
            then.commit,
        )
        assert [] == (await one.fetch("t", 0, 2, as_of=first.commit, wait_ms=60_000)).chunks
        with pytest.raises(OffsetOutOfRange):
            await one.fetch("t", 0, 3, as_of=first.commit)
        with pytest.raises(NotFound):
            await one.fetch("t", 0, 0, as_of=0)
        with pytest.raises(NotFound):
            await one.fetch("t", 0, 0, as_of=99)

    simulate(main())


# -- groups --------------------------------------------------------------------------------------------


def test_a_group_commits_offsets_and_shows_how_far_behind_it_is() -> None:
    async def main() -> None:
        one = await service()
        await one.create_topic("t")
        await one.produce([("t", 0, blob(5))])
        await one.commit_offsets(GroupOffsets(group="g", offsets={("t", 0): GroupOffset(offset=2)}))
        assert 2 == (await one.committed("g"))[("t", 0)].offset
        assert [("g", "t", 0, 2, 5, 3)] == [
            (row.group, row.topic, row.partition, row.committed, row.end, row.lag) for row in await one.lag()
        ]
        assert await one.lag() == await one.lag("g")
        assert ["g"] == [found.group for found in await one.groups()]
        assert "Empty" == (await one.group("g")).state
        await one.delete_offsets("g", [("t", 0)])
        assert {} == await one.committed("g")
        await one.delete_group("g")
        assert [] == await one.groups()
        for call in (one.group("g"), one.lag("g"), one.delete_group("g")):
            with pytest.raises(NotFound):
                await call

    simulate(main())


def test_a_member_joins_owns_commits_and_leaves() -> None:
    async def main() -> None:
        one = await service()
        await one.create_topic("t", 2)
        told = await one.heartbeat("g", "m", topics=["t"], joining=True)
        assert {("t", 0), ("t", 1)} == set(told.owned)
        mine = {("t", 0): GroupOffset(offset=1)}
        await one.commit_offsets(GroupOffsets(group="g", member="m", generation=told.epoch, offsets=mine))
        for busy in (one.delete_group("g"), one.delete_offsets("g", [("t", 0)])):
            with pytest.raises(Conflict):
                await busy
        await one.leave("g", "m")
        with pytest.raises(Fenced):
            await one.commit_offsets(GroupOffsets(group="g", member="m", generation=told.epoch, offsets=mine))
        assert 1 == (await one.committed("g"))[("t", 0)].offset

    simulate(main())


# -- audit ---------------------------------------------------------------------------------------------


async def audited(one: Service) -> list[dict[str, Any]]:
    """The records of the audit topic, oldest first."""
    try:
        found = await one.fetch("__audit", 0, 0)
    except NotFound:
        return []
    return [json.loads(value) for chunk in found.chunks for value in chunk.decode().column("value").to_pylist()]


def test_a_change_and_its_record_are_one_commit_and_a_refused_change_leaves_none() -> None:
    async def main() -> None:
        store = memory()
        one = await service(store, principal="ann", host="10.0.0.1")
        made = await one.create_topic("t", 2)
        (record,) = await audited(await service(store, seed=2))
        assert ("ann", "10.0.0.1", "create", "topic", "t", {"config": {}, "partitions": 2}) == (
            record["principal"],
            record["host"],
            record["action"],
            record["resource"],
            record["name"],
            record["details"],
        )
        found = await (root := await service(store, seed=2)).fetch("__audit", 0, 0)
        assert made.commit == found.commit
        assert {"retention.ms": str(90 * 86_400_000)} == (await root.topic("__audit")).config
        with pytest.raises(AlreadyExists):
            await one.create_topic("t")
        assert 1 == len(await audited(root))

    simulate(main())
