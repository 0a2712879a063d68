"""Producers with an identity: idempotent sequences, and transactions (KIP-98, KIP-447, KIP-890).

A producer numbers its batches in each partition, so a batch sent twice lands once, whoever sends it again. A
transactional one bundles batches for many partitions and group offsets into **one intent**: it becomes
visible by one conditional write, all of it or nothing, and takes no offsets before that.

Beginning costs nothing: committing bumps the epoch, so a delayed request of one transaction can never join
the next, and a second process with the same transactional id fences the first at the commit point.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from headwater.errors import HeadwaterError, Indeterminate, InvalidRequest, NotFound, Throttled, Unavailable
from headwater.limits import NAME_BYTES_MAX
from headwater.log import operations as ops
from headwater.log.intents import new_id
from headwater.log.state import Outcome
from headwater.log.writer import Append
from headwater.types import Batch

if TYPE_CHECKING:
    from types import TracebackType

    from headwater.log.namespace import Appended, Namespace

_SEQUENCES = 2**31


class Producer:
    """One producer id and epoch. Use it from one task at a time for each partition: sequences have an order."""

    def __init__(self, namespace: Namespace, transactional_id: str, pid: int, epoch: int) -> None:
        self.namespace = namespace
        self.transactional_id = transactional_id
        self.id = pid
        self.epoch = epoch
        self._next: dict[tuple[str, int], int] = {}

    @classmethod
    async def open(cls, namespace: Namespace, transactional_id: str = "") -> Producer:
        """A fresh id, or the next epoch of the transactional id, which fences all that held it before."""
        if len(transactional_id.encode()) > NAME_BYTES_MAX:
            raise InvalidRequest(f"A transactional id has at most {NAME_BYTES_MAX} bytes.")
        outcome = await namespace.writer.commit(ops=[ops.InitProducer(tid=transactional_id)])
        return cls(namespace, transactional_id, outcome.values["pid"], outcome.values["epoch"])

    async def append(self, topic: str, partition: int, batch: Batch) -> Appended:
        """Append with the next sequence number of the partition.

        After ``Indeterminate`` call ``resend`` with the same batch and the number in ``error.data["sequence"]``:
        it lands once, and says where.
        """
        sequence = self.next_sequence(topic, partition)
        # The number is taken before the answer is there: calls may overlap, and a failed one is sent again under it.
        behind = self._next[topic, partition] = (sequence + batch.count) % _SEQUENCES
        try:
            return await self.resend(topic, partition, batch, sequence)
        except Indeterminate as error:
            error.data["sequence"] = sequence
            raise
        except (InvalidRequest, NotFound):
            # This batch will never be accepted, so the next one takes its number.
            if self._next.get((topic, partition)) == behind:
                self._next[topic, partition] = sequence
            raise

    async def resend(self, topic: str, partition: int, batch: Batch, sequence: int) -> Appended:
        """Append under a sequence number that was used before. Returns the first answer if it had taken effect."""
        return await self.namespace.append(topic, partition, self._numbered(batch, sequence))

    async def renew(self) -> None:
        """Take the next epoch and begin sequences at 0 again. Everything still in flight is fenced by it."""
        op = ops.InitProducer(tid=self.transactional_id, pid=self.id, epoch=self.epoch)
        self.adopt(await self.namespace.writer.commit(ops=[op]))

    def transaction(self) -> Transaction:
        """A new transaction: ``async with producer.transaction() as t: …`` commits at the end, aborts on an error."""
        return Transaction(self)

    def _numbered(self, batch: Batch, sequence: int) -> Batch:
        return replace(batch, producer_id=self.id, producer_epoch=self.epoch, sequence=sequence)

    def next_sequence(self, topic: str, partition: int) -> int:
        """The sequence number that the next ``append`` to this partition will carry."""
        return self._next.get((topic, partition), 0)

    def adopt(self, outcome: Outcome) -> None:
        """Go on under the id and epoch that a commit answered with."""
        self.id, self.epoch = outcome.values["pid"], outcome.values["epoch"]
        self._next.clear()


class Transaction:
    """Batches and offsets that become visible together, or not at all."""

    def __init__(self, producer: Producer) -> None:
        if not producer.transactional_id:
            raise InvalidRequest("A transaction needs a producer with a transactional id.")
        self.producer = producer
        self._places: list[tuple[str, int, int]] = []
        self._chunks: list[ops.Chunk] = []
        self._small: list[Append] = []
        self._small_bytes = 0
        self._offsets: list[ops.CommitOffsets] = []
        self._spilling = asyncio.Lock()
        self._identity = new_id(producer.namespace.chain.rng)
        self._token = ""
        self.state = "open"

    async def __aenter__(self) -> Transaction:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.commit()
        elif self.state == "open":
            self.abort()

    async def append(self, topic: str, partition: int, batch: Batch) -> None:
        """Add a batch. Large ones are stored at once, named by nothing; small ones ride with the commit.

        Raises ``Unavailable`` if the store does not take the bytes; the transaction is aborted then.
        """
        self._check_open()
        found = await self.producer.namespace.find_topic(topic)
        numbered = self.producer._numbered(batch, -1)
        append = Append(topic=found.id, partition=partition, batch=numbered)
        self._places.append((topic, partition, batch.count))
        self._small.append(append)
        self._small_bytes += len(batch.data)
        await self._spill(self.producer.namespace.chain.options.inline_bytes_max // 2)

    async def send_offsets(
        self, group: str, places: Mapping[tuple[str, int], int], *, generation: int = -1, member: str = ""
    ) -> None:
        """Commit the group's offsets with the transaction (KIP-447: fenced by the group's generation)."""
        self._check_open()
        self._offsets.append(await self.producer.namespace.offsets_op(group, places, generation, member))

    async def commit(self) -> list[Appended]:
        """Make it all visible by one intent. Where each batch lies, in the order of ``append``.

        Raises:
            Fenced: a newer producer or generation has taken over. Nothing is visible. Stop.
            NotFound: staged bytes were collected, since the transaction was open for too long, or a topic was
                deleted. Nothing is visible; do it anew.
            Unavailable: nothing is visible, and the transaction is still open: call ``commit`` again, or abort.
            Indeterminate: call ``commit`` again: it takes effect once, and then says so.
        """
        from headwater.log.namespace import Appended

        if self.state not in ("open", "indeterminate"):
            raise InvalidRequest(f"This transaction is {self.state}; begin a new one.")
        await self._spill(self.producer.namespace.chain.options.inline_bytes_max)
        try:
            outcome = await self._send()
        except Indeterminate as error:
            self.state, self._token = "indeterminate", error.token or self._token
            raise
        except (Unavailable, Throttled):
            raise  # turned away, and nothing is visible: the transaction is as open as before
        except HeadwaterError:
            self.state = "aborted"
            raise
        except BaseException:
            self.state = "indeterminate"  # the caller was cancelled, and the commit goes on without it
            raise
        self.state = "committed"
        self.producer.adopt(outcome)
        return [
            Appended(topic=topic, partition=partition, base_offset=base, count=count, commit=outcome.seq)
            for (topic, partition, count), base in zip(self._places, outcome.bases, strict=True)
        ]

    def abort(self) -> None:
        """Forget it. Nothing was visible, nothing will be; the collector takes staged bytes."""
        if self.state == "indeterminate":
            raise InvalidRequest("A commit of this transaction is undecided; commit it again to learn its outcome.")
        self.state = "aborted"

    async def _send(self) -> Outcome:
        producer = self.producer
        end = ops.EndTransaction(pid=producer.id, epoch=producer.epoch)
        return await producer.namespace.writer.commit_staged(
            self._chunks, self._small, [end, *self._offsets], token=self._token, intent_id=self._identity
        )

    async def _spill(self, bytes_max: int) -> None:
        """Store what has gathered if it is more than ``bytes_max``, so that memory and the manifest stay small."""
        async with self._spilling:  # one after another, since the order of chunks is the order of appends
            if self._small_bytes <= bytes_max:
                return
            small = list(self._small)
            try:
                self._chunks += await self.producer.namespace.writer.stage(small)
            except BaseException as error:
                # Without these bytes a commit would make half of the transaction visible.
                self.state = "aborted"
                if isinstance(error, Indeterminate):
                    raise Unavailable(f"The transaction's bytes could not be stored: {error}") from error
                raise
            del self._small[: len(small)]
            self._small_bytes = sum(len(append.batch.data) for append in self._small)

    def _check_open(self) -> None:
        if self.state != "open":
            raise InvalidRequest(f"This transaction is {self.state}; begin a new one.")
