"""The Confluent Schema Registry's REST API below ``/registry``: what its clients take for a registry of their own.

Clients get ``http://host:port/registry`` as their URL. Access rules are those of topics: who may describe a topic may
read the subjects ``<topic>-key`` and ``<topic>-value``, who may write it may register there, who may alter it may
delete and configure them. Any other subject is judged as a topic of its name; what is for all subjects asks for the
cluster. Contexts, exporters, encryption, metadata and rules of schemas are refused, not passed over.

Source: Confluent's Schema Registry API reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import Struct

from headwater.api import media, wire
from headwater.api.messages import Call, Handler, HttpError, Response, Route
from headwater.api.routes import GROUPS, body_schema
from headwater.api.service_base import ServiceBase
from headwater.log.operations import Operation
from headwater.registry import decide, records, refusal
from headwater.registry.decide import Decision, Wanted
from headwater.registry.fold import Registry
from headwater.registry.ledger import Ledger
from headwater.registry.records import ALL, Reference, SchemaType, Version
from headwater.registry.refusal import Refusal

T = TypeVar("T")

V1: Final = "application/vnd.schemaregistry.v1+json"
TYPES: Final = (V1, "application/vnd.schemaregistry+json", "application/json")
TEXT: Final = "text/plain"

_PAGE: Final = {"offset": "how many to leave out", "limit": "how many at most; -1 is all"}
_DELETED: Final = {
    "deleted": "`true`: softly deleted ones too",
    "deletedOnly": "`true`: only those",
    "deleted_only": "the same",
}
_NORMALIZE: Final = {"normalize": "without effect: what says the same is the same always"}
_FORMAT: Final = {"format": "`serialized`: Protobuf as a descriptor in base64", "reference_format": "without effect"}


class SchemaBody(Struct, frozen=True):
    """A schema as clients send it. Fields that are not known here are passed over, as in Confluent's registry."""

    schema: str
    schemaType: SchemaType | None = None  # noqa: N815 - its name in JSON
    references: list[Reference] | None = None
    version: int | None = None
    id: int | None = None
    metadata: dict[str, Any] | None = None
    ruleSet: dict[str, Any] | None = None  # noqa: N815


class LevelBody(Struct, frozen=True):
    """``PUT /config``."""

    compatibility: str


class ModeBody(Struct, frozen=True):
    """``PUT /mode``."""

    mode: str


# -- subjects and versions ---------------------------------------------------------------------------------


async def list_subjects(call: Call) -> Response:
    """The names of all subjects."""
    prefix = call.request.query.get("subjectPrefix", "")
    registry = await _entered(call)
    names = [
        name
        for name in sorted(registry.subjects)
        if name.startswith(prefix) and _may(call, name) and _shown(call, registry.versions(name, deleted=True))
    ]
    return _answer(call, _page(call, names))


async def list_versions(call: Call) -> Response:
    """The numbers of a subject's versions."""
    registry = await _entered(call, "describe")
    shown = _shown(call, registry.versions(call.parts["subject"], deleted=True))
    if not shown:
        raise refusal.no_subject(call.parts["subject"])
    return _answer(call, _page(call, [each.version for each in shown]))


async def show_version(call: Call) -> Response:
    """One version of a subject."""
    found, registry = await _version(call)
    return _answer(call, _whole(_formatted(call, registry, found)))


async def show_version_schema(call: Call) -> Response:
    """The text of one version."""
    found, registry = await _version(call)
    return _text(call, _formatted(call, registry, found))


async def list_referrers(call: Call) -> Response:
    """The ids of the schemas that refer to one version."""
    found, registry = await _version(call)
    return _answer(call, _page(call, registry.referrers(found.subject, found.version)))


async def register(call: Call) -> Response:
    """Make a schema the next version of a subject, if it is compatible; it keeps its id if it has one."""
    from headwater.registry.columns import give_columns  # with all that makes columns of schemas

    subject, wanted = call.parts["subject"], _wanted(call)
    made = await _change(call, "write", lambda registry: decide.register(registry, subject, wanted))
    await give_columns(call.namespace, made)
    return _answer(call, _whole(made))


async def lookup(call: Call) -> Response:
    """The version of a subject that says the same as a schema."""
    wanted = _wanted(call)
    registry = await _entered(call, "describe")
    deleted = _flag(call, "deleted")
    return _answer(call, _whole(decide.lookup(registry, call.parts["subject"], wanted, deleted=deleted)))


async def delete_subject(call: Call) -> Response:
    """Delete a subject, softly; or for good, what is deleted softly."""
    subject, permanent = call.parts["subject"], _flag(call, "permanent")
    gone = await _change(call, "alter", lambda registry: decide.delete_subject(registry, subject, permanent=permanent))
    return _answer(call, gone)


