"""Uploads: bytes that came past us are checked whole, appended once, and never believed."""

from __future__ import annotations

import asyncio
import random
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from headwater.api.uploads import Uploads
from headwater.api.verbs import ProducerId, Upload
from headwater.errors import Conflict, Fenced, HeadwaterError, InvalidRequest, NotFound
from headwater.limits import BATCH_BYTES_MAX, PRESIGN_S, UPLOAD_MS, WINDOW
from headwater.log.batch import batch_of_records
from headwater.log.intents import decode_segment
from headwater.log.keys import is_staged, parse_segment_key
from headwater.log.namespace import Appended, Namespace
from headwater.log.operations import RaiseFloor
from headwater.log.outcomes import ExpiredUpload, OutOfOrder
from headwater.log.verify import verify
from headwater.sim.loop import sim_loop
from headwater.store import ObjectStore, open_store
from headwater.store.memory import MemoryStore
from headwater.types import Record
from tests.api.helpers_crash import Crash, mortal
from tests.contract.servers import ACCESS_KEY, SECRET_KEY, S3Server, servers
from tests.log.helpers import keys_under, memory, opened, simulate

DATA = batch_of_records(
    [Record(value=b"v" * 50, timestamp=1_000 + number) for number in range(40)], default_timestamp=0
).data


class PutsHere:
    """A presigner of a store that has none: its URL is the key below the namespace."""

    def put(self, key: str, length: int, expires_s: int = PRESIGN_S) -> tuple[str, Mapping[str, str]]:
        return key, {"content-length": str(length), "if-none-match": "*"}

    def get(self, key: str, start: int, end: int, expires_s: int = PRESIGN_S) -> tuple[str, Mapping[str, str]]:
        raise AssertionError


def uploads(namespace: Namespace) -> Uploads:
    return Uploads(namespace, PutsHere())


async def start(store: MemoryStore) -> Namespace:
    namespace = await opened(store)
    await namespace.create_topic("t", 2)
    return namespace


async def sent(store: ObjectStore, upload: Upload, data: bytes = DATA) -> None:
    """What the client does."""
    await store.put_if_absent(f"ns/{upload.url}", upload.prefix + data)


async def read(store: ObjectStore) -> list[pa.RecordBatch]:
    namespace = await opened(store, seed=99)
    return [chunk.decode() async for chunk in namespace.reader.chunks("t", 1, 0)]


def test_an_uploaded_batch_is_appended_once_however_often_it_is_asked_for() -> None:
    async def main() -> None:
        store = memory()
        namespace = await start(store)
        upload = await uploads(namespace).create("t", 1, len(DATA))
        await sent(store, upload)
        assert [] == await read(store)
        appended = await uploads(namespace).append(upload.id)
        assert Appended(topic="t", partition=1, base_offset=0, count=40, commit=2) == appended
        assert appended == await uploads(await opened(store, seed=2)).append(upload.id, token="anything@1")
        (batch,) = await read(store)
        assert (40, 1_039) == (len(batch), batch.column("timestamp").cast(pa.int64())[39].as_py())

    simulate(main())


def test_the_object_is_a_staged_segment_that_verify_likes() -> None:
    async def main() -> None:
        store = memory()
        namespace = await start(store)
        upload = await uploads(namespace).create("t", 1, len(DATA))
        key = parse_segment_key(upload.url)
        assert (True, 1, "") == (is_staged(upload.url), key.tip, key.tag)
        await sent(store, upload)
        assert key.writer == decode_segment((await store.get(f"ns/{upload.url}")).data).writer
        await uploads(namespace).append(upload.id)
        await namespace.drain()
        report = await verify(namespace.store, clock=namespace.chain.clock, rng=random.Random(1))
        assert ([], []) == (report.problems, report.notes)

    simulate(main())


def test_every_upload_has_a_segment_and_an_id_of_its_own() -> None:
    async def main() -> None:
        namespace = await start(memory())
        made = [await uploads(namespace).create("t", 0, 100) for _ in range(20)]
        assert (20, 20) == (len({upload.url for upload in made}), len({upload.id for upload in made}))

    simulate(main())


