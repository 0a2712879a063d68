"""Deferred transactions: no reader waits for an open one, and all of it is there at its end, whatever happens."""

from __future__ import annotations

import random
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from kio.schema.errors import ErrorCode as E

from headwater.kafka import deferring
from headwater.kafka.deferring import Deferring
from headwater.kafka.model import Peer
from headwater.log import keys
from headwater.log.batch import batch_of_kafka2
from headwater.log.namespace import Namespace
from headwater.log.operations import DeleteTopic
from headwater.log.writer import Append
from headwater.sim.faults import Faults, SimBucket
from headwater.types import Batch
from tests.kafka.helpers_kafka_transactions import NEW, OLD, Client, committed, visible
from tests.kafka.helpers_peer import ask, peer
from tests.log.helpers import keys_under, memory, network, opened, sim_loop, simulate

PRODUCE, LIST_OFFSETS = 0, 2
VERSIONS = [OLD, NEW]


class Deferred(Client):
    """A producer that sends real Produce requests to gateways whose listeners defer."""

    async def send(self, *values: bytes, partition: int = 0, at: Peer | None = None, seq: int = -1) -> tuple[E, int]:
        first = self.sequences.get(partition, 0) if seq < 0 else seq
        records = batch(values, self.pid, self.epoch, first, transactional=True)
        part = {"index": partition, "records": records}
        topics = [{"name": "orders", "partition_data": [part]}]
        answer = await ask(
            at or self.peer, PRODUCE, 11, acks=-1, timeout=1_000, transactional_id=self.tid, topic_data=topics
        )
        row = answer["responses"][0]["partition_responses"][0]
        if row["error_code"] == E.none and seq < 0:
            self.sequences[partition] = first + len(values)
        return E(row["error_code"]), row["base_offset"]


def batch(values: tuple[bytes, ...], pid: int, epoch: int, seq: int, *, transactional: bool) -> bytes:
    """A record batch as a client makes it."""
    made = DefaultRecordBatchBuilder(2, 0, int(transactional), pid, epoch, seq, 1 << 20)
    for number, value in enumerate(values):
        made.append(number, 1_000, None, value, [])
    return bytes(made.build())


def deferred(namespace: Namespace) -> Peer:
    known = peer(namespace)
    known.deferred = True
    return known


async def begun(version: int = NEW, namespace: Namespace | None = None) -> Deferred:
    space = namespace or await opened(memory())
    if space.state.named("orders") is None:
        await space.create_topic("orders", 2)
    client = Deferred(deferred(space), version=version)
    assert E.none == await client.init()
    return client


async def read(namespace: Namespace, partition: int = 0) -> list[bytes]:
    await namespace.refresh()
    found: list[bytes] = []
    async for chunk in namespace.reader.chunks("orders", partition, 0):
        found += chunk.decode().column("value").to_pylist()
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_an_open_transaction_holds_up_nobody_and_its_end_shows_all_of_it(version: int) -> None:
    async def main() -> None:
        client = await begun(version)
        space = client.peer.namespace
        assert [(E.none, -1)] * 3 == [
            await client.send(b"a", b"b"),
            await client.send(b"c"),
            await client.send(b"d", partition=1),
        ]
        await space.append("orders", 0, plain())
        assert [b"plain"] == await read(space)
        assert E.none == await client.end()
        assert ([b"plain", b"a", b"b", b"c"], [b"d"]) == (await read(space), await read(space, 1))
        if version == OLD:
            assert E.none == await client.end()  # a repetition
        assert (E.none, -1) == await client.send(b"e")
        assert [b"plain", b"a", b"b", b"c"] == await read(space)
        assert E.none == await client.end()
        assert [b"plain", b"a", b"b", b"c", b"e"] == await read(space)

    simulate(main())


def plain() -> Batch:
    return batch_of_kafka2(batch((b"plain",), -1, -1, -1, transactional=False))


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_aborted_is_never_there_and_the_producer_goes_on(version: int) -> None:
    async def main() -> None:
        client = await begun(version)
        for rounds in range(3):
            assert (E.none, -1) == await client.send(b"no", b"no")
            assert E.none == await client.end(commit=False)
            if version == OLD:
                assert E.none == await client.end(commit=False)
            assert (E.none, -1) == await client.send(b"%d" % rounds)
            assert E.none == await client.end()
        assert [b"0", b"1", b"2"] == await read(client.peer.namespace)

    simulate(main())


