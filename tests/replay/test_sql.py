from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.errors import Corrupt, HeadwaterError, InvalidRequest, NotFound
from headwater.log.namespace import Namespace
from headwater.log.operations import Column, SetSchema
from headwater.replay import Cut, as_of, session
from headwater.replay.extras import ExtraMissing
from headwater.store.base import Blob
from headwater.store.local import LocalStore
from headwater.store.memory import MemoryStore
from headwater.store.prefixed import PrefixedStore
from tests.replay.archives import archive_all, fill

pytest.importorskip("duckdb")


DEFINITION = '{"type":"object","properties":{"delay":{"type":"integer"},"carrier":{"type":"string"}}}'


class Watched(PrefixedStore):
    """The same store, and the keys of all objects that were read."""

    read: ClassVar[list[str]] = []

    def __init__(self, inner: Any) -> None:
        super().__init__(inner, "root")

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        self.read.append(key)
        return await super().get(key, start=start, end=end)


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Cut]]:
    """``cut("memory")``: two partitions of ``t`` with ten files of ten records, and five records more."""
    cuts = []

    def opened(url: str) -> Cut:
        inner = MemoryStore() if url == "memory" else LocalStore(url, fsync=False)
        store = Watched(inner)
        monkeypatch.setattr(session, "open_store", lambda url: store)
        asyncio.run(_filled(store))
        cuts.append(as_of("ignored", _newest(store)))
        Watched.read.clear()
        return cuts[-1]

    yield opened
    for each in cuts:
        each.close()


def _newest(store: Watched) -> int:
    async def look() -> int:
        async with await Namespace.open(store) as log:
            return log.state.seq

    return asyncio.run(look())


async def _filled(store: Watched) -> None:
    async with await Namespace.open(store) as log:
        await log.create_topic("t", 2)
        await log.create_topic("with.dots-and-dashes")
        await log.create_topic("unread", 1)
        await fill(log, "unread", 0, 10)
        await archive_all(log, "unread", 0, 0, 10)
        for partition in (0, 1):
            await fill(log, "t", partition, 105)
        columns = [Column("delay", "int64"), Column("carrier", "string")]
        op = SetSchema(topic=log.topic("t").id, version=1, format="json", definition=DEFINITION, columns=columns)
        await log.writer.commit(ops=[op])
        for partition in (0, 1):
            for base in range(0, 100, 10):
                typed = {
                    "delay": pa.array(range(base, base + 10), pa.int64()),
                    "carrier": pa.array(["UA", "AA"] * 5),
                }
                await archive_all(log, "t", partition, base, base + 10, typed)


def files_read() -> int:
    return len({key for key in Watched.read if "/archive/" in key or key.startswith("archive/")})


def rows(cut: Cut, statement: str) -> list[dict[str, Any]]:
    return cut.sql(statement).read_all().to_pylist()


def test_topics_are_tables_with_typed_columns(cut: Callable[[str], Cut]) -> None:
    found = rows(
        cut("memory"),
        "SELECT partition, avg(delay) AS late, count(*) AS n FROM t WHERE delay >= 90 GROUP BY 1 ORDER BY 1",
    )
    assert [{"partition": p, "late": 94.5, "n": 10} for p in (0, 1)] == found


def test_archive_and_hot_tail_are_one_table(cut: Callable[[str], Cut]) -> None:
    here = cut("memory")
    assert [{"n": 210, "top": 104}] == rows(here, 'SELECT count(*) AS n, max("offset") AS top FROM t')
    assert [{"v": "v104"}] == rows(here, 'SELECT decode(value) AS v FROM t WHERE partition = 1 AND "offset" = 104')


@pytest.mark.parametrize(
    ("condition", "files"),
    [
        ('partition = 1 AND "offset" BETWEEN 31 AND 38', 1),
        ('"offset" >= 95', 2),
        ("partition = 0", 10),
        ("timestamp >= '1970-01-01 00:00:42' AND timestamp < '1970-01-01 00:00:55'", 4),
        ("timestamp >= TIMESTAMPTZ '1970-01-01 00:00:42Z' AND partition = 0", 6),
        ("timestamp > '2000-01-01'", 0),
        ('"offset" = 3 OR "offset" = 77', 4),
    ],
)
def test_only_files_in_which_the_conditions_can_hold_are_read(
    cut: Callable[[str], Cut], condition: str, files: int
) -> None:
    here = cut("memory")
    rows(here, f"SELECT count(*) FROM t WHERE {condition}")
    assert files == files_read()


def test_a_topic_that_is_not_named_is_not_read(cut: Callable[[str], Cut]) -> None:
    here = cut("memory")
    rows(here, "WITH u AS (SELECT * FROM t) SELECT count(value) FROM u")
    assert not [key for key in Watched.read if "topic=unread" in key]
    assert 20 == files_read()


