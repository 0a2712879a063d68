from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headwater.errors import Conflict, Corrupt, Indeterminate, InvalidRequest, NotFound, Unavailable
from headwater.log.namespace import Namespace
from headwater.replay import iceberg_table
from headwater.replay.iceberg import Synced, Target, sync
from headwater.replay.iceberg_expiry import expire
from headwater.store.local import LocalStore
from headwater.store.memory import MemoryStore
from tests.replay.archives import archive_all, fill, put_file, rows, swap

pytest.importorskip("pyiceberg")

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitStateUnknownException

ints = pa.int32()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


async def opened(folder: Path, name: str = "lake") -> Namespace:
    return await Namespace.open(LocalStore(folder, fsync=False), name)


async def two_partitions(folder: Path) -> Namespace:
    log = await opened(folder)
    await log.create_topic("t", 2)
    await fill(log, "t", 0, 100)
    await fill(log, "t", 1, 50)
    await archive_all(log, "t", 0, 0, 60)
    await archive_all(log, "t", 1, 0, 50)
    return log


def table_of(folder: Path, name: str = "lake.t") -> Any:
    from pyiceberg.catalog import load_catalog

    return load_catalog("headwater", uri=f"sqlite:///{str(folder).replace('%', '%25')}/_iceberg/catalog.db").load_table(
        name
    )


def offsets(folder: Path, partition: int, **options: Any) -> list[int]:
    scan = table_of(folder).scan(row_filter=f"partition = {partition}", **options)
    found: list[int] = sorted(scan.to_arrow().column("offset").to_pylist())
    return found


def counts(done: Synced) -> tuple[int, int, int, int]:
    return done.added, done.removed, done.files, done.records


def test_a_table_has_the_records_of_the_files_where_they_lie(tmp_path: Path) -> None:
    async def main() -> None:
        async with await two_partitions(tmp_path) as log:
            done = await sync(log, "t")
            assert ((2, 0, 2, 110), 40) == (counts(done), done.unarchived)
            found = table_of(tmp_path).scan().to_arrow().sort_by([("partition", "ascending"), ("offset", "ascending")])
            assert [0] * 60 + [1] * 50 == found.column("partition").to_pylist()
            assert [*range(60), *range(50)] == found.column("offset").to_pylist()
            assert [f"v{i}".encode() for i in range(60)] == found.column("value").to_pylist()[:60]
            assert 59_000 == found.column("timestamp")[59].as_py().timestamp() * 1_000 // 1
            paths = {task.file.file_path for task in table_of(tmp_path).scan().plan_files()}
            assert all(path.startswith(f"file://{tmp_path}/lake/archive/topic=t/partition=") for path in paths)

    run(main())


def test_a_second_sync_adds_only_what_is_new(tmp_path: Path) -> None:
    async def main() -> None:
        async with await two_partitions(tmp_path) as log:
            first = await sync(log, "t")
            again = await sync(log, "t")
            assert (0, first.metadata) == (again.added, again.metadata)
            await archive_all(log, "t", 0, 60, 100)
            third = await sync(log, "t", create=False)
            assert ((1, 0, 3, 150), 0) == (counts(third), third.unarchived)
            assert list(range(100)) == offsets(tmp_path, 0)

    run(main())


def test_replaced_files_and_their_successors_change_places_in_one_snapshot(tmp_path: Path) -> None:
    async def main() -> None:
        async with await opened(tmp_path) as log:
            await log.create_topic("t")
            await fill(log, "t", 0, 100)
            old = [await archive_all(log, "t", 0, i, i + 20) for i in range(0, 100, 20)]
            await sync(log, "t")
            new = await put_file(log, "t", 0, 0, 60, rows(range(0, 60, 2)))  # compaction leaves gaps
            await swap(log, "t", 0, [new], old[:3])
            assert (1, 3, 3, 70) == counts(await sync(log, "t"))
            assert [*range(0, 60, 2), *range(60, 100)] == offsets(tmp_path, 0)
            table = table_of(tmp_path)
            before, after = [s.snapshot_id for s in table.snapshots()]
            assert list(range(100)) == sorted(table.scan(snapshot_id=before).to_arrow().column("offset").to_pylist())
            assert after == table.current_snapshot().snapshot_id

    run(main())


