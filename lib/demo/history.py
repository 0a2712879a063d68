"""What an archive is good for, shown on the flights: SQL, a replay with Arrow, and a branch, all held to the source."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from headwater.clock import stopwatch_s
from headwater.demo.check import Check, Mismatch
from headwater.demo.source import Source
from headwater.errors import NotFound
from headwater.log.batch import encode_arrow
from headwater.log.namespace import Namespace
from headwater.replay import Cut, as_of, replay_batches
from headwater.store.base import ObjectStore
from headwater.upkeep.archiver import ArchiveReport, archive
from headwater.upkeep.branch import branch, drop_branch

QUERY: Final = (
    "SELECT carrier, count(*) AS flights, count(dep_delay) AS departed, sum(dep_delay)::BIGINT AS minutes "
    "FROM {table} GROUP BY carrier ORDER BY carrier"
)
Tell: TypeAlias = Callable[[str, int], None]  # a step, and whether it is done
BRANCH: Final = "demo-branch"  # the end of its name


@dataclass(slots=True, kw_only=True)
class History:
    """What was done with the archive, and how long it took. A step that this store does not allow has no time."""

    report: ArchiveReport = field(default_factory=ArchiveReport)
    archive_s: float = 0.0
    files: int = 0
    file_bytes: int = 0
    delay_min: float = 0.0  # the average departure delay
    sql_s: float | None = None
    direct_s: float | None = None
    replay_s: float = 0.0
    replay_records: int = 0
    branch_s: float = 0.0
    branch: str = ""
    commit: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


async def archived(log: Namespace, history: History) -> None:
    """Archive what is due: the demonstration's topics that say so, as ``headwater maintain`` does."""
    started = stopwatch_s()
    history.report = await archive(log)
    history.archive_s = stopwatch_s() - started


async def shown(log: Namespace, store: ObjectStore, source: Source, history: History, tell: Tell) -> None:
    """Every step, one after the other. Raises ``Mismatch`` if one gives anything but the source's rows."""
    if not store.url.startswith("memory:"):
        tell("sql", 0)
        await asyncio.to_thread(_query, store.url, log.name, source, history)
        tell("sql", 1)
    tell("replay", 0)
    await _replay(log, source, history)
    tell("replay", 1)
    tell("branch", 0)
    await _branch(log, source, history)
    tell("branch", 1)


# -- SQL ----------------------------------------------------------------------------------------------------


def _query(url: str, namespace: str, source: Source, history: History) -> None:
    """The same statement twice: over the topic, and by DuckDB alone over the files of the directory."""
    import duckdb

    cut = as_of(url, history.commit, namespace=namespace)
    try:
        expected = _expected(source)
        started = stopwatch_s()
        _same(source, "SQL over the topic", cut.sql(QUERY.format(table=source.topic)).read_all(), expected)
        history.sql_s = stopwatch_s() - started
        files = cut.files(source.topic)
        history.files, history.file_bytes = len(files), sum(file.bytes for file in files)
        if url.startswith("file://") and files:
            started = stopwatch_s()
            table = f"read_parquet({_paths(cut, source.topic)}, hive_partitioning = true)"
            answer: Any = duckdb.sql(QUERY.format(table=table))
            found = answer.to_arrow_table()
            _same(source, "DuckDB over the files", found, expected)
            history.direct_s = stopwatch_s() - started
    finally:
        cut.close()
    departed = pc.sum(expected.column("departed")).as_py()
    history.delay_min = pc.sum(expected.column("minutes")).as_py() / departed if departed else 0.0


def _paths(cut: Cut, topic: str) -> str:
    """What DuckDB is to read: the folder, if all of its files are the log's, else those that are."""
    named = sorted(unquote(file.url.removeprefix("file://")) for file in cut.files(topic))
    folder = Path(named[0]).parent.parent
    pattern = f"{folder}/*/*.parquet"
    if named == sorted(map(str, folder.glob("*/*.parquet"))) and not set("[]*?") & set(str(folder)):
        return _quoted(pattern)
    return f"[{', '.join(map(_quoted, named))}]"  # files that were replaced wait there for their collection


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _expected(source: Source) -> pa.Table:
    table = pa.table(
        {"carrier": source.table.column("carrier"), "minutes": source.table.column("dep_delay").cast(pa.int64())}
    )
    found = table.group_by("carrier").aggregate([("carrier", "count"), ("minutes", "count"), ("minutes", "sum")])
    names = {"carrier": "carrier", "carrier_count": "flights", "minutes_count": "departed", "minutes_sum": "minutes"}
    return found.select(list(names)).rename_columns(list(names.values())).sort_by("carrier")


def _same(source: Source, what: str, found: pa.Table, expected: pa.Table) -> None:
    if found.to_pylist() != expected.to_pylist():
        raise Mismatch(f"Topic {source.topic!r}: {what} gives other sums than the source.")


# -- replay -------------------------------------------------------------------------------------------------


async def _replay(log: Namespace, source: Source, history: History) -> None:
    check = await asyncio.to_thread(Check, source)
    started = stopwatch_s()
    columns = ["partition", "offset", "timestamp", "key", "value"]
    async for batch in replay_batches(log, source.topic, columns=columns):
        if batch.num_rows:
            check.feed(batch.column("partition")[0].as_py(), batch)
    check.finish()
    history.replay_s = stopwatch_s() - started - check.spent_s
    history.replay_records = check.seen


# -- branch -------------------------------------------------------------------------------------------------


async def _branch(log: Namespace, source: Source, history: History) -> None:
    """Branch the log, add a record to the branch, and see that it is there and only there; then drop the branch."""
    name = f"{log.name[: 63 - len(BRANCH) - 1]}-{BRANCH}"
    await _drop(log, name)  # of a run that was interrupted
    started = stopwatch_s()
    made = await branch(log, name)
    history.branch_s = stopwatch_s() - started
    history.branch = made.namespace
    async with await Namespace.open(log.bucket, name) as copy:
        before = await _count(copy, source)
        row = source.records(source.table.slice(0, 1), source.times.slice(0, 1))
        await copy.append(source.topic, 0, encode_arrow(row))
        counts = (before, await _count(copy, source), await _count(log, source))
    await _drop(log, name)
    if counts != (len(source), len(source) + 1, len(source)):
        raise Mismatch(f"The branch {name!r} had {counts[0]} and then {counts[1]} records, its origin {counts[2]}.")


async def _count(log: Namespace, source: Source) -> int:
    return sum([batch.num_rows async for batch in replay_batches(log, source.topic, columns=["offset"])])


async def _drop(log: Namespace, name: str) -> None:
    try:
        await drop_branch(log, name)
    except NotFound:
        return
