"""JSON Schemas of answers: the data of ``verbs`` as ``wire.encode`` writes it. Only the OpenAPI document reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from headwater.api import wire
from headwater.api.verbs import AclRule, GroupOffset

REFERENCE = "#/components/schemas/"

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    NoneType: {"type": "null"},
    Any: {},
}


def schema_of(kind: Any, shared: dict[str, Any]) -> dict[str, Any]:
    """The schema of ``kind``: a type of ``verbs``, or a dict of them by field. Data classes go into ``shared``.

    Every field is there in every answer, and later versions may add others.
    """
    if isinstance(kind, Mapping):
        return _object({name: schema_of(inner, shared) for name, inner in kind.items()})
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind == wire.TP:
        return _struct(wire.Place, shared)
    if kind is AclRule:
        return _struct(wire.Rule, shared)
    if is_dataclass(kind):
        return _dataclass(kind, shared)
    return _generic(kind, shared)


def _generic(kind: Any, shared: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(kind), tuple(inner for inner in get_args(kind) if inner is not Ellipsis)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, UnionType):
        return {"anyOf": [schema_of(inner, shared) for inner in arguments]}
    if len(arguments) == 2 and arguments[0] == wire.TP:
        entry = wire.Offset if arguments[1] is GroupOffset else wire.Owned
        return {"type": "array", "items": _struct(entry, shared)}
    if len(arguments) == 2 and arguments[0] is str:
        return {"type": "object", "additionalProperties": schema_of(arguments[1], shared)}
    assert len(arguments) == 1, kind
    return {"type": "array", "items": schema_of(arguments[0], shared)}


def _dataclass(kind: Any, shared: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__.lstrip("_")
    if name not in shared:
        hints = get_type_hints(kind)
        shared[name] = {}  # it may hold itself
        shared[name] |= _object({field.name: schema_of(hints[field.name], shared) for field in fields(kind)})
        shared[name]["title"] = name
    return {"$ref": REFERENCE + name}


def _struct(kind: type[msgspec.Struct], shared: dict[str, Any]) -> dict[str, Any]:
    """A piece of bodies that stands in requests too; there its defaults may be left out."""
    if kind.__name__ not in shared:
        shared[kind.__name__] = msgspec.json.schema(kind)["$defs"][kind.__name__]
    return {"$ref": REFERENCE + kind.__name__}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
