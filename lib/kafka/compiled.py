"""Decoders and encoders of messages, compiled to Python functions from the schema.

Neighbouring fields of fixed size become one ``struct`` call, records and bytes are slices of the buffer that came in
(decoding) or go out as they are (encoding), so a megabyte of records costs what its header costs. kio reads and
writes the same bytes (tests compare them) at 1.5 to 2,000 times the cost.

Every length is checked before it is believed: a count is at most the number of bytes left, so a hostile frame costs
memory in proportion to its own size.
"""

from __future__ import annotations

import struct as packing
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from headwater.errors import InvalidRequest
from headwater.kafka.messages import Fields
from headwater.kafka.schema import Field, Struct, others
from headwater.types import Buffer

Decoder: TypeAlias = Callable[[memoryview, int, int], tuple[Fields, int]]
Encoder: TypeAlias = Callable[[Fields, list[Buffer]], None]

_FIXED: Final = {
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint16": "H",
    "float64": "d",
    "bool": "?",
    "uuid": "16s",
}


_SMALL: Final = [bytes((value,)) for value in range(0x80)]  # varints of one byte


class Malformed(InvalidRequest):
    """Bytes that are no message of the kind that they claim to be."""


def decoder(struct: Struct, api: int) -> Decoder:
    """``decode(view, start, end)`` → the message and where it ends. Raises ``Malformed``."""
    compiled = _Decoding(api).function(struct, ())

    def decode(view: memoryview, start: int, end: int) -> tuple[Fields, int]:
        try:
            found: tuple[Fields, int] = compiled(view, start, end)
        except (packing.error, IndexError, UnicodeDecodeError) as error:
            raise Malformed(f"A message {struct.name} is cut off or malformed: {error}.") from error
        return found

    return decode


def encoder(struct: Struct) -> Encoder:
    """``encode(fields, out)`` appends the message's bytes to ``out``. Fields that are left out get their default."""
    encode: Encoder = _Encoding().function(struct)
    return encode


# -- what the compiled functions call ---------------------------------------------------------------------