async def delete_version(call: Call) -> Response:
    """Delete one version, softly; or for good, what is deleted softly."""
    subject, version, permanent = call.parts["subject"], call.parts["version"], _flag(call, "permanent")
    gone = await _change(
        call, "alter", lambda registry: decide.delete_version(registry, subject, version, permanent=permanent)
    )
    return _answer(call, gone)


# -- schemas by id -------------------------------------------------------------------------------------------


async def list_schemas(call: Call) -> Response:
    """Every version of every subject."""
    prefix, latest = call.request.query.get("subjectPrefix", ""), _flag(call, "latestOnly")
    registry = await _entered(call)
    found: list[Version] = []
    for name in sorted(registry.subjects):
        if name.startswith(prefix) and _may(call, name):
            shown = _shown(call, registry.versions(name, deleted=True))
            found += shown[-1:] if latest else shown
    return _answer(call, [_whole(each) for each in _page(call, found)])


async def show_types(call: Call) -> Response:
    """The types of schemas."""
    return _answer(call, list(records.TYPES))


async def show_schema(call: Call) -> Response:
    """The schema of an id."""
    found, registry = await _with_id(call)
    body = _content(_formatted(call, registry, found[0]))
    if _flag(call, "fetchMaxId"):
        body["maxId"] = registry.id_max
    return _answer(call, body)


async def show_schema_text(call: Call) -> Response:
    """The text of the schema of an id."""
    found, registry = await _with_id(call)
    return _text(call, _formatted(call, registry, found[0]))


async def list_id_subjects(call: Call) -> Response:
    """The subjects that have a schema."""
    found, _ = await _with_id(call)
    return _answer(call, _page(call, sorted({each.subject for each in _shown(call, found)})))


async def list_id_versions(call: Call) -> Response:
    """The versions that a schema is."""
    found, _ = await _with_id(call)
    shown = [{"subject": each.subject, "version": each.version} for each in _shown(call, found)]
    return _answer(call, _page(call, shown))


# -- compatibility, levels and modes -----------------------------------------------------------------------


async def check_compatibility(call: Call) -> Response:
    """Whether a schema could be registered: beside one version, or beside those that the level asks for."""
    wanted = _wanted(call)
    registry = await _entered(call, "describe")
    found = decide.compatible(registry, call.parts["subject"], wanted, call.parts.get("version", ""))
    verbose = {"messages": found} if _flag(call, "verbose") else {}
    return _answer(call, {"is_compatible": not found, **verbose})


async def show_level(call: Call) -> Response:
    """The level of all subjects, or of one."""
    registry, subject = await _entered(call, "describe"), call.parts.get("subject", ALL)
    if subject != ALL and subject not in registry.configs and not _flag(call, "defaultToGlobal"):
        raise decide.no_level(subject)
    return _answer(call, {"compatibilityLevel": registry.level(subject)})


async def set_level(call: Call) -> Response:
    """Set the level of all subjects, or of one."""
    body, subject = _body(call, LevelBody), call.parts.get("subject", ALL)
    level = await _change(call, "alter", lambda registry: decide.set_level(registry, subject, body.compatibility))
    return _answer(call, {"compatibility": level})


async def unset_level(call: Call) -> Response:
    """Take a level back to that of all subjects, or that one to BACKWARD; the answer is what it was."""
    subject = call.parts.get("subject", ALL)
    level = await _change(call, "alter", lambda registry: decide.unset_level(registry, subject))
    return _answer(call, {"compatibilityLevel": level})


async def show_mode(call: Call) -> Response:
    """The mode of all subjects, or of one."""
    registry, subject = await _entered(call, "describe"), call.parts.get("subject", ALL)
    if subject != ALL and subject not in registry.modes and not _flag(call, "defaultToGlobal"):
        raise decide.no_mode(subject)
    return _answer(call, {"mode": registry.mode(subject)})


async def set_mode(call: Call) -> Response:
    """Set the mode of all subjects, or of one."""
    body, subject = _body(call, ModeBody), call.parts.get("subject", ALL)
    mode = await _change(call, "alter", lambda registry: decide.set_mode(registry, subject, body.mode))
    return _answer(call, {"mode": mode})


async def unset_mode(call: Call) -> Response:
    """Take a mode back; the answer is what it was."""
    subject = call.parts.get("subject", ALL)
    mode = await _change(call, "alter", lambda registry: decide.unset_mode(registry, subject))
    return _answer(call, {"mode": mode})


async def show_root(call: Call) -> Response:
    """Nothing: clients ask whether there is a registry."""
    return _answer(call, {})


# -- the parts -----------------------------------------------------------------------------------------------


async def _entered(call: Call, operation: Operation | None = None) -> Registry:
    """The registry of this moment, if the principal may do that with the subject of the path."""
    service = cast(ServiceBase, call.verbs)
    await service.enter()
    if operation is not None:
        _check(call, operation)
    return await call.namespace.shared(Ledger).refresh()


