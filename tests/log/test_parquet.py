"""Making archive files: how they are cut and encoded, whatever sizes rows have and whatever pieces they come in."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.errors import Corrupt, InvalidRequest
from headwater.limits import MIB
from headwater.log import frame, keys, parquet
from headwater.log.codec_schema import HEADERS, PLACED_SCHEMA
from headwater.log.operations import Column, File

TYPED = {
    "b": ("bool", [True, None, False]),
    "i8": ("int8", [-128, 127, None]),
    "u64": ("uint64", [2**64 - 1, 0, None]),
    "f": ("double", [1.5, None, -0.0]),
    "s": ("string", ["é", None, ""]),
    "x": ("binary", [b"\0", None, b""]),
    "d": ("date32[day]", [None, 0, 20_000]),
    "t": ("timestamp[us, tz=UTC]", [0, None, -1]),
    "dec": ("decimal128(10, 2)", [Decimal("1.25"), None, Decimal("-99999999.99")]),
    "fix": ("fixed_size_binary[4]", [b"abcd", None, b"\0\0\0\0"]),
    "l": ("list<item: int32>", [[1, None], None, []]),
    "st": ("struct<a: int64, b: string>", [{"a": 1, "b": None}, None, {"a": None, "b": "x"}]),
}


def rows(first: int, count: int, *, size: int = 10, rng: random.Random | None = None) -> pa.RecordBatch:
    rng = rng or random.Random(first)
    columns: list[Any] = [
        pa.array(range(first, first + count), pa.int64()),
        pa.array([5_000 - each for each in range(first, first + count)], pa.timestamp("ms", tz="UTC")),
        pa.array([b"k%d" % (each % 5) for each in range(first, first + count)], pa.binary()),
        pa.array([rng.randbytes(size) for _ in range(count)], pa.binary()),
        pa.nulls(count, HEADERS),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=PLACED_SCHEMA)


def made(*batches: pa.RecordBatch | pa.Table) -> parquet.Built:
    builder = parquet.FileBuilder()
    for batch in batches:
        builder.add(batch)
    return builder.finish()


def placed(built: parquet.Built, end: int = 10**9) -> File:
    return parquet.placed(built, base=0, end=end, key=keys.archive_key("t", 0, 0, end, 0, "aaaa"))


def meta(built: parquet.Built) -> pq.FileMetaData:
    return pq.read_metadata(pa.BufferReader(built.data))


def test_a_files_entry_says_what_is_in_it() -> None:
    built = made(rows(3, 100), rows(103, 50))
    assert (150, 5_000 - 152, 5_000 - 3) == (built.count, built.min, built.max)
    assert frame.checksum(built.data.to_pybytes()) == built.crc
    file = parquet.placed(built, base=0, end=200, key="k", cleaned_ms=7)
    assert (0, 200, 150, built.data.size, 7) == (file.base, file.end, file.count, file.bytes, file.cleaned_ms)
    footer = built.data.to_pybytes()[-file.footer :]
    assert meta(built).equals(parquet.read_footer(footer, file))
    with pytest.raises(Corrupt, match="'k'"):
        parquet.read_footer(footer[1:], file)


def test_a_file_without_records_is_a_file() -> None:
    built = made(rows(0, 0))
    assert (0, 0, 0, 0) == (built.count, built.min, built.max, meta(built).num_rows)
    assert PLACED_SCHEMA.names == pq.read_table(pa.BufferReader(built.data)).schema.names


def test_columns_are_encoded_as_suits_them() -> None:
    found = meta(made(rows(0, 10_000)))
    columns = {found.schema.column(i).path: found.row_group(0).column(i) for i in range(found.num_columns)}
    for name in ("offset", "timestamp"):
        assert "DELTA_BINARY_PACKED" in columns[name].encodings
        assert columns[name].total_compressed_size < 2_000
    assert columns["key"].has_dictionary_page
    assert not columns["value"].has_dictionary_page
    assert {"ZSTD"} == {each.compression for each in columns.values()}
    assert all(each.has_offset_index and each.has_column_index for each in columns.values())
    assert (0, 9_999) == (columns["offset"].statistics.min, columns["offset"].statistics.max)
    assert (pq.SortingColumn(0),) == found.row_group(0).sorting_columns


def test_metadata_says_which_file_it_is() -> None:
    builder = parquet.FileBuilder((), {"headwater.topic": "t"})
    builder.add(rows(0, 1))
    found = pq.read_metadata(pa.BufferReader(builder.finish().data)).metadata
    assert (b"1", b"t") == (found[b"headwater.format"], found[b"headwater.topic"])


def test_row_groups_are_full_whatever_pieces_rows_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 100)
    rng = random.Random(3)
    whole = rows(0, 1_050)
    for _ in range(5):
        builder, at = parquet.FileBuilder(), 0
        while at < whole.num_rows:
            step = rng.choice([1, 3, 99, 100, 101, 350])
            builder.add(whole.slice(at, step))
            at += step
            assert builder.waiting < 100 * 100
        found = meta(builder.finish())
        assert [100] * 10 + [50] == [found.row_group(i).num_rows for i in range(found.num_row_groups)]
    again = pa.Table.from_batches([whole])
    assert made(whole).data.equals(made(again).data)


def test_many_tiny_pieces_take_no_more_time_than_few() -> None:
    builder = parquet.FileBuilder()
    whole = rows(0, 5_000, size=1)
    for at in range(whole.num_rows):
        builder.add(whole.slice(at, 1))
    built = builder.finish()
    assert (5_000, 1) == (built.count, meta(built).num_row_groups)


def test_values_of_the_largest_size_get_row_groups_of_their_own() -> None:
    builder = parquet.FileBuilder()
    most = 0
    for first in range(4):
        builder.add(rows(first, 1, size=8 * MIB))
        most = max(most, builder.waiting)
    built = builder.finish()
    assert 4 == meta(built).num_row_groups
    assert most < parquet.ROW_GROUP_BYTES
    assert 32 * MIB < built.data.size < 33 * MIB


@pytest.mark.parametrize("name", TYPED)
def test_typed_columns_come_back_as_they_were(name: str) -> None:
    kind, values = TYPED[name]
    builder = parquet.FileBuilder([Column(name, kind)])
    typed = pa.array(values, builder.schema.field(name).type)
    builder.add(pa.Table.from_batches([rows(0, 3)]).append_column(name, typed))
    builder.add(rows(3, 2))
    found = pq.read_table(pa.BufferReader(builder.finish().data))
    assert typed.type == found.schema.field(name).type
    assert [*typed.to_pylist(), None, None] == found.column(name).to_pylist()


def test_rows_that_do_not_fit_are_refused_and_change_nothing() -> None:
    builder = parquet.FileBuilder([Column("n", "int8")])
    builder.add(rows(0, 2))
    wrong = pa.Table.from_batches([rows(2, 1)]).append_column("n", pa.array([1_000], pa.int64()))
    with pytest.raises(InvalidRequest, match="do not fit"):
        builder.add(wrong)
    builder.add(rows(2, 1))
    assert 3 == builder.finish().count


def test_rows_out_of_order_are_a_mistake_of_ours() -> None:
    builder = parquet.FileBuilder()
    builder.add(rows(10, 70_000, size=0))
    with pytest.raises(AssertionError, match="ascend"):
        builder.add(rows(5, 70_000, size=0))


def test_a_flipped_bit_in_a_page_is_found_by_its_checksum() -> None:
    built = made(rows(0, 2_000, size=50))
    file = placed(built)
    chunk = meta(built).row_group(0).column(3)
    data = bytearray(built.data.to_pybytes())
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    footer = parquet.read_footer(bytes(data[-file.footer :]), file)
    with pytest.raises(Corrupt) as caught:
        parquet.decode_row_groups(pa.BufferReader(bytes(data)), footer, [0], ["value"], file)
    assert file.key == caught.value.data["key"]


@pytest.mark.parametrize("kind", [bytes, memoryview, bytearray, pa.py_buffer])
def test_the_checksum_is_that_of_every_object_with_the_c_library_and_without_it(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random.Random(5).randbytes(600_001)
    first, second = kind(data[:300_000]), kind(data[300_000:])
    assert parquet.checksum(second, parquet.checksum(first)) == frame.checksum(data)
    assert parquet.checksum(kind(b"")) == 0
    monkeypatch.setattr(parquet, "_extend", lambda: None)
    assert parquet.checksum(second, parquet.checksum(first)) == frame.checksum(data)


def test_the_c_library_is_found_here() -> None:
    assert parquet._extend() is not None


def test_row_groups_have_sums_of_their_own_and_make_the_sum_of_the_file() -> None:
    builder = parquet.FileBuilder()
    for start in range(0, 200_000, 50_000):
        builder.add(rows(start, 50_000))
    built = builder.finish()
    file = parquet.placed(built, base=0, end=200_000, key="k")
    data = memoryview(built.data)
    sums = parquet.sums_of(parquet.read_footer(bytes(data[-file.footer :]), file))
    assert len(sums) > 2
    assert [0, *(each.end for each in sums[:-1])] == [each.start for each in sums]
    assert [frame.checksum(data[each.start : each.end]) for each in sums] == [each.crc for each in sums]
    assert file.crc == frame.checksum(data)
    parquet.check_groups(file, sums, lambda start, end: pa.py_buffer(data[start:end]))
    parquet.check_rest(file, sums, data[sums[-1].end :])
    with pytest.raises(Corrupt, match="CRC32C"):
        parquet.check_groups(file, sums[1:2], lambda start, end: pa.py_buffer(bytes(end - start)))
    with pytest.raises(Corrupt, match="CRC32C"):
        parquet.check_rest(file, sums, data[sums[-1].end : -1])
