"""Avro: whether data of a writer's schema can be read by a reader's. Specification 1.12, "Schema Resolution".

``parse`` has fastavro check a schema and name its types in full; ``problems`` walks the two side by side.

    same primitive, or int → long → float → double (each also further right), string ↔ bytes
    array, map            their items' and values' schemas resolve
    enum                  same name; the reader has every symbol of the writer, or a default
    fixed                 same name and size
    record                same name; each field of the reader is the writer's (by name or alias) or has a default
    union of the writer   the reader can read every branch
    union of the reader   some branch can read what is written

Names are the same if their last parts are, or if the reader has the writer's full name as an alias, as Java's
``SchemaCompatibility`` has it. Two decimals resolve if precision and scale are equal. A type that holds itself is
taken to resolve while it is being looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from headwater.limits import REGISTRY_PROBLEMS_MAX
from headwater.registry.refusal import Steps, invalid_schema

_PROMOTED: Final = {
    ("int", "long"), ("int", "float"), ("int", "double"), ("long", "float"), ("long", "double"), ("float", "double"),
    ("string", "bytes"), ("bytes", "string"),
}  # fmt: skip
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNFIT: Final = (ValueError, TypeError, KeyError, AttributeError, IndexError)


class Schema:
    """A schema with its named types by their full names."""

    __slots__ = ("named", "root")

    def __init__(self, root: Any, named: dict[str, Any]) -> None:
        self.root = root
        self.named = named


def parse(document: Any, referred: Sequence[Any] = ()) -> Schema:
    """The schema, checked by fastavro; ``referred`` define names that it uses, innermost first.

    Raises:
        Refusal: 42201.
    """
    try:
        import fastavro
        from fastavro.schema import SchemaParseException, UnknownType
    except ImportError:
        raise invalid_schema(
            "Avro needs the package fastavro: install it with `pip install 'headwater[avro]'`."
        ) from None
    named: dict[str, Any] = {}
    try:
        for each in referred:
            fastavro.parse_schema(each, named_schemas=named, _write_hint=False)
        root = fastavro.parse_schema(document, named_schemas=named, _write_hint=False)
    except UnknownType as error:
        raise invalid_schema(f"the type {error.name!r} is defined nowhere.") from None
    except (SchemaParseException, *_UNFIT) as error:
        raise invalid_schema(f"no Avro schema: {error}") from None
    for node in (root, *named.values()):
        _check(node)
    return Schema(root, named)


def problems(reader: Schema, writer: Schema) -> list[str]:
    """Why data of ``writer`` cannot be read as ``reader``; none: it can. At most ``REGISTRY_PROBLEMS_MAX``."""
    found: list[str] = []
    for problem in _Resolution(reader, writer).between(reader.root, writer.root, "/"):
        found.append(problem)
        if len(found) >= REGISTRY_PROBLEMS_MAX:
            break
    return found


class _Resolution:
    def __init__(self, reader: Schema, writer: Schema) -> None:
        self.reader = reader.named
        self.writer = writer.named
        self.known: set[tuple[str, str]] = set()  # pairs of names that resolve, or are being looked at
        self.steps = Steps()

    def between(self, reader: Any, writer: Any, path: str) -> Iterator[str]:
        self.steps.take()
        reader, writer = _named(reader, self.reader), _named(writer, self.writer)
        if isinstance(writer, list):
            for branch in writer:
                yield from self._branch(reader, branch, path)
        elif isinstance(reader, list):
            yield from self._branch(reader, writer, path)
        else:
            yield from self._single(reader, writer, path)

    def _branch(self, reader: Any, writer: Any, path: str) -> Iterator[str]:
        """What is wrong with one branch of the writer's, or with the only thing that it writes."""
        if not isinstance(reader, list):
            yield from self.between(reader, writer, path)
        elif not any(self._resolves(each, writer, path) for each in reader):
            kind = _kind(_named(writer, self.writer))
            yield f"{path}: MISSING_UNION_BRANCH: no branch of the reader's union takes the writer's {kind}"

    def _resolves(self, reader: Any, writer: Any, path: str) -> bool:
        kept = set(self.known)  # an attempt that fails must leave no belief behind
        if next(self.between(reader, writer, path), None) is None:
            return True
        self.known = kept
        return False

    def _single(self, reader: Any, writer: Any, path: str) -> Iterator[str]:
        kind, written = _kind(reader), _kind(writer)
        if kind != written:
            if (written, kind) not in _PROMOTED:
                yield f"{path}: TYPE_MISMATCH: the writer's {written} cannot be read as {kind}"
        elif kind == "array":
            yield from self.between(reader["items"], writer["items"], f"{path}[]")
        elif kind == "map":
            yield from self.between(reader["values"], writer["values"], f"{path}{{}}")
        elif kind in ("record", "enum", "fixed"):
            yield from self._of_names(kind, reader, writer, path)
        elif kind == "bytes":
            yield from _decimals(reader, writer, path)

    def _of_names(self, kind: str, reader: Any, writer: Any, path: str) -> Iterator[str]:
        pair = (reader["name"], writer["name"])
        if pair in self.known:
            return
        self.known.add(pair)
        if not _same_name(reader, writer):
            yield f"{path}: NAME_MISMATCH: the writer's {writer['name']} is no {reader['name']}"
        elif kind == "record":
            yield from self._records(reader, writer, path)
        elif kind == "enum":
            yield from _enums(reader, writer, path)
        else:
            if reader["size"] != writer["size"]:
                yield f"{path}: FIXED_SIZE_MISMATCH: {writer['size']} bytes are written and {reader['size']} read"
            yield from _decimals(reader, writer, path)

    def _records(self, reader: Any, writer: Any, path: str) -> Iterator[str]:
        written = {each["name"]: each for each in writer["fields"]}
        for field in reader["fields"]:
            names = (field["name"], *field.get("aliases", ()))
            found = next((written[name] for name in names if name in written), None)
            below = f"{path.rstrip('/')}/{field['name']}"
            if found is not None:
                yield from self.between(field["type"], found["type"], below)
            elif "default" not in field:
                yield f"{below}: READER_FIELD_MISSING_DEFAULT_VALUE: it is not written and has no default"


