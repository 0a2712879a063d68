from __future__ import annotations

import asyncio
import errno
import fcntl
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.parquet as pq
import pytest

from headwater.errors import Unavailable
from headwater.log.namespace import Namespace
from headwater.replay import export
from headwater.store.local import LocalStore
from tests.cli.conftest import Headwater
from tests.replay.archives import archive_all, fill


async def _lake(store: Path) -> None:
    """Topic ``t``: 60 of 100 records of partition 0 are archived, and 20 of partition 1 are not."""
    async with await Namespace.open(LocalStore(store)) as log:
        await log.create_topic("t", 2)
        await fill(log, "t", 0, 100)
        await fill(log, "t", 1, 20)
        await archive_all(log, "t", 0, 0, 60)


@pytest.fixture
def lake(hw: Headwater, store: Path) -> Headwater:
    asyncio.run(_lake(store))
    return hw


def contents(hw: Headwater, topic: str) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for line in hw("consume", topic, "--json").lines:
        found.setdefault(line["partition"], []).append(line["value"])
    return found


WHOLE = {0: [f"v{i}" for i in range(100)], 1: [f"v{i}" for i in range(20)]}


def test_jsonl_on_standard_output_is_what_consume_prints(lake: Headwater) -> None:
    ran = lake("replay", "t", "--to", "jsonl")
    assert (0, lake("consume", "t", "--json").lines) == (ran.code, ran.lines)


def test_a_file_of_each_form_has_every_record(lake: Headwater, tmp_path: Path) -> None:
    offsets = [*range(100), *range(20)]
    for form in ("parquet", "arrow", "jsonl", "csv"):
        path = tmp_path / "out" / f"t.{form}"
        ran = lake("replay", "t", "--to", form, "-o", path)
        assert (0, f"Wrote 120 records of t to {path}, as of commit 4.\n") == (ran.code, ran.text)
        data = path.read_bytes()
        if form == "parquet":
            table = pq.read_table(io.BytesIO(data))
        elif form == "arrow":
            table = pa.ipc.open_file(data).read_all()
        elif form == "csv":
            table = pv.read_csv(io.BytesIO(data))
        else:
            table = pa.Table.from_pylist([json.loads(line) for line in data.splitlines()])
        assert offsets == table.column("offset").to_pylist()
        assert [f"v{i}" for i in offsets] == [
            v.decode() if isinstance(v, bytes) else v for v in table["value"].to_pylist()
        ]
        assert [path.name] == [each.name for each in path.parent.iterdir()]
        path.unlink()


def test_row_groups_are_gathered_from_small_batches(lake: Headwater, tmp_path: Path) -> None:
    for _ in range(5):
        lake("produce", "t", "--partition", "1", stdin=b"more\nrecords\n")
    lake("replay", "t", "--to", "parquet", "-o", tmp_path / "t.parquet")
    found = pq.ParquetFile(tmp_path / "t.parquet").metadata
    assert (1, 130) == (found.num_row_groups, found.num_rows)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-p", "1"], range(20)),
        (["--since", "1970-01-01T00:00:50Z"], range(50, 100)),
        (["--since", "@50000", "--until", "1970-01-01T00:01:05"], range(50, 65)),
        (["-p", "0", "--from-offset", "58", "--to-offset", "62"], range(58, 62)),
        (["-p", "0", "--where", "offset >= 58 and offset < 62"], range(58, 62)),
        (["--where", 'value in ("v59", "v60")'], [59, 60]),
        (["--where", 'timestamp > "1970-01-01T00:01:37.5Z"'], [98, 99]),
    ],
)
def test_ranges_and_conditions_choose_records(lake: Headwater, words: list[str], expected: Any) -> None:
    assert list(expected) == [line["offset"] for line in lake("replay", "t", "--to", "jsonl", *words).lines]


def test_columns_are_those_that_were_asked_for(lake: Headwater) -> None:
    ran = lake("replay", "t", "-p", "1", "--to", "csv", "--columns", "value, offset", "--to-offset", "2")
    assert ["value,offset", "v0,0", "v1,1"] == ran.text.replace('"', "").splitlines()


def test_merged_by_time(lake: Headwater) -> None:
    times = [line["timestamp"] for line in lake("replay", "t", "--to", "jsonl", "--order", "timestamp").lines]
    assert (120, sorted(times)) == (len(times), times)


