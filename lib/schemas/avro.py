"""Avro schemas → ``Shape`` (specification 1.12).

Records, enums, fixed, arrays, maps, unions of one type with null, and the logical types of dates, times, decimals and
uuids. What no column can hold is refused with its path: unions of several types, records that hold themselves,
nanoseconds, and items without a size, of which a few bytes could claim any number.
"""

from __future__ import annotations

import re
from typing import Any, Final

from headwater.limits import COLUMN_DEPTH_MAX, COLUMN_FIELDS_MAX
from headwater.schemas.shape import Member, Shape, refuse

_PLAIN: Final = {
    "boolean": "bool",
    "int": "int32",
    "long": "int64",
    "float": "float",
    "double": "double",
    "bytes": "binary",
    "string": "string",
}
_LOGICAL: Final = {
    ("int", "date"): "date32[day]",
    ("int", "time-millis"): "time32[ms]",
    ("long", "time-micros"): "time64[us]",
    ("long", "timestamp-millis"): "timestamp[ms, tz=UTC]",
    ("long", "timestamp-micros"): "timestamp[us, tz=UTC]",
    ("long", "local-timestamp-millis"): "timestamp[ms]",
    ("long", "local-timestamp-micros"): "timestamp[us]",
}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,248}")
_FIXED_MAX: Final = 65_535  # bytes of a fixed type


def shape(document: dict[str, Any]) -> Shape:
    """The root's shape: a record's. Raises ``InvalidRequest`` with the path of what cannot be expressed."""
    if document.get("type") not in ("record", "error"):
        refuse("", "the root is a record: each field is a column.")
    return _Reader().read(document, "", "")[0]


