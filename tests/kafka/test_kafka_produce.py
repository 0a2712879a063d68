"""Produce fails for the partition that is wrong, and for no other, whatever is on its way behind it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from kio.schema.errors import ErrorCode

from headwater.errors import Indeterminate, Unavailable
from headwater.kafka.model import Later, Peer, Request, Soon
from headwater.log import kafka2
from headwater.log.namespace import Namespace
from headwater.log.state import fold
from headwater.store.memory import MemoryStore
from tests.kafka.helpers_peer import ask, handled, peer, whole

PRODUCE, INIT_PRODUCER_ID = 0, 22


def batch(producer: int, sequence: int, count: int = 1, epoch: int = 0) -> bytes:
    records = b"".join(b"\x10\x00\x00" + bytes([2 * n]) + b"\x01\x02v\x00" for n in range(count))
    return kafka2.pack(
        records,
        count=count,
        first_timestamp=1,
        max_timestamp=1,
        producer_id=producer,
        producer_epoch=epoch if producer >= 0 else -1,
        sequence=sequence if producer >= 0 else -1,
    )


def wanted(parts: dict[int, bytes], topic: str = "orders") -> Request:
    rows = [{"index": index, "records": memoryview(data)} for index, data in parts.items()]
    fields = {
        "transactional_id": None,
        "acks": -1,
        "timeout": 1_000,
        "topic_data": [{"name": topic, "topic_id": bytes(16), "partition_data": rows}],
    }
    return Request(api=PRODUCE, version=9, correlation=1, client="test", fields=fields)


async def begun(known: Peer, request: Request) -> Any:
    """The request as a connection begins it: its answer comes later."""
    answer = await handled(known, request)
    assert isinstance(answer, Later | Soon)
    return asyncio.ensure_future(whole(answer))


def codes(answer: Any) -> list[tuple[int, ErrorCode, int]]:
    return [
        (row["index"], ErrorCode(row["error_code"]), row["base_offset"])
        for topic in answer["responses"]
        for row in topic["partition_responses"]
    ]


async def opened() -> tuple[Namespace, Peer, int]:
    namespace = await Namespace.open(MemoryStore())
    await namespace.create_topic("orders", 2)
    known = peer(namespace)
    producer = (await ask(known, INIT_PRODUCER_ID, transactional_id=None))["producer_id"]
    return namespace, known, producer


def test_a_partition_that_is_refused_fails_alone() -> None:
    async def main() -> None:
        _, known, producer = await opened()
        answer = await (await begun(known, wanted({0: batch(producer, 7), 1: batch(producer, 0)})))
        assert [(0, ErrorCode.out_of_order_sequence_number, -1), (1, ErrorCode.none, 0)] == codes(answer)

    asyncio.run(main())


def test_a_request_behind_one_that_is_tried_again_comes_behind_it() -> None:
    async def main() -> None:
        namespace, known, producer = await opened()
        first = await begun(known, wanted({0: batch(producer, 7), 1: batch(producer, 0)}))
        behind = await begun(known, wanted({1: batch(producer, 1)}))
        assert [(0, ErrorCode.out_of_order_sequence_number, -1), (1, ErrorCode.none, 0)] == codes(await first)
        assert [(1, ErrorCode.none, 1)] == codes(await behind)
        assert 2 == namespace.topic("orders").partitions[1].next

    asyncio.run(main())


def test_a_repeated_batch_is_told_where_it_lies() -> None:
    async def main() -> None:
        namespace, known, producer = await opened()
        for _ in range(2):
            answer = await (await begun(known, wanted({0: batch(producer, 0, count=3)})))
            assert [(0, ErrorCode.none, 0)] == codes(answer)
        assert 3 == namespace.topic("orders").partitions[0].next

    asyncio.run(main())


def test_an_append_whose_outcome_nobody_knows_is_asked_for_again_under_its_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        namespace, known, producer = await opened()
        begin = namespace.writer.begin
        landed: list[Any] = []

        def silent(appends: Any, wishes: Any, *, caller: Any, told: Any) -> Any:
            landed.append(begin(appends, wishes, caller=caller, told=told))
            lost = asyncio.get_running_loop().create_future()
            (intent,) = namespace.writer.committer.queue._unanswered
            landed[0].add_done_callback(
                lambda _: lost.set_exception(Indeterminate("The store fell silent.", token=f"{intent}@1"))
            )
            return lost

        monkeypatch.setattr(namespace.writer, "begin", silent)
        answer = await (await begun(known, wanted({0: batch(producer, 0)})))
        assert [(0, ErrorCode.none, 0)] == codes(answer)
        assert 1 == len(landed) == namespace.topic("orders").partitions[0].next
        await namespace.close()

    asyncio.run(main())


def test_an_unknown_topic_or_partition_is_an_error_of_its_own() -> None:
    async def main() -> None:
        _, known, _ = await opened()
        answer = await handled(known, wanted({0: batch(-1, -1)}, topic="nowhere"))
        assert [(0, ErrorCode.unknown_topic_or_partition, -1)] == codes(answer)
        answer = await handled(known, wanted({9: batch(-1, -1)}))
        assert [(9, ErrorCode.unknown_topic_or_partition, -1)] == codes(answer)

    asyncio.run(main())


def test_what_another_gateway_has_just_made_is_looked_for_before_it_is_denied() -> None:
    """A gateway that nobody asked for metadata denied a topic for ever, which Metadata elsewhere said was led by it."""

    async def main() -> None:
        store = MemoryStore()
        here, there = await Namespace.open(store, "default"), await Namespace.open(store, "default")
        await there.create_topic("orders", partitions=1)
        known = peer(here)
        assert [(0, ErrorCode.none, 0)] == codes(await (await begun(known, wanted({0: batch(-1, -1)}))))
        await there.add_partitions("orders", 2)
        answer = await (await begun(known, wanted({0: batch(-1, -1), 1: batch(-1, -1)})))
        assert [(0, ErrorCode.none, 1), (1, ErrorCode.none, 0)] == codes(answer)
        await here.close()
        await there.close()

    asyncio.run(main())


def test_a_store_that_cannot_be_asked_denies_no_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        namespace, known, _ = await opened()

        async def away() -> Any:
            raise Unavailable("503 Slow Down, planted.")

        monkeypatch.setattr(namespace, "refresh", away)
        answer = await handled(known, wanted({0: batch(-1, -1)}, topic="nowhere"))
        assert [(0, ErrorCode.not_enough_replicas, -1)] == codes(answer)
        answer = await (await begun(known, wanted({0: batch(-1, -1), 9: batch(-1, -1)})))
        assert [(0, ErrorCode.none, 0), (9, ErrorCode.not_enough_replicas, -1)] == codes(answer)
        await namespace.close()

    asyncio.run(main())


@pytest.mark.parametrize("epoch", [1, 3, 1_000, 32_766])
def test_an_idempotent_producer_gives_itself_its_next_epoch(epoch: int) -> None:
    """After a batch that it has given up, without asking anybody; it was refused for ever."""

    async def main() -> None:
        namespace, known, producer = await opened()
        await (await begun(known, wanted({0: batch(producer, 0)})))
        first = await begun(known, wanted({0: batch(producer, 0, epoch=epoch), 1: batch(producer, 0, epoch=epoch)}))
        second = await begun(known, wanted({0: batch(producer, 1, epoch=epoch)}))
        assert [(0, ErrorCode.none, 1), (1, ErrorCode.none, 0)] == codes(await first)
        assert [(0, ErrorCode.none, 2)] == codes(await second)
        again = await (await begun(known, wanted({0: batch(producer, 0, epoch=epoch)})))
        assert [(0, ErrorCode.none, 1)] == codes(again)
        late = await (await begun(known, wanted({0: batch(producer, 1)})))
        assert [(0, ErrorCode.invalid_producer_epoch, -1)] == codes(late)
        assert [3, 1] == [part.next for part in namespace.state.topics[1].partitions]
        await namespace.close()

    asyncio.run(main())


def test_requests_that_begin_an_epoch_at_once_and_at_two_gateways_are_all_taken() -> None:
    async def main() -> None:
        namespace, known, producer = await opened()
        other = peer(await Namespace.open(namespace.bucket))
        under_way = [
            await begun(known, wanted({0: batch(producer, 0, epoch=1)})),
            await begun(known, wanted({1: batch(producer, 0, epoch=1)})),
            await begun(known, wanted({0: batch(producer, 1, epoch=1)})),
        ]
        answers = [codes(await each) for each in under_way]
        ok = ErrorCode.none
        assert [[(0, ok, 0)], [(1, ok, 0)], [(0, ok, 1)]] == answers
        elsewhere = await (await begun(other, wanted({1: batch(producer, 0, epoch=2)})))
        assert [(1, ok, 1)] == codes(elsewhere)
        behind = await (await begun(known, wanted({0: batch(producer, 0, epoch=2)})))
        assert [(0, ok, 2)] == codes(behind)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("epoch", "sequence", "code"),
    [(32_767, 0, ErrorCode.invalid_producer_epoch), (1, 5, ErrorCode.out_of_order_sequence_number)],
)
def test_an_epoch_that_cannot_be_or_does_not_begin_is_refused(epoch: int, sequence: int, code: ErrorCode) -> None:
    async def main() -> None:
        _, known, producer = await opened()
        assert [(0, ErrorCode.none, 0)] == codes(await (await begun(known, wanted({0: batch(producer, 0)}))))
        answer = await (await begun(known, wanted({0: batch(producer, sequence, epoch=epoch)})))
        assert [(0, code, -1)] == codes(answer)

    asyncio.run(main())


def test_what_is_under_way_elsewhere_is_taken_when_a_producer_gives_itself_an_epoch() -> None:
    """A new epoch in one partition fenced the batches of all others, which Java's producers do not send again."""

    async def main() -> None:
        _, known, producer = await opened()
        ok, over = ErrorCode.none, ErrorCode.invalid_producer_epoch
        for sent, expected in (
            ({0: batch(producer, 0), 1: batch(producer, 0)}, [(0, ok, 0), (1, ok, 0)]),
            ({0: batch(producer, 0, epoch=1)}, [(0, ok, 1)]),
            ({1: batch(producer, 1)}, [(1, ok, 1)]),
            ({1: batch(producer, 1)}, [(1, ok, 1)]),
            ({0: batch(producer, 1)}, [(0, over, -1)]),
            ({1: batch(producer, 0, epoch=1)}, [(1, ok, 2)]),
            ({1: batch(producer, 2)}, [(1, over, -1)]),
        ):
            assert expected == codes(await (await begun(known, wanted(sent))))

    asyncio.run(main())


