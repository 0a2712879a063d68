"""Writing: batches, producers, and transactions in one request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from headwater.api import access
from headwater.api.names import check_batches, check_metadata, check_name, check_number, check_places
from headwater.api.offsets import offsets_op
from headwater.api.service_base import ServiceBase, verb
from headwater.api.verbs import Appended, Batch, GroupOffsets, ProducerId, Written
from headwater.errors import HeadwaterError, Indeterminate, InvalidRequest, Throttled
from headwater.limits import INTENT_OPS_MAX
from headwater.log import operations as ops
from headwater.log.outcomes import KeyReused, UnknownProducer
from headwater.log.state import Outcome
from headwater.log.writer import Append

Placed = tuple[str, int, Batch]
_EPOCH_MAX = 2**15 - 1


class WriteVerbs(ServiceBase):
    """The verbs that append."""

    @verb
    async def produce(
        self, batches: Sequence[Placed], *, token: str = "", once: str = "", request: str = ""
    ) -> Sequence[Appended]:
        check_batches(batches)
        wishes = [self._once(batches, once, request)] if once else []
        with _again(token):
            await self.enter()
            self._check_writes(batches)
            for producer in {batch.producer_id for _, _, batch in batches if batch.producer_id >= 0}:
                await self._check_producer(producer)
            self.pay("produce", sum(len(batch.data) for _, _, batch in batches))
            appends = await self._appends(batches)
        try:
            outcome = await self._space.writer.commit(appends, wishes, token=token)
        except KeyReused as error:
            raise KeyReused(
                f"The Idempotency-Key {once[:80]!r} came with another request, or for other partitions, less than an "
                "hour ago."
            ) from error
        return _appended(batches, outcome)

    @verb
    async def init_producer(self, transactional_id: str = "", *, current: ProducerId | None = None) -> ProducerId:
        check_name("transactional id", transactional_id, empty=True)
        if current is not None:
            check_identity(current)
        await self.enter()
        if transactional_id:
            self.check("write", "transactional_id", transactional_id)
        else:
            access.check_some(self._state, self.principal, self._scopes, "write", "topic")
        if current is not None and await self._check_producer(current.id) != transactional_id:
            raise InvalidRequest(f"Producer {current.id} is not the one of transactional id {transactional_id[:80]!r}.")
        known = (current.id, current.epoch) if current is not None else (-1, -1)
        op = ops.InitProducer(tid=transactional_id, pid=known[0], epoch=known[1])
        outcome = await self._space.writer.commit(ops=[op])
        return _next_producer(outcome, transactional_id)

    @verb
    async def transact(
        self,
        producer: ProducerId,
        batches: Sequence[Placed],
        offsets: Sequence[GroupOffsets] = (),
        *,
        token: str = "",
    ) -> Written:
        check_identity(producer)
        check_batches(batches, empty=True)
        check_offsets(offsets)
        with _again(token):
            await self.enter()
            self._check_writes(batches, offsets)
            tid = await self._transactional_id(producer.id)
            self.pay("produce", sum(len(batch.data) for _, _, batch in batches))
            commits = [await offsets_op(self._space, commit) for commit in offsets]
            appends = await self._appends(batches, producer)
        end = ops.EndTransaction(pid=producer.id, epoch=producer.epoch)
        outcome = await self._space.writer.commit(appends, [end, *commits], token=token)
        return Written(appended=_appended(batches, outcome), commit=outcome.seq, producer=_next_producer(outcome, tid))

    # -- the parts -------------------------------------------------------------------------------------

    def _check_writes(self, batches: Sequence[Placed], offsets: Sequence[GroupOffsets] = ()) -> None:
        """Whether the principal may write to the topics, and commit these offsets."""
        for topic in {topic for topic, _, _ in batches}:
            self.check("write", "topic", topic)
        for commit in offsets:
            self.check("read", "group", commit.group)
            for topic in {topic for topic, _ in commit.offsets}:
                self.check("read", "topic", topic)

    async def _check_producer(self, producer: int) -> str:
        """The transactional id of a producer, which the principal must be allowed to use; "" if it has none.

        Without this anybody who counts could fence the producers of others. Cost: nothing, or 1 GET for a producer
        that this process does not know yet.

        Raises:
            UnknownProducer: there is none of this id, or it is that of a transactional id which is none of the
                principal's business; the two look the same.
        """
        known = self._state.producers.get(producer)
        if known is None:
            known = (await self._space.refresh()).producers.get(producer)
        if known is None or (known.tid and not self.may("write", "transactional_id", known.tid)):
            raise UnknownProducer(f"Producer {producer} is unknown: it was never made, or was idle for too long.")
        return known.tid

    async def _transactional_id(self, producer: int) -> str:
        """The same, where there must be one."""
        tid = await self._check_producer(producer)
        if not tid:
            raise InvalidRequest(f"Producer {producer} has no transactional id; a transaction needs one.")
        return tid

    def _once(self, batches: Sequence[Placed], once: str, request: str) -> ops.Once:
        """The wish to be done once. A principal's keys are its own: another's requests are not found under them."""
        check_name("Idempotency-Key", once)
        key = hashlib.sha256(f"{self.principal}\0{once}".encode()).hexdigest()[:32]
        seen = hashlib.sha256()
        for topic, partition, batch in batches:
            seen.update(f"{topic}\0{partition}\0{batch.count}\0".encode())
            if not request:
                seen.update(hashlib.sha256(batch.data).digest())
        seen.update(request.encode(errors="replace"))
        return ops.Once(key=key, request=seen.hexdigest()[:32])

    async def _appends(self, batches: Sequence[Placed], producer: ProducerId | None = None) -> list[Append]:
        """Batches by topic id; those of a transaction carry its producer and no sequence."""
        appends = []
        for topic, partition, batch in batches:
            if producer is not None:
                batch = replace(batch, producer_id=producer.id, producer_epoch=producer.epoch, sequence=-1)
            appends.append(Append(topic=(await self._space.find_topic(topic)).id, partition=partition, batch=batch))
        return appends


def check_offsets(offsets: Sequence[GroupOffsets]) -> None:
    """What groups want to commit. Raises ``InvalidRequest``."""
    if sum(len(commit.offsets) for commit in offsets) > INTENT_OPS_MAX or len(offsets) > INTENT_OPS_MAX // 2:
        raise InvalidRequest(f"One request commits at most {INTENT_OPS_MAX} offsets.")
    for commit in offsets:
        check_name("group's name", commit.group)
        check_name("member id", commit.member, empty=True)
        check_number("generation", commit.generation, -1)
        check_places(commit.offsets)
        for place in commit.offsets.values():
            check_number("offset", place.offset)
            check_metadata(place.metadata)


def check_identity(producer: ProducerId) -> None:
    """A producer as an earlier answer named it. Raises ``InvalidRequest``."""
    check_number("producer id", producer.id)
    check_number("producer epoch", producer.epoch, 0, _EPOCH_MAX)


@contextmanager
def _again(token: str) -> Iterator[None]:
    """With a token: whatever turns this attempt away says nothing about the first one."""
    try:
        yield
    except InvalidRequest:
        raise
    except HeadwaterError as error:
        if not token:
            raise
        undecided = Indeterminate(f"{error.message} What the first attempt did is not known.", token=token)
        if isinstance(error, Throttled):
            undecided.data["retry_after_ms"] = error.retry_after_ms
        raise undecided from error


def _appended(batches: Sequence[Placed], outcome: Outcome) -> list[Appended]:
    if len(batches) != len(outcome.bases):
        raise InvalidRequest("The token is of another request; nothing was done now.")
    commit = outcome.values.get("first", outcome.seq)
    return [
        Appended(topic=topic, partition=partition, base_offset=base, count=batch.count, commit=commit)
        for (topic, partition, batch), base in zip(batches, outcome.bases, strict=True)
    ]


def _next_producer(outcome: Outcome, tid: str) -> ProducerId:
    if "pid" not in outcome.values:
        raise InvalidRequest("The token is of another request; nothing was done now.")
    return ProducerId(id=outcome.values["pid"], epoch=outcome.values["epoch"], transactional_id=tid)