def test_names_with_dots_in_quotes_and_in_any_case(cut: Callable[[str], Cut]) -> None:
    here = cut("memory")
    assert [{"n": 0}] == rows(here, 'SELECT count(*) AS n FROM "with.dots-and-dashes"')
    assert [{"n": 10}] == rows(here, "SELECT count(*) AS n FROM UNREAD")
    assert ["t", "unread", "with.dots-and-dashes"] == [row["name"] for row in rows(here, "SHOW TABLES")]


def test_topics_join(cut: Callable[[str], Cut]) -> None:
    statement = 'SELECT count(*) AS n FROM t JOIN unread USING ("offset") WHERE t.partition = 0'
    assert [{"n": 10}] == rows(cut("memory"), statement)


def test_times_without_a_zone_are_utc(cut: Callable[[str], Cut], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    chosen = "SELECT min(\"offset\") AS low, strftime(min(timestamp), '%H:%M:%S') AS at FROM t"
    statement = f"{chosen} WHERE timestamp >= '1970-01-01 00:01:40'"
    assert [{"low": 100, "at": "00:01:40"}] == rows(cut("memory"), statement)


@pytest.mark.parametrize(
    ("statement", "kind", "said"),
    [
        ("SELECT * FROM nope", NotFound, 'Topics are tables; there are: t, unread, "with.dots-and-dashes"'),
        ("SELECT nope FROM t", InvalidRequest, '"nope" not found'),
        ("SELEC 1", InvalidRequest, "syntax error"),
        ("SELECT offset FROM t", InvalidRequest, 'Write the column as "offset"'),
        ("SELECT * FROM t WHERE offset > 5", InvalidRequest, 'Write the column as "offset"'),
        ("SELECT 1; SELECT 2", InvalidRequest, "one SQL statement"),
        ("", InvalidRequest, "one SQL statement"),
        ("SELECT decode(value)::INT FROM t", InvalidRequest, "Could not convert"),
        ("SELECT * FROM read_parquet('/nowhere/*.parquet')", HeadwaterError, "nowhere"),
    ],
)
def test_what_is_wrong_is_said(
    cut: Callable[[str], Cut], statement: str, kind: type[HeadwaterError], said: str
) -> None:
    with pytest.raises(kind) as caught:
        rows(cut("memory"), statement)
    assert said in str(caught.value)


def test_topics_that_differ_in_capitals_alone_are_refused(cut: Callable[[str], Cut]) -> None:
    here = cut("memory")

    async def twin() -> None:
        async with await Namespace.open(here._session.namespace.bucket) as log:
            await log.create_topic("T")

    asyncio.run(twin())
    with pytest.raises(InvalidRequest, match="cannot tell the topics T, t apart"):
        rows(as_of("ignored", _newest(here._session.namespace.bucket)), "SELECT * FROM t")  # type: ignore[arg-type]


def test_a_missing_file_is_named(cut: Callable[[str], Cut], tmp_path: Any) -> None:
    here = cut(str(tmp_path))
    gone = next(tmp_path.glob("root/default/archive/topic=t/partition=0/*.parquet"))
    gone.unlink()
    with pytest.raises(NotFound, match="headwater verify"):
        rows(here, "SELECT count(value) FROM t")
    assert [{"n": 105}] == rows(here, "SELECT count(value) AS n FROM t WHERE partition = 1")


def _flipped(data: bytes) -> bytes:
    """One bit differs in the page of values of a file of ten records."""
    at = pq.read_metadata(io.BytesIO(data)).row_group(0).column(3).data_page_offset + 60
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:-4] + b"XXXX", _flipped])
def test_a_damaged_file_is_corrupt(cut: Callable[[str], Cut], tmp_path: Any, damage: Callable[[bytes], bytes]) -> None:
    here = cut(str(tmp_path))
    broken = next(tmp_path.glob("root/default/archive/topic=t/partition=0/*.parquet"))
    broken.write_bytes(damage(broken.read_bytes()))
    with pytest.raises(Corrupt, match="headwater verify"):
        rows(here, "SELECT count(value) FROM t")


def test_a_statement_that_gives_no_rows(cut: Callable[[str], Cut], tmp_path: Any) -> None:
    target = tmp_path / "out.parquet"
    rows(cut("memory"), f"COPY (SELECT \"offset\" FROM t WHERE partition = 0) TO '{target}'")
    assert target.exists()


def test_without_duckdb_the_error_says_what_to_install(
    cut: Callable[[str], Cut], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = cut("memory")

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("headwater.replay.extras.importlib.import_module", missing)
    with pytest.raises(ExtraMissing) as caught:
        here.sql("SELECT 1")
    assert "pip install 'headwater[sql]'" in caught.value.what_now
