"""Reading: batches, as they are now or as of an earlier commit, and where their bytes lie."""

from __future__ import annotations

from headwater.api.names import check_number, check_place
from headwater.api.service_base import ServiceBase, verb
from headwater.api.verbs import Fetched, Range, Ranges
from headwater.errors import InvalidRequest, NotFound, OffsetOutOfRange
from headwater.limits import FETCH_WAIT_MS_MAX, HTTP_FETCH_BYTES_MAX, PRESIGN_S, RANGES_MAX
from headwater.log import keys
from headwater.log.reader import Chunk
from headwater.log.state import Partition


class ReadVerbs(ServiceBase):
    """The verbs that read records."""

    @verb
    async def fetch(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        bytes_max: int = 8 << 20,
        wait_ms: float = 0,
        as_of: int | None = None,
    ) -> Fetched:
        check_place(topic, partition)
        check_number("offset", offset)
        wanted = min(check_number("number of bytes", bytes_max, 1), HTTP_FETCH_BYTES_MAX)
        if as_of is not None:
            check_number("commit", as_of)
        if not 0 <= wait_ms < float("inf"):
            raise InvalidRequest(f"A fetch waits 0 ms or more, not {wait_ms}.")
        await self._begin(topic)
        if as_of is not None:
            fetched = await self._fetch_as_of(topic, partition, offset, wanted, as_of)
        else:
            fetched = await self._space.reader.fetch(
                topic, partition, offset, bytes_max=wanted, wait_ms=min(wait_ms, FETCH_WAIT_MS_MAX), fresh=False
            )
        self._charge("fetch", sum(len(chunk.data) for chunk in fetched.chunks))
        return fetched

    @verb
    async def ranges(self, topic: str, partition: int, offset: int, *, bytes_max: int = 64 << 20) -> Ranges:
        from headwater.api.presign import presigner

        check_place(topic, partition)
        check_number("offset", offset)
        check_number("number of bytes", bytes_max, 1)
        await self._begin(topic)
        signer = presigner(self._space.store)
        if signer is None:
            raise InvalidRequest("This store cannot presign URLs; fetch the records instead.")
        located = await self._space.reader.locate(topic, partition, offset, bytes_max=bytes_max, entries_max=RANGES_MAX)
        expires_ms = self._space.chain.clock.wall_ms() + PRESIGN_S * 1_000
        ranges = []
        for entry in located.entries:
            key = entry.obj or keys.manifest_key(entry.seq)
            url, headers = signer.get(key, entry.pos, entry.pos + entry.len, PRESIGN_S)
            assert entry.codec != "gap", "gaps have no bytes"
            ranges.append(
                Range(
                    url=url,
                    headers=headers,
                    base=entry.base,
                    count=entry.count,
                    codec=entry.codec,
                    length=entry.len,
                    crc32c=entry.crc,
                    expires_ms=expires_ms,
                )
            )
        self._charge("fetch", sum(entry.len for entry in located.entries))
        return Ranges(
            ranges=ranges,
            next_offset=located.next_offset,
            log_start=located.log_start,
            high_watermark=located.high_watermark,
            commit=located.commit,
        )

    async def _begin(self, topic: str) -> None:
        await self._enter(fresh=True)
        self._check("read", "topic", topic)
        self._check_debt("fetch")

    async def _fetch_as_of(self, topic: str, partition: int, offset: int, bytes_max: int, commit: int) -> Fetched:
        """A fetch of now that stops where the log ended at ``commit``: offsets never change, nothing else differs."""
        then = await self._place_at(topic, partition, commit)
        end = then.stable_end
        _, now = self._space.reader.place(topic, partition)
        if not now.start <= offset <= then.next:
            raise OffsetOutOfRange(
                f"As of commit {commit}, topic {topic!r}, partition {partition} holds offsets "
                f"[{now.start}, {max(now.start, then.next)}); {offset} is outside.",
                log_start=now.start,
                high_watermark=max(now.start, then.next),
            )
        chunks: list[Chunk] = []
        next_offset = offset
        if offset < end:
            fetched = await self._space.reader.fetch(topic, partition, offset, bytes_max=bytes_max, fresh=False)
            # I3: a chunk is one append, so a commit never lies within one.
            chunks = [chunk for chunk in fetched.chunks if chunk.base < end]
            next_offset = min(fetched.next_offset, end)
        return Fetched(
            chunks=chunks,
            next_offset=next_offset,
            log_start=now.start,
            high_watermark=then.next,
            stable_end=end,
            commit=commit,
        )

    async def _place_at(self, topic: str, partition: int, commit: int) -> Partition:
        """The partition as it was at ``commit``, if it is the one of today's topic."""
        from headwater.log.history import state_at

        found, _ = self._space.reader.place(topic, partition)
        place = (await state_at(self._space.chain, commit)).partition(found.id, partition)
        if place is None:
            raise NotFound(f"As of commit {commit} there was no partition {partition} of topic {topic!r}.")
        return place
