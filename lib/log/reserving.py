"""A transaction that reserves, seen from outside the fold: every call may come from another process than the last.

Whoever asks again, because no answer came, asks with a new intent; the first one may still be under way, and be
committed when the producer's next transaction is open. A new epoch keeps it out (KIP-890). Producers that keep their
epoch are protected by how many steps they have gone: an intent that comes after fewer is refused as ``stale``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.errors import Conflict, Fenced, HeadwaterError, NotFound
from headwater.limits import RESERVING_TRIES_MAX, TRANSACTION_MS_MAX
from headwater.log import operations as ops
from headwater.log.outcomes import UnknownProducer
from headwater.log.state import Producer
from headwater.log.state.producers import last_end
from headwater.log.surely import commit_surely

if TYPE_CHECKING:
    from headwater.log.namespace import Namespace


@dataclass(frozen=True, slots=True)
class Reserving:
    """The open transaction of the producer that ``tid`` has under ``pid`` and ``epoch``."""

    namespace: Namespace
    tid: str
    pid: int
    epoch: int

    @property
    def timeout_ms(self) -> int:
        """How long its transactions may take."""
        return timeout_ms(self._producer)

    async def move(self, commits: Sequence[ops.CommitOffsets]) -> None:
        """Keep offsets of groups for the end of the transaction. Cost: 1 commit.

        Raises:
            Fenced, UnknownProducer: the producer is somebody else's by now; or the group's generation is over.
            Indeterminate: nobody knows whether they are kept; call again.
        """
        for _ in range(RESERVING_TRIES_MAX):
            try:
                await commit_surely(self.namespace, self.moving(commits))
                return
            except Conflict as error:
                # We did not know yet of every step of this producer; the refusal has told us.
                if error.data.get("reason") != "stale":
                    raise
                last = error
        raise last

    async def end(self, *, commit: bool, bump: bool, begun: bool = False) -> tuple[int, int]:
        """All of it becomes true, or nothing. The id and epoch to go on under. Cost: 1 commit.

        A second call says the same. ``begun`` tells a transaction that holds nothing from a repetition.

        Raises:
            Fenced, UnknownProducer: the producer is somebody else's by now, or its time was up. Nothing became true.
            Conflict: this transaction has ended otherwise.
            Indeterminate: nobody knows; call again.
        """
        for _ in range(RESERVING_TRIES_MAX):
            try:
                wishes = self.ending(commit=commit, bump=bump, begun=begun)
                outcome = await commit_surely(self.namespace, wishes)
                return outcome.values["pid"], outcome.values["epoch"]
            except (Fenced, UnknownProducer) as error:
                return self.ended(commit=commit, otherwise=error)
            except Conflict as error:
                if error.data.get("reason") != "stale":
                    raise
                last, begun = error, begun and not self._has_ended
        raise last

    def ended(self, *, commit: bool, otherwise: HeadwaterError) -> tuple[int, int]:
        """The answer that was missed, if this very transaction has ended so. Raises ``Conflict``, or ``otherwise``."""
        again = last_end(self.namespace.state, self.tid, self.pid, self.epoch)
        if again is None or again[1].how == "renew":
            raise otherwise
        producer, known = again
        if known.how != ("commit" if commit else "abort"):
            raise Conflict(f"The transaction of producer {self.pid}, epoch {self.epoch}, ended otherwise: {known.how}.")
        return producer.id, producer.epoch

    def moving(self, commits: Sequence[ops.CommitOffsets]) -> list[ops.AnyOp]:
        """What ``move`` asks the fold for, now: it is refused after the next step."""
        return [
            ops.ReserveOffsets(
                pid=self.pid, epoch=self.epoch, timeout_ms=self.timeout_ms, offsets=commit, after=self._steps + number
            )
            for number, commit in enumerate(commits)
        ]

    def ending(self, *, commit: bool, bump: bool, begun: bool = False) -> list[ops.AnyOp]:
        """What ``end`` asks the fold for, now: it is refused after the next step."""
        begin = [ops.Reserve(pid=self.pid, epoch=self.epoch, timeout_ms=self.timeout_ms)] if begun else []
        end = ops.EndReserve(pid=self.pid, epoch=self.epoch, commit=commit, bump=bump, after=self._steps)
        return [*begin, end]

    @property
    def _producer(self) -> Producer | None:
        return self.namespace.state.producers.get(self.pid)

    @property
    def _steps(self) -> int:
        return self._producer.steps if self._producer is not None else 0

    @property
    def _has_ended(self) -> bool:
        return self._producer is not None and self._producer.ended is not None


async def expire_overdue(namespace: Namespace, most: int) -> int:
    """Void transactions whose time is up, ``most`` of them. How many. Cost: 1 commit for each.

    The fold has the last word on that, by the time of the manifest (R7).
    """
    now_ms = namespace.chain.clock.wall_ms()
    overdue = [
        pid
        for pid, producer in namespace.state.producers.items()
        if producer.is_busy and producer.deadline_ms <= now_ms
    ]
    expired = 0
    for pid in overdue[:most]:
        try:
            await namespace.writer.commit(ops=[ops.ExpireReserve(pid=pid)])
            expired += 1
        except (Conflict, NotFound):
            continue  # somebody ended it first
    return expired


def timeout_ms(producer: Producer | None) -> int:
    """How long the producer's transactions may take."""
    return (producer.timeout_ms if producer is not None else 0) or TRANSACTION_MS_MAX
