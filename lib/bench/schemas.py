"""``bench schemas``: what a topic's schema costs, on one core: the check of values, and their typed columns.

The values are flights as JSON, 19 fields and 303 bytes each, and the same rows as Avro, 89 bytes, each field a union
with null. Rates are values a second of CPU time, best of the rounds. ``guard`` is the check as a produce does it, from
a batch's bytes on; ``plain`` is that batch decoded and not checked; ``typed`` is what archiver and replay do;
``encode_table`` is the way from an Arrow table to values, with their check.

With 100,000 flights on a busy machine of two cores (Python 3.11, msgspec 0.22, pyarrow 26, fastavro 1.13; November
2026), in thousands a second:

             check   guard   plain   typed   encode_table
    JSON     1,667   1,000   5,000     303            109
    Avro        81      86   5,000      74             30

A JSON check is msgspec's decoder with a type made of the schema. Arrow's JSON reader, which could check as well, reads
0.43 million a second and does not say which row does not fit; one msgspec call for a list of all values takes 0.3 to
0.5 million, since it must keep them all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa

from headwater.demo.source import load
from headwater.log import batch
from headwater.log.state import Schema
from headwater.schemas import guard
from headwater.schemas.compile import compile_schema, definition_text
from headwater.schemas.rows import encode_table
from headwater.schemas.typed import check, typed
from headwater.types import Batch

ROUNDS: Final = 3
TOPIC: Final = "flights"
_TICK_S: Final = 0.01  # of the operating system's count
_AVRO: Final = {"int64": "long", "double": "double", "string": "string", "bool": "boolean"}


def bench(rows: int = 100_000, rounds: int = ROUNDS) -> dict[str, Any]:
    """The report of ``headwater bench schemas``. Raises ``NotFound`` without the flights."""
    (source,) = [found for found in load(rows) if found.topic == TOPIC]
    values: Any = pa.concat_tables(source.blocks()).column("value").combine_chunks().cast(pa.binary())
    written = version("json", source.schema())
    table = pa.Table.from_batches([typed(written, values, strict=True)])
    avro = version("avro", avro_of(written))
    results = [
        _measured("json", written, values, table, rounds),
        _measured("avro", avro, encode_table(avro, table), table, rounds),
    ]
    return {"bench": "schemas", "rows": len(values), "rounds": rounds, "results": results}


def version(format: str, definition: Any) -> Schema:  # noqa: A002
    """A topic's only version."""
    columns = compile_schema(format, definition)
    text = definition_text(format, definition)
    return Schema(version=1, seq=1, format=format, definition=text, columns=columns)  # type: ignore[arg-type]


def avro_of(schema: Schema) -> dict[str, Any]:
    """The Avro record of the same columns."""
    fields = [{"name": each.name, "type": ["null", _AVRO[each.type]]} for each in schema.columns]
    return {"type": "record", "name": "Flight", "fields": fields}


def _measured(name: str, schema: Schema, values: pa.Array[Any], table: pa.Table, rounds: int) -> dict[str, Any]:
    items: list[bytes | None] = values.to_pylist()
    made = _batch(values)

    def plain() -> None:
        guard.values_of(made)

    calls: dict[str, Callable[[], object]] = {
        "check": lambda: check(schema, items),
        "plain": plain,
        "guard": lambda: guard.check([schema], made, "", False),
        "typed": lambda: typed(schema, values),
        "encode_table": lambda: encode_table(schema, table),
    }
    found: dict[str, Any] = {"format": name, "bytes_per_value": round(values.nbytes / len(values))}
    for call in calls:
        found[f"{call}_rows_s"] = 0
    for _ in range(rounds):
        for call, work in calls.items():
            rows = made.count if call in ("plain", "guard") else len(values)
            found[f"{call}_rows_s"] = max(found[f"{call}_rows_s"], round(rows / _seconds(work)))
    return found


def _batch(values: pa.Array[Any]) -> Batch:
    most = values.slice(0, 50_000)  # a batch has a bound
    return batch.encode_arrow(pa.table({"value": most}), default_timestamp=0)


def _seconds(work: Callable[[], object]) -> float:
    """CPU time, which other processes on the machine do not lengthen as they do the clock on the wall."""
    start = os.times()
    work()
    end = os.times()
    return max(end.user + end.system - start.user - start.system, _TICK_S)
