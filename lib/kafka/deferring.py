"""Transactions whose batches wait outside of the log, so that an open one holds up no reader.

    Produce …   bytes are stored, and named by the document of the transactional id alone; there are no offsets yet
    EndTxn      one intent ends the transaction and appends all of it, or the document is emptied
    time-out    nobody waits for it: it is seen when the producer comes to end the transaction, which fences it

The document is changed by put-if-match, so every request may go to another gateway. A transaction that cannot be
committed (its time is up, a topic is gone) fences its producer: what was acknowledged is never taken for committed. Who
keeps its epoch (before KIP-890) goes on with its sequence numbers after an abort, too, so what such a one aborts passes
through the log as a reservation that is voided at once.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from msgspec import structs

from headwater.api.documents import Documents, Held
from headwater.api.settle import Wish, committing, record, settle
from headwater.errors import Fenced, HeadwaterError, InvalidRequest, NotFound, Unavailable
from headwater.limits import INTENT_APPENDS_MAX, KAFKA_TRANSACTIONS_MAX, RESERVING_TRIES_MAX
from headwater.log import operations as ops
from headwater.log.intents import Intent, check_intent
from headwater.log.keys import DEFERRED
from headwater.log.namespace import Namespace
from headwater.log.outcomes import OutOfOrder, UnknownProducer, checked
from headwater.log.reserving import Reserving, timeout_ms
from headwater.log.state import State
from headwater.log.together import unheard
from headwater.log.writer import Append

_SEQUENCES: Final = 2**31
_Waiting: TypeAlias = tuple[asyncio.Task[list[ops.Chunk]], asyncio.Future[None]]


class DeferredDocument(Wish, frozen=True, kw_only=True):
    """The transaction that the producer ``tid`` has open under ``pid`` and ``epoch``, or had last.

    ``opened_ms`` is when this one began, by the store's clock (-1: with the document). While it is committing,
    ``ends`` is what that is for.
    """

    tid: str
    pid: int
    epoch: int
    timeout_ms: int
    opened_ms: int = -1
    ends: ops.EndReserve | None = None


@dataclass(slots=True)
class _Queue:
    """What is on its way into one document, in the order in which it came."""

    waiting: deque[_Waiting] = field(default_factory=deque)
    held: Held[DeferredDocument] | None = None  # as this gateway saw it last
    worker: asyncio.Task[None] | None = None


class Deferring:
    """The deferred transactions of one namespace, as far as this gateway has to do with them."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.documents = Documents(
            namespace.chain, DeferredDocument, folder=DEFERRED.removesuffix("/"), what="deferred transaction"
        )
        self._queues: OrderedDict[tuple[str, int, int], _Queue] = OrderedDict()

    # -- what a transaction takes in -----------------------------------------------------------------------

    def begin(self, tid: str, appends: Sequence[Append]) -> asyncio.Future[None]:
        """Take batches of one producer into its open transaction; done once they are stored and named.

        Called in the order in which they are to be in the log. It fails as ``Writer.commit`` does; nothing was taken
        in then, unless it is ``Indeterminate``: the same call again finds that out. Cost: 1 PUT for each 8 MiB, and 1
        PUT for all that come while another is on its way.
        """
        loop = asyncio.get_running_loop()
        batch = appends[0].batch
        key = (tid, batch.producer_id, batch.producer_epoch)
        queue = self._queues.setdefault(key, _Queue())
        self._queues.move_to_end(key)
        staging, done = loop.create_task(self.namespace.writer.stage(appends)), loop.create_future()
        done.add_done_callback(unheard)
        queue.waiting.append((staging, done))
        if queue.worker is None:
            queue.worker = loop.create_task(self._work(key, queue))
        return done

    async def _work(self, key: tuple[str, int, int], queue: _Queue) -> None:
        try:
            while queue.waiting:
                gathered = list(queue.waiting)
                queue.waiting.clear()
                await self._gathered(key, queue, gathered)
        finally:
            queue.worker = None
            while len(self._queues) > KAFKA_TRANSACTIONS_MAX and next(iter(self._queues.values())).worker is None:
                self._queues.popitem(last=False)

    async def _gathered(self, key: tuple[str, int, int], queue: _Queue, gathered: Sequence[_Waiting]) -> None:
        """Put all that waited into the document at once; where that is refused, each by itself."""
        stored = await asyncio.gather(*(staging for staging, _ in gathered), return_exceptions=True)
        try:
            if not any(isinstance(chunks, BaseException) for chunks in stored):
                await self._add(key, queue, [chunk for chunks in stored for chunk in chunks])  # type: ignore[union-attr]
                for _, done in gathered:
                    _tell(done, None)
                return
        except OutOfOrder:
            with suppress(HeadwaterError):
                await self.namespace.refresh()  # the last transaction may have ended at another gateway
        except Exception as error:
            if len(gathered) == 1:
                _tell(gathered[0][1], error)
                return
        for chunks, (_, done) in zip(stored, gathered, strict=True):
            try:
                if isinstance(chunks, BaseException):
                    raise chunks
                await self._add(key, queue, chunks)
                _tell(done, None)
            except Exception as error:
                _tell(done, error)

    async def _add(self, key: tuple[str, int, int], queue: _Queue, chunks: Sequence[ops.Chunk]) -> None:
        tid, pid, epoch = key
        state = await self._owned(tid, pid, epoch)
        empty = DeferredDocument(tid=tid, pid=pid, epoch=epoch, timeout_ms=timeout_ms(state.producers[pid]))
        held = queue.held or await self._load(key)
        queue.held = None  # whatever fails, the next one looks anew
        if held is not None and held.doc.state == "committing":
            # Who ended the last transaction could not note it, and the producer has gone on.
            await self._finish(Reserving(self.namespace, *key), held)
            held = await self._load(key)
        if held is None:
            first = structs.replace(empty, chunks=_added([], chunks, self.namespace.state))
            await self.documents.create_named(_name(key), _checked(first))
            held = await self.documents.load(_name(key), "")  # ours, or that of another gateway which was first

        def added(now: Held[DeferredDocument]) -> DeferredDocument | None:
            if now.doc.state == "committing":
                raise Unavailable("The end of the transaction is under way; ask again once it is known.")
            if now.doc.state != "open":
                begun = _added([], chunks, self.namespace.state)
                return _checked(structs.replace(empty, chunks=begun, opened_ms=now.now_ms)) if begun else None
            grown = _added(now.doc.chunks, chunks, self.namespace.state)
            return _checked(structs.replace(now.doc, chunks=grown)) if len(grown) > len(now.doc.chunks) else None

        queue.held = await self.documents.change(held, added)

    async def _owned(self, tid: str, pid: int, epoch: int) -> State:
        """The state in which the producer is the transactional id's. Raises ``Fenced`` or ``UnknownProducer``."""
        state = self.namespace.state
        if state.transactional.get(tid) != pid or state.producers[pid].epoch != epoch:
            state = await self.namespace.refresh()
        if state.transactional.get(tid) != pid:
            raise UnknownProducer(f"Transactional id {tid!r} is not producer {pid}'s.")
        if state.producers[pid].epoch != epoch:
            raise Fenced(f"Producer {pid} is at epoch {state.producers[pid].epoch}, not {epoch}.")
        return state

    # -- how it ends -----------------------------------------------------------------------------------------

    async def end(self, open_: Reserving, *, commit: bool, bump: bool, begun: bool) -> tuple[int, int]:
        """What ``Reserving.end`` promises, for all that was taken in here and all that was reserved, together.

        Raises:
            Fenced: its time was up, or it cannot be committed any more. Nothing of it became true, and nothing will.

        Cost: 1 commit, 1 GET and 2 PUTs; an abort under the same epoch 2 commits.
        """
        key = (open_.tid, open_.pid, open_.epoch)
        self._queues.pop(key, None)
        for _ in range(RESERVING_TRIES_MAX):
            held = await self._load(key)
            if held is None or held.doc.state in ("done", "aborted"):
                return await open_.end(commit=commit, bump=bump, begun=begun)
            if held.doc.state == "open" and not commit and bump:
                ended = await open_.end(commit=False, bump=True, begun=True)
                await self._drop(held)
                return ended
            if held.doc.state == "open" and commit and _is_overdue(held):
                await self._give_up(open_, held, "its time was up")
            held = await self._ending(held, open_, commit=commit, bump=bump)
            found = await self._finish(open_, held)
            # If it was ended otherwise, that is told like every such repetition, unless this is the next one by now.
            if found is not None and held.doc.ends is not None and held.doc.ends.commit == commit:
                return found
        raise Unavailable("The transaction changes while it is ended; nothing of it is true yet. Ask again.")

    async def _ending(
        self, held: Held[DeferredDocument], open_: Reserving, *, commit: bool, bump: bool
    ) -> Held[DeferredDocument]:
        """The document with what it is to become fixed, whoever goes on with it."""
        await self.namespace.refresh()  # the window of the intent begins at its tip

        def fixed(now: Held[DeferredDocument]) -> DeferredDocument | None:
            if now.doc.state != "open":
                return None
            (end,) = open_.ending(commit=commit, bump=bump)
            assert isinstance(end, ops.EndReserve)
            return structs.replace(committing(self.namespace, now.doc), ends=structs.replace(end, brings=True))

        return await self.documents.change(held, fixed)

    async def _finish(self, open_: Reserving, held: Held[DeferredDocument]) -> tuple[int, int] | None:
        """The id and epoch to go on under; None if the producer has gone a step meanwhile: it is to be tried anew.

        Whoever comes may do it, as often as need be: the document says what it is.
        """
        end = held.doc.ends
        assert end is not None
        if end.commit:
            wishes: list[ops.AnyOp] = [end]
        else:  # the epoch stays, so sequence numbers go on: the log must have seen them
            wishes = [ops.Reserve(pid=open_.pid, epoch=open_.epoch, timeout_ms=held.doc.timeout_ms)]
        held, outcome = await settle(self.namespace, self.documents, held, wishes)
        if outcome.error == "stale":
            opened = structs.replace(held.doc, state="open", intent="", ends=None, outcome=None)
            await self.documents.change(held, lambda now: opened if now.doc.intent == held.doc.intent else None)
            return None
        try:
            checked(outcome)
        except (Fenced, UnknownProducer):
            await self._drop(held)
            raise
        except HeadwaterError as error:
            await self._give_up(open_, held, error.message)
        if end.commit:
            found = outcome.values["pid"], outcome.values["epoch"]
        else:
            found = await open_.end(commit=False, bump=end.bump)
        await self._drop(held, state="done" if end.commit else "aborted")
        return found

    async def _give_up(self, open_: Reserving, held: Held[DeferredDocument], why: str) -> None:
        """Fence the producer, whose acknowledged batches will never be true. Raises ``Fenced``."""
        await open_.end(commit=False, bump=True, begun=True)
        await self._drop(held)
        raise Fenced(f"The transaction of {open_.tid!r} was aborted: {why}. Nothing of it is true; begin anew.")

    # -- documents -------------------------------------------------------------------------------------------

    async def _load(self, key: tuple[str, int, int]) -> Held[DeferredDocument] | None:
        try:
            return await self.documents.load(_name(key), "")
        except NotFound:
            return None

    async def _drop(self, held: Held[DeferredDocument], state: Literal["done", "aborted"] = "aborted") -> None:
        """Empty the document. If that fails the fold knows all the same: its producer has ended, or is fenced."""
        now = self.namespace.state.producers.get(held.doc.pid)
        if now is None or now.epoch != held.doc.epoch:  # nothing comes under this epoch any more
            with suppress(HeadwaterError):
                await self.namespace.chain.retry(lambda: self.namespace.chain.store.delete([DEFERRED + held.id]))
            return
        gone = structs.replace(held.doc, state=state, chunks=[], ends=None)
        if held.doc.state == "committing":
            await record(self.documents, held, gone)


