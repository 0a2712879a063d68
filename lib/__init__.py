"""Headwater: an event-streaming log whose only state is a bucket.

import asyncio, headwater

async def main():
    async with await headwater.connect("file://./.headwater") as log:
        await log.create_topic("greetings", partitions=3)
        batch = headwater.batch([headwater.Record(key=b"en", value=b"hello")])
        print(await log.append("greetings", 0, batch))

asyncio.run(main())
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headwater.clock import SystemClock
from headwater.types import Batch, PlacedRecord, Record

if TYPE_CHECKING:
    from headwater.log.namespace import Namespace
    from headwater.log.options import Options

__all__ = ["Batch", "PlacedRecord", "Record", "batch", "connect"]
__version__ = "0.1.0"


async def connect(url: str, namespace: str = "default", *, options: Options | None = None) -> Namespace:
    """A handle on a namespace of the store at ``url`` that closes the store with itself.

    ``url`` is ``file:///dir`` (or ``file://./dir``), ``memory://name`` or ``s3://bucket/prefix?endpoint_url=…``.
    Raises what ``open_store`` and ``Namespace.open`` raise.
    """
    from headwater.log.namespace import Namespace
    from headwater.store import open_store

    store = open_store(url)
    try:
        return await Namespace.open(store, namespace, options=options, owns_store=True)
    except BaseException:
        await store.aclose()
        raise


def batch(records: Sequence[Record]) -> Batch:
    """The records as one batch; those without a timestamp get the time of this machine."""
    from headwater.log.batch import batch_of_records

    return batch_of_records(records, default_timestamp=SystemClock().wall_ms())