# -- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"x" * len(DATA),
        DATA[:-8] + b"\x01" * 8,
        DATA[: len(DATA) // 2] + bytes(len(DATA) - len(DATA) // 2),
    ],
    ids=["noise", "no end", "half"],
)
def test_bytes_that_are_no_batch_are_refused_and_nothing_is_appended(data: bytes) -> None:
    async def main() -> None:
        store = memory()
        namespace = await start(store)
        upload = await uploads(namespace).create("t", 1, len(DATA))
        await sent(store, upload, data)
        for _ in range(2):
            with pytest.raises(InvalidRequest):
                await uploads(namespace).append(upload.id)
        assert ([], 1) == (await read(store), namespace.state.seq)

    simulate(main())


@pytest.mark.parametrize("length", [len(DATA) - 1, len(DATA) + 1, 1])
def test_another_length_than_was_announced_is_refused(length: int) -> None:
    async def main() -> None:
        store = memory()
        namespace = await start(store)
        upload = await uploads(namespace).create("t", 1, length)
        await sent(store, upload)
        with pytest.raises(InvalidRequest, match=f"has {len(upload.prefix) + len(DATA)} bytes"):
            await uploads(namespace).append(upload.id)

    simulate(main())


def test_a_changed_prefix_is_refused() -> None:
    async def main() -> None:
        store = memory()
        namespace = await start(store)
        upload = await uploads(namespace).create("t", 1, len(DATA))
        await store.put(f"ns/{upload.url}", upload.prefix[:-2] + b"x\n" + DATA)
        with pytest.raises(InvalidRequest, match="prefix"):
            await uploads(namespace).append(upload.id)

    simulate(main())


def test_an_append_before_the_put_says_so_and_may_be_repeated_after_it() -> None:
    async def main() -> None:
        store = memory()
        namespace = await start(store)
        upload = await uploads(namespace).create("t", 1, len(DATA))
        with pytest.raises(NotFound, match="PUT the prefix"):
            await uploads(namespace).append(upload.id)
        await sent(store, upload)
        assert 40 == (await uploads(namespace).append(upload.id)).count

    simulate(main())


def test_what_cannot_be_is_refused_before_anything_is_made() -> None:
    async def main() -> None:
        store = memory()
        namespace = await start(store)
        for length in (0, -1, BATCH_BYTES_MAX + 1):
            with pytest.raises(InvalidRequest, match="A batch has"):
                await uploads(namespace).create("t", 0, length)
        for topic, partition in (("nope", 0), ("t", 2), ("t", -1)):
            with pytest.raises(NotFound):
                await uploads(namespace).create(topic, partition, 1)
        with pytest.raises(InvalidRequest, match="cannot presign"):
            await Uploads(namespace).create("t", 0, 1)
        assert [] == await keys_under(store, "ns/upload/")
        upload = await uploads(namespace).create("t", 0, BATCH_BYTES_MAX, "ann")
        with pytest.raises(NotFound):
            await uploads(namespace).append(upload.id, principal="bob")
        with pytest.raises(InvalidRequest, match="producer"):
            await uploads(namespace).append(upload.id, sequence=3, principal="ann")
        for bad in ("", "../manifest/1", "a" * 32):
            with pytest.raises(NotFound):
                await uploads(namespace).append(bad)

    simulate(main())


def test_an_upload_expires_by_the_stores_clock() -> None:
    async def main() -> None:
        store = memory()
        namespace = await start(store)
        in_time, late = [await uploads(namespace).create("t", 1, len(DATA)) for _ in range(2)]
        await sent(store, in_time)
        await sent(store, late)
        await sim_loop().sleep(UPLOAD_MS / 1_000)
        await uploads(namespace).append(in_time.id)
        await sim_loop().sleep(0.001)
        with pytest.raises(ExpiredUpload):
            await uploads(namespace).append(late.id)
        assert 0 == (await uploads(namespace).append(in_time.id)).base_offset
        assert 1 == len(await read(store))

    simulate(main())


