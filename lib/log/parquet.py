"""Archive files: Parquet with the columns of a record, and the typed ones of a topic with a schema.

A file holds neighbouring offsets of one partition in order. Row groups hold 65,536 rows or about 8 MiB: a seek reads
one of them, and little memory is needed to write or read one. Offsets and timestamps are delta-encoded, keys have a
dictionary, values do not; zstd level 1 packs as well as level 3 here and writes at twice its speed. Pages have
checksums and an index. Pure: rows in, bytes out.

Source: the Apache Parquet format, version 2.6.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, cast

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headwater.errors import Corrupt, InvalidRequest
from headwater.limits import OBJECT_BYTES_MAX
from headwater.log import columns as types
from headwater.log import crc, frame
from headwater.log.arrow_types import arrow_type
from headwater.log.codec_schema import PLACED_SCHEMA
from headwater.log.operations import Column, File
from headwater.types import Buffer

ROW_GROUP_ROWS: Final = 65_536
ROW_GROUP_BYTES: Final = 8 << 20
PAGE_BYTES: Final = 1 << 20
SUMS: Final = "headwater.crc32c"  # in the footer: start, end and CRC32C of each row group's bytes
TAIL: Final = 8  # bytes behind the footer: its length, and the magic "PAR1"

FOREIGN: Final = (
    pa.ArrowException,
    OSError,
    ValueError,
    TypeError,
    OverflowError,
)  # what damaged bytes make pyarrow raise


def file_schema(columns: Sequence[Column] = ()) -> pa.Schema:
    """`PLACED_SCHEMA`, and the typed columns behind it, all of them nullable: old values may not have them."""
    typed: list[pa.Field[Any]] = [pa.field(column.name, arrow_type(types.parse(column.type))) for column in columns]
    return pa.schema([*PLACED_SCHEMA, *typed])


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A finished file: its bytes, and what a ``File`` says of them. Timestamps are 0 in a file without records."""

    data: pa.Buffer
    count: int
    footer: int
    min: int
    max: int
    crc: int
    footer_crc: int


class _Summed:
    """Where a file is written: memory, and the CRC32C of what came."""

    def __init__(self) -> None:
        self.crc = 0
        self.closed = False
        self._parts = pa.BufferOutputStream()

    def write(self, part: Buffer) -> int:
        self.crc = checksum(part, self.crc)
        self._parts.write(part)
        return len(part)

    def tell(self) -> int:
        return self._parts.tell()

    def data(self) -> pa.Buffer:
        return self._parts.getvalue()

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        self.closed = True


