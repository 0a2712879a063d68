"""JSON Schema → ``Shape``.

What is understood is what a column or the check of a value can hold: types, formats ``date``, ``date-time``, ``time``
and ``decimal``, enums, ``null`` beside one other type, arrays, objects, maps (``additionalProperties``), local
references, and the bounds of numbers, texts and arrays. Annotations are passed over; other formats are annotations, as
the standard has it. Everything else is refused with its path.

``decimal`` is ours: ``{"type": "string", "format": "decimal", "precision": 10, "scale": 2}``, in the words of Avro.
Values are numbers or texts.
"""

from __future__ import annotations

from typing import Any, Final

from headwater.limits import COLUMN_DEPTH_MAX, COLUMN_FIELDS_MAX
from headwater.schemas.framing import ID
from headwater.schemas.shape import Member, Shape, check_member, refuse

_ANNOTATIONS: Final = frozenset(
    {
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "$comment", "$anchor", "$defs", "definitions", "contentMediaType"),
        ID,
    }
)
_STRUCTURE: Final = frozenset(
    {
        *("type", "format", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "contentEncoding"),
        *("properties", "required", "additionalProperties", "items", "precision", "scale"),
    }
)
# keyword → (what it bounds, the word of msgspec.Meta)
_BOUNDS: Final[dict[str, tuple[str, str]]] = {
    "minimum": ("number", "ge"),
    "maximum": ("number", "le"),
    "exclusiveMinimum": ("number", "gt"),
    "exclusiveMaximum": ("number", "lt"),
    "multipleOf": ("number", "multiple_of"),
    "minLength": ("string", "min_length"),
    "maxLength": ("string", "max_length"),
    "minItems": ("list", "min_length"),
    "maxItems": ("list", "max_length"),
}
_PLAIN: Final = {"integer": "int64", "number": "double", "boolean": "bool"}
_FORMATS: Final = {"date": "date32[day]", "date-time": "timestamp[us, tz=UTC]", "time": "time64[us]"}
_DECIMAL: Final = (38, 18)  # a decimal that does not say its digits


def shape(document: dict[str, Any]) -> Shape:
    """The root's shape: a struct. Raises ``InvalidRequest`` with the path of what cannot be expressed."""
    root, nullable = _Reader(document).read(document, "", ())
    if root.kind != "struct" or nullable:
        refuse("", "the root is an object with properties: each is a column.")
    return root


class _Reader:
    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.nodes = 0

    def read(self, node: Any, path: str, within: tuple[str, ...]) -> tuple[Shape, bool]:
        """The shape of a node, and whether it may be null. ``within`` are the references that led here."""
        self.nodes += 1
        if self.nodes > COLUMN_FIELDS_MAX or path.count("\0") > COLUMN_DEPTH_MAX:
            refuse(_shown(path), "the schema is too large once its references are followed, or nested too deep.")
        if not isinstance(node, dict):
            refuse(_shown(path), "a schema that says a type is needed here.")
        self._refuse_unknown(node, path)
        if "$ref" in node:
            return self._reference(node["$ref"], path, within)
        for word in ("anyOf", "oneOf", "allOf"):
            if word in node:
                return self._alternatives(word, node, path, within)
        return self._plain(node, path, within)

    def _plain(self, node: dict[str, Any], path: str, within: tuple[str, ...]) -> tuple[Shape, bool]:
        if "enum" in node or "const" in node:
            return _choices(node.get("enum", [node.get("const")]), path)
        kind, nullable = _type(node, path)
        match kind:
            case "object":
                found = self._object(node, path, within)
            case "array":
                found = self._array(node, path, within)
            case "string":
                found = _text(node, path)
            case _:
                found = Shape(kind=_PLAIN[kind])
        bounds = _bounds(node, found.kind, path)
        return (Shape(kind=found.kind, params=found.params, members=found.members, closed=found.closed, bounds=bounds),
                nullable)  # fmt: skip

    def _object(self, node: dict[str, Any], path: str, within: tuple[str, ...]) -> Shape:
        properties, others = node.get("properties", {}), node.get("additionalProperties", True)
        if isinstance(others, dict) and others:
            if properties:
                refuse(_shown(path), "an object has properties or additionalProperties with a schema, not both.")
            value, _ = self.read(others, f"{path}\0*", within)
            return Shape(kind="map", members=(Member(name="value", shape=value),))
        if not isinstance(properties, dict) or not properties:
            refuse(_shown(path), "an object says its properties, or by additionalProperties what a map of texts holds.")
        required = node.get("required", [])
        if not isinstance(required, list):
            refuse(_shown(path), "'required' is a list of names.")
        for name in required:
            if name not in properties:
                refuse(_shown(path), f"{name!r} is required, and no property.")
        members = []
        for name, each in properties.items():
            if path or within:
                check_member(_shown(f"{path}\0{name}"), name)
            found, nullable = self.read(each, f"{path}\0{name}", within)
            must = name in required
            members.append(Member(name=name, shape=found, nullable=nullable or not must, required=must))
        return Shape(kind="struct", members=tuple(members), closed=others is False)

    def _array(self, node: dict[str, Any], path: str, within: tuple[str, ...]) -> Shape:
        if "items" not in node:
            refuse(_shown(path), "an array says what its items are.")
        item, nullable = self.read(node["items"], f"{path}\0[]", within)
        return Shape(kind="list", members=(Member(name="item", shape=item, nullable=nullable),))

    def _alternatives(self, word: str, node: dict[str, Any], path: str, within: tuple[str, ...]) -> tuple[Shape, bool]:
        given = node[word]
        if not isinstance(given, list) or set(node) & (_STRUCTURE - {word}):
            refuse(_shown(path), f"{word!r} is a list of schemas and stands alone.")
        others = [each for each in given if not (isinstance(each, dict) and each.get("type") == "null")]
        if len(others) != 1 or (word == "allOf" and len(given) != 1):
            refuse(_shown(path), f"a column has one type, and may be null beside; {word!r} gives it {len(others)}.")
        found, nullable = self.read(others[0], path, within)
        return found, nullable or len(others) < len(given)

    def _reference(self, name: Any, path: str, within: tuple[str, ...]) -> tuple[Shape, bool]:
        if not isinstance(name, str) or not name.startswith("#/"):
            refuse(_shown(path), f"references are local, as in '#/$defs/name'; {str(name)[:60]!r} is not.")
        if name in within:
            refuse(_shown(path), f"{name!r} holds itself, and a column's type is finite.")
        found: Any = self.document
        for part in name[2:].split("/"):
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        if found is None:
            refuse(_shown(path), f"{name!r} is not there.")
        return self.read(found, path, (*within, name))

    def _refuse_unknown(self, node: dict[str, Any], path: str) -> None:
        for word in node:
            if word not in _ANNOTATIONS and word not in _STRUCTURE and word not in _BOUNDS and word[:2] != "x-":
                refuse(_shown(path), f"{word!r} is not checked by Headwater: leave it out.")


