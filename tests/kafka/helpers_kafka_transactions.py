"""A transactional producer that speaks by hand, and what its readers and groups see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from kio.schema.errors import ErrorCode as E

from headwater.kafka.model import Fields, Peer
from headwater.log import operations as ops
from headwater.log.writer import Append
from headwater.types import Batch
from tests.kafka.helpers_kafka_groups import FETCH, Place
from tests.kafka.helpers_peer import ask
from tests.log.helpers import simulate

INIT, ADD_PARTITIONS, ADD_OFFSETS, END, MARKERS, MOVE = 22, 24, 25, 26, 27, 28
PRODUCERS, DESCRIBE, LIST = 61, 65, 66
OLD, NEW = 4, 5  # versions of EndTxn: before KIP-890, and since


class Client:
    """A transactional producer that speaks by hand."""

    def __init__(self, known: Peer, tid: str = "t", version: int = NEW) -> None:
        self.peer = known
        self.tid = tid
        self.version = version
        self.pid = self.epoch = -1
        self.sequences: dict[int, int] = {}

    async def init(self, version: int = -1, **more: Any) -> E:
        asked = {"transactional_id": self.tid, "transaction_timeout": 10_000, **more}
        answer = await ask(self.peer, INIT, version, **asked)
        self._adopt(answer)
        return E(answer["error_code"])

    async def write(self, topic: str = "orders", partition: int = 0, count: int = 1) -> int:
        """What Produce does: reserve and append. The base offset."""
        space = self.peer.namespace
        batch = Batch(
            codec="kafka2",
            data=b"x" * 80,
            count=count,
            timestamp_min=0,
            timestamp_max=0,
            producer_id=self.pid,
            producer_epoch=self.epoch,
            sequence=self.sequences.get(partition, 0),
        )
        found = await space.find_topic(topic)
        wish = ops.Reserve(pid=self.pid, epoch=self.epoch, timeout_ms=10_000)
        outcome = await space.writer.commit([Append(topic=found.id, partition=partition, batch=batch)], [wish])
        self.sequences[partition] = batch.sequence + count
        return outcome.bases[0]

    async def end(self, commit: bool = True, *, at: Peer | None = None, **more: Any) -> E:
        identity = {"transactional_id": self.tid, "producer_id": self.pid, "producer_epoch": self.epoch}
        answer = await ask(at or self.peer, END, self.version, **{**identity, "committed": commit, **more})
        if self.version >= NEW:
            self._adopt(answer)
        return E(answer["error_code"])

    def _adopt(self, answer: Fields) -> None:
        if answer["error_code"] == E.none:
            if (self.pid, self.epoch) != (answer["producer_id"], answer["producer_epoch"]):
                self.sequences = {}
            self.pid, self.epoch = answer["producer_id"], answer["producer_epoch"]

    async def add(self, places: dict[str, list[int]], version: int = 3) -> list[E]:
        old = "v3_and_below_"
        topics = [{"name": name, "partitions": parts} for name, parts in places.items()]
        identity = {"transactional_id": self.tid, "producer_id": self.pid, "producer_epoch": self.epoch}
        if version >= 4:
            answer = await ask(
                self.peer, ADD_PARTITIONS, version, transactions=[{**identity, "topics": topics, "verify_only": False}]
            )
            rows = answer["results_by_transaction"][0]["topic_results"]
        else:
            asked = {old + name: value for name, value in {**identity, "topics": topics}.items()}
            rows = (await ask(self.peer, ADD_PARTITIONS, version, **asked))["results_by_topic_v3_and_below"]
        return [E(part["partition_error_code"]) for row in rows for part in row["results_by_partition"]]

    async def add_offsets(self, group: str = "g", version: int = -1) -> E:
        identity = {"transactional_id": self.tid, "producer_id": self.pid, "producer_epoch": self.epoch}
        return E((await ask(self.peer, ADD_OFFSETS, version, **identity, group_id=group))["error_code"])

    async def move(self, offset: int, partition: int = 0, topic: str = "orders", version: int = -1, **more: Any) -> E:
        part = {"partition_index": partition, "committed_offset": offset}
        answer = await ask(
            self.peer,
            MOVE,
            version,
            **{
                "transactional_id": self.tid,
                "producer_id": self.pid,
                "producer_epoch": self.epoch,
                "group_id": "g",
                "topics": [{"name": topic, "partitions": [part]}],
                **more,
            },
        )
        return E(answer["topics"][0]["partitions"][0]["error_code"])


async def committed(known: Peer, partition: int = 0, *, stable: bool = False) -> int | E:
    """The group's offset, or why there is none."""
    asked = {"group_id": "g", "topics": [{"name": "orders", "partition_indexes": [partition]}]}
    answer = await ask(known, FETCH, 9, groups=[asked], require_stable=stable)
    row = answer["groups"][0]["topics"][0]["partitions"][0]
    return E(row["error_code"]) if row["error_code"] else int(row["committed_offset"])


def visible(known: Peer, partition: int = 0) -> int:
    """How many records readers get."""
    found = known.namespace.state.named("orders")
    assert found is not None
    place = found.partitions[partition]
    return sum(entry.count for entry in place.tail if entry.codec != "gap" and entry.end <= place.stable_end)


Play = Callable[[Client], Awaitable[None]]


def played(play: Play, *, version: int = NEW, ready: bool = True) -> None:
    """Play with a client that has its id, over a topic of two partitions."""

    async def main() -> None:
        client = Client(await Place().gateway(orders=2), version=version)
        if ready:
            assert E.none is await client.init()
        await play(client)

    simulate(main())
