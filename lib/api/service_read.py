"""Reading: batches, as they are now or as of an earlier commit, and where their bytes lie."""

from __future__ import annotations

from headwater.api.names import check_number, check_place
from headwater.api.service_base import ServiceBase, verb
from headwater.api.verbs import Fetched, Range, Ranges
from headwater.errors import InvalidRequest
from headwater.limits import FETCH_WAIT_MS_MAX, HTTP_FETCH_BYTES_MAX, PRESIGN_S, RANGES_MAX
from headwater.log import keys


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
        self.charge("fetch", sum(len(chunk.data) for chunk in fetched.chunks))
        return fetched

    @verb
    async def ranges(self, topic: str, partition: int, offset: int, *, bytes_max: int = 64 << 20) -> Ranges:
        from headwater.api.presign import presigner

        check_place(topic, partition)
        check_number("offset", offset)
        check_number("number of bytes", bytes_max, 1)
        await self._begin(topic)
        if presigner(self._space.store) is None:
            raise InvalidRequest("This store cannot presign URLs; fetch the records instead.")
        located = await self._space.reader.locate(topic, partition, offset, bytes_max=bytes_max, entries_max=RANGES_MAX)
        ranges: list[Range] = []
        for entry in located.entries:
            assert entry.codec != "gap", "gaps have no bytes"
            key = entry.obj or keys.manifest_key(entry.seq)
            ranges.append(self._range(key, entry.pos, entry.len, entry.base, entry.count, entry.codec, entry.crc))
        ranges += [
            self._range(file.key, 0, file.bytes, file.base, file.count, "parquet", file.crc) for file in located.files
        ]
        self.charge("fetch", sum(each.length for each in ranges))
        return Ranges(
            ranges=ranges,
            next_offset=located.next_offset,
            log_start=located.log_start,
            high_watermark=located.high_watermark,
            commit=located.commit,
        )

    def _range(self, key: str, start: int, length: int, base: int, count: int, codec: str, crc: int) -> Range:
        from headwater.api.presign import presigner

        # A branch's older objects lie in its origin.
        signer = presigner(self._space.chain.home(key, self._space.state))
        assert signer is not None, "one bucket, one way to sign"
        url, headers = signer.get(key, start, start + length, PRESIGN_S)
        return Range(
            url=url,
            headers=headers,
            base=base,
            count=count,
            codec=codec,
            length=length,
            crc32c=crc,
            expires_ms=self._space.chain.clock.wall_ms() + PRESIGN_S * 1_000,
        )

    async def _begin(self, topic: str) -> None:
        await self.enter(fresh=True)
        self.check("read", "topic", topic)
        self.check_debt("fetch")

    async def _fetch_as_of(self, topic: str, partition: int, offset: int, bytes_max: int, commit: int) -> Fetched:
        """What a fetch would have found when ``commit`` was the newest one."""
        from headwater.log.history import state_at

        then = await state_at(self._space.chain, commit)
        return await self._space.reader.fetch(topic, partition, offset, bytes_max=bytes_max, state=then)
