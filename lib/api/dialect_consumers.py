"""Consumer instances of the Kafka REST Proxy v2 in HTTP; what they do is in ``instances`` and ``instance_poll``.

Offsets in ``…/offsets`` are the next to read, as in Kafka, Redpanda and Strimzi's bridge (Confluent's proxy takes the
last one that was read, so a client written for it reads one record of each partition again when it starts anew).

Beyond the dialect: a poll with the ``Idempotency-Key`` of the poll before it begins where that one began. So a client
that got no answer asks again, and misses nothing; with one key after another it may do so at any time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar
from urllib.parse import quote

from msgspec import Meta, Struct

from headwater.api import asking, media, wire
from headwater.api.dialect import ANSWERS, answer
from headwater.api.messages import Call, Handler, HttpError, Response, Route
from headwater.api.rest_records import Format
from headwater.api.routes import GROUPS, body_schema
from headwater.api.verbs import TP, GroupOffset
from headwater.errors import InvalidRequest
from headwater.limits import (
    ANSWER_BYTES_MAX,
    CONSUMER_PLACES_MAX,
    HTTP_FETCH_BYTES_MAX,
    METADATA_BYTES_MAX,
    NAME_BYTES_MAX,
    PATTERN_CHARS_MAX,
    SESSION_MS_MAX,
    SESSION_MS_MIN,
    SUBSCRIBED_MAX,
)

if TYPE_CHECKING:
    from headwater.api.instance_store import Settings
    from headwater.api.instances import Instances

INVALID_CONFIG: Final = 42204
TAKES: Final = ANSWERS
RECORDS: Final = (media.KAFKA_JSON, media.KAFKA_BINARY, media.KAFKA_V2, media.JSON)
FORMATS: Final[Mapping[str, Format]] = {media.KAFKA_JSON: "json", media.KAFKA_BINARY: "binary"}
WAIT_MS_MAX: Final = 3_600_000  # what a client may ask for; a poll waits no longer than its call may take

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_WHOLE = re.compile(r"-?[0-9]{1,18}\Z")


# -- bodies ----------------------------------------------------------------------------------------------


class _Body(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Unknown fields are refused."""


_Flag = bool | Literal["true", "false"] | None
_Number = int | str | None


class CreateBody(
    _Body,
    frozen=True,
    rename={
        "reset": "auto.offset.reset",
        "auto_commit": "auto.commit.enable",
        "auto_commit_too": "enable.auto.commit",
        "bytes_min": "fetch.min.bytes",
        "wait_ms": "consumer.request.timeout.ms",
        "session_ms": "session.timeout.ms",
        "isolation": "isolation.level",
    },
):
    """``POST /consumers/{group}``. Numbers and booleans may be strings, as in Kafka's properties."""

    name: str | None = None
    id: str | None = None
    format: str = "binary"
    reset: str | None = None
    auto_commit: _Flag = None
    auto_commit_too: _Flag = None
    bytes_min: _Number = None
    wait_ms: _Number = None
    session_ms: _Number = None
    isolation: str | None = None


class SubscribeBody(_Body, frozen=True):
    """``POST …/subscription``: either of the two."""

    topics: Annotated[list[str], Meta(max_length=SUBSCRIBED_MAX)] | None = None
    topic_pattern: Annotated[str, Meta(max_length=PATTERN_CHARS_MAX)] | None = None


class PlaceBody(_Body, frozen=True):
    """A partition."""

    topic: Annotated[str, Meta(min_length=1, max_length=249)]
    partition: Annotated[int, Meta(ge=0, le=2**31 - 1)]


class PlacesBody(_Body, frozen=True):
    """Partitions."""

    partitions: Annotated[list[PlaceBody], Meta(max_length=CONSUMER_PLACES_MAX)]


class OffsetBody(PlaceBody, frozen=True):
    """The next offset to read of a partition."""

    offset: Annotated[int, Meta(ge=0, le=2**62)]
    metadata: Annotated[str, Meta(max_length=METADATA_BYTES_MAX)] | None = None