# -- identity -------------------------------------------------------------------------------------------------


def test_an_upload_takes_part_in_its_producers_numbering() -> None:
    async def main() -> None:
        store = memory()
        namespace = await start(store)
        made = await namespace.producer()
        producer = ProducerId(id=made.id, epoch=made.epoch)
        first, second = [await uploads(namespace).create("t", 1, len(DATA)) for _ in range(2)]
        for upload in (first, second):
            await sent(store, upload)
        with pytest.raises(OutOfOrder):
            await uploads(namespace).append(second.id, producer=producer, sequence=40)
        assert 0 == (await uploads(namespace).append(first.id, producer=producer, sequence=0)).base_offset
        assert 40 == (await uploads(namespace).append(second.id, producer=producer, sequence=40)).base_offset
        with pytest.raises(Conflict, match="sequence 40"):
            await uploads(namespace).append(second.id, producer=producer, sequence=80)
        third = await uploads(namespace).create("t", 1, len(DATA))
        await sent(store, third)
        # The same sequence again, in another upload: the records are there, and are not there twice.
        assert 40 == (await uploads(namespace).append(third.id, producer=producer, sequence=40)).base_offset
        fourth = await uploads(namespace).create("t", 1, len(DATA))
        await sent(store, fourth)
        await made.renew()
        with pytest.raises(Fenced):
            await uploads(namespace).append(fourth.id, producer=producer, sequence=80)
        assert 2 == len(await read(store))

    simulate(main())


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("manifests", [0, WINDOW + 5])
def test_a_crash_at_any_write_of_append_is_finished_by_the_next_call(applied: bool, manifests: int) -> None:
    async def crashed_at(write: int) -> bool:
        store = memory()
        await start(store)
        dying, namespace = await mortal(store, seed=2)
        upload = await uploads(namespace).create("t", 1, len(DATA))
        await sent(store, upload)
        dying.dies(write, applied=applied)
        try:
            first = await uploads(namespace).append(upload.id)
        except (Crash, HeadwaterError):
            first = None
        later = await opened(store, seed=3)
        for _ in range(manifests):
            await later.writer.commit(ops=[RaiseFloor(floor=0)])
        appended = await uploads(later).append(upload.id)
        assert first in (None, appended)
        assert 1 == len(await read(store))
        await later.drain()
        return dying.dead

    async def main() -> None:
        assert [True, True, True, False] == [await crashed_at(write) for write in range(4)]

    simulate(main())


def test_many_who_append_at_once_append_once() -> None:
    async def main() -> None:
        store = memory()
        namespace = await start(store)
        upload = await uploads(namespace).create("t", 1, len(DATA))
        await sent(store, upload)
        places = [uploads(await opened(store, seed=seed)) for seed in range(2, 7)]
        first, *others = await asyncio.gather(*(place.append(upload.id) for place in places))
        assert [first] * 4 == others
        assert 1 == len(await read(store))

    simulate(main())


# -- over HTTP --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with servers(tmp_path_factory.mktemp("s3")) as started:
        yield started.get("moto")


def test_a_client_puts_to_the_url_and_the_batch_is_read_back(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)

    async def main() -> None:
        async with await Namespace.open(open_store(moto.url("up", "obstore")), "ns", owns_store=True) as namespace:
            await namespace.create_topic("t", 2)
            upload = await Uploads(namespace).create("t", 1, len(DATA))
            status = await asyncio.to_thread(_put, upload, upload.prefix + DATA)
            assert 200 == status
            appended = await Uploads(namespace).append(upload.id)
            fetched = await namespace.reader.fetch("t", 1, appended.base_offset)
            assert [DATA] == [chunk.data for chunk in fetched.chunks]
            assert appended == await Uploads(namespace).append(upload.id)

    asyncio.run(main())


def _put(upload: Upload, body: bytes) -> int:
    request = urllib.request.Request(upload.url, method="PUT", headers=dict(upload.headers), data=body)
    request.add_unredirected_header("Content-type", "application/octet-stream")  # urllib's own is a form's
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(answer.status)
