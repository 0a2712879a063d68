"""Protobuf: whether bytes written by an old file's messages can be read by a new file's.

As Confluent's registry has it, which follows "Updating A Message Type" of the language guide:

    free          messages, fields, enums and constants are added; fields, enums and constants go away, or get a new
                  name; a oneof is added, or grows; one field moves into a new oneof
    wire types    int32, uint32, int64, uint64, bool and enums stand for each other; sint32 and sint64; fixed32 and
                  sfixed32; fixed64 and sfixed64; string and bytes
    refused       another package, a message that goes away, a type of another wire type or name, a required field
                  that comes or goes, a field that leaves its oneof, several that move into one, a numeric field
                  that becomes repeated or ceases to be

A definition is a .proto text, or a ``FileDescriptorProto`` in base64, which the Python client sends.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from headwater.limits import REGISTRY_PARSED_MAX, REGISTRY_PROBLEMS_MAX
from headwater.registry import protodescriptor, prototext, protowire
from headwater.registry.protomodel import SCALARS, Field, File, Message, rendered, resolved
from headwater.registry.refusal import Refusal, invalid_schema

_GROUPS: Final = (
    {"int32", "uint32", "int64", "uint64", "bool", "enum"},
    {"sint32", "sint64"},
    {"fixed32", "sfixed32"},
    {"fixed64", "sfixed64"},
    {"string", "bytes"},
)
_BUILT_IN: Final = ("google/protobuf/", "google/type/", "confluent/")  # files that every client brings along
_BUILT_IN_TYPES: Final = ("google.protobuf.", "google.type.", "confluent.")


def parse(text: str, referred: Mapping[str, str]) -> File:
    """The file, with its types' names in full; ``referred`` are the texts that it imports, by the names it uses.

    Raises:
        Refusal: 42201.
    """
    made = _file(text)
    if not made.messages and not made.enums and not made.imports:
        raise invalid_schema("it defines no message and no enum, and imports nothing.")
    for name in made.imports:
        if name not in referred and not name.startswith(_BUILT_IN):
            raise invalid_schema(f"it imports {name[:200]!r}, which no reference names.")
    others = [_file(other) for other in referred.values()]
    known = dict.fromkeys(name for file in (made, *others) for name in (*file.messages, *file.enums))
    made.messages = {name: _resolved(name, message, known) for name, message in made.messages.items()}
    made.imported_enums = frozenset(name for file in others for name in file.enums)
    return made


def canonical(text: str) -> str:
    """One text for all definitions that say the same; the text itself if it is none. Never raises."""
    try:
        file = _file(text)
        known = dict.fromkeys((*file.messages, *file.enums))
        for name, message in file.messages.items():
            file.messages[name] = _resolved(name, message, known, strict=False)
        return rendered(file)
    except (Refusal, RecursionError):
        return text


def problems(new: File, old: File) -> list[str]:
    """Why bytes of ``old`` cannot be read as ``new``; none: they can. At most ``REGISTRY_PROBLEMS_MAX``."""
    found: list[str] = []
    for problem in _between(new, old):
        found.append(problem)
        if len(found) >= REGISTRY_PROBLEMS_MAX:
            break
    return found


@functools.lru_cache(REGISTRY_PARSED_MAX)
def _parsed(text: str) -> File:
    return protowire.parse(text) or prototext.parse(text)


def _file(text: str) -> File:
    """A copy of its own, since the caller may write into it."""
    known = _parsed(text)
    return File(
        syntax=known.syntax,
        package=known.package,
        imports=list(known.imports),
        messages=dict(known.messages),
        enums=dict(known.enums),
    )


def _resolved(scope: str, message: Message, known: Mapping[str, object], *, strict: bool = True) -> Message:
    fields = {}
    for number, field in message.fields.items():
        names = field.type[4:-1].split(",") if field.type.startswith("map<") else [field.type]
        full = [_full_name(name, scope, field, known, strict) for name in names]
        fields[number] = replace(field, type=f"map<{','.join(full)}>" if len(full) > 1 else full[0])
    return Message(fields=fields)


def _full_name(name: str, scope: str, field: Field, known: Mapping[str, object], strict: bool) -> str:
    if name in SCALARS:
        return name
    found = resolved(name, scope, known)
    if found is not None:
        return found
    plain = name.lstrip(".")
    if strict and not plain.startswith(_BUILT_IN_TYPES):
        raise invalid_schema(f"the type {name[:200]!r} of {scope}.{field.name} is defined nowhere.")
    return plain


# -- comparing -----------------------------------------------------------------------------------------------


def _between(new: File, old: File) -> Iterator[str]:
    if new.package != old.package:
        yield f"PACKAGE_CHANGED: {old.package!r} became {new.package!r}"
        return
    for name, message in old.messages.items():
        if name not in new.messages:
            yield f"{name}: MESSAGE_REMOVED"
        else:
            yield from _messages(name, new.messages[name], message, new, old)


def _messages(name: str, mine: Message, theirs: Message, new: File, old: File) -> Iterator[str]:
    for number, was in theirs.fields.items():
        path = f"{name}.{was.name}"
        now = mine.fields.get(number)
        if now is None:
            if was.label == "required":
                yield f"{path}: REQUIRED_FIELD_REMOVED"
            if was.oneof and any(each.oneof == was.oneof for each in mine.fields.values()):
                yield f"{path}: ONEOF_FIELD_REMOVED: it left oneof {was.oneof}"
            continue
        yield from _fields(path, now, was, new, old)
        if was.oneof and not now.oneof:
            yield f"{path}: ONEOF_FIELD_REMOVED: it left oneof {was.oneof}"
    for number, now in mine.fields.items():
        if now.label == "required" and (number not in theirs.fields or theirs.fields[number].label != "required"):
            yield f"{name}.{now.name}: REQUIRED_FIELD_ADDED"
    yield from _oneofs(name, mine, theirs)


def _oneofs(name: str, mine: Message, theirs: Message) -> Iterator[str]:
    before = {each.oneof for each in theirs.fields.values()}
    moved: dict[str, list[str]] = {}
    for number, now in mine.fields.items():
        was = theirs.fields.get(number)
        if now.oneof and was is not None and not was.oneof:
            moved.setdefault(now.oneof, []).append(now.name)
    for oneof, names in sorted(moved.items()):
        if oneof in before:
            yield f"{name}.{names[0]}: FIELD_MOVED_TO_EXISTING_ONEOF: {oneof}"
        elif len(names) > 1:
            yield f"{name}: MULTIPLE_FIELDS_MOVED_TO_ONEOF: {', '.join(names)} moved into {oneof}"


def _fields(path: str, now: Field, was: Field, new: File, old: File) -> Iterator[str]:
    mine, theirs = _wire(now, new), _wire(was, old)
    if mine != theirs and not any({mine, theirs} <= group for group in _GROUPS):
        yield f"{path}: FIELD_TYPE_CHANGED: {was.type} became {now.type}"
    repeated = (now.label == "repeated", was.label == "repeated")
    if repeated[0] != repeated[1] and theirs in SCALARS and theirs not in ("string", "bytes"):
        yield f"{path}: FIELD_NUMERIC_LABEL_CHANGED: {was.label or 'singular'} became {now.label or 'singular'}"


def _wire(field: Field, file: File) -> str:
    """A type as it is compared: scalars by name, enums as one, messages and maps by their names."""
    if field.type in file.enums or field.type in file.imported_enums:
        return "enum"
    return f"group {field.type}" if field.group else field.type


def serialized(file: File) -> str:
    """The descriptor of a file, in base64, as the Python client reads it. Raises ``Refusal`` 42201 for editions.

    Options are not in it: they mean nothing to who decodes by it, but for a proto2 extension.
    """
    if file.syntax not in ("proto2", "proto3"):
        raise invalid_schema(f"no descriptor is made of a file of edition {file.syntax[:20]}.")
    return protodescriptor.serialize(file)
