"""Kafka's default partitioner, by the key and by the column."""

import random
from itertools import pairwise

import pyarrow as pa
import pytest
from aiokafka import partitioner as aiokafka_partitioner
from hypothesis import given
from hypothesis import strategies as st

from headwater.log.partitioner import Sticky, murmur2, partition_of, partitions_of, split


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_the_numbers_of_kafka_s_own_tests(key: bytes, expected: int) -> None:
    assert expected == murmur2(key)


@given(st.binary(max_size=100))
def test_murmur2_agrees_with_aiokafka(key: bytes) -> None:
    theirs = aiokafka_partitioner.murmur2(key)
    assert theirs == murmur2(key) & 0xFFFFFFFF
    assert aiokafka_partitioner.DefaultPartitioner()(key, list(range(7)), []) == partition_of(key, 7)


@given(st.lists(st.none() | st.binary(max_size=9), max_size=50), st.integers(1, 10_000))
def test_a_column_of_few_keys_is_chosen_as_one_by_one(keys: list[bytes | None], n: int) -> None:
    expected = [None if key is None else partition_of(key, n) for key in keys]
    assert pa.array(expected, pa.int32()) == partitions_of(pa.array(keys, pa.binary()), n)


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 1_000))
def test_a_column_of_many_keys_is_chosen_as_one_by_one(seed: int, lengths: int, n: int) -> None:
    rng = random.Random(seed)
    shortest = rng.randrange(20)
    keys = [rng.randbytes(shortest + rng.randrange(lengths)) if rng.random() < 0.9 else None for _ in range(1_500)]
    expected = [None if key is None else partition_of(key, n) for key in keys]
    column = pa.array(keys, pa.binary())
    assert pa.array(expected, pa.int32()) == partitions_of(column, n)
    pieces = pa.chunked_array([column[:700], column[700:]])
    assert pa.array(expected[100:1_400], pa.int32()) == partitions_of(pieces.slice(100, 1_300), n)


def test_strings_nulls_and_nothing_have_their_partitions_too() -> None:
    assert [partition_of("é".encode(), 9), None] == partitions_of(pa.array(["é", None]), 9).to_pylist()
    assert [None, None] == partitions_of(pa.nulls(2, pa.binary()), 9).to_pylist()
    assert [] == partitions_of(pa.array([], pa.binary()), 9).to_pylist()
    assert [] == partitions_of(pa.chunked_array([], pa.binary()), 9).to_pylist()
    long = bytes(5_000)
    assert [partition_of(long, 9)] * 100 == partitions_of(pa.array([long] * 100), 9).to_pylist()


@given(st.lists(st.none() | st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=60), st.integers(1, 4), st.data())
def test_split_keeps_every_record_in_order(keys: list[bytes | None], n: int, data: st.DataObject) -> None:
    sticky = data.draw(st.integers(0, n - 1))
    rows = list(enumerate(keys))
    expected: dict[int, list[tuple[int, bytes | None]]] = {}
    for row in rows:
        expected.setdefault(sticky if row[1] is None else partition_of(row[1], n), []).append(row)
    table = pa.table({"row": pa.array(range(len(keys)), pa.int64()), "key": pa.array(keys, pa.binary())})
    result = split(table, n, sticky)
    assert sorted(expected) == list(result)
    as_rows = {p: list(zip(*(t[c].to_pylist() for c in ("row", "key")), strict=True)) for p, t in result.items()}
    assert expected == as_rows


def test_a_table_without_keys_goes_to_the_sticky_partition() -> None:
    table = pa.table({"value": [b"a", b"b"]})
    assert {5: table} == split(table, 9, 5)
    assert {} == split(table.slice(2), 9, 5)


def test_sticky_stays_for_a_batch_and_then_takes_another() -> None:
    sticky = Sticky(100, random.Random(1))
    taken = [sticky.take(8, 50) for _ in range(20)]
    pairs = [taken[i : i + 2] for i in range(0, 20, 2)]
    assert all(first == second for first, second in pairs)
    assert all(one[0] != two[0] for one, two in pairwise(pairs))
    again = Sticky(100, random.Random(1))
    assert taken == [again.take(8, 50) for _ in range(20)]


def test_sticky_reaches_every_partition_and_leaves_one_that_is_gone() -> None:
    sticky = Sticky(1, random.Random(2))
    assert set(range(5)) == {sticky.take(5, 1) for _ in range(200)}
    assert {0} == {sticky.take(1, 1) for _ in range(5)}
    assert {0, 1} == {sticky.take(2, 1) for _ in range(5)}
