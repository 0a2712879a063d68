"""One poll of a REST consumer instance: ``GET …/records``. See ``instances`` for what it promises.

A long poll looks at the tip with growing pauses, as ``Reader.fetch`` does; it asks the group again only if something
was committed, or if its lease is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import structs

from headwater.api import rest_records
from headwater.api.instance_store import Held, Instance, Place
from headwater.api.instances import ILLEGAL_STATE, Instances, no_offset
from headwater.api.messages import HttpError
from headwater.api.rest_records import FORMAT_MISMATCH, Encoded, Format
from headwater.api.verbs import TP, Fetched, Heartbeat
from headwater.errors import Conflict, HeadwaterError, OffsetOutOfRange
from headwater.limits import (
    CONSUMER_IDLE_MS,
    CONSUMER_READ_BYTES_MIN,
    CONSUMER_READS_MAX,
    CONSUMER_SESSION_MS,
    CONSUMER_TOUCH_MS,
    CONSUMER_TRIES_MAX,
)
from headwater.log.outcomes import UnknownMember
from headwater.log.polling import LongPoll


class _Moved(Exception):
    """Another request has changed the instance: begin anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Got:
    """What was read of a partition, and where to go on."""

    encoded: Encoded
    position: int


class Poll:
    """A poll of one instance that answers in the format ``kind`` (None: its own), about ``bytes_max`` bytes at most.

    Afterwards ``kind`` is the format of the answer. A poll with the ``key`` of the one before it repeats that one:
    it begins where that one began, and nothing that only that one has returned is committed.
    """

    def __init__(
        self,
        instances: Instances,
        group: str,
        name: str,
        *,
        kind: Format | None,
        wait_ms: float | None,
        wait_ms_max: float,
        bytes_max: int,
        key: str = "",
    ) -> None:
        self.instances = instances
        self.namespace = instances.namespace
        self.verbs = instances.verbs
        self.group = group
        self.name = name
        self.kind = kind
        self.bytes_max = bytes_max
        self.key = key
        self._wait_ms = wait_ms
        self._wait_ms_max = wait_ms_max
        self._begun_s = self._now_s()

    async def records(self) -> bytes:
        """The records as a JSON array; an empty one if there are none within the time.

        Raises:
            HttpError: 40403; 40601, the instance has another format, or a record is no JSON; 40903, it reads nothing.
            Indeterminate, Unavailable: the store fell silent; poll again.

        Cost: 1 GET for the document, 1 for the tip and what the lease costs, 1 range GET for each partition with
        news, and 1 PUT if there are any; 1 commit if commits are automatic and the last poll brought something.
        """
        for _ in range(CONSUMER_TRIES_MAX):
            attempt = _Attempt(self, await self.instances.store.load(self.group, self.name))
            try:
                return rest_records.array_of(await attempt.run())
            except _Moved:
                continue
        raise Conflict(f"Consumer instance {self.name[:80]!r} is polled by others at the same time; poll one by one.")

    def left_s(self, doc: Instance) -> float:
        """How long the poll may still wait."""
        wait_ms = doc.settings.wait_ms if self._wait_ms is None else self._wait_ms
        return min(wait_ms, self._wait_ms_max) / 1_000 - (self._now_s() - self._begun_s)

    def _now_s(self) -> float:
        return self.namespace.chain.clock.elapsed_s()