def uvarint(view: memoryview, at: int) -> tuple[int, int]:
    """An unsigned varint of up to 32 bits and where it ends."""
    value = view[at]
    if value < 0x80:
        return value, at + 1
    value, shift = value & 0x7F, 7
    while True:
        at += 1
        byte = view[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
        if shift > 28:
            raise Malformed("A varint has more than 5 bytes.")


def put_uvarint(value: int) -> bytes:
    """The bytes of an unsigned varint."""
    if value < 0x80:
        return _SMALL[value]
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tags(view: memoryview, at: int, end: int) -> tuple[list[tuple[int, int, int]], int]:
    """The tag, start and end of each tagged field, and where they end together."""
    count, at = uvarint(view, at)
    if not count:
        return [], at
    found = []
    for _ in range(count):
        tag, at = uvarint(view, at)
        size, at = uvarint(view, at)
        if size > end - at:
            raise Malformed(f"A tagged field claims {size} bytes of {end - at}.")
        found.append((tag, at, at + size))
        at += size
    return found, at


def check_count(count: int, at: int, end: int) -> None:
    """Raise ``Malformed`` unless that many elements can lie in what is left."""
    if count > end - at:
        raise Malformed(f"An array claims {count} elements in {end - at} bytes.")


def part(view: memoryview, at: int, size: int, end: int) -> memoryview:
    """The bytes, if they are there."""
    if size > end - at:
        raise Malformed(f"A field claims {size} bytes of {end - at}.")
    return view[at : at + size]


def missing(name: str) -> Malformed:
    """A null where none may be."""
    return Malformed(f"The field {name} is null.")


def cut() -> Malformed:
    """A field that reaches beyond what holds it."""
    return Malformed("A field reaches beyond the end of its message.")


def tagged(out: list[Buffer], found: list[tuple[int, list[Buffer]]]) -> None:
    """Append tagged fields in the order of their tags."""
    if not found:
        out.append(_SMALL[0])
        return
    out.append(put_uvarint(len(found)))
    for tag, parts in sorted(found, key=lambda each: each[0]):
        data = b"".join(parts)
        out.append(put_uvarint(tag) + put_uvarint(len(data)) + data)


_NAMES: Final[dict[str, Any]] = {
    "uvarint": uvarint,
    "put_uvarint": put_uvarint,
    "tags": tags,
    "check_count": check_count,
    "part": part,
    "cut": cut,
    "missing": missing,
    "tagged": tagged,
    "short": packing.Struct(">h"),
    "long": packing.Struct(">i"),
    "packing": packing,
}


class _Source:
    """Lines of a function under construction, and the names that it needs."""

    def __init__(self) -> None:
        self.names = dict(_NAMES)
        self.count = 0

    def fresh(self, value: Any) -> str:
        """A name for a value in the function's globals."""
        self.count += 1
        name = f"g{self.count}"
        self.names[name] = value
        return name

    def build(self, head: str, lines: list[str]) -> Any:
        source = "\n    ".join([head, *lines])
        exec(compile(source, "<kafka message>", "exec"), self.names)  # made from the schema alone
        return self.names.pop("function")


def runs(fields: list[Field]) -> Iterator[list[Field]]:
    """Fields grouped so that neighbours of fixed size are together."""
    run: list[Field] = []
    for field in fields:
        if field.kind in _FIXED and not field.is_array:
            run.append(field)
            continue
        if run:
            yield run
            run = []
        yield [field]
    if run:
        yield run


class _Decoding:
    """Makes decoders of one API's requests."""

    def __init__(self, api: int) -> None:
        self.api = api

    def function(self, struct: Struct, path: tuple[str, ...]) -> Any:
        source = _Source()
        lines = []
        known = {field.name for field in struct.fields}
        absent = {name: value for name, value in others(self.api, path).items() if name not in known}
        lines.append(f"m = dict({source.fresh(absent)})" if absent else "m = {}")
        for run in runs([field for field in struct.fields if field.tag < 0]):
            if run[0].kind in _FIXED and not run[0].is_array:
                layout = packing.Struct(">" + "".join(_FIXED[field.kind] for field in run))
                targets = ", ".join(f"m[{field.name!r}]" for field in run)
                lines.append(f"{targets}, = {source.fresh(layout)}.unpack_from(v, p)")
                lines.append(f"p += {layout.size}")
            else:
                lines += self._value(source, run[0], path, is_flexible=struct.is_flexible)
        if struct.is_flexible:
            lines += self._tags(source, struct, path)
        lines += ["if p > end: raise cut()", "return m, p"]
        return source.build("def function(v, p, end):", lines)

    def _value(self, source: _Source, field: Field, path: tuple[str, ...], *, is_flexible: bool) -> list[str]:
        """Lines that read one field of variable size into ``m``."""
        target = f"m[{field.name!r}]"
        null = f"{target} = None" if field.is_nullable else f"raise missing({field.name!r})"
        if field.is_array:
            return self._array(source, field, path, target, null, is_flexible=is_flexible)
        if field.kind == "struct":
            read = f"{target}, p = {source.fresh(self._part(field, path))}(v, p, end)"
            if not field.is_nullable:
                return [read]
            return ["p += 1", "if v[p - 1] > 127:", f"    {target} = None", "else:", f"    {read}"]
        if field.kind in _FIXED:
            layout = source.fresh(packing.Struct(">" + _FIXED[field.kind]))
            return [f"{target}, = {layout}.unpack_from(v, p)", f"p += {layout}.size"]
        take = "str(part(v, p, n, end), 'utf-8')" if field.kind == "string" else "part(v, p, n, end)"
        return [
            *_size(field.kind, is_flexible=is_flexible),
            f"if n < 0: {null}",
            "else:",
            f"    {target} = {take}",
            "    p += n",
        ]

    def _array(
        self, source: _Source, field: Field, path: tuple[str, ...], target: str, null: str, *, is_flexible: bool
    ) -> list[str]:
        lines = [*_size("array", is_flexible=is_flexible), f"if n < 0: {null}", "else:", "    check_count(n, p, end)"]
        if field.kind in _FIXED and field.kind != "uuid":
            code = _FIXED[field.kind]
            return [
                *lines,
                f"    {target} = list(packing.unpack_from(f'>{{n}}{code}', v, p))",
                f"    p += n * {packing.calcsize('>' + code)}",
            ]
        lines.append(f"    a = {target} = []")
        lines.append("    for _ in range(n):")
        if field.kind == "struct":
            lines.append(f"        x, p = {source.fresh(self._part(field, path))}(v, p, end)")
        elif field.kind == "uuid":
            lines += ["        x = bytes(part(v, p, 16, end))", "        p += 16"]
        else:
            take = "str(part(v, p, n, end), 'utf-8')" if field.kind == "string" else "part(v, p, n, end)"
            lines += [f"        {line}" for line in _size(field.kind, is_flexible=is_flexible)]
            lines += [f"        if n < 0: raise missing({field.name!r})", f"        x = {take}", "        p += n"]
        return [*lines, "        a.append(x)"]

    def _tags(self, source: _Source, struct: Struct, path: tuple[str, ...]) -> list[str]:
        known = [field for field in struct.fields if field.tag >= 0]
        if not known:
            return ["if v[p] == 0: p += 1", "else: p = tags(v, p, end)[1]"]
        lines = [f"m.update({source.fresh({field.name: field.default for field in known})})"]
        lines += ["found, after = tags(v, p, end)", "for tag, p, stop in found:"]
        for field in known:
            lines.append(f"    if tag == {field.tag}:")
            lines += [f"        {line}" for line in self._value(source, field, path, is_flexible=True)]
            lines.append("        if p > stop: raise cut()")
        return [*lines, "p = after"]

    def _part(self, field: Field, path: tuple[str, ...]) -> Any:
        assert field.struct is not None
        return self.function(field.struct, (*path, field.name))


def _size(kind: str, *, is_flexible: bool) -> list[str]:
    """Lines that read a length or a count into ``n``; -1 is null."""
    if is_flexible:
        return ["n = v[p]", "p += 1", "if n > 127: n, p = uvarint(v, p - 1)", "n -= 1"]
    if kind == "string":
        return ["n, = short.unpack_from(v, p)", "p += 2"]
    return ["n, = long.unpack_from(v, p)", "p += 4"]


class _Encoding:
    """Makes encoders of answers."""

    def function(self, struct: Struct) -> Any:
        source = _Source()
        lines = ["get = m.get", "add = out.append"]
        for run in runs([field for field in struct.fields if field.tag < 0]):
            if run[0].kind in _FIXED and not run[0].is_array:
                layout = source.fresh(packing.Struct(">" + "".join(_FIXED[field.kind] for field in run)))
                values = ", ".join(f"get({field.name!r}, {source.fresh(field.default)})" for field in run)
                lines.append(f"add({layout}.pack({values}))")
            else:
                lines += self._value(source, run[0], is_flexible=struct.is_flexible)
        if struct.is_flexible:
            lines += self._tags(source, struct)
        return source.build("def function(m, out):", lines)

    def _value(self, source: _Source, field: Field, *, is_flexible: bool) -> list[str]:
        lines = [f"x = get({field.name!r}, {source.fresh(field.default)})"]
        if field.is_array:
            return lines + self._array(source, field, is_flexible=is_flexible)
        if field.kind == "struct":
            put = f"{source.fresh(self._part(field))}(x, out)"
            if not field.is_nullable:
                return [*lines, put]
            return [*lines, "if x is None: add(b'\\xff')", "else:", "    add(b'\\x01')", f"    {put}"]
        if field.kind in _FIXED:
            return [*lines, f"add({source.fresh(packing.Struct('>' + _FIXED[field.kind]))}.pack(x))"]
        null = b"\x00" if is_flexible else b"\xff\xff" if field.kind == "string" else b"\xff\xff\xff\xff"
        lines += [f"if x is None: add({null!r})", "else:"]
        return lines + [f"    {line}" for line in _bytes(field.kind, is_flexible=is_flexible)]

    def _array(self, source: _Source, field: Field, *, is_flexible: bool) -> list[str]:
        null = b"\x00" if is_flexible else b"\xff\xff\xff\xff"
        count = "put_uvarint(len(x) + 1)" if is_flexible else "long.pack(len(x))"
        lines = [f"if x is None: add({null!r})", "else:", f"    add({count})"]
        if field.kind in _FIXED and field.kind != "uuid":
            return [*lines, f"    if x: add(packing.pack(f'>{{len(x)}}{_FIXED[field.kind]}', *x))"]
        lines.append("    for x in x:")
        if field.kind == "struct":
            return [*lines, f"        {source.fresh(self._part(field))}(x, out)"]
        if field.kind == "uuid":
            return [*lines, "        add(x)"]
        return lines + [f"        {line}" for line in _bytes(field.kind, is_flexible=is_flexible)]

    def _tags(self, source: _Source, struct: Struct) -> list[str]:
        known = [field for field in struct.fields if field.tag >= 0]
        if not known:
            return ["add(b'\\x00')"]
        lines = ["found, whole = [], out"]
        for field in known:
            lines.append(f"if get({field.name!r}, {source.fresh(field.default)}) != {source.fresh(field.default)}:")
            lines += ["    out = []", "    add = out.append"]
            lines += [f"    {line}" for line in self._value(source, field, is_flexible=True)]
            lines.append(f"    found.append(({field.tag}, out))")
        return [*lines, "tagged(whole, found)"]

    def _part(self, field: Field) -> Any:
        assert field.struct is not None
        return self.function(field.struct)


def _bytes(kind: str, *, is_flexible: bool) -> list[str]:
    """Lines that append the bytes in ``x``, a string, a buffer, or for records a list of buffers."""
    size = "put_uvarint(n + 1)" if is_flexible else "short.pack(n)" if kind == "string" else "long.pack(n)"
    if kind == "string":
        return ["x = x.encode()", "n = len(x)", f"add({size} + x)"]
    if kind == "records":
        return [
            "if isinstance(x, list):",
            "    n = sum(map(len, x))",
            f"    add({size})",
            "    out.extend(x)",
            "else:",
            "    n = len(x)",
            f"    add({size})",
            "    add(x)",
        ]
    return ["n = len(x)", f"add({size})", "add(x)"]
