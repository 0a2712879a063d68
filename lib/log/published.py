"""What others have published, and nobody has committed yet, as far as this process has seen. DESIGN section 6.

Who wins a manifest carries the others. A LIST finds their segments; a tag in the key, or a GET of the segment's
beginning, tells their intents. Each segment without a tag names the key of its writer's next one, so while few write
much, GETs of those keys find all there is, and a LIST now and then the rest. Nothing here validates intents: that is
the fold's (R1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from headwater.errors import Corrupt, HeadwaterError, NotFound
from headwater.limits import MANIFEST_INTENTS_MAX, WINDOW
from headwater.log import bell, frame, keys
from headwater.log.chain import Chain
from headwater.log.intents import Intent, Manifest, decode_segment, header_cost, located
from headwater.log.state import State
from headwater.log.tags import decode_tag
from headwater.log.together import together
from headwater.log.turns import Look, Turns

HEADER_BYTES_GUESS = 16 * 1024  # the first read of a segment whose key carries no tag
MERGE_BYTES_MAX = 1024 * 1024  # headers of others that one manifest takes in
LOOKBACK_KEYS = 1_600  # segments, committed ones included, that a LIST goes through: two pages at the most busy
LOOKBACK_MIN = 8  # manifests that a LIST looks back in any case
RUNG_MAX = 3  # LISTs for one ring: a segment is stored while its bell is rung, or its writer has died meanwhile

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
        self._announced: dict[str, str] = {}  # writer → the key of its next segment
        self._rung = ("", 0)  # what the bell was rung for last, and how often we have heard that
        self._follows_on = False  # whether the last look at announced keys found something

    @property
    def announced(self) -> int:
        """How many have said where their next segments will be."""
        for writer, key in list(self._announced.items()):
            if not self.is_young(key):
                del self._announced[writer]
        return len(self._announced)

    def is_young(self, key: str) -> bool:
        """Whether a key that was announced is still used, and looked for: LISTs find it for as long again."""
        return bool(key) and self.is_recent(keys.parse_segment_key(key).tip)

    def is_recent(self, tip: int) -> bool:
        """Whether others look for what is published with this tip, as far as we know how far they have come."""
        return tip + self.lookback() // 2 > self._chain.state.seq + self._chain.ahead

    def reason_to_look(self) -> Look:
        """What there may be to see of others while the next manifest is on its way."""
        return self._turns.look(self._chain.clock.elapsed_s(), self.announced)

    async def look_beside_put(self, look: Look) -> None:
        """Look so that it ends about when a PUT does that begins now, and so sees the most."""
        turns, clock = self._turns, self._chain.clock
        if Look.LIST in look:
            await clock.sleep(turns.delay_s(turns.took.list))
            await self.look()
            return
        rounds = 2 if self._follows_on else 1
        await clock.sleep(0.0 if Look.BELL in look else turns.delay_s(rounds * turns.took.get))
        looks = [self._listen()] if Look.BELL in look else []
        if Look.ANNOUNCED in look:
            looks.append(self._read_announced(rounds))
        await together(*looks)

    async def look(self) -> None:
        """LIST what others have published lately, and read the headers that their keys do not carry.

        Cost: 1 LIST; 1 GET for each new segment without a tag, all at once.
        """
        clock = self._chain.clock
        start = clock.elapsed_s()
        after = keys.segments_after(self._chain.state.seq - self.lookback())
        try:
            stats = await self._chain.listed(keys.SEGMENTS, start_after=after)
        except HeadwaterError:
            return  # looking is a courtesy; the next look may fare better
        self._turns.took.note("list", clock.elapsed_s() - start)
        known, is_news, unread = set(self._announced.values()), False, []
        for stat in stats:
            key, size = stat.key, stat.size
            if key in self._named or key in self._pending or keys.is_staged(key):
                continue
            try:
                parsed = keys.parse_segment_key(key)
                if parsed.writer == self._writer:
                    continue
                is_news |= key not in known
                if not parsed.tag:
                    unread.append((key, size))
                    continue
                self._take_in(key, [decode_tag(parsed.tag, tip=parsed.tip, key=key)], size)
            except Corrupt:
                continue  # not ours to judge: `headwater verify` reports it
        self._turns.listed(clock.elapsed_s(), is_news=is_news)
        headers = await together(*(self._read_header(key) for key, _ in unread))
        for (key, size), intents in zip(unread, headers, strict=True):
            if intents is not None:
                self._take_in(key, intents, size)
        self._turns.saw_pending(len(self.mergeable()), clock.elapsed_s())

    def mergeable(self, own: Sequence[Group] = ()) -> list[Group]:
        """What the next manifest may name: ``own``, then what is neither decided nor void, the oldest first.

        One that is too large to be merged beside others is left to its own writer's turn.
        """
        if not self._pending and not own:
            self._costs.clear()
            return []
        room = _Room(self._chain.state)
        for key, intents in own:
            if not room.take(key, intents, header_cost(intents), always=not room.chosen):
                break
        for key, intents in sorted(self._pending.items(), key=_order):
            if room.is_over(intents):
                del self._pending[key]
                self._named[key] = self._chain.state.seq
                continue
            cost = self._costs.get(key)
            if cost is None:
                cost = self._costs[key] = header_cost(intents)
            room.take(key, intents, cost)
        self._costs = {key: self._costs[key] for key in self._pending if key in self._costs}
        return room.chosen

    def is_named(self, key: str) -> bool:
        """Whether a manifest that was folded lately has taken the segment in."""
        return key in self._named

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
        """The intents of a segment that a LIST has found; None if the store does not answer."""
        try:
            return (await self._chain.retry(lambda: self._read(key)))[0]
        except NotFound:
            return []
        except HeadwaterError:
            return None

    async def _read_announced(self, rounds: int) -> None:
        """Read what lies by now where it was announced. Cost: 1 GET for each writer, and round."""
        for _ in range(rounds):
            self._follows_on = any(await together(*(self._found(key) for key in self._announced.values())))
            if self._follows_on:
                self._turns.saw_pending(len(self.mergeable()), self._chain.clock.elapsed_s())

    async def _listen(self) -> None:
        """LIST if somebody rings whose segment we do not know. Cost: 1 GET, and the LIST."""
        self._turns.listened(self._chain.clock.elapsed_s())
        key = await bell.heard(self._chain)
        if not self.is_young(key) or key in self._pending or key in self._named:
            return
        self._rung = (key, self._rung[1] + 1 if key == self._rung[0] else 1)
        if self._rung[1] <= RUNG_MAX:
            await self.look()

    async def _found(self, key: str) -> bool:
        try:
            intents, size = await self._chain.retry(lambda: self._read(key))
        except HeadwaterError:
            return False  # not there yet; or a LIST finds it
        if key not in self._named:
            self._take_in(key, intents, size)
        return True

    async def _read(self, key: str) -> tuple[list[Intent], int]:
        """The intents of a segment and its size in bytes; what it announces is noted."""
        head = await self._chain.store.get(key, end=HEADER_BYTES_GUESS)
        data = head.data
        if len(data) < head.stat.size:
            data = await self._rest_of_header(key, data)
        header = decode_segment(data, whole=False)
        self._note_announced(key, header.next)
        return [located(intent, key) for intent in header.intents], head.stat.size

    def _note_announced(self, key: str, following: str) -> None:
        """The writer of ``key`` says which one is next; it may speak for nobody else."""
        try:
            this, other = keys.parse_segment_key(key), keys.parse_segment_key(following)
        except Corrupt:
            return  # it says nothing, or nonsense
        known = self._announced.get(this.writer)
        newest = keys.parse_segment_key(known).number if known else 0
        if other.writer == this.writer and other.number > max(newest, this.number):
            self._announced[this.writer] = following

    async def _rest_of_header(self, key: str, data: bytes) -> bytes:
        needed = frame.header_bytes(data)
        return data if len(data) >= needed else (await self._chain.store.get(key, end=needed)).data


class _Room:
    """What a manifest takes of others', within bounds, and each writer's in its order (``Intent.after``)."""

    def __init__(self, state: State) -> None:
        self.chosen: list[Group] = []
        self._recent = state.recent
        self._void_up_to = state.seq - WINDOW
        self._count = self._bytes = 0
        self._ids: set[str] = set()

    def is_over(self, intents: list[Intent]) -> bool:
        """Whether all of them are decided or void."""
        return all(i.id in self._recent or i.tip <= self._void_up_to for i in intents)

    def take(self, key: str, intents: list[Intent], cost: int, *, always: bool = False) -> bool:
        """Whether they are taken: there is room, or they are to be taken in any case, and what they come after is."""
        fits = self._count + len(intents) <= MANIFEST_INTENTS_MAX // 2 and self._bytes + cost <= MERGE_BYTES_MAX
        if not (always or fits) or any(i.after and not self._is_decided(i.after) for i in intents):
            return False
        self._count, self._bytes = self._count + len(intents), self._bytes + cost
        self._ids.update([i.id for i in intents])
        self.chosen.append((key, intents))
        return True

    def _is_decided(self, intent: str) -> bool:
        return intent in self._recent or intent in self._ids


def _order(pending: tuple[str, list[Intent]]) -> tuple[int, str, int]:
    """The oldest first, and those of one writer as they were published."""
    parsed = keys.parse_segment_key(pending[0])
    return parsed.tip, parsed.writer, parsed.number