async def _change(call: Call, operation: Operation, choose: Callable[[Registry], Decision[T]]) -> T:
    await cast(ServiceBase, call.verbs).enter()
    _check(call, operation)
    return await call.namespace.shared(Ledger).change(choose)


def _check(call: Call, operation: Operation) -> None:
    subject = call.parts.get("subject", ALL)
    service = cast(ServiceBase, call.verbs)
    if subject == ALL:
        service.check(operation, "cluster")
    else:
        service.check(operation, "topic", _topic(subject))


def _may(call: Call, subject: str) -> bool:
    return cast(ServiceBase, call.verbs).may("describe", "topic", _topic(subject))


def _topic(subject: str) -> str:
    for end in ("-key", "-value"):
        if subject.endswith(end) and len(subject) > len(end):
            return subject.removesuffix(end)
    return subject


async def _version(call: Call) -> tuple[Version, Registry]:
    registry = await _entered(call, "describe")
    subject, version = call.parts["subject"], call.parts["version"]
    return decide.version_of(registry, subject, version, deleted=_flag(call, "deleted")), registry


async def _with_id(call: Call) -> tuple[list[Version], Registry]:
    """The versions of an id that the principal may see; with ``subject`` those of one subject."""
    registry = await _entered(call)
    text, subject = call.parts["id"], call.request.query.get("subject", "")
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
    found = [each for each in registry.with_id(number) if _may(call, each.subject)]
    found = [each for each in found if each.subject == subject] or found if subject else found
    if not found:
        raise refusal.no_schema(f"Schema {text[:40]}")
    return found, registry


def _formatted(call: Call, registry: Registry, version: Version) -> Version:
    """The version, with its text in the format that is asked for: a Protobuf descriptor is ``serialized``."""
    wanted = call.request.query.get("format", "")
    if wanted not in ("", "default", "serialized"):
        raise Refusal(422, f"The format {wanted[:40]!r} is not made here; leave it out.")
    if wanted != "serialized" or version.schema_type != "PROTOBUF":
        return version
    return decide.serialized(registry, version)


def _wanted(call: Call) -> Wanted:
    """The schema of the body. Raises ``Refusal`` 42201, also for what would be lost here."""
    body = _body(call, SchemaBody)
    if body.metadata or body.ruleSet:
        raise refusal.invalid_schema("metadata and rules are not kept here; leave them out.")
    if body.id is not None and body.id > 0:
        raise Refusal(refusal.NOT_PERMITTED, "An id is given by the registry; leave it out.")
    if not body.schema.strip():
        raise Refusal(refusal.INVALID_SCHEMA, "Empty schema")
    return Wanted(
        text=body.schema,
        type=body.schemaType or "AVRO",
        references=tuple(body.references or ()),
        version=max(0, body.version or 0),
    )


B = TypeVar("B", bound=Struct)


def _body(call: Call, kind: type[B]) -> B:
    try:
        return wire.request(call.request.body, kind)
    except HttpError as error:
        raise Refusal(422, error.message) from error


def _flag(call: Call, name: str) -> bool:
    return call.request.query.get(name, "").lower() == "true"


def _shown(call: Call, versions: Sequence[Version]) -> list[Version]:
    """Those that the query asks for: living ones, with ``deleted`` all, with ``deletedOnly`` the others."""
    only = _flag(call, "deletedOnly") or _flag(call, "deleted_only")
    everything = _flag(call, "deleted")
    return [each for each in versions if (each.deleted if only else everything or not each.deleted)]


def _page(call: Call, items: Sequence[T]) -> Sequence[T]:
    offset, limit = _number(call, "offset", 0), _number(call, "limit", -1)
    start = max(0, offset)
    return items[start:] if limit < 0 else items[start : start + limit]


def _number(call: Call, name: str, default: int) -> int:
    text = call.request.query.get(name, "")
    if not text:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise Refusal(422, f"{name} is a whole number, not {text[:40]!r}.")
    return int(text)


def _content(version: Version) -> dict[str, Any]:
    """A schema without its place. AVRO goes without saying, as in Confluent's registry."""
    body: dict[str, Any] = {"schema": version.schema}
    if version.schema_type != "AVRO":
        body["schemaType"] = version.schema_type
    if version.references:
        body["references"] = version.references
    return body


def _whole(version: Version) -> dict[str, Any]:
    place = {"subject": version.subject, "version": version.version, "id": version.id}
    return {**place, **_content(version), **({"deleted": True} if version.deleted else {})}


def _answer(call: Call, value: object) -> Response:
    kind = media.chosen(call.request, TYPES)
    return Response(headers={"content-type": kind}, body=msgspec.json.encode(value))


