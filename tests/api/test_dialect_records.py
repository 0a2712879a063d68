"""Records as the REST Proxy v2 writes them: bodies to batches and chunks to JSON, without loss."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.api.messages import HttpError
from headwater.api.rest_records import Format, array_of, batches_of, chosen, encode_records, encode_some, read
from headwater.errors import InvalidRequest
from headwater.log import batch
from headwater.log.chunk import Chunk
from headwater.types import Batch, Record

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
BYTES = st.none() | st.binary(max_size=40)


def chunk_of(made: Batch, base: int = 0, partition: int = 0) -> Chunk:
    return Chunk(
        topic="t",
        partition=partition,
        base=base,
        count=made.count,
        codec=made.codec,
        data=made.data,
        timestamp_min=made.timestamp_min,
        timestamp_max=made.timestamp_max,
    )


def stored(kind: Format, records: list[dict[str, Any]], *, copies: int = 1) -> Chunk:
    """What a body with ``records``, ``copies`` times, becomes in one partition."""
    body = json.dumps({"records": records * copies}).encode()
    columns = read(kind, body, 5)
    (made,) = batches_of(columns, [0] * len(records) * copies).values()
    return chunk_of(made, base=7)


@settings(deadline=None)
@given(st.lists(st.tuples(ANYTHING, ANYTHING), min_size=1, max_size=5), st.sampled_from([1, 40]))
def test_any_json_comes_back(pairs: list[tuple[Any, Any]], copies: int) -> None:
    chunk = stored("json", [{"key": key, "value": value} for key, value in pairs], copies=copies)
    found = json.loads(encode_records("json", "t", 0, [chunk]))
    assert pairs * copies == [(record["key"], record["value"]) for record in found]
    assert list(range(7, 7 + len(pairs) * copies)) == [record["offset"] for record in found]


@settings(deadline=None)
@given(st.lists(st.tuples(BYTES, BYTES), min_size=1, max_size=5), st.sampled_from([1, 40]))
def test_any_bytes_come_back(pairs: list[tuple[bytes | None, bytes | None]], copies: int) -> None:
    text = [tuple(None if part is None else base64.b64encode(part).decode() for part in pair) for pair in pairs]
    chunk = stored("binary", [{"key": key, "value": value} for key, value in text], copies=copies)
    found = json.loads(encode_records("binary", "t", 0, [chunk]))
    assert text * copies == [(record["key"], record["value"]) for record in found]
    assert pairs * copies == [(r.key, r.value) for r in batch.records_of("t", 0, chunk.decode())]


@given(st.binary(max_size=60))
def test_bytes_that_are_no_body_are_refused_and_nothing_else_is_raised(body: bytes) -> None:
    for kind in ("json", "binary"):
        try:
            read(kind, body, 5)  # type: ignore[arg-type]
        except (InvalidRequest, HttpError):
            continue


@given(st.data())
def test_a_body_with_changed_bytes_is_read_as_json_says_or_refused(data: st.DataObject) -> None:
    body = bytearray(b'{"records":[{"key":"a","value":{"b":[1,2.5e3,"\\u00e9"]},"partition":0,"timestamp":3}]}')
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        columns = read("json", bytes(body), 5)
    except (InvalidRequest, HttpError):
        return
    (record,) = json.loads(bytes(body))["records"]
    for name, column in (("key", columns.keys), ("value", columns.values)):
        assert record.get(name) == (None if column[0] is None else json.loads(column[0]))


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=6))
def test_only_what_is_json_by_itself_goes_out_as_json(values: list[bytes]) -> None:
    good = 0
    for value in values:
        if not is_json(value):
            break
        good += 1
    made = batch.batch_of_records([Record(value=value) for value in values], default_timestamp=1)
    if good == 0:
        with pytest.raises(HttpError) as refused:
            encode_some("json", "t", 0, [chunk_of(made)], offset=0)
        assert (406, 40601, 0) == (refused.value.status, refused.value.error_code, refused.value.data["offset"])
        return
    found = encode_some("json", "t", 0, [chunk_of(made)], offset=0)
    assert (good, good) == (found.count, found.next_offset)
    assert [json.loads(value) for value in values[:good]] == [r["value"] for r in json.loads(array_of([found]))]


def is_json(value: bytes) -> bool:
    try:
        json.loads(value.decode(), parse_constant=lambda name: 1 / 0)
        return not value.startswith(b"\xef\xbb\xbf")
    except (ValueError, ZeroDivisionError):
        return False


@pytest.mark.parametrize("values", [[b"1,2", b""], [b"1", b'"a],[b"', b"1],[2"], [b"[1", b"2]"], [b"1,[2", b"3]"]])
def test_values_that_are_json_only_together_are_found_out(values: list[bytes]) -> None:
    good = next(i for i, value in enumerate(values) if not is_json(value))
    made = batch.batch_of_records([Record(value=b"0"), *(Record(value=v) for v in values)], default_timestamp=1)
    found = encode_some("json", "t", 0, [chunk_of(made)], offset=0)
    assert 1 + good == found.count


def test_blanks_around_a_value_are_json_too() -> None:
    made = batch.batch_of_records([Record(value=b" 1\n"), Record(value=b"\t[2 ]")], default_timestamp=1)
    assert [1, [2]] == [r["value"] for r in json.loads(encode_records("json", "t", 0, [chunk_of(made)]))]


def test_a_key_that_is_no_json_ends_the_answer_too() -> None:
    made = batch.batch_of_records([Record(value=b"1"), Record(key=b"k", value=b"1")], default_timestamp=1)
    assert 1 == encode_some("json", "t", 0, [chunk_of(made)], offset=0).count
    with pytest.raises(HttpError, match="offset 1"):
        encode_some("json", "t", 0, [chunk_of(made)], offset=1)


@pytest.mark.parametrize("count", [10, 100])
def test_an_answer_begins_at_its_offset_and_ends_where_it_is_full(count: int) -> None:
    chunks = [stored("json", [{"value": "x" * 100}] * count)]
    chunks.append(Chunk(**{**as_dict(chunks[0]), "base": chunks[0].end}))
    end = chunks[1].end
    at, seen = 9, []
    while at < end:
        found = encode_some("json", "t", 0, chunks, offset=at, bytes_max=1_000)
        offsets = [record["offset"] for record in json.loads(array_of([found]))]
        assert list(range(at, found.next_offset)) == offsets
        assert found.nbytes <= 1_000
        seen += offsets
        at = found.next_offset
    assert list(range(9, end)) == seen
    assert 1 == encode_some("json", "t", 0, chunks, offset=9, bytes_max=1).count
    nothing = encode_some("json", "t", 0, chunks, offset=end, bytes_max=1)
    assert (0, end, b"[]") == (nothing.count, nothing.next_offset, array_of([nothing]))


def as_dict(chunk: Chunk) -> dict[str, Any]:
    return {name: getattr(chunk, name) for name in chunk.__slots__}


@pytest.mark.parametrize(("kind", "value"), [("json", b'"' + b"x" * 900 + b'"'), ("binary", b"x" * 900)])
def test_the_estimate_of_an_answers_size_is_close(kind: Format, value: bytes) -> None:
    headers = (("h", b"x" * 90), ("n", None))
    records = [Record(value=value, key=b"1", headers=headers if i % 2 else ()) for i in range(200)]
    chunk = chunk_of(batch.batch_of_records(records, default_timestamp=1_700_000_000_000))
    for bytes_max in (5_000, 50_000, 150_000):
        found = encode_some(kind, "topic", 0, [chunk], offset=0, bytes_max=bytes_max)
        assert 0.8 * bytes_max < found.nbytes <= bytes_max * 1.02


def test_few_records_are_built_and_read_without_arrow_and_many_with_it() -> None:
    few = stored("json", [{"key": 1, "value": 2}], copies=64)
    many = stored("json", [{"key": 1, "value": 2}], copies=65)
    large = stored("json", [{"key": 1, "value": "x" * (1 << 20)}])
    assert ("kafka2", "arrow", "arrow") == (few.codec, many.codec, large.codec)


def test_named_partitions_come_before_keys_and_keys_before_the_sticky_one() -> None:
    body = {"records": [{"key": "k", "value": 1, "partition": 3}, {"key": "k", "value": 1}, {"value": 1}] * 40}
    columns = read("json", json.dumps(body).encode(), 5)
    places = chosen(columns, 9, 8)
    assert [3, places[1], 8] * 40 == places
    made = batches_of(columns, places)
    assert {3, places[1], 8} == set(made)
    assert 120 == sum(one.count for one in made.values())


def test_the_greatest_body_is_read_and_one_record_more_is_not() -> None:
    body = b'{"records":[' + b",".join([b"{}"] * (1 << 20)) + b"]}"
    assert 1 << 20 == len(read("json", body, 5).keys)
    with pytest.raises(HttpError, match="length"):
        read("json", body[:-2] + b",{}]}", 5)


def test_a_header_without_utf8_never_comes_out_as_such() -> None:
    with pytest.raises(InvalidRequest):
        read("json", b'{"records":[{"headers":[{"key":"\xff"}]}]}', 5)
