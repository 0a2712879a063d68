"""Uploads: a batch too large for a function's request goes straight to the bucket, and is committed afterwards.

    create ──► the client PUTs ``prefix`` and the batch to a presigned URL ──► append: read it once, check, commit

The object is a staged segment like any other: ``prefix`` is its header line, the key names the tip (R4), and no
manifest names it before ``append`` has seen every byte. What the client says of its batch counts for nothing: count,
timestamps and CRC are taken from the bytes, since a wrong one would be ``Corrupt`` for every reader.
"""

from __future__ import annotations

from msgspec import structs

from headwater.api.documents import Documents, Held
from headwater.api.presign import Presigner, presigner
from headwater.api.settle import Wish, committing, record, settle
from headwater.api.verbs import ProducerId, Upload
from headwater.errors import Conflict, InvalidRequest, NotFound
from headwater.limits import BATCH_BYTES_MAX, PRESIGN_S, UPLOAD_MS
from headwater.log import frame, keys
from headwater.log.guard import refuse_misfits
from headwater.log.intents import FORMAT, SegmentHeader, encode_segment
from headwater.log.namespace import Appended, Namespace
from headwater.log.operations import Chunk
from headwater.log.outcomes import ExpiredUpload, checked
from headwater.log.writer import Append

NAME_BITS = 75  # of the writer that a segment is named after: another one for each upload


class UploadDocument(Wish, frozen=True, kw_only=True):
    """Where the batch lies and where it belongs. ``writer`` is the name in the segment's header."""

    key: str
    writer: str
    topic: int
    name: str
    partition: int
    length: int
    pid: int = -1
    epoch: int = -1
    sequence: int = -1


