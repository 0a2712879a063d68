"""The sending half of a producer: takes what is due, numbers it, sends it until it is settled.

One request carries the due batches of many partitions, which is one intent and one conditional write. A partition has
at most one request in flight, so a request that is sent again can overtake nothing, and the sequence numbers of what
is refused are free again at once. What a batch's fate is unknown of (``Indeterminate``) is sent again under the same
token and the same numbers until ``delivery_timeout_s``; only then is the producer's epoch bumped, which
keeps the lost ones out for ever (KIP-360), and its numbers begin at 0.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from headwater import tracing
from headwater.client.backoff import Backoff, poked
from headwater.client.gathering import TP, Gathering, Item
from headwater.clock import Clock
from headwater.errors import Fenced, HeadwaterError, Indeterminate, StorageFull, Throttled, Unavailable
from headwater.limits import TRACE_LINKS_MAX
from headwater.log.outcomes import OutOfOrder, UnknownProducer

if TYPE_CHECKING:
    from headwater.api.verbs import Appended, ProducerId, Verbs
    from headwater.types import Batch

_SEQUENCES = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """Bounds of sending."""

    idempotent: bool = True
    requests_max: int = 5
    request_bytes_max: int = 8 << 20
    delivery_timeout_s: float = 120.0


class Sender:
    """Sends what a ``Gathering`` holds. One per producer; ``start`` and ``close`` it."""

    def __init__(
        self,
        verbs: Verbs,
        gathering: Gathering,
        options: SendOptions,
        *,
        clock: Clock,
        rng: random.Random,
        settled: Callable[[Item], None],
    ) -> None:
        self.verbs = verbs
        self.gathering = gathering
        self.options = options
        self.clock = clock
        self.rng = rng
        self.identity: ProducerId | None = None
        self.failure: BaseException | None = None  # a bug that ended the loop: nothing is sent any more
        self._settled = settled  # hears of each item once everybody else has
        self._sequences: dict[TP, int] = {}
        self._busy: set[TP] = set()
        self._requests: set[asyncio.Task[None]] = set()
        self._poke = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._renew = options.idempotent  # whether an identity must be fetched before anything else is sent

    def start(self) -> None:
        """Begin to send in the background."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop().create_task(self._run(), name="headwater-sender")
            self._loop.add_done_callback(self._broken)

    def poke(self) -> None:
        """Look again: something has become due."""
        self._poke.set()

    async def flush(self) -> None:
        """Return when everything that was there at this call is settled, one way or the other."""
        self.gathering.close_all()
        self.poke()
        waiting = [item.done for item in self.gathering.open]
        if waiting:
            await asyncio.wait(waiting)

    async def close(self) -> None:
        """Stop. What is in flight is waited for; what is not even sent fails. Call ``flush`` first."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
            self._loop = None
        for item in self.gathering.drop():
            self._fail(item, Unavailable("The producer was closed before it could send this record."))
        while self._requests:
            await asyncio.wait(set(self._requests))

    def _broken(self, loop: asyncio.Task[None]) -> None:
        """A bug ended the loop: nobody may be left waiting for what it will never send."""
        self.failure = None if loop.cancelled() else loop.exception()
        if self.failure is not None:
            for item in self.gathering.drop():
                self._fail(item, self.failure)

    # -- the loop ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        backoff = Backoff(self.clock, self.rng)
        while True:
            self._expire()
            due_s = self.gathering.due_s(self._busy)
            now_s = self.clock.elapsed_s()
            if due_s is None or due_s > now_s or not self._may_send():
                wait_s = None if due_s is None or not self._may_send() else due_s - now_s
                await poked(self._poke, wait_s)
            elif self._renew:
                error = await self._renewed()
                if error is None:
                    backoff = Backoff(self.clock, self.rng)
                elif isinstance(error, Throttled | Unavailable | Indeterminate):
                    await poked(self._poke, backoff.next_s(error))
                else:
                    self._refuse_all(error)
            else:
                self._send()

    def _may_send(self) -> bool:
        """A new identity fences whatever is in flight, so nothing may be while it is fetched."""
        return not self._requests if self._renew else len(self._requests) < self.options.requests_max

    def _expire(self) -> None:
        before_s = self.clock.elapsed_s() - self.options.delivery_timeout_s
        for item in self.gathering.expired(before_s, self._busy):
            self._fail(
                item, Unavailable(f"This record waited for {self.options.delivery_timeout_s:g} s and is unsent.")
            )

    def _refuse_all(self, error: HeadwaterError) -> None:
        for item in self.gathering.drop():
            self._fail(item, error)

    async def _renewed(self) -> HeadwaterError | None:
        """Take an identity, or the next epoch of the one there is; the error if that fails."""
        try:
            self.identity = await self.verbs.init_producer(current=self.identity)
        except (Fenced, UnknownProducer):
            self.identity = None  # forgotten, so nothing of it can come in any more: begin as somebody else
            return Unavailable("The producer's id is gone.")
        except HeadwaterError as error:
            return error
        self._sequences.clear()
        self._renew = False
        return None

    def _send(self) -> None:
        taken = self.gathering.take(self.clock.elapsed_s(), self._busy, self.options.request_bytes_max)
        items = self.gathering.encode(taken, self._fail)
        if not items:
            return
        places = {item.tp for item in items}
        self._busy |= places
        task = asyncio.get_running_loop().create_task(self._deliver(items), name="headwater-deliver")
        self._requests.add(task)

        def landed(done: asyncio.Task[None]) -> None:
            self._requests.discard(task)
            self._busy.difference_update(places)
            self.poke()

        task.add_done_callback(landed)

    # -- one request ------------------------------------------------------------------------------------

    async def _deliver(self, items: list[Item]) -> None:
        """Send the items until they are settled. Never raises: what goes wrong goes to whom it concerns."""
        batches = [
            (item.topic, item.partition, batch) for item, batch in zip(items, self._numbered(items), strict=True)
        ]
        attempt = _Attempt(self, batches, items)
        try:
            with request_span(items) if tracing.is_on() else nullcontext():
                appended = await attempt.run()
        except HeadwaterError as error:
            await self._refused(items, error, unknown=attempt.unknown)
        except BaseException as error:
            # Cancelled, or a bug: whether it was applied is unknown, and nobody may be left waiting.
            self._renew = self.options.idempotent
            for item in items:
                self._fail(item, Indeterminate(f"The request was given up: {error!r}."))
            raise
        else:
            for item, placed in zip(items, appended, strict=True):
                self._settle(item, placed.base_offset)

    def _numbered(self, items: list[Item]) -> list[Batch]:
        """The items' batches under our identity and the sequences that come next, which they take."""
        numbered = []
        for item in items:
            assert item.batch is not None
            batch = item.batch
            if self.identity is not None:
                sequence = self._sequences.get(item.tp, 0)
                identity = self.identity
                batch = replace(batch, producer_id=identity.id, producer_epoch=identity.epoch, sequence=sequence)
                self._sequences[item.tp] = (sequence + batch.count) % _SEQUENCES
            numbered.append(batch)
        return numbered

    async def _refused(self, items: list[Item], error: HeadwaterError, *, unknown: bool) -> None:
        if isinstance(error, Indeterminate):
            # KIP-360: under a new epoch the lost batches can never come in behind what is sent from now on.
            self._renew = self.options.idempotent
        elif self._may_renew(items, error, unknown):
            for item in items:
                item.renewed = True
            self.gathering.put_back(items)
            self._renew = True
            return
        else:
            self._give_back(items)
            places = sorted({item.tp for item in items})
            if len(places) > 1 and not isinstance(error, Throttled | Unavailable):
                # One bad partition must not fail the others: each on its own, under the numbers that it had.
                for tp in places:
                    await self._deliver([item for item in items if item.tp == tp])
                return
            self._renew = self._renew or (unknown and self.options.idempotent)
        for item in items:
            self._fail(item, error)

    def _may_renew(self, items: list[Item], error: HeadwaterError, unknown: bool) -> bool:
        """Whether the log has forgotten us, or never knew, and nothing of these items can have been applied."""
        return (
            isinstance(error, UnknownProducer | OutOfOrder | Fenced)
            and self.options.idempotent
            and not unknown
            and not any(item.renewed for item in items)
        )

    def _give_back(self, items: list[Item]) -> None:
        """Nothing of this was applied, and nothing else of these partitions is in flight: the numbers are free."""
        for item in reversed(items):
            if item.tp in self._sequences:
                assert item.batch is not None
                self._sequences[item.tp] = (self._sequences[item.tp] - item.batch.count) % _SEQUENCES

    def _settle(self, item: Item, base: int) -> None:
        self.gathering.open.discard(item)
        item.settle(base)
        self._settled(item)

    def _fail(self, item: Item, error: BaseException) -> None:
        self.gathering.open.discard(item)
        item.fail(error)
        self._settled(item)


