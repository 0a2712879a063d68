"""Transactions of several requests: begin, add, commit or abort, each served by whatever process is there.

A transaction is a document (``headwater.api.documents``). Adding stages bytes in segments that no manifest names and
writes into the document where they lie; committing makes **one** intent of it all, so that nothing is visible before,
and everything is after. The bytes' places never pass through the client: whoever could name bytes could read others'.

    open ──► committing ──► done                  the intent was applied
      │           └───────► aborted               … or refused: fenced, its bytes collected, a topic deleted
      └───────────────────► aborted               by its owner; past its time nothing else is left

A crash anywhere leaves a document that the next ``commit`` finishes (``headwater.api.settle``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from msgspec import field, structs

from headwater.api.documents import Documents, Held
from headwater.api.offsets import offsets_op
from headwater.api.settle import Wish, committing, record, settle
from headwater.api.verbs import GroupOffsets, ProducerId, Written
from headwater.errors import Conflict, Fenced, InvalidRequest
from headwater.limits import INTENT_APPENDS_MAX, TRANSACTION_ADDS_MAX, TRANSACTION_MS_MAX
from headwater.log import operations as ops
from headwater.log.intents import Intent, check_intent, new_id
from headwater.log.namespace import Appended, Namespace
from headwater.log.outcomes import ExpiredTransaction, UnknownProducer, checked
from headwater.log.writer import Append
from headwater.types import Batch


class TransactionDocument(Wish, frozen=True, kw_only=True):
    """``names`` are the topics' names by id; ``adds`` the ids of the requests that added to it."""

    pid: int
    epoch: int
    timeout_ms: int
    tid: str = ""
    names: dict[int, str] = field(default_factory=dict)
    offsets: list[ops.CommitOffsets] = field(default_factory=list)
    adds: list[str] = field(default_factory=list)


class Transactions:
    """The transactions of several requests of one namespace. Every method may run in another process than the last.

    ``principal`` is who asks: a transaction that somebody else began does not exist for him.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.documents = Documents(namespace.chain, TransactionDocument, folder="transaction", what="transaction")

    async def begin(self, producer: ProducerId, timeout_ms: int = 60_000, *, principal: str = "") -> str:
        """Begin a transaction of ``producer`` and say its id, which is the right to it: keep it to yourself.

        Raises:
            InvalidRequest: the time is not 1 ms to 15 minutes. UnknownProducer, Fenced: the producer is nobody's.

        Cost: 1 PUT.
        """
        if not 1 <= timeout_ms <= TRANSACTION_MS_MAX:
            raise InvalidRequest(f"A transaction has 1 to {TRANSACTION_MS_MAX} ms, not {timeout_ms}.")
        tid = await self._transactional_id(producer)
        doc = TransactionDocument(
            pid=producer.id, epoch=producer.epoch, tid=tid, timeout_ms=timeout_ms, principal=principal
        )
        return await self.documents.create(doc)

    async def add(
        self,
        transaction: str,
        batches: Sequence[tuple[str, int, Batch]],
        offsets: Sequence[GroupOffsets] = (),
        *,
        principal: str = "",
    ) -> None:
        """Store the batches, named by nothing, and note them and the offsets in the transaction.

        A batch with a sequence number that the transaction holds already for its partition is left out, so a call
        whose answer was lost can be repeated. Batches without one would be there twice: abort after such a loss.

        Raises:
            NotFound: no such transaction, topic or partition. Conflict: it is not open any more.
            ExpiredTransaction: its time is up. InvalidRequest: it would outgrow one commit.
            Unavailable: nothing was added. Indeterminate: perhaps it was.

        Cost: 1 PUT for each 8 MiB, 1 GET, 1 PUT.
        """
        held = await self.documents.load(transaction, principal)
        _check_open(held)
        appends = [await self._append(held.doc, *batch) for batch in batches]
        names = {append.topic: name for append, (name, _, _) in zip(appends, batches, strict=True)}
        known = _places(held.doc)
        appends = [append for append in appends if _place(append) not in known]
        commits = [await offsets_op(self.namespace, group) for group in offsets]
        if not appends and not commits:
            return
        # Refuse before bytes are stored for nothing. Two adders at once are judged again by the change itself.
        _check_count(held.doc, len(appends))
        chunks = await self.namespace.writer.stage(appends) if appends else []
        mark = new_id(self.namespace.chain.rng)

        def added(now: Held[TransactionDocument]) -> TransactionDocument | None:
            if mark in now.doc.adds:
                return None
            _check_open(now)
            return _with(now.doc, chunks, commits, names, mark)

        await self.documents.change(held, added)

    async def commit(
        self, transaction: str, *, principal: str = "", held: Held[TransactionDocument] | None = None
    ) -> Written:
        """Make all of it visible by one intent. A second call answers the same, also after a crash in the first.

        ``held`` is the document if the caller has just loaded it, which saves a GET.

        Raises:
            NotFound: no such transaction, or its bytes were collected. Fenced: a newer epoch of its producer, or
            generation of its group, has taken over. Conflict: it was aborted. ExpiredTransaction: its time is up.
                Of all these nothing is visible, and nothing will be.
            Unavailable, Indeterminate: call ``commit`` again; it takes effect once.

        Cost: a commit, 3 GETs and 2 PUTs.
        """
        held = held or await self.documents.load(transaction, principal)
        if held.doc.state == "open":
            await self.namespace.refresh()  # the window of the intent begins at its tip
            held = await self.documents.change(held, self._committing)
        if held.doc.state == "committing":
            held, outcome = await settle(self.namespace, self.documents, held, _ops(held.doc))
            state = "aborted" if outcome.error else "done"
            held = await record(self.documents, held, structs.replace(held.doc, state=state, outcome=outcome))
        return _written(held.doc)

    async def abort(self, transaction: str, *, principal: str = "") -> None:
        """Forget it. Nothing was visible and nothing will be; a second call does nothing.

        Raises ``Conflict`` after ``commit``, and while a commit is undecided: commit again to learn its outcome.
        """

        def aborted(now: Held[TransactionDocument]) -> TransactionDocument | None:
            if now.doc.state == "done":
                raise Conflict("The transaction is committed, and cannot be aborted any more.")
            if now.doc.state == "committing":
                raise Conflict("A commit of the transaction has begun: commit again to learn what became of it.")
            return structs.replace(now.doc, state="aborted", chunks=[], offsets=[]) if now.doc.state == "open" else None

        await self.documents.change(await self.documents.load(transaction, principal), aborted)

    async def sweep(self) -> int:
        """Delete transactions that ended, or were left open, a day ago; see ``Documents.sweep``."""
        return await self.documents.sweep()

    async def _transactional_id(self, producer: ProducerId) -> str:
        """The producer's, if it is the current one. Only a courtesy: it is the commit that is fenced."""
        known = self.namespace.state.producers.get(producer.id)
        if known is None or known.epoch < producer.epoch:
            known = (await self.namespace.refresh()).producers.get(producer.id)
        if known is None:
            raise UnknownProducer(f"Producer {producer.id} is unknown: it was never made, or was idle for too long.")
        if producer.epoch < known.epoch:
            raise Fenced(f"Producer {producer.id} is at epoch {known.epoch}; epoch {producer.epoch} is over.")
        if producer.epoch > known.epoch:
            raise InvalidRequest(f"Producer {producer.id} is at epoch {known.epoch}, not {producer.epoch}.")
        return known.tid

    async def _append(self, doc: TransactionDocument, topic: str, partition: int, batch: Batch) -> Append:
        found = await self.namespace.find_topic(topic)
        if partition >= len(found.partitions):
            await self.namespace.refresh()  # it may be a new one
        self.namespace.reader.place(topic, partition)
        if batch.producer_id >= 0 and (batch.producer_id, batch.producer_epoch) != (doc.pid, doc.epoch):
            raise InvalidRequest(
                f"A batch is of producer {batch.producer_id}, epoch {batch.producer_epoch}, and the transaction of "
                f"producer {doc.pid}, epoch {doc.epoch}."
            )
        numbered = replace(batch, producer_id=doc.pid, producer_epoch=doc.epoch)
        return Append(topic=found.id, partition=partition, batch=numbered)

    def _committing(self, now: Held[TransactionDocument]) -> TransactionDocument | None:
        if now.doc.state != "open":
            return None
        _check_open(now)
        return committing(self.namespace, now.doc)


