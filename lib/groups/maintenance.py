"""What nobody in a group does for it: take away what is left when all of its members are gone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headwater.errors import Conflict, NotFound
from headwater.groups.coordinator import Coordinator
from headwater.limits import LEASE_ORPHAN_MS, MANIFEST_INTENTS_MAX, OFFSETS_RETENTION_MS
from headwater.log import keys
from headwater.log import operations as ops
from headwater.log.state import Group, State
from headwater.log.state.classic import is_waiting
from headwater.log.together import to_the_end


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What a sweep did. ``ended`` are join phases of the classic protocol that lasted beyond their deadline."""

    expelled: tuple[tuple[str, str], ...] = ()  # (group, member)
    expired: tuple[str, ...] = ()  # groups that lost idle offsets, or all of themselves
    ended: tuple[str, ...] = ()
    leases_dropped: int = 0


async def sweep(coordinator: Coordinator, *, idle_ms: int = OFFSETS_RETENTION_MS) -> SweepReport:
    """Expel members without a valid lease, end what is overdue, forget what was idle, delete orphaned leases.

    Any process may call it at any time, also several at once; maintenance does so by schedule. Members that live
    do not need it: they expel each other, and joiners expel too.

    Cost: 2 GETs, 1 LIST for each 1,000 leases, 1 commit for each 2,000 things to change.
    """
    namespace = coordinator.namespace
    await namespace.refresh()
    known = coordinator.everybody()
    found, now_ms = await coordinator.leases.all(), coordinator.now_ms()
    lost = coordinator.lost(known, found)
    left = await to_the_end(coordinator.expel(name, reasons) for name, reasons in lost.items())
    state = await namespace.refresh()
    ended = await _try(coordinator, _overdue_joins(state, now_ms))
    expired = await _try(coordinator, _idle(state, now_ms, idle_ms))
    members = {keys.lease_key(group.name, name) for group in state.groups.values() for name in group.members}
    orphans = [key for key, lease in found.items() if key not in members and lease.age_ms > LEASE_ORPHAN_MS]
    await coordinator.leases.drop(orphans)
    return SweepReport(
        expelled=tuple((group, name) for group, names in zip(lost, left, strict=True) for name in names),
        expired=tuple(expired),
        ended=tuple(ended),
        leases_dropped=len(orphans),
    )


def _overdue_joins(state: State, now_ms: int) -> dict[str, ops.AnyOp]:
    return {
        group.name: ops.EndJoin(group=group.name, generation=group.generation)
        for group in state.groups.values()
        if is_waiting(group) and group.deadline_ms <= now_ms
    }


def _idle(state: State, now_ms: int, idle_ms: int) -> dict[str, ops.AnyOp]:
    return {
        group.name: ops.ExpireOffsets(group=group.name, idle_ms=idle_ms)
        for group in state.groups.values()
        if _has_idle(state, group, now_ms - idle_ms)
    }


def _has_idle(state: State, group: Group, since_ms: int) -> bool:
    """Whether the fold would find something to forget; it has the last word."""
    if any(topic not in state.topics for topic in group.offsets):
        return True
    if group.members or group.shares or group.emptied_ms > since_ms:
        return False
    times = [committed.time_ms for places in group.offsets.values() for committed in places.values()]
    return not times or min(times) <= since_ms


async def _try(coordinator: Coordinator, changes: dict[str, ops.AnyOp]) -> list[str]:
    """Commit what anybody may commit; the groups for which it was us, and in time."""

    async def one(change: ops.AnyOp) -> bool:
        try:
            await coordinator.namespace.writer.commit(ops=[change])
        except (Conflict, NotFound):
            return False
        return True

    done: list[str] = []
    for names in _chunks(list(changes), MANIFEST_INTENTS_MAX):
        applied = await to_the_end(one(changes[name]) for name in names)
        done += [name for name, yes in zip(names, applied, strict=True) if yes]
    return done


def _chunks(names: list[str], size: int) -> Iterable[list[str]]:
    return (names[at : at + size] for at in range(0, len(names), size))
