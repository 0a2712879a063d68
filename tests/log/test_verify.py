"""What only a hostile or buggy writer can do, and verify must see: bytes that are intact and wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

import headwater
from headwater.clock import SystemClock, system_entropy
from headwater.limits import WINDOW
from headwater.log import index, intents, keys, snapshot
from headwater.log.intents import Intent, Manifest
from headwater.log.namespace import Namespace
from headwater.log.operations import CreateTopic, EndReserve, InitProducer, Reserve
from headwater.log.options import Options
from headwater.log.verify import Report, verify
from headwater.log.verify_sums import Spans, Sums
from headwater.log.writer import Append
from headwater.store.memory import MemoryStore
from headwater.store.prefixed import PrefixedStore
from headwater.types import Batch

OPTIONS = Options(snapshot_every=8)


def one(value: bytes = b"v") -> Batch:
    return headwater.batch([headwater.Record(value=value, timestamp=5)])


def checked(store: MemoryStore) -> Report:
    view = PrefixedStore(store, "default/")
    return asyncio.run(verify(view, clock=SystemClock(), rng=system_entropy()))


def filled(work: Callable[[Namespace], Awaitable[None]]) -> MemoryStore:
    async def fill() -> MemoryStore:
        store = MemoryStore()
        async with await Namespace.open(store, options=OPTIONS) as log:
            await work(log)
        return store

    return asyncio.run(fill())


async def a_life(log: Namespace) -> None:
    """Everything that a namespace can live through, in 60 commits or so."""
    await log.create_topic("t", partitions=3)
    await log.create_topic("u")
    producer = await log.producer("tx")
    for i in range(12):
        await log.append("t", i % 3, one())
        await log.append("u", 0, one())
        async with producer.transaction() as transaction:
            await transaction.append("t", 0, one())
            await transaction.append("t", 1, one())
            await transaction.send_offsets("g", {("t", 0): i})
        if i == 6:
            await log.delete_topic("u")
            await log.create_topic("u")
    outcome = await log.writer.commit(ops=[InitProducer(tid="held")])
    pid, epoch = outcome.values["pid"], outcome.values["epoch"]
    held = Batch(
        **{name: getattr(one(), name) for name in Batch.__slots__} | {"producer_id": pid, "producer_epoch": epoch}
    )
    topic = log.topic("t").id
    reserve = Reserve(pid=pid, epoch=epoch, timeout_ms=60_000)
    await log.writer.commit([Append(topic=topic, partition=2, batch=held)], [reserve])
    for _ in range(20):
        await log.append("t", 2, one())
    await log.writer.commit(ops=[EndReserve(pid=pid, epoch=epoch, commit=True)])
    await log.writer.commit([], [Reserve(pid=pid, epoch=epoch + 1, timeout_ms=60_000)])
    await log.trim("t", 1, 5)


def test_a_whole_life_is_clean() -> None:
    report = checked(filled(a_life))
    assert [] == report.problems
    assert report.counts["snapshots"] > 5
    assert report.counts["pages"] >= report.counts["snapshots"] - 1


def rewritten(store: MemoryStore, key: str, change: Callable[[bytes], bytes]) -> MemoryStore:
    async def rewrite() -> None:
        data = (await store.get(f"default/{key}")).data
        await store.put(f"default/{key}", change(data))

    asyncio.run(rewrite())
    return store


def listed(store: MemoryStore, prefix: str) -> list[str]:
    async def collect() -> list[str]:
        return [stat.key.removeprefix("default/") async for stat in store.list(f"default/{prefix}")]

    return asyncio.run(collect())


@pytest.mark.parametrize("part", ["next", "time_ms", "offset", "epoch", "recent"])
def test_a_snapshot_that_differs_from_the_fold_is_named(part: str) -> None:
    store = filled(a_life)
    key = listed(store, "snapshot/")[-1]

    def change(data: bytes) -> bytes:
        state = snapshot.decode(data, keys.parse_numbered_key(key))
        if part == "next":
            state.topics[1].partitions[0].next += 1
        elif part == "time_ms":
            state.time_ms += 1
        elif part == "offset":
            state.groups["g"].offsets[1][0] = msgspec.structs.replace(state.groups["g"].offsets[1][0], offset=99)
        elif part == "epoch":
            next(iter(state.producers.values())).epoch += 1
        else:
            state.recent.popitem()
        return snapshot.encode(state)

    report = checked(rewritten(store, key, change))
    assert ("snapshot", key) in {(p.kind, p.key) for p in report.problems}


def test_an_index_page_that_differs_from_the_manifests_is_named() -> None:
    store = filled(a_life)
    key = listed(store, "index/")[0]

    def change(data: bytes) -> bytes:
        header, base = index.decode_header(data)
        runs = {
            (run.topic, run.partition): index.decode_run(run, data[base + run.pos : base + run.pos + run.len])
            for run in header.runs
        }
        place = next(iter(runs))
        runs[place] = runs[place][:-1] or [msgspec.structs.replace(runs[place][0], count=9)]
        return index.encode(headwater_page(header), runs)

    report = checked(rewritten(store, key, change))
    assert ("index", key) in {(p.kind, p.key) for p in report.problems}


def headwater_page(header: index.PageHeader) -> index.PageRef:
    return index.PageRef(header.first, header.last, 0, sum(run.rows for run in header.runs))


def chain_of(*manifests: Manifest) -> MemoryStore:
    async def fill() -> MemoryStore:
        store = MemoryStore()
        for manifest in manifests:
            await store.put(f"default/{keys.manifest_key(manifest.seq)}", intents.encode_manifest(manifest, 0))
        return store

    return asyncio.run(fill())


def commit(seq: int, *wishes: Intent, time: int = 5) -> Manifest:
    return Manifest(v=1, kind="manifest", seq=seq, id=f"manifest-{seq}", writer="w", time=time, intents=list(wishes))


def test_an_intent_with_effect_twice_is_named() -> None:
    op = InitProducer()
    far = WINDOW + 2
    chain = [commit(1, Intent(id="same", tip=0, ops=[op]))]
    chain += [commit(seq) for seq in range(2, far)]
    chain += [commit(far, Intent(id="same", tip=far - 1, ops=[op]))]
    report = checked(chain_of(*chain))
    assert [("twice", keys.manifest_key(far))] == [(p.kind, p.key) for p in report.problems]


def test_a_repetition_within_the_window_has_no_effect_and_is_fine() -> None:
    intent = Intent(id="same", tip=0, ops=[CreateTopic(name="t", partitions=1)])
    assert checked(chain_of(commit(1, intent), commit(2, intent))).clean


def test_time_that_runs_backwards_is_named() -> None:
    report = checked(chain_of(commit(1, time=5), commit(2, time=4)))
    assert [("time", keys.manifest_key(2))] == [(p.kind, p.key) for p in report.problems]


def test_a_hole_without_a_snapshot_ends_the_walk() -> None:
    report = checked(chain_of(commit(1), commit(3), commit(10)))
    assert [keys.manifest_key(seq) for seq in (2, 4, 5, 6, 7, 8, 9)] == sorted(p.key for p in report.problems)
    assert 1 == report.last_manifest


def test_a_first_manifest_that_is_broken_ends_the_walk() -> None:
    store = rewritten(chain_of(commit(1), commit(2)), keys.manifest_key(1), lambda data: b"x" + data)
    assert [("manifest", keys.manifest_key(1))] == [(p.kind, p.key) for p in checked(store).problems]


def test_behind_a_boundary_the_oldest_snapshot_is_the_beginning() -> None:
    store = filled(a_life)
    middle = keys.parse_numbered_key(listed(store, "snapshot/")[3])

    async def collect() -> None:
        await store.put(f"default/{keys.boundary_key(middle + 1)}", b"")
        gone = [k for k in listed_now if keys.parse_numbered_key(k) < middle - 6]
        await store.delete([f"default/{key}" for key in gone])

    listed_now = listed(store, "manifest/")
    asyncio.run(collect())
    report = checked(store)
    # Chunks that rode in deleted manifests are needed, and verify says so; the chain itself is whole.
    assert {"missing"} == {p.kind for p in report.problems}
    assert middle + 1 == report.first_manifest


def test_spans_add_up_to_pages() -> None:
    entry = headwater_entry()
    spans = Spans([0, 4, 8])
    for seq in range(1, 9):
        spans.at(seq).add(1, 0, msgspec.structs.replace(entry, seq=seq))
    first, second, both = spans.over(1, 4, (1, 0)), spans.over(5, 8, (1, 0)), spans.over(1, 8, (1, 0))
    assert (4, 4, 8) == (first[1], second[1], both[1])
    assert both[0] == (first[0] + second[0]) % 2**64
    assert spans.covers(1, 8)
    assert not spans.covers(1, 9)
    assert (0, 0) == Sums().of(1, 0)


def headwater_entry() -> index.Entry:
    return index.Entry(0, 1, "arrow", 1, "", 64, 10, 0, 5, 5)