class OffsetsBody(_Body, frozen=True):
    """Offsets."""

    offsets: Annotated[list[OffsetBody], Meta(max_length=CONSUMER_PLACES_MAX)]


B = TypeVar("B", bound=_Body)


def _body(call: Call, kind: type[B]) -> B:
    """The body of a request, which has one.

    Raises:
        HttpError: 415, or 422 for JSON that does not fit.
        InvalidRequest: it is no JSON.
    """
    media.chosen(call.request, ANSWERS)
    named = media.content_type(call.request)
    if named not in TAKES:
        raise HttpError(
            415, f"This path takes {', '.join(TAKES)}, not {named[:80] or 'a body without a content type'}."
        )
    return wire.request(call.request.body, kind)


# -- the life of an instance -----------------------------------------------------------------------------


async def create(call: Call) -> Response:
    """Create a consumer instance in a group."""
    given = _body(call, CreateBody) if call.request.body else CreateBody()
    name = given.id or given.name or ""
    _check_name("group's name", call.parts["group"])
    if name:
        _check_name("consumer's name", name)
    group = call.parts["group"]
    name = await _instances(call).create(group, name, _settings(given))
    base = f"{call.request.base_url}/consumers/{quote(group, safe='')}/instances/{quote(name, safe='')}"
    return answer(call, {"instance_id": name, "base_uri": base})


async def delete(call: Call) -> Response:
    """Delete a consumer instance; it leaves its group."""
    await _instances(call).delete(*_named(call))
    return asking.done()


def _settings(given: CreateBody) -> Settings:
    from headwater.api.instance_store import Settings

    if given.format not in ("json", "binary"):
        raise _invalid(f"The format is json or binary, not {given.format[:40]!r}")
    if given.reset not in (None, "earliest", "latest", "none"):
        raise _invalid(f"auto.offset.reset is earliest, latest or none, not {str(given.reset)[:40]!r}")
    if given.isolation not in (None, "read_committed", "read_uncommitted"):
        raise _invalid("isolation.level is read_committed or read_uncommitted, which are the same here")
    flag = given.auto_commit if given.auto_commit_too is None else given.auto_commit_too
    known = Settings()
    return Settings(
        format="json" if given.format == "json" else "binary",
        reset=given.reset or known.reset,  # type: ignore[arg-type]  # checked above
        auto_commit=known.auto_commit if flag is None else flag in (True, "true"),
        bytes_min=_number("fetch.min.bytes", given.bytes_min, known.bytes_min, -1, HTTP_FETCH_BYTES_MAX),
        wait_ms=_number("consumer.request.timeout.ms", given.wait_ms, known.wait_ms, 0, WAIT_MS_MAX),
        session_ms=_number("session.timeout.ms", given.session_ms, 0, SESSION_MS_MIN, SESSION_MS_MAX),
    )


def _number(name: str, given: _Number, default: int, least: int, most: int) -> int:
    if given is None:
        return default
    number = int(given) if isinstance(given, int) or _WHOLE.match(given) else least - 1
    if not least <= number <= most:
        raise _invalid(f"{name} is a whole number from {least} to {most}, not {str(given)[:40]!r}")
    return number


def _invalid(why: str) -> HttpError:
    return HttpError(422, f"Invalid consumer configuration: {why}.", error_code=INVALID_CONFIG)


def _check_name(what: str, name: str) -> None:
    if not 1 <= len(name.encode(errors="replace")) <= NAME_BYTES_MAX or name in (".", ".."):
        raise HttpError(422, f"A {what} has 1 to {NAME_BYTES_MAX} bytes and is not '.' or '..'.")
    if _CONTROL.search(name) or "/" in name or "\\" in name:
        raise HttpError(422, f"A {what} has no slashes and no control characters; {name[:40]!r} has some.")


# -- what it reads ---------------------------------------------------------------------------------------