def test_files_below_the_log_start_leave_the_table(tmp_path: Path) -> None:
    async def main() -> None:
        async with await two_partitions(tmp_path) as log:
            await archive_all(log, "t", 0, 60, 100)
            await sync(log, "t")
            await log.trim("t", 0, 70)
            assert (0, 1, 2, 90) == counts(await sync(log, "t"))
            assert list(range(60, 100)) == offsets(tmp_path, 0)
            await log.trim("t", 0, 100)
            await log.trim("t", 1, 50)
            assert (0, 2, 0, 0) == counts(await sync(log, "t"))
            assert [] == offsets(tmp_path, 0)

    run(main())


def test_two_syncs_at_once_add_each_file_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with await two_partitions(tmp_path) as log, await opened(tmp_path) as other:
            await sync(log, "t")
            await archive_all(log, "t", 0, 60, 100)
            done = await asyncio.gather(*(sync(each, "t") for each in (log, other, log, other)))
            assert 1 == sum(each.added for each in done)
            assert list(range(100)) == offsets(tmp_path, 0)

    run(main())


def test_two_first_exports_at_once_make_one_table(tmp_path: Path) -> None:
    async def main() -> None:
        async with await two_partitions(tmp_path) as log, await opened(tmp_path) as other:
            done = await asyncio.gather(*(sync(each, "t") for each in (log, other)))
            assert 2 == sum(each.added for each in done)
            assert list(range(60)) == offsets(tmp_path, 0)

    run(main())


def test_one_that_looked_first_and_commits_last_looks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with await two_partitions(tmp_path) as log, await opened(tmp_path) as other:
            await sync(log, "t")
            await archive_all(log, "t", 0, 60, 100)
            seen = []

            async def overtaken(function: Any, *args: Any) -> Any:
                if function.__name__ == "_change" and not seen:
                    seen.append(await sync(other, "t"))
                return function(*args)

            late = await sync(log, "t", offload=overtaken)
            assert ([1], 0) == ([each.added for each in seen], late.added)
            assert list(range(100)) == offsets(tmp_path, 0)

    run(main())