class _Attempt:
    """One try: everything from the document as it was read to the document as it is written."""

    def __init__(self, poll: Poll, held: Held) -> None:
        self.poll = poll
        self.held = held
        self.doc = held.doc
        self.instances = poll.instances
        self.verbs = poll.verbs
        self.chain = poll.namespace.chain
        self.found: list[Encoded] = []
        self._told = -1  # the commit as of which the group was asked
        self._due_s = 0.0  # when it is to be asked again

    async def run(self) -> list[Encoded]:
        if not self.doc.mode:
            raise HttpError(
                409, "This consumer reads nothing: subscribe, or assign partitions.", error_code=ILLEGAL_STATE
            )
        if self.poll.kind not in (None, self.doc.settings.format):
            raise HttpError(
                406,
                f"This consumer was created for the format {self.doc.settings.format!r}.",
                error_code=FORMAT_MISMATCH,
            )
        self.poll.kind = self.doc.settings.format
        self.doc = _begun(self.doc, self.poll.key)
        if self.doc.settings.auto_commit:
            self.doc = await self.instances.commit_read(self.doc)
        try:
            await self._gather()
        except HeadwaterError:
            if not self.found:
                await self._save_changes()  # so that the client can seek past what it cannot read
                raise
            # What was read goes out, since its positions have moved; what is wrong will be so at the next poll.
        await self._save_changes()
        return self.found

    async def _gather(self) -> None:
        """Read until there is enough, or no time is left."""
        poll = LongPoll(self.chain, self.poll.left_s(self.doc) * 1_000)
        while True:
            await self._keep_up()
            seq = self.chain.state.seq
            await self._read()
            is_enough = self._size() >= min(self.doc.settings.bytes_min, self.poll.bytes_max)
            if is_enough or not await poll.more(seq):
                return

    def _size(self) -> int:
        return sum(one.nbytes for one in self.found)

    async def _save_changes(self) -> None:
        if self.doc != self.held.doc or self.held.idle_ms > CONSUMER_TOUCH_MS:
            await self._save()

    async def _save(self) -> None:
        saved = await self.instances.store.save(self.held, self.doc)
        if saved is None:
            raise _Moved
        self.held, self.doc = saved, saved.doc

    # -- the group -------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """Know the tip, and what the group says."""
        if self.doc.mode == "assigned":
            if self._told < 0:
                await self.chain.refresh()
                self._told = self.chain.state.seq
            return
        now_s = self.chain.clock.elapsed_s()
        if self._told == self.chain.state.seq and now_s < self._due_s:
            return
        try:
            topics = await self._topics()
            told = await self._beat(topics)
            if told.revoke:
                told = await self._release(told, topics)
        except UnknownMember:
            # The client was too slow. The new id is stored before it is used, lest each retry leave a member behind.
            self.doc = self.instances.renamed(self.doc)
            await self._save()
            raise _Moved from None
        await self._adopt(told)
        self._told = self.chain.state.seq
        self._due_s = now_s + told.interval_ms / 1_000

    async def _topics(self) -> tuple[str, ...]:
        """What the instance subscribes to: for a pattern, the topics that match it now and that it may see."""
        doc = self.doc
        if doc.mode != "pattern":
            return doc.topics
        from headwater.api.patterns import matching

        names = [name for name in self.chain.state.names if not name.startswith("__")]
        found = tuple(matching(doc.pattern, names))
        if found != doc.topics:
            visible = {topic.name for topic in await self.verbs.topics()}
            found = tuple(name for name in found if name in visible)
            self.doc = structs.replace(doc, topics=found)
        return found

    async def _beat(self, topics: Sequence[str], released: Sequence[TP] = ()) -> Heartbeat:
        """Join the group, or stay in it; hear what the member owns."""
        doc = self.doc
        return await self.verbs.heartbeat(
            doc.group,
            doc.member,
            topics=topics,
            released=released,
            session_ms=doc.settings.session_ms or CONSUMER_SESSION_MS,
            rebalance_ms=CONSUMER_IDLE_MS,
            client=doc.name,
            joining=not doc.joined and not released,
        )

    async def _release(self, told: Heartbeat, topics: Sequence[str]) -> Heartbeat:
        """Give back what the group wants back: first no poll may read it any more, then the group hears of it."""
        gone = set(told.revoke)
        if any(place.tp in gone for place in self.doc.places):
            if self.doc.settings.auto_commit:
                self.doc = await self.instances.commit_read(self.doc)
            self.doc = structs.replace(self.doc, places=tuple(p for p in self.doc.places if p.tp not in gone))
            await self._save()
        return await self._beat(topics, told.revoke)

    async def _adopt(self, told: Heartbeat) -> None:
        """Read what the member owns, each partition from where it was or, if it is new, from the committed offset."""
        known = {place.tp: place for place in self.doc.places}
        kept = {tp: known[tp] for tp, since in told.owned.items() if tp in known and known[tp].since == since}
        fresh = {tp: since for tp, since in told.owned.items() if tp not in kept}
        begun = {place.tp: place for place in await self.instances.begin(self.doc, fresh)}
        places = tuple(kept.get(tp) or begun[tp] for tp in sorted(told.owned))
        self.doc = structs.replace(self.doc, places=places, joined=True, epoch=told.epoch)

    # -- the log ---------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Records of the partitions that have some, in turns, until the answer is full; positions move on."""
        waiting = self._with_news()
        while waiting and (left := self.poll.bytes_max - self._size()) > 0:
            width = max(1, min(CONSUMER_READS_MAX, left // CONSUMER_READ_BYTES_MIN))
            together, waiting = waiting[:width], waiting[width:]
            results = await self._fetch(together, max(left // len(together), 1))
            for place, result in zip(together, results, strict=True):
                if isinstance(result, _Got):
                    self._move(place, result.position)
                    self.found += [result.encoded] if result.encoded.count else []
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    def _with_news(self) -> list[Place]:
        """The partitions whose log goes on behind our position (or is elsewhere), beginning with whose turn it is."""
        places = self.doc.places
        turn = self.doc.turn % len(places) if places else 0
        return [place for place in (*places[turn:], *places[:turn]) if self._has_news(place)]

    def _has_news(self, place: Place) -> bool:
        topic = self.chain.state.named(place.topic)
        if topic is None or place.partition >= len(topic.partitions):
            return self.doc.mode == "assigned"  # its error is for who assigned it; a group takes it away by itself
        log = topic.partitions[place.partition]
        return not log.stable_end <= place.position <= log.next

    async def _fetch(self, places: Sequence[Place], bytes_max: int) -> Sequence[_Got | BaseException]:
        """All of them at once, and nothing is in flight when this returns (R10)."""
        return await asyncio.gather(*(self._fetch_one(p, bytes_max) for p in places), return_exceptions=True)

    async def _fetch_one(self, place: Place, bytes_max: int) -> _Got:
        position = place.position
        try:
            fetched = await self._fetched(place, position, bytes_max)
        except OffsetOutOfRange as error:
            position = self._restart(place, error)
            fetched = await self._fetched(place, position, bytes_max)
        encoded = rest_records.encode_some(
            self.doc.settings.format, place.topic, place.partition, fetched.chunks, offset=position, bytes_max=bytes_max
        )
        whole = not fetched.chunks or encoded.next_offset >= fetched.chunks[-1].end
        return _Got(encoded=encoded, position=fetched.next_offset if whole else encoded.next_offset)

    async def _fetched(self, place: Place, position: int, bytes_max: int) -> Fetched:
        return await self.verbs.fetch(place.topic, place.partition, position, bytes_max=bytes_max)

    def _restart(self, place: Place, error: OffsetOutOfRange) -> int:
        """Where to go on if the position is outside the log: what was there is gone (``auto.offset.reset``)."""
        reset = self.doc.settings.reset
        if reset == "none":
            raise no_offset(self.doc.group, place.topic, place.partition)
        return error.log_start if reset == "earliest" else error.high_watermark

    def _move(self, place: Place, position: int) -> None:
        """Go on at ``position``, and let the partition behind this one be the first next time."""
        places = tuple(structs.replace(p, position=position) if p.tp == place.tp else p for p in self.doc.places)
        at = next(i for i, known in enumerate(places) if known.tp == place.tp)
        self.doc = structs.replace(self.doc, places=places, turn=(at + 1) % len(places))


def _begun(doc: Instance, key: str) -> Instance:
    """The instance at the begin of a poll: where the one before it ended or, if this repeats it, where that began."""
    if not key:
        return structs.replace(doc, poll="") if doc.poll else doc
    again = key == doc.poll
    places = tuple(
        structs.replace(place, position=place.before)
        if again and place.before >= 0
        else structs.replace(place, before=place.position)
        for place in doc.places
    )
    return structs.replace(doc, poll=key, places=places)
