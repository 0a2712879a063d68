"""``bench replay``: reading a whole partition back, beside others that read the same Parquet files.

A partition of so many MiB (keys and values) is written and archived as ever: 100-byte records, 1 KB records, and flight
data as JSON. Then it is read by turns: by ``replay()``; by pyarrow, which is given the files, once as a dataset and
once file by file, whichever is faster; by DuckDB's ``read_parquet``; and as plain bytes. All give every column of every
row. The file store is a directory, the S3 store a server in another process of this machine.

Figures are medians of the rounds, since a shared machine has lucky moments as well as bad ones: of ten scans of one GiB
by pyarrow the fastest took two thirds of the middle one's time. ``ratio_to_best`` is the same of the fastest rounds.

Then the seek: of a partition of many small files, one record in the middle is asked for by its timestamp.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as fs
import pyarrow.parquet as pq

from headwater.bench.buckets import CREDENTIALS, bucket, environment
from headwater.bench.records import KINDS, blocks, payload_bytes
from headwater.clock import stopwatch_s
from headwater.errors import HeadwaterError
from headwater.limits import FILES_MAX, MIB
from headwater.log.batch import encode_arrow
from headwater.log.codec_schema import TIMESTAMP
from headwater.log.files import PAGE_FILES, encode
from headwater.log.keys import archive_key, file_page_key, fresh_name
from headwater.log.namespace import Namespace
from headwater.log.operations import File, SwapFiles
from headwater.log.parquet import FileBuilder, placed
from headwater.replay import files, replay, replay_batches
from headwater.store import open_store
from headwater.store.memory import MemoryStore
from headwater.store.metered import MeteredStore
from headwater.upkeep.archiver import archive

ROUNDS: Final = 5
STORES: Final = ("file", "s3")
TOPIC: Final = "bench"
SEEK_FILES: Final = 10_000
SEEK_ROWS: Final = 4  # records of each of those files


def bench(
    mib: int = 64, rounds: int = ROUNDS, stores: tuple[str, ...] = STORES, seek_files: int = SEEK_FILES
) -> dict[str, Any]:
    """The report of ``headwater bench replay``. ``ratio_to_pyarrow`` is the worst of all rows."""
    with environment(CREDENTIALS):
        results = [_measured(store, kind, mib, rounds) for store in stores for kind in KINDS]
    return {
        "bench": "replay",
        "mib": mib,
        "rounds": rounds,
        "ratio_to_pyarrow": min(row["ratio_to_pyarrow"] for row in results),
        "seek": asyncio.run(_seek(seek_files)),
        "results": results,
    }


def _measured(store: str, kind: str, mib: int, rounds: int) -> dict[str, Any]:
    with bucket(store) as url:
        size, records = asyncio.run(_written(url, kind, mib))
        paths = [file.url for file in files(url, TOPIC)]
        contenders = _contenders(store, url, paths)
        took: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(rounds):
            names = list(contenders)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                with stopwatch() as seconds:
                    rows = contenders[name]()
                assert rows in (records, -1), f"{name} gave {rows} of {records} records"
                took[name].append(seconds())
    return _figures(store, kind, size, records, len(paths), took)


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Seconds since the block was entered."""
    start = stopwatch_s()
    yield lambda: stopwatch_s() - start


def _figures(
    store: str, kind: str, size: int, records: int, count: int, took: Mapping[str, list[float]]
) -> dict[str, Any]:
    usual = {name: median(seconds) for name, seconds in took.items()}
    best = {name: min(seconds) for name, seconds in took.items()}
    duck = usual.get("duckdb")
    return {
        "store": store,
        "records": kind,
        "mb_per_s": _rate(size, usual["replay"]),
        "records_per_s": round(records / usual["replay"]),
        "pyarrow_dataset_mb_per_s": _rate(size, usual["pyarrow dataset"]),
        "pyarrow_files_mb_per_s": _rate(size, usual["pyarrow files"]),
        "ratio_to_pyarrow": _ratio(usual),
        "ratio_to_best": _ratio(best),
        "duckdb_mb_per_s": None if duck is None else _rate(size, duck),
        "raw_mb_per_s": _rate(size, usual["raw"]),  # of records, as the others; stored bytes are fewer
        "files": count,
    }


def _rate(size: int, seconds: float) -> float:
    return round(size / seconds / 1e6, 1)


def _ratio(seconds: Mapping[str, float]) -> float:
    """How fast a replay is beside pyarrow's faster way."""
    return round(min(seconds["pyarrow dataset"], seconds["pyarrow files"]) / seconds["replay"], 3)


# -- what is read -----------------------------------------------------------------------------------


async def _written(url: str, kind: str, mib: int) -> tuple[int, int]:
    """Bytes of keys and values, and records, of a partition that is archived whole."""
    size = records = 0
    async with await Namespace.open(open_store(url), owns_store=True) as log:
        await log.create_topic(TOPIC)
        for block in blocks(kind):
            await log.append(TOPIC, 0, encode_arrow(block))
            size += payload_bytes(block)
            records += block.num_rows
            if size >= mib * MIB:
                break
        await archive(log, all=True)
        (partition,) = log.topic(TOPIC).partitions
        assert partition.archived == records, "everything is archived"
    return size, records


# -- who reads it --------------------------------------------------------------------------------------