class _Reader:
    def __init__(self) -> None:
        self.named: dict[str, Shape | None] = {}  # None: begun, and not yet complete
        self.nodes = 0

    def read(self, node: Any, path: str, space: str) -> tuple[Shape, bool]:
        """The shape of a node, and whether it may be null. ``space`` is the enclosing namespace."""
        self.nodes += 1
        if self.nodes > COLUMN_FIELDS_MAX or path.count("\0") > COLUMN_DEPTH_MAX:
            refuse(_shown(path), "the schema is too large, or nested too deep.")
        if isinstance(node, list):
            return self._union(node, path, space)
        if isinstance(node, str):
            return self._by_name(node, path, space), False
        if not isinstance(node, dict):
            refuse(_shown(path), "a type is needed here.")
        if not isinstance(node.get("type"), str):
            return self.read(node.get("type"), path, space)
        return self._complex(node, path, space), False

    def _complex(self, node: dict[str, Any], path: str, space: str) -> Shape:
        match node["type"]:
            case "record" | "error":
                return self._record(node, path, space)
            case "enum":
                symbols = node.get("symbols")
                if not isinstance(symbols, list) or not symbols or not all(isinstance(s, str) for s in symbols):
                    refuse(_shown(path), "an enum has symbols.")
                return self._name(node, Shape(kind="string", choices=tuple(symbols)), path, space)
            case "fixed":
                return self._name(node, _fixed(node, path), path, space)
            case "array":
                return self._nested("list", "item", node.get("items"), f"{path}\0[]", space)
            case "map":
                return self._nested("map", "value", node.get("values"), f"{path}\0*", space)
        found = self._by_name(node["type"], path, space)
        return _logical(node, found, path)

    def _record(self, node: dict[str, Any], path: str, space: str) -> Shape:
        name, space = self._full_name(node, path, space)
        fields = node.get("fields")
        if not isinstance(fields, list) or not fields:
            refuse(_shown(path), "a record has fields.")
        self.named[name] = None
        members: dict[str, Member] = {}
        for each in fields:
            if not isinstance(each, dict) or not isinstance(each.get("name"), str) or each["name"] in members:
                refuse(_shown(path), "each field has a name of its own, and a type.")
            below = f"{path}\0{each['name']}"
            if not _NAME.fullmatch(each["name"]):
                refuse(_shown(below), "a name has letters, digits and _, and does not begin with a digit.")
            # A field may hold its logical type beside its name of a plain type, as some write it; the standard puts
            # it inside. Only the standard's way counts, so both ways are read by `type` alone.
            found, nullable = self.read(each.get("type"), below, space)
            members[each["name"]] = Member(name=each["name"], shape=found, nullable=nullable, required=True)
        made = Shape(kind="struct", members=tuple(members.values()))
        self.named[name] = made
        return made

    def _nested(self, kind: str, member: str, node: Any, path: str, space: str) -> Shape:
        found, nullable = self.read(node, path, space)
        return Shape(kind=kind, members=(Member(name=member, shape=found, nullable=nullable or kind == "map"),))

    def _union(self, node: list[Any], path: str, space: str) -> tuple[Shape, bool]:
        others = [each for each in node if each != "null"]
        if len(others) != 1 or isinstance(others[0], list) or len(node) > 2:
            refuse(_shown(path), f"a column has one type, and may be null beside; this union has {len(others)}.")
        found, _ = self.read(others[0], path, space)
        return found, len(node) == 2

    def _by_name(self, name: str, path: str, space: str) -> Shape:
        if name in _PLAIN:
            return Shape(kind=_PLAIN[name])
        full = name if "." in name or not space else f"{space}.{name}"
        found = self.named.get(full, self.named.get(name, ()))
        if found is None:
            refuse(_shown(path), f"record {full!r} holds itself, and a column's type is finite.")
        if not isinstance(found, Shape):
            refuse(_shown(path), f"{name[:60]!r} is no type that a column can have.")
        self.nodes += _size(found)
        return found

    def _name(self, node: dict[str, Any], made: Shape, path: str, space: str) -> Shape:
        self.named[self._full_name(node, path, space)[0]] = made
        return made

    def _full_name(self, node: dict[str, Any], path: str, space: str) -> tuple[str, str]:
        """The full name of a named type, and the namespace that holds inside it."""
        name, space = node.get("name"), node.get("namespace", space)
        if not isinstance(name, str) or not name or not isinstance(space, str):
            refuse(_shown(path), f"this {node['type']} needs a name.")
        if "." in name:
            space = name.rpartition(".")[0]
        full = name if "." in name or not space else f"{space}.{name}"
        if full in self.named:
            refuse(_shown(path), f"{full!r} is defined twice.")
        return full, space


def _logical(node: dict[str, Any], found: Shape, path: str) -> Shape:
    named = node.get("logicalType")
    if named == "decimal" and node["type"] == "bytes":
        return _decimal(node, path)
    if isinstance(named, str) and named.endswith("-nanos"):
        refuse(_shown(path), f"{named!r} is finer than the microseconds that a column holds.")
    # An unknown logical type is the type below it, as the standard has it.
    kind = _LOGICAL.get((node["type"], named)) if isinstance(named, str) else None
    return found if kind is None else Shape(kind=kind)


def _fixed(node: dict[str, Any], path: str) -> Shape:
    size = node.get("size")
    if not isinstance(size, int) or not 1 <= size <= _FIXED_MAX:
        refuse(_shown(path), f"a fixed type has 1 to {_FIXED_MAX} bytes.")
    if node.get("logicalType") == "decimal":
        return _decimal(node, path)
    return Shape(kind="fixed_size_binary", params=(size,))


def _decimal(node: dict[str, Any], path: str) -> Shape:
    precision, scale = node.get("precision"), node.get("scale", 0)
    if not isinstance(precision, int) or not isinstance(scale, int):
        refuse(_shown(path), "a decimal says its precision.")
    return Shape(kind="decimal128", params=(precision, scale))


def _size(found: Shape) -> int:
    return 1 + sum(_size(each.shape) for each in found.members)


def _shown(path: str) -> str:
    return path.lstrip("\0").replace("\0[]", "[]").replace("\0", ".")