@pytest.mark.parametrize("version", VERSIONS)
def test_any_gateway_serves_any_request(version: int) -> None:
    async def main() -> None:
        store = memory()
        client = await begun(version, await opened(store))
        others = [deferred(await opened(store, seed=seed)) for seed in (2, 3)]
        for number in range(6):
            assert (E.none, -1) == await client.send(b"%d" % number, at=others[number % 2])
            assert (E.none, -1) == await client.send(b"%d" % number, partition=1, at=others[(number + 1) % 2])
            if number in (2, 5):
                assert E.none == await client.end(at=client.peer if number == 2 else others[0])
        assert [b"%d" % number for number in range(6)] == await read(client.peer.namespace)
        assert [b"%d" % number for number in range(6)] == await read(client.peer.namespace, 1)

    simulate(main())


def test_a_batch_that_comes_twice_is_there_once_and_one_too_far_is_refused() -> None:
    async def main() -> None:
        client = await begun()
        assert (E.none, -1) == await client.send(b"a", seq=0)
        assert (E.none, -1) == await client.send(b"a", seq=0)
        assert E.out_of_order_sequence_number == (await client.send(b"c", seq=2))[0]
        assert (E.none, -1) == await client.send(b"b", seq=1)
        assert E.none == await client.end()
        assert [b"a", b"b"] == await read(client.peer.namespace)

    simulate(main())


@pytest.mark.parametrize("version", VERSIONS)
def test_offsets_of_a_group_and_records_become_true_together(version: int) -> None:
    async def main() -> None:
        client = await begun(version)
        await client.send(b"a")
        assert E.none == await client.move(7)
        await client.send(b"b")
        assert -1 == await committed(client.peer)
        assert 0 == visible(client.peer)
        assert E.none == await client.end()
        assert (7, 2) == (await committed(client.peer), visible(client.peer))
        await client.send(b"c")
        assert E.none == await client.move(9)
        assert E.none == await client.end(commit=False)
        assert (7, [b"a", b"b"]) == (await committed(client.peer), await read(client.peer.namespace))

    simulate(main())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_new_instance_fences_the_old_one_and_nothing_of_it_shows(version: int) -> None:
    async def main() -> None:
        client = await begun(version)
        await client.send(b"old")
        new = Deferred(client.peer, version=version)
        assert E.none == await new.init()
        assert E.invalid_producer_epoch == (await client.send(b"older"))[0]
        assert (E.none, -1) == await new.send(b"new")
        assert E.producer_fenced == await client.end()
        assert E.none == await new.end()
        assert [b"new"] == await read(client.peer.namespace)

    simulate(main())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_transaction_whose_time_was_up_fences_its_producer(version: int) -> None:
    async def main() -> None:
        client = await begun(version)
        await client.send(b"first")
        assert E.none == await client.end()
        await client.peer.namespace.chain.clock.sleep(60)  # between transactions there is no hurry
        await client.send(b"slow")
        await client.peer.namespace.chain.clock.sleep(11)  # its owner wanted 10 s
        assert E.producer_fenced == await client.end()
        assert E.none != await client.end()
        assert [b"first"] == await read(client.peer.namespace)
        assert E.none == await client.init()
        assert (E.none, -1) == await client.send(b"again")
        assert E.none == await client.end()
        assert [b"first", b"again"] == await read(client.peer.namespace)

    simulate(main())


def test_what_can_never_be_committed_is_not_said_to_be() -> None:
    async def main() -> None:
        client = await begun()
        space = client.peer.namespace
        await client.send(b"a")
        found = await space.find_topic("orders")
        await space.writer.commit(ops=[DeleteTopic(topic=found.id)])
        assert E.producer_fenced == await client.end()
        assert E.none != await client.end()

    simulate(main())


def test_a_transaction_that_outgrows_a_commit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(deferring, "INTENT_APPENDS_MAX", 2)
        client = await begun()
        assert (E.none, -1) == await client.send(b"a")
        assert (E.none, -1) == await client.send(b"b")
        assert E.invalid_record == (await client.send(b"c"))[0]
        assert E.none == await client.end(commit=False)

    simulate(main())


