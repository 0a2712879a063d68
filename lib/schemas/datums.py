"""Avro values: whether they fit a schema, and the rows that they are.

A value is a datum, or a datum framed as Confluent's serializers do it: a zero byte, four bytes of a schema's id, and
the datum. The id is the version of the topic's schema. Bare datums do not say what wrote them, so they are of version 1
and nothing else: later versions are framed. Five bytes that look like a frame are one. A topic whose schema is bound
to a schema registry has the registry's ids in its frames (``framing``).

``fastavro`` reads all values of a batch in one call, as one Avro array. Behind each stands a mark that depends on all
of them, so a value that is too short or too long cannot hide behind its neighbours. Logical types are left out, since
Arrow takes days and microseconds as numbers; decimals are read by a function of our own, which bounds their digits.
"""

from __future__ import annotations

import decimal
import functools
import io
from collections.abc import Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final

from headwater.errors import InvalidRequest
from headwater.limits import SCHEMAS_MAX
from headwater.log.state import Schema
from headwater.schemas import documents, framing
from headwater.schemas.misfit import Misfit

_FRAME: Final = 5  # bytes: a zero and the id
MARK: Final = 8  # bytes behind each datum
CACHED: Final = 256
_DECIMAL: Final = "headwater-decimal"
_DECIMAL_BYTES_MAX: Final = 17  # 38 digits in 16 bytes, and one that some writers put before them
# What fastavro raises for bytes that are no datum: it has no error of its own for them.
UNFIT: Final = (EOFError, IndexError, KeyError, ValueError, TypeError, OverflowError, ArithmeticError, MemoryError)


def check(schemas: Sequence[Schema], items: Sequence[bytes | None]) -> None:
    """Raise ``Misfit`` for the first value that is not a datum of its version. None, a tombstone, always is."""
    for version, numbers, datums in grouped(schemas, items):
        if version is None:
            if framing.bound(schemas):
                continue
            raise unknown(schemas, items, numbers[0])
        try:
            decode(version.definition, datums)
        except UNFIT:
            raise _first(version, numbers, datums) from None


def grouped(
    schemas: Sequence[Schema], items: Sequence[bytes | None]
) -> list[tuple[Schema | None, list[int], list[bytes]]]:
    """Values by the version that wrote them: (version, row numbers, datums). None: there is no such version."""
    if framing.bound(schemas):
        return framing.grouped(schemas, items)
    by_version = {each.version: each for each in schemas}
    found: dict[int, tuple[list[int], list[bytes]]] = {}
    for row, item in enumerate(items):
        if item is not None:
            version = _framed(item)
            numbers, datums = found.setdefault(version, ([], []))
            numbers.append(row)
            datums.append(item[_FRAME:] if version else item)
    return [(by_version.get(version or 1), numbers, datums) for version, (numbers, datums) in found.items()]


def framed(version: int, datum: bytes) -> bytes:
    """A datum with its version before it."""
    return b"\0" + version.to_bytes(4, "big") + datum


def decode(definition: str, datums: Sequence[bytes]) -> list[dict[str, Any]]:
    """The rows of datums, all by one call. Raises one of ``UNFIT`` if any does not fit, not saying which."""
    import fastavro

    if not datums:
        return []
    joined = b"".join(datums)
    mark = blake2b(joined, digest_size=MARK).digest()
    data = varint(len(datums)) + mark.join((*datums, b"")) + b"\0"
    stream = io.BytesIO(data)
    found: Any = fastavro.schemaless_reader(stream, _array(definition), None)
    if len(found) != len(datums) or stream.tell() != len(data) or set(map(itemgetter("end"), found)) - {mark}:
        raise ValueError("a datum is shorter or longer than its schema says")
    return list(map(itemgetter("value"), found))


def unknown(schemas: Sequence[Schema], items: Sequence[bytes | None], row: int) -> Misfit:
    """The misfit of a frame that names no version."""
    version = int.from_bytes((items[row] or b"")[1:_FRAME], "big")
    if framing.bound(schemas):
        return Misfit(row, "", "it names no version of the schema by an id of the schema registry")
    return Misfit(row, "", f"it is framed with version {version}, and the versions are 1 to {schemas[-1].version}")


def misfits(version: Schema, datums: Sequence[bytes]) -> set[int]:
    """The places in ``datums`` of those that do not fit."""
    return {place for place, datum in enumerate(datums) if _fault(version.definition, datum)}


def check_definition(definition: str) -> None:
    """Raise ``InvalidRequest`` if fastavro cannot read by this definition, or is not installed."""
    _array(definition)


