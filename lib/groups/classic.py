"""Kafka's classic protocol for edges that speak it: join, sync and heartbeat over a ``Coordinator``.

The machine is the fold's (``log.state.classic``). Here is what needs time: a member that waits looks at the tip with
growing pauses, keeps its lease meanwhile, and says ``EndJoin`` when a join phase has lasted long enough. So no
broker has to stay alive between the requests of a rebalance. Metadata and assignments are bytes that only clients
understand; those of Kafka's consumers are understood here as well, so that their groups can change to KIP-848's
protocol (``log.state.migration``). In such a group a member joins without waiting for others, and is never the leader.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import structs

from headwater.errors import Conflict, Fenced, InvalidRequest
from headwater.groups import consumer_protocol
from headwater.groups.checks import check_member, check_name, check_terms
from headwater.groups.coordinator import Coordinator, member_in
from headwater.limits import (
    GROUP_POLL_MS_MAX,
    GROUP_POLL_MS_MIN,
    REBALANCE_MS,
    SESSION_MS,
    SUBSCRIBED_MAX,
    TOPIC_NAME_MAX,
)
from headwater.log import operations as ops
from headwater.log.outcomes import Rebalancing
from headwater.log.state import Group, Member, State, migration
from headwater.log.state.classic import is_waiting
from headwater.log.state.groups import generation_of
from headwater.log.together import to_the_end

PROTOCOLS_MAX = 64  # assignors that one member offers


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedMember:
    """A member as the leader sees it: its metadata under the protocol that was chosen."""

    member: str
    instance: str
    metadata: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The generation in which a member has joined. ``members`` is for the leader, who assigns; empty for others.

    ``assigned``: the generation has its assignments already. So it is for a static member that came back; if it leads,
    it is not to assign anew (KIP-814).
    """

    generation: int
    protocol_type: str
    protocol: str
    leader: str
    member: str
    members: Sequence[JoinedMember] = ()
    assigned: bool = False


async def join_classic(
    coordinator: Coordinator,
    group: str,
    member: str,
    *,
    protocol_type: str,
    protocols: Sequence[tuple[str, bytes]],
    instance: str = "",
    session_ms: int = SESSION_MS,
    rebalance_ms: int = REBALANCE_MS,
    delay_ms: int = 0,
    client: str = "",
    timeout_ms: int | None = None,
) -> Joined:
    """Join, and return when the generation has begun in which ``member`` takes part (Kafka: JoinGroup).

    ``member`` is an id that the edge has given out (KIP-394). A call that is repeated goes on where it was.

    Raises:
        InvalidRequest: a name or a number is out of bounds.
        Conflict: the group is of the other protocol or of another type, shares no assignor, or is full.
        UnknownMember: the group has let go of this member while it waited. Join under a new id.
        Rebalancing: ``timeout_ms`` (by default the rebalance and the session) passed before all had joined.

    Cost: that of ``Coordinator.heartbeat`` for a joiner (of a member that joins again: 1 GET, 1 commit), then 1 GET a
    look, 1 commit if the deadline passes.
    """
    _check(group, member, protocol_type, protocols)
    check_terms(session_ms=session_ms, rebalance_ms=rebalance_ms, instance=instance, client=client)
    if not 0 <= delay_ms <= rebalance_ms:
        raise InvalidRequest(f"The first join phase may be held open for 0 to {rebalance_ms} ms, not {delay_ms}.")
    join = ops.JoinClassic(
        group=group,
        member=member,
        protocol_type=protocol_type,
        protocols=[(name, base64.b64encode(metadata).decode()) for name, metadata in protocols],
        instance=instance,
        session_ms=session_ms,
        rebalance_ms=rebalance_ms,
        delay_ms=delay_ms,
        client=client,
    )
    before = _known(coordinator, group, member)
    if before is None:
        await coordinator.admit(group, member, session_ms=session_ms)
    else:
        await to_the_end([coordinator.keep(group, before), coordinator.namespace.chain.refresh()])
    join = _with_subscription(coordinator.namespace.state, join, protocols)
    join = structs.replace(join, as_of=coordinator.namespace.state.seq)
    await _commit(coordinator, join)
    waiting = _Waiting(coordinator, group, member, timeout_ms or rebalance_ms + session_ms)
    while True:
        found, known = waiting.look()
        if known.joined and _has_begun(found, known):
            return _joined(found, known)
        if not known.joined:
            # The generation that we joined has come and gone between two looks.
            await _commit(coordinator, join)
            continue
        await waiting.pause()


