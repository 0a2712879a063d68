"""From a stream of bytes to tables of records, block by block: lines, JSON lines and CSV.

A block becomes Arrow columns without touching records one by one. Only when a block holds something that Arrow
refuses is it gone through line by line, to name the line, or to take what is right but unusual.
"""

from __future__ import annotations

import contextlib
import csv
import io
import select
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal, NoReturn, cast

import pyarrow as pa
import pyarrow.compute as pc

from headwater.cli import fields
from headwater.errors import InvalidRequest
from headwater.limits import MIB, RECORD_BYTES_MAX
from headwater.log import rows

PATIENCE_S = 0.05  # how long a block waits for more of a slow stream
CSV_HEAD_BYTES = 1 * MIB  # what the header row has to fit in


@dataclass(frozen=True, slots=True)
class Block:
    """Records from the lines ``[first, last]``; ``table`` has the columns of a record that the source knows."""

    table: pa.Table
    nbytes: int
    first: int
    last: int


class BadRow(InvalidRequest):
    """A row that is no record. Nothing of its block was written."""

    what_now = "Correct the row, or leave it out, and go on from where this stopped."


def read_lines(stream: IO[bytes], block_bytes: int, separator: bytes | None) -> Iterator[Block]:
    """A record for each line; with ``separator`` its first occurrence sets the key apart from the value."""
    for data, first in _whole_lines(stream, block_bytes):
        lines = _split(data)
        table = pa.table({"value": lines})
        if separator:
            found: Any = pc.find_substring(lines, separator.decode())
            without = pc.less(found, pa.scalar(0))
            if pc.any(without).as_py():
                line = first + pc.index(without, pa.scalar(True)).as_py()
                raise BadRow(f"Line {line} has no key: there is no {separator.decode()!r} in it.")
            pair = pc.split_pattern(lines, separator.decode(), max_splits=1)
            table = pa.table({"key": pc.list_element(pair, 0), "value": pc.list_element(pair, 1)})
        yield Block(table, len(data), first, first + len(lines) - 1)


def read_json_lines(
    stream: IO[bytes], block_bytes: int, key_field: str | None, timestamp_field: str | None
) -> Iterator[Block]:
    """A record for each line that is not blank: the line is the value, as it stands; fields of it give key and time."""
    parser = fields.JsonFields(key_field, timestamp_field)
    for data, first in _whole_lines(stream, block_bytes):
        lines = _split(data)
        blank = pc.match_substring_regex(lines, r"^\s*$")
        numbers = None
        if pc.any(blank).as_py():
            keep = pc.invert(blank)
            numbers = pc.indices_nonzero(keep)
            lines = lines.filter(keep)
        if len(lines):
            columns = parser.parse(data, lines, _placer(first, numbers))
            yield Block(pa.table({**columns, "value": lines}), len(data), first, first + data.count(b"\n"))


def read_envelopes(stream: IO[bytes], block_bytes: int) -> Iterator[Block]:
    """A whole record for each line, as ``headwater consume --json`` prints it.

    One by one: this is for moving and editing records, not for volume.
    """
    for data, first in _whole_lines(stream, block_bytes):
        lines = data.splitlines()
        found = [fields.envelope(line, first + row) for row, line in enumerate(lines) if line.strip()]
        if found:
            yield Block(
                pa.Table.from_pylist(found, schema=fields.ENVELOPE_SCHEMA), len(data), first, first + len(lines) - 1
            )


