"""``bench kafka``: librdkafka through a gateway, beside a server that only parses, checks CRCs and keeps the bytes.

The servers run in processes of their own; figures are per CPU second that the server used, since the client needs a
core, too, and shares its caches. A cold fetch reads from the store; a warm one finds all in the gateway's cache,
which is made large enough for it. ``ratio_to_ceiling`` is bytes per CPU second of the gateway on the memory store
beside those of ``kafka_ceiling``, the worst of all record sizes. Both run ``rounds`` times in turn, each time in a new
process, and the median counts: a machine that is shared, or has its memory handed out page by page, is faster by half
in one minute than in the next. ``tansu`` is a peer, where it is installed.
Latencies are those of an S3 Standard profile (a PUT takes 60 ms at the median, 220 at the 99th percentile) in front
of the memory store: from ``produce`` to the delivery report, and from ``produce`` to a consumer on another
connection; with the gateway's default linger, with one that is longer than most PUTs, and with the default one and
every commit sent twice. DESIGN 19 says why the first of them cannot end within half a linger and a PUT. Then with two
gateways on one directory, the consumer in a zone of its own: it hears of a commit by looking for it.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

from headwater.bench import kafka_peer
from headwater.bench.buckets import bucket
from headwater.bench.contention import quantile
from headwater.bench.http import Server, running
from headwater.bench.slow import SlowStore
from headwater.clock import SystemClock, stopwatch_s, system_entropy
from headwater.errors import AlreadyExists
from headwater.kafka.loop import run
from headwater.kafka.shelf import INTEREST_S
from headwater.limits import KAFKA_CACHE_BYTES, KAFKA_LINGER_MS, MIB
from headwater.sim.latency import PROFILES
from headwater.store import open_store

STORES = ("file", "s3")  # beside memory
VERBS = ("produce", "fetch_cold", "fetch_warm")
ROUNDS = 3  # of the ceiling and of the gateway on the memory store
SIZES = (100, 1_000)  # bytes of a value
LINGER_MS = 50  # of the client
LATENCIES = {  # of gateways by their linger and hedge in ms: the default, a PUT and a quarter, and each PUT twice
    "latency_s3_standard": (KAFKA_LINGER_MS, 0.0),
    "latency_s3_standard_at_75_ms": (75.0, 0.0),
    "latency_s3_standard_hedged": (KAFKA_LINGER_MS, 5.0),
}
PARTITIONS = 100  # of the topic that latencies are measured on
PRODUCERS = 20
IDLE_CONNECTIONS = 1_000
FLUSH_S = 60.0
SETTINGS = {"acks": "all", "linger.ms": LINGER_MS, "queue.buffering.max.kbytes": 1 << 20,
            "queue.buffering.max.messages": 2_000_000}  # fmt: skip


def bench(mib: int = 256, seconds: float = 30.0, peer: str = "", rounds: int = ROUNDS) -> dict[str, Any]:
    """The report of ``headwater bench kafka``: ``mib`` of values for each throughput, ``seconds`` for each latency.

    ``peer`` is Tansu's program; without one the report says how to get it.
    """
    program = kafka_peer.found(peer)
    found: dict[str, list[list[dict[str, Any]]]] = {"ceiling": [], "memory": []}
    for number in range(rounds):
        for name in sorted(found, reverse=number % 2 == 1):
            with _ceiling() if name == "ceiling" else _gateway("memory://bench", cache_mib=2 * mib) as server:
                found[name].append(_throughput(server, mib))
    ceiling, memory = (_median(found[name]) for name in ("ceiling", "memory"))
    stores = {}
    for name in STORES:
        with bucket(name) as url, _gateway(url, cache_mib=2 * mib) as server:
            stores[name] = _throughput(server, mib)
    tansu: Any = f"not installed: {kafka_peer.INSTALL}"
    if program:
        with kafka_peer.running(program) as server:
            tansu = _throughput(server, mib)
    latency = {}
    for name, (linger_ms, hedge_ms) in LATENCIES.items():
        with _gateway("memory://bench", "s3-standard", linger_ms, hedge_ms) as server:
            latency[name] = {"linger_ms": linger_ms, "hedge_ms": hedge_ms, **_latencies(server, seconds)}
    with (
        bucket("file") as url,
        _gateway(url, "s3-standard", zone="a") as near,
        _gateway(url, "s3-standard", zone="b") as far,
    ):
        latency["latency_s3_standard_two_zones"] = {
            "linger_ms": KAFKA_LINGER_MS,
            "hedge_ms": 0.0,
            **_latencies(near, seconds, reader=far),
        }
    with _gateway("memory://bench") as server:
        idle = asyncio.run(_idle(server, seconds))
    return {
        "bench": "kafka",
        "client_linger_ms": LINGER_MS,
        "produce": {"ratio_to_ceiling": _worst(memory, ceiling, "produce")},
        "fetch": {"ratio_to_ceiling": _worst(memory, ceiling, "fetch_warm")},
        "rounds": rounds,
        "ceiling": ceiling,
        "tansu": tansu,
        "memory": memory,
        **stores,
        **latency,
        "idle": idle,
    }


def _median(rounds: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of each size and verb what was measured in the round that is in the middle by bytes per CPU second."""
    rows = []
    for same in zip(*rounds, strict=True):
        row = dict(same[0])
        for verb in VERBS:
            row[verb] = sorted((each[verb] for each in same), key=lambda found: found["mb_per_cpu_s"])[len(same) // 2]
        rows.append(row)
    return rows


def _worst(rows: Sequence[dict[str, Any]], ceiling: Sequence[dict[str, Any]], verb: str) -> float:
    ratios: list[float] = [
        row[verb]["mb_per_cpu_s"] / best[verb]["mb_per_cpu_s"] for row, best in zip(rows, ceiling, strict=True)
    ]
    return round(min(ratios), 3)


# -- throughput ---------------------------------------------------------------------------------------------


def _throughput(server: Server, mib: int) -> list[dict[str, Any]]:
    return [_one_size(server, size, (mib << 20) // size) for size in SIZES]


def _one_size(server: Server, size: int, count: int) -> dict[str, Any]:
    topic = f"values-{size}"
    rng = system_entropy()
    value = rng.randbytes(size)
    _warm_up(server, topic, value)
    threading.Event().wait(INTEREST_S + 0.5)  # the gateway keeps what comes in for the reader of the warm-up until then
    row: dict[str, Any] = {"value_bytes": size, "records": count}
    row["produce"] = _measured(server, size * count, count, lambda: _produce(server, topic, value, count))
    for name in ("fetch_cold", "fetch_warm"):
        row[name] = _measured(server, size * count, count, lambda: _fetch(server, topic, count))
    return row


def _measured(server: Server, nbytes: int, records: int, work: Callable[[], object]) -> dict[str, Any]:
    cpu, began = server.cpu_s(), stopwatch_s()
    work()
    wall, cpu = stopwatch_s() - began, max(server.cpu_s() - cpu, 1e-3)
    return {
        "mb_per_s": round(nbytes / wall / 1e6, 1),
        "mb_per_cpu_s": round(nbytes / cpu / 1e6, 1),
        "records_per_cpu_s": round(records / cpu),
        "cpu_s_per_gb": round(cpu / nbytes * 1e9, 2),
    }


def _warm_up(server: Server, topic: str, value: bytes) -> None:
    """The topic is made, and the first request of each kind compiles its codec."""
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin = AdminClient({"bootstrap.servers": server.url})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(FLUSH_S)
    _produce(server, topic, value, 1)
    _fetch(server, topic, 1)


def _produce(server: Server, topic: str, value: bytes, count: int) -> None:
    from confluent_kafka import Producer

    failed: list[Any] = []

    def told(error: Any, _: Any) -> None:
        if error is not None:
            failed.append(error)

    producer = Producer({"bootstrap.servers": server.url, "enable.idempotence": True, **SETTINGS})
    for _ in range(count):
        while True:
            try:
                producer.produce(topic, value, on_delivery=told)
                break
            except BufferError:
                producer.poll(0.01)
    assert producer.flush(FLUSH_S) == 0, "not everything was acknowledged"
    assert not failed, failed[0]


def _fetch(server: Server, topic: str, count: int) -> None:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": server.url, "group.id": "bench", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = 0
    while found < count:
        messages = consumer.consume(min(10_000, count - found), timeout=FLUSH_S)
        assert messages, f"{found} of {count} records came"
        found += len(messages)
    consumer.close()


# -- latency ------------------------------------------------------------------------------------------------


def _latencies(server: Server, seconds: float, reader: Server | None = None) -> dict[str, Any]:
    """About 1,000 produce requests/s over 100 partitions by 20 clients; a consumer reads them all as they come.

    The clients say that they are in zone ``a``, the consumer in ``b``, which is where ``reader`` is, if there is one.
    """
    from confluent_kafka import Consumer, Producer, TopicPartition

    acks: list[float] = []
    ends: list[float] = []
    stop = threading.Event()
    ready = threading.Event()

    def consume() -> None:
        consumer = Consumer(
            {"bootstrap.servers": (reader or server).url, "client.rack": "b", "group.id": "bench",
             "enable.auto.commit": False}
        )  # fmt: skip
        consumer.assign([TopicPartition("latency", number, 0) for number in range(PARTITIONS)])
        ready.set()
        while not stop.is_set():
            # ``consume`` would wait for a thousand messages: take the first one as it comes, and what is there with it.
            first = consumer.poll(0.1)
            messages = [first, *consumer.consume(1_000, timeout=0)] if first is not None else []
            values = [message.value() for message in messages if message.error() is None]
            now_s = stopwatch_s()
            ends.extend((now_s - struct.unpack("<d", value[:8])[0]) * 1_000 for value in values if value)
        consumer.close()

    settings = {"bootstrap.servers": server.url, "client.id": "zone=a", "linger.ms": 0, "acks": "all"}
    producers = [Producer(settings) for _ in range(PRODUCERS)]
    for number in range(PARTITIONS):
        producers[number % PRODUCERS].produce("latency", struct.pack("<d", stopwatch_s()), partition=number)
    for producer in producers:
        producer.flush(FLUSH_S)
    reading = threading.Thread(target=consume)
    reading.start()
    ready.wait()
    began = stopwatch_s()
    cpu, sent = server.cpu_s(), 0
    while (elapsed := stopwatch_s() - began) < seconds:
        while sent < elapsed * 1_000:
            made = stopwatch_s()

            def told(error: Any, _: Any, made: float = made) -> None:
                assert error is None, error
                acks.append((stopwatch_s() - made) * 1_000)

            value = struct.pack("<d", made) + bytes(92)
            producers[sent % PRODUCERS].produce("latency", value, partition=sent % PARTITIONS, on_delivery=told)
            sent += 1
        for producer in producers:
            producer.poll(0)
        threading.Event().wait(0.002)
    for producer in producers:
        producer.flush(FLUSH_S)
    cpu = server.cpu_s() - cpu
    stop.set()
    reading.join()
    acks.sort()
    wanted = sorted(ends[PARTITIONS:])
    return {
        "records": sent,
        "requests_per_s": round(sent / seconds),
        "cpu_share": round(cpu / seconds, 3),
        "ack_p50_ms": round(quantile(acks, 0.5), 1),
        "ack_p99_ms": round(quantile(acks, 0.99), 1),
        "end_to_end_p50_ms": round(quantile(wanted, 0.5), 1),
        "end_to_end_p99_ms": round(quantile(wanted, 0.99), 1),
    }


async def _idle(server: Server, seconds: float) -> dict[str, Any]:
    """What 1,000 connections cost that have said hello and nothing since."""
    host, _, port = server.url.rpartition(":")
    hello = struct.pack(">hhihh", 18, 0, 1, 1, 0)[:-2] + b"b"
    frame = struct.pack(">i", len(hello)) + hello
    opened = []
    for _ in range(IDLE_CONNECTIONS):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(frame)
        opened.append((reader, writer))
    for reader, _ in opened:
        size = struct.unpack(">i", await reader.readexactly(4))[0]
        await reader.readexactly(size)
    cpu = server.cpu_s()
    await SystemClock().sleep(seconds)
    used = server.cpu_s() - cpu
    memory = _rss_mib(server.pid)
    for _, writer in opened:
        writer.close()
    return {"connections": IDLE_CONNECTIONS, "cpu_share": round(used / seconds, 4), "rss_mib": memory}


def _rss_mib(pid: int) -> int:
    from pathlib import Path

    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    return 0


# -- the servers --------------------------------------------------------------------------------------------


def _gateway(
    store: str,
    profile: str = "zero",
    linger_ms: float = KAFKA_LINGER_MS,
    hedge_ms: float = 0.0,
    cache_mib: int = KAFKA_CACHE_BYTES // MIB,
    zone: str = "",
) -> AbstractContextManager[Server]:
    return running("headwater.bench.kafka", store, profile, str(linger_ms), str(hedge_ms), str(cache_mib), zone)


def _ceiling() -> AbstractContextManager[Server]:
    return running("headwater.bench.kafka_ceiling")


async def _serve(url: str, profile: str, linger_ms: float, hedge_ms: float, cache_mib: int, zone: str) -> None:
    from headwater.kafka.gateway import Gateway, Listener, Settings, serve
    from headwater.store.base import ObjectStore

    clock = SystemClock()
    store: ObjectStore = open_store(url, clock=clock)
    if profile != "zero":
        store = SlowStore(store, PROFILES[profile], clock=clock, rng=system_entropy())
    gateway = Gateway(store, [Listener(port=0)], Settings(auto_create=True, partitions_default=1), clock=clock)
    async with gateway:
        namespace = await gateway.namespace("default")
        with suppress(AlreadyExists):  # another gateway has been here
            await namespace.create_topic("latency", PARTITIONS)
    settings = Settings(
        auto_create=True, linger_ms=linger_ms, hedge_ms=hedge_ms, cache_bytes=cache_mib * MIB, zone=zone
    )
    gateway = Gateway(store, [Listener(port=0)], settings, clock=clock)

    def ready(running: Gateway) -> None:
        address = running.listening[0].address
        print(f"{address.host}:{address.port}", flush=True)

    await serve(gateway, ready=ready)


if __name__ == "__main__":
    run(_serve(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), sys.argv[6]))
