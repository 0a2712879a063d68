"""What others have published, and nobody has committed yet, as far as this process has seen. DESIGN section 6.

Who wins a manifest carries the others. A LIST finds their segments; a tag in the key, or a GET of the segment's
beginning, tells their intents. Nothing here validates them: that is the fold's (R1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from headwater.errors import Corrupt, HeadwaterError, NotFound
from headwater.limits import MANIFEST_INTENTS_MAX, WINDOW
from headwater.log import frame, keys
from headwater.log.chain import Chain
from headwater.log.intents import Intent, Manifest, decode_segment, header_cost, located
from headwater.log.tags import decode_tag
from headwater.log.together import together
from headwater.log.turns import Turns

HEADER_BYTES_GUESS = 16 * 1024  # the first read of a segment whose key carries no tag
MERGE_BYTES_MAX = 1024 * 1024  # headers of others that one manifest takes in
LOOKBACK_KEYS = 1_600  # segments, committed ones included, that a LIST goes through: two pages at the most busy
LOOKBACK_MIN = 8  # manifests that a LIST looks back in any case

Group: TypeAlias = tuple[str, list[Intent]]  # a segment's key, and its intents as others see them


class Published:
    """Segments that wait for whoever commits next."""

    def __init__(self, chain: Chain, turns: Turns, *, writer: str) -> None:
        self._chain = chain
        self._turns = turns
        self._writer = writer
        self._pending: dict[str, list[Intent]] = {}
        self._costs: dict[str, int] = {}  # what each of those adds to a manifest, in bytes
        self._named: dict[str, int] = {}  # by a manifest of this number, or found to be of no use then
        self._per_manifest: deque[int] = deque([1], maxlen=8)

    async def look(self, delay_s: float) -> None:
        """LIST what others have published lately, and read the headers that their keys do not carry.

        Cost: 1 LIST; 1 GET for each new segment without a tag, all at once.
        """
        clock = self._chain.clock
        if delay_s > 0:
            await clock.sleep(delay_s)
        start = clock.elapsed_s()
        after = keys.segments_after(self._chain.state.seq - self.lookback())
        try:
            stats = await self._chain.listed(keys.SEGMENTS, start_after=after)
        except HeadwaterError:
            return  # looking is a courtesy; the next look may fare better
        self._turns.took.note("list", clock.elapsed_s() - start)
        unread = []
        for stat in stats:
            key, size = stat.key, stat.size
            if key in self._named or key in self._pending or keys.is_staged(key):
                continue
            try:
                parsed = keys.parse_segment_key(key)
                if parsed.writer == self._writer:
                    continue
                if not parsed.tag:
                    unread.append((key, size))
                    continue
                self._take_in(key, [decode_tag(parsed.tag, tip=parsed.tip, key=key)], size)
            except Corrupt:
                continue  # not ours to judge: `headwater verify` reports it
        headers = await together(*(self._read_header(key) for key, _ in unread))
        for (key, size), intents in zip(unread, headers, strict=True):
            if intents is not None:
                self._take_in(key, intents, size)
        self._turns.saw_pending(len(self.mergeable()), clock.elapsed_s())

    def mergeable(self, own: Sequence[Group] = ()) -> list[Group]:
        """What the next manifest may name: ``own``, then what is neither decided nor void, the oldest first.

        One that is too large to be merged beside others is left to its own writer's turn.
        """
        if not self._pending:
            self._costs.clear()
            return list(own)
        state, chosen = self._chain.state, list(own)
        taken = sum([len(intents) for _, intents in own])
        size = sum([header_cost(intents) for _, intents in own])
        for key, intents in sorted(self._pending.items()):
            if all(i.id in state.recent or i.tip + WINDOW <= state.seq for i in intents):
                del self._pending[key]
                self._named[key] = state.seq
                continue
            cost = self._costs.get(key)
            if cost is None:
                cost = self._costs[key] = header_cost(intents)
            if taken + len(intents) <= MANIFEST_INTENTS_MAX // 2 and size + cost <= MERGE_BYTES_MAX:
                taken, size = taken + len(intents), size + cost
                chosen.append((key, intents))
        self._costs = {key: self._costs[key] for key in self._pending if key in self._costs}
        return chosen

    def folded(self, manifest: Manifest) -> None:
        """A manifest has taken segments in: they wait no more."""
        for key in manifest.merged:
            self._pending.pop(key, None)
            self._named[key] = manifest.seq
        while len(self._named) > 16 * LOOKBACK_KEYS:
            del self._named[next(iter(self._named))]
        self._per_manifest.append(max(1, len(manifest.merged)))

    def lookback(self) -> int:
        """How many manifests old a tip may be for its segment to be found by a LIST."""
        per_manifest = sum(self._per_manifest) / len(self._per_manifest)
        return max(LOOKBACK_MIN, min(WINDOW, int(LOOKBACK_KEYS / per_manifest)))

    def _take_in(self, key: str, intents: list[Intent], size: int) -> None:
        """Remember what another has published, if every byte that it names of its own segment is there (I2)."""
        if intents and all(c.obj != key or c.pos + c.len <= size for intent in intents for c in intent.appends):
            self._pending[key] = intents
        else:
            self._named[key] = self._chain.state.seq  # nothing to commit here, now or later

    async def _read_header(self, key: str) -> list[Intent] | None:
        async def read() -> list[Intent]:
            head = await self._chain.store.get(key, end=HEADER_BYTES_GUESS)
            data = head.data
            if len(data) < head.stat.size:
                data = await self._rest_of_header(key, data)
            return [located(intent, key) for intent in decode_segment(data, whole=False).intents]

        try:
            return await self._chain.retry(read)
        except NotFound:
            return []
        except HeadwaterError:
            return None

    async def _rest_of_header(self, key: str, data: bytes) -> bytes:
        needed = frame.header_bytes(data)
        return data if len(data) >= needed else (await self._chain.store.get(key, end=needed)).data