def _framed(item: bytes) -> int:
    """The version in a value's frame; 0 if it has none."""
    return item[4] if item[:4] == b"\0\0\0\0" and len(item) >= _FRAME and 0 < item[4] <= SCHEMAS_MAX else 0


def _first(version: Schema, numbers: Sequence[int], datums: Sequence[bytes]) -> Misfit:
    for row, datum in zip(numbers, datums, strict=True):
        fault = _fault(version.definition, datum)
        if fault:
            return Misfit(row, fault[0], f"{fault[1]} (read as version {version.version})")
    raise AssertionError("a datum that did not fit fits now")


def _fault(definition: str, datum: bytes) -> tuple[str, str] | None:
    """(field, what is wrong) with one datum, if anything is."""
    try:
        decode(definition, [datum])
    except UNFIT:
        return _explained(definition, datum)
    return None


def _explained(definition: str, datum: bytes) -> tuple[str, str]:
    """The first field that cannot be read: fastavro says what is wrong, and not where."""
    fields = documents.parsed("avro", definition)["fields"]
    low, high = 0, len(fields)  # the first `low` fields can be read; of the first `high + 1` some cannot
    error: Exception | None = None
    while low < high:
        middle = (low + high) // 2
        found = _unread(_record(definition, middle + 1), datum)
        if found is None:
            low = middle + 1
        else:
            high, error = middle, found
    if error is None:
        return "", "bytes follow its last field"
    return str(fields[low]["name"]), str(error) or "the bytes end inside it"


def _unread(schema: Any, datum: bytes) -> Exception | None:
    import fastavro

    try:
        fastavro.schemaless_reader(io.BytesIO(datum), schema, None)
    except UNFIT as error:
        return error
    return None


@functools.lru_cache(CACHED)
def _array(definition: str) -> Any:
    """An array of the record and the mark behind it, parsed by fastavro."""
    return parsed_by_fastavro(marked(_stripped(documents.parsed("avro", definition))))


def marked(root: Any) -> dict[str, Any]:
    """An array of the record and the mark behind it."""
    end = {"type": "fixed", "name": "headwater.Mark", "size": MARK}
    fields = [{"name": "value", "type": root}, {"name": "end", "type": end}]
    return {"type": "array", "items": {"type": "record", "name": "headwater.Marked", "fields": fields}}


def _record(definition: str, fields: int) -> Any:
    """The record with its first fields alone, parsed by fastavro."""
    root = _stripped(documents.parsed("avro", definition))
    return parsed_by_fastavro({**root, "fields": root["fields"][:fields]})


def parsed_by_fastavro(document: Any) -> Any:
    """A schema as fastavro keeps it. Raises ``InvalidRequest`` if it is none, or fastavro is not installed."""
    try:
        import fastavro
        from fastavro.schema import SchemaParseException
    except ImportError:
        raise InvalidRequest(
            "Avro values need the package fastavro: install it with `pip install 'headwater[avro]'`."
        ) from None
    _register()
    try:
        return fastavro.parse_schema(document)
    except (SchemaParseException, *UNFIT) as error:
        raise InvalidRequest(f"The Avro schema cannot be used: {error}") from None


def _stripped(node: Any) -> Any:
    """The schema without logical types, and with decimals under a name of ours."""
    if isinstance(node, list):
        return [_stripped(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {word: value for word, value in node.items() if word not in ("logicalType", "default", "doc")}
    if node.get("logicalType") == "decimal":
        kept["logicalType"] = _DECIMAL
    for word in ("type", "items", "values"):
        if word in kept:
            kept[word] = _stripped(kept[word])
    if isinstance(kept.get("fields"), list):
        kept["fields"] = [_stripped(each) for each in kept["fields"]]
    return kept


@functools.cache
def _register() -> None:
    """Make our way of decimals known to fastavro, under a logical type that no other program's schema has."""
    from fastavro.read import LOGICAL_READERS

    LOGICAL_READERS[f"bytes-{_DECIMAL}"] = _decimal
    LOGICAL_READERS[f"fixed-{_DECIMAL}"] = _decimal


def _decimal(data: bytes, schema: Any, reader: Any = None) -> decimal.Decimal:
    """Digits in two's complement, the most significant byte first."""
    number = int.from_bytes(data, "big", signed=True) if len(data) <= _DECIMAL_BYTES_MAX else None
    if number is None or abs(number) >= 10 ** schema["precision"]:
        raise ValueError(f"a decimal has more than {schema['precision']} digits")
    digits = tuple(map(int, str(abs(number))))
    return decimal.Decimal((int(number < 0), digits, -schema.get("scale", 0)))


def varint(number: int) -> bytes:
    """A long as Avro writes it: zigzag, seven bits a byte."""
    rest, out = number << 1, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes((*out, rest))
