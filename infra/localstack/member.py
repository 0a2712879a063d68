"""A member of a consumer group in a process of its own, so that a test can kill it.

usage: member.py URL TOKEN GROUP TOPIC, and then one line of JSON for each poll that brought something:
{"assigned": [0, 1], "values": ["…"]}
"""

from __future__ import annotations

import asyncio
import json
import sys

from emulator import resolve_localhost

from headwater.client import Consumer


async def main(url: str, token: str, group: str, topic: str) -> None:
    """Read and commit until killed."""
    consumer = Consumer(
        url,
        topic,
        token=token,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6_000,
        heartbeat_interval_ms=500,
        fetch_max_wait_ms=500,
        value_deserializer="json",
    )
    told: list[int] = []
    async with consumer:
        while True:
            found = await consumer.getmany(timeout_ms=500)
            assigned = sorted(place.partition for place in consumer.assignment())
            values = [record.value for records in found.values() for record in records]
            if values or assigned != told:
                told = assigned
                # Said before it is committed: what a kill comes between is read again, never lost.
                print(json.dumps({"assigned": assigned, "values": values}), flush=True)
            if values:
                await consumer.commit()


resolve_localhost()
asyncio.run(main(*sys.argv[1:]))