def test_as_of_an_earlier_commit(lake: Headwater) -> None:
    assert 100 == len(lake("replay", "t", "--to", "jsonl", "--as-of", "2").lines)
    assert 1 == lake("replay", "t", "--to", "jsonl", "--as-of", "99").code


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope", "--to", "csv"], "There is no topic 'nope'"),
        (["t", "--to", "csv", "--columns", "delay"], "no column 'delay'"),
        (["t", "--to", "csv", "--where", "delay > 1"], "no column 'delay'; there are partition, offset"),
        (["t", "--to", "csv", "--where", "offset >"], "cannot be read"),
        (["t", "--to", "csv", "-p", "7"], "7"),
        (["t", "--to", "topic:t"], "into itself"),
        (["t", "--to", "csv", "-p", "0", "--from-offset", "101"], "101"),
    ],
)
def test_bad_requests_say_what_is_wrong(lake: Headwater, words: list[str], said: str) -> None:
    ran = lake("replay", *words)
    assert 1 == ran.code
    assert said in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ["--to", "xml"],
        ["--to", "topic:"],
        ["--to", "csv", "--since", "yesterday"],
        ["--to", "csv", "--since", "2013"],
        ["--to", "csv", "--since", "@1", "--from-offset", "1"],
        ["--to", "topic:u", "--columns", "value"],
        [],
    ],
)
def test_a_wrong_command_line_is_refused(lake: Headwater, words: list[str]) -> None:
    assert 2 == lake("replay", "t", *words).code


# -- interruptions -------------------------------------------------------------------------------------------


def failing_after(monkeypatch: pytest.MonkeyPatch, batches: int, error: BaseException) -> None:
    """Let the writer of exports fail behind so many batches, once."""
    left = [batches]
    real = export.Writer.write

    def write(self: export.Writer, batch: pa.RecordBatch) -> None:
        if left[0] == 0:
            left[0] = -1
            raise error
        left[0] -= 1
        real(self, batch)

    monkeypatch.setattr(export.Writer, "write", write)


def test_an_interrupted_file_is_not_there_and_the_next_run_makes_it(
    lake: Headwater, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"older")
    failing_after(monkeypatch, 1, KeyboardInterrupt())
    ran = lake("replay", "t", "--to", "parquet", "-o", path)
    assert (130, b"older") == (ran.code, path.read_bytes())
    assert "was not written; the same command begins it anew" in ran.err
    assert not list(tmp_path.glob("*.partial"))
    assert 0 == lake("replay", "t", "--to", "parquet", "-o", path).code
    assert 120 == pq.read_table(path).num_rows


def test_a_full_disk_is_said_and_leaves_what_was_there(
    lake: Headwater, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_after(monkeypatch, 1, OSError(errno.ENOSPC, "No space left on device"))
    ran = lake("replay", "t", "--to", "csv", "-o", tmp_path / "t.csv", "--json")
    assert (1, "StorageFull") == (ran.code, json.loads(ran.err.splitlines()[-1])["error"])
    assert [] == list(tmp_path.glob("t.csv*"))


def test_two_exports_to_one_file_do_not_mix(lake: Headwater, tmp_path: Path) -> None:
    with (tmp_path / "t.csv.partial").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        ran = lake("replay", "t", "--to", "csv", "-o", tmp_path / "t.csv")
    assert (1, True) == (ran.code, "Another export is writing" in ran.err)
    assert 0 == lake("replay", "t", "--to", "csv", "-o", tmp_path / "t.csv").code


def test_a_folder_is_finished_by_the_next_run_as_of_the_first_ones_commit(
    lake: Headwater, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "EXPORT_PART_OFFSETS", 30)
    folder = tmp_path / "parts"
    failing_after(monkeypatch, 2, KeyboardInterrupt())
    ran = lake("replay", "t", "--to", "parquet", "-o", f"{folder}/")
    assert (130, True) == (ran.code, "interrupted with 2 parts complete" in ran.err)
    lake("produce", "t", "--partition", "1", stdin=b"later\n")
    first = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    ran = lake("replay", "t", "--to", "parquet", "-o", folder)
    assert (0, True) == (ran.code, "Wrote 120 records" in ran.text and "An interrupted run was finished." in ran.text)
    assert first.items() <= {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}.items()
    found = pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))])
    assert [*range(100), *range(20)] == found.column("offset").to_pylist()
    assert [f"t-00000-{i:020d}.parquet" for i in (0, 30, 60, 90)] + ["t-00001-00000000000000000000.parquet"] == sorted(
        path.name for path in folder.glob("*.parquet")
    )


