"""Media types: which one a client sends and wants, and records in each of them, to and from batches.

    application/vnd.apache.arrow.stream     one Arrow IPC stream of records, see ``log.batch``
    application/vnd.headwater.kafka2        Kafka RecordBatch v2 bytes
    application/vnd.headwater.batches       a frame of stored batches, see ``api.frames``
    application/vnd.kafka.json.v2+json      {"records": [{"key": …, "value": …}]}, any JSON; also application/json
    application/vnd.kafka.binary.v2+json    the same, with keys and values in base64

What a client claims about a batch is held against its bytes before it goes on. pyarrow is imported only for bodies
that need it: a few records in JSON do not.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw

from headwater.api import frames, wire
from headwater.api.messages import HttpError, Request, Route
from headwater.errors import Corrupt, InvalidRequest
from headwater.limits import BATCH_RECORDS_MAX, SMALL_RECORDS_MAX, TOPIC_NAME_MAX
from headwater.log import frame
from headwater.types import Batch, Record

ARROW: Final = "application/vnd.apache.arrow.stream"
KAFKA2: Final = "application/vnd.headwater.kafka2"
FRAME: Final = frames.MEDIA_TYPE
JSON: Final = "application/json"
KAFKA_V2: Final = "application/vnd.kafka.v2+json"
KAFKA_JSON: Final = "application/vnd.kafka.json.v2+json"
KAFKA_BINARY: Final = "application/vnd.kafka.binary.v2+json"

JSON_TYPES = (JSON, KAFKA_V2)  # bodies that are not records
RECORD_TYPES = (KAFKA_JSON, KAFKA_BINARY, JSON)
_NULL = b"null"


# -- negotiation ---------------------------------------------------------------------------------------


def content_type(request: Request) -> str:
    """The body's media type, without parameters and in lower case; "" if none is named."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check(request: Request, route: Route) -> None:
    """Refuse a body of a type that the route does not take, and a client that takes none of what it answers.

    Raises:
        HttpError: 415 or 406.
    """
    kind = content_type(request)
    if request.body and kind not in route.consumes:
        takes = ", ".join(route.consumes) or "no body"
        raise HttpError(415, f"This path takes {takes}, not {kind[:80] or 'a body without a content type'}.")
    chosen(request, route.produces)


def chosen(request: Request, offered: Sequence[str]) -> str:
    """The type among ``offered`` that the client likes best; the first one if it does not mind. RFC 9110, 12.5.1.

    Raises:
        HttpError: 406, it takes none of them.
    """
    accept = request.headers.get("accept", "").strip().lower()
    if not accept:
        return offered[0]
    wishes = [_wish(part) for part in accept.split(",")]
    best, quality = "", 0.0
    for kind in offered:
        likes = _quality(kind, wishes)
        if likes > quality:
            best, quality = kind, likes
    if not best:
        raise HttpError(406, f"This path answers {', '.join(offered)}, and none of it is accepted.")
    return best


def _wish(part: str) -> tuple[str, float]:
    name, _, rest = part.partition(";")
    for parameter in rest.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name.strip(), float(value)
            except ValueError:
                return name.strip(), 0.0
    return name.strip(), 1.0


def _quality(kind: str, wishes: Sequence[tuple[str, float]]) -> float:
    """The most specific wish decides."""
    family = kind.partition("/")[0] + "/*"
    for name in (kind, family, "*/*"):
        found = [quality for wished, quality in wishes if wished == name]
        if found:
            return max(found)
    return 0.0


# -- records in JSON -------------------------------------------------------------------------------------


class JsonHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record's header; its value in base64."""

    key: str
    value: bytes | None = None


class JsonRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record as the REST Proxy v2 has it, with its time and headers beside it."""

    value: Raw = msgspec.field(default_factory=lambda: Raw(_NULL))
    key: Raw = msgspec.field(default_factory=lambda: Raw(_NULL))
    partition: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    timestamp: Annotated[int, Meta(ge=-1, le=2**62 - 1)] = -1
    headers: tuple[JsonHeader, ...] = ()


class JsonRecords(wire.Body, frozen=True):
    """A body of records."""

    records: Annotated[list[JsonRecord], Meta(min_length=1, max_length=BATCH_RECORDS_MAX)]


class TopicRecord(JsonRecord, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A record of a transaction: it names its topic, and perhaps its partition."""

    topic: Annotated[str, Meta(min_length=1, max_length=TOPIC_NAME_MAX)]


def record_of(given: JsonRecord, binary: bool, now_ms: int) -> Record:
    """A record of JSON as one of the log: its key and value are their JSON text, or what their base64 stands for."""
    content = _base64 if binary else _json
    return Record(
        key=content(given.key, "key"),
        value=content(given.value, "value"),
        timestamp=now_ms if given.timestamp == -1 else given.timestamp,
        headers=tuple((header.key, header.value) for header in given.headers),
    )


