"""A coordinator that any process can be, and none has to be: what members of groups do, one heartbeat at a time.

    join        PUT lease ─► LIST leases, expel the dead ─► commit JoinGroup ─► what I own
    heartbeat   GET the tip; once an interval: PUT lease, HEAD my successor's ─► what I own, what to give up
    leave       commit LeaveGroup ─► DELETE lease

The members of a group watch over each other in a ring: each looks at the lease of the next one in the order of
joining, and if that is overdue, expels all whose leases are. So the cost of a member does not grow with its group,
and one survivor is enough. All decisions are the fold's (``log.state.members``); two processes that expel
the same member make one decision between them. In a steady group nothing is committed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from msgspec import structs

from headwater.errors import Conflict, Fenced, NotFound
from headwater.groups.checks import check_member, check_subscription, check_terms
from headwater.groups.describe import TP, named, unsettled
from headwater.groups.leases import Lease, Leases, overdue, renewal_ms
from headwater.limits import (
    GROUP_BURY_S,
    HEARTBEAT_FLUX_MS,
    LEASES_KNOWN_MAX,
    OFFSETS_RETENTION_MS,
    REBALANCE_MS,
    SESSION_MS,
)
from headwater.log import keys
from headwater.log import operations as ops
from headwater.log.namespace import Namespace
from headwater.log.outcomes import UnknownMember
from headwater.log.state import Group, Member, State
from headwater.log.state.classic import is_waiting
from headwater.log.state.groups import generation_of
from headwater.log.state.model import GroupKind
from headwater.log.together import to_the_end

if TYPE_CHECKING:
    from headwater.groups.maintenance import SweepReport

NOBODY: Final[Mapping[str, Sequence[str]]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a group tells one of its members (KIP-848's ConsumerGroupHeartbeat).

    ``owned`` is what the member may read and commit, with the generation since which it owns it. ``revoke`` it
    must let go of: commit, then name it as ``released`` in the next heartbeat. ``epoch`` goes with commits.
    ``interval_ms`` is when the next heartbeat is due; asking sooner is allowed and costs 1 GET.
    """

    group: str
    member: str
    epoch: int
    generation: int
    owned: Mapping[TP, int]
    revoke: Sequence[TP]
    interval_ms: int
    topics: Sequence[str] = ()