def test_documents_of_epochs_that_are_over_go() -> None:
    async def main() -> None:
        client = await begun(NEW)
        for number in range(3):
            await client.send(b"a")
            assert E.none == await client.end(commit=number != 1)
        space = client.peer.namespace
        assert [] == await keys_under(space.chain.store, keys.DEFERRED)

    simulate(main())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("seed", range(4))
def test_clients_that_ask_again_never_lose_or_double_anything_while_the_store_fails(version: int, seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        bucket = SimBucket(sim_loop())
        calm = await opened(network(bucket, seed=99))
        await calm.create_topic("orders", 2)
        faults = Faults.swarm(rng, timeout_s=1.0, late_s=(0.5, 5.0))
        stores = [network(bucket, seed=seed * 10 + number) for number in (1, 2)]
        gateways = [deferred(await opened(store, seed=100 + number)) for number, store in enumerate(stores)]
        client = Deferred(gateways[0], version=version)
        await client.init()
        for store in stores:
            store.set_faults(faults)
        expected: list[bytes] = []
        for number in range(8):
            values = [b"%d.%d" % (number, each) for each in range(rng.randint(1, 3))]
            for value in values:
                await surely(client, gateways, rng, value)
            commit = rng.random() < 0.7
            for _ in range(200):
                code = await client.end(commit=commit, at=rng.choice(gateways))
                if code is E.none:
                    break
                assert code in (E.coordinator_not_available, E.concurrent_transactions), code
            expected += values if commit else []
        for store in stores:
            store.set_faults(Faults())
        assert expected == await read(calm)

    simulate(main())


async def surely(client: Deferred, gateways: list[Peer], rng: random.Random, value: bytes) -> None:
    """Send one record until it is acknowledged, to whichever gateway."""
    first = client.sequences.get(0, 0)
    for _ in range(200):
        code, _ = await client.send(value, at=rng.choice(gateways), seq=first)
        if code is E.none:
            client.sequences[0] = first + 1
            return
        assert code in (E.not_enough_replicas, E.not_enough_replicas_after_append), code
    raise AssertionError("never acknowledged")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("wrote", [True, False])
@pytest.mark.parametrize("commit", [True, False])
def test_an_end_that_could_not_be_noted_is_finished_by_the_next_transaction(
    monkeypatch: pytest.MonkeyPatch, first: bool, wrote: bool, commit: bool
) -> None:
    async def main() -> None:
        client = await begun(OLD)

        async def lost(_: Any, held: Any, __: Any) -> Any:
            return held

        with monkeypatch.context() as patched:
            patched.setattr(deferring, "record", lost)
            await client.send(b"first")
            assert E.none == await client.end(commit=first)
        assert [E.none] == await client.add({"orders": [0]})
        if wrote:
            assert (E.none, -1) == await client.send(b"second")
        assert E.none == await client.end(commit=commit)
        expected = [b"first"] * first + [b"second"] * (wrote and commit)
        assert expected == await read(client.peer.namespace)

    simulate(main())


def test_a_client_that_goes_away_holds_up_nobody() -> None:
    async def main() -> None:
        client = await begun()
        space = client.peer.namespace
        found = await space.find_topic("orders")
        gone, stays = (
            space.shared(Deferring).begin(
                "t",
                [Append(topic=found.id, partition=0, batch=batch_of_kafka2(records))],
            )
            for records in (batch((b"%d" % seq,), client.pid, client.epoch, seq, transactional=True) for seq in (0, 1))
        )
        gone.cancel()
        await stays
        client.sequences[0] = 2
        assert (E.none, -1) == await client.send(b"2")
        assert E.none == await client.end()
        assert [b"0", b"1", b"2"] == await read(space)

    simulate(main())


def test_both_kinds_of_listener_may_serve_one_transaction() -> None:
    async def main() -> None:
        client = await begun()
        reserved = peer(client.peer.namespace)
        await client.send(b"a")
        code, offset = await client.send(b"b", partition=1, at=reserved)
        assert (E.none, 0) == (code, offset)
        assert E.none == await client.end()
        assert ([b"a"], [b"b"]) == (await read(client.peer.namespace), await read(client.peer.namespace, 1))

    simulate(main())


def test_nothing_is_kept_of_transactions_that_others_end() -> None:
    async def main() -> None:
        client = await begun()
        await client.send(b"a")
        assert 1 == len(client.peer.namespace.shared(Deferring)._queues)
        assert E.none == await client.end()
        assert 0 == len(client.peer.namespace.shared(Deferring)._queues)

    simulate(main())
