"""A Kafka Streams application through gateways, exactly once though its instances and gateways are killed."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition

from tests.kafka.engines.helpers_streams import WAIT_S, Application, needs_streams
from tests.kafka.helpers_fault_gateways import make_topics, running

WORDS, COUNT, PARTITIONS = 20, 6_000, 4


def fill(bootstrap: str, part: int, parts: int) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "enable.idempotence": True})
    for number in range(COUNT * part // parts, COUNT * (part + 1) // parts):
        producer.produce("words", f"word{number % WORDS}", partition=number % PARTITIONS)
    assert producer.flush(60) == 0


class Reader:
    """What a reader of committed records sees of the counts, in order, by word."""

    def __init__(self, bootstrap: str) -> None:
        config = {"bootstrap.servers": bootstrap, "group.id": "check", "isolation.level": "read_committed"}
        self.consumer = confluent_kafka.Consumer(config)
        self.consumer.assign([TopicPartition("counts", number, 0) for number in range(PARTITIONS)])
        self.found: dict[str, list[int]] = defaultdict(list)

    def read(self, count: int) -> None:
        """Read until there are so many; fails if nothing comes for ``WAIT_S``."""
        while sum(map(len, self.found.values())) < count:
            message = self.consumer.poll(WAIT_S)
            assert message is not None, f"nothing more came: {Counter({w: len(c) for w, c in self.found.items()})}"
            if message.error() is None:
                word, number = (message.value() or b"").decode().split()
                self.found[word].append(int(number))


def counted(bootstrap: str, folder: Path) -> dict[str, list[int]]:
    """Write the words while instances come and are killed; all that came of them."""
    job = Application("StreamsJob", bootstrap, folder)
    reader = Reader(bootstrap)
    with ExitStack() as stack:
        first = stack.enter_context(job.instance(1))
        fill(bootstrap, 0, 3)
        reader.read(COUNT // 30)
        stack.enter_context(job.instance(2))
        fill(bootstrap, 1, 3)
        reader.read(COUNT // 3)
        first.kill()
        stack.enter_context(job.instance(3))
        fill(bootstrap, 2, 3)
        reader.read(COUNT)
    more = reader.consumer.poll(2.0)
    assert more is None or more.error() is not None, "a count too many"
    reader.consumer.close()
    return dict(reader.found)


EXPECTED = {f"word{number}": list(range(1, COUNT // WORDS + 1)) for number in range(WORDS)}


@needs_streams
@pytest.mark.timeout(500)
def test_kafka_streams_counts_each_word_once_though_an_instance_is_killed(kafka: Any, tmp_path: Path) -> None:
    for name in ("words", "counts"):
        kafka.create_topic(name, PARTITIONS)
    assert EXPECTED == counted(kafka.bootstrap, tmp_path)


@needs_streams
@pytest.mark.timeout(700)
def test_kafka_streams_counts_each_word_once_though_gateways_die_and_the_store_fails_as_well(tmp_path: Path) -> None:
    make_topics(tmp_path, dict.fromkeys(("words", "counts"), PARTITIONS))
    with running(tmp_path) as gateways:
        gateways.all_again(calm=False)
        with gateways.dying():
            found = counted(gateways.bootstrap, tmp_path)
        assert EXPECTED == found