def test_a_transactional_producer_does_not_give_itself_epochs() -> None:
    async def main() -> None:
        _, known, _ = await opened()
        producer = (await ask(known, INIT_PRODUCER_ID, transactional_id="t", transaction_timeout=1_000))["producer_id"]
        answer = await (await begun(known, wanted({0: batch(producer, 0, epoch=1)})))
        assert [(0, ErrorCode.invalid_producer_epoch, -1)] == codes(answer)

    asyncio.run(main())


def test_records_without_a_key_are_named_to_who_sends_them_to_a_compacted_topic() -> None:
    """librdkafka's own suite sends a hundred, of which ten have no key, and blames those ten alone (KIP-467)."""

    async def main() -> None:
        namespace = await Namespace.open(MemoryStore())
        await namespace.create_topic("orders", 1, {"cleanup.policy": "compact"})
        keys = [b"\x02k", b"\x01", b"\x02k", b"\x01", b"\x02k"]
        records = [b"\x00\x00" + bytes([2 * row]) + key + b"\x02v\x00" for row, key in enumerate(keys)]
        framed = b"".join(bytes([2 * len(record)]) + record for record in records)
        sent = kafka2.pack(framed, count=len(keys), first_timestamp=1, max_timestamp=1)
        answers = await ask(peer(namespace), PRODUCE, 9, **wanted({0: sent}).fields)
        (answer,) = answers["responses"][0]["partition_responses"]
        assert ErrorCode.invalid_record is ErrorCode(answer["error_code"])
        assert [1, 3] == [each["batch_index"] for each in answer["record_errors"]]
        assert "no key" in answer["record_errors"][0]["batch_index_error_message"]
        await namespace.close()

    asyncio.run(main())