def _text(call: Call, version: Version) -> Response:
    """A schema as it is: JSON, except for Protobuf."""
    kind = TEXT if version.schema_type == "PROTOBUF" else media.chosen(call.request, TYPES)
    return Response(headers={"content-type": kind}, body=version.schema.encode())


# -- the table -----------------------------------------------------------------------------------------------


def _route(
    method: str,
    pattern: str,
    handler: Handler,
    *,
    body: type[Struct] | None = None,
    query: Mapping[str, str] | None = None,
) -> Route:
    return Route(
        method=method,
        pattern=f"/registry{pattern}",
        handler=_guarded(handler),
        functions=GROUPS,
        summary=(handler.__doc__ or "").rstrip("."),
        consumes=TYPES if body is not None else (),
        produces=(*TYPES, TEXT) if pattern.endswith("}/schema") else TYPES,
        query=query or {},
        any_query=True,
        schema=body_schema(body) if body is not None else None,
    )


def _guarded(handler: Handler) -> Handler:
    """The handler, whose refusals have Confluent's numbers in the error's JSON."""

    async def guarded(call: Call) -> Response:
        try:
            return await handler(call)
        except Refusal as error:
            raise HttpError(error.status, error.message, error_code=error.error_code) from error

    return guarded


_SUBJECT: Final = "/subjects/{subject}"
_VERSIONS: Final = f"{_SUBJECT}/versions"
_VERSION: Final = f"{_VERSIONS}/{{version}}"
_ID: Final = "/schemas/ids/{id}"
_VERBOSE: Final = {"verbose": "`true`: say why not", **_NORMALIZE}
_PERMANENT: Final = {"permanent": "`true`: for good, after it was deleted softly"}
_GLOBAL: Final = {"defaultToGlobal": "`true`: that of all subjects if it has none of its own"}
_FORCE: Final = {"force": "without effect"}
_ONE: Final = {"deleted": "`true`: also if it is softly deleted", **_FORMAT}

ROUTES: tuple[Route, ...] = (
    _route("GET", "", show_root),
    _route("GET", "/subjects", list_subjects, query={"subjectPrefix": "how names begin", **_DELETED, **_PAGE}),
    _route("POST", _SUBJECT, lookup, body=SchemaBody, query={"deleted": _ONE["deleted"], **_NORMALIZE, **_FORMAT}),
    _route("DELETE", _SUBJECT, delete_subject, query=_PERMANENT),
    _route("GET", _VERSIONS, list_versions, query={**_DELETED, **_PAGE}),
    _route("POST", _VERSIONS, register, body=SchemaBody, query={**_NORMALIZE, **_FORMAT}),
    _route("GET", _VERSION, show_version, query=_ONE),
    _route("DELETE", _VERSION, delete_version, query=_PERMANENT),
    _route("GET", f"{_VERSION}/schema", show_version_schema, query=_ONE),
    _route("GET", f"{_VERSION}/referencedby", list_referrers, query=_PAGE),
    _route(
        "GET",
        "/schemas",
        list_schemas,
        query={"subjectPrefix": "how subjects begin", "latestOnly": "`true`: the latest of each", **_DELETED, **_PAGE},
    ),
    _route("GET", "/schemas/types", show_types),
    _route(
        "GET",
        _ID,
        show_schema,
        query={"subject": "whose it is", "fetchMaxId": "`true`: the largest id beside", **_FORMAT},
    ),
    _route("GET", f"{_ID}/schema", show_schema_text, query={"subject": "whose it is", **_FORMAT}),
    _route("GET", f"{_ID}/subjects", list_id_subjects, query={"subject": "only this one", **_DELETED, **_PAGE}),
    _route("GET", f"{_ID}/versions", list_id_versions, query={"subject": "only this one", **_DELETED, **_PAGE}),
    _route("POST", f"/compatibility{_VERSIONS}", check_compatibility, body=SchemaBody, query=_VERBOSE),
    _route("POST", f"/compatibility{_VERSION}", check_compatibility, body=SchemaBody, query=_VERBOSE),
    _route("GET", "/config", show_level),
    _route("PUT", "/config", set_level, body=LevelBody),
    _route("DELETE", "/config", unset_level),
    _route("GET", "/config/{subject}", show_level, query=_GLOBAL),
    _route("PUT", "/config/{subject}", set_level, body=LevelBody),
    _route("DELETE", "/config/{subject}", unset_level),
    _route("GET", "/mode", show_mode),
    _route("PUT", "/mode", set_mode, body=ModeBody, query=_FORCE),
    _route("DELETE", "/mode", unset_mode),
    _route("GET", "/mode/{subject}", show_mode, query=_GLOBAL),
    _route("PUT", "/mode/{subject}", set_mode, body=ModeBody, query=_FORCE),
    _route("DELETE", "/mode/{subject}", unset_mode),
)
