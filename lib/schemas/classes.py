"""A Python class as JSON Schema: dataclass, TypedDict, NamedTuple or ``msgspec.Struct``, whose values are JSON objects.

``msgspec.inspect`` reads the annotations. Its own ``json.schema`` would write a NamedTuple as an array, and a
``datetime``, which may lack a zone, as mere text; here it is a ``date-time``, and one without a zone is UTC.
"""

from __future__ import annotations

from typing import Any, Final

from headwater.errors import InvalidRequest
from headwater.schemas.shape import refuse

_PLAIN: Final[dict[str, dict[str, Any]]] = {
    "IntType": {"type": "integer"},
    "FloatType": {"type": "number"},
    "BoolType": {"type": "boolean"},
    "StrType": {"type": "string"},
    "BytesType": {"type": "string", "contentEncoding": "base64"},
    "ByteArrayType": {"type": "string", "contentEncoding": "base64"},
    "DateTimeType": {"type": "string", "format": "date-time"},
    "DateType": {"type": "string", "format": "date"},
    "TimeType": {"type": "string", "format": "time"},
    "TimeDeltaType": {"type": "string", "format": "duration"},
    "UUIDType": {"type": "string", "format": "uuid"},
    "DecimalType": {"type": "string", "format": "decimal"},
    "NoneType": {"type": "null"},
}
_LISTS: Final = ("ListType", "SetType", "FrozenSetType", "VarTupleType", "CollectionType")
_OBJECTS: Final = ("StructType", "DataclassType", "TypedDictType", "NamedTupleType")
_BOUNDS: Final = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum",
                  "multiple_of": "multipleOf"}  # fmt: skip


def described(given: type) -> dict[str, Any]:
    """The class as JSON Schema. Raises ``InvalidRequest`` with the path of what has none."""
    import msgspec

    try:
        info = msgspec.inspect.type_info(given)
    except (TypeError, NameError) as error:
        raise InvalidRequest(f"The annotations of class {given.__name__} cannot be read: {error}") from None
    if type(info).__name__ not in _OBJECTS:
        raise InvalidRequest(
            f"A schema is given by a dataclass, TypedDict, NamedTuple or msgspec.Struct; {given.__name__} is none."
        )
    return _schema(info, "", ())


def _schema(info: Any, path: str, within: tuple[type, ...]) -> dict[str, Any]:
    kind = type(info).__name__
    if kind in _PLAIN:
        return {**_PLAIN[kind], **_bounds(info, kind)}
    if kind in _OBJECTS:
        return _object(info, path, within)
    if kind in _LISTS:
        return {"type": "array", "items": _schema(info.item_type, f"{path}[]", within), **_lengths(info, "Items")}
    if kind == "DictType":
        if type(info.key_type).__name__ != "StrType":
            refuse(path, "keys of a map are texts.")
        return {"type": "object", "additionalProperties": _schema(info.value_type, f"{path}.*", within)}
    if kind == "EnumType":
        return {"enum": [each.value for each in info.cls]}
    if kind == "LiteralType":
        return {"enum": list(info.values)}
    if kind == "UnionType":
        return {"anyOf": [_schema(each, path, within) for each in info.types]}
    if kind != "Metadata":
        refuse(path, f"{kind.removesuffix('Type')} is no type that a column can have.")
    return _schema(info.type, path, within)


def _object(info: Any, path: str, within: tuple[type, ...]) -> dict[str, Any]:
    if info.cls in within:
        refuse(path, f"{info.cls.__name__} holds itself, and a column's type is finite.")
    if getattr(info, "array_like", False) or getattr(info, "tag", None) is not None:
        refuse(path, f"{info.cls.__name__} is array-like or tagged, and values are plain objects.")
    properties = {
        each.encode_name: _schema(each.type, f"{path}.{each.encode_name}".lstrip("."), (*within, info.cls))
        for each in info.fields
    }
    found: dict[str, Any] = {"title": info.cls.__name__, "type": "object", "properties": properties}
    found["required"] = [each.encode_name for each in info.fields if each.required]
    if getattr(info, "forbid_unknown_fields", False):
        found["additionalProperties"] = False
    return found


def _bounds(info: Any, kind: str) -> dict[str, Any]:
    if kind == "StrType":
        if info.pattern is not None:
            return {"pattern": info.pattern, **_lengths(info, "Length")}
        return _lengths(info, "Length")
    if kind not in ("IntType", "FloatType"):
        return {}
    return {word: value for name, word in _BOUNDS.items() if (value := getattr(info, name)) is not None}


def _lengths(info: Any, what: str) -> dict[str, Any]:
    found = {f"min{what}": info.min_length, f"max{what}": info.max_length}
    return {word: value for word, value in found.items() if value is not None}
