"""Frames come out as they went in, however the stream is cut, and hostile lengths cost nothing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import InvalidRequest
from headwater.kafka.framing import Frames
from headwater.limits import KAFKA_READ_BYTES


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(
        st.one_of(st.integers(1, 300), st.integers(60_000, 70_000), st.integers(1 << 20, 3 << 20)), max_size=4
    ),
    cuts=st.lists(st.integers(10_000, 300_000), min_size=1),
)
def test_large_frames_come_out_as_they_went_in(sizes: list[int], cuts: list[int]) -> None:
    check(sizes, cuts)


@given(sizes=st.lists(st.integers(1, 300), max_size=8), cuts=st.lists(st.integers(1, 40), min_size=1))
def test_small_frames_come_out_as_they_went_in(sizes: list[int], cuts: list[int]) -> None:
    check(sizes, cuts)


def check(sizes: list[int], cuts: list[int]) -> None:
    bodies = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    stream = b"".join(struct.pack(">i", len(body)) + body for body in bodies)
    assert bodies == feed(Frames(), stream, cuts)


def feed(frames: Frames, stream: bytes, cuts: list[int]) -> list[bytes]:
    """Give the stream in pieces, each as large as there is room for; all frames that came out, read at the end."""
    found: list[memoryview] = []
    at = turn = 0
    while at < len(stream):
        space = frames.space()
        size = min(len(space), cuts[turn % len(cuts)], len(stream) - at)
        space[:size] = stream[at : at + size]
        found += frames.filled(size)
        at, turn = at + size, turn + 1
    return [bytes(frame) for frame in found]


@pytest.mark.parametrize("claim", [-1, 0, 100 * 2**20 + 1, 2**31 - 1])
def test_a_length_that_no_request_has_ends_the_stream(claim: int) -> None:
    frames = Frames()
    frames.space()[:4] = struct.pack(">i", claim)
    with pytest.raises(InvalidRequest, match=f"claims {claim} bytes"):
        frames.filled(4)


def test_a_claim_costs_no_memory_before_its_bytes_come() -> None:
    frames = Frames()
    frames.space()[:8] = struct.pack(">i", 90 << 20) + b"head"
    assert [] == frames.filled(8)
    frames.space()
    assert frames.held <= 2 << 20
    for _ in range(40):
        room = len(frames.space())
        frames.filled(min(room, 64 << 10))
    assert frames.held <= 32 << 20


def test_memory_is_let_go_between_requests() -> None:
    frames = Frames()
    frames.space()[:6] = struct.pack(">i", 2) + b"ab"
    (frame,) = frames.filled(6)
    assert (b"ab", 0, False) == (bytes(frame), frames.held, frames.partial)
    assert KAFKA_READ_BYTES == len(frames.space())