def _type(node: dict[str, Any], path: str) -> tuple[str, bool]:
    given = node.get("type", "object" if "properties" in node else None)
    names = given if isinstance(given, list) else [given]
    others = [name for name in names if name != "null"]
    if len(others) != 1 or others[0] not in ("object", "array", "string", *_PLAIN):
        refuse(_shown(path), "'type' is one of object, array, string, integer, number, boolean, and perhaps null.")
    return others[0], len(others) < len(names)


def _text(node: dict[str, Any], path: str) -> Shape:
    if node.get("contentEncoding") == "base64":
        return Shape(kind="binary")
    if "contentEncoding" in node:
        refuse(_shown(path), "the encoding of binary content is 'base64'.")
    named = node.get("format")
    if named == "decimal":
        precision, scale = (
            node.get("precision", _DECIMAL[0]),
            node.get("scale", 0 if "precision" in node else _DECIMAL[1]),
        )
        if not isinstance(precision, int) or not isinstance(scale, int):
            refuse(_shown(path), "precision and scale of a decimal are whole numbers.")
        return Shape(kind="decimal128", params=(precision, scale))
    return Shape(kind=_FORMATS.get(named, "string") if isinstance(named, str) else "string")


def _choices(given: Any, path: str) -> tuple[Shape, bool]:
    values = [each for each in given if each is not None] if isinstance(given, list) else []
    texts = all(isinstance(each, str) for each in values)
    if not values or not (texts or all(type(each) is int and abs(each) < 1 << 63 for each in values)):
        refuse(_shown(path), "an enum has texts alone or whole numbers alone, and perhaps null.")
    return Shape(kind="string" if texts else "int64", choices=tuple(dict.fromkeys(values))), None in given


def _bounds(node: dict[str, Any], kind: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word, (of, meta) in _BOUNDS.items():
        if word not in node:
            continue
        value = node[word]
        if of != {"int64": "number", "double": "number"}.get(kind, kind):
            refuse(_shown(path), f"{word!r} does not bound a {kind}.")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or (kind != "double" and not (value == int(value) and abs(value) < 1 << 63)):
            refuse(_shown(path), f"{word!r} is a number that fits, not {value!r}.")
        if (word == "multipleOf" and value <= 0) or (of != "number" and value < 0):
            refuse(_shown(path), f"{word!r} is above zero.")
        found[meta] = float(value) if kind == "double" else int(value)
    if {"ge", "gt"} <= found.keys() or {"le", "lt"} <= found.keys():
        refuse(_shown(path), "a bound is given once, with or without the value itself.")
    return found


def _shown(path: str) -> str:
    """A path as people write it: ``legs[].airport``."""
    return path.lstrip("\0").replace("\0[]", "[]").replace("\0", ".")