class FileBuilder:
    """Makes a file of rows that come in any number of pieces, by ascending offset.

    Memory: the bytes encoded so far, and the rows of one row group. ``bytes`` are those encoded so far; what waits for
    its row group adds at most ``waiting`` bytes.
    """

    def __init__(self, columns: Sequence[Column] = (), metadata: Mapping[str, str] | None = None) -> None:
        self.schema = file_schema(columns)
        self.rows = 0
        self.waiting = 0
        self._rows_waiting = 0
        self._sink = _Summed()
        self._sums: list[tuple[int, int, int]] = []
        self._waiting: list[pa.RecordBatch] = []
        self._times: list[tuple[int, int]] = []
        self._last = -1
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._sink, mode="w"),  # type: ignore[arg-type]  # it asks for what a file does
            self.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=["key", *_texts(self.schema)],  # type: ignore[arg-type]
            column_encoding={"offset": "DELTA_BINARY_PACKED", "timestamp": "DELTA_BINARY_PACKED"},
            data_page_size=PAGE_BYTES,
            write_page_index=True,
            write_page_checksum=True,
            sorting_columns=[pq.SortingColumn(0)],
        )
        self._writer.add_key_value_metadata({"headwater.format": "1", **(metadata or {})})

    @property
    def bytes(self) -> int:
        """Bytes of the file so far."""
        return self._sink.tell()

    def add(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Put ``rows`` behind those that are there. Typed columns that they lack are null.

        Raises:
            InvalidRequest: a column does not fit.
        """
        for batch in self._fitted(rows).to_batches():
            for part in _parts(batch):
                self._take(part)

    def finish(self) -> Built:
        """The file. Nothing can be added any more."""
        self._flush()
        self._writer.add_key_value_metadata({SUMS: msgspec.json.encode(self._sums).decode()})
        self._writer.close()
        data = self._sink.data()
        assert data.size <= OBJECT_BYTES_MAX, f"a file of {data.size} bytes is no single object"
        footer = int.from_bytes(data[data.size - TAIL : data.size - 4], "little") + TAIL
        return Built(
            data=data,
            count=self.rows,
            footer=footer,
            min=min((low for low, _ in self._times), default=0),
            max=max((high for _, high in self._times), default=0),
            crc=self._sink.crc,
            footer_crc=frame.checksum(memoryview(data)[-footer:]),
        )

    def _fitted(self, rows: pa.RecordBatch | pa.Table) -> pa.Table:
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
        if table.schema.equals(self.schema):
            return table
        try:
            columns = [
                table.column(field.name).cast(field.type)
                if field.name in table.schema.names
                else pa.chunked_array([pa.nulls(table.num_rows, field.type)])
                for field in self.schema
            ]
            return pa.Table.from_arrays(columns, schema=self.schema)
        except FOREIGN as error:
            raise InvalidRequest(f"The rows do not fit the columns of the file: {error}.") from error

    def _take(self, part: pa.RecordBatch) -> None:
        room = ROW_GROUP_ROWS - self._rows_waiting
        for piece in (part.slice(0, room), part.slice(room)) if part.num_rows > room else (part,):
            self._waiting.append(piece)
            self.rows += piece.num_rows
            self._rows_waiting += piece.num_rows
            self.waiting += piece.nbytes
            if self._rows_waiting >= ROW_GROUP_ROWS or self.waiting >= ROW_GROUP_BYTES:
                self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.Table.from_batches(self._waiting, schema=self.schema).combine_chunks()
        offsets: Any = table.column("offset").combine_chunks()
        assert self._last < offsets[0].as_py(), "offsets ascend from piece to piece"
        assert _ascend(offsets), "offsets ascend"
        self._last = offsets[-1].as_py()
        times = cast(dict[str, int], pc.min_max(table.column("timestamp").cast(pa.int64())).as_py())
        self._times.append((times["min"], times["max"]))
        start = before = 0  # the first group's bytes include the magic before it
        if self._sums:
            start, before, self._sink.crc = self._sink.tell(), self._sink.crc, 0
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
        end, own = self._sink.tell(), self._sink.crc
        self._sink.crc = crc.combined(before, own, end - start)
        self._sums.append((start, end, own))
        self._waiting, self._rows_waiting, self.waiting = [], 0, 0


def placed(built: Built, *, base: int, end: int, key: str, cleaned_ms: int = 0) -> File:
    """The entry of the file that will lie at ``key`` and hold all kept records of ``[base, end)``."""
    return File(
        base=base,
        end=end,
        count=built.count,
        key=key,
        bytes=built.data.size,
        crc=built.crc,
        footer=built.footer,
        min=built.min,
        max=built.max,
        cleaned_ms=cleaned_ms,
        footer_crc=built.footer_crc,
    )


def checksum(data: Buffer | pa.Buffer, crc: int = 0) -> int:
    """CRC32C as ``frame.checksum``, of much at once: copies nothing, and other threads go on meanwhile."""
    extend = _extend()
    if extend is None:
        return frame.checksum(memoryview(data), crc)
    buffer = pa.py_buffer(data)
    return extend(crc, buffer.address, buffer.size)


@cache
def _extend() -> Callable[[int, int, int], int] | None:
    """The C function behind google-crc32c, whose own binding holds the interpreter; none where it is not found."""
    try:
        library = ctypes.CDLL(importlib.import_module("google_crc32c._crc32c").__file__)
        function = library.crc32c_extend
    except (ImportError, OSError, AttributeError):
        return None
    function.argtypes, function.restype = (ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_uint32
    return cast(Callable[[int, int, int], int], function)


def check_whole(file: File, *parts: Buffer) -> None:
    """See that the parts, in order, are the file's bytes. Raises ``Corrupt``."""
    crc = 0
    for part in parts:
        crc = checksum(part, crc)
    if sum(len(part) for part in parts) != file.bytes or crc != file.crc:
        raise Corrupt(f"{file.key!r}, a file of the archive, is damaged: it fails its CRC32C.", key=file.key)


@dataclass(frozen=True, slots=True)
class Sum:
    """The bytes ``[start, end)`` of a file that are a row group, and their CRC32C."""

    start: int
    end: int
    crc: int


def sums_of(metadata: pq.FileMetaData) -> list[Sum]:
    """Those of all row groups, in order; none of a file that was written before there were such."""
    found = (metadata.metadata or {}).get(SUMS.encode())
    sums = [Sum(*each) for each in msgspec.json.decode(found, type=list[tuple[int, int, int]])] if found else []
    return sums if len(sums) == metadata.num_row_groups else []


def check_rest(file: File, sums: Sequence[Sum], rest: Buffer | pa.Buffer) -> None:
    """See that ``rest``, what lies behind the row groups, makes the file's sum with theirs. Raises ``Corrupt``."""
    whole = 0
    for each in sums:
        whole = crc.combined(whole, each.crc, each.end - each.start)
    if checksum(rest, whole) != file.crc:
        raise Corrupt(f"{file.key!r}, a file of the archive, is damaged: it fails its CRC32C.", key=file.key)


def check_groups(file: File, sums: Sequence[Sum], take: Callable[[int, int], pa.Buffer]) -> None:
    """See that row groups are as they were written, just before they are decoded. Raises ``Corrupt``.

    ``take(start, end)`` gives bytes of the file.
    """
    for each in sums:
        data = take(each.start, each.end)
        if data.size != each.end - each.start or checksum(data) != each.crc:
            raise Corrupt(f"{file.key!r}, a file of the archive, is damaged: it fails its CRC32C.", key=file.key)


def read_footer(data: bytes, file: File) -> pq.FileMetaData:
    """The footer in the last ``file.footer`` bytes of the file. Raises ``Corrupt``."""
    try:
        if len(data) != file.footer or data[-4:] != b"PAR1":
            raise ValueError(f"{len(data)} bytes do not end as a Parquet file of {file.bytes} bytes does")
        if file.footer_crc and frame.checksum(data) != file.footer_crc:
            raise ValueError("its footer fails its CRC32C")  # some damage would end the process inside pyarrow
        found = pq.read_metadata(pa.BufferReader(data))
        if found.num_rows != file.count:
            raise ValueError(f"it has {found.num_rows} records and should have {file.count}")
        if found.schema.to_arrow_schema().names[: len(PLACED_SCHEMA.names)] != PLACED_SCHEMA.names:
            raise ValueError("it has other columns than a record")
        return found
    except FOREIGN as error:
        raise damaged(file, error) from error


def decode_row_groups(
    source: Any, footer: pq.FileMetaData, groups: Sequence[int], columns: Sequence[str], file: File
) -> pa.Table:
    """Columns of some row groups. ``source`` reads at the positions of the whole file. Raises ``Corrupt``."""
    try:
        reader = pq.ParquetFile(source, metadata=footer, page_checksum_verification=True)
        table = reader.read_row_groups(list(groups), columns=list(columns), use_threads=False)
        table.validate(full=True)
        return table.select(list(columns))
    except FOREIGN as error:
        raise damaged(file, error) from error


def damaged(file: File, error: BaseException) -> Corrupt:
    """The error that names the file."""
    return Corrupt(f"{file.key!r}, a file of the archive, cannot be read: {error}.", key=file.key)


def _ascend(offsets: Any) -> bool:
    steps: Any = pc.less(offsets.slice(0, len(offsets) - 1), offsets.slice(1))
    return bool(steps.null_count == 0 and steps.true_count == len(steps))


def _texts(schema: pa.Schema) -> list[str]:
    """Typed columns that may repeat themselves."""
    known = len(PLACED_SCHEMA.names)
    return [field.name for field in list(schema)[known:] if not pa.types.is_nested(field.type)]


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Pieces of at most a row group, as far as their average row tells."""
    if not batch.num_rows:
        return
    rows = max(1, min(ROW_GROUP_ROWS, batch.num_rows * ROW_GROUP_BYTES // max(batch.nbytes, 1)))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