def _contenders(store: str, url: str, paths: list[str]) -> dict[str, Callable[[], int]]:
    where, system = _opened(store, url, paths)
    contenders = {
        "replay": lambda: sum(batch.num_rows for batch in replay(url, TOPIC)),
        "pyarrow dataset": lambda: _dataset_rows(where, system),
        "pyarrow files": lambda: _file_rows(where, system),
        "raw": lambda: _raw(url, paths),
    }
    if store == "file":  # DuckDB reads s3:// through an extension that it would have to download
        contenders["duckdb"] = lambda: _duckdb_rows(where)
    return contenders


def _opened(store: str, url: str, paths: list[str]) -> tuple[list[str], fs.FileSystem]:
    """The files as pyarrow names them, and the file system that it reads them from."""
    if store == "file":
        return [path.removeprefix("file://") for path in paths], fs.LocalFileSystem(use_mmap=True)
    endpoint = url.partition("endpoint_url=http://")[2].partition("&")[0]
    system = fs.S3FileSystem(endpoint_override=endpoint, scheme="http", region="us-east-1", anonymous=True)
    return [path.removeprefix("s3://") for path in paths], system


def _dataset_rows(paths: list[str], system: fs.FileSystem) -> int:
    found = ds.dataset(paths, format="parquet", filesystem=system, partitioning=None)
    return sum(batch.num_rows for batch in found.scanner().to_reader())


def _file_rows(paths: list[str], system: fs.FileSystem) -> int:
    rows = 0
    for path in paths:
        with system.open_input_file(path) as opened:
            rows += pq.ParquetFile(opened, pre_buffer=True).read().num_rows
    return rows


def _duckdb_rows(paths: list[str]) -> int:
    try:
        import duckdb
    except ImportError as error:
        raise HeadwaterError("The bench needs DuckDB: pip install 'headwater[sql]'") from error
    with duckdb.connect() as connection:
        found = connection.sql("SELECT * FROM read_parquet($paths)", params={"paths": paths}).to_arrow_reader(122_880)
        return sum(batch.num_rows for batch in found)


def _raw(url: str, paths: list[str]) -> int:
    """All bytes of the same objects, one after another, through the store."""
    base = url.partition("?")[0].rstrip("/") + "/"

    async def read() -> None:
        store = open_store(url)
        for path in paths:
            await store.get(path.removeprefix(base))
        await store.aclose()

    asyncio.run(read())
    return -1


# -- a seek --------------------------------------------------------------------------------------------------


async def _seek(count: int) -> dict[str, Any]:
    """What a fresh process reads to find the record of one timestamp in the middle of ``count`` files."""
    shelf = MemoryStore()
    async with await Namespace.open(shelf) as log:
        await _many_files(log, count)
    store = MeteredStore(shelf)
    async with await Namespace.open(store) as log:
        middle = datetime.fromtimestamp(count // 2 * SEEK_ROWS / 1_000, UTC)
        before = store.counts.copy()
        with stopwatch() as seconds:
            found = replay_batches(log, TOPIC, start=middle, end=middle + timedelta(milliseconds=1))
            rows = [batch async for batch in found]
        took = store.counts - before
    assert [batch.column("offset").to_pylist() for batch in rows] == [[count // 2 * SEEK_ROWS]]
    # One of the GETs asks whether there is a later commit, and finds nothing.
    return {
        "files": count,
        "objects": took.get - 1,
        "requests": took.get + took.head + took.list,
        "bytes": took.bytes_in,
        "ms": round(seconds() * 1e3, 2),
    }


async def _many_files(log: Namespace, count: int) -> None:
    """A partition whose archive has ``count`` files of a few records; offset and timestamp (ms) are the same."""
    topic = await log.create_topic(TOPIC)
    rows = pa.table(
        {"timestamp": pa.array(range(count * SEEK_ROWS)).cast(TIMESTAMP), "value": [b"v"] * (count * SEEK_ROWS)}
    )
    await log.append(TOPIC, 0, encode_arrow(rows))
    made = [await _small_file(log, base) for base in range(0, count * SEEK_ROWS, SEEK_ROWS)]
    pages = []
    while len(made) > FILES_MAX:
        listed, made = made[:PAGE_FILES], made[PAGE_FILES:]
        page, body = encode(listed, file_page_key(log.state.seq, topic.id, 0, fresh_name(log.chain.rng, 50)))
        await log.store.put(page.key, body)
        pages.append(page)
    swap = SwapFiles(topic=topic.id, partition=0, base=0, end=count * SEEK_ROWS, pages=pages, files=made)
    await log.writer.commit(ops=[swap])


async def _small_file(log: Namespace, base: int) -> File:
    builder = FileBuilder()
    offsets = pa.array(range(base, base + SEEK_ROWS))
    nothing = pa.nulls(SEEK_ROWS)
    columns = {"offset": offsets, "timestamp": offsets.cast(TIMESTAMP), "key": nothing, "value": nothing}
    builder.add(pa.table({**columns, "headers": nothing}))
    built = builder.finish()
    key = archive_key(TOPIC, 0, base, base + SEEK_ROWS, log.state.seq, fresh_name(log.chain.rng, 50))
    await log.store.put(key, memoryview(built.data))
    return placed(built, base=base, end=base + SEEK_ROWS, key=key)
