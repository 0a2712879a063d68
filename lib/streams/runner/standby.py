"""Standby copies: the state of somebody else's task, kept close behind, so that a take-over restores only the rest.

A copy tails the task's changelog. It costs the memory of the state, and 1 GET a poll, which all readers of a worker
share. Whoever is next in the ring of members keeps it, and is the one who inherits the task.
"""

from __future__ import annotations

import asyncio

from headwater.client.backoff import Backoff
from headwater.errors import Indeterminate, NotFound, OffsetOutOfRange, Throttled, Unavailable
from headwater.limits import STREAMS_POLL_MS
from headwater.streams.runner.changelog import Copy
from headwater.streams.runner.restoring import STEP_BYTES, apply, new_copy
from headwater.streams.runner.stepping import Setting


class Standby:
    """A copy of task ``number``, which follows from now on until it is taken or stopped."""

    def __init__(self, setting: Setting, number: int) -> None:
        self.setting = setting
        self.number = number
        self.copy: Copy | None = None
        self.end = 0
        self.error: Exception | None = None
        self._applying = asyncio.Lock()
        self._task = asyncio.get_running_loop().create_task(
            self._follow(), name=f"streams-standby-{setting.job.name}-{number}"
        )

    @property
    def lag(self) -> int:
        """Records of the changelog that the copy has not seen, as of the last look."""
        return max(self.end - self.copy.position, 0) if self.copy is not None else self.end

    async def take(self) -> Copy | None:
        """The copy as it is, to go on from; None if it is of no use."""
        await self._halt()
        copy, self.copy = self.copy, None
        if copy is not None and (self.error is not None or not copy.whole):
            self.setting.making.discard(copy.task)
            return None
        return copy

    async def stop(self) -> None:
        """Let go of the copy."""
        await self._halt()
        if self.copy is not None:
            self.setting.making.discard(self.copy.task)
            self.copy = None

    async def _halt(self) -> None:
        async with self._applying:  # a copy that is cut off while it takes records would be half of two states
            self._task.cancel()
        await asyncio.wait([self._task])

    async def _follow(self) -> None:
        setting = self.setting
        chain = setting.namespace.chain
        backoff = Backoff(chain.clock, chain.rng)
        while True:
            try:
                await self._step()
                backoff = Backoff(chain.clock, chain.rng)
            except OffsetOutOfRange:
                await self._anew()
            except (Throttled, Unavailable, Indeterminate, NotFound) as error:
                await chain.clock.sleep(backoff.next_s(error))
            except Exception as error:
                # A standby is a courtesy: whoever takes over finds out what is wrong, with words for it.
                self.error = error
                return

    async def _step(self) -> None:
        setting, topic = self.setting, self.setting.job.changelog
        if self.copy is None:
            _, place = setting.namespace.reader.place(topic, self.number)
            self.copy = new_copy(setting.making, self.number, place.start)
        fetched = await setting.namespace.reader.fetch(
            topic,
            self.number,
            self.copy.position,
            bytes_max=STEP_BYTES,
            wait_ms=STREAMS_POLL_MS,
            fresh=self.copy.position >= self.end,
        )
        self.end = fetched.stable_end
        async with self._applying:
            await apply(self.copy, fetched.chunks, offload=setting.offload)
            self.copy.position = max(self.copy.position, fetched.next_offset)

    async def _anew(self) -> None:
        """The log was trimmed past the copy: it missed deltas that only the snapshot has."""
        copy, self.copy = self.copy, None
        if copy is not None:
            self.setting.making.discard(copy.task)
