"""Every mix of hot, archived, compacted and trimmed ranges, replayed in every way, beside a plain model of the log."""

from __future__ import annotations

import asyncio
import operator
import random
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.log import parquet
from headwater.log.namespace import Namespace
from headwater.replay import Commit, pieces
from headwater.store.base import ObjectStore
from headwater.store.local import LocalStore
from headwater.store.memory import MemoryStore
from headwater.types import Record
from headwater.upkeep.offload import inline
from tests.replay.helpers_replay import NAMES, Row, Twin

PARTITIONS = 2
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = st.integers(0, 400)  # few, so that there are equals, and in no order
KEYS = st.sampled_from([None, b"", b"a", b"b"])
VALUES = st.one_of(st.none(), st.binary(max_size=4))
HEADERS = st.lists(st.tuples(st.sampled_from(["h", "i"]), st.one_of(st.none(), st.just(b"x"))), max_size=2)
RECORDS = st.lists(
    st.builds(Record, value=VALUES, key=KEYS, timestamp=TIMES, headers=HEADERS.map(tuple)), min_size=1, max_size=12
)
NUMBERS = st.integers(0, PARTITIONS - 1)
OFFSETS = st.integers(0, 60)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), NUMBERS, RECORDS),
        st.tuples(st.just("append"), NUMBERS, RECORDS),
        st.tuples(st.just("archive"), NUMBERS, OFFSETS, st.lists(OFFSETS, max_size=3)),
        st.tuples(st.just("compact"), NUMBERS, st.integers(0, 3), st.integers(1, 3), st.integers(0, 2**60)),
        st.tuples(st.just("page"), NUMBERS, st.integers(1, 3)),
        st.tuples(st.just("trim"), NUMBERS, st.integers(0, 40)),
        st.tuples(st.just("snapshot")),
    ),
    min_size=3,
    max_size=14,
)
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {"<": operator.lt, ">=": operator.ge, "==": operator.eq}


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 4)


@pytest.fixture(params=["memory", "directory"])
def store(request: pytest.FixtureRequest) -> Iterator[Callable[[], ObjectStore]]:
    if request.param == "memory":
        yield MemoryStore
        return
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(10**9))
        yield lambda: LocalStore(f"{folder}/{next(numbers)}", fsync=False)


