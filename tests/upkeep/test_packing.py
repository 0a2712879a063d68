"""Files of whatever rows fit an object, and memory is shared first come first served."""

from __future__ import annotations

import asyncio
import itertools

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.limits import MIB, OBJECT_BYTES_MAX
from headwater.log.batch import decode
from headwater.upkeep.budget import Budget
from headwater.upkeep.packing import Packer
from tests.log.helpers import simulate
from tests.upkeep import helpers_upkeep as up


def test_rows_that_do_not_compress_are_cut_before_a_file_is_too_large() -> None:
    packer = Packer(0, [], {"headwater.topic": "t"})
    ready = []
    for start in range(0, 20_000, 1_000):
        packer.add(decode("arrow", up.big(1_000, 7_000, start=start).data, start))
        ready += packer.take()
    packer.finish(20_005)
    ready += packer.take()
    assert (3, 20_000) == (len(ready), packer.rows)
    assert [(0, ready[1].base), (ready[0].end, ready[2].base), (ready[1].end, 20_005)] == [
        (each.base, each.end) for each in ready
    ]
    assert all(50 * MIB < each.built.data.size <= OBJECT_BYTES_MAX for each in ready[:2])
    offsets = itertools.chain.from_iterable(
        pq.read_table(pa.BufferReader(each.built.data), columns=["offset"]).column("offset").to_pylist()
        for each in ready
    )
    assert list(range(20_000)) == list(offsets)


def test_no_rows_are_a_file_without_rows() -> None:
    packer = Packer(5, [], {})
    packer.finish(9)
    (ready,) = packer.take()
    assert (5, 9, 0, []) == (ready.base, ready.end, ready.built.count, packer.take())


def test_memory_is_shared_in_order_and_never_exceeded() -> None:
    async def main() -> None:
        budget, order = Budget(100), []

        async def task(name: int, size: int) -> None:
            async with budget.hold(size):
                assert budget.held <= 100
                order.append(name)
                await asyncio.sleep(1)

        # The last one would fit beside the first, and yet it waits for its turn.
        await asyncio.gather(*(task(i, size) for i, size in enumerate([60, 60, 500, 40, 10])))
        assert ([0, 1, 2, 3, 4], 100, 0) == (order, budget.peak, budget.held)

    simulate(main())
