"""How answers look: JSON for programs, tables for people, progress on standard error if somebody watches."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from headwater.types import Progress
from headwater.words import amount, size

__all__ = [
    "amount",
    "console",
    "moment",
    "number",
    "phases",
    "print_json",
    "print_table",
    "progress",
    "size",
]

if TYPE_CHECKING:
    from rich.console import Console

Advance = Callable[[int, int], None]  # bytes, records
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def print_json(document: object) -> None:
    """One JSON document on a line of its own."""
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))


def console() -> Console:
    """For people. Without a terminal lines are as long as they need to be."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, left: Sequence[str] = ()) -> None:
    """A table; columns are right-aligned but for the first and those in ``left``."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for at, name in enumerate(columns):
        table.add_column(name, justify="left" if at == 0 or name in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell if isinstance(cell, str) else number(cell)) for cell in row))
    console().print(table)


def number(value: object) -> str:
    """Digits in groups of three."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def moment(milliseconds: int) -> str:
    """A timestamp in ms as ISO 8601 in UTC; as it is if no calendar reaches that far."""
    try:
        return (_EPOCH + timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        return f"{milliseconds} ms"


@contextlib.contextmanager
def progress(label: str, total: int | None, unit: str = "records", *, quiet: bool = False) -> Iterator[Advance]:
    """A bar of bytes with ``unit`` per second on standard error; nothing if that is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda nbytes, records: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TextColumn("{task.fields[count]:,} " + unit),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, count=0, rate=0.0)
        done = 0

        def advance(nbytes: int, records: int) -> None:
            nonlocal done
            done += records
            elapsed_s = bar.tasks[0].elapsed or 0.0
            bar.update(task, advance=nbytes, count=done, rate=done / elapsed_s if elapsed_s else 0.0)

        yield advance


@contextlib.contextmanager
def phases(prefix: str, *, quiet: bool = False) -> Iterator[Progress]:
    """A bar for each phase of some long work, named after it, on standard error; nothing if that is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda phase, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    tasks: dict[str, Any] = {}
    with Progress(console=Console(stderr=True), transient=True) as bar:

        def show(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(f"{prefix} {phase}", total=total)
            bar.update(tasks[phase], completed=done, total=total)

        yield show
