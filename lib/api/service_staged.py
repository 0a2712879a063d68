"""What takes several requests: transactions that are begun, added to and committed, and uploads past a function."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.api.names import check_batches, check_name, check_number, check_place
from headwater.api.service_base import verb
from headwater.api.service_write import Placed, WriteVerbs, check_identity, check_offsets
from headwater.api.verbs import Appended, GroupOffsets, ProducerId, Upload, Written
from headwater.errors import InvalidRequest
from headwater.limits import BATCH_BYTES_MAX, TRANSACTION_MS_MAX


class StagedVerbs(WriteVerbs):
    """The verbs whose bytes are stored before they are named. What one principal began does not exist for another."""

    @verb
    async def begin(self, producer: ProducerId, *, timeout_ms: int = 60_000) -> str:
        from headwater.api.transactions import Transactions

        check_identity(producer)
        check_number("timeout in ms", timeout_ms, 1, TRANSACTION_MS_MAX)
        await self.enter()
        await self._transactional_id(producer.id)
        return await self._space.shared(Transactions).begin(producer, timeout_ms, principal=self.principal)

    @verb
    async def add(self, transaction: str, batches: Sequence[Placed], offsets: Sequence[GroupOffsets] = ()) -> None:
        from headwater.api.transactions import Transactions

        check_name("transaction's id", transaction)
        check_batches(batches, empty=True)
        check_offsets(offsets)
        if not batches and not offsets:
            raise InvalidRequest("There is nothing to add: the request has no batch and no offsets.")
        await self.enter()
        self._check_writes(batches, offsets)
        self.pay("produce", sum(len(batch.data) for _, _, batch in batches))
        await self._space.shared(Transactions).add(transaction, batches, offsets, principal=self.principal)

    @verb
    async def commit(self, transaction: str) -> Written:
        from headwater.api.transactions import Transactions

        check_name("transaction's id", transaction)
        await self.enter()
        transactions = self._space.shared(Transactions)
        held = await transactions.documents.load(transaction, self.principal)
        doc = held.doc
        if doc.state == "open":  # rights may have been taken away since; what is committed already is only told
            await self._transactional_id(doc.pid)
            for topic in doc.names.values():
                self.check("write", "topic", topic)
            for commit in doc.offsets:
                self.check("read", "group", commit.group)
        return await transactions.commit(transaction, principal=self.principal, held=held)

    @verb
    async def abort(self, transaction: str) -> None:
        from headwater.api.transactions import Transactions

        check_name("transaction's id", transaction)
        await self.enter()
        await self._space.shared(Transactions).abort(transaction, principal=self.principal)

    @verb
    async def upload(self, topic: str, partition: int, length: int) -> Upload:
        from headwater.api.uploads import Uploads

        check_place(topic, partition)
        check_number("length in bytes", length, 1, BATCH_BYTES_MAX)
        await self.enter()
        self.check("write", "topic", topic)
        await self._space.find_topic(topic)
        self._space.reader.place(topic, partition)
        self.pay("produce", length)
        return await self._space.shared(Uploads).create(topic, partition, length, self.principal)

    @verb
    async def append_upload(
        self, upload: str, *, token: str = "", producer: ProducerId | None = None, sequence: int = -1
    ) -> Appended:
        from headwater.api.uploads import Uploads

        check_name("upload's id", upload)
        check_number("sequence", sequence, -1, 2**31 - 1)
        if producer is not None:
            check_identity(producer)
        await self.enter()
        if producer is not None:
            await self._check_producer(producer.id)
        uploads = self._space.shared(Uploads)
        # The right may have been taken away since the upload was begun.
        held = await uploads.documents.load(upload, self.principal)
        self.check("write", "topic", held.doc.name)
        return await uploads.append(
            upload, token=token, producer=producer, sequence=sequence, principal=self.principal, held=held
        )