def request_span(items: Sequence[Item]) -> AbstractContextManager[Any]:
    """Around one request: a child of what its first record was sent in, with links to others of them."""
    told = (delivery.trace for item in items for delivery in islice(item.deliveries, TRACE_LINKS_MAX))
    traces = list(islice((each for each in told if each is not None), TRACE_LINKS_MAX))
    topics = sorted({item.topic for item in items})
    return tracing.span(
        f"send {topics[0]}" if len(topics) == 1 else "send",
        "PRODUCER",
        parent=traces[0] if traces else None,
        links=tracing.links_to(traces),
        messaging__system=tracing.SYSTEM,
        messaging__operation__name="send",
        messaging__operation__type="send",
        messaging__destination__name=topics[0] if len(topics) == 1 else None,
        messaging__destination__partition__id=str(items[0].partition) if len(items) == 1 else None,
        messaging__batch__message_count=sum(item.batch.count for item in items if item.batch is not None),
    )


class _Attempt:
    """One call of ``produce``, made again as long as that cannot do harm. ``unknown``: one of them may have applied."""

    def __init__(self, sender: Sender, batches: list[tuple[str, int, Batch]], items: list[Item]) -> None:
        self.sender = sender
        self.batches = batches
        self.deadline_s = min(item.born_s for item in items) + sender.options.delivery_timeout_s
        self.unknown = False

    async def run(self) -> Sequence[Appended]:
        token = ""
        silence: Indeterminate | None = None
        last: HeadwaterError
        backoff = Backoff(self.sender.clock, self.sender.rng)
        while True:
            try:
                return await self.sender.verbs.produce(self.batches, token=token)
            except Indeterminate as error:
                token = error.token or token
                self.unknown, silence, last = True, error, error
                if not token and not self.sender.options.idempotent:
                    raise
            except StorageFull as error:
                raise silence or error from error
            except (Throttled, Unavailable) as error:
                last = error
            if not await backoff.pause(last, self.deadline_s):
                # Whatever befell later tries says nothing about the one that is unknown.
                raise silence or last
