"""The write path's upper half: batches become chunks, chunks become intents, small ones ride inline.

    append ──► small: its bytes ride in the manifest (or in the published segment)
           └─► large: packed with its neighbours into segments that upload in parallel; the intent that
               names them waits in the queue for its bytes, so the order of calls is the order of the log

I2: an intent goes to the committer's manifest only after every byte that it names is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from headwater import lines, tracing
from headwater.errors import HeadwaterError, Indeterminate, InvalidRequest, Unavailable
from headwater.limits import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, INTENT_APPENDS_MAX, OBJECT_BYTES_MAX
from headwater.log import frame, keys
from headwater.log.committer import Committer
from headwater.log.guard import refuse_misfits
from headwater.log.intents import FORMAT, Intent, SegmentHeader, check_intent, encode_segment, new_id
from headwater.log.operations import AnyOp, Chunk
from headwater.log.outcomes import checked
from headwater.log.payload import Piece
from headwater.log.queue import Told, parse_token
from headwater.log.state import Outcome
from headwater.log.together import unheard
from headwater.meters import families
from headwater.types import Batch, Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """One batch for one partition, by topic id."""

    topic: int
    partition: int
    batch: Batch


@dataclass(slots=True, eq=False)
class _Pack:
    """A segment that is being filled: parts, their size, and where it will lie once it is stored."""

    parts: list[Buffer] = field(default_factory=list)
    size: int = 0
    stored: asyncio.Future[tuple[str, int]] | None = None  # key, payload base
    closing: asyncio.TimerHandle | None = None  # while it waits for company
    closes_now: bool = False
    waits: bool = False  # for an upload to end: as many as may be are under way
    intents: set[asyncio.Future[Piece]] = field(default_factory=set)  # of which it holds the last bytes


class Writer:
    """Turns appends and operations into intents and has them committed. One per process and namespace."""

    def __init__(self, committer: Committer) -> None:
        self.committer = committer
        self.chain = committer.chain
        self.options = committer.options
        self.company = committer.queue.company
        self._pack = _Pack()
        committer.queue.waits = self._awaited
        self._segments = 0  # stored so far
        self._uploads: set[asyncio.Task[None]] = set()
        self._upload_slots = asyncio.Semaphore(self.options.uploads_max)
        self._buffered = 0
        self._door = asyncio.Lock()
        self._room = asyncio.Event()

    async def commit(
        self,
        appends: Sequence[Append] = (),
        ops: Sequence[AnyOp] = (),
        *,
        token: str = "",
        caller: Hashable = None,
        told: Told | None = None,
    ) -> Outcome:
        """Make all of it true by one intent, or nothing, and say what the fold made of it.

        With ``token``, that of an ``Indeterminate`` of the very same call, the first attempt's outcome is
        returned if it took effect, and it never takes effect twice. ``caller`` says for whom it is, where one process
        appends for many (see ``headwater.log.company``). ``told`` hears of the outcome, refusals too, inside the fold:
        before any reader of this process that waits for the chain to grow sees the records.

        Raises:
            InvalidRequest, NotFound, Conflict, Fenced, OutOfOrder, UnknownProducer: not applied.
            Unavailable: the store turned us away until the deadline. Not applied.
            Indeterminate: the store fell silent. Call again with ``token=error.token`` to learn the outcome.

        Cost: alone 1 conditional PUT, and 1 PUT a segment of up to 8 MiB if it is large;
        contended 1 PUT, about 3 GET, 0.02 to 0.5 LIST.
        """
        _check(appends)
        intent_id = parse_token(token)[0] if token else new_id(self.chain.rng)
        size = sum(len(append.batch.data) for append in appends)

        async def submit(tip: int | None) -> Outcome:
            refuse_misfits(self.chain.state, appends, ops, token=token)
            # A caller that is cancelled leaves; the commit goes on, since it may be shared with others.
            return await asyncio.shield(self._submit(appends, list(ops), intent_id, tip, size, caller, told))

        start_s = self.chain.clock.elapsed_s()
        await self._enter(size)
        try:
            outcome = await self._settle(token, submit, intent_id)
        finally:
            self._leave(size)
        self._count(appends, self.chain.clock.elapsed_s() - start_s)
        return outcome

    def begin(
        self,
        appends: Sequence[Append],
        ops: Sequence[AnyOp] = (),
        *,
        caller: Hashable = None,
        told: Told | None = None,
    ) -> asyncio.Future[Outcome] | None:
        """As ``commit``, for callers that are many and must be cheap: the intent is in the queue when this returns.

        None if there is no room for its bytes right now: nothing was done, and ``commit`` waits for room. The future is
        the committer's own, so it must not be cancelled. A refusal is an outcome here (see ``outcomes.checked``).

        Raises ``InvalidRequest``. The future may raise ``Unavailable`` or ``Indeterminate``, as ``commit`` does.
        """
        size = sum([len(append.batch.data) for append in appends])
        if self._door.locked() or not self._has_room(size):
            return None
        _check(appends)
        refuse_misfits(self.chain.state, appends, ops)
        intent_id, start_s = new_id(self.chain.rng), self.chain.clock.elapsed_s()
        waiting = self._submit(appends, list(ops), intent_id, None, size, caller, told)
        self._buffered += size

        def ended(done: asyncio.Future[Outcome]) -> None:
            self._leave(size)
            if done.exception() is None:
                outcome = done.result()
                lines.committed(intent_id, outcome.seq, outcome.error)
                if not outcome.error:
                    self._count(appends, self.chain.clock.elapsed_s() - start_s)
            elif isinstance(done.exception(), Indeterminate):
                lines.committed(intent_id, None)

        waiting.add_done_callback(ended)
        return waiting

    def _count(self, appends: Sequence[Append], seconds: float) -> None:
        """What was acknowledged; topics that are deleted by now share a name."""
        meters, name, topics = self.options.meters, self.chain.name, self.chain.state.topics
        meters.histogram(families.COMMIT_SECONDS, name).observe(seconds)
        if appends:
            meters.histogram(families.PRODUCE_SECONDS, name).observe(seconds)
        for append in appends:
            known = topics.get(append.topic)
            topic = known.name if known is not None else "deleted"
            meters.counter(families.PRODUCED_RECORDS, name, topic).add(append.batch.count)
            meters.counter(families.PRODUCED_BYTES, name, topic).add(len(append.batch.data))

    async def _settle(self, token: str, submit: Callable[[int | None], Awaitable[Outcome]], intent_id: str) -> Outcome:
        """Submit, or learn what became of an earlier submission; answer the outcome or raise what it means."""
        lost = self.committer.journal.lost
        try:
            with tracing.span("headwater commit", headwater__intent=intent_id) as span:
                outcome = await self._outcome(token, submit, intent_id)
                if span is not None:
                    span.set_attribute("headwater.commit", outcome.seq)
                    span.set_attribute("headwater.slots_lost", self.committer.journal.lost - lost)
        except Indeterminate:
            lines.committed(intent_id, None)
            raise
        lines.committed(intent_id, outcome.seq, outcome.error)
        return checked(outcome)

    async def _outcome(self, token: str, submit: Callable[[int | None], Awaitable[Outcome]], intent_id: str) -> Outcome:
        if not token:
            return await submit(None)
        try:
            # See all that was committed up to now, so that an earlier attempt under this id is known.
            await self.chain.refresh()
            tip = parse_token(token)[1]
            if tip > self.chain.state.seq:
                raise InvalidRequest(
                    f"The token {token!r} is of commit {tip} and this log ends at {self.chain.state.seq}: it is of "
                    "another namespace, or of a time before this one was restored."
                )
            return self.chain.state.recent.get(intent_id) or await submit(tip)
        except InvalidRequest:
            raise
        except HeadwaterError as error:
            # Whatever befell this attempt says nothing about the first one.
            raise Indeterminate(error.message, token=token) from error

    async def commit_staged(
        self, staged: Sequence[Chunk], appends: Sequence[Append], ops: Sequence[AnyOp], *, token: str, intent_id: str
    ) -> Outcome:
        """Commit chunks that lie in segments already, then small appends, by one intent (see ``commit``)."""
        _check(appends)
        if len(staged) + len(appends) > INTENT_APPENDS_MAX:
            raise InvalidRequest(f"One commit takes at most {INTENT_APPENDS_MAX} batches.")
        chunks = [*staged, *(_chunk(append) for append in appends)]
        data = [append.batch.data for append in appends]
        intent = Intent(id=intent_id, tip=0, appends=chunks, ops=list(ops))
        header_bytes = check_intent(intent)

        async def submit(tip: int | None) -> Outcome:
            refuse_misfits(self.chain.state, appends, token=token)
            piece = Piece(intent=intent, parts=data, size=sum(map(len, data)), header_bytes=header_bytes, tip=tip)
            return await asyncio.shield(self.committer.submit(piece))

        return await self._settle(token, submit, intent_id)

    def _submit(
        self,
        appends: Sequence[Append],
        ops: list[AnyOp],
        intent_id: str,
        tip: int | None,
        size: int,
        caller: Hashable,
        told: Told | None,
    ) -> asyncio.Future[Outcome]:
        chunks = [_chunk(append) for append in appends]
        intent = Intent(id=intent_id, tip=0, appends=chunks, ops=ops)
        header_bytes = check_intent(intent)
        data = [append.batch.data for append in appends]
        if not size or self.committer.queue.has_room_inline(size):
            piece = Piece(intent=intent, parts=data, size=size, header_bytes=header_bytes, tip=tip)
            return self.committer.submit(piece, caller=caller, told=told)
        # Manifests follow one another, so what the next one cannot carry would wait for round trip after round trip.
        # Segments are stored side by side, and the next manifest names them all. One may fill up for as long as a
        # commit may wait for company, unless the next commit waits for it.
        ready = self._staged(intent, data, tip, header_bytes)
        piece = Piece(intent=intent, header_bytes=header_bytes, tip=tip)
        waiting = self.committer.submit(piece, ready, caller=caller, told=told)
        self._close_in(self.options.linger_ms / 1_000)
        return waiting

    async def drain(self) -> None:
        """Return when no upload and no commit is in flight (R10)."""
        await self.committer.drain()
        while self._uploads or self.committer.busy:
            if self._uploads:
                await asyncio.wait(set(self._uploads))
            await self.committer.drain()

    # -- staging ---------------------------------------------------------------------------------

    async def stage(self, batches: Sequence[Append]) -> list[Chunk]:
        """Store the batches as segments that no manifest names yet, and say where they lie.

        Raises ``Unavailable`` if the store does not take them; nothing is visible then.
        """
        _check(batches)
        refuse_misfits(self.chain.state, batches)
        size = sum(len(append.batch.data) for append in batches)
        await self._enter(size)
        try:
            chunks = [_chunk(append) for append in batches]
            staged = self._staged(Intent(id="staged", tip=0, appends=chunks), [b.batch.data for b in batches], None, 0)
            staged.add_done_callback(unheard)
            self._close_in(0.0)
            return (await staged).intent.appends
        finally:
            self._leave(size)

    def _staged(
        self, intent: Intent, data: Sequence[Buffer], tip: int | None, header_bytes: int
    ) -> asyncio.Future[Piece]:
        """The intent with its bytes in segments, once they are stored there. The last of them is still to be closed."""
        places = [self._add_to_pack(part) for part in data]
        packs = [*{pack.stored: None for pack, _ in places if pack.stored is not None}]
        stored: asyncio.Future[Any] = packs[0] if len(packs) == 1 else asyncio.gather(*packs)
        ready: asyncio.Future[Piece] = asyncio.get_running_loop().create_future()

        def done(_: object) -> None:
            if ready.done():
                return
            error = stored.exception()
            if error is not None:
                ready.set_exception(error)
            else:
                ready.set_result(_placed(intent, places, tip, header_bytes))

        stored.add_done_callback(done)
        self._pack.intents.add(ready)
        return ready

    def _awaited(self, ready: asyncio.Future[Piece]) -> None:
        """The next commit waits for this intent: its segment fills no longer."""
        if ready in self._pack.intents:
            self._close_pack()

    def _add_to_pack(self, part: Buffer) -> tuple[_Pack, int]:
        if self._pack.size and self._pack.size + len(part) > self.options.segment_bytes_target:
            self._send_off()
        pack, pos = self._pack, self._pack.size
        if pack.stored is None:
            pack.stored = asyncio.get_running_loop().create_future()
            pack.stored.add_done_callback(unheard)
        pack.parts.append(part)
        pack.size += len(part)
        return pack, pos

    def _close_in(self, linger_s: float) -> None:
        """Close the open pack in ``linger_s`` at the latest; with 0.0, when the callers of this moment have come."""
        loop, pack = asyncio.get_running_loop(), self._pack
        if not pack.size:
            return  # it has just been closed, or there was nothing to put into it
        if linger_s > 0:
            pack.closing = pack.closing or loop.call_later(linger_s, self._close_pack, pack)
        elif not pack.closes_now:
            pack.closes_now = True
            loop.call_soon(self._close_pack, pack)

    def _close_pack(self, pack: _Pack | None = None) -> None:
        """Send off the open pack, if it is this one, as soon as an upload may begin: until then it fills."""
        if self._pack.size and pack in (None, self._pack):
            if len(self._uploads) < self.options.uploads_max:
                self._send_off()
            else:
                self._pack.waits = True

    def _send_off(self) -> None:
        """Close the open pack and upload it."""
        pack, self._pack = self._pack, _Pack()
        if pack.closing is not None:
            pack.closing.cancel()
        task = asyncio.get_running_loop().create_task(self._upload(pack), name="headwater-upload")
        self._uploads.add(task)
        task.add_done_callback(self._uploaded)

    def _uploaded(self, task: asyncio.Task[None]) -> None:
        self._uploads.discard(task)
        if self._pack.waits:
            self._close_pack()

    async def _upload(self, pack: _Pack) -> None:
        assert pack.stored is not None
        try:
            async with self._upload_slots:
                if self.chain.is_stale():
                    await self.chain.refresh()  # R4: a name with the tip of days ago would be collected at once
                self._segments += 1
                writer = self.committer.journal.writer
                key = keys.segment_key(self.chain.state.seq, writer + keys.STAGED, self._segments)
                line = encode_segment(SegmentHeader(v=FORMAT, kind="segment", writer=writer), pack.size)
                assert len(line) + pack.size <= OBJECT_BYTES_MAX, "packs are bounded far below the largest object"
                await self.chain.retry(lambda: self.chain.store.put(key, [line, *pack.parts]))
            if not pack.stored.done():
                pack.stored.set_result((key, len(line)))
        except Indeterminate as error:
            # Stored or not, no manifest names these bytes yet: whatever wanted them was not applied.
            away = Unavailable(f"The batch could not be stored, so nothing of it was committed: {error}")
            away.__cause__ = error
            _refuse(pack.stored, away)
        except BaseException as error:
            _refuse(pack.stored, error)
            if not isinstance(error, Exception):
                raise

    # -- back-pressure -----------------------------------------------------------------------------

    async def _enter(self, size: int) -> None:
        """Wait until the buffer has room: memory stays bounded however fast the callers are.

        Callers pass in the order in which they came, so a small append never overtakes a large one.
        """
        async with self._door:
            while not self._has_room(size):
                self._room.clear()
                await self._room.wait()
            self._buffered += size

    def _has_room(self, size: int) -> bool:
        """Whether the buffer takes so many bytes more; an empty one takes anything."""
        return not self._buffered or self._buffered + size <= self.options.write_buffer_bytes_max

    def _leave(self, size: int) -> None:
        self._buffered -= size
        self._room.set()


def _refuse(stored: asyncio.Future[tuple[str, int]], error: BaseException) -> None:
    if not stored.done():
        stored.set_exception(error)


def _placed(intent: Intent, places: Sequence[tuple[_Pack, int]], tip: int | None, header_bytes: int) -> Piece:
    """The intent with chunks that name where their bytes lie."""
    placed = []
    for chunk, (pack, pos) in zip(intent.appends, places, strict=True):
        assert pack.stored is not None
        key, base = pack.stored.result()
        placed.append(structs.replace(chunk, obj=key, pos=base + pos))
    # A segment's key is longer than the empty one that the intent was measured with.
    header_bytes += sum([len(chunk.obj) + 12 for chunk in placed])
    return Piece(intent=structs.replace(intent, appends=placed), header_bytes=header_bytes, tip=tip)


def _chunk(append: Append) -> Chunk:
    batch = append.batch
    return Chunk(
        topic=append.topic,
        partition=append.partition,
        count=batch.count,
        codec=batch.codec,
        pos=0,
        len=len(batch.data),
        crc=batch.crc if batch.crc >= 0 else frame.checksum(batch.data),
        min=batch.timestamp_min,
        max=batch.timestamp_max,
        pid=batch.producer_id,
        epoch=batch.producer_epoch,
        seq=batch.sequence,
    )


def _check(appends: Sequence[Append]) -> None:
    if len(appends) > INTENT_APPENDS_MAX:
        raise InvalidRequest(f"One commit takes at most {INTENT_APPENDS_MAX} batches; this one has {len(appends)}.")
    for append in appends:
        batch = append.batch
        if not 0 < len(batch.data) <= BATCH_BYTES_MAX:
            raise InvalidRequest(f"A batch has 1 to {BATCH_BYTES_MAX} bytes; this one has {len(batch.data)}.")
        if not 0 < batch.count <= BATCH_RECORDS_MAX:
            raise InvalidRequest(f"A batch has 1 to {BATCH_RECORDS_MAX} records; this one has {batch.count}.")
