"""JSON of the native routes, both ways: the data of ``verbs`` as answers, and the bodies of requests.

A dataclass is an object of its fields. What JSON has no word for:

    (topic, partition)              {"topic": …, "partition": …}
    {(topic, partition): offset}    [{"topic": …, "partition": …, "offset": …, "metadata": …, "committed_ms": …}]
    {(topic, partition): since}     [{"topic": …, "partition": …, "generation": …}]
    bytes                           a string of base64
    an ACL rule                     {"principal", "operation", "resource", "name", "pattern", "allow"}

Lists stand in an object under their name (``{"topics": […]}``), so that fields can be added beside them. A reader
of answers passes over fields that it does not know; requests with such fields are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from headwater.api.messages import HttpError
from headwater.api.verbs import AclRule, GroupOffset, GroupOffsets, ProducerId
from headwater.errors import InvalidRequest
from headwater.limits import (
    ACLS_MAX,
    INTENT_OPS_MAX,
    METADATA_BYTES_MAX,
    NAME_BYTES_MAX,
    REBALANCE_MS,
    SCHEMA_BYTES_MAX,
    SCHEMAS_MAX,
    SESSION_MS,
    SUBSCRIBED_MAX,
)
from headwater.log.operations import Operation, Pattern, Resource
from headwater.types import Buffer

T = TypeVar("T")
TP = tuple[str, int]

_Whole = Annotated[int, Meta(ge=0, le=2**62)]
_OrNone = Annotated[int, Meta(ge=-1, le=2**62)]
_Int32 = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Name = Annotated[str, Meta(max_length=NAME_BYTES_MAX)]
_Topic = Annotated[str, Meta(min_length=1, max_length=249)]
_Token = Annotated[str, Meta(max_length=100)]


# -- pieces of bodies ----------------------------------------------------------------------------


class Place(Struct, frozen=True, forbid_unknown_fields=True):
    """A partition of a topic."""

    topic: _Topic
    partition: _Int32


class Offset(Struct, frozen=True, forbid_unknown_fields=True):
    """A group's place in a partition: the next offset to read."""

    topic: _Topic
    partition: _Int32
    offset: _Whole
    metadata: Annotated[str, Meta(max_length=METADATA_BYTES_MAX)] = ""
    committed_ms: _OrNone = -1


class Owned(Struct, frozen=True, forbid_unknown_fields=True):
    """A partition that a member owns, since which generation."""

    topic: _Topic
    partition: _Int32
    generation: _OrNone


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """An ACL rule, as Kafka's ACL bindings."""

    principal: _Name
    operation: Operation
    resource: Resource
    name: _Name
    pattern: Pattern = "literal"
    allow: bool = True


class Producer(Struct, frozen=True, forbid_unknown_fields=True):
    """An idempotent producer."""

    id: _Whole
    epoch: Annotated[int, Meta(ge=0, le=2**15 - 1)]
    transactional_id: _Name = ""

    def plain(self) -> ProducerId:
        """The same as ``verbs`` says it."""
        return ProducerId(id=self.id, epoch=self.epoch, transactional_id=self.transactional_id)


class Commit(Struct, frozen=True, forbid_unknown_fields=True):
    """Offsets to commit for a group."""

    group: Annotated[str, Meta(min_length=1, max_length=NAME_BYTES_MAX)]
    offsets: Annotated[list[Offset], Meta(max_length=INTENT_OPS_MAX)]
    member: _Name = ""
    generation: _OrNone = -1

    def plain(self) -> GroupOffsets:
        """The same as ``verbs`` says it."""
        return group_offsets(self.group, self.offsets, self.member, self.generation)


# -- bodies of requests -----------------------------------------------------------------------------