async def subscribe(call: Call) -> Response:
    """Subscribe to topics, or to those that match a pattern (of RE2, for whole names)."""
    given = _body(call, SubscribeBody)
    if (given.topics is None) == (given.topic_pattern is None):
        raise HttpError(422, "Give a list of topics or a topic_pattern, one of the two.")
    if given.topics == []:  # as in Kafka, no topics end a subscription
        return await unsubscribe(call)
    if given.topics is not None:
        await _instances(call).subscribe(*_named(call), given.topics)
    else:
        await _instances(call).subscribe_pattern(*_named(call), given.topic_pattern or "")
    return asking.done()


async def subscription(call: Call) -> Response:
    """The topics that the instance subscribes to, and the partitions of each that it has."""
    doc = await _instances(call).described(*_named(call))
    places: dict[str, list[int]] = {}
    if doc.mode != "assigned":
        for place in doc.places:
            places.setdefault(place.topic, []).append(place.partition)
    listed = [{topic: sorted(partitions)} for topic, partitions in sorted(places.items())]
    return answer(call, {"topics": list(doc.topics), "partitions": listed})


async def unsubscribe(call: Call) -> Response:
    """End the subscription, or the assignment; the instance leaves its group."""
    await _instances(call).unsubscribe(*_named(call))
    return asking.done()


async def assign(call: Call) -> Response:
    """Assign partitions by hand; they take the place of those before."""
    await _instances(call).assign(*_named(call), _places(_body(call, PlacesBody).partitions))
    return asking.done()


async def assignments(call: Call) -> Response:
    """The partitions that the instance reads, as of its last poll."""
    doc = await _instances(call).described(*_named(call))
    return answer(call, {"partitions": [{"topic": p.topic, "partition": p.partition} for p in doc.places]})


# -- where it reads --------------------------------------------------------------------------------------


async def seek(call: Call) -> Response:
    """Go on reading at these offsets."""
    offsets = {(o.topic, o.partition): o.offset for o in _body(call, OffsetsBody).offsets}
    await _instances(call).seek(*_named(call), offsets)
    return asking.done()


async def seek_to_beginning(call: Call) -> Response:
    """Go on reading at the first offset of these partitions."""
    await _instances(call).seek_to(*_named(call), _places(_body(call, PlacesBody).partitions), "earliest")
    return asking.done()


async def seek_to_end(call: Call) -> Response:
    """Go on reading behind the last offset of these partitions."""
    await _instances(call).seek_to(*_named(call), _places(_body(call, PlacesBody).partitions), "latest")
    return asking.done()


# -- records and offsets ---------------------------------------------------------------------------------


async def records(call: Call) -> Response:
    """The next records: an array, empty if there are none within the time."""
    from headwater.api.instance_poll import Poll

    media.chosen(call.request, RECORDS)
    accepted = [kind for kind in RECORDS if _takes(call, kind)]
    formats = {FORMATS[kind] for kind in accepted if kind in FORMATS}
    indifferent = media.KAFKA_V2 in accepted or media.JSON in accepted or len(formats) > 1
    bytes_max = _query(call, "max_bytes", 2**62)
    group, name = _named(call)
    poll = Poll(
        _instances(call),
        group,
        name,
        kind=None if indifferent else next(iter(formats)),
        wait_ms=_query(call, "timeout", WAIT_MS_MAX),
        wait_ms_max=call.wait_ms_max,
        bytes_max=max(1, min(bytes_max or ANSWER_BYTES_MAX, call.answer_bytes_max)),
        key=asking.once_of(call)[0],
    )
    body = await poll.records()
    named = media.KAFKA_BINARY if poll.kind == "binary" else media.KAFKA_JSON
    kind = next(kind for kind in (named, media.KAFKA_V2, media.JSON) if kind in accepted)
    return Response(headers={"content-type": kind}, body=body)


def _takes(call: Call, kind: str) -> bool:
    try:
        return media.chosen(call.request, (kind,)) == kind
    except HttpError:
        return False