@pytest.mark.parametrize("step", ["_load", "live_files", "_change"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_between_any_two_steps_adds_no_file_twice(tmp_path: Path, step: str, when: str) -> None:
    class Crash(Exception):
        pass

    async def crashing(function: Any, *args: Any) -> Any:
        if function.__name__ == step and when == "before":
            raise Crash
        answer = function(*args)
        if function.__name__ == step:
            raise Crash
        return answer

    async def main() -> None:
        async with await two_partitions(tmp_path) as log:
            with pytest.raises(Crash):
                await sync(log, "t", offload=crashing)
            await sync(log, "t")
            await archive_all(log, "t", 0, 60, 100)
            with pytest.raises(Crash):
                await sync(log, "t", offload=crashing)
            await sync(log, "t")
            assert (list(range(100)), list(range(50))) == (offsets(tmp_path, 0), offsets(tmp_path, 1))
            assert 3 == len(list(table_of(tmp_path).scan().plan_files()))

    run(main())


@pytest.mark.parametrize("lost", ["request", "answer"])
@pytest.mark.parametrize("error", [OSError("gone"), CommitStateUnknownException("gone")])
def test_a_catalog_that_falls_silent_adds_no_file_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str, error: Exception
) -> None:
    real = SqlCatalog.commit_table
    calls = [0]

    def silent(self: Any, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] > 1:
            return real(self, *args)
        if lost == "answer":
            real(self, *args)
        raise error

    async def main() -> None:
        async with await two_partitions(tmp_path) as log:
            await sync(log, "t")
            await archive_all(log, "t", 0, 60, 100)
            monkeypatch.setattr(SqlCatalog, "commit_table", silent)
            with pytest.raises(Unavailable if isinstance(error, OSError) else Indeterminate):
                await sync(log, "t")
            assert (1 if lost == "request" else 0) == (await sync(log, "t")).added
            assert list(range(100)) == offsets(tmp_path, 0)

    run(main())


def test_columns_are_added_and_widened(tmp_path: Path) -> None:
    async def main() -> None:
        async with await two_partitions(tmp_path) as log:
            await sync(log, "t")
            await archive_all(log, "t", 0, 60, 80, {"delay": pa.array(range(20), ints), "tags": pa.array([["a"]] * 20)})
            await sync(log, "t")
            await archive_all(log, "t", 0, 80, 100, {"delay": pa.array([2**40] * 20, pa.int64())})
            assert [] == (await sync(log, "t")).left_out
            found = table_of(tmp_path).scan(row_filter="partition = 0").to_arrow().sort_by("offset")
            assert [None] * 60 + [*range(20)] + [2**40] * 20 == found.column("delay").to_pylist()
            assert [["a"]] * 20 == found.column("tags").to_pylist()[60:80]
            wide = table_of(tmp_path).scan(row_filter="delay > 100").to_arrow()
            assert list(range(80, 100)) == sorted(wide.column("offset").to_pylist())

    run(main())


def test_a_column_that_iceberg_cannot_widen_is_left_out_and_the_rest_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with await two_partitions(tmp_path) as log:
            await archive_all(
                log, "t", 0, 60, 80, {"x": pa.array(range(20), ints), "big": pa.array([1] * 20, pa.uint64())}
            )
            assert ["big"] == (await sync(log, "t")).left_out
            await archive_all(log, "t", 0, 80, 100, {"x": pa.array([0.5] * 20), "big": pa.array([1] * 20, pa.uint64())})
            for _ in range(2):
                assert ["big", "x"] == (await sync(log, "t")).left_out
            found = table_of(tmp_path).scan(row_filter="partition = 0").to_arrow().sort_by("offset")
            assert [f"v{i}".encode() for i in range(100)] == found.column("value").to_pylist()
            assert {"x", "big"}.isdisjoint(found.column_names)

    run(main())


def test_a_type_that_iceberg_does_not_have_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        async with await two_partitions(tmp_path) as log:
            await archive_all(log, "t", 0, 60, 100, {"took": pa.array([1] * 40, pa.duration("ms"))})
            with pytest.raises(InvalidRequest, match=r"'took' has the type duration\[ms\]"):
                await sync(log, "t")

    run(main())


def test_an_older_state_never_takes_files_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with await two_partitions(tmp_path) as log, await opened(tmp_path) as other:
            await archive_all(log, "t", 0, 60, 100)

            async def after_another(function: Any, *args: Any) -> Any:
                if function.__name__ == "_load" and not seen:
                    seen.append(True)
                    await archive_all(log, "t", 0, 100, 130)
                    await sync(log, "t")
                return function(*args)

            seen: list[bool] = []
            await fill(log, "t", 0, 30, first=100)
            done = await sync(other, "t", offload=after_another)
            assert (0, 0, 4, 180) == counts(done)
            assert list(range(130)) == offsets(tmp_path, 0)

    run(main())


def test_a_missing_file_and_a_damaged_one_leave_the_table_as_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        async with await two_partitions(tmp_path) as log:
            await sync(log, "t")
            file = await archive_all(log, "t", 0, 60, 100)
            data = (await log.store.get(file.key)).data
            await log.store.put(file.key, data[:-300] + bytes(200) + data[-100:])
            with pytest.raises(Corrupt, match="partition=0"):
                await sync(log, "t")
            await log.store.delete([file.key])
            with pytest.raises(NotFound, match=r"missing from .*headwater verify"):
                await sync(log, "t")
            assert list(range(60)) == offsets(tmp_path, 0)
            await log.store.put(file.key, data)
            assert 1 == (await sync(log, "t")).added
            assert list(range(100)) == offsets(tmp_path, 0)

    run(main())


def test_the_table_of_another_topic_is_not_touched(tmp_path: Path) -> None:
    async def main() -> None:
        async with await two_partitions(tmp_path) as log:
            await sync(log, "t")
            await log.create_topic("u")
            with pytest.raises(Conflict, match=r"headwater\.topic = 't'"):
                await sync(log, "u", Target(table="lake.t"))
            await log.delete_topic("t")
            await log.create_topic("t")
            with pytest.raises(Conflict, match="topic-id"):
                await sync(log, "t")
            assert 0 == (await sync(log, "t", Target(table="lake.t_again"))).files

    run(main())


def test_sync_alone_makes_no_table(tmp_path: Path) -> None:
    async def main() -> None:
        async with await two_partitions(tmp_path) as log:
            with pytest.raises(NotFound, match="no such table"):
                await sync(log, "t", create=False)
            with pytest.raises(NotFound, match="no topic 'nope'"):
                await sync(log, "nope")
            with pytest.raises(InvalidRequest, match=r"namespace\.name"):
                await sync(log, "t", Target(table="flat"))

    run(main())


def test_a_store_in_memory_cannot_be_exported() -> None:
    async def main() -> None:
        async with await Namespace.open(MemoryStore("here")) as log:
            await log.create_topic("t")
            with pytest.raises(InvalidRequest, match="in memory"):
                await sync(log, "t")

    run(main())


def test_many_files_are_added_in_several_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.replay.iceberg.ICEBERG_FILES_MAX", 3)

    async def main() -> None:
        async with await opened(tmp_path) as log:
            await log.create_topic("t", 2)
            for partition in (0, 1):
                await fill(log, "t", partition, 100)
            old = [await archive_all(log, "t", 0, i, i + 10) for i in range(0, 100, 10)]
            await archive_all(log, "t", 1, 0, 100)
            assert (11, 0, 11, 200) == counts(await sync(log, "t"))
            assert 4 == len(table_of(tmp_path).snapshots())
            await swap(log, "t", 0, [await put_file(log, "t", 0, 0, 100, rows(range(100)))], old)
            assert (1, 10, 2, 200) == counts(await sync(log, "t"))
            assert 5 == len(table_of(tmp_path).snapshots())

    run(main())


def test_snapshots_behind_the_logs_history_are_dropped_with_their_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.replay.iceberg_expiry.ICEBERG_EXPIRED_MIN", 3)

    async def main() -> None:
        async with await opened(tmp_path) as log:
            await log.create_topic("t")
            await fill(log, "t", 0, 60)
            for base in range(0, 50, 10):
                await archive_all(log, "t", 0, base, base + 10)
                await sync(log, "t")
            table = table_of(tmp_path)
            assert (5, 0) == (len(table.snapshots()), expire(table, 0))
            assert 4 == expire(table, table.current_snapshot().timestamp_ms + 1)
            assert (1, 0) == (len(table_of(tmp_path).snapshots()), expire(table_of(tmp_path), 2**50))
            assert list(range(50)) == offsets(tmp_path, 0)
            assert 1 == len(list(tmp_path.glob("_iceberg/lake/t/metadata/snap-*.avro")))
            await archive_all(log, "t", 0, 50, 60)
            await sync(log, "t")
            assert list(range(60)) == offsets(tmp_path, 0)

    run(main())


def test_a_folder_with_spaces_and_a_dotted_topic(tmp_path: Path) -> None:
    async def main() -> None:
        folder = tmp_path / "a b%20c"
        async with await opened(folder, "n.1") as log:
            await log.create_topic("x.y")
            await fill(log, "x.y", 0, 10)
            await archive_all(log, "x.y", 0, 0, 10)
            assert "n_1.x_y" == (await sync(log, "x.y")).table
            assert 10 == table_of(folder, "n_1.x_y").scan().to_arrow().num_rows

    run(main())


def test_duckdb_reads_the_files_that_the_table_plans(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")

    async def main() -> None:
        async with await two_partitions(tmp_path) as log:
            await sync(log, "t")
        planned = table_of(tmp_path).scan(row_filter="partition = 1").plan_files()
        paths = [task.file.file_path.removeprefix("file://") for task in planned]
        found = duckdb.sql('SELECT count(*), max("offset") FROM read_parquet($paths)', params={"paths": paths})
        assert [(50, 49)] == found.fetchall()
        arrow = table_of(tmp_path).scan().to_duckdb("flights")
        assert [(0, 60), (1, 50)] == arrow.sql(
            "SELECT partition, count(*) FROM flights GROUP BY 1 ORDER BY 1"
        ).fetchall()

    run(main())


def test_duckdbs_own_iceberg_extension_reads_it(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    try:
        connection.execute("LOAD avro; LOAD iceberg")
    except duckdb.Error:
        pytest.skip("DuckDB's extension iceberg is not on this machine")

    async def main() -> None:
        async with await two_partitions(tmp_path) as log:
            metadata = (await sync(log, "t")).metadata.removeprefix("file://")
        query = f"SELECT partition, count(*), max(\"offset\") FROM iceberg_scan('{metadata}') GROUP BY 1 ORDER BY 1"
        assert [(0, 60, 59), (1, 50, 49)] == connection.execute(query).fetchall()

    run(main())


def test_without_pyiceberg_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from headwater.replay import extras

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    spec = iceberg_table.Spec(catalog="c", properties={}, identifier=("a", "b"), location="", marks={})
    with pytest.raises(extras.ExtraMissing, match="pyiceberg") as caught:
        iceberg_table.load(spec, create=True)
    assert "pip install 'headwater[iceberg]'" in caught.value.what_now