@given(steps=STEPS, data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_replay_gives_what_the_model_holds(
    store: Callable[[], ObjectStore], steps: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    asyncio.run(_compared(store(), steps, data))


async def _compared(store: ObjectStore, steps: list[tuple[Any, ...]], data: st.DataObject) -> None:
    async with await Namespace.open(store, "ns", rng=random.Random(1)) as log:
        twin = await Twin.create(log, partitions=PARTITIONS)
        for step in steps:
            await _take(twin, step)
        everything = await twin.replayed(offload=inline)
        assert twin.expected() == everything
        for _ in range(6):
            await _compare_one(twin, data)


async def _take(twin: Twin, step: tuple[Any, ...]) -> None:
    kind, *rest = step
    if kind == "append":
        await twin.append(*rest)
    elif kind == "archive":
        await twin.archive(*rest)
    elif kind == "compact":
        number, first, count, bits = rest
        await twin.compact(number, first, count, lambda offset: bool(bits >> (offset % 60) & 1))
    elif kind == "page":
        await twin.page(*rest)
    elif kind == "trim":
        await twin.trim(*rest)
    else:
        await twin.log.house.snapshot()


async def _compare_one(twin: Twin, data: st.DataObject) -> None:
    """One replay with options that are drawn, and the same rows out of the model."""
    commit = data.draw(st.one_of(st.none(), st.sampled_from(sorted(twin.past))), label="as_of")
    columns = data.draw(st.one_of(st.none(), _columns()), label="columns")
    order = data.draw(st.sampled_from(["partition", "timestamp"]), label="order")
    condition, holds = data.draw(_filters(), label="filter")
    start, after = data.draw(_starts(twin, commit), label="start")
    end, before = data.draw(_ends(twin, commit), label="end")
    partitions = data.draw(st.one_of(st.none(), st.lists(NUMBERS, unique=True)), label="partitions")

    def wanted(row: Row) -> bool:
        chosen = partitions is None or row["partition"] in partitions
        return chosen and after(row) and before(row) and holds(row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "REPLAY_PIECE_BYTES", data.draw(st.sampled_from([0, 500, 16 << 20]), label="piece"))
        found = await twin.replayed(
            partitions=partitions,
            start=start,
            end=end,
            columns=columns,
            filter=condition,
            order=order,
            as_of=commit,
            memory_bytes=data.draw(st.sampled_from([1 << 20, 256 << 20]), label="memory"),
            offload=inline,
        )
    assert twin.expected(commit=commit, wanted=wanted, order=order, columns=columns or NAMES) == found


def _columns() -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(NAMES), min_size=1, unique=True)


def _filters() -> st.SearchStrategy[tuple[Any, Callable[[Row], bool]]]:
    """None, tuples, or an expression; and the same as a function."""
    return st.one_of(
        st.just((None, _everything)),
        st.builds(_number_filter, st.sampled_from(["offset", "timestamp", "partition"]), _comparison(), TIMES),
        st.sampled_from([b"", b"a"]).map(lambda key: ([("key", "==", key)], lambda row: row["key"] == key)),
        st.just((pc.field("value").is_null(), lambda row: row["value"] is None)),
        st.just(
            (
                (pc.field("offset") >= 7) & (pc.field("key") == b"a") | (pc.field("timestamp") < _arrow_time(100)),
                lambda row: (row["offset"] >= 7 and row["key"] == b"a") or row["timestamp"] < 100,
            )
        ),
    )


def _everything(row: Row) -> bool:
    return True


def _comparison() -> st.SearchStrategy[str]:
    return st.sampled_from(sorted(COMPARISONS))


def _number_filter(name: str, sign: str, bound: int) -> tuple[Any, Callable[[Row], bool]]:
    value: Any = _time(bound) if name == "timestamp" else bound % 50 if name == "offset" else bound % PARTITIONS
    plain = bound if name == "timestamp" else value
    return [(name, sign, value)], lambda row: COMPARISONS[sign](row[name], plain)


def _arrow_time(ms: int) -> Any:
    return pa.scalar(ms, pa.timestamp("ms", "UTC"))


def _time(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


def _parts(twin: Twin, commit: int | None) -> list[Any]:
    return twin.parts if commit is None else twin.past[commit]


def _starts(twin: Twin, commit: int | None) -> st.SearchStrategy[tuple[Any, Callable[[Row], bool]]]:
    parts = _parts(twin, commit)

    def from_offsets(shares: list[float]) -> tuple[Any, Callable[[Row], bool]]:
        found = {
            n: part.start + int(share * (part.end - part.start))
            for n, (part, share) in enumerate(zip(parts, shares, strict=True))
        }
        return found, lambda row: row["offset"] >= found[row["partition"]]

    def from_commit(seq: int) -> tuple[Any, Callable[[Row], bool]]:
        ends = [part.end for part in twin.past[seq]]
        return Commit(seq), lambda row: row["offset"] >= ends[row["partition"]]

    return st.one_of(
        st.just(("earliest", _everything)),
        st.just(("latest", lambda row: False)),
        st.lists(st.floats(0, 1), min_size=PARTITIONS, max_size=PARTITIONS).map(from_offsets),
        TIMES.map(lambda ms: (_time(ms), lambda row: row["timestamp"] >= ms)),
        st.sampled_from(sorted(twin.past)).map(from_commit),
    )


def _ends(twin: Twin, commit: int | None) -> st.SearchStrategy[tuple[Any, Callable[[Row], bool]]]:
    def to_offset(offset: int) -> tuple[Any, Callable[[Row], bool]]:
        return {0: offset + 100, 1: "latest"}, lambda row: row["partition"] == 1 or row["offset"] < offset + 100

    def to_commit(seq: int) -> tuple[Any, Callable[[Row], bool]]:
        ends = [part.end for part in twin.past[seq]]
        return Commit(seq), lambda row: row["offset"] < ends[row["partition"]]

    return st.one_of(
        st.just((None, _everything)),
        OFFSETS.map(to_offset),
        st.integers(400, 401).map(lambda ms: (_time(ms), lambda row: row["timestamp"] < ms)),
        st.sampled_from(sorted(twin.past)).map(to_commit),
    )
