"""A definition as it may be given (text, parsed JSON, a Python class, an Arrow schema), as a JSON document."""

from __future__ import annotations

import sys
from typing import Any

from headwater.errors import InvalidRequest
from headwater.log.columns import plain_name
from headwater.schemas import classes
from headwater.schemas.shape import refuse

FORMATS = ("json", "avro", "arrow")


def parsed(format: str, definition: Any) -> dict[str, Any]:  # noqa: A002
    """The definition as a JSON object. Raises ``InvalidRequest``."""
    found = _document(format, definition)
    if isinstance(found, str | bytes):
        found = _json(found)
    if not isinstance(found, dict):
        raise InvalidRequest(f"A definition is a JSON object, not {type(found).__name__}: see `topic schema --help`.")
    return found


def text(format: str, definition: Any) -> str:  # noqa: A002
    """The definition as JSON text: as it was given, if it was text."""
    import msgspec

    found = _document(format, definition)
    if isinstance(found, bytes):
        try:
            found = found.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"The definition is no UTF-8: {error}.") from None
    return found if isinstance(found, str) else msgspec.json.encode(found).decode()


def same(one: str, other: str) -> bool:
    """Whether two definitions say the same: as JSON, where spaces and the order of members mean nothing.

    The order of an Arrow definition's columns, and of an Avro record's fields, is kept in lists or in the columns.
    """
    return one == other or _json(one) == _json(other)


def _document(format: str, definition: Any) -> Any:  # noqa: A002
    if format not in FORMATS:
        raise InvalidRequest(f"The formats of a schema are json, avro and arrow, not {str(format)[:40]!r}.")
    if isinstance(definition, str | bytes | dict):
        return definition
    arrow = sys.modules.get("pyarrow")  # who holds an Arrow schema has imported it
    if arrow is not None and isinstance(definition, arrow.Schema):
        if format != "arrow":
            raise InvalidRequest(f"A pyarrow.Schema goes with the format 'arrow', not with {format!r}.")
        return _of_arrow(definition)
    if isinstance(definition, type) and format == "json":
        return classes.described(definition)
    raise InvalidRequest(
        f"With the format {format!r} a definition is JSON, as text or parsed{_or_else(format)}; "
        f"{type(definition).__name__} is not."
    )


def _or_else(format: str) -> str:  # noqa: A002
    return {"json": ", or a Python class", "arrow": ", or a pyarrow.Schema"}.get(format, "")


def _json(found: str | bytes) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(found)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(f"The definition is no JSON: {str(error) or type(error).__name__}.") from None


def _of_arrow(schema: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in schema:
        if each.name in found:
            refuse(each.name, "two columns have this name.")
        found[each.name] = _arrow_text(each.name, each.type) + ("" if each.nullable else " not null")
    return found


def _arrow_text(path: str, given: Any) -> str:
    """A type as ``log.columns`` writes it: Arrow's own text, but for names that it does not spell."""
    import pyarrow.types as t

    if t.is_list(given):
        return f"list<item: {_arrow_text(f'{path}[]', given.value_type)}{_null(given.value_field)}>"
    if t.is_map(given):
        if not t.is_string(given.key_type):
            refuse(path, f"keys of a map are strings, not {given.key_type}.")
        return f"map<string, {_arrow_text(f'{path}{{}}', given.item_type)}>"
    if t.is_struct(given):
        fields = []
        for each in given:
            if not plain_name(each.name):
                refuse(f"{path}.{each.name}", "a nested name has no '<', '>', ',' and ':'.")
            fields.append(f"{each.name}: {_arrow_text(f'{path}.{each.name}', each.type)}{_null(each)}")
        return f"struct<{', '.join(fields)}>"
    if t.is_timestamp(given) and given.tz not in (None, "UTC"):
        refuse(path, f"timestamps are in UTC or without a zone, not in {given.tz}.")
    return str(given)


def _null(each: Any) -> str:
    return "" if each.nullable else " not null"
