"""Bytes find their place: positions are right however many digits they have."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.log.intents import Intent, SegmentHeader, decode_segment, encode_segment
from headwater.log.payload import Piece, assemble
from tests.log.helpers import chunk


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 3_000), max_size=4), max_size=12), st.integers(0, 10**12))
def test_every_inline_chunk_lies_where_its_position_says(sizes: list[list[int]], tip: int) -> None:
    pieces, data = [], []
    for i, group in enumerate(sizes):
        parts = [bytes([(i + j) % 251]) * size for j, size in enumerate(group)]
        appends = [chunk(obj="", pos=0, len=len(part)) for part in parts]
        staged = chunk(obj=f"segment/{1:020d}-w-1", pos=9)
        kept = tip if i % 3 == 0 else None
        intent = Intent(id=f"id-{i}", tip=5, appends=[staged, *appends])
        pieces.append(Piece(intent=intent, parts=parts, size=sum(group), tip=kept and kept // 2))
        data += parts

    def build(intents: list[Intent]) -> SegmentHeader:
        return SegmentHeader(v=1, kind="segment", writer="w", intents=intents)

    header, parts_out, size = assemble(pieces, tip, build, encode_segment)
    whole = b"".join(bytes(part) for part in parts_out)
    assert (size, header) == (len(whole), decode_segment(whole))
    inline = [c for intent in header.intents for c in intent.appends if not c.obj]
    assert data == [whole[c.pos : c.pos + c.len] for c in inline]
    assert all(9 == intent.appends[0].pos for intent in header.intents)
    assert [tip if p.tip is None else p.tip for p in pieces] == [intent.tip for intent in header.intents]
