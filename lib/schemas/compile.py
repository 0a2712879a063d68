"""From a definition to columns: JSON Schema, Avro, a Python class, or an Arrow schema.

A definition compiles to a tree of ``Shape``, from which come the columns that the fold keeps (``columns_of``) and the
decoders of values (``schemas.values``). What a definition says and a column or a check cannot hold is refused with the
path to it, so that nobody believes in a constraint that is not there.

| format | definition | a value |
|---|---|---|
| ``json`` | JSON Schema, or a Python class | a JSON object |
| ``avro`` | an Avro schema | a datum, framed with the schema's version as Confluent does, or bare (version 1) |
| ``arrow`` | column → type, as JSON, or a ``pyarrow.Schema`` | a JSON object, made in bulk from tables by the client |

Cost: once for each version of a schema, and no import of pyarrow but by the functions that take or give its schemas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from headwater.errors import InvalidRequest
from headwater.limits import COLUMN_TYPE_MAX, COLUMNS_MAX, SCHEMA_BYTES_MAX, TOPIC_NAME_MAX
from headwater.log.columns import RESERVED, Type, parse
from headwater.log.operations import Column, ValueFormat
from headwater.schemas import avro, documents, jsonschema
from headwater.schemas.shape import Member, Shape, refuse, spelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa


def compile_schema(format: str, definition: Any) -> list[Column]:  # noqa: A002 - the name that users know
    """The columns of a definition: as text, as parsed JSON, as a Python class, or as a ``pyarrow.Schema``.

    Raises:
        InvalidRequest: it is no such definition, or says what cannot be expressed; the message names the path.
    """
    return columns_of(shape_of(format, definition))


def shape_of(format: str, definition: Any) -> Shape:  # noqa: A002
    """The root of a definition: a struct, whose members are the columns. Raises as ``compile_schema``."""
    document = documents.parsed(format, definition)
    match format:
        case "json":
            root = jsonschema.shape(document)
        case "avro":
            root = avro.shape(document)
        case _:
            root = _arrow_shape(document)
    _refuse_columns(root.members)
    return root


def definition_text(format: str, definition: Any) -> str:  # noqa: A002
    """The definition as it is kept: JSON text, and as it was given if it was text."""
    text = documents.text(format, definition)
    if len(text) > SCHEMA_BYTES_MAX:
        raise InvalidRequest(f"A schema's definition has at most {SCHEMA_BYTES_MAX} characters, not {len(text)}.")
    return text


def columns_of(root: Shape) -> list[Column]:
    """One column for each member of the root."""
    return [Column(each.name, str(each.shape.type()), each.nullable) for each in root.members]


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """The columns as an Arrow schema. Raises ``InvalidRequest`` for what is no type of a column."""
    import pyarrow as pa

    from headwater.log.arrow_types import arrow_type

    return pa.schema([pa.field(each.name, arrow_type(_parsed(each)), each.nullable) for each in columns])


def arrow_columns(schema: pa.Schema) -> list[Column]:
    """An Arrow schema as columns: the way back of ``arrow_schema``. Raises as ``compile_schema``."""
    return compile_schema("arrow", schema)


def check_format(format: str) -> ValueFormat:  # noqa: A002
    """Raises ``InvalidRequest``."""
    if format not in get_args(ValueFormat):
        raise InvalidRequest(f"The formats of a schema are json, avro and arrow, not {str(format)[:40]!r}.")
    return format  # type: ignore[return-value]


def _parsed(column: Column) -> Type:
    try:
        return parse(column.type)
    except ValueError as error:
        raise InvalidRequest(f"Column {column.name!r}: {error}", field=column.name) from None


def _arrow_shape(document: dict[str, Any]) -> Shape:
    """``{"year": "int32 not null", …}``."""
    members = []
    for name, text in document.items():
        if not isinstance(text, str):
            refuse(name, 'its type is a text, as in "int32" or "list<item: string> not null".')
        kind = text.removesuffix(" not null")
        try:
            found = parse(kind)
        except ValueError as error:
            refuse(name, str(error))
        members.append(Member(name=name, shape=Shape.of(found), nullable=kind == text))
    return Shape(kind="struct", members=tuple(members))


def _refuse_columns(members: Sequence[Member]) -> None:
    if not 1 <= len(members) <= COLUMNS_MAX:
        raise InvalidRequest(f"A schema has 1 to {COLUMNS_MAX} columns, not {len(members)}.")
    for member in members:
        if member.name in RESERVED:
            refuse(member.name, "every topic has a column of this name; choose another.")
        if not 1 <= len(member.name) <= TOPIC_NAME_MAX or not spelled(member.name):
            refuse(member.name, f"a name has 1 to {TOPIC_NAME_MAX} characters, all printable, without '\"' and '\\\\'.")
        text = str(member.shape.type())
        if len(text) > COLUMN_TYPE_MAX:
            refuse(member.name, f"its type takes {len(text)} characters, and may take {COLUMN_TYPE_MAX}.")
        try:
            parse(text)  # depth, names and precision: what the fold would refuse
        except ValueError as error:
            refuse(member.name, str(error))