# -- what fastavro does not check ----------------------------------------------------------------------------


def _check(node: Any) -> None:
    """Raise ``Refusal`` 42201 for what the specification forbids. Each named type is looked into once."""
    if isinstance(node, list):
        _check_union(node)
    if not isinstance(node, dict):
        return
    match node["type"]:
        case "record" | "error":
            _check_name(node)
            names = [field["name"] for field in node["fields"]]
            if len(set(names)) < len(names) or not all(
                isinstance(name, str) and _NAME.fullmatch(name) for name in names
            ):
                raise invalid_schema(f"no Avro schema: the fields of {node['name']} need names, each its own.")
            for field in node["fields"]:
                _check_aliases(field)
                _check(field["type"])
        case "enum":
            _check_name(node)
            symbols = node["symbols"]
            if not isinstance(symbols, list) or not all(isinstance(s, str) and _NAME.fullmatch(s) for s in symbols):
                raise invalid_schema(f"no Avro schema: the symbols of {node['name']} are a list of names.")
        case "fixed":
            _check_name(node)
            if type(node["size"]) is not int or node["size"] < 0:
                raise invalid_schema(f"no Avro schema: the size of {node['name']} is a number of bytes.")
        case "array":
            _check(node["items"])
        case "map":
            _check(node["values"])
        case inner:
            _check(inner)


def _check_union(node: list[Any]) -> None:
    kinds = [str(each["name"] if isinstance(each, dict) and "name" in each else _kind(each)) for each in node]
    if len(set(kinds)) < len(kinds) or any(isinstance(each, list) for each in node):
        raise invalid_schema(
            f"no Avro schema: a union has each type once and holds no union; this is [{', '.join(kinds)[:200]}]."
        )
    for each in node:
        _check(each)


def _check_name(node: dict[str, Any]) -> None:
    if not all(_NAME.fullmatch(part) for part in node["name"].split(".")):
        raise invalid_schema(f"no Avro schema: {node['name'][:200]!r} is no name.")
    _check_aliases(node)


def _check_aliases(node: dict[str, Any]) -> None:
    aliases = node.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(each, str) for each in aliases):
        raise invalid_schema(f"no Avro schema: the aliases of {node['name']} are a list of names.")


def _enums(reader: Any, writer: Any, path: str) -> Iterator[str]:
    missing = [each for each in writer["symbols"] if each not in reader["symbols"]]
    if missing and "default" not in reader:
        yield f"{path}: MISSING_ENUM_SYMBOLS: the reader's {reader['name']} lacks {', '.join(missing)}"


def _decimals(reader: Any, writer: Any, path: str) -> Iterator[str]:
    mine, theirs = _decimal(reader), _decimal(writer)
    if mine and theirs and mine != theirs:
        yield f"{path}: DECIMAL_MISMATCH: decimal{theirs} is written and decimal{mine} read"


def _decimal(node: Any) -> tuple[int, int] | None:
    if isinstance(node, dict) and node.get("logicalType") == "decimal":
        return node.get("precision", 0), node.get("scale", 0)
    return None


def _named(node: Any, named: dict[str, Any]) -> Any:
    """The definition behind a name, and the type behind a ``{"type": …}`` that only wraps it."""
    while True:
        if isinstance(node, str) and node in named:
            return named[node]
        if isinstance(node, dict) and isinstance(node.get("type"), dict | list):
            node = node["type"]
        elif isinstance(node, dict) and node.get("type") in named:
            return named[node["type"]]
        else:
            return node


def _kind(node: Any) -> str:
    kind = node if isinstance(node, str) else "union" if isinstance(node, list) else node["type"]
    return "record" if kind == "error" else str(kind)


def _same_name(reader: Any, writer: Any) -> bool:
    name: str = writer["name"]
    if reader["name"].rpartition(".")[2] == name.rpartition(".")[2]:
        return True
    space = reader["name"].rpartition(".")[0]
    return name in {each if "." in each or not space else f"{space}.{each}" for each in reader.get("aliases", ())}
