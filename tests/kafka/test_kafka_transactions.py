"""Every case of transactions through the handlers, as on the wire; real clients have a file of their own."""

from __future__ import annotations

import pytest
from kio.schema.errors import ErrorCode as E

from headwater.kafka.model import Fields
from headwater.limits import NAME_BYTES_MAX, TRANSACTION_MS_MAX, TRANSACTION_OFFSETS_MAX
from headwater.log.reserving import expire_overdue
from headwater.log.state import fold
from headwater.log.state.producers import EPOCH_LAST
from headwater.sim.loop import sim_loop
from tests.kafka.helpers_kafka_groups import Classic, Place
from tests.kafka.helpers_kafka_transactions import (
    ADD_PARTITIONS,
    INIT,
    NEW,
    OLD,
    Client,
    committed,
    played,
    visible,
)
from tests.kafka.helpers_peer import ask
from tests.log.helpers import simulate

# -- ids and epochs ------------------------------------------------------------------------------------------


def test_each_instance_of_a_transactional_id_gets_the_next_epoch_and_everybody_else_a_fresh_id() -> None:
    async def play(client: Client) -> None:
        known = (client.pid, client.epoch)
        assert E.none is await client.init()
        assert (known[0], known[1] + 1) == (client.pid, client.epoch)
        plain = await ask(client.peer, INIT)
        again = await ask(client.peer, INIT, producer_id=plain["producer_id"], producer_epoch=0)
        assert 3 == len({client.pid, plain["producer_id"], again["producer_id"]})
        assert 10_000 == client.peer.namespace.state.producers[client.pid].timeout_ms

    played(play)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"transaction_timeout": 0}, E.invalid_transaction_timeout),
        ({"transaction_timeout": -1}, E.invalid_transaction_timeout),
        ({"transaction_timeout": TRANSACTION_MS_MAX}, E.none),
        ({"transaction_timeout": TRANSACTION_MS_MAX + 1}, E.invalid_transaction_timeout),
        ({"transactional_id": ""}, E.invalid_request),
        ({"transactional_id": "x" * NAME_BYTES_MAX}, E.none),
        ({"transactional_id": "x" * (NAME_BYTES_MAX + 1)}, E.invalid_request),
        ({"producer_id": 1, "producer_epoch": -1}, E.invalid_request),
        ({"producer_id": -1, "producer_epoch": 1}, E.invalid_request),
        ({"producer_id": 77, "producer_epoch": 1}, E.none),  # forgotten, for all that anybody knows
        ({"enable2_pc": True}, E.transactional_id_authorization_failed),
        ({"keep_prepared_txn": True}, E.unsupported_version),
    ],
)
def test_what_nobody_may_ask_for_an_id_is_refused(asked: Fields, code: E) -> None:
    async def play(client: Client) -> None:
        assert code is await client.init(**asked)

    played(play, ready=False)


