"""One Avro datum by any schema, for people: unions, recursion and references as the registry allows them.

Anybody who may write to a topic or to the registry decides what is decoded here. So a datum's work is bounded by its
bytes: an array whose items take no bytes could name billions of them in six, and is refused. fastavro goes down into
values on the stack of C, a level for each byte at the worst, and the process ends where that ends: so what a schema
that contains itself wrote is decoded up to ``CONSOLE_RECURSIVE_BYTES`` alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from headwater.errors import InvalidRequest
from headwater.limits import CONSOLE_RECURSIVE_BYTES
from headwater.schemas.datums import UNFIT

_HEAVY: Final = frozenset({"boolean", "int", "long", "float", "double", "bytes", "string", "array", "map", "enum"})
_NAMED: Final = ("record", "error", "enum", "fixed")


def datum(document: Any, referred: Sequence[Any], data: bytes) -> Any:
    """What ``data`` says by the schema ``document``, which may name types of those that are ``referred`` to.

    Raises ``InvalidRequest``: it is no such datum, the schema is none, or fastavro is not installed.
    """
    schema = _parsed(document, referred, len(data))
    import fastavro

    stream = io.BytesIO(data)
    try:
        found = fastavro.schemaless_reader(stream, schema, None)
    except (*UNFIT, RecursionError) as error:
        raise InvalidRequest(f"It is no datum of its Avro schema ({str(error) or type(error).__name__}).") from None
    if stream.tell() != len(data):
        raise InvalidRequest("It is longer than its Avro schema says.")
    return found


def _parsed(document: Any, referred: Sequence[Any], size: int) -> Any:
    names: dict[str, list[Any]] = {}
    for each in (*referred, document):
        for name, node in _named(each):
            names.setdefault(name, []).append(node)
    if any(_is_bomb(each, names) for each in (*referred, document)):
        raise InvalidRequest("Its schema has arrays of what takes no bytes, which are not decoded here.")
    if size > CONSOLE_RECURSIVE_BYTES and _is_recursive(names):
        raise InvalidRequest(
            f"Its Avro schema contains itself, so it is decoded up to {CONSOLE_RECURSIVE_BYTES} bytes."
        )
    try:
        from fastavro import parse_schema
        from fastavro.schema import SchemaParseException
    except ImportError:
        raise InvalidRequest("To read Avro, this console needs `pip install 'headwater[avro]'`.") from None
    known: dict[str, Any] = {}
    try:
        for each in referred:
            parse_schema(each, named_schemas=known)
        return parse_schema(document, named_schemas=known)
    except (SchemaParseException, *UNFIT, RecursionError) as error:
        raise InvalidRequest(f"Its Avro schema cannot be used ({error}).") from None


def _named(node: Any) -> Iterator[tuple[str, Any]]:
    """Types by the last part of their names."""
    for each in _below(node):
        if isinstance(each, dict) and isinstance(each.get("name"), str) and each.get("type") in _NAMED:
            yield each["name"].rpartition(".")[2], each


def _below(node: Any) -> Iterator[Any]:
    """The node and all that is written in it."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        yield one
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            waiting += [one[word] for word in ("type", "items", "values", "fields") if word in one]


def _is_bomb(node: Any, names: Mapping[str, Sequence[Any]]) -> bool:
    return any(
        isinstance(each, dict) and each.get("type") == "array" and not _is_heavy(each.get("items"), names, ())
        for each in _below(node)
    )


def _is_recursive(names: Mapping[str, Sequence[Any]]) -> bool:
    """Whether some type can be reached from itself."""
    leads = {
        name: {word.rpartition(".")[2] for node in nodes for word in _below(node) if isinstance(word, str)}
        & names.keys()
        for name, nodes in names.items()
    }
    while leaves := {name for name, to in leads.items() if not to & leads.keys()}:
        for name in leaves:
            del leads[name]
    return bool(leads)


def _is_heavy(node: Any, names: Mapping[str, Sequence[Any]], within: tuple[str, ...]) -> bool:
    """Whether each value takes a byte at least. A name that leads to itself, or nowhere, is not believed to."""
    if isinstance(node, list):
        return True  # the number of its branch
    if isinstance(node, str):
        name = node.rpartition(".")[2]
        if node in _HEAVY or name in within:
            return node in _HEAVY
        return name in names and all(_is_heavy(each, names, (*within, name)) for each in names[name])
    if not isinstance(node, dict):
        return False
    kind = node.get("type")
    if kind in ("record", "error"):
        return any(_is_heavy(member.get("type"), names, within) for member in node.get("fields") or [])
    if kind == "fixed":
        return bool(node.get("size"))
    return _is_heavy(kind, names, within)