class Body(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of all JSON bodies of requests: unknown fields are refused."""


class CreateTopic(Body, frozen=True):
    """``POST /admin/topics``."""

    name: _Topic
    partitions: Annotated[int, Meta(ge=1, le=10_000)] = 1
    config: dict[str, str] = {}


class AlterTopic(Body, frozen=True):
    """``PATCH /admin/topics/{topic}``: null takes a config back to its default."""

    config: dict[str, str | None]


class SetSchema(Body, frozen=True):
    """``PUT /admin/topics/{topic}/schema``: the definition as a JSON object, or as its text; version 0 is the next."""

    format: Literal["json", "avro", "arrow"]
    definition: dict[str, Any] | Annotated[str, Meta(max_length=SCHEMA_BYTES_MAX)]
    version: Annotated[int, Meta(ge=0, le=SCHEMAS_MAX)] = 0


class AlterNamespace(Body, frozen=True):
    """``PATCH /admin/namespace``: null takes a config back to its default."""

    config: dict[str, str | None]


class AddPartitions(Body, frozen=True):
    """``POST /admin/topics/{topic}/partitions``."""

    total: Annotated[int, Meta(ge=1, le=10_000)]


class Trim(Body, frozen=True):
    """``POST /admin/topics/{topic}/partitions/{partition}/trim``: -1 stands for the end."""

    before: _OrNone


class NewProducer(Body, frozen=True):
    """``POST /producers``."""

    transactional_id: _Name = ""
    current: Producer | None = None


class Begin(Body, frozen=True):
    """``POST /transactions/begin``."""

    producer: Producer
    timeout_ms: Annotated[int, Meta(ge=1, le=86_400_000)] = 60_000


class TransactHeader(Body, frozen=True):
    """What the header of a frame for ``POST /transactions`` holds beside ``batches``."""

    producer: Producer
    offsets: tuple[Commit, ...] = ()
    token: _Token = ""


class AddHeader(Body, frozen=True):
    """What the header of a frame for ``POST /transactions/{txn}/records`` holds beside ``batches``."""

    offsets: tuple[Commit, ...] = ()


class ProduceHeader(Body, frozen=True):
    """What the header of a frame for ``POST /batches`` holds beside ``batches``."""

    token: _Token = ""


class NewUpload(Body, frozen=True):
    """``POST /topics/{topic}/partitions/{partition}/uploads``."""

    length: Annotated[int, Meta(ge=1, le=2**40)]


class AppendUpload(Body, frozen=True):
    """``POST /uploads/{upload}``."""

    token: _Token = ""
    producer: Producer | None = None
    sequence: Annotated[int, Meta(ge=-1, le=2**31 - 1)] = -1


class CommitOffsets(Body, frozen=True):
    """``POST /groups/{group}/offsets``."""

    offsets: Annotated[list[Offset], Meta(min_length=1, max_length=INTENT_OPS_MAX)]
    member: _Name = ""
    generation: _OrNone = -1


class DropOffsets(Body, frozen=True):
    """``DELETE /groups/{group}/offsets``."""

    partitions: Annotated[list[Place], Meta(min_length=1, max_length=INTENT_OPS_MAX)]


class Beat(Body, frozen=True):
    """``POST /groups/{group}/members/{member}/heartbeat``."""

    topics: Annotated[list[str], Meta(max_length=SUBSCRIBED_MAX)] | None = None
    released: list[Place] = []
    instance: _Name = ""
    assignor: _Name = ""
    session_ms: Annotated[int, Meta(ge=1, le=86_400_000)] = SESSION_MS
    rebalance_ms: Annotated[int, Meta(ge=1, le=86_400_000)] = REBALANCE_MS
    client: _Name = ""
    joining: bool = False
    renew: bool = True


class ChangeAcls(Body, frozen=True):
    """``POST /admin/acls``."""

    add: Annotated[list[Rule], Meta(max_length=ACLS_MAX)] = []
    remove: Annotated[list[Rule], Meta(max_length=ACLS_MAX)] = []


class CreateKey(Body, frozen=True):
    """``POST /admin/keys``."""

    principal: Annotated[str, Meta(min_length=1, max_length=NAME_BYTES_MAX)]
    scopes: Annotated[list[Rule], Meta(max_length=100)] = []
    expires_ms: _Whole = 0


class SetQuota(Body, frozen=True):
    """``PUT /admin/quotas/{principal}``: -1 lifts the bound."""

    produce_bytes_per_s: _OrNone = -1
    fetch_bytes_per_s: _OrNone = -1
    requests_per_s: _OrNone = -1


class AbortProducer(Body, frozen=True):
    """``POST /admin/producers/{producer}/abort``: only what the producer has open under this epoch."""

    epoch: _Whole


B = TypeVar("B", bound=Struct)


def request(body: Buffer, kind: type[B]) -> B:
    """A request's body. Raises ``InvalidRequest`` for what is no JSON, ``HttpError`` 422 for what does not fit."""
    try:
        str(body, "utf-8")  # msgspec passes over what it does not keep, and over what it keeps raw
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _unfit(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body is no JSON: {error}.") from error


def fit(plain: object, kind: type[B]) -> B:
    """``plain``, which JSON was read into, as ``kind``. Raises ``HttpError`` 422."""
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise _unfit(error) from error


def rules(given: Sequence[Rule]) -> list[AclRule]:
    """Rules as the log keeps them."""
    return [AclRule(r.principal, r.operation, r.resource, r.name, r.pattern, r.allow) for r in given]


def group_offsets(group: str, offsets: Sequence[Offset], member: str = "", generation: int = -1) -> GroupOffsets:
    """Offsets to commit, as ``verbs`` says them."""
    return GroupOffsets(group=group, offsets=_offsets(offsets), member=member, generation=generation)


def _unfit(error: Exception) -> HttpError:
    return HttpError(422, f"The body does not fit: {error}.")


# -- data of the verbs: out ----------------------------------------------------------------------------


def encode(value: object) -> bytes:
    """Any data of ``verbs``, and lists and objects of it, as JSON."""
    return msgspec.json.encode(plain(value))


def plain(value: Any) -> Any:
    """The same as dicts, lists, strings and numbers."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, AclRule):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, Struct):
        return msgspec.to_builtins(value)
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, bytes | bytearray | memoryview):
        return msgspec.to_builtins(value)
    if isinstance(value, Mapping):
        return _plain_mapping(value)
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):
        return {"topic": value[0], "partition": value[1]}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    raise TypeError(f"There is no JSON for {type(value).__name__}.")


def _plain_mapping(value: Mapping[Any, Any]) -> Any:
    if not value or isinstance(next(iter(value)), str):
        return {name: plain(item) for name, item in value.items()}
    return [
        {"topic": topic, "partition": partition}
        | ({"generation": item} if isinstance(item, int) else cast("dict[str, Any]", plain(item)))
        for (topic, partition), item in value.items()
    ]


# -- data of the verbs: in -----------------------------------------------------------------------------


def decode(data: Buffer, kind: type[T] | Any) -> T:
    """Data of ``verbs`` from its JSON: ``decode(body, TopicInfo)``, ``decode(body, list[Lag])``.

    Raises:
        InvalidRequest: the bytes are no JSON, or not that of ``kind``.
    """
    try:
        plain = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The bytes are no JSON: {error}.") from error
    return cast(T, read(plain, kind))


def read(plain: object, kind: type[T] | Any) -> T:
    """Data of ``verbs`` from what its JSON was read into. Raises ``InvalidRequest``."""
    try:
        reader: Callable[[Any], T] = _reader(cast(Any, kind))
        return reader(plain)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The data is no {kind}: {error}.") from error


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """How to read ``kind``; msgspec does it alone wherever no pair and no rule is in it."""
    if kind == TP:
        return lambda plain: _pair(msgspec.convert(plain, Place))
    if kind is AclRule:
        return lambda plain: rules([msgspec.convert(plain, Rule)])[0]
    arguments = get_args(kind)
    if arguments and arguments[0] == TP and get_origin(kind) in (Mapping, dict):
        return _offsets_reader if arguments[1] is GroupOffset else _owned_reader
    if not _special(kind):
        return lambda plain: msgspec.convert(plain, kind)
    if is_dataclass(kind):
        return _dataclass_reader(kind)
    item = _reader(arguments[0])
    return lambda plain: [item(each) for each in msgspec.convert(plain, list[Any])]


def _dataclass_reader(kind: Any) -> Callable[[Any], Any]:
    readers = {name: _reader(hint) for name, hint in get_type_hints(kind).items()}

    def read_it(plain: Any) -> Any:
        known = msgspec.convert(plain, dict[str, Any])
        try:
            return kind(**{name: readers[name](value) for name, value in known.items() if name in readers})
        except TypeError as error:
            raise msgspec.ValidationError(str(error)) from error

    return read_it


@cache
def _special(kind: Any) -> bool:
    if kind in (TP, AclRule):
        return True
    inner = get_type_hints(kind).values() if is_dataclass(kind) else get_args(kind)
    return any(_special(hint) for hint in inner if not isinstance(hint, str))


def _offsets_reader(plain: Any) -> dict[TP, GroupOffset]:
    return _offsets(msgspec.convert(_listed(plain), list[Offset]))


def _owned_reader(plain: Any) -> dict[TP, int]:
    return {(each.topic, each.partition): each.generation for each in msgspec.convert(_listed(plain), list[Owned])}


def _listed(plain: Any) -> Any:
    return [] if plain == {} else plain


def _offsets(offsets: Sequence[Offset]) -> dict[TP, GroupOffset]:
    return {
        (each.topic, each.partition): GroupOffset(
            offset=each.offset, metadata=each.metadata, committed_ms=each.committed_ms
        )
        for each in offsets
    }


def _pair(place: Place) -> TP:
    return place.topic, place.partition
