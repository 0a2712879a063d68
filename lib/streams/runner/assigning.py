"""A worker's seat in its job's group: which tasks are its own, since which generation, and whose standby it is.

A task is a partition number. It is ours once we own that partition of every topic of the job, and its fence is the
generation since which that has been so: a task that was lost and won again is another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from headwater.client.membership import GroupOptions, Membership
from headwater.groups.coordinator import Coordinator
from headwater.limits import SESSION_MS
from headwater.log.namespace import Namespace
from headwater.log.state import State
from headwater.log.state.assignors import TASKS, ring
from headwater.streams.runner.committing import Fence
from headwater.streams.runner.job import Job

if TYPE_CHECKING:
    from headwater.api.verbs import Verbs

MAX_POLL_MS = 600_000  # a worker whose loop stands still for so long leaves the group: others go on


class Seat:
    """One member of the job's group. Its heartbeats run in the background from ``take`` on."""

    def __init__(
        self,
        namespace: Namespace,
        job: Job,
        *,
        client: str = "",
        instance: str = "",
        session_ms: int = SESSION_MS,
        news: Callable[[], None],
    ) -> None:
        self.namespace = namespace
        self.job = job
        # A coordinator answers to a member as the verbs do.
        verbs = cast("Verbs", namespace.shared(Coordinator))
        options = GroupOptions(
            group=job.name,
            instance=instance,
            client=client,
            assignor=TASKS,
            session_ms=session_ms,
            heartbeat_ms=min(3_000, session_ms // 3),
            max_poll_ms=MAX_POLL_MS,
        )
        chain = namespace.chain
        self.membership = Membership(verbs, options, clock=chain.clock, rng=chain.rng, news=news)

    @property
    def member(self) -> str:
        """The id of the present life in the group."""
        return self.membership.member

    async def take(self) -> None:
        """Join, or join anew under another id."""
        await self.membership.join(self.job.subscribed)

    async def leave(self) -> None:
        """Leave the group, so that others need not wait for the session to end."""
        await self.membership.leave()

    def fences(self) -> dict[int, Fence]:
        """The tasks that are ours, with what to commit in their name."""
        heard = self.membership.latest
        if heard is None or self.membership.is_lost:
            return {}
        found = {}
        for number in range(self.job.tasks):
            places = self.job.places(number)
            if all(place in heard.owned for place in places):
                since = max(heard.owned[place] for place in places)
                found[number] = Fence(group=self.job.name, member=self.member, generation=since)
        return found


def owners(state: State, job: Job) -> dict[int, str]:
    """The member that owns each task's changelog, as of ``state``; what is being given up is still its own."""
    group, topic = state.groups.get(job.name), job.topics[job.changelog].id
    found: dict[int, str] = {}
    for member in group.members.values() if group is not None else ():
        for held in (member.revoking, member.owned):
            found.update(dict.fromkeys(held.get(topic, {}), member.id))
    return found


def standbys(state: State, job: Job, member: str, count: int) -> set[int]:
    """The tasks of which ``member`` keeps a copy: those of the ``count`` members before it in the ring."""
    group = state.groups.get(job.name)
    if group is None or member not in group.members or count <= 0:
        return set()
    kept = owners(state, job)
    return {
        number for number, owner in kept.items() if owner != member and member in ring(group.members, owner)[:count]
    }


def address(state: State, job: Job, number: int) -> tuple[str, str]:
    """The member that owns a task and where it answers questions; empty strings if nobody does."""
    owner = owners(state, job).get(number, "")
    group = state.groups.get(job.name)
    client = group.members[owner].client if group is not None and owner in group.members else ""
    return owner, client if client.startswith(("http://", "https://")) else ""
