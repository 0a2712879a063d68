"""Members of share groups (KIP-932): one heartbeat does it all, over a ``Coordinator`` that any process can be.

The machine is the fold's (``log.state.shares``), leases and the ring of watchers are those of all groups. Nothing is
revoked, so a member is told what it may read from now on, and that is all.
"""

from __future__ import annotations

from collections.abc import Sequence

from headwater.errors import Fenced
from headwater.groups.checks import check_member, check_subscription, check_terms
from headwater.groups.coordinator import Coordinator, Heartbeat
from headwater.limits import REBALANCE_MS
from headwater.log import operations_shares as share_ops


async def join_share(
    coordinator: Coordinator, group: str, member: str, topics: Sequence[str], *, session_ms: int, client: str = ""
) -> Heartbeat:
    """Join under an id that was never used before. Joining again under the id that one has is safe.

    Raises:
        InvalidRequest: a name or a number is out of bounds.
        Conflict: the group is of another kind, or has as many members as it may.
        Indeterminate: the store fell silent. Call again.

    Cost: 1 GET, 1 PUT, 1 LIST if others are there, 1 commit.
    """
    check_member(group, member)
    check_subscription(topics, "")
    check_terms(session_ms=session_ms, rebalance_ms=REBALANCE_MS, instance="", client=client)
    await coordinator.admit(group, member, session_ms=session_ms)
    await _commit(coordinator, group, member, topics, session_ms=session_ms, client=client)
    return coordinator.answer(group, member, "share")


async def stay_in_share(
    coordinator: Coordinator,
    group: str,
    member: str,
    *,
    epoch: int,
    topics: Sequence[str] | None = None,
    stale_ms: int = 0,
) -> Heartbeat:
    """Stay, change ``topics``, and hear what the member may read. ``stale_ms``: see ``Coordinator.seen``.

    Raises:
        Fenced: ``epoch`` is one that the group has never told this member.
        UnknownMember: the group has let go of this member. Join under a new id.
        Conflict: the group is of another kind by now.

    Cost: nothing or 1 GET; once an interval 1 PUT and 1 HEAD; 1 commit if topics change.
    """
    check_member(group, member)
    check_subscription(topics or (), "")
    known = await coordinator.seen(group, member, "share", epoch=epoch, stale_ms=stale_ms)
    if epoch > known.epoch:
        raise Fenced(f"Member {member!r} of group {group!r} is at epoch {known.epoch}, not {epoch}.")
    await coordinator.keep(group, known)
    if topics is not None and sorted(set(topics)) != known.topics:
        await _commit(coordinator, group, member, topics, session_ms=known.session_ms, client=known.client)
    return coordinator.answer(group, member, "share")


async def _commit(
    coordinator: Coordinator, group: str, member: str, topics: Sequence[str], *, session_ms: int, client: str
) -> None:
    join = share_ops.JoinShare(
        group=group,
        member=member,
        topics=sorted(set(topics)),
        session_ms=session_ms,
        client=client,
        as_of=coordinator.namespace.state.seq,
    )
    await coordinator.namespace.writer.commit(ops=[join])
