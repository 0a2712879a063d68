"""How many pieces of a replay are begun ahead."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pyarrow as pa
import pytest

from headwater.limits import REPLAY_PIECES_MAX
from headwater.replay.pieces import Budget, Piece, in_order

PIECES = 3 * REPLAY_PIECES_MAX
PROCESSORS = os.cpu_count() or 1


@pytest.mark.parametrize(("at_hand", "most"), [(True, PROCESSORS + 1), (False, REPLAY_PIECES_MAX)])
def test_pieces_at_hand_are_begun_only_as_processors_take_them(at_hand: bool, most: int) -> None:
    begun, given, ahead = 0, 0, []

    async def load() -> list[pa.RecordBatch]:
        nonlocal begun
        begun += 1
        return [pa.record_batch({"offset": [begun]})]

    async def pieces() -> AsyncIterator[Piece]:
        for number in range(PIECES):
            yield Piece(0, number + 1, 1, load, at_hand=at_hand)

    async def main() -> None:
        nonlocal given
        async for _piece, batches in in_order(pieces(), Budget(1 << 20)):
            given += len(batches)
            for _ in range(4 * PIECES):  # the others get as far as they may
                await asyncio.sleep(0)
            ahead.append(begun - given)

    asyncio.run(main())
    assert PIECES == given
    assert max(ahead) <= most
