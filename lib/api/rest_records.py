"""Records as the Kafka REST Proxy v2 writes them in JSON: bodies into batches, chunks into arrays of records.

    in     {"records": [{"key": …, "value": …, "partition": 0, "timestamp": …, "headers": [{"key": …, "value": …}]}]}
    out    [{"topic": "t", "key": …, "value": …, "partition": 0, "offset": 7, "timestamp": …, "headers": […]}]

In the format ``json`` a key or a value is any JSON, kept byte for byte as it came; in ``binary`` it is a string of
base64. ``null`` stands for no key and for a tombstone in both. Times and headers (whose values are base64) are more
than Confluent's proxy knows; Strimzi's bridge has them too.

A body is decoded by one pass of msgspec. Few records are then built without Arrow (``log.small``), more of them
column by column; what is per record here is list comprehensions. (Plain data is a Struct here, since a cold function
makes one in a tenth of the time of a dataclass.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from headwater.api.messages import HttpError
from headwater.errors import InvalidRequest
from headwater.limits import BATCH_RECORDS_MAX, SMALL_BYTES_MAX, SMALL_RECORDS_MAX
from headwater.log import small
from headwater.log.chunk import Chunk
from headwater.types import Batch, Header, Record

if TYPE_CHECKING:
    from headwater.log.codec_schema import Compression

Format: TypeAlias = Literal["json", "binary"]

INVALID_SCHEMA = 42205
FORMAT_MISMATCH = 40601

_NULL = b"null"
_ZSTD_BYTES_MIN = 256 << 10
_ROW_BYTES = 90  # what an answer holds of a record beside its topic, key, value and headers, about


# -- bodies ----------------------------------------------------------------------------------------------


class RecordHeader(Struct, frozen=True, forbid_unknown_fields=True):
    """A header of a record; its value in base64."""

    key: str
    value: bytes | None = None


class _Record(Struct, frozen=True, forbid_unknown_fields=True):
    partition: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    timestamp: Annotated[int, Meta(ge=-1, le=small.TIMESTAMP_MAX)] | None = None
    headers: list[RecordHeader] | None = None


class _JsonRecord(_Record, frozen=True, forbid_unknown_fields=True):
    value: Raw = Raw(_NULL)
    key: Raw = Raw(_NULL)


class _BinaryRecord(_Record, frozen=True, forbid_unknown_fields=True):
    value: bytes | None = None
    key: bytes | None = None


class _Body(Struct, frozen=True, forbid_unknown_fields=True):
    key_schema: str | None = None
    value_schema: str | None = None
    key_schema_id: int | None = None
    value_schema_id: int | None = None


class _JsonBody(_Body, frozen=True, forbid_unknown_fields=True, kw_only=True):
    records: Annotated[list[_JsonRecord], Meta(min_length=1, max_length=BATCH_RECORDS_MAX)]


class _BinaryBody(_Body, frozen=True, forbid_unknown_fields=True, kw_only=True):
    records: Annotated[list[_BinaryRecord], Meta(min_length=1, max_length=BATCH_RECORDS_MAX)]


_BODIES: dict[Format, Any] = {"json": msgspec.json.Decoder(_JsonBody), "binary": msgspec.json.Decoder(_BinaryBody)}


class Columns(Struct, frozen=True, kw_only=True):
    """The records of a body, field by field. ``partitions`` is empty if no record names one."""

    keys: list[bytes | None]
    values: list[bytes | None]
    times: list[int]
    headers: list[tuple[Header, ...]]
    partitions: list[int | None]
    nbytes: int


def read(kind: Format, body: bytes, now_ms: int) -> Columns:
    """The records in a body; those without a time get ``now_ms``.

    Raises:
        InvalidRequest: the body is no JSON, or no UTF-8.
        HttpError: 422, the JSON does not fit; 42205, it names a schema, and these formats have none.

    Cost: about 0.5 µs a record, and a pass over the bytes.
    """
    given = _decoded(kind, body)
    if (given.key_schema, given.value_schema, given.key_schema_id, given.value_schema_id) != (None,) * 4:
        raise HttpError(422, f"The format {kind!r} has no schemas; leave them out.", error_code=INVALID_SCHEMA)
    records: list[Any] = given.records
    keys, values = [record.key for record in records], [record.value for record in records]
    partitions = [record.partition for record in records]
    return Columns(
        keys=_texts(keys) if kind == "json" else keys,
        values=_texts(values) if kind == "json" else values,
        times=[now_ms if record.timestamp in (None, -1) else record.timestamp for record in records],
        headers=[tuple((h.key, h.value) for h in record.headers) if record.headers else () for record in records],
        partitions=[] if partitions.count(None) == len(records) else partitions,
        nbytes=len(body),
    )


def batches_of(columns: Columns, places: Sequence[int]) -> dict[int, Batch]:
    """One batch for each partition that ``places`` names, one for each record; their order is that of the body.

    Raises:
        InvalidRequest: a record or a batch is too large.
    """
    # With more records in some batch Arrow is worth its import; for small batches it has a millisecond of its own.
    if max(Counter(places).values()) <= SMALL_RECORDS_MAX and columns.nbytes <= SMALL_BYTES_MAX:
        return {partition: small.batch_of(records) for partition, records in _records(columns, places).items()}
    from headwater.log import batch, partitioner

    parts = _parts(partitioner, _table(columns), places)
    # zstd prepares itself for a third of a millisecond, which only large batches are worth.
    compression: Compression = "lz4" if columns.nbytes < len(parts) * _ZSTD_BYTES_MIN else "zstd"
    return {partition: batch.encode_arrow(part, compression=compression) for partition, part in parts.items()}


def chosen(columns: Columns, partitions: int, sticky: int) -> list[int]:
    """The partition of each record: the one it names, else its key's, else ``sticky`` (Kafka's default partitioner).

    A named partition is not compared with how many there are.
    """
    if not columns.partitions and len(columns.keys) > SMALL_RECORDS_MAX:
        return _hashed(columns.keys, partitions, sticky)
    named: Sequence[int | None] = columns.partitions or [None] * len(columns.keys)
    if len(columns.keys) <= SMALL_RECORDS_MAX:
        return [
            small.partition_of(key, partitions, sticky) if place is None else place
            for key, place in zip(columns.keys, named, strict=True)
        ]
    hashed = _hashed(columns.keys, partitions, sticky)
    return [other if place is None else place for place, other in zip(named, hashed, strict=True)]


def _decoded(kind: Format, body: bytes) -> Any:
    try:
        body.decode()  # msgspec looks into the strings of a Raw for escapes, and not for UTF-8
        return _BODIES[kind].decode(body)
    except msgspec.ValidationError as error:
        raise HttpError(422, f"The body does not fit: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body is no JSON: {error}.") from error


def _texts(raws: Iterable[Raw]) -> list[bytes | None]:
    return [None if text == _NULL else text for text in map(bytes, raws)]


def _records(columns: Columns, places: Sequence[int]) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = {}
    fields = zip(places, columns.keys, columns.values, columns.times, columns.headers, strict=True)
    for place, key, value, time, headers in fields:
        found.setdefault(place, []).append(Record(key=key, value=value, timestamp=time, headers=headers))
    return found


def _table(columns: Columns) -> Any:
    import pyarrow as pa

    from headwater.log.codec_kafka2 import header_column
    from headwater.log.codec_schema import RECORD_SCHEMA, TIMESTAMP

    arrays: list[Any] = [
        pa.array(columns.times, pa.int64()).cast(TIMESTAMP),
        pa.array(columns.keys, pa.binary()),
        pa.array(columns.values, pa.binary()),
        header_column(columns.headers),
    ]
    return pa.Table.from_arrays(arrays, schema=RECORD_SCHEMA)


def _parts(partitioner: Any, table: Any, places: Sequence[int]) -> dict[int, Any]:
    if len(set(places)) == 1:
        return {places[0]: table}
    import pyarrow as pa

    parts: dict[int, Any] = partitioner.grouped(table, pa.array(places, pa.int32()))
    return parts


def _hashed(keys: Sequence[bytes | None], partitions: int, sticky: int) -> list[int]:
    if keys.count(None) == len(keys):
        return [sticky] * len(keys)
    import pyarrow as pa

    from headwater.log import partitioner

    found: Any = partitioner.partitions_of(pa.array(keys, pa.binary()), partitions).to_pylist()
    return [sticky if place is None else place for place in found]


# -- answers ---------------------------------------------------------------------------------------------


class _Row(Struct):
    """A record of an answer, in the order of fields that the REST Proxy has."""

    topic: str
    key: Any
    value: Any
    partition: int
    offset: int
    timestamp: int


class _RowWithHeaders(Struct):
    topic: str
    key: Any
    value: Any
    partition: int
    offset: int
    timestamp: int
    headers: list[RecordHeader]


_encode = msgspec.json.Encoder().encode
_list_of_raw = msgspec.json.Decoder(list[Raw]).decode


class Encoded(Struct, frozen=True, kw_only=True):
    """Records as the inside of a JSON array; ``next_offset`` is behind the last one of them."""

    body: bytes
    count: int
    nbytes: int
    next_offset: int


def encode_records(
    kind: Format, topic: str, partition: int, chunks: Sequence[Chunk], *, offset: int = 0, bytes_max: int | None = None
) -> bytes:
    """The records of ``chunks`` at ``offset`` and above as a JSON array; see ``encode_some``."""
    parts = encode_some(kind, topic, partition, chunks, offset=offset, bytes_max=bytes_max)
    return array_of([parts])


def encode_some(
    kind: Format, topic: str, partition: int, chunks: Sequence[Chunk], *, offset: int, bytes_max: int | None = None
) -> Encoded:
    """The records of ``chunks`` at ``offset`` and above, of about ``bytes_max`` bytes of JSON, but at least one.

    ``next_offset`` is ``offset`` if there is none. In the format ``json`` the answer ends before a record that is no
    JSON, whose turn comes next time.

    Raises:
        HttpError: 40601, the first record is no JSON and ``kind`` is ``json``; it carries the offset.
        Corrupt: stored bytes break the format.

    Cost: about 1 µs a record.
    """
    bodies: list[bytes] = []
    count, nbytes, at = 0, 0, offset
    for chunk in chunks:
        if chunk.end <= at:
            continue
        rows = _rows_of(chunk).since(at)
        if bytes_max is not None:
            rows = rows.of_size(kind, len(topic), bytes_max - nbytes, at_least=0 if count else 1)
        if kind == "json":
            rows = _json_rows(topic, partition, rows, nothing_yet=not count)
        if rows.offsets:
            bodies.append(_encoded(kind, topic, partition, rows))
            count += len(rows.offsets)
            nbytes += len(bodies[-1])
            at = rows.offsets[-1] + 1
        if at < chunk.end or (bytes_max is not None and nbytes >= bytes_max):
            break
    return Encoded(body=b",".join(bodies), count=count, nbytes=nbytes, next_offset=at)


def array_of(parts: Iterable[Encoded]) -> bytes:
    """A JSON array of all the records."""
    return b"[" + b",".join([part.body for part in parts if part.count]) + b"]"


class _Rows(Struct, frozen=True):
    """Records of a chunk, field by field."""

    offsets: Sequence[int]
    times: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Sequence[Header]]

    def since(self, offset: int) -> _Rows:
        """Those at ``offset`` and above."""
        if self.offsets[0] >= offset:
            return self
        return self.cut(next(i for i, known in enumerate(self.offsets) if known >= offset), len(self.offsets))

    def of_size(self, kind: Format, topic_bytes: int, bytes_max: int, *, at_least: int) -> _Rows:
        """The first ones, of about ``bytes_max`` bytes of JSON."""
        stretch = 1.0 if kind == "json" else 4 / 3
        sizes = [
            _ROW_BYTES + topic_bytes + int(stretch * (len(key or b"") + len(value or b"")))
            for key, value in zip(self.keys, self.values, strict=True)
        ]
        for i, headers in enumerate(self.headers):
            if headers:
                sizes[i] += sum(30 + len(name) + len(content or b"") * 4 // 3 for name, content in headers)
        fit = next((i for i, size in enumerate(accumulate(sizes)) if size > bytes_max), len(sizes))
        return self.cut(0, max(fit, at_least))

    def cut(self, start: int, end: int) -> _Rows:
        """Those in ``[start, end)``."""
        cut = slice(start, end)
        return _Rows(self.offsets[cut], self.times[cut], self.keys[cut], self.values[cut], self.headers[cut])


def _rows_of(chunk: Chunk) -> _Rows:
    few = small.records_in(chunk.data) if chunk.codec == "kafka2" else None
    if few is not None and len(few) == chunk.count:
        return _Rows(
            range(chunk.base, chunk.end),
            [record.timestamp for record in few],
            [record.key for record in few],
            [record.value for record in few],
            [record.headers for record in few],
        )
    import pyarrow as pa

    from headwater.log.codec_kafka2 import header_lists

    placed: Any = chunk.decode()
    return _Rows(
        placed.column("offset").to_pylist(),
        placed.column("timestamp").view(pa.int64()).to_pylist(),
        placed.column("key").to_pylist(),
        placed.column("value").to_pylist(),
        header_lists(placed.column("headers")),
    )


def _encoded(kind: Format, topic: str, partition: int, rows: _Rows) -> bytes:
    keys: Sequence[Any] = rows.keys
    values: Sequence[Any] = rows.values
    if kind == "json":  # checked before; put into the answer as they are
        keys, values = _raws(rows.keys), _raws(rows.values)
    fields = zip(keys, values, rows.offsets, rows.times, rows.headers, strict=True)
    encoded = _encode(
        [
            _RowWithHeaders(topic, key, value, partition, offset, time, [RecordHeader(*h) for h in headers])
            if headers
            else _Row(topic, key, value, partition, offset, time)
            for key, value, offset, time, headers in fields
        ]
    )
    return encoded[1:-1]


def _raws(texts: Sequence[bytes | None]) -> list[Raw | None]:
    return [None if text is None else Raw(text) for text in texts]


def _json_rows(topic: str, partition: int, rows: _Rows, *, nothing_yet: bool) -> _Rows:
    """The rows before the first one whose key or value is no JSON. Raises ``HttpError`` 40601 if there are none."""
    good = min(_good(rows.keys), _good(rows.values))
    if good == 0 and nothing_yet and rows.offsets:
        raise HttpError(
            406,
            f"The record at offset {rows.offsets[0]} of topic {topic!r}, partition {partition} is no JSON. "
            "Read it in the format 'binary', or seek past it.",
            error_code=FORMAT_MISMATCH,
            offset=rows.offsets[0],
        )
    return rows if good == len(rows.offsets) else rows.cut(0, good)


def _good(column: Sequence[bytes | None]) -> int:
    """How many of the keys or values come before the first one that is no JSON; all of them checked in one pass."""
    if column.count(None) == len(column):
        return len(column)
    texts = [_NULL if text is None else text for text in column]
    if _all_json(texts):
        return len(texts)
    return next(i for i, text in enumerate(texts) if not _is_json(text))


def _all_json(texts: Sequence[bytes]) -> bool:
    """Whether each is one JSON value. Joined by commas they are as many values, each of its own length, if so."""
    joined = b"[" + b",".join(texts) + b"]"
    try:
        joined.decode()
        if list(map(bytes, _list_of_raw(joined))) == texts:
            return True
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return all(map(_is_json, texts))  # with blanks around a value, say


def _is_json(text: bytes) -> bool:
    try:
        text.decode()
        return len(_list_of_raw(b"[" + text + b"]")) == 1
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
