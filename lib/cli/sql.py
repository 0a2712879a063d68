"""``headwater sql``: one SQL statement over topics."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.moments import MomentType
from headwater.cli.settings import Command, Settings, pass_settings

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_SHOWN_MAX = 1_000  # of a table for people; files and JSON have all
CELL_MAX = 100  # characters


@click.command(cls=Command)
@click.argument("statement")
@click.option("--as-of", type=MomentType(), metavar="COMMIT|TIME", help="As everything was then, every table alike.")
@click.option(
    "--format", "-f", "form", type=click.Choice(["table", "json", "csv", "arrow"]), help="Default: table; --json: json."
)
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Instead of standard output.")
@pass_settings
def sql(settings: Settings, /, statement: str, as_of: Any, form: str | None, output: Path | None) -> None:
    r"""Answer a SQL STATEMENT by DuckDB; topics are tables.

    Columns: partition, "offset" (in double quotes), timestamp, key, value, headers, and the typed ones of a topic with
    a schema. Conditions on partition, "offset" and timestamp decide which files of the archive are opened. Times
    without a zone are UTC. `SHOW TABLES` lists the topics; names with dots or dashes go in double quotes.

    \b
    headwater sql "SELECT carrier, avg(dep_delay) FROM flights GROUP BY 1"        with a schema
    headwater sql "SELECT decode(value) ->> '$.carrier', count(*) FROM raw GROUP BY 1"   without: JSON in value
    headwater sql "SELECT count(*) FROM raw WHERE timestamp >= '2013-07-04'"

    json: an object for each row, a line each. csv: with a header. arrow: an IPC stream.
    """
    from headwater.replay import as_of as cut_of

    form = form or ("json" if settings.json else "table")
    cut = cut_of(settings.store, as_of, namespace=settings.namespace)
    try:
        reader = cut.sql(statement)
        if form == "table":
            _show(reader)
        else:
            _write(reader, form, output)
    finally:
        cut.close()


def _write(reader: pa.RecordBatchReader, form: str, output: Path | None) -> None:
    from headwater.replay.export import Writer, written

    if output is not None:
        with written(output) as sink, Writer(form, sink, reader.schema) as writer:
            for batch in reader:
                writer.write(batch)
    else:
        with Writer(form, sys.stdout.buffer, reader.schema) as writer:
            for batch in reader:
                writer.write(batch)
        sys.stdout.buffer.flush()


def _show(reader: pa.RecordBatchReader) -> None:
    import pyarrow as pa

    from headwater.cli.output import amount, print_table

    shown: list[list[object]] = []
    count = 0
    for batch in reader:
        if (room := ROWS_SHOWN_MAX - len(shown)) > 0:
            columns = [[_cell(value) for value in column.to_pylist()] for column in batch.slice(0, room).columns]
            shown += [list(row) for row in zip(*columns, strict=True)]
        count += batch.num_rows
    if not reader.schema.names:
        return
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    left = [field.name for field in reader.schema if not any(check(field.type) for check in numeric)]
    print_table(reader.schema.names, shown, left=left)
    if count > len(shown):
        click.echo(f"… and {amount(count - len(shown), 'row')} more; --format json, csv or arrow gives all.")


def _cell(value: object) -> str:
    """A value for people."""
    from datetime import datetime

    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, float):
        value = f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.2f}"
    text = "null" if value is None else str(value)
    return text if len(text) <= CELL_MAX else f"{text[:CELL_MAX]}…"