@pytest.mark.parametrize(("version", "code"), [(3, E.invalid_producer_epoch), (4, E.producer_fenced)])
def test_a_producer_bumps_its_own_epoch_only_while_it_is_its_own(version: int, code: E) -> None:
    async def play(client: Client) -> None:
        pid, epoch = client.pid, client.epoch
        mine = {"producer_id": pid, "producer_epoch": epoch}
        assert E.none is await client.init(version, **mine)
        assert (pid, epoch + 1) == (client.pid, client.epoch)
        assert E.none is await client.init(version, **mine), "the answer was lost"
        assert (pid, epoch + 1) == (client.pid, client.epoch)
        assert E.none is await client.init(version)  # a new instance
        assert code is await client.init(version, **mine)
        assert code is await client.init(version, producer_id=pid, producer_epoch=epoch + 1)

    played(play)


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_producer_that_was_forgotten_gets_a_new_id(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was called fenced, which ends a client for good, when nobody had taken its place."""
    monkeypatch.setattr(fold, "PRODUCERS_MAX", 1)

    async def play(client: Client) -> None:
        old = client.pid, client.epoch
        await ask(client.peer, 22, transactional_id=None)
        assert E.none is await client.init(version, producer_id=old[0], producer_epoch=old[1])
        assert (old[0] + 2, 0) == (client.pid, client.epoch)
        assert 0 == await client.write()
        assert E.none is await client.end()
        stale = await Client(client.peer).init(version, producer_id=old[0], producer_epoch=old[1])
        assert stale in (E.producer_fenced, E.invalid_producer_epoch), "somebody has taken its place by now"

    played(play)


def test_a_new_instance_voids_the_open_transaction_of_the_old_one() -> None:
    async def play(client: Client) -> None:
        await client.write()
        assert E.none is await client.move(5)
        old = Client(client.peer)
        old.pid, old.epoch = client.pid, client.epoch
        assert E.none is await client.init()
        assert E.producer_fenced is await old.end()
        assert (0, -1) == (visible(client.peer), await committed(client.peer, stable=True))

    played(play)


# -- ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize("commit", [True, False])
def test_an_end_is_atomic_and_may_be_asked_for_again(version: int, commit: bool) -> None:
    async def play(client: Client) -> None:
        pid, epoch = client.pid, client.epoch
        assert (0, 1) == (await client.write(), await client.write())
        assert 0 == await client.write(partition=1)
        assert E.none is await client.move(5)
        assert (0, -1) == (visible(client.peer), await committed(client.peer))
        old = Client(client.peer, version=version)
        old.pid, old.epoch = pid, epoch
        assert E.none is await client.end(commit)
        assert (2 if commit else 0, 5 if commit else -1) == (visible(client.peer), await committed(client.peer))
        assert (pid, epoch + (version >= NEW)) == (client.pid, client.epoch)
        at = client.peer.namespace.state.seq
        assert E.none is await old.end(commit)
        assert (client.pid, client.epoch) == (old.pid, old.epoch)
        old.epoch = epoch
        assert E.invalid_txn_state is await old.end(not commit)
        assert (2 if commit else 0) == visible(client.peer)
        assert client.peer.namespace.state.seq <= at + 2

    played(play, version=version)


def test_an_old_client_keeps_its_epoch_and_its_sequences() -> None:
    async def play(client: Client) -> None:
        epoch = client.epoch
        for n in range(4):
            assert n == await client.write()
            assert E.none is await client.end(n % 2 == 0)
        assert (epoch, 4, 2) == (client.epoch, client.sequences[0], visible(client.peer))

    played(play, version=OLD)


@pytest.mark.parametrize("version", [OLD, NEW])
def test_a_transaction_that_holds_nothing_ends_either_way(version: int) -> None:
    async def play(client: Client) -> None:
        assert E.none is await client.end(False)
        await client.write()
        assert E.none is await client.end(True)
        assert [E.none] == await client.add({"orders": [0]})  # and then nothing could be written
        assert E.none is await client.end(False)
        assert E.none is await client.add_offsets()
        assert E.none is await client.end(True)
        assert 1 == visible(client.peer)

    played(play, version=version)


def test_an_old_client_cannot_take_its_commit_back() -> None:
    async def play(client: Client) -> None:
        assert [E.none] == await client.add({"orders": [0]})
        await client.write()
        assert E.none is await client.end(True)
        assert E.invalid_txn_state is await client.end(False)
        assert 1 == visible(client.peer)

    played(play, version=OLD)


@pytest.mark.parametrize("version", [1, 2, OLD, NEW])
def test_a_transaction_whose_time_was_up_is_never_said_to_be_committed(version: int) -> None:
    async def play(client: Client) -> None:
        await client.write()
        assert E.none is await client.move(5)
        assert 0 == await expire_overdue(client.peer.namespace, 9)
        await sim_loop().sleep(20)
        assert 1 == await expire_overdue(client.peer.namespace, 9)
        assert (0, -1) == (visible(client.peer), await committed(client.peer, stable=True))
        fenced = E.producer_fenced if version > 1 else E.invalid_producer_epoch
        assert [fenced] * 2 == [await client.end(True), await client.end(False)]

    played(play, version=version)


def test_an_end_is_heard_of_at_another_gateway() -> None:
    async def main() -> None:
        place = Place()
        client = Client(await place.gateway(orders=2))
        other = await place.gateway()
        assert E.none is await client.init()
        await client.write()
        identity = (client.pid, client.epoch)
        assert E.none is await client.end(at=other)
        now = (client.pid, client.epoch)
        client.pid, client.epoch = identity
        assert E.none is await client.end()  # this one has not heard of it yet
        assert now == (client.pid, client.epoch) == (identity[0], identity[1] + 1)
        assert E.invalid_txn_state is await client.end(False, producer_epoch=identity[1])

    simulate(main())


def test_past_the_last_epoch_the_answer_has_a_new_id_and_a_repetition_finds_it() -> None:
    async def play(client: Client) -> None:
        state = client.peer.namespace.state
        state.producers[client.pid].epoch = client.epoch = EPOCH_LAST
        await client.write()
        before = client.pid
        assert E.none is await client.end()
        assert (1, 0) == (visible(client.peer), client.epoch)
        assert client.pid > before
        found = client.pid
        client.pid, client.epoch = before, EPOCH_LAST
        assert E.none is await client.end()
        assert (found, 0) == (client.pid, client.epoch)
        assert 10_000 == client.peer.namespace.state.producers[found].timeout_ms

    played(play)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"transactional_id": "nobody"}, E.invalid_producer_id_mapping),
        ({"transactional_id": ""}, E.invalid_request),
        ({"producer_id": 99}, E.invalid_producer_id_mapping),
        ({"producer_epoch": 7}, E.producer_fenced),
        ({"producer_epoch": -1}, E.producer_fenced),
    ],
)
def test_nobody_ends_the_transaction_of_another(asked: Fields, code: E) -> None:
    async def play(client: Client) -> None:
        await client.write()
        assert code is await client.end(**asked)
        assert E.none is await client.end()

    played(play)


# -- what it takes in ----------------------------------------------------------------------------------------


def test_all_partitions_are_added_or_none() -> None:
    async def play(client: Client) -> None:
        missing, spared = E.unknown_topic_or_partition, E.operation_not_attempted
        assert [E.none, E.none] == await client.add({"orders": [0, 1]})
        assert [spared, missing, missing] == await client.add({"orders": [0, 2], "nowhere": [0]})
        assert [spared, missing] == await client.add({"orders": [1, -1]}, version=4)
        at = client.peer.namespace.state.seq
        for version in range(6):
            assert [E.none] == await client.add({"orders": [0]}, version)
        assert at == client.peer.namespace.state.seq, "judging commits nothing"

    played(play)


def test_partitions_that_another_gateway_has_just_added_are_found() -> None:
    async def main() -> None:
        place = Place()
        client, other = Client(await place.gateway(orders=2)), await place.gateway()
        assert E.none is await client.init()
        await other.namespace.refresh()
        await client.peer.namespace.add_partitions("orders", 3)
        client.peer = other
        assert [E.none, E.none] == await client.add({"orders": [0, 2]})

    simulate(main())


@pytest.mark.parametrize("version", range(6))
def test_fenced_producers_add_nothing(version: int) -> None:
    async def play(client: Client) -> None:
        client.epoch += 1
        fenced = E.producer_fenced if version >= 2 else E.invalid_producer_epoch
        assert [fenced] == await client.add({"orders": [0]}, version)
        if version < 5:
            assert fenced is await client.add_offsets(version=version)
        client.pid += 1
        assert [E.invalid_producer_id_mapping] == await client.add({"orders": [0]}, version)
        assert E.invalid_producer_id_mapping is await client.add_offsets()

    played(play)


def test_brokers_that_ask_are_told_what_a_transaction_holds() -> None:
    async def play(client: Client) -> None:
        await client.write()
        one = {"transactional_id": "t", "producer_id": client.pid, "producer_epoch": client.epoch, "verify_only": True}
        topics = [{"name": "orders", "partitions": [0, 1]}]
        other = {**one, "transactional_id": "u", "topics": topics}
        answer = await ask(client.peer, ADD_PARTITIONS, 5, transactions=[{**one, "topics": topics}, other])
        codes = [
            [part["partition_error_code"] for part in each["topic_results"][0]["results_by_partition"]]
            for each in answer["results_by_transaction"]
        ]
        assert [[E.none, E.transaction_abortable], [E.invalid_producer_id_mapping] * 2] == codes

    played(play)


def test_offsets_wait_for_the_end_and_whoever_wants_stable_ones_waits_too() -> None:
    async def play(client: Client) -> None:
        assert E.none is await client.move(3)
        assert E.none is await client.move(5)
        assert (-1, E.unstable_offset_commit) == (
            await committed(client.peer),
            await committed(client.peer, stable=True),
        )
        assert -1 == await committed(client.peer, 1, stable=True)
        assert E.none is await client.end()
        assert 5 == await committed(client.peer, stable=True)
        assert E.none is await client.move(9)
        assert E.none is await client.end(False)
        assert 5 == await committed(client.peer, stable=True)

    played(play)


def test_offsets_are_fenced_by_the_groups_generation_when_they_come() -> None:
    async def play(client: Client) -> None:
        member = Classic(client.peer)
        assert E.none is await member.join()
        await member.ask(14, generation_id=member.generation, member_id=member.member, assignments=[])
        known = {"member_id": member.member, "generation_id": member.generation}
        assert E.none is await client.move(5, **known)
        assert E.illegal_generation is await client.move(6, **{**known, "generation_id": member.generation + 1})
        assert E.unknown_member_id is await client.move(6, **{**known, "member_id": "stranger"})
        assert E.unknown_member_id is await client.move(6, **{**known, "group_instance_id": "i"})
        assert E.none is await client.move(7, version=0), "before KIP-447 the transactional id alone was asked for"
        assert E.none is await client.end()
        assert 7 == await committed(client.peer)

    played(play)


def test_a_later_commit_of_the_same_place_wins() -> None:
    async def play(client: Client) -> None:
        assert E.none is await client.move(5)
        await client.peer.namespace.commit_offsets("g", {("orders", 0): 8})
        assert 8 == await committed(client.peer, stable=True)
        assert E.none is await client.end()
        assert 8 == await committed(client.peer)

    played(play)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"topic": "nowhere"}, E.unknown_topic_or_partition),
        ({"partition": 7}, E.unknown_topic_or_partition),
        ({"group_id": ""}, E.invalid_group_id),
        ({"producer_epoch": 9}, E.invalid_producer_epoch),
        ({"producer_id": 9}, E.invalid_producer_id_mapping),
        ({"generation_id": 3, "member_id": "m"}, E.illegal_generation),
    ],
)
def test_offsets_that_cannot_move_are_refused(asked: Fields, code: E) -> None:
    async def play(client: Client) -> None:
        assert code is await client.move(5, **asked)
        assert E.none is await client.end()
        assert -1 == await committed(client.peer)

    played(play)


def test_a_transaction_moves_a_bounded_number_of_offsets() -> None:
    async def play(client: Client) -> None:
        known = client.peer
        await known.namespace.create_topic("wide", 1_000)
        groups = TRANSACTION_OFFSETS_MAX // 1_000
        parts = [{"partition_index": n, "committed_offset": 1} for n in range(1_000)]
        topics = [{"name": "wide", "partitions": parts}]
        for n in range(groups):
            assert E.none is await client.move(0, group_id=f"g{n}", topics=topics)
        assert E.invalid_commit_offset_size is await client.move(0, group_id="one-more")
        assert E.none is await client.end()
        assert 1 == known.namespace.state.groups["g0"].offsets[known.namespace.state.names["wide"]][999].offset

    played(play)
