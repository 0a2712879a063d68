"""Archive files: what goes in comes out, seeks read little, and damage is named."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec import structs

from headwater.errors import Corrupt, NotFound
from headwater.log import keys, parquet
from headwater.log.archived import Archived
from headwater.log.codec_schema import HEADERS, PLACED_SCHEMA
from headwater.log.operations import Column, File
from headwater.store.memory import MemoryStore
from headwater.store.metered import MeteredStore
from tests.log.helpers import Parts, simulate


def rows(offsets: list[int], *, size: int = 10, rng: random.Random | None = None) -> pa.RecordBatch:
    rng = rng or random.Random(1)
    columns: list[Any] = [
        pa.array(offsets, pa.int64()),
        pa.array([1_000 + each for each in offsets], pa.timestamp("ms", tz="UTC")),
        pa.array([None if each % 7 == 0 else f"k{each % 5}".encode() for each in offsets], pa.binary()),
        pa.array([None if each % 11 == 0 else rng.randbytes(size) for each in offsets], pa.binary()),
        pa.array([[{"key": "h", "value": b"x"}] if each % 3 == 0 else None for each in offsets], HEADERS),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=PLACED_SCHEMA)


def built(*batches: pa.RecordBatch, columns: tuple[Column, ...] = (), end: int | None = None) -> tuple[File, bytes]:
    builder = parquet.FileBuilder(columns)
    for batch in batches:
        builder.add(batch)
    made = builder.finish()
    base = batches[0].column("offset")[0].as_py()
    end = end or batches[-1].column("offset")[-1].as_py() + 1
    key = keys.archive_key("t", 0, base, end, 0, "aaaa")
    return parquet.placed(made, base=base, end=end, key=key), made.data.to_pybytes()


async def stored(file: File, data: bytes) -> tuple[Archived, MeteredStore]:
    inner = MemoryStore()
    await inner.put(file.key, data)
    store = MeteredStore(inner)
    parts = Parts(store)
    return Archived(parts.chain, parts.lookup), store


async def all_rows(archived: Archived, file: File, start: int, bytes_max: int) -> pa.Table:
    found, at = [], start
    while at < file.end:
        batch, after = await archived.rows(file, at, bytes_max=bytes_max)
        assert after > at
        found.append(batch)
        at = after
    return pa.Table.from_batches(found, schema=PLACED_SCHEMA)


@pytest.mark.parametrize("offsets", [list(range(5, 500)), [1, 2, 9, 10, 400, 7_000], [3]])
def test_what_goes_in_comes_out(offsets: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 50)

    async def main() -> None:
        batch = rows(offsets)
        file, data = built(batch.slice(0, 100), batch.slice(100) if batch.num_rows > 100 else batch.slice(0, 0))
        assert (len(offsets), 1_000 + offsets[0], 1_000 + offsets[-1]) == (file.count, file.min, file.max)
        archived, _ = await stored(file, data)
        for bytes_max in (1, 1_000, 1 << 30):
            assert pa.Table.from_batches([batch]).equals(await all_rows(archived, file, offsets[0], bytes_max))

    if len(offsets) <= 100:
        batch = rows(offsets)
        file, data = built(batch)

        async def short() -> None:
            archived, _ = await stored(file, data)
            assert pa.Table.from_batches([batch]).equals(await all_rows(archived, file, offsets[0], 1))

        simulate(short())
    else:
        simulate(main())


def test_a_seek_reads_the_footer_once_and_one_row_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 1_000)

    async def main() -> None:
        file, data = built(rows(list(range(20_000)), size=100))
        archived, store = await stored(file, data)
        found, after = await archived.rows(file, 10_500, bytes_max=1)
        assert ([10_500], 10_501) == (found.column("offset").to_pylist(), after)
        assert (2, True) == (store.counts.get, store.counts.bytes_in < len(data) / 8)
        before = store.counts.copy()
        found, after = await archived.rows(file, 10_500, bytes_max=20_000)
        assert 1 == (store.counts - before).get
        assert after == found.column("offset")[-1].as_py() + 1
        before = store.counts.copy()
        found, after = await archived.rows(file, 10_500, bytes_max=1 << 30, columns=["key"])
        assert ["offset", "key"] == found.schema.names
        assert (9_500, 20_000) == (found.num_rows, after)
        assert (store.counts - before).bytes_in < len(data) / 4

    simulate(main())


def test_gaps_are_passed_over_and_the_end_is_the_files() -> None:
    async def main() -> None:
        file, data = built(rows([10, 11, 40]), end=100)
        archived, _ = await stored(file, data)
        found, after = await archived.rows(file, 12, bytes_max=1 << 20)
        assert ([40], 100) == (found.column("offset").to_pylist(), after)
        found, after = await archived.rows(file, 41, bytes_max=1 << 20)
        assert (0, 100, PLACED_SCHEMA) == (found.num_rows, after, found.schema)

    simulate(main())


def test_the_first_record_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 10)

    async def main() -> None:
        file, data = built(rows(list(range(100))))
        archived, _ = await stored(file, data)
        assert (0, 1_000) == await archived.first_at(file, 0, 0)
        assert (55, 1_055) == await archived.first_at(file, 1_055, 0)
        assert (70, 1_070) == await archived.first_at(file, 1_055, 70)
        assert None is await archived.first_at(file, 1_100, 0)
        assert len([each for each in range(100) if each % 11 == 0]) == await archived.nulls(file, "value")

    simulate(main())


def test_typed_columns_stand_beside_the_value() -> None:
    async def main() -> None:
        batch = pa.Table.from_batches([rows([0, 1, 2])])
        typed = batch.append_column("delay", pa.array([1, None, 3], pa.int32()))
        builder = parquet.FileBuilder([Column("delay", "int64"), Column("late", "list<item: string>")])
        builder.add(typed)
        made = builder.finish()
        file = parquet.placed(made, base=0, end=3, key=keys.archive_key("t", 0, 0, 3, 0, "aaaa"))
        archived, _ = await stored(file, made.data.to_pybytes())
        found, _ = await archived.rows(file, 0, bytes_max=1 << 20, columns=["delay", "late"])
        assert {"offset": [0, 1, 2], "delay": [1, None, 3], "late": [None] * 3} == found.to_pydict()
        plain, _ = await archived.rows(file, 0, bytes_max=1 << 20)
        assert PLACED_SCHEMA == plain.schema

    simulate(main())


def test_equal_rows_make_equal_bytes_and_other_tools_read_them() -> None:
    batch = rows(list(range(1_000)))
    _, data = built(batch)
    assert data == built(batch)[1]
    assert batch.equals(pq.read_table(pa.BufferReader(data)).combine_chunks().to_batches()[0].cast(PLACED_SCHEMA))
    meta = pq.read_metadata(pa.BufferReader(data))
    chunk = meta.row_group(0).column(0)
    assert ("ZSTD", True) == (chunk.compression, chunk.has_offset_index)
    assert "DELTA_BINARY_PACKED" in chunk.encodings


def test_large_rows_get_row_groups_of_their_own() -> None:
    batch = rows(list(range(12)), size=3 << 20)
    file, data = built(batch)
    meta = pq.read_metadata(pa.BufferReader(data))
    assert 3 <= meta.num_row_groups <= 12
    assert 12 == file.count


@pytest.mark.parametrize("where", ["footer", "pages", "cut", "foreign"])
def test_damage_is_corrupt_and_names_the_file(where: str) -> None:
    async def main() -> None:
        rng = random.Random(2)
        batch = rows(list(range(3_000)), size=60)
        whole = pa.Table.from_batches([batch])
        file, data = built(batch)
        named = []
        for _ in range(30):
            broken = bytearray(data)
            if where == "footer":
                broken[rng.randrange(len(data) - file.footer, len(data))] ^= 0xFF
            elif where == "pages":
                broken[rng.randrange(4, len(data) - file.footer)] ^= 0xFF
            elif where == "cut":
                del broken[rng.randrange(len(data)) :]
            else:
                broken[:] = rng.randbytes(len(data))
            archived, _ = await stored(file, bytes(broken))
            try:
                got = await all_rows(archived, file, 0, 1 << 30)
                assert got.equals(whole), "what is read is what was written, or it is Corrupt"
            except Corrupt as error:
                named.append(file.key in str(error))
        assert all(named)
        assert len(named) >= {"footer": 10, "pages": 20, "cut": 30, "foreign": 30}[where]

    simulate(main())


def test_a_file_without_records_is_passed_over() -> None:
    async def main() -> None:
        made = parquet.FileBuilder().finish()
        file = parquet.placed(made, base=5, end=9, key=keys.archive_key("t", 0, 5, 9, 0, "aaaa"))
        archived, _ = await stored(file, made.data.to_pybytes())
        found, after = await archived.rows(file, 5, bytes_max=1 << 20)
        assert (0, 9, PLACED_SCHEMA) == (found.num_rows, after, found.schema)
        assert None is await archived.first_at(file, 0, 5)

    simulate(main())


def test_an_entry_that_is_of_another_file_is_corrupt() -> None:
    async def main() -> None:
        file, data = built(rows([10, 11, 12]))
        for other in (structs.replace(file, base=11), structs.replace(file, end=12), structs.replace(file, max=1)):
            archived, _ = await stored(other, data)
            with pytest.raises(Corrupt, match=file.key):
                await archived.rows(other, 12, bytes_max=10)

    simulate(main())


def test_a_file_that_is_gone_is_not_found() -> None:
    async def main() -> None:
        file, data = built(rows([1, 2]))
        archived, store = await stored(file, data)
        await store.inner.delete([file.key])
        with pytest.raises(NotFound):
            await archived.rows(file, 1, bytes_max=10)

    simulate(main())