def test_a_producer_that_was_forgotten_goes_on_under_its_id_and_is_repeated_in_vain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It never wrote again: librdkafka's and Java's producers do not ask for another id after a week of silence."""
    monkeypatch.setattr(fold, "PRODUCERS_MAX", 1)

    async def main() -> None:
        _, known, producer = await opened()
        ok, wrong = ErrorCode.none, ErrorCode.out_of_order_sequence_number
        assert [(0, ok, 0)] == codes(await (await begun(known, wanted({0: batch(producer, 0)}))))
        await ask(known, INIT_PRODUCER_ID, transactional_id=None)
        assert producer not in known.namespace.state.producers
        asked = [batch(producer, 1), batch(producer, 2), batch(producer, 2), batch(producer, 4)]
        under_way = [await begun(known, wanted({0: each})) for each in asked]
        assert [[(0, ok, 1)], [(0, ok, 2)], [(0, ok, 2)], [(0, wrong, -1)]] == [codes(await each) for each in under_way]
        assert [(1, ok, 0)] == codes(await (await begun(known, wanted({1: batch(producer, 9)}))))
        never = await (await begun(known, wanted({0: batch(producer + 99, 0)})))
        assert [(0, ErrorCode.unknown_producer_id, -1)] == codes(never)

    asyncio.run(main())


def test_a_producer_that_is_forgotten_while_its_batch_is_under_way_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fold, "PRODUCERS_MAX", 1)

    async def main() -> None:
        namespace, known, producer = await opened()
        elsewhere = await Namespace.open(namespace.bucket)
        await ask(peer(elsewhere), INIT_PRODUCER_ID, transactional_id=None)
        assert producer in namespace.state.producers, "this gateway has not heard of it yet"
        assert [(0, ErrorCode.none, 0)] == codes(await (await begun(known, wanted({0: batch(producer, 3)}))))

    asyncio.run(main())


def test_a_producer_goes_on_counting_when_its_topic_is_deleted_and_made_again() -> None:
    async def main() -> None:
        namespace, known, producer = await opened()
        ok, wrong = ErrorCode.none, ErrorCode.out_of_order_sequence_number
        assert [(0, ok, 0)] == codes(await (await begun(known, wanted({0: batch(producer, 0)}))))
        await namespace.delete_topic("orders")
        await namespace.create_topic("orders", 2)
        for sequence, expected in ((1, (0, ok, 0)), (2, (0, ok, 1)), (1, (0, ok, 0)), (7, (0, wrong, -1))):
            assert [expected] == codes(await (await begun(known, wanted({0: batch(producer, sequence)}))))
        assert [(1, wrong, -1)] == codes(await (await begun(known, wanted({1: batch(producer, 1)}))))

    asyncio.run(main())
