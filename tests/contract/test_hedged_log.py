"""A log whose manifests are sent twice, over every store: the two sendings race for one slot, as those of rivals do."""

from __future__ import annotations

import asyncio

from headwater.log.batch import batch_of_records
from headwater.log.namespace import Namespace
from headwater.log.options import Options
from headwater.types import Record
from tests.contract.conftest import Place

WRITERS, APPENDS = 3, 20
AT_ONCE_MS = 0.001


def test_nothing_is_lost_or_doubled_when_every_manifest_is_sent_twice(place: Place) -> None:
    async def write(namespace: Namespace, writer: int) -> None:
        for number in range(APPENDS):
            batch = batch_of_records([Record(value=f"{writer}:{number}".encode())], default_timestamp=1)
            await namespace.append("values", 0, batch)

    async def main() -> None:
        options = Options(hedge_ms=AT_ONCE_MS)
        async with await Namespace.open(place.open(), owns_store=True) as namespace:
            await namespace.create_topic("values", 1)
        opened = [await Namespace.open(place.open(), options=options, owns_store=True) for _ in range(WRITERS)]
        await asyncio.gather(*(write(namespace, writer) for writer, namespace in enumerate(opened)))
        await opened[0].refresh()
        seen = []
        async for chunk in opened[0].reader.chunks("values", 0, 0):
            seen += chunk.decode().column("value").to_pylist()
        for writer in range(WRITERS):
            theirs = [value for value in seen if value.startswith(b"%d:" % writer)]
            assert [b"%d:%d" % (writer, number) for number in range(APPENDS)] == theirs
        assert WRITERS * APPENDS == len(seen)
        assert place.kind == "memory" or sum(namespace.journal.hedge.sent for namespace in opened) > APPENDS
        for namespace in opened:
            await namespace.close()

    asyncio.run(main())
