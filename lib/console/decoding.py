"""Which decoder a key or a value needs, and what it makes of it: schemas of the topic and of the registry, Arrow, JSON.

A page of records asks once (``Decoders.of``): the registry is read only if some value on the page names a schema by an
id. Then each cell is pure. Whatever a decoder cannot read is shown as bytes, with a sentence that says why; no value
makes a page fail, and none is decoded that is longer than ``CONSOLE_DECODE_BYTES``.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import orjson

from headwater.api.service import Service
from headwater.console.cells import LINE_MAX, Cell, Kind, cell
from headwater.errors import Corrupt, InvalidRequest
from headwater.limits import CONSOLE_ARROW_BYTES, CONSOLE_ARROW_ROWS, CONSOLE_CELL_BYTES, CONSOLE_DECODE_BYTES
from headwater.log.namespace import Namespace
from headwater.log.state import Schema, Topic
from headwater.registry import decide
from headwater.registry.fold import Registry
from headwater.registry.records import SchemaType, Version
from headwater.registry.refusal import Refusal
from headwater.schemas import datums, framing

FORMS: Final = ("auto", "json", "avro", "protobuf", "arrow", "text", "hex")
REGISTRY_TOPIC: Final = "_schemas"
_ARROW: Final = b"\xff\xff\xff\xff"  # begins an Arrow IPC stream


class Unreadable(Exception):
    """The bytes are not what a decoder takes them for; the words say why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoders:
    """What there is to decode by. ``versions`` are the registry's schemas that the principal may see, by id."""

    schemas: Sequence[Schema] = ()
    registry: Registry = field(default_factory=Registry)
    versions: Mapping[int, Version] = field(default_factory=dict)

    @classmethod
    async def of(cls, service: Service, namespace: Namespace, topic: Topic, values: Iterable[bytes | None]) -> Decoders:
        """Cost: nothing; 1 GET, and the registry's new records, if a value names a schema by its id."""
        ids = {_id(value) for value in values if value is not None and _is_framed(value)}
        if not ids or namespace.state.named(REGISTRY_TOPIC) is None:
            return cls(schemas=topic.schemas)
        from headwater.registry.ledger import Ledger

        registry = await namespace.shared(Ledger).refresh()
        seen = {}
        for number in ids:
            for version in registry.with_id(number):
                subject = version.subject.removesuffix("-value").removesuffix("-key")
                if subject == topic.name or service.may("describe", "topic", subject):
                    seen[number] = version
        return cls(schemas=topic.schemas, registry=registry, versions=seen)

    def value(self, data: bytes | None, form: str = "auto") -> Cell:
        """What to show of a record's value as ``form``, one of ``FORMS``, and by which decoder. Never raises."""
        return self._cell(data, form, self.schemas)

    def key(self, data: bytes | None, form: str = "auto") -> Cell:
        """The same of a key or a header, which the topic's schema says nothing of; a form that is for values is not
        forced upon them.
        """
        return self._cell(data, form if form in ("text", "hex") else "auto", ())

    def _cell(self, data: bytes | None, form: str, own: Sequence[Schema]) -> Cell:
        if data is None or form in ("text", "hex"):
            return cell(data, as_=form)
        if len(data) > (CONSOLE_ARROW_BYTES if data[:4] == _ARROW else CONSOLE_DECODE_BYTES):
            plain = cell(data)
            return plain if form in ("auto", plain.kind) else _bytes(data, "It is too long to be decoded on a page.")
        try:
            found = self._decoded(data, form, own)
        except Unreadable as error:
            return _bytes(data, str(error))
        return found or cell(data)

    def _decoded(self, data: bytes, form: str, own: Sequence[Schema]) -> Cell | None:
        if form in ("auto", "arrow") and data[:4] == _ARROW:
            return _arrow(data)
        if own and own[-1].format == "avro" and form in ("auto", "avro") and not framing.bound(own):
            return _own_avro(own, data)
        if form in ("auto", "json", "avro", "protobuf") and _is_framed(data):
            found = self._registered(data, form)
            if found is not None:
                return found
        if form == "auto":
            return _by_schema(own, data)
        if form == "json":
            return _told("json", _json(data), data, "JSON")
        raise Unreadable(_HINTS[form])

    def _registered(self, data: bytes, form: str) -> Cell | None:
        version = self.versions.get(_id(data))
        if version is None:
            if form == "auto" and len(self.registry.ids) == 0:
                return None
            raise Unreadable(f"It names schema {_id(data)} of the registry, which is not there, or not for you to see.")
        kind = version.schema_type
        if form not in ("auto", kind.lower()):
            raise Unreadable(f"Its schema {version.id} is one of {kind}, not of {form.upper()}.")
        shown, name, read = _READERS[kind]
        by = f"{name} by schema {version.id} of the registry: {version.subject}, version {version.version}"
        try:
            return _told(shown, read(self.registry, version, data[framing.FRAME :]), data, by)
        except Refusal as error:
            raise Unreadable(f"Its schema cannot be used ({error}).") from None