class Uploads:
    """The uploads of one namespace. Every method may run in another process than the last.

    ``principal`` is who asks: an upload of somebody else does not exist for him.
    """

    def __init__(self, namespace: Namespace, signer: Presigner | None = None) -> None:
        self.namespace = namespace
        self.documents = Documents(namespace.chain, UploadDocument, folder="upload", what="upload")
        self._signer = signer

    async def create(self, topic: str, partition: int, length: int, principal: str = "") -> Upload:
        """Where to PUT ``prefix`` and then a batch of exactly ``length`` bytes, an Arrow IPC stream, once.

        A PUT that answers 412 has been done before: go on with ``append``.

        Raises:
            InvalidRequest: the length is out of bounds, or the store cannot presign. NotFound: no such partition.

        Cost: 1 PUT.
        """
        if not 1 <= length <= BATCH_BYTES_MAX:
            raise InvalidRequest(f"A batch has 1 to {BATCH_BYTES_MAX} bytes, not {length}.")
        found = await self.namespace.find_topic(topic)
        self.namespace.reader.place(topic, partition)
        signer = self._signer or presigner(self.namespace.store)
        if signer is None:
            raise InvalidRequest("This store cannot presign URLs; send the batch in a request instead.")
        doc = self._named(found.id, topic, partition, length, principal)
        prefix = _prefix(doc)
        url, headers = signer.put(doc.key, len(prefix) + length, PRESIGN_S)
        expires_ms = self.namespace.chain.clock.wall_ms() + PRESIGN_S * 1_000
        name = await self.documents.create(doc)
        return Upload(id=name, url=url, headers=headers, prefix=prefix, expires_ms=expires_ms)

    async def append(
        self,
        upload: str,
        *,
        token: str = "",
        producer: ProducerId | None = None,
        sequence: int = -1,
        principal: str = "",
        held: Held[UploadDocument] | None = None,
    ) -> Appended:
        """Check the uploaded batch and append it. A second call answers the same, also after a crash in the first.

        ``held`` is the document if the caller has just loaded it, which saves a GET.

        ``token`` may be an ``Indeterminate``'s; it is not needed, since the upload itself remembers. A refused
        append (a sequence out of order, say) leaves the upload open, to be tried again.

        Raises:
            NotFound: no such upload, or nothing was PUT yet. ExpiredUpload: its hour is over.
            InvalidRequest: the bytes are not the prefix and such a batch. OutOfOrder, Fenced: as for any append.
            Unavailable, Indeterminate: call again; it takes effect once.

        Cost: 1 GET of the object, a commit, 3 GETs and 2 PUTs. CPU: one decode, to check every record.
        """
        held = held or await self.documents.load(upload, principal)
        if held.doc.state == "open":
            chunk = await self._checked(held, _numbers(producer, sequence))
            await self.namespace.refresh()  # the window of the intent begins at its tip

            def begun(now: Held[UploadDocument]) -> UploadDocument | None:
                if now.doc.state != "open":
                    return None
                _check_open(now)
                pid, epoch, number = chunk.pid, chunk.epoch, chunk.seq
                doc = structs.replace(now.doc, chunks=[chunk], pid=pid, epoch=epoch, sequence=number)
                return committing(self.namespace, doc)

            held = await self.documents.change(held, begun)
        _check_same(held.doc, _numbers(producer, sequence))
        if held.doc.state == "committing":
            held, outcome = await settle(self.namespace, self.documents, held, [])
            # A refusal is not the end: the bytes are good, and the next append may be in order.
            done = structs.replace(held.doc, state="done", outcome=outcome)
            again = structs.replace(held.doc, state="open", chunks=[], pid=-1, epoch=-1, sequence=-1)
            held = await record(self.documents, held, again if outcome.error else done)
            checked(outcome)
        return _appended(held.doc)

    async def sweep(self) -> int:
        """Delete what is left of uploads of a day ago; see ``Documents.sweep``."""
        return await self.documents.sweep()

    def _named(self, topic: int, name: str, partition: int, length: int, principal: str) -> UploadDocument:
        chain = self.namespace.chain
        writer = keys.fresh_name(chain.rng, NAME_BITS) + keys.STAGED
        return UploadDocument(
            key=keys.segment_key(chain.state.seq, writer, 1),
            writer=writer,
            topic=topic,
            name=name,
            partition=partition,
            length=length,
            principal=principal,
        )

    async def _checked(self, held: Held[UploadDocument], numbers: tuple[int, int, int]) -> Chunk:
        """The chunk that the uploaded object holds, by its bytes alone."""
        _check_open(held)
        doc, chain = held.doc, self.namespace.chain
        prefix = _prefix(doc)
        size = len(prefix) + doc.length
        try:
            blob = await chain.retry(lambda: chain.store.get(doc.key, end=size + 1))
        except NotFound:
            raise NotFound(
                "Nothing was uploaded yet: PUT the prefix and the batch to the upload's URL first."
            ) from None
        if blob.stat.size != size or len(blob.data) != size:
            raise InvalidRequest(f"The upload has {blob.stat.size} bytes; its prefix and batch have {size}.")
        if blob.data[: len(prefix)] != prefix:
            raise InvalidRequest("The upload does not begin with its prefix, so it is no segment of the log.")
        from headwater.log.batch import batch_of_arrow  # pyarrow, which most functions never need

        batch = batch_of_arrow(blob.data[len(prefix) :])
        refuse_misfits(chain.state, [Append(topic=doc.topic, partition=doc.partition, batch=batch)])
        pid, epoch, sequence = numbers
        return Chunk(
            topic=doc.topic,
            partition=doc.partition,
            count=batch.count,
            codec=batch.codec,
            pos=len(prefix),
            len=doc.length,
            crc=frame.checksum(batch.data),
            min=batch.timestamp_min,
            max=batch.timestamp_max,
            obj=doc.key,
            pid=pid,
            epoch=epoch,
            seq=sequence,
        )


def _prefix(doc: UploadDocument) -> bytes:
    """The segment's header line, the same each time it is made."""
    return encode_segment(SegmentHeader(v=FORMAT, kind="segment", writer=doc.writer), doc.length)


def _numbers(producer: ProducerId | None, sequence: int) -> tuple[int, int, int]:
    if producer is None:
        if sequence >= 0:
            raise InvalidRequest(f"Sequence {sequence} is of no producer: name the producer too.")
        return -1, -1, -1
    return producer.id, producer.epoch, sequence


def _check_open(held: Held[UploadDocument]) -> None:
    if held.older_than(UPLOAD_MS):
        raise ExpiredUpload(f"The upload was made {held.now_ms - held.begun_ms} ms ago and had {UPLOAD_MS} ms.")


def _check_same(doc: UploadDocument, numbers: tuple[int, int, int]) -> None:
    if doc.state != "open" and numbers != (doc.pid, doc.epoch, doc.sequence):
        raise Conflict(
            f"The upload is being appended as sequence {doc.sequence} of producer {doc.pid}, epoch {doc.epoch}; "
            f"this call names sequence {numbers[2]} of producer {numbers[0]}, epoch {numbers[1]}."
        )


def _appended(doc: UploadDocument) -> Appended:
    if doc.outcome is None:
        raise Conflict("The upload changed under this call, after another append of it was refused: call again.")
    outcome, (chunk,) = doc.outcome, doc.chunks
    return Appended(
        topic=doc.name, partition=doc.partition, base_offset=outcome.bases[0], count=chunk.count, commit=outcome.seq
    )