async def sync_classic(
    coordinator: Coordinator,
    group: str,
    member: str,
    generation: int,
    assignments: Mapping[str, bytes] | None = None,
    *,
    timeout_ms: int | None = None,
) -> bytes:
    """Give the ``assignments`` if this is the leader, and return this member's own (Kafka: SyncGroup).

    Raises:
        UnknownMember, Fenced: the member, or its generation, is no longer the group's.
        Rebalancing: another rebalance has begun, or the leader did not assign in time: join again.

    Cost: the leader 1 commit; the others 1 GET a look.
    """
    check_member(group, member)
    known = await coordinator.seen(group, member, "classic", epoch=generation, stale_ms=GROUP_POLL_MS_MAX)
    waiting = _Waiting(coordinator, group, member, timeout_ms or known.rebalance_ms)
    while True:
        found, known = waiting.look()
        _check_generation(found, known, generation)
        if found.phase == "preparing":
            raise Rebalancing(f"Group {group!r} is rebalancing: join again.")
        if found.kind == "consumer":
            return _told(coordinator.namespace.state, known)
        if found.phase == "stable":
            return base64.b64decode(known.assignment)
        if found.leader == member:
            given = {name: base64.b64encode(data).decode() for name, data in (assignments or {}).items()}
            try:
                await _commit(
                    coordinator, ops.SyncClassic(group=group, member=member, generation=generation, assignments=given)
                )
            except Conflict:
                # Somebody of the other protocol has joined meanwhile.
                raise Rebalancing(f"Group {group!r} is rebalancing: join again.") from None
            continue
        await waiting.pause()


async def heartbeat_classic(
    coordinator: Coordinator, group: str, member: str, generation: int, *, stale_ms: int = 0
) -> None:
    """Stay in the group, and hear whether its generation still holds (Kafka: Heartbeat).

    ``stale_ms`` is how old the knowledge may be by which it is said to hold (see ``Coordinator.seen``).

    Raises:
        UnknownMember, Fenced: the member, or its generation, is no longer the group's.
        Rebalancing: commit what was read, then join again.

    Cost: 1 GET, or nothing; once an interval 1 PUT and 1 HEAD.
    """
    check_member(group, member)
    await coordinator.keep(group, await coordinator.seen(group, member, "classic", epoch=generation, stale_ms=stale_ms))
    await coordinator.end_join_if_due(coordinator.namespace.state.groups.get(group))
    known = member_in(coordinator.namespace.state, group, member, "classic")
    found = coordinator.namespace.state.groups[group]
    _check_generation(found, known, generation)
    if found.phase == "preparing" or (found.kind == "consumer" and not migration.knows_all(known)):
        raise Rebalancing(f"Group {group!r} is rebalancing: join again.")


class _Waiting:
    """A member that waits for others: it looks at the tip, keeps its lease, and ends what is overdue."""

    def __init__(self, coordinator: Coordinator, group: str, member: str, timeout_ms: int) -> None:
        self._coordinator = coordinator
        self._chain = coordinator.namespace.chain
        self._group, self._member = group, member
        self._until_s = self._chain.clock.elapsed_s() + timeout_ms / 1_000
        self._pause_ms = float(GROUP_POLL_MS_MIN)

    def look(self) -> tuple[Group, Member]:
        """The group and the member as this process knows them. Raises ``UnknownMember``."""
        state = self._coordinator.namespace.state
        known = member_in(state, self._group, self._member, "classic")
        return state.groups[self._group], known

    async def pause(self) -> None:
        """Wait for news, for a growing while at most, and bring the state up to date. Raises ``Rebalancing``."""
        left_s = self._until_s - self._chain.clock.elapsed_s()
        if left_s <= 0:
            raise Rebalancing(f"Group {self._group!r} was not complete in time: join again.")
        jittered_ms = self._pause_ms * self._chain.rng.uniform(0.5, 1.0)
        self._pause_ms = min(self._pause_ms * 2, GROUP_POLL_MS_MAX)
        due_ms = self._due_ms()
        if due_ms is not None:
            jittered_ms = min(jittered_ms, due_ms)
        await self._chain.grown(self._chain.state.seq, min(jittered_ms / 1_000, left_s))
        await self._chain.refresh()
        found, known = self.look()
        await self._coordinator.keep(self._group, known)
        await self._coordinator.end_join_if_due(found)

    def _due_ms(self) -> float | None:
        """How long the group waits for others; None if it does not, or if that is overdue and others may end it."""
        group = self._coordinator.namespace.state.groups.get(self._group)
        if group is None or not is_waiting(group):
            return None
        left_ms = group.deadline_ms - self._coordinator.now_ms()
        return left_ms if left_ms > 0 else None


