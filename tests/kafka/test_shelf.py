"""What a gateway keeps of batches: bytes where they lie, in parts, and never much more than it counts."""

from __future__ import annotations

import asyncio
import random

import pyarrow as pa
import pytest

from headwater.kafka.shelf import Shelf, Shelved
from headwater.log import kafka2
from headwater.log.batch import batch_of_kafka2, encode_kafka2
from headwater.log.codec_schema import TIMESTAMP
from headwater.log.namespace import Namespace
from headwater.store.memory import MemoryStore


def batch(count: int = 3, value_bytes: int = 20_000) -> bytes:
    rng = random.Random(1)
    rows = {
        "timestamp": pa.array(range(count)).cast(TIMESTAMP),
        "value": [rng.randbytes(value_bytes) for _ in range(count)],
    }
    return bytes(encode_kafka2(pa.table(rows)))


def test_batches_in_parts_are_those_of_one_copy() -> None:
    data = batch() + batch(5)
    shelved = Shelved.of(7, 15, kafka2.rebased(data, 7))
    assert kafka2.with_base_offset(data, 7) == shelved.data
    assert len(data) == shelved.size
    assert [7, 10] == [header.base_offset for header in kafka2.headers_of(shelved.data)]


@pytest.mark.parametrize(("around", "is_copied"), [(1.0, False), (2.0, False), (2.1, True)])
def test_a_small_part_of_a_large_request_does_not_keep_all_of_it(around: float, is_copied: bool) -> None:
    async def main() -> None:
        async with await Namespace.open(MemoryStore()) as space:
            data = batch()
            request = memoryview(bytearray(int(len(data) * around)))
            request[: len(data)] = data
            shelf = Shelf(space, 1 << 20)
            shelf.follow((1, 0))
            shelf.offer((1, 0), 0, 3, request[: len(data)])
            found = shelf.find((1, 0), 1)
            assert found is not None
            assert data == found.data
            request[len(data) - 1] ^= 1
            assert is_copied == (data == found.data)

    asyncio.run(main())


@pytest.mark.parametrize(("value_bytes", "parts"), [(100, 1), (20_000, 2)])
def test_small_batches_are_one_part_however_they_came(value_bytes: int, parts: int) -> None:
    """A megabyte of single records in two parts each took longer to carry than to copy."""

    async def main() -> None:
        async with await Namespace.open(MemoryStore()) as space:
            await space.create_topic("t", partitions=1)
            await space.append("t", 0, batch_of_kafka2(batch(3, value_bytes)))
            shelf = Shelf(space, 1 << 20)
            read = await shelf.read("t", (1, 0), 1)
            shelf.follow((1, 0))
            shelf.offer((1, 0), 3, 6, batch(3, value_bytes))
            offered = shelf.find((1, 0), 4)
            assert read is not None and offered is not None
            assert (parts, parts) == (len(read.parts), len(offered.parts))
            assert [0, 3] == [kafka2.headers_of(each.data)[0].base_offset for each in (read, offered)]

    asyncio.run(main())


def test_batches_are_made_whole_once_and_are_the_same_to_everybody() -> None:
    async def main() -> None:
        async with await Namespace.open(MemoryStore()) as space:
            shelf = Shelf(space, 1 << 20)
            assert shelf.find_whole((1, 0), 0) is None
            shelf.follow((1, 0))
            shelf.offer((1, 0), 0, 3, batch())
            shelf.offer((1, 0), 3, 8, batch(5))
            whole = shelf.find_whole((1, 0), 4)
            assert whole is not None
            assert (1, 3, 8, kafka2.with_base_offset(batch(5), 3)) == (
                len(whole.parts),
                whole.base,
                whole.end,
                whole.data,
            )
            assert whole is shelf.find_whole((1, 0), 3)
            assert whole is shelf.find((1, 0), 7)
            assert 2 == len(found.parts if (found := shelf.find((1, 0), 2)) else ())

    asyncio.run(main())