def _tell(done: asyncio.Future[None], error: Exception | None) -> None:
    """Say how it went, if anybody still waits."""
    if not done.done():
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


def _name(key: tuple[str, int, int]) -> str:
    """One document for each life of a producer, at every gateway the same."""
    tid, pid, epoch = key
    digest = hashlib.sha256(f"{pid}\0{epoch}\0{tid}".encode()).digest()
    return base64.b32encode(digest[:20]).decode().lower()


def _is_overdue(held: Held[DeferredDocument]) -> bool:
    if held.doc.opened_ms < 0:
        return held.older_than(held.doc.timeout_ms)
    return held.now_ms >= 0 and held.now_ms - held.doc.opened_ms > held.doc.timeout_ms


def _added(known: Sequence[ops.Chunk], chunks: Sequence[ops.Chunk], state: State) -> list[ops.Chunk]:
    """What is known, and those of ``chunks`` that are new. Raises ``OutOfOrder``, ``InvalidRequest``."""
    grown = list(known)
    ends = {(chunk.topic, chunk.partition): chunk for chunk in known}
    seen = {(chunk.topic, chunk.partition, chunk.seq, chunk.count) for chunk in known}
    for chunk in chunks:
        place = (chunk.topic, chunk.partition)
        if (*place, chunk.seq, chunk.count) in seen or _is_in_the_log(state, chunk):
            continue
        last = ends.get(place)
        expected = (last.seq + last.count) % _SEQUENCES if last is not None else _next_in_the_log(state, chunk)
        if chunk.seq != expected:
            raise OutOfOrder(f"Producer {chunk.pid} sends sequence {chunk.seq} where {expected} comes next.")
        ends[place] = chunk
        grown.append(chunk)
    return grown


def _is_in_the_log(state: State, chunk: ops.Chunk) -> bool:
    known = state.producers[chunk.pid].sequences.get(chunk.topic, {}).get(chunk.partition)
    if known is None or known.epoch != chunk.epoch:
        return False
    return any((first, count) == (chunk.seq, chunk.count) for first, count, _ in known.batches)


def _next_in_the_log(state: State, chunk: ops.Chunk) -> int:
    known = state.producers[chunk.pid].sequences.get(chunk.topic, {}).get(chunk.partition)
    if known is None or known.epoch != chunk.epoch:
        return 0
    first, count, _ = known.batches[-1]
    return (first + count) % _SEQUENCES


def _checked(doc: DeferredDocument) -> DeferredDocument:
    """What is in the document must become an intent that every process can read. Raises ``InvalidRequest``."""
    if len(doc.chunks) > INTENT_APPENDS_MAX:
        raise InvalidRequest(f"A transaction takes at most {INTENT_APPENDS_MAX} batches; commit this one.")
    check_intent(Intent(id="x" * 12, tip=2**40, appends=doc.chunks, ops=[]))
    return doc