def test_a_folder_of_another_export_is_left_alone(lake: Headwater, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    assert 0 == lake("replay", "t", "--to", "csv", "-o", f"{folder}/").code
    ran = lake("replay", "t", "--to", "jsonl", "-p", "1", "-o", folder)
    assert (1, True) == (ran.code, "another partitions, to" in ran.err)
    other = tmp_path / "mine"
    other.mkdir()
    (other / "file").write_text("x")
    assert "is not empty" in lake("replay", "t", "--to", "csv", "-o", other).err


def test_parts_without_records_have_no_file(lake: Headwater, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "EXPORT_PART_OFFSETS", 10)
    folder = tmp_path / "parts"
    ran = lake("replay", "t", "--to", "jsonl", "--where", "offset == 55", "-o", f"{folder}/", "--json")
    assert (1, 1) == (ran.json["records"], ran.json["files"])
    assert ["t-00000-00000000000000000050.jsonl"] == [path.name for path in folder.glob("*.jsonl")]


@pytest.mark.parametrize(("damage", "error"), [("missing", "Corrupt"), ("cut", "Corrupt")])
def test_an_archive_file_that_cannot_be_read_is_named_and_the_next_run_finishes(
    lake: Headwater, store: Path, tmp_path: Path, damage: str, error: str
) -> None:
    path = next(store.glob("default/archive/topic=t/partition=0/*.parquet"))
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[:100])
    ran = lake("replay", "t", "--to", "topic:u", "--json")
    said = json.loads(ran.err.splitlines()[-1])
    assert (1, error, True) == (ran.code, said["error"], path.name in said["message"])
    assert 1 == lake("replay", "t", "--to", "parquet", "-o", tmp_path / "t.parquet").code
    assert not list(tmp_path.glob("t.parquet*"))
    path.write_bytes(data)
    assert 0 == lake("replay", "t", "--to", "topic:u").code
    assert WHOLE == contents(lake, "u")


# -- into another topic --------------------------------------------------------------------------------------


def test_a_topic_gets_every_record_once(lake: Headwater) -> None:
    ran = lake("replay", "t", "--to", "topic:u")
    assert (0, True) == (ran.code, "Appended 120 records of t to u" in ran.text)
    assert WHOLE == contents(lake, "u")
    again = lake("replay", "t", "--to", "topic:u", "--json").json
    assert (0, 120) == (again["records"], again["before"])
    lake("produce", "t", "--partition", "1", stdin=b"later\n")
    assert 1 == lake("replay", "t", "--to", "topic:u", "--json").json["records"]
    assert {**WHOLE, 1: [*WHOLE[1], "later"]} == contents(lake, "u")


def test_a_topic_with_other_partitions_keeps_keys_together(lake: Headwater) -> None:
    lake("topic", "create", "u", "--partitions", "3")
    assert 0 == lake("replay", "t", "-p", "0", "--to", "topic:u").code
    lines = lake("consume", "u", "--json").lines
    assert WHOLE[0] == sorted((line["value"] for line in lines), key=lambda value: int(value[1:]))
    places = {(line["key"], line["partition"]) for line in lines}
    assert 3 == len(places)
    assert [line["timestamp"] for line in lines] == [1_000 * int(line["value"][1:]) for line in lines]


@pytest.mark.parametrize("crash", [0, 1, 2, 3])
def test_an_interrupted_copy_goes_on_where_it_stopped(
    lake: Headwater, monkeypatch: pytest.MonkeyPatch, crash: int
) -> None:
    from headwater.log.producer import Transaction
    from headwater.replay import copying

    monkeypatch.setattr(copying, "COPY_BYTES", 500)
    real = Transaction.commit
    count = [0]

    async def commit(self: Transaction) -> Any:
        count[0] += 1
        if count[0] == crash + 1:
            if crash % 2:
                await real(self)  # it took effect, and nobody heard of it
            raise Unavailable("The store has gone.")
        return await real(self)

    monkeypatch.setattr(Transaction, "commit", commit)
    ran = lake("replay", "t", "--to", "topic:u")
    assert (1, True) == (ran.code, "the same command goes on" in ran.err)
    assert 0 == lake("replay", "t", "--to", "topic:u").code
    assert WHOLE == contents(lake, "u")


def test_another_plan_is_another_copy(lake: Headwater) -> None:
    lake("replay", "t", "-p", "1", "--to", "topic:u")
    ran = lake("replay", "t", "-p", "1", "--where", "offset > 17", "--to", "topic:u", "--json").json
    assert (2, 0) == (ran["records"], ran["before"])
    again = lake("replay", "t", "-p", "1", "--where", "offset > 17", "--to", "topic:u", "--json").json
    assert (0, 20) == (again["records"], again["before"])
