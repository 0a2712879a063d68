"""Serializers of a topic with a schema, and the bulk way from a table to records.

    serde = schema_serde(await admin.list_schemas("flights"))
    async with Producer(url, value_serializer=serde) as producer:
        await producer.send("flights", {"year": 2013, "carrier": "UA"})

A row that does not fit is refused where it is sent, alone, before it gathers with others into a batch that the service
would refuse as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headwater.api.verbs import SchemaInfo
from headwater.client.serializers import Serde
from headwater.errors import InvalidRequest
from headwater.log.operations import Column
from headwater.log.state import Schema
from headwater.schemas import rows

if TYPE_CHECKING:
    import pyarrow as pa


def schema_serde(versions: Sequence[SchemaInfo]) -> Serde:
    """Both ways of a topic's values: rows as dicts, dataclasses or structs there, and dicts of its columns back.

    ``versions`` are all of them, as ``Admin.list_schemas`` answers. Values are written by the newest, and read by the
    one that wrote them. Raises ``InvalidRequest`` if there is none.
    """
    known = _known("The topic", versions)
    return Serde(
        name="schema",
        serialize=lambda row: rows.encode_row(known[-1], row),
        deserialize=lambda data: rows.decode_value(known, data),
    )


def records_of_table(
    topic: str, versions: Sequence[SchemaInfo], data: pa.Table | pa.RecordBatch, *, key: str = "", timestamp: str = ""
) -> pa.Table:
    """A table of a topic's columns as a table of records. Raises ``InvalidRequest``; see ``Producer.send_table``."""
    import pyarrow as pa

    newest = _known(f"Topic {topic!r}", versions)[-1]
    for name in (key, timestamp):
        if name and name not in data.schema.names:
            raise InvalidRequest(f"The table has no column {name!r}, so it cannot be key or timestamp.", field=name)
    arrays: dict[str, Any] = {"value": rows.encode_table(newest, data)}
    if key:
        found: Any = data.column(key)
        try:
            arrays["key"] = found if pa.types.is_binary(found.type) else found.cast(pa.string()).cast(pa.binary())
        except pa.ArrowException as error:
            raise InvalidRequest(f"Column {key!r} cannot be a key: {error}", field=key) from error
    if timestamp:
        arrays["timestamp"] = data.column(timestamp)
    return pa.table(arrays)


def _known(topic: str, versions: Sequence[SchemaInfo]) -> list[Schema]:
    if not versions:
        raise InvalidRequest(f"{topic} has no schema: set one, or send bytes.")
    return [
        Schema(
            version=each.version,
            seq=each.commit,
            format=each.format,
            definition=each.definition,
            columns=[Column(column.name, column.type, column.nullable) for column in each.columns],
        )
        for each in versions
    ]