def _ops(doc: TransactionDocument) -> list[ops.AnyOp]:
    return [ops.EndTransaction(pid=doc.pid, epoch=doc.epoch), *doc.offsets]


def _check_open(held: Held[TransactionDocument]) -> None:
    doc = held.doc
    if doc.state == "aborted" and doc.outcome is not None:
        checked(doc.outcome)
    if doc.state != "open":
        raise Conflict(f"The transaction is {'committed' if doc.state == 'done' else doc.state}; begin a new one.")
    if held.older_than(doc.timeout_ms):
        raise ExpiredTransaction(
            f"The transaction was begun {held.now_ms - held.begun_ms} ms ago and had {doc.timeout_ms} ms."
        )


def _check_count(doc: TransactionDocument, batches: int) -> None:
    if len(doc.adds) >= TRANSACTION_ADDS_MAX:
        raise InvalidRequest(f"At most {TRANSACTION_ADDS_MAX} requests add to one transaction; commit this one.")
    if len(doc.chunks) + batches > INTENT_APPENDS_MAX:
        raise InvalidRequest(f"A transaction takes at most {INTENT_APPENDS_MAX} batches; commit this one.")


def _with(
    doc: TransactionDocument,
    chunks: Sequence[ops.Chunk],
    offsets: Sequence[ops.CommitOffsets],
    names: dict[int, str],
    mark: str,
) -> TransactionDocument:
    known = _places(doc)
    fresh = [chunk for chunk in chunks if (chunk.topic, chunk.partition, chunk.seq) not in known]
    _check_count(doc, len(fresh))
    grown = structs.replace(
        doc,
        chunks=[*doc.chunks, *fresh],
        offsets=[*doc.offsets, *offsets],
        names={**doc.names, **names},
        adds=[*doc.adds, mark],
    )
    # What is in the document must become an intent that every process can read.
    check_intent(Intent(id="x" * 12, tip=2**40, appends=grown.chunks, ops=_ops(grown)))
    return grown


def _place(append: Append) -> tuple[int, int, int]:
    return append.topic, append.partition, append.batch.sequence


def _places(doc: TransactionDocument) -> set[tuple[int, int, int]]:
    """Where the transaction holds numbered batches: topic, partition, sequence."""
    return {(chunk.topic, chunk.partition, chunk.seq) for chunk in doc.chunks if chunk.seq >= 0}


def _written(doc: TransactionDocument) -> Written:
    if doc.outcome is None:
        raise Conflict("The transaction was aborted; begin a new one.")
    outcome = checked(doc.outcome)
    appended = [
        Appended(
            topic=doc.names[chunk.topic],
            partition=chunk.partition,
            base_offset=base,
            count=chunk.count,
            commit=outcome.seq,
        )
        for chunk, base in zip(doc.chunks, outcome.bases, strict=True)
    ]
    producer = ProducerId(id=outcome.values["pid"], epoch=outcome.values["epoch"], transactional_id=doc.tid)
    return Written(appended=appended, commit=outcome.seq, producer=producer)