def _is_framed(data: bytes) -> bool:
    return data[:1] == b"\0" and len(data) >= framing.FRAME


def _id(data: bytes) -> int:
    return int.from_bytes(data[1 : framing.FRAME], "big")


def _bytes(data: bytes, why: str) -> Cell:
    shown = cell(data, as_="hex")
    return Cell(kind="hex", text=shown.text, nbytes=shown.nbytes, cut=shown.cut, note=f"{why} Here are its bytes.")


# -- decoders --------------------------------------------------------------------------------------------------


def _by_schema(own: Sequence[Schema], data: bytes) -> Cell | None:
    """JSON of a topic with a schema says by which; JSON of others, text and bytes are for ``cells``."""
    if not own or own[-1].format == "avro":
        return None
    by = f"JSON; the topic's {own[-1].format} schema has version {own[-1].version}"
    try:
        return _told("json", _json(data), data, by)
    except Unreadable:
        return None


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"It is no JSON ({error}).") from None


def _own_avro(schemas: Sequence[Schema], data: bytes) -> Cell:
    ((version, _, (datum,)),) = datums.grouped(schemas, [data])
    if version is None:
        raise Unreadable("It names a version that the topic's schema does not have.")
    by = f"Avro by the topic's schema, version {version.version}"
    return _told("avro", _datum(msgspec.json.decode(version.definition), [], datum), data, by)


def _avro(registry: Registry, version: Version, data: bytes) -> Any:
    others = decide.referred(registry, version.references)
    return _datum(msgspec.json.decode(version.schema), [msgspec.json.decode(text) for _, text in others.values()], data)


def _datum(document: Any, referred: Sequence[Any], data: bytes) -> Any:
    from headwater.console.avros import datum

    try:
        return datum(document, referred, data)
    except InvalidRequest as error:
        raise Unreadable(str(error)) from None


def _protobuf(registry: Registry, version: Version, data: bytes) -> Any:
    from headwater.registry import protovalues

    try:
        parsed = decide.definition_of(registry, "PROTOBUF", version.schema, version.references).parsed
        name, found = protovalues.decode(parsed, data)
    except protovalues.UNFIT as error:
        raise Unreadable(f"It is no message of its Protobuf schema ({str(error) or type(error).__name__}).") from None
    return {name: found}


def _arrow(data: bytes) -> Cell:
    """An Arrow IPC stream as its first rows."""
    from headwater.log.codec_arrow import read_first

    try:
        batch, total = read_first(data, CONSOLE_ARROW_BYTES)
    except Corrupt as error:
        raise Unreadable(f"It begins like an Arrow stream, and is none that is shown here. {error}") from None
    rows = batch.slice(0, CONSOLE_ARROW_ROWS).to_pylist()
    columns = {member.name: str(member.type) for member in batch.schema}
    by = f"Arrow, {len(columns)} columns, {len(rows)} of {total:,} rows"
    return _told("arrow", {"columns": columns, "rows": rows}, data, by)


_Reader = Callable[[Registry, Version, bytes], Any]
_READERS: Final[dict[SchemaType, tuple[Kind, str, _Reader]]] = {
    "AVRO": ("avro", "Avro", _avro),
    "PROTOBUF": ("protobuf", "Protobuf", _protobuf),
    "JSON": ("json", "JSON", lambda _registry, _version, data: _json(data)),
}
_HINTS: Final = {
    "avro": "Neither the topic's schema nor an id of the registry says how to read it as Avro.",
    "protobuf": "No id of the registry says how to read it as Protobuf.",
    "arrow": "It is no Arrow stream.",
}


def _told(kind: Kind, value: Any, data: bytes, by: str) -> Cell:
    """A value as JSON, on one line if it is short."""
    try:
        line = orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)
        shown = line if len(line) <= LINE_MAX else orjson.dumps(value, default=_plain, option=_INDENTED)
    except TypeError as error:  # nested too deep, or a number beyond 64 bits
        raise Unreadable(f"It cannot be shown as JSON ({error}).") from None
    text = shown.decode()
    cut = text[:CONSOLE_CELL_BYTES]
    return Cell(kind=kind, text=cut, nbytes=len(data), cut=len(cut) < len(text), by=by)


_INDENTED: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_INDENT_2


def _plain(value: Any) -> Any:
    """What JSON has no word for, in one that people read: bytes in base64, numbers and times as text."""
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    return str(value)