def _known(coordinator: Coordinator, group: str, member: str) -> Member | None:
    found = coordinator.namespace.state.groups.get(group)
    return found.members.get(member) if found else None


async def _commit(coordinator: Coordinator, change: ops.AnyOp) -> None:
    await coordinator.namespace.writer.commit(ops=[change])


def _check(group: str, member: str, protocol_type: str, protocols: Sequence[tuple[str, bytes]]) -> None:
    check_member(group, member)
    check_name("protocol type", protocol_type)
    if not 1 <= len(protocols) <= PROTOCOLS_MAX:
        raise InvalidRequest(f"A member offers 1 to {PROTOCOLS_MAX} assignors, not {len(protocols)}.")
    for name, _ in protocols:
        check_name("assignor's name", name)


def _check_generation(group: Group, member: Member, generation: int) -> None:
    # While all are to join again, the generation that is over is still the one that members name.
    current = generation_of(group, member)
    if generation != current:
        raise Fenced(f"Group {group.name!r} is at generation {current}; {member.id!r} named {generation}.")


def _with_subscription(state: State, join: ops.JoinClassic, protocols: Sequence[tuple[str, bytes]]) -> ops.JoinClassic:
    """The join with what a Kafka consumer says of itself, if its member is one."""
    said = [consumer_protocol.decode_subscription(metadata) for _, metadata in protocols]
    if join.protocol_type != consumer_protocol.TYPE or None in said:
        return join
    known = [each for each in said if each is not None]
    topics = {topic for each in known for topic in each.topics}
    if len(topics) > SUBSCRIBED_MAX or not all(0 < len(topic.encode()) <= TOPIC_NAME_MAX for topic in topics):
        return join
    claims = {
        (state.names[topic], partition)
        for each in known
        for topic, partition in each.claims
        if topic in state.names and partition >= 0
    }
    return structs.replace(join, topics=sorted(topics), claims=sorted(claims))


def _has_begun(group: Group, member: Member) -> bool:
    """Whether the generation has begun that a member has joined for."""
    return group.phase in ("completing", "stable") if group.kind == "classic" else member.generation >= 0


def protocol_of(group: Group, member: Member) -> str:
    """The assignor under which the member takes part; of a member among those of KIP-848, the one it likes best."""
    return member.protocols[0][0] if group.kind == "consumer" and member.protocols else group.protocol


def _told(state: State, member: Member) -> bytes:
    """The assignment that a member in a consumer group was told of with its last join."""
    places = {
        state.topics[topic].name: partitions for topic, partitions in member.told.items() if topic in state.topics
    }
    said = consumer_protocol.decode_subscription(metadata_of(member, member.protocols[0][0]))
    return consumer_protocol.encode_assignment(dict(sorted(places.items())), said.version if said else 0)


def _joined(group: Group, member: Member) -> Joined:
    if group.kind == "consumer":
        return Joined(
            generation=member.generation,
            protocol_type=group.protocol_type,
            protocol=protocol_of(group, member),
            leader="",
            member=member.id,
        )
    members = []
    if group.leader == member.id:
        members = [
            JoinedMember(member=m.id, instance=m.instance, metadata=metadata_of(m, group.protocol))
            for m in group.members.values()
        ]
    return Joined(
        generation=group.generation,
        protocol_type=group.protocol_type,
        protocol=group.protocol,
        leader=group.leader,
        member=member.id,
        members=members,
        assigned=group.phase == "stable",
    )


def metadata_of(member: Member, protocol: str) -> bytes:
    """What a member has said of itself under a protocol; nothing if it does not know that one."""
    try:
        return base64.b64decode(next((data for name, data in member.protocols if name == protocol), ""))
    except binascii.Error:
        return b""  # put there by something that is no edge of ours