async def commit(call: Call) -> Response:
    """Commit offsets, or without a body all that the polls have returned."""
    offsets: dict[TP, GroupOffset] | None = None
    if call.request.body:
        given = _body(call, OffsetsBody).offsets
        offsets = {(o.topic, o.partition): GroupOffset(offset=o.offset, metadata=o.metadata or "") for o in given}
    done = await _instances(call).commit(*_named(call), offsets)
    return answer(call, _offsets(done))


async def committed(call: Call) -> Response:
    """What the group has committed for the partitions in the body, or for those that the instance reads."""
    places = _places(_body(call, PlacesBody).partitions) if call.request.body else None
    return answer(call, {"offsets": _offsets(await _instances(call).committed(*_named(call), places))})


def _offsets(offsets: Mapping[TP, GroupOffset]) -> list[dict[str, object]]:
    return [
        {"topic": topic, "partition": partition, "offset": known.offset, "metadata": known.metadata}
        for (topic, partition), known in offsets.items()
    ]


def _query(call: Call, name: str, most: int) -> int | None:
    """A whole number of the query; None where it is missing or, as the proxy has it, negative."""
    text = call.request.query.get(name)
    if text is None:
        return None
    if not _WHOLE.match(text) or int(text) > most:
        raise InvalidRequest(f"{name} is a whole number up to {most}, not {text[:40]!r}.")
    return int(text) if int(text) >= 0 else None


def _places(given: Iterable[PlaceBody]) -> list[TP]:
    return [(place.topic, place.partition) for place in given]


def _named(call: Call) -> tuple[str, str]:
    return call.parts["group"], call.parts["instance"]


def _instances(call: Call) -> Instances:
    from headwater.api.instances import Instances

    return Instances(call.namespace, call.verbs, call.principal)


# -- the table -------------------------------------------------------------------------------------------

_GROUP: Final = "/consumers/{group}"
_INSTANCE: Final = f"{_GROUP}/instances/{{instance}}"


def _route(
    method: str,
    pattern: str,
    handler: Handler,
    body: type[Struct] | None = None,
    *,
    status: int = 204,
    produces: tuple[str, ...] = ANSWERS,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    says: object = None,
) -> Route:
    return Route(
        method=method,
        pattern=pattern,
        handler=handler,
        functions=GROUPS,
        summary=(handler.__doc__ or "").rstrip("."),
        consumes=TAKES if body else (),
        produces=produces,
        query=query or {},
        headers=headers or {},
        answer=says,
        schema=body_schema(body) if body else None,
        dialect=True,
        codes=(status,),
    )


ROUTES: tuple[Route, ...] = (
    _route("POST", _GROUP, create, CreateBody, status=200, says={"instance_id": str, "base_uri": str}),
    _route("DELETE", _INSTANCE, delete),
    _route("POST", f"{_INSTANCE}/subscription", subscribe, SubscribeBody),
    _route("GET", f"{_INSTANCE}/subscription", subscription, status=200),
    _route("DELETE", f"{_INSTANCE}/subscription", unsubscribe),
    _route("POST", f"{_INSTANCE}/assignments", assign, PlacesBody),
    _route("GET", f"{_INSTANCE}/assignments", assignments, status=200),
    _route("POST", f"{_INSTANCE}/positions", seek, OffsetsBody),
    _route("POST", f"{_INSTANCE}/positions/beginning", seek_to_beginning, PlacesBody),
    _route("POST", f"{_INSTANCE}/positions/end", seek_to_end, PlacesBody),
    _route(
        "GET",
        f"{_INSTANCE}/records",
        records,
        status=200,
        produces=RECORDS,
        query={
            "timeout": "how long to wait for records, in ms; the instance's consumer.request.timeout.ms by default",
            "max_bytes": "about how large the answer may be; one record is in it if there is any",
        },
        headers={"Idempotency-Key": "a poll with the key of the poll before it begins where that one began"},
    ),
    _route(
        "POST",
        f"{_INSTANCE}/offsets",
        commit,
        OffsetsBody,
        status=200,
        query={"async": "passed over: the answer comes when the offsets are committed"},
    ),
    _route("GET", f"{_INSTANCE}/offsets", committed, PlacesBody, status=200),
)