def batch_of(records: Sequence[Record], now_ms: int) -> Batch:
    """Records as a batch, without Arrow if they are few."""
    if len(records) <= SMALL_RECORDS_MAX:
        from headwater.log import small

        return small.batch_of(records)
    from headwater.log import batch

    return batch.batch_of_records(records, default_timestamp=now_ms)


def _json(raw: Raw, name: str) -> bytes | None:
    text = bytes(raw)
    return None if text == _NULL else text


def _base64(raw: Raw, name: str) -> bytes | None:
    if bytes(raw) == _NULL:
        return None
    try:
        return base64.b64decode(msgspec.json.decode(raw, type=str), validate=True)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise HttpError(422, f"A record's {name} is no base64.") from error


# -- a body as a batch -----------------------------------------------------------------------------------


def batch_of_body(kind: str, body: bytes, partition: int, now_ms: int) -> Batch:
    """The batch for ``partition`` in a body of media type ``kind``, checked record by record.

    Raises:
        InvalidRequest: the bytes are not of that type, or break a limit.
        HttpError: 422, JSON that does not fit.
    """
    if kind == ARROW:
        return arrow_batch(body, now_ms)
    if kind == KAFKA2:
        from headwater.log import batch

        return batch.batch_of_kafka2(body, check_records=True)
    from headwater.api import rest_records

    columns = rest_records.read("binary" if kind == KAFKA_BINARY else "json", body, now_ms)
    if any(named not in (None, partition) for named in columns.partitions):
        raise HttpError(422, f"A record names a partition of its own, and the path says {partition}.")
    return rest_records.batches_of(columns, [partition] * len(columns.keys))[partition]


def arrow_batch(body: bytes, now_ms: int) -> Batch:
    """Arrow IPC streams as a batch: as they are if they have our columns, else read and written anew.

    Cost: one decode; also one encode for streams of other columns that can be taken as records.
    """
    from headwater.log import batch, codec_arrow

    try:
        return batch.batch_of_arrow(body)
    except InvalidRequest as refused:
        try:
            columns = codec_arrow.read_columns(body)
        except Corrupt:
            raise refused from None
        return batch.encode_arrow(columns, default_timestamp=now_ms)


# -- frames ----------------------------------------------------------------------------------------------


def checked_frame(body: bytes) -> tuple[Mapping[str, Any], list[frames.Placed]]:
    """A frame whose batches are what their bytes say. Raises ``InvalidRequest``, naming the batch that lies."""
    header, placed = frames.unpack(body)
    if not placed and not header:
        raise InvalidRequest("The frame holds no batch.")
    return header, [_checked(place, *each) for place, each in enumerate(placed)]


def _checked(place: int, topic: str, partition: int, claimed: Batch) -> frames.Placed:
    try:
        return topic, partition, _held_against_bytes(claimed)
    except InvalidRequest as error:
        raise InvalidRequest(f"Batch {place} of the frame: {error.message}", **error.data) from error


def _held_against_bytes(claimed: Batch) -> Batch:
    from headwater.log import batch

    if claimed.crc >= 0 and frame.checksum(claimed.data) != claimed.crc:
        raise InvalidRequest("Its bytes do not have the CRC32C that the header names.")
    if claimed.codec == "arrow":
        found = batch.batch_of_arrow(claimed.data)
    else:
        found = batch.batch_of_kafka2(claimed.data, check_records=True)
    if found.count != claimed.count:
        raise InvalidRequest(f"It holds {found.count} records, and the header says {claimed.count}.")
    return with_producer(found, claimed.producer_id, claimed.producer_epoch, claimed.sequence)


def with_producer(found: Batch, producer_id: int, epoch: int, sequence: int) -> Batch:
    """The batch as one of an idempotent producer. Raises ``InvalidRequest`` if its bytes name another one."""
    if producer_id < 0:
        return found
    if epoch < 0 or sequence < 0:
        raise InvalidRequest("A batch of a producer needs its id, its epoch and its sequence.")
    theirs = (producer_id, epoch, sequence)
    if found.producer_id >= 0 and (found.producer_id, found.producer_epoch, found.sequence) != theirs:
        raise InvalidRequest("The bytes of the batch name another producer, epoch or sequence.")
    return replace(found, producer_id=producer_id, producer_epoch=epoch, sequence=sequence)


def grouped(records: Iterable[tuple[str, int, Record]], now_ms: int) -> list[frames.Placed]:
    """Records of many partitions as one batch each, in the order in which the partitions come first."""
    places: dict[tuple[str, int], list[Record]] = {}
    for topic, partition, record in records:
        places.setdefault((topic, partition), []).append(record)
    return [(topic, partition, batch_of(found, now_ms)) for (topic, partition), found in places.items()]
