"""Schemas as text: what they say, whether they are any, and whether two of them say the same.

A definition is kept as compact JSON (Avro, JSON Schema) or as it was sent (Protobuf). Two are the same if their parsed
forms are, with the order of JSON's members and white space left out: that is a little more than Confluent's registry
takes for the same, and so ``normalize`` has nothing left to do.

A judge is imported when its first schema comes: a function that serves other things does not pay for it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from headwater.limits import REGISTRY_DEPTH_MAX, REGISTRY_PARSED_MAX, REGISTRY_SCHEMA_BYTES_MAX
from headwater.registry.records import Reference, SchemaType
from headwater.registry.refusal import invalid_schema

_sorted: Final = msgspec.json.Encoder(order="sorted")


class Definition:
    """A schema that was parsed, with what it refers to. ``parsed`` is what its type's judge compares."""

    __slots__ = ("parsed", "text", "type")

    def __init__(self, kind: SchemaType, text: str, parsed: Any) -> None:
        self.type = kind
        self.text = text
        self.parsed = parsed


def identity(kind: SchemaType, text: str, references: Sequence[Reference]) -> bytes:
    """Equal for schemas that say the same and refer to the same. Never raises."""
    made = hashlib.sha256(f"{kind}\0".encode() + _canonical(kind, text))
    for each in sorted((each.name, each.subject, each.version) for each in references):
        made.update(msgspec.json.encode(each))
    return made.digest()


def compact(kind: SchemaType, text: str) -> str:
    """The text as it is kept. Raises ``Refusal`` 42201 if it is too large, nested too deep, or no JSON."""
    if len(text) > REGISTRY_SCHEMA_BYTES_MAX or len(text.encode(errors="replace")) > REGISTRY_SCHEMA_BYTES_MAX:
        raise invalid_schema(f"it has more than {REGISTRY_SCHEMA_BYTES_MAX} bytes.")
    if kind == "PROTOBUF":
        return text
    document = _document(text)
    if _depth(document) > REGISTRY_DEPTH_MAX:
        raise invalid_schema(f"it is nested deeper than {REGISTRY_DEPTH_MAX} levels.")
    return msgspec.json.encode(document).decode()


def parsed(kind: SchemaType, text: str, referred: Mapping[str, tuple[SchemaType, str]]) -> Definition:
    """The definition, checked. ``referred`` has what it refers to, type and text by name, innermost first.

    Raises:
        Refusal: 42201, it is no schema of its type, or needs one that is not among ``referred``.
    """
    return _parsed(kind, text, tuple((name, *each) for name, each in referred.items()))


@functools.lru_cache(REGISTRY_PARSED_MAX)
def _parsed(kind: SchemaType, text: str, others: tuple[tuple[str, SchemaType, str], ...]) -> Definition:
    if any(each != kind for _, each, _ in others):
        raise invalid_schema(f"a schema of type {kind} refers to schemas of that type only.")
    texts = {name: other for name, _, other in others}
    try:
        match kind:
            case "AVRO":
                from headwater.registry import avro

                made: Any = avro.parse(_document(text), [_document(each) for each in dict.fromkeys(texts.values())])
            case "JSON":
                from headwater.registry import jsons

                made = jsons.parse(_document(text), {name: _document(each) for name, each in texts.items()})
            case _:
                from headwater.registry import protobuf

                made = protobuf.parse(text, texts)
    except RecursionError:
        raise invalid_schema("it is nested too deep.") from None
    return Definition(kind, text, made)


def _document(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise invalid_schema(f"it is no JSON ({error}).") from None


def _canonical(kind: SchemaType, text: str) -> bytes:
    if kind == "PROTOBUF":
        from headwater.registry import protobuf

        return protobuf.canonical(text).encode(errors="replace")
    try:
        return _sorted.encode(_unwrapped(msgspec.json.decode(text)) if kind == "AVRO" else msgspec.json.decode(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text.encode(errors="replace")


def _unwrapped(node: Any) -> Any:
    """Avro: ``{"type": "int"}`` says what ``"int"`` says."""
    if isinstance(node, list):
        return [_unwrapped(each) for each in node]
    if not isinstance(node, dict):
        return node
    if len(node) == 1 and isinstance(node.get("type"), str):
        return node["type"]
    return {name: value if name == "default" else _unwrapped(value) for name, value in node.items()}


def _depth(document: Any) -> int:
    depth, level = 0, [document]
    while level and depth <= REGISTRY_DEPTH_MAX:
        depth += 1
        level = [
            below
            for node in level
            if isinstance(node, dict | list)
            for below in (node.values() if isinstance(node, dict) else node)
        ]
    return depth