class Coordinator:
    """Groups of one namespace, as seen from one process. Make one per process; any number of tasks may use it."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.leases = Leases(namespace.chain)
        self._looked_s: dict[str, float] = {}

    async def heartbeat(
        self,
        group: str,
        member: str,
        *,
        topics: Sequence[str] | None = None,
        others: Mapping[str, Sequence[str]] = NOBODY,
        released: Sequence[TP] = (),
        instance: str = "",
        assignor: str = "",
        session_ms: int = SESSION_MS,
        rebalance_ms: int = REBALANCE_MS,
        client: str = "",
        joining: bool = False,
        renew: bool = True,
        epoch: int | None = None,
        stale_ms: int = 0,
    ) -> Heartbeat:
        """Join (``joining``), stay in, change ``topics``, give up what was ``released``; hear what the member owns.

        ``member`` is an id that was never used before; joining again under the id that one has is safe, and so is
        repeating a call that ended in ``Indeterminate``. The terms (``instance``, ``session_ms``, …) are those of
        the join. ``others`` are members whose topics change with this one's, since a pattern of theirs finds more or
        fewer by now: all of it is one rebalance. ``released`` beyond what is to be revoked is ignored. Without
        ``renew`` the call only tells: it neither renews the lease nor looks after the next member. ``epoch`` is the
        one that the member knows of: what it has been given since is not released. ``stale_ms`` is how old the
        knowledge may be by which a member hears that all is well (see ``seen``).

        Raises:
            InvalidRequest: a name or a number is out of bounds.
            Fenced: ``epoch`` is one that the group has never told this member.
            UnknownMember: the group has let go of this member. Give up all partitions, join under a new id.
            Conflict: the group has classic members that cannot be taken over (see ``log.state.migration``), or as many
                members as it may have.
            Indeterminate: the store fell silent. Call again.

        Cost: 1 GET; once an interval 1 PUT and 1 HEAD (2 where several processes serve the member); 1 commit if
        anything changes. Joining: 1 GET, 1 PUT, 1 LIST if others are there, 1 commit.
        """
        check_member(group, member)
        check_subscription(topics or (), assignor)
        if joining:
            check_terms(session_ms=session_ms, rebalance_ms=rebalance_ms, instance=instance, client=client)
            join = ops.JoinGroup(
                group=group,
                member=member,
                topics=list(topics or ()),
                instance=instance,
                assignor=assignor,
                session_ms=session_ms,
                rebalance_ms=rebalance_ms,
                client=client,
            )
            await self._join(join, others)
        else:
            known = await self.seen(group, member, "consumer", epoch=epoch or 0, stale_ms=stale_ms)
            if epoch is not None and epoch > known.epoch:
                raise Fenced(f"Member {member!r} of group {group!r} is at epoch {known.epoch}, not {epoch}.")
            since = known.epoch if epoch is None else epoch
            changes = _changes(self.namespace.state, group, known, topics, assignor, released, since)
            # At the same time, since a member that is slow to renew should not be slow to release as well.
            keeping = [self.keep(group, known)] if renew else []
            committing = [self._commit(changes)] if changes else []
            await to_the_end([*keeping, *committing, *self._resubscribed(group, others)])
            await self.end_join_if_due(self.namespace.state.groups.get(group))
        return self.answer(group, member, "consumer")

    async def leave(self, group: str, member: str, *, reason: str = "") -> None:
        """Leave the group. Of a member that is gone already, or of no group at all, there is nothing to do.

        Cost: 1 GET, 1 commit, 1 DELETE.
        """
        check_member(group, member)
        state = await self.namespace.refresh()
        if group in state.groups and member in state.groups[group].members:
            await self.expel(group, {member: reason or "it left"})
        self.leases.forget(group, member)
        await self.leases.drop([keys.lease_key(group, member)])

    async def sweep(self, *, idle_ms: int = OFFSETS_RETENTION_MS) -> SweepReport:
        """See ``groups.maintenance.sweep``."""
        from headwater.groups.maintenance import sweep

        return await sweep(self, idle_ms=idle_ms)

    # -- what both protocols and maintenance need --------------------------------------------------------

    async def seen(self, group: str, member: str, kind: GroupKind, *, epoch: int = 0, stale_ms: int = 0) -> Member:
        """The member, by knowledge that is at most ``stale_ms`` old.

        Nobody is refused by old knowledge: whom this process does not know, or who knows of a later ``epoch`` (classic:
        generation), is looked for at the tip. Being told a moment later of a rebalance elsewhere is what a slower
        network does, too; what a member may commit is decided by the fold.

        Raises ``UnknownMember``, or ``Conflict`` for the other protocol. Cost: 1 GET, or nothing.
        """
        if self.namespace.chain.age_s() * 1_000 < stale_ms:
            try:
                known = member_in(self.namespace.state, group, member, kind)
            except Conflict:
                pass
            else:
                found = self.namespace.state.groups[group]
                if epoch <= (known.epoch if kind == "consumer" else generation_of(found, known)):
                    return known
        return member_in(await self.namespace.refresh(), group, member, kind)

    async def end_join_if_due(self, group: Group | None) -> None:
        """End a phase whose deadline has passed, as anybody may: without those who have not joined, or without the
        leader that has not assigned. Cost: nothing, or 1 commit.
        """
        if group is None or not is_waiting(group) or self.now_ms() < group.deadline_ms:
            return
        try:
            await self._commit([ops.EndJoin(group=group.name, generation=group.generation)])
        except (Conflict, NotFound):
            pass  # somebody else did, or the one who stamped the manifest has a slower clock: look again later

    async def admit(self, group: str, member: str, *, session_ms: int) -> None:
        """Write the lease of somebody who is about to join, and expel whom the group has lost meanwhile.

        The lease comes first: whoever is in the group has one, so a missing one means that its member has left.
        """
        await to_the_end([self.leases.renew(group, member, session_ms=session_ms), self.namespace.chain.refresh()])
        await self._expel_lost(group, member)

    async def keep(self, group: str, member: Member) -> None:
        """Renew the lease of ``member`` if it is due, and then look after the next one in the ring."""
        if not await self.leases.due(group, member.id, session_ms=member.session_ms):
            return
        renewal = self.leases.renew(group, member.id, session_ms=member.session_ms)
        await to_the_end([renewal, self._watch(group, member.id)])

    async def bury(self, group: str) -> None:
        """Expel members whose sessions are over, for who is about to say whether a group has any.

        Members watch over each other, so this matters where none is left.

        Cost: nothing if all have come by this process within their sessions, or if it has just looked; else 1 LIST,
        and 1 commit if any is lost.
        """
        if not self.hears(group) and self.may_look(group):
            await self._expel_lost(group, "")

    async def bury_all(self) -> None:
        """``bury`` for all groups at once. Cost: nothing, or 1 LIST for each 1,000 leases, and 1 commit."""
        if all(self.hears(group) for group in self.namespace.state.groups) or not self.may_look(""):
            return
        members = self.everybody()
        lost = self.lost(members, await self.leases.all())
        await to_the_end([self.expel(group, reasons) for group, reasons in lost.items()])

    def everybody(self) -> dict[str, list[Member]]:
        """The members of all groups as of now. To be taken before leases are listed: see ``lost``."""
        return {name: list(group.members.values()) for name, group in self.namespace.state.groups.items()}

    def lost(self, members: Mapping[str, Sequence[Member]], leases: Mapping[str, Lease]) -> dict[str, dict[str, str]]:
        """Whom to expel, and why, by group.

        ``leases`` are all that there are. They were listed after the members were known, so whoever has no lease among
        them has none (see ``admit``); of one who joined meanwhile the list says nothing.
        """
        now_ms = self.now_ms()
        found: dict[str, dict[str, str]] = {}
        for group, known in members.items():
            for member in known:
                if reason := overdue(member, leases.get(keys.lease_key(group, member.id)), now_ms):
                    found.setdefault(group, {})[member.id] = reason
        return found

    def hears(self, group: str) -> bool:
        """Whether all members have come by this process within their sessions."""
        known = _members(self.namespace.state, group)
        return all(self.leases.heard(group, member.id, session_ms=member.session_ms) for member in known)

    def may_look(self, group: str) -> bool:
        """Whether nobody has looked for the dead of a group ("": of all groups) a moment ago. Then you do."""
        now_s = self.namespace.chain.clock.elapsed_s()
        if 0 <= now_s - self._looked_s.get(group, float("-inf")) < GROUP_BURY_S:
            return False
        if len(self._looked_s) >= LEASES_KNOWN_MAX:
            self._looked_s.clear()
        self._looked_s[group] = now_s
        return True

    async def expel(self, group: str, reasons: Mapping[str, str]) -> list[str]:
        """Have members leave, for reasons that are for people; those who left by this call. One intent each."""

        async def one(member: str, reason: str) -> bool:
            try:
                await self._commit([ops.LeaveGroup(group=group, member=member, reason=reason)])
            except UnknownMember:
                return False  # somebody else was first
            return True

        gone = await to_the_end([one(member, reason) for member, reason in reasons.items()])
        return [member for member, left in zip(reasons, gone, strict=True) if left]

    def now_ms(self) -> int:
        """The time that a manifest of ours would bear now."""
        return max(self.namespace.state.time_ms, self.namespace.chain.clock.wall_ms())

    # -- the parts ---------------------------------------------------------------------------------------

    async def _join(self, join: ops.JoinGroup, others: Mapping[str, Sequence[str]]) -> None:
        await self.admit(join.group, join.member, session_ms=join.session_ms)
        known = _members(self.namespace.state, join.group)
        replaced = [m.id for m in known if join.instance and m.instance == join.instance and m.id != join.member]
        joining = self._commit([structs.replace(join, as_of=self.namespace.state.seq)])
        await (to_the_end([joining, *self._resubscribed(join.group, others)]) if others else joining)
        # The old self of a static member is fenced by now (KIP-345); nobody has a use for its lease.
        await self.leases.drop([keys.lease_key(join.group, name) for name in replaced])

    def _resubscribed(self, group: str, others: Mapping[str, Sequence[str]]) -> list[Coroutine[Any, Any, None]]:
        """Change what members subscribe to who have not asked for it themselves. One intent each."""

        async def one(known: Member, topics: Sequence[str]) -> None:
            changes = _changes(self.namespace.state, group, known, topics, "", (), 0)
            with contextlib.suppress(UnknownMember, Conflict):  # it has left, or is of the classic protocol by now
                if changes:
                    await self._commit(changes)

        return [one(known, others[known.id]) for known in _members(self.namespace.state, group) if known.id in others]

    async def _watch(self, group: str, member: str) -> None:
        """Look at the next member in the ring; if it is lost, look at all of them, since it may not be alone."""
        successor = _successor(self.namespace.state, group, member)
        if successor is not None and overdue(successor, await self.leases.look(group, successor.id), self.now_ms()):
            await self._expel_lost(group, member)

    async def _expel_lost(self, group: str, member: str) -> None:
        """Expel all but ``member`` whose leases are overdue, at once. Cost: 1 LIST if others are there; 1 commit."""
        others = [known for known in _members(self.namespace.state, group) if known.id != member]
        if not others:
            return
        now_ms, found = self.now_ms(), await self.leases.all(group)
        reasons = {known.id: overdue(known, found.get(keys.lease_key(group, known.id)), now_ms) for known in others}
        await self.expel(group, {name: reason for name, reason in reasons.items() if reason})

    async def _commit(self, changes: Sequence[ops.AnyOp]) -> None:
        await self.namespace.writer.commit(ops=changes)

    def answer(self, group: str, member: str, kind: GroupKind) -> Heartbeat:
        """What the member hears, by what this process knows. Raises ``UnknownMember``, or ``Conflict``."""
        state = self.namespace.state
        known = member_in(state, group, member, kind)
        interval_ms = renewal_ms(known.session_ms)
        if unsettled(state.groups[group], known):
            interval_ms = min(interval_ms, HEARTBEAT_FLUX_MS)
        return Heartbeat(
            group=group,
            member=member,
            epoch=known.epoch,
            generation=state.groups[group].generation,
            owned=named(state, known.owned),
            revoke=list(named(state, known.revoking)),
            interval_ms=interval_ms,
            topics=list(known.topics),
        )


def member_in(state: State, group: str, member: str, kind: GroupKind) -> Member:
    """The member, if it speaks that protocol. Raises ``UnknownMember``, or ``Conflict`` for the other protocol."""
    found = state.groups.get(group)
    known = found.members.get(member) if found else None
    if found is None or known is None:
        raise UnknownMember(f"Group {group!r} has no member {member!r}: it left, or was expelled.")
    spoken = "classic" if known.protocols else found.kind
    if spoken != kind:
        raise Conflict(f"Member {member!r} of group {group!r} is a {spoken} one; this is the {kind} protocol.")
    return known


def _changes(
    state: State,
    group: str,
    member: Member,
    topics: Sequence[str] | None,
    assignor: str,
    released: Sequence[TP],
    epoch: int,
) -> list[ops.AnyOp]:
    """What is new about the member, as operations of one intent."""
    changes: list[ops.AnyOp] = []
    places = [(state.names[topic], partition) for topic, partition in released if topic in state.names]
    owed = [(topic, partition) for topic, partition in places if partition in member.revoking.get(topic, {})]
    if owed:
        places = sorted(set(owed))
        changes.append(ops.ReleasePartitions(group=group, member=member.id, partitions=places, epoch=epoch))
    wanted = member.topics if topics is None else sorted(set(topics))
    if (wanted, assignor or member.assignor) != (member.topics, member.assignor):
        changes.append(
            ops.JoinGroup(
                group=group,
                member=member.id,
                epoch=member.epoch,
                topics=wanted,
                instance=member.instance,
                assignor=assignor or member.assignor,
                session_ms=member.session_ms,
                rebalance_ms=member.rebalance_ms,
                client=member.client,
                as_of=state.seq,
            )
        )
    return changes


def _members(state: State, group: str) -> list[Member]:
    """The members in the order of joining."""
    return list(state.groups[group].members.values()) if group in state.groups else []


def _successor(state: State, group: str, member: str) -> Member | None:
    """Whom ``member`` looks after: the next one in the order of joining, the first one after the last one."""
    members = _members(state, group)
    at = next((at for at, known in enumerate(members) if known.id == member), None)
    if at is None or len(members) < 2:
        return None
    return members[(at + 1) % len(members)]
