"""The Kafka REST Proxy v2 as Confluent's proxy, Redpanda's and Strimzi's bridge speak it: topics, and producing.

Consumer instances, with a table of their own, are in ``dialect_consumers``, records as JSON in ``rest_records``;
``…/offsets`` of a partition is among the native routes. What differs from a proxy in front of brokers:

- All records of one request are one intent: they are appended together or not at all, and an error is the answer to
  the whole request (``error_code`` and ``error`` of each record are always null).
- There are no brokers: every partition has broker 0 as its leader and only replica.
- Records may carry ``timestamp`` (ms) and ``headers`` (values in base64). Records that name no partition and have no
  key share one partition, as with Kafka's default partitioner.
- Beyond the dialect: ``Idempotency-Key`` makes a request safe to repeat for an hour; ``Headwater-Token`` is that of an
  ``Indeterminate`` answer to the same request; ``Headwater-Producer-Id``, ``-Epoch`` and ``-Sequence`` make the
  batch for one partition idempotent.
- With ``async=true`` (Strimzi's) the answer is a 204 without offsets; the records are stored by then all the same.
- Unknown fields are refused (422). Avro, Protobuf and JSON Schema are not spoken (415).

Source: Confluent's "REST Proxy API reference", v2; Strimzi's "Kafka Bridge API reference".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from headwater.api import asking, media, rest_records
from headwater.api.errors_http import PARTITION_NOT_FOUND
from headwater.api.messages import Call, Handler, HttpError, Response, Route
from headwater.api.rest_records import Columns, Format
from headwater.api.routes import WRITE
from headwater.api.verbs import Appended, PartitionInfo, TopicInfo
from headwater.errors import Indeterminate, InvalidRequest
from headwater.types import Batch

ANSWERS: Final = (media.KAFKA_V2, media.JSON, media.KAFKA_JSON, media.KAFKA_BINARY)
TAKES: Final = (media.KAFKA_JSON, media.KAFKA_BINARY, media.JSON)
TOPIC_READS: Final = frozenset({"fetch", "groups", "admin"})

_HEADER: Final[Mapping[str, object]] = {
    "type": "object",
    "properties": {"key": {"type": "string"}, "value": {"type": ["string", "null"], "contentEncoding": "base64"}},
    "required": ["key"],
    "additionalProperties": False,
}
RECORD_SCHEMA: Final[Mapping[str, object]] = {
    "type": "object",
    "properties": {
        "key": {"description": "any JSON, or base64 in the binary format; null: no key"},
        "value": {"description": "any JSON, or base64 in the binary format; null: a tombstone"},
        "partition": {"type": ["integer", "null"], "minimum": 0},
        "timestamp": {"type": ["integer", "null"], "minimum": -1, "description": "ms since 1970; -1 or null: now"},
        "headers": {"type": ["array", "null"], "items": _HEADER},
    },
    "additionalProperties": False,
}
PRODUCE_SCHEMA: Final[Mapping[str, object]] = {
    "type": "object",
    "properties": {
        "records": {"type": "array", "items": RECORD_SCHEMA, "minItems": 1},
        **{name: {"type": "null"} for name in ("key_schema", "value_schema", "key_schema_id", "value_schema_id")},
    },
    "required": ["records"],
    "additionalProperties": False,
}


# -- topics ----------------------------------------------------------------------------------------------


async def list_brokers(call: Call) -> Response:
    """The brokers, of which there is one in name only."""
    return answer(call, {"brokers": [0]})


async def list_topics(call: Call) -> Response:
    """The names of all topics."""
    return answer(call, [topic.name for topic in await call.verbs.topics()])


async def describe_topic(call: Call) -> Response:
    """A topic: its configs and partitions."""
    topic = await call.verbs.topic(call.parts["topic"])
    partitions = [_partition(known) for known in topic.partitions]
    return answer(call, {"name": topic.name, "configs": dict(topic.config), "partitions": partitions})


async def list_partitions(call: Call) -> Response:
    """The partitions of a topic."""
    topic = await call.verbs.topic(call.parts["topic"])
    return answer(call, [_partition(known) for known in topic.partitions])


async def describe_partition(call: Call) -> Response:
    """One partition."""
    return answer(call, _partition(await _described(call)))


def _partition(known: PartitionInfo) -> dict[str, object]:
    replica = {"broker": 0, "leader": True, "in_sync": True}
    return {"partition": known.partition, "leader": 0, "replicas": [replica]}


async def _described(call: Call) -> PartitionInfo:
    partition = asking.partition_of(call)
    return _of(await call.verbs.topic(call.parts["topic"]), partition)


def _of(topic: TopicInfo, partition: int) -> PartitionInfo:
    if partition >= len(topic.partitions):
        raise no_partition(topic.name, partition, len(topic.partitions))
    return topic.partitions[partition]


def no_partition(topic: str, partition: int, count: int) -> HttpError:
    """A partition that the topic does not have."""
    return HttpError(
        404,
        f"Topic {topic!r} has partitions 0 to {count - 1}, and no partition {partition}.",
        error_code=PARTITION_NOT_FOUND,
    )


# -- producing -------------------------------------------------------------------------------------------


async def produce_to_topic(call: Call) -> Response:
    """Append records to a topic, all or nothing."""
    columns = _records(call)
    count = await _partitions(call)
    sticky, token = _sticky(call, count)
    return await _produced(call, columns, rest_records.chosen(columns, count, sticky), count, sticky, token)


async def produce_to_partition(call: Call) -> Response:
    """Append records to one partition, all or nothing."""
    partition = asking.partition_of(call)
    columns = _records(call)
    if any(named not in (None, partition) for named in columns.partitions):
        raise HttpError(422, f"A record names another partition than {partition}, which the path does.")
    count = await _partitions(call)
    places = [partition] * len(columns.keys)
    return await _produced(call, columns, places, count, partition, asking.token_of(call))


def _records(call: Call) -> Columns:
    kind = _format_of(call)
    if call.request.query.get("async", "false") not in ("true", "false"):
        raise InvalidRequest("async is true or false.")
    media.chosen(call.request, ANSWERS)
    return rest_records.read(kind, call.request.body, call.namespace.chain.clock.wall_ms())


def _format_of(call: Call) -> Format:
    kind = media.content_type(call.request)
    if kind not in TAKES:
        named = kind[:80] or "a body without a content type"
        raise HttpError(415, f"Records are taken as {', '.join(TAKES)}, not {named}.")
    return "binary" if kind == media.KAFKA_BINARY else "json"


async def _partitions(call: Call) -> int:
    """How many partitions the topic has, as this process knows it; who may not write hears so from the verb."""
    known = call.namespace.state.named(call.parts["topic"])
    return len(known.partitions) if known else len((await call.verbs.topic(call.parts["topic"])).partitions)


def _sticky(call: Call, partitions: int) -> tuple[int, str]:
    """The partition of records that have neither a key nor a partition, and the token without it.

    Drawn for each request, but the same for each repetition of one: of an Idempotency-Key it is a function, and a
    token carries it.
    """
    token, _, noted = asking.token_of(call).partition("~")
    if noted.isdecimal() and len(noted) <= 10:
        return int(noted) % partitions, token
    once, request = asking.once_of(call)
    if once:
        return int(request[:15], 16) % partitions, token
    return call.namespace.chain.rng.randrange(partitions), token


async def _produced(
    call: Call, columns: Columns, places: Sequence[int], count: int, sticky: int, token: str
) -> Response:
    if max(places) >= count:
        topic = await call.verbs.topic(call.parts["topic"])  # perhaps it has grown, or is none of the caller's business
        if max(places) >= len(topic.partitions):
            raise no_partition(topic.name, max(places), len(topic.partitions))
    batches = _of_producer(call, rest_records.batches_of(columns, places))
    once, request = asking.once_of(call)
    wanted = [(call.parts["topic"], partition, batch) for partition, batch in batches.items()]
    try:
        appended = await call.verbs.produce(wanted, token=token, once=once, request=request)
    except Indeterminate as error:
        if error.token:  # a repetition under this token must go to the same partitions
            error.token = f"{error.token}~{sticky}"
            error.data["token"] = error.token
        raise
    if call.request.query.get("async") == "true":
        return asking.done()
    kind = media.chosen(call.request, ANSWERS)
    return Response(headers={"content-type": kind}, body=_offsets(places, appended))


def _of_producer(call: Call, batches: Mapping[int, Batch]) -> Mapping[int, Batch]:
    """The batches as those of the idempotent producer that the headers name."""
    producer = asking.producer_of(call)
    if producer is None:
        return batches
    if "partition" not in call.parts:
        raise InvalidRequest("A producer's sequence is one of a partition: produce to /topics/…/partitions/….")
    number, epoch, sequence = producer
    made = {}
    for partition, batch in batches.items():
        if batch.codec == "kafka2":
            batch = _sequenced(batch, number, epoch, sequence)
        made[partition] = replace(batch, producer_id=number, producer_epoch=epoch, sequence=sequence)
    return made


def _sequenced(batch: Batch, producer_id: int, epoch: int, sequence: int) -> Batch:
    """The same with the producer in its bytes, for readers who look there (Kafka's do)."""
    from headwater.log import kafka2

    (header,) = kafka2.headers_of(batch.data)
    data = kafka2.pack(
        memoryview(batch.data)[kafka2.HEADER_BYTES :],
        count=header.count,
        first_timestamp=header.first_timestamp,
        max_timestamp=header.max_timestamp,
        producer_id=producer_id,
        producer_epoch=epoch,
        sequence=sequence,
    )
    return replace(batch, data=data)


def _offsets(places: Sequence[int], appended: Sequence[Appended]) -> bytes:
    """The place of each record, in the order of the request."""
    following = {one.partition: one.base_offset for one in appended}
    if len(following) == 1:  # then all but the numbers is the same
        ((partition, base),) = following.items()
        between = f',"error_code":null,"error":null}},{{"partition":{partition},"offset":'
        numbers = between.join(map(str, range(base, base + len(places))))
        first, last = f'{{"partition":{partition},"offset":', ',"error_code":null,"error":null}'
        return f'{{"offsets":[{first}{numbers}{last}],"key_schema_id":null,"value_schema_id":null}}'.encode()
    parts = []
    for partition in places:
        offset = following[partition]
        following[partition] = offset + 1
        parts.append(f'{{"partition":{partition},"offset":{offset},"error_code":null,"error":null}}')
    return f'{{"offsets":[{",".join(parts)}],"key_schema_id":null,"value_schema_id":null}}'.encode()


def answer(call: Call, value: Any) -> Response:
    """JSON of the dialect, in the media type that the client likes best. Raises ``HttpError`` 406."""
    kind = media.chosen(call.request, ANSWERS)
    return Response(headers={"content-type": kind}, body=msgspec.json.encode(value))


# -- the table -------------------------------------------------------------------------------------------


def _topic_read(pattern: str, handler: Handler, summary: str, says: object = None) -> Route:
    return Route(
        method="GET",
        pattern=pattern,
        handler=handler,
        functions=TOPIC_READS,
        summary=summary,
        produces=ANSWERS,
        dialect=True,
        answer=says,
    )


def _produce(pattern: str, handler: Handler, summary: str, headers: Mapping[str, str] = asking.ONCE_HEADERS) -> Route:
    return Route(
        method="POST",
        pattern=pattern,
        handler=handler,
        functions=WRITE,
        summary=summary,
        consumes=TAKES,
        produces=ANSWERS,
        query={"async": "`true`: answer 204, without the offsets"},
        schema=PRODUCE_SCHEMA,
        headers=headers,
        dialect=True,
        codes=(200, 204),
    )


ROUTES: tuple[Route, ...] = (
    _topic_read("/brokers", list_brokers, "The brokers: always broker 0 alone", {"brokers": list[int]}),
    _topic_read("/topics", list_topics, "The names of all topics", list[str]),
    _topic_read("/topics/{topic}", describe_topic, "A topic, its configs and partitions"),
    _topic_read("/topics/{topic}/partitions", list_partitions, "The partitions of a topic"),
    _topic_read("/topics/{topic}/partitions/{partition}", describe_partition, "One partition"),
    _produce("/topics/{topic}", produce_to_topic, "Append records to a topic, all or nothing"),
    _produce(
        "/topics/{topic}/partitions/{partition}",
        produce_to_partition,
        "Append records to one partition, all or nothing",
        {**asking.ONCE_HEADERS, **asking.PRODUCER_HEADERS},
    ),
)
