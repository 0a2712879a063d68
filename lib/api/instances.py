"""REST consumer instances without a server that keeps them: what each request of one does.

    poll     read the document ─► commit what the last poll returned ─► heartbeat ─► fetch what is owned, in turns
             ─► write the document ─► answer

An instance that subscribes is a member of its group (KIP-848) and gives partitions back as part of a poll; one that
assigns partitions by hand is none. Its document moves on before the answer goes out, by put-if-match, so that of two
polls at once each record is in one answer. What an answer brought is committed (if at all) by the poll after it: a
client that dies in between leaves it to the next owner, so records are delivered at least once. An answer that is lost
on its way is read again by a poll with the same ``Idempotency-Key``, or by seeking back.

A group that has let go of the member (its client was too slow) costs the client nothing but repetitions: the instance
joins again under a new id, from the committed offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import structs

from headwater.api.errors_http import PARTITION_NOT_FOUND
from headwater.api.instance_store import Instance, InstanceStore, Mode, Place, Settings
from headwater.api.messages import HttpError
from headwater.api.verbs import TP, GroupOffset, GroupOffsets, TopicInfo, Verbs
from headwater.errors import Conflict, Fenced, InvalidRequest, NotFound
from headwater.limits import CONSUMER_PLACES_MAX, SUBSCRIBED_MAX
from headwater.log import keys
from headwater.log.namespace import Namespace
from headwater.log.outcomes import UnknownMember

ILLEGAL_STATE = 40903


class Instances:
    """The consumer instances of a namespace, for one principal. Cheap: make one for each request."""

    def __init__(self, namespace: Namespace, verbs: Verbs, principal: str) -> None:
        self.namespace = namespace
        self.verbs = verbs
        self.store = InstanceStore(namespace.chain, principal)

    # -- their life ------------------------------------------------------------------------------------

    async def create(self, group: str, name: str, settings: Settings) -> str:
        """A new instance; its name, which is made up if none is given.

        Raises:
            HttpError: 40902, the name is taken.
            Forbidden: the group is none of the caller's business.

        Cost: 1 GET, 1 PUT.
        """
        await self.verbs.committed(group)  # whether the caller may have to do with the group
        name = name or f"rest-consumer-{self._fresh()}"
        await self.store.create(Instance(group=group, name=name, settings=settings))
        return name

    async def delete(self, group: str, name: str) -> None:
        """Commit what was read (if that is automatic), leave the group, and forget the instance."""
        doc = await self._committed_by_itself((await self.store.load(group, name)).doc)
        await self._leave(doc)
        await self.store.drop(group, name)

    # -- what it reads ---------------------------------------------------------------------------------

    async def subscribe(self, group: str, name: str, topics: Sequence[str]) -> None:
        """Read ``topics`` together with the rest of the group.

        A second call takes the place of the first. The group is joined by the next poll.

        Raises:
            HttpError: 40403; 40903, the instance has a subscription of the other kind, or an assignment.
            InvalidRequest: a topic's name is malformed.
        """
        if len(topics) > SUBSCRIBED_MAX:
            raise InvalidRequest(f"A consumer subscribes to at most {SUBSCRIBED_MAX} topics, not {len(topics)}.")
        wanted = tuple(sorted({keys.check_topic_name(topic) for topic in topics}))
        await self._subscribe(group, name, "topics", wanted, "")

    async def subscribe_pattern(self, group: str, name: str, pattern: str) -> None:
        """Read the topics whose names match ``pattern``, as of each poll. Errors are those of ``subscribe``."""
        from headwater.api.patterns import check_pattern

        check_pattern(pattern)
        await self._subscribe(group, name, "pattern", (), pattern)

    async def _subscribe(self, group: str, name: str, mode: Mode, topics: tuple[str, ...], pattern: str) -> None:
        member = self._member()

        def decide(doc: Instance) -> Instance:
            if doc.mode not in ("", mode):
                raise _exclusive(doc)
            named = doc.member or member
            return structs.replace(doc, mode=mode, topics=topics, pattern=pattern, member=named, turn=0)

        await self.store.change(group, name, decide)

    async def unsubscribe(self, group: str, name: str) -> None:
        """Commit what was read (if that is automatic), and read nothing any more."""
        before = await self._committed_by_itself((await self.store.load(group, name)).doc)

        def decide(doc: Instance) -> Instance:
            return structs.replace(
                doc, mode="", topics=(), pattern="", member="", joined=False, epoch=-1, places=(), turn=0
            )

        await self.store.change(group, name, decide)
        await self._leave(before)

    async def assign(self, group: str, name: str, partitions: Collection[TP]) -> None:
        """Read exactly these partitions, whoever else does; none ends it.

        Raises:
            HttpError: 40403; 40903, the instance has a subscription; 40402, there is no such partition.
            NotFound: there is no such topic.
        """
        wanted = list(dict.fromkeys(partitions))
        if len(wanted) > CONSUMER_PLACES_MAX:
            raise InvalidRequest(f"A consumer reads at most {CONSUMER_PLACES_MAX} partitions, not {len(wanted)}.")
        doc = (await self.store.load(group, name)).doc
        if doc.mode not in ("", "assigned"):
            raise _exclusive(doc)
        known = {place.tp: place for place in doc.places}
        fresh = {place.tp: place for place in await self.begin(doc, {tp: -1 for tp in wanted if tp not in known})}

        def decide(doc: Instance) -> Instance:
            if doc.mode not in ("", "assigned"):
                raise _exclusive(doc)
            known = {place.tp: place for place in doc.places}
            places = tuple(known.get(tp) or fresh[tp] for tp in wanted if tp in known or tp in fresh)
            return structs.replace(doc, mode="assigned" if places else "", places=places, turn=0)

        await self.store.change(group, name, decide)

    async def described(self, group: str, name: str) -> Instance:
        """The instance as its last request left it: subscription, partitions, positions."""
        return (await self.store.load(group, name)).doc

    # -- where it reads --------------------------------------------------------------------------------

    async def seek(self, group: str, name: str, offsets: Mapping[TP, int]) -> None:
        """Go on reading at these offsets.

        Raises:
            HttpError: 40403; 40903, a partition is not the instance's.
        """
        await self.store.change(group, name, _moving(offsets))

    async def seek_to(self, group: str, name: str, partitions: Collection[TP], where: str) -> None:
        """Go on reading at the ``earliest`` or ``latest`` offset of these partitions. Errors are those of ``seek``."""
        doc = (await self.store.load(group, name)).doc
        _moving(dict.fromkeys(partitions, 0))(doc)
        topics = {topic: await self.verbs.topic(topic) for topic in sorted({topic for topic, _ in partitions})}
        offsets = {tp: _reset(topics[tp[0]], tp[1], where) for tp in partitions}
        await self.store.change(group, name, _moving(offsets))

    # -- what it has read ------------------------------------------------------------------------------

    async def commit(self, group: str, name: str, offsets: Mapping[TP, GroupOffset] | None) -> Mapping[TP, GroupOffset]:
        """Commit ``offsets``, or with ``None`` all that polls have returned; what was committed.

        Raises:
            HttpError: 40403.
            Fenced: a partition is not the instance's (any more). Nothing was committed.
        """
        doc = (await self.store.load(group, name)).doc
        if offsets is None:
            offsets = _read(doc)
        if not offsets:
            return {}
        await self._commit(doc, offsets)
        done = {tp: place.offset for tp, place in offsets.items()}
        await self.store.change(group, name, lambda doc: _with_committed(doc, done))
        return offsets

    async def committed(self, group: str, name: str, partitions: Collection[TP] | None) -> Mapping[TP, GroupOffset]:
        """What the group has committed, for ``partitions`` or for those that the instance reads."""
        doc = (await self.store.load(group, name)).doc
        wanted = [place.tp for place in doc.places] if partitions is None else list(dict.fromkeys(partitions))
        known = await self.verbs.committed(group) if wanted else {}
        return {tp: known[tp] for tp in wanted if tp in known}

    # -- parts that polls use too ----------------------------------------------------------------------

    async def begin(self, doc: Instance, owned: Mapping[TP, int]) -> list[Place]:
        """Where to begin with partitions: at the committed offset, else where the settings say.

        Raises:
            NotFound: there is no such topic.
            HttpError: 40402; 40903, nothing is committed and ``auto.offset.reset`` is ``none``.

        Cost: 1 GET, and 1 for each topic.
        """
        if not owned:
            return []
        committed = await self.verbs.committed(doc.group)
        topics = {topic: await self.verbs.topic(topic) for topic in sorted({topic for topic, _ in owned})}
        places = []
        for (topic, partition), since in owned.items():
            known = committed.get((topic, partition))
            start = _reset(topics[topic], partition, "earliest")  # also: whether there is such a partition
            if known is not None:
                places.append(Place(topic, partition, since, known.offset, known.offset, known.offset))
                continue
            if doc.settings.reset == "none":
                raise no_offset(doc.group, topic, partition)
            if doc.settings.reset == "latest":
                start = _reset(topics[topic], partition, "latest")
            places.append(Place(topic, partition, since, start, before=start))
        return places

    async def commit_read(self, doc: Instance) -> Instance:
        """Commit what polls have returned; an instance whose member has lost its partitions commits nothing."""
        offsets = _read(doc)
        if not offsets:
            return doc
        try:
            await self._commit(doc, offsets)
        except (Fenced, UnknownMember, NotFound):
            return doc  # the heartbeat tells what is left of it
        return _with_committed(doc, {tp: place.offset for tp, place in offsets.items()})

    def renamed(self, doc: Instance) -> Instance:
        """The instance as a member that the group does not know yet: without partitions."""
        return structs.replace(doc, member=self._member(), joined=False, epoch=-1, places=(), turn=0)

    async def _committed_by_itself(self, doc: Instance) -> Instance:
        return await self.commit_read(doc) if doc.settings.auto_commit else doc

    async def _commit(self, doc: Instance, offsets: Mapping[TP, GroupOffset]) -> None:
        joined = doc.mode in ("topics", "pattern") and doc.joined
        await self.verbs.commit_offsets(
            GroupOffsets(
                group=doc.group,
                offsets=offsets,
                member=doc.member if joined else "",
                generation=doc.epoch if joined else -1,
            )
        )

    async def _leave(self, doc: Instance) -> None:
        if doc.member:
            await self.verbs.leave(doc.group, doc.member)

    def _member(self) -> str:
        return f"rest-{self._fresh()}"

    def _fresh(self) -> str:
        return f"{self.namespace.chain.rng.getrandbits(128):032x}"


def no_offset(group: str, topic: str, partition: int) -> HttpError:
    """Nothing says where to begin (Kafka: NoOffsetForPartition, OffsetOutOfRange)."""
    return HttpError(
        409,
        f"Group {group!r} has no valid offset for topic {topic!r}, partition {partition}, and auto.offset.reset is "
        "'none': seek, or commit one.",
        error_code=ILLEGAL_STATE,
    )


def _reset(topic: TopicInfo, partition: int, where: str) -> int:
    if not 0 <= partition < len(topic.partitions):
        raise HttpError(404, f"Topic {topic.name!r} has no partition {partition}.", error_code=PARTITION_NOT_FOUND)
    known = topic.partitions[partition]
    return known.log_start if where == "earliest" else known.stable_end


def _read(doc: Instance) -> dict[TP, GroupOffset]:
    """What polls have returned and nobody has committed."""
    return {place.tp: GroupOffset(offset=place.position) for place in doc.places if place.position != place.committed}


def _with_committed(doc: Instance, offsets: Mapping[TP, int]) -> Instance:
    places = tuple(
        structs.replace(place, committed=offsets[place.tp]) if place.tp in offsets else place for place in doc.places
    )
    return structs.replace(doc, places=places)


def _moving(offsets: Mapping[TP, int]) -> Callable[[Instance], Instance]:
    """The change that moves positions, of an instance that reads all these partitions."""

    def decide(doc: Instance) -> Instance:
        missing = set(offsets) - {place.tp for place in doc.places}
        if missing:
            topic, partition = min(missing)
            raise HttpError(
                409,
                f"Partition {partition} of topic {topic[:80]!r} is not assigned to this consumer (a poll tells it what "
                "it has).",
                error_code=ILLEGAL_STATE,
            )
        places = tuple(
            structs.replace(place, position=offsets[place.tp]) if place.tp in offsets else place for place in doc.places
        )
        return structs.replace(doc, places=places)

    return decide


def _exclusive(doc: Instance) -> Conflict | HttpError:
    what = {"topics": "topics", "pattern": "a pattern", "assigned": "partitions"}[doc.mode]
    return HttpError(
        409,
        "Subscriptions to topics, partitions and a pattern are mutually exclusive, and this consumer has one to "
        f"{what}: unsubscribe first.",
        error_code=ILLEGAL_STATE,
    )
