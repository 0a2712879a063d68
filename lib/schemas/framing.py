"""Values that name their schema by the id that a schema registry gave it: a zero byte, four bytes of the id, the value.

A topic's schema is *bound* to a registry if its definition says so, by a member of its root that means nothing to Avro
or JSON Schema: ``"registry.id": 7``. Values framed with the id of a version are read by that version. Writing to such a
topic checks nothing, since nobody asked for it: a serializer registered its schema, and has checked what it writes;
others may write with a schema that columns cannot express, or with none. What does not fit has no columns.

Without a binding Avro values are framed with the version's number, see ``datums``.

Source: the wire format of Confluent's serializers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import msgspec

from headwater.log.state import Schema
from headwater.schemas import documents

ID: Final = "registry.id"
FRAME: Final = 5  # bytes: a zero and the id
_CACHED: Final = 256

Group = tuple[Schema | None, list[int], list[bytes]]  # the version, row numbers, values without their frames


def bound(schemas: Sequence[Schema]) -> bool:
    """Whether the topic's values name their schema by a registry's id."""
    return id_of(schemas[-1]) > 0


def bind(definition: str, number: int) -> str:
    """The definition, which must be a JSON object, bound to an id. Raises ``InvalidRequest``."""
    document = {word: value for word, value in documents.parsed("json", definition).items() if word != ID}
    return msgspec.json.encode({**document, ID: number}).decode()


def id_of(version: Schema) -> int:
    """The id that the version is bound to; 0: none."""
    return _id(version.definition) if ID in version.definition else 0


def framed(version: Schema, value: bytes) -> bytes:
    """A value of a bound version with its id before it."""
    return b"\0" + id_of(version).to_bytes(4, "big") + value


def grouped(schemas: Sequence[Schema], items: Sequence[bytes | None]) -> list[Group]:
    """Values by the version whose id they name; None: they name none, or one that is no version's."""
    by_id = {id_of(each): each for each in schemas}
    found: dict[int, tuple[list[int], list[bytes]]] = {}
    for row, item in enumerate(items):
        if item is None:
            continue
        number = int.from_bytes(item[1:FRAME], "big") if item[:1] == b"\0" and len(item) >= FRAME else 0
        known = number if number in by_id else 0
        numbers, values = found.setdefault(known, ([], []))
        numbers.append(row)
        values.append(item[FRAME:] if known else item)
    return [(by_id[number] if number else None, numbers, values) for number, (numbers, values) in found.items()]


def unframed(schemas: Sequence[Schema], items: Sequence[bytes | None]) -> list[bytes | None]:
    """The values without their frames; None for those that name no version."""
    plain: list[bytes | None] = [None] * len(items)
    for version, numbers, values in grouped(schemas, items):
        if version is not None:
            for row, value in zip(numbers, values, strict=True):
                plain[row] = value
    return plain


@functools.lru_cache(_CACHED)
def _id(definition: str) -> int:
    found = documents.parsed("json", definition).get(ID, 0)
    return found if type(found) is int and 0 < found < 2**31 else 0
