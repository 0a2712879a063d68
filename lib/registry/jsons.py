"""JSON Schema: whether every document that fits an old schema fits a new one, as far as that can be seen.

What is compared, keyword by keyword, is the part that Confluent's registry compares; what it cannot see (``not``,
``if``, ``dependentSchemas`` …) must stay as it is.

    type                   may grow; integer → number
    enum, const            may grow, or go away
    minimum, minLength …   may fall; maximum, maxLength … may rise; multipleOf may become a divisor of itself
    pattern, unevaluated…  stay, or go away
    required               may shrink; may grow by properties with a default
    properties             added to a closed model (``additionalProperties: false``); in an open one what was there
                           under that name fitted any schema, so only ``true`` can be added
                           removed from an open model; a closed one would refuse what was written
                           a model with a schema for others is in between: that schema decides
    items, prefixItems     as properties
    allOf                  each new part takes what some old one describes; anyOf, oneOf: each old part fits a new one
    $ref                   ``#``, ``#/…``, or the name (or ``$id``) of a reference
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from headwater.limits import REGISTRY_PROBLEMS_MAX
from headwater.registry.refusal import Steps, invalid_schema

_TYPES: Final = frozenset({"null", "boolean", "object", "array", "number", "string", "integer"})
_AT_LEAST: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_AT_MOST: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_KEPT: Final = (
    "pattern", "not", "if", "then", "else", "dependencies", "dependentSchemas", "dependentRequired", "contains",
    "minContains", "maxContains", "propertyNames", "unevaluatedProperties", "unevaluatedItems",
)  # fmt: skip
_MAPS: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_ONE: Final = ("not", "if", "then", "else", "contains", "propertyNames", "additionalProperties", "additionalItems")


class Schema:
    """A schema, and the documents that it refers to by name."""

    __slots__ = ("named", "root")

    def __init__(self, root: Any, named: Mapping[str, Any]) -> None:
        self.root = root
        self.named = {
            **{each["$id"]: each for each in named.values() if isinstance(each, dict) and "$id" in each},
            **named,
        }


def parse(document: Any, referred: Mapping[str, Any]) -> Schema:
    """The schema, checked: every keyword that is compared has a value that it can have, every ``$ref`` a target.

    Raises:
        Refusal: 42201.
    """
    made = Schema(document, referred)
    _check(document, made, document, "#")
    return made


def problems(new: Schema, old: Schema) -> list[str]:
    """Why a document of ``old`` may not fit ``new``; none: every one does. At most ``REGISTRY_PROBLEMS_MAX``."""
    found: list[str] = []
    for problem in _Diff(new, old).between((new.root, new.root), (old.root, old.root), "#"):
        found.append(problem)
        if len(found) >= REGISTRY_PROBLEMS_MAX:
            break
    return found


Node = tuple[Any, Any]  # a schema, and the document that its local references are of


class _Diff:
    def __init__(self, new: Schema, old: Schema) -> None:
        self.new = new
        self.old = old
        self.open: set[tuple[int, int]] = set()  # pairs that are being looked at, or were found to fit, by identity
        self.held: list[object] = []  # … so each of them is kept, lest another object get its identity
        self.steps = Steps()

    def between(self, new: Node, old: Node, path: str) -> Iterator[str]:
        self.steps.take()
        (n, new_doc), (o, old_doc) = _target(new, self.new), _target(old, self.old)
        if n is True or n == {} or o is False or (_alike(n, o) and _alike(new_doc, old_doc)):
            return
        if n is False:
            yield f"{path}: nothing fits any more"
            return
        o = {} if o is True else o
        pair = (id(n), id(o))
        if pair in self.open:
            return
        self.open.add(pair)
        self.held += [n, o]
        if self._covers_parts((n, new_doc), (o, old_doc)):
            return
        yield from self._plain(n, o, path)
        yield from self._combined((n, new_doc), (o, old_doc), path)
        yield from self._properties((n, new_doc), (o, old_doc), path)
        yield from self._items((n, new_doc), (o, old_doc), path)

    def _covers_parts(self, new: Node, old: Node) -> bool:
        """Whether one of the old parts, or all alternatives of the old schema, fit the whole new one."""
        (n, _), (o, old_doc) = new, old
        if "allOf" in o and "allOf" not in n and any(self._fits(new, (each, old_doc)) for each in o["allOf"]):
            return True
        if "anyOf" in n or "oneOf" in n:
            return False
        return any(
            all(self._fits(new, (each, old_doc)) for each in o[word]) for word in ("anyOf", "oneOf") if o.get(word)
        )

    def _fits(self, new: Node, old: Node) -> bool:
        kept = set(self.open)
        if next(self.between(new, old, ""), None) is None:
            return True
        self.open = kept
        return False

    def _plain(self, n: dict[str, Any], o: dict[str, Any], path: str) -> Iterator[str]:
        """Keywords that need no other schema."""
        lost = _lost_types(n, o)
        if lost:
            yield f"{path}: TYPE_NARROWED: {', '.join(lost)} is no longer taken"
        values = _values(n)
        if values is not None:
            before = _values(o)
            if before is None or any(not _among(each, values) for each in before):
                yield f"{path}: ENUM_NARROWED: values that were allowed are not any more"
        for word in _AT_LEAST:
            if word in n and (word not in o or n[word] > o[word]):
                yield f"{path}: {word} was raised or added"
        for word in _AT_MOST:
            if word in n and (word not in o or n[word] < o[word]):
                yield f"{path}: {word} was lowered or added"
        if "multipleOf" in n and ("multipleOf" not in o or o["multipleOf"] % n["multipleOf"]):
            yield f"{path}: multipleOf was changed or added"
        if n.get("uniqueItems") is True and o.get("uniqueItems") is not True:
            yield f"{path}: uniqueItems was added"
        for word in _KEPT:
            if word in n and n[word] != o.get(word, _NONE):
                yield f"{path}: {word} was changed or added, which is not compared"

    def _combined(self, new: Node, old: Node, path: str) -> Iterator[str]:
        (n, new_doc), (o, old_doc) = new, old
        for part in n.get("allOf", ()):
            olds = [(each, old_doc) for each in o.get("allOf", ())] or [(_without(o), old_doc)]
            if not any(self._fits((part, new_doc), each) for each in olds):
                yield f"{path}/allOf: a part is new, or narrower"
        for word in ("anyOf", "oneOf"):
            if word not in n:
                continue
            news = [(each, new_doc) for each in n[word]]
            # A wider oneOf may take a document twice; like Confluent's, this does not look for that.
            olds = [(each, old_doc) for each in o.get(word) or o.get("oneOf") or o.get("anyOf") or [_without(o)]]
            if not all(any(self._fits(mine, each) for mine in news) for each in olds):
                yield f"{path}/{word}: what some part described fits none any more"

    def _properties(self, new: Node, old: Node, path: str) -> Iterator[str]:
        (n, new_doc), (o, old_doc) = new, old
        if not _may_be(o, "object"):
            return
        mine, theirs = n.get("properties", {}), o.get("properties", {})
        for name in theirs:
            found = mine[name] if name in mine else _other(n, name)
            if found is not True:
                yield from self.between((found, new_doc), (theirs[name], old_doc), f"{path}/properties/{name}")
        for name in mine:
            if name not in theirs:
                # A pattern may have meant this name, and let in what the schema for others would not.
                before = True if o.get("patternProperties") else _other(o, name)
                yield from self.between((mine[name], new_doc), (before, old_doc), f"{path}/properties/{name}")
        for name in n.get("required", ()):
            if name not in o.get("required", ()) and not _has_default(mine.get(name)):
                yield f"{path}/required/{name}: REQUIRED_ADDED: it was not required, and has no default"
        if "additionalProperties" in n:
            others = (n["additionalProperties"], new_doc), (o.get("additionalProperties", True), old_doc)
            yield from self.between(*others, f"{path}/additionalProperties")
        patterns = n.get("patternProperties", {})
        # They may go away where any name is open to anything; else the schema for others now judges their names.
        gone = not patterns and n.get("additionalProperties", True) is True
        if not gone and patterns != o.get("patternProperties", {}):
            yield f"{path}/patternProperties: was changed, which is not compared"

    def _items(self, new: Node, old: Node, path: str) -> Iterator[str]:
        (n, new_doc), (o, old_doc) = new, old
        if not _may_be(o, "array"):
            return
        (mine, rest), (theirs, others) = _tuple(n), _tuple(o)
        for place in range(max(len(mine), len(theirs))):
            a = mine[place] if place < len(mine) else rest
            b = theirs[place] if place < len(theirs) else others
            yield from self.between((a, new_doc), (b, old_doc), f"{path}/items/{place}")
        yield from self.between((rest, new_doc), (others, old_doc), f"{path}/items")


_NONE: Final = object()


def _alike(a: Any, b: Any) -> bool:
    """Whether two documents are the same JSON: Python alone takes true for 1."""
    return a is b or (a == b and msgspec.json.encode(a) == msgspec.json.encode(b))


def _lost_types(n: dict[str, Any], o: dict[str, Any]) -> list[str]:
    if "type" not in n:
        return []
    mine = _type_set(n)
    return sorted(_type_set(o) - mine - ({"integer"} if "number" in mine else set()))


def _type_set(node: dict[str, Any]) -> set[str]:
    """The types that a schema takes: those that it names, or those of its values."""
    named = node.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, list):
        return set(named)
    values = _values(node)
    return set(_TYPES) if values is None else {_type_of(each) for each in values}


def _type_of(value: Any) -> str:
    kinds: dict[type, str] = {type(None): "null", bool: "boolean", dict: "object", list: "array", str: "string"}
    return kinds.get(type(value), "integer" if isinstance(value, int) else "number")


def _values(node: dict[str, Any]) -> list[Any] | None:
    return [node["const"]] if "const" in node else node.get("enum")


def _among(value: Any, values: list[Any]) -> bool:
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in values)


def _may_be(node: dict[str, Any], kind: str) -> bool:
    return kind in _type_set(node)


def _without(node: dict[str, Any]) -> dict[str, Any]:
    return {word: value for word, value in node.items() if word not in ("$defs", "definitions")}


def _other(node: dict[str, Any], name: str) -> Any:
    """What a property must fit that the schema does not name. Patterns are not matched: a pattern may mean any name."""
    return node.get("additionalProperties", True)


def _has_default(node: Any) -> bool:
    return isinstance(node, dict) and "default" in node


def _tuple(node: dict[str, Any]) -> tuple[list[Any], Any]:
    """The schemas of the first items, and of all others, in either way of writing them (before and since 2020-12)."""
    if "prefixItems" in node:
        return node["prefixItems"], node.get("items", True)
    items = node.get("items", True)
    return (items, node.get("additionalItems", True)) if isinstance(items, list) else ([], items)


# -- references ----------------------------------------------------------------------------------------------


def _target(node: Node, schema: Schema) -> Node:
    """The schema behind ``$ref``, over any number of steps that comes to an end."""
    here, document = node
    for _ in range(REGISTRY_PROBLEMS_MAX):
        if not isinstance(here, dict) or "$ref" not in here:
            break
        found = _resolved(here["$ref"], document, schema)
        if found is None:
            return True, document
        here, document = found
    return here, document


def _resolved(reference: str, document: Any, schema: Schema) -> Node | None:
    name, _, pointer = reference.partition("#")
    if name and not (isinstance(document, dict) and document.get("$id") == name):
        if name not in schema.named:
            return None
        document = schema.named[name]
    here = document
    for part in pointer.split("/")[1:] if pointer else ():
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(here, dict) and part in here:
            here = here[part]
        elif isinstance(here, list) and part.isdigit() and int(part) < len(here):
            here = here[int(part)]
        else:
            return None
    return here, document


# -- checks --------------------------------------------------------------------------------------------------


def _check(node: Any, schema: Schema, document: Any, path: str) -> None:
    if isinstance(node, bool):
        return
    if not isinstance(node, dict):
        raise invalid_schema(f"{path} is no JSON Schema: it is neither an object nor true or false.")
    for word, rule in _RULES.items():
        if word in node and not rule(node[word]):
            raise invalid_schema(f"{path}/{word} has a value that this keyword cannot have.")
    if "$ref" in node and _resolved(node["$ref"], document, schema) is None:
        raise invalid_schema(
            f"{path}/$ref leads nowhere: {node['$ref'][:200]!r} is not in it, and no reference's name."
        )
    for below, found in _below(node, path):
        _check(found, schema, document, below)


def _below(node: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for word in _MAPS:
        for name, found in node.get(word, {}).items():
            yield f"{path}/{word}/{name}", found
    items = node.get("items")
    for word, listed in [*((word, node.get(word, [])) for word in _LISTS), ("items", items)]:
        if isinstance(listed, list):
            for place, found in enumerate(listed):
                yield f"{path}/{word}/{place}", found
    for word in (*_ONE, "items"):
        if word in node and not (word == "items" and isinstance(items, list)):
            yield f"{path}/{word}", node[word]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_type(value: Any) -> bool:
    listed = value if isinstance(value, list) else [value]
    return bool(listed) and all(isinstance(each, str) and each in _TYPES for each in listed)


_RULES: Final[dict[str, Callable[[Any], bool]]] = {
    "type": _is_type,
    "enum": lambda value: isinstance(value, list),
    "required": _is_strings,
    "$ref": lambda value: isinstance(value, str),
    "multipleOf": lambda value: _is_number(value) and value > 0,
    **dict.fromkeys((*_AT_LEAST, *_AT_MOST), _is_number),
    **{word: lambda value: isinstance(value, dict) for word in _MAPS},
    **{word: lambda value: isinstance(value, list) for word in _LISTS},
}
