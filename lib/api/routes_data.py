"""Native routes of records: produce, fetch, offsets, ranges, uploads, producers and transactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from msgspec import Meta

from headwater.api import asking, media, reading, wire
from headwater.api.frames import Placed
from headwater.api.messages import Call, HttpError, Response, Route
from headwater.api.routes import OFFSET_QUERY, READ, WRITE, body_schema
from headwater.api.verbs import GroupOffsets, OffsetAt, ProducerId, Ranges, Upload, Written
from headwater.errors import InvalidRequest, NotFound
from headwater.limits import ANSWER_BYTES_MAX
from headwater.log.namespace import Appended
from headwater.types import Record

FETCH_BYTES: Final = 1 << 20  # of a fetch that does not say
RANGES_BYTES: Final = 64 << 20


class TransactBody(wire.Body, frozen=True):
    """A transaction in JSON: records for many partitions, and group offsets, of a producer or a transactional id."""

    records: Annotated[tuple[media.TopicRecord, ...], Meta(max_length=100_000)] = ()
    offsets: tuple[wire.Commit, ...] = ()
    transactional_id: Annotated[str, Meta(max_length=512)] = ""
    producer: wire.Producer | None = None
    token: Annotated[str, Meta(max_length=100)] = ""


class AddBody(wire.Body, frozen=True):
    """Records and group offsets for an open transaction, in JSON."""

    records: Annotated[tuple[media.TopicRecord, ...], Meta(max_length=100_000)] = ()
    offsets: tuple[wire.Commit, ...] = ()


# -- produce ---------------------------------------------------------------------------------------------


async def produce_frame(call: Call) -> Response:
    """Batches for many partitions, all or nothing."""
    header, placed = media.checked_frame(call.request.body)
    more = wire.fit(dict(header), wire.ProduceHeader)
    if not placed:
        raise InvalidRequest("The frame holds no batch.")
    once, request = asking.once_of(call)
    token = asking.token_of(call, more.token)
    return _appended(await call.verbs.produce(placed, token=token, once=once, request=request))


async def produce_records(call: Call) -> Response:
    """One batch for one partition."""
    partition, now_ms = asking.partition_of(call), _now_ms(call)
    producer = asking.producer_of(call)
    kind = media.content_type(call.request)
    batch = media.batch_of_body(kind, call.request.body, partition, now_ms)
    if producer is not None:
        batch = media.with_producer(batch, *producer)
    once, request = asking.once_of(call)
    placed = [(call.parts["topic"], partition, batch)]
    appended = await call.verbs.produce(placed, token=asking.token_of(call), once=once, request=request)
    return _appended(appended)


def _appended(appended: Sequence[Appended]) -> Response:
    return asking.ok({"appended": appended})


def _now_ms(call: Call) -> int:
    return call.namespace.chain.clock.wall_ms()


# -- fetch -----------------------------------------------------------------------------------------------


async def fetch(call: Call) -> Response:
    """Records from an offset, a time, or an end of the log."""
    topic, partition = call.parts["topic"], asking.partition_of(call)
    kind = media.chosen(call.request, reading.FETCHED_TYPES)
    bytes_max, wait_ms = asking.bytes_max(call, FETCH_BYTES), asking.wait_ms(call)
    as_of = asking.whole(call, "as_of", -1)
    offset = await _start(call, topic, partition)
    fetched = await call.verbs.fetch(
        topic, partition, offset, bytes_max=bytes_max, wait_ms=wait_ms, as_of=None if as_of < 0 else as_of
    )
    return reading.respond(kind, fetched, offset, min(call.answer_bytes_max, max(bytes_max, ANSWER_BYTES_MAX)))


async def _start(call: Call, topic: str, partition: int) -> int:
    query = call.request.query
    if len({"offset", "timestamp", "from"} & query.keys()) > 1:
        raise InvalidRequest("Only one of offset, timestamp and from says where to begin.")
    if "offset" in query:
        return asking.whole(call, "offset", 0)
    if "timestamp" in query:
        return (await call.verbs.offset_of(topic, partition, asking.whole(call, "timestamp", 0))).offset
    return (await _end_of_log(call, topic, partition, query.get("from", "earliest"))).offset


async def _end_of_log(call: Call, topic: str, partition: int, name: str) -> OffsetAt:
    if name == "earliest":
        return await call.verbs.offset_of(topic, partition, "earliest")
    if name == "latest":
        return await call.verbs.offset_of(topic, partition, "latest")
    raise InvalidRequest(f"A log begins at earliest and ends at latest; {name[:40]!r} is neither.")


async def offsets(call: Call) -> Response:
    """Where a partition begins and ends, or the offset at a time."""
    topic, partition = call.parts["topic"], asking.partition_of(call)
    at = call.request.query.get("at")
    if at in ("earliest", "latest"):
        return asking.ok(await _end_of_log(call, topic, partition, at))
    if at is not None:
        return asking.ok(await call.verbs.offset_of(topic, partition, asking.whole(call, "at", 0)))
    described = await call.verbs.topic(topic)
    for info in described.partitions:
        if info.partition == partition:
            ends = _PartitionOffsets(
                beginning_offset=info.log_start,
                end_offset=info.stable_end,
                high_watermark=info.end,
                commit=described.commit,
            )
            return asking.ok(ends, headers={"content-type": media.chosen(call.request, media.JSON_TYPES)})
    raise NotFound(f"Topic {topic!r} has no partition {partition}.", topic=topic, partition=partition)


async def ranges(call: Call) -> Response:
    """What a fetch would read, as presigned URLs."""
    if "offset" not in call.request.query:
        raise InvalidRequest("Ranges begin at an offset; name it.")
    return asking.ok(
        await call.verbs.ranges(
            call.parts["topic"],
            asking.partition_of(call),
            asking.whole(call, "offset", 0),
            bytes_max=max(1, asking.whole(call, "max_bytes", RANGES_BYTES)),
        )
    )


# -- uploads ---------------------------------------------------------------------------------------------


async def begin_upload(call: Call) -> Response:
    """A presigned PUT for a batch that is too large for a request."""
    body = wire.request(call.request.body, wire.NewUpload)
    upload = await call.verbs.upload(call.parts["topic"], asking.partition_of(call), body.length)
    return asking.ok(upload, 201)


async def append_upload(call: Call) -> Response:
    """Append what was uploaded."""
    body = wire.request(call.request.body or b"{}", wire.AppendUpload)
    appended = await call.verbs.append_upload(
        call.parts["upload"],
        token=asking.token_of(call, body.token),
        producer=asking.producer_name(body.producer),
        sequence=body.sequence,
    )
    return _appended([appended])


# -- producers and transactions ---------------------------------------------------------------------------


async def init_producer(call: Call) -> Response:
    """A producer id, or the next epoch of a transactional id."""
    body = wire.request(call.request.body or b"{}", wire.NewProducer)
    found = await call.verbs.init_producer(body.transactional_id, current=asking.producer_name(body.current))
    return asking.ok(found)


async def transact(call: Call) -> Response:
    """A transaction in one request."""
    if media.content_type(call.request) == media.FRAME:
        header, placed = media.checked_frame(call.request.body)
        said = wire.fit(dict(header), wire.TransactHeader)
        producer = said.producer.plain()
        commits, token = said.offsets, said.token
    else:
        body = wire.request(call.request.body, TransactBody)
        placed = await _placed(call, body.records)
        commits, token = body.offsets, body.token
        producer = await _producer(call, body)
    offsets = _group_offsets(commits)
    if not placed and not offsets:
        raise InvalidRequest("The transaction is empty.")
    return asking.ok(await call.verbs.transact(producer, placed, offsets, token=asking.token_of(call, token)))


async def _producer(call: Call, body: TransactBody) -> ProducerId:
    if (body.producer is None) == (not body.transactional_id):
        raise HttpError(422, "A transaction names either a producer or a transactional_id.")
    if body.producer is not None:
        return body.producer.plain()
    if asking.token_of(call, body.token):
        raise HttpError(422, "A token is good for the same producer only; name it, and not the transactional_id.")
    return await call.verbs.init_producer(body.transactional_id)


async def _placed(call: Call, given: Sequence[media.TopicRecord]) -> list[Placed]:
    """The records of a JSON body, each at its partition: the one that it names, or that of its key."""
    from headwater.log.small import partition_of

    binary, now_ms = media.content_type(call.request) == media.KAFKA_BINARY, _now_ms(call)
    counts = await _partitions(call, given)
    sticky = call.namespace.chain.rng.getrandbits(31)
    placed: list[tuple[str, int, Record]] = []
    for record in given:
        made = media.record_of(record, binary, now_ms)
        count = counts[record.topic]
        partition = record.partition
        if partition is None:
            partition = partition_of(made.key, count, sticky % count)
        placed.append((record.topic, partition, made))
    return media.grouped(placed, now_ms)


async def _partitions(call: Call, given: Sequence[media.TopicRecord]) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for record in given:
        if record.topic not in counts:
            counts[record.topic] = len((await call.verbs.topic(record.topic)).partitions)
    return counts


def _group_offsets(given: Sequence[wire.Commit]) -> list[GroupOffsets]:
    return [each.plain() for each in given]


async def begin(call: Call) -> Response:
    """Begin a transaction of several requests."""
    body = wire.request(call.request.body, wire.Begin)
    name = await call.verbs.begin(body.producer.plain(), timeout_ms=body.timeout_ms)
    return asking.ok({"transaction": name}, 201)


async def add(call: Call) -> Response:
    """Add records and offsets to an open transaction."""
    if media.content_type(call.request) == media.FRAME:
        header, placed = media.checked_frame(call.request.body)
        commits = wire.fit(dict(header), wire.AddHeader).offsets
    else:
        body = wire.request(call.request.body, AddBody)
        placed, commits = await _placed(call, body.records), body.offsets
    await call.verbs.add(call.parts["transaction"], placed, _group_offsets(commits))
    return asking.done()


async def commit(call: Call) -> Response:
    """Make an open transaction visible."""
    asking.refuse_fields(call)
    return asking.ok(await call.verbs.commit(call.parts["transaction"]))


async def abort(call: Call) -> Response:
    """Forget an open transaction."""
    asking.refuse_fields(call)
    await call.verbs.abort(call.parts["transaction"])
    return asking.done()


@dataclass(frozen=True, slots=True, kw_only=True)
class _PartitionOffsets:
    """The first two are the REST Proxy's: readers stop at ``end_offset``, and ``high_watermark`` is the log's end."""

    beginning_offset: int
    end_offset: int
    high_watermark: int
    commit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _FetchedRecord:
    """A record in JSON; one with headers has them beside these."""

    topic: str
    key: Any
    value: Any
    partition: int
    offset: int
    timestamp: int


_APPENDED: Final = {"appended": list[Appended]}
_PARTITION = "/topics/{topic}/partitions/{partition}"
_FRAMES = (media.FRAME,)
_TRANSACTED = (media.FRAME, media.JSON, media.KAFKA_JSON, media.KAFKA_BINARY)

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        pattern="/batches",
        handler=produce_frame,
        functions=WRITE,
        summary="Append batches to many partitions, all or nothing",
        consumes=_FRAMES,
        answer=_APPENDED,
        headers=asking.ONCE_HEADERS,
    ),
    Route(
        method="POST",
        pattern=f"{_PARTITION}/records",
        handler=produce_records,
        functions=WRITE,
        summary="Append one batch to a partition",
        consumes=(media.ARROW, media.KAFKA2, *media.RECORD_TYPES),
        schema=body_schema(media.JsonRecords),
        answer=_APPENDED,
        headers={**asking.ONCE_HEADERS, **asking.PRODUCER_HEADERS},
    ),
    Route(
        method="GET",
        pattern=f"{_PARTITION}/records",
        handler=fetch,
        functions=READ,
        summary="Fetch records",
        produces=reading.FETCHED_TYPES,
        query=OFFSET_QUERY,
        answer=list[_FetchedRecord],
        sends=reading.HEADERS,
    ),
    Route(
        method="GET",
        pattern=f"{_PARTITION}/offsets",
        handler=offsets,
        functions=READ,
        summary="Where a partition begins and ends, or the offset at a time",
        produces=media.JSON_TYPES,
        query={"at": "`earliest`, `latest` or a time in ms: answer one offset"},
        answer=OffsetAt | _PartitionOffsets,
    ),
    Route(
        method="GET",
        pattern=f"{_PARTITION}/ranges",
        handler=ranges,
        functions=READ,
        summary="What a fetch would read, as presigned URLs of exact ranges",
        query={"offset": "where to begin", "max_bytes": "how many stored bytes at most"},
        answer=Ranges,
    ),
    Route(
        method="POST",
        pattern=f"{_PARTITION}/uploads",
        handler=begin_upload,
        functions=WRITE,
        summary="A presigned PUT for a batch too large for a request",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.NewUpload),
        codes=(201,),
        answer=Upload,
    ),
    Route(
        method="POST",
        pattern="/uploads/{upload}",
        handler=append_upload,
        functions=WRITE,
        summary="Append what was uploaded",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.AppendUpload),
        answer=_APPENDED,
        headers=asking.TOKEN_HEADER,
    ),
    Route(
        method="POST",
        pattern="/producers",
        handler=init_producer,
        functions=WRITE,
        summary="A producer id, or the next epoch of a transactional id",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.NewProducer),
        answer=ProducerId,
    ),
    Route(
        method="POST",
        pattern="/transactions",
        handler=transact,
        functions=WRITE,
        summary="A transaction in one request: records for many partitions and group offsets",
        consumes=_TRANSACTED,
        schema=body_schema(TransactBody),
        answer=Written,
        headers=asking.TOKEN_HEADER,
    ),
    Route(
        method="POST",
        pattern="/transactions/begin",
        handler=begin,
        functions=WRITE,
        summary="Begin a transaction of several requests",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.Begin),
        codes=(201,),
        answer={"transaction": str},
    ),
    Route(
        method="POST",
        pattern="/transactions/{transaction}/records",
        handler=add,
        functions=WRITE,
        summary="Add records and group offsets to an open transaction",
        consumes=_TRANSACTED,
        schema=body_schema(AddBody),
        codes=(204,),
    ),
    Route(
        method="POST",
        pattern="/transactions/{transaction}/commit",
        handler=commit,
        functions=WRITE,
        summary="Make an open transaction visible",
        consumes=media.JSON_TYPES,
        answer=Written,
    ),
    Route(
        method="POST",
        pattern="/transactions/{transaction}/abort",
        handler=abort,
        functions=WRITE,
        summary="Forget an open transaction",
        consumes=media.JSON_TYPES,
        codes=(204,),
    ),
)
