"""Frames: many batches in one body."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.api import frames
from headwater.errors import InvalidRequest
from headwater.limits import FRAME_HEADER_BYTES_MAX
from headwater.log.chunk import Chunk
from headwater.log.reader import Fetched
from headwater.types import Batch

BATCH = Batch(
    codec="kafka2",
    data=b"\x00\xffdata",
    count=3,
    timestamp_min=-5,
    timestamp_max=7,
    producer_id=1,
    producer_epoch=2,
    sequence=3,
    crc=4,
)
OTHER = Batch(codec="arrow", data=b"x" * 100, count=1, timestamp_min=1, timestamp_max=1)


def raw(header: object, rest: bytes = b"") -> bytes:
    line = header if isinstance(header, bytes) else msgspec.json.encode(header)
    return len(line).to_bytes(4, "big") + line + rest


def test_batches_and_what_stands_beside_them_survive_a_frame() -> None:
    placed = [("t", 0, BATCH), ("ü", 9, OTHER)]
    assert ({"token": "abcd@1"}, placed) == frames.unpack(frames.pack(placed, {"token": "abcd@1"}))


def test_a_frame_of_nothing_is_a_frame() -> None:
    assert ({}, []) == frames.unpack(frames.pack([]))


def test_what_was_fetched_survives_a_frame() -> None:
    chunk = Chunk(
        topic="t", partition=1, base=40, count=2, codec="arrow", data=b"abc", timestamp_min=1, timestamp_max=2
    )
    fetched = Fetched(chunks=[chunk], next_offset=42, log_start=3, high_watermark=50, stable_end=45, commit=9)
    assert fetched == frames.unpack_fetched(frames.pack_fetched(fetched))


def test_parts_are_views_of_the_body() -> None:
    body = frames.pack([("t", 0, BATCH)])
    (part,) = frames.decode(body)[1]
    assert part.obj is body


@given(st.integers(0, 400))
def test_a_frame_that_was_cut_is_noticed(cut: int) -> None:
    body = frames.pack([("t", 0, BATCH), ("t", 1, OTHER)])
    if cut < len(body):
        with pytest.raises(InvalidRequest):
            frames.unpack(body[:cut])


def test_a_frame_that_was_padded_is_noticed() -> None:
    with pytest.raises(InvalidRequest):
        frames.decode(frames.pack([("t", 0, BATCH)]) + b"x")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\x00\x00",
        b"\xff\xff\xff\xff{}",
        (FRAME_HEADER_BYTES_MAX + 1).to_bytes(4, "big"),
        raw(b""),
        raw(b"{"),
        raw(b"\xff\xfe"),
        raw(b"[" * 200_000),
        raw([]),
        raw({}),
        raw({"batches": 1}),
        raw({"batches": [1]}),
        raw({"batches": [{}]}),
        raw({"batches": [{"len": -1}]}),
        raw({"batches": [{"len": True}]}, b"x"),
        raw({"batches": [{"len": 1.0}]}, b"x"),
        raw({"batches": [{"len": 10**400}]}),
        raw({"batches": [{"len": 2}, {"len": -1}]}, b"x"),
        raw({"batches": [{"len": 0}] * 10_001}),
    ],
)
def test_what_is_no_frame_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        frames.decode(body)


@pytest.mark.parametrize(
    "change",
    [
        {"topic": ""},
        {"topic": None},
        {"partition": -1},
        {"partition": 2**31},
        {"codec": "parquet"},
        {"count": 0},
        {"count": "1"},
        {"sequence": 2**31},
        {"producer_epoch": 2**15},
        {"unknown": 1},
    ],
)
def test_an_entry_that_does_not_fit_is_refused(change: dict[str, object]) -> None:
    entry: dict[str, object] = {"topic": "t", "partition": 0, "codec": "arrow", "count": 1, "len": 1}
    with pytest.raises(InvalidRequest):
        frames.unpack(raw({"batches": [{**entry, **change}]}, b"x"))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_refused(body: bytes) -> None:
    for data in (body, raw(body)):
        try:
            frames.unpack(data)
            frames.unpack_fetched(data)
        except InvalidRequest:
            pass