def read_csv(
    stream: IO[bytes], block_bytes: int, key_field: str | None, timestamp_field: str | None
) -> Iterator[Block]:
    """A record for each row below the header row: a JSON object with the columns' names.

    What a column holds (numbers, true and false, or text) is judged by the first block; a later value that does
    not fit becomes a JSON string. An empty field that is not quoted is null.
    """
    import pyarrow.csv as pv

    head = stream.read(CSV_HEAD_BYTES)
    names = _header_row(head)
    fields.require(names, key_field, timestamp_field)
    bad: list[Any] = []

    def note(row: Any) -> Literal["skip", "error"]:
        bad.append(row)
        return "error"

    whole = _Joined(head, stream)
    try:
        reader = pv.open_csv(
            cast("IO[bytes]", whole),
            read_options=pv.ReadOptions(block_size=block_bytes, use_threads=False),
            parse_options=pv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
            convert_options=pv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
                quoted_strings_can_be_null=False,
            ),
        )
        kinds, row, read = None, 2, 0
        for batch in reader:
            if not batch.num_rows:
                continue
            table = pa.Table.from_batches([batch])
            kinds = kinds or rows.kinds_of(table)
            columns: dict[str, Any] = {"value": rows.json_rows(table, kinds)}
            if key_field:
                columns["key"] = table.column(key_field)
            if timestamp_field:
                columns["timestamp"] = fields.times_of(table.column(timestamp_field), _placer(row))
            yield Block(pa.table(columns), whole.given - read, row, row + batch.num_rows - 1)
            row, read = row + batch.num_rows, whole.given
    except pa.ArrowInvalid as error:
        _refuse_csv(bad, error)


def _placer(first: int, numbers: Any = None) -> fields.Place:
    """From a row of a block to its line; ``numbers`` are the lines, from ``first``, that are rows."""
    return lambda row: first + (row if numbers is None else numbers[row].as_py())


def _header_row(head: bytes) -> list[str]:
    try:
        text = io.StringIO(head.decode("utf-8-sig", errors="strict" if len(head) < CSV_HEAD_BYTES else "ignore"))
        names = next(csv.reader(text), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadRow(f"The CSV cannot be read as UTF-8 text: {error}.") from error
    if not names:
        raise BadRow("The CSV is empty: there is no header row.")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BadRow(f"The CSV's header row names {', '.join(sorted(map(repr, twice)))} more than once.")
    return names


def _refuse_csv(bad: list[Any], error: Exception) -> NoReturn:
    if bad:
        row = bad[0]
        where = f"Row {row.number}" if row.number else "A row"
        raise BadRow(
            f"{where} of the CSV has {row.actual_columns} fields and the header row has {row.expected_columns}."
        ) from error
    raise BadRow(f"The CSV cannot be read: {error}.") from error


def _whole_lines(stream: IO[bytes], block_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Pieces of the stream that end with a line, each with the number of its first line."""
    read = _reader(stream)
    kept, first = b"", 1
    while data := read(block_bytes):
        end = data.rfind(b"\n") + 1
        if not end:
            kept += data
            if len(kept) > 2 * RECORD_BYTES_MAX:
                raise BadRow(f"Line {first} has more than {RECORD_BYTES_MAX} bytes.")
            continue
        piece, kept = kept + data[:end], data[end:]
        yield piece, first
        first += piece.count(b"\n")
    if kept:
        yield kept, first


def _reader(stream: IO[bytes]) -> Callable[[int], bytes]:
    """Reads up to n bytes; from a pipe or a terminal what there is, so that slow records do not wait for a block."""
    try:
        number = stream.fileno()
        pipe = not stream.seekable()
    except (OSError, io.UnsupportedOperation, AttributeError):
        return stream.read
    raw = getattr(stream, "raw", None)
    if not pipe or raw is None:
        return stream.read

    def read(nbytes: int) -> bytes:
        parts = [raw.read(nbytes) or b""]
        while parts[-1] and sum(map(len, parts)) < nbytes and select.select([number], [], [], PATIENCE_S)[0]:
            parts.append(raw.read(nbytes) or b"")
        return b"".join(parts)

    return read


def _split(data: bytes) -> Any:
    """The lines of ``data``, without their ends, as a binary array."""
    body = memoryview(data)[:-1] if data.endswith(b"\n") else memoryview(data)
    whole: Any = pa.Array.from_buffers(
        pa.binary(), 1, [None, pa.py_buffer(b"\0\0\0\0" + len(body).to_bytes(4, "little")), pa.py_buffer(body)]
    )
    lists: Any = pc.split_pattern(whole, "\n")
    return pc.list_flatten(lists)


class _Joined(io.RawIOBase):
    """What was read ahead, then the rest of the stream."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = io.BytesIO(head)
        self._rest = rest
        self.given = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._head.read(size) or self._rest.read(size)
        self.given += len(data)
        return data

    def close(self) -> None:
        # The stream belongs to whoever opened it.
        with contextlib.suppress(OSError):
            super().close()
