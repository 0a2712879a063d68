"""What is done to a job from outside, by its name alone: pause, reset, savepoint, restart, status.

Pausing is a config of the changelog topic: every worker sees it in the state that it folds anyway. Reset and restart
take the job's group for themselves first: they join it as its only member, so that no worker can come in between, and
then make one intent, fenced as a worker's are.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from headwater.client.backoff import Backoff
from headwater.errors import Conflict, HeadwaterError, Indeterminate, InvalidRequest, NotFound
from headwater.groups.coordinator import Coordinator
from headwater.groups.leases import overdue
from headwater.limits import TOPIC_NAME_MAX
from headwater.log import keys
from headwater.log import operations as ops
from headwater.log.history import state_at
from headwater.log.intents import new_id
from headwater.log.namespace import Namespace
from headwater.log.operations import Chunk
from headwater.log.state import Outcome, State
from headwater.log.state.assignors import TASKS
from headwater.log.writer import Append
from headwater.streams.runner import changelog
from headwater.streams.runner.account import as_data, figures_key, summed
from headwater.streams.runner.changelog import Line
from headwater.streams.runner.committing import encoded, settle
from headwater.streams.runner.remains import PAUSED, SAVEPOINT, Place, Remains, figures, remains, savepoints
from headwater.streams.runner.restoring import read_as_of, read_range
from headwater.streams.runner.reverting import revert, tables_of

# -- looking ---------------------------------------------------------------------------------------------


async def status(namespace: Namespace, job: str) -> dict[str, Any]:
    """What a job is about: members, tasks, lag, state and savepoints, as plain data. Cost: 1 GET."""
    state = await namespace.refresh()
    found = remains(state, job)
    group = state.groups.get(job)
    lag = [
        {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "lag": max(_end(state, topic, partition) - offset, 0),
        }
        for (topic, partition), offset in sorted(found.offsets.items())
        if topic != found.changelog.name
    ]
    return {
        "job": job,
        "state": "paused"
        if found.changelog.config.get(PAUSED) == "true"
        else "running"
        if _members(state, job)
        else "stopped",
        "commit": state.seq,
        "tasks": found.tasks,
        "generation": group.generation if group is not None else 0,
        "members": [
            {
                "member": member.id,
                "instance": member.instance,
                "address": member.client,
                "tasks": sorted(member.owned.get(found.changelog.id, {})),
            }
            for member in (group.members.values() if group is not None else ())
        ],
        "lag": lag,
        "operators": {name: as_data(one) for name, one in summed(figures(found)).items()},
        "changelog": [
            {"task": number, "records": place.next - place.start, "start": place.start, "end": place.next}
            for number, place in enumerate(found.changelog.partitions)
        ],
        "savepoints": savepoints(found),
    }


# -- pause, savepoint ------------------------------------------------------------------------------------


async def pause(namespace: Namespace, job: str, *, paused: bool = True) -> int:
    """Make all workers of a job hold still, or let them go on; durable. The commit as of which it holds.

    Workers stop taking input within their next poll, a second at most; what they have computed is still committed.
    """
    found = remains(await namespace.refresh(), job)
    await namespace.alter_topic(found.changelog.name, {PAUSED: "true" if paused else None})
    return namespace.state.seq


async def savepoint(namespace: Namespace, job: str, name: str = "") -> dict[str, Any]:
    """A commit to which the job can be brought back, and how far it was then; kept under ``name`` if one is given.

    Any commit is one: state, outputs and offsets are in one manifest. It can be gone back to while
    ``history.retention.ms`` lasts, so raise that for a savepoint that is to be kept.

    Raises ``NotFound`` for a job that has committed nothing.
    """
    if name and not (name.replace("-", "").replace("_", "").isalnum() and len(name) <= TOPIC_NAME_MAX):
        raise InvalidRequest(f"A savepoint's name has letters, digits, - and _, not {name[:80]!r}.")
    state = await namespace.refresh()
    found = remains(state, job)
    if not found.offsets:
        raise NotFound(f"Job {job!r} has committed nothing yet: there is nothing to go back to.", job=job)
    commit = state.seq
    if name:
        await namespace.alter_topic(found.changelog.name, {f"{SAVEPOINT}{name}": str(commit)})
    reaches = remains(await state_at(namespace.chain, commit), job)
    assert reaches.offsets == found.offsets or namespace.state.seq > commit, "one commit is one state"
    return {
        "job": job,
        "commit": commit,
        "name": name,
        "offsets": [[topic, partition, offset] for (topic, partition), offset in sorted(reaches.offsets.items())],
        "lag": sum(
            max(_end(state, topic, partition) - offset, 0)
            for (topic, partition), offset in reaches.offsets.items()
            if topic != found.changelog.name
        ),
    }


# -- reset -----------------------------------------------------------------------------------------------


async def plan_reset(namespace: Namespace, job: str, places: Mapping[Place, int]) -> dict[str, Any]:
    """What a reset would do, for people to look at; ``places`` are the offsets to begin at."""
    state = await namespace.refresh()
    found = remains(state, job)
    anew = _has_grown(state, found)
    return {
        "job": job,
        "deleted_topics": [*([found.changelog.name] if anew else []), *found.repartitions],
        "offsets": [
            {
                "topic": topic,
                "partition": partition,
                "before": found.offsets.get((topic, partition), -1),
                "after": offset,
            }
            for (topic, partition), offset in sorted(places.items())
        ],
        "state_records": sum(place.next - place.start for place in found.changelog.partitions),
        "internal_topics": [found.changelog.name, *found.repartitions],
        "how": "delete" if anew else "trim",
    }


async def reset(namespace: Namespace, job: str, places: Mapping[Place, int]) -> int:
    """Forget all state of a job and begin at ``places``; the commit that did it. Outputs stay.

    All by one intent: offsets, the changelog trimmed to its end, and the repartition topics deleted, also those of
    nodes that have another name by now; the next run makes those that it needs. Where the number of the sources'
    partitions has changed the changelog is deleted as well.

    Raises:
        Conflict: members are active. Stop them first.
        NotFound: there is no such job.
    """
    # A source that was made anew is none that the group has offsets of, so it is named to be owned.
    async with _sole_owner(namespace, job, {topic for topic, _ in places}) as (found, owner):
        offsets = dict(places)
        changes: list[ops.AnyOp] = [ops.DeleteTopic(topic=namespace.topic(name).id) for name in found.repartitions]
        if _has_grown(namespace.state, found):
            changes.append(ops.DeleteTopic(topic=found.changelog.id))
        else:
            forgotten: dict[str, str | None] = {figures_key(number): None for number in range(found.tasks)}
            changes.append(ops.AlterTopic(topic=found.changelog.id, config=forgotten))
            for number, place in enumerate(found.changelog.partitions):
                offsets[found.changelog.name, number] = place.next
                changes.append(ops.TrimLog(topic=found.changelog.id, partition=number, before=place.next))
        fence = await namespace.offsets_op(job, offsets, owner.generation, owner.member)
        return (await settle(namespace, (), [fence, *changes])).seq


def _has_grown(state: State, found: Remains) -> bool:
    counts = [len(topic.partitions) for name in found.sources if (topic := state.named(name)) is not None]
    return bool(counts) and max(counts) != found.tasks


# -- restart ---------------------------------------------------------------------------------------------


async def restart(namespace: Namespace, job: str, commit: int) -> dict[str, Any]:
    """Bring state, offsets and tables of a job back to what they were at ``commit``, by one intent.

    Tables that it writes get the rows that they had then (see ``reverting``); records of streams stay, and will be
    written again. The changelog gets a snapshot of what it held then, which replaces all before it; what lay unread in
    repartition topics is appended again. The next run goes on from there.

    Raises:
        Conflict: members are active; or the number of tasks has changed since.
        NotFound: the job or the commit does not exist, or the history was collected (``history.retention.ms``).
        InvalidRequest: retention has taken source records that would have to be read again.

    Cost: reads the changelog as of then and writes the state once, one partition in memory at a time; reads tables
    that were written since.
    """
    past = await state_at(namespace.chain, commit)
    then = remains(past, job)
    if not then.offsets:
        raise NotFound(f"Job {job!r} had committed nothing at commit {commit}.", job=job)
    async with _sole_owner(namespace, job) as (now, owner):
        if now.tasks != then.tasks:
            raise Conflict(f"Job {job!r} had {then.tasks} tasks at commit {commit} and has {now.tasks} now.", job=job)
        offsets = _sources_at(namespace, past, then, now)
        changes: list[ops.AnyOp] = []
        staged: list[Chunk] = []
        for name in then.repartitions:
            staged += await _reappend(namespace, past, then, name, offsets, changes)
        tables: set[str] = set()
        for number in range(now.tasks):
            pieces, topology = await _replace(namespace, past, now, number, offsets, changes)
            staged += pieces
            tables.update(tables_of(topology))
        for name in sorted(tables):
            staged += await revert(namespace, past, name)
        for name in set(now.repartitions) - set(then.repartitions):
            topic = namespace.topic(name)
            for number, place in enumerate(topic.partitions):
                offsets[name, number] = place.next
        fence = await namespace.offsets_op(job, offsets, owner.generation, owner.member)
        outcome = await _commit_staged(namespace, staged, [fence, *changes])
    return {
        "job": job,
        "at": commit,
        "commit": outcome.seq,
        "offsets": [[topic, partition, offset] for (topic, partition), offset in sorted(offsets.items())],
    }


def _sources_at(namespace: Namespace, past: State, then: Remains, now: Remains) -> dict[Place, int]:
    offsets: dict[Place, int] = {}
    for (name, number), offset in then.offsets.items():
        if name not in then.sources:
            continue
        topic = namespace.topic(name)
        if past.names[name] != topic.id:
            raise Conflict(f"Topic {name!r} was deleted and made anew since: its offsets mean nothing any more.")
        start = topic.partitions[number].start
        if offset < start:
            raise InvalidRequest(
                f"Topic {name!r}, partition {number} begins at offset {start}; the job would have to read on at "
                f"{offset}, which retention has taken.",
                topic=name,
                partition=number,
            )
        offsets[name, number] = offset
    for name, number in now.offsets:
        if name in now.sources and (name, number) not in offsets:
            offsets[name, number] = namespace.topic(name).partitions[number].start  # nothing of it was read then
    return offsets


async def _reappend(
    namespace: Namespace,
    past: State,
    then: Remains,
    name: str,
    offsets: dict[Place, int],
    changes: list[ops.AnyOp],
) -> list[Chunk]:
    """What lay unread in a repartition topic is to be read again; what came later will be made again."""
    staged: list[Chunk] = []
    topic = namespace.topic(name)
    for number, place in enumerate(topic.partitions):
        _, before = namespace.reader.place(name, number, past)
        start = then.offsets.get((name, number), before.start)
        unread = await read_range(namespace, name, number, start, before.stable_end, past)
        appends = [
            Append(topic=topic.id, partition=number, batch=made)
            for placed in unread
            if placed.num_rows
            for made in encoded(placed.drop_columns(["offset"]))
        ]
        staged += await namespace.writer.stage(appends) if appends else []
        offsets[name, number] = place.next
        changes.append(ops.TrimLog(topic=topic.id, partition=number, before=place.next))
    return staged


async def _replace(
    namespace: Namespace,
    past: State,
    now: Remains,
    number: int,
    offsets: dict[Place, int],
    changes: list[ops.AnyOp],
) -> tuple[list[Chunk], Line | None]:
    """A task's state as it was, as a snapshot that makes all before it void; and what made it, its topology."""
    topic, place = now.changelog, now.changelog.partitions[number]
    pieces, progress, topology = changelog.effective(await read_as_of(namespace, topic.name, number, past))
    lines: list[Line] = [changelog.begin_line(replace=True), *([topology] if topology else []), *pieces]
    lines.append(changelog.end_line())
    if progress is not None:
        lines.append(_moved(progress, {place: offset for place, offset in offsets.items() if place[1] == number}))
    batches = changelog.batches_of(lines, namespace.chain.clock.wall_ms())
    staged: list[Chunk] = []
    for made in batches:
        staged += await namespace.writer.stage([Append(topic=topic.id, partition=number, batch=made)])
    offsets[topic.name, number] = place.next
    changes.append(ops.TrimLog(topic=topic.id, partition=number, before=place.next))
    return staged, topology


def _moved(progress: Line, offsets: Mapping[Place, int]) -> Line:
    """Progress that says the offsets at which the job goes on."""
    said = msgspec.json.decode(progress.value)
    said.setdefault("run", {})["offsets"] = [[topic, number, offset] for (topic, number), offset in offsets.items()]
    return changelog.progress_line(said)


async def _commit_staged(namespace: Namespace, staged: Sequence[Chunk], changes: Sequence[ops.AnyOp]) -> Outcome:
    chain = namespace.chain
    backoff, token, intent = Backoff(chain.clock, chain.rng), "", new_id(chain.rng)
    deadline_s = chain.clock.elapsed_s() + chain.options.commit_timeout_s
    while True:
        try:
            return await namespace.writer.commit_staged(staged, (), changes, token=token, intent_id=intent)
        except Indeterminate as error:
            token = error.token or token
            if not await backoff.pause(error, deadline_s):
                raise


# -- owning a job ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """In whose name something is done to a job."""

    member: str
    generation: int


def _members(state: State, job: str) -> list[str]:
    group = state.groups.get(job)
    return list(group.members) if group is not None else []


def _end(state: State, topic: str, partition: int) -> int:
    found = state.named(topic)
    return found.partitions[partition].stable_end if found is not None and partition < len(found.partitions) else 0


@contextlib.asynccontextmanager
async def _sole_owner(
    namespace: Namespace, job: str, others: Collection[str] = ()
) -> AsyncIterator[tuple[Remains, Owner]]:
    """Be the only member of the job's group, and own ``others`` besides the topics that it has.

    Raises ``Conflict`` if others are active, or come meanwhile.
    """
    coordinator = namespace.shared(Coordinator)
    found = remains(await namespace.refresh(), job)
    await _refuse_active(namespace, coordinator, job)
    member = f"streams-control-{keys.fresh_name(namespace.chain.rng, 80)}"
    topics = sorted({found.changelog.name, *found.repartitions, *found.sources, *others})
    await coordinator.heartbeat(job, member, topics=topics, assignor=TASKS, joining=True, client="streams-control")
    try:
        came = [name for name in _members(namespace.state, job) if name != member]
        if came:
            raise Conflict(f"Job {job!r} has members that came meanwhile: {', '.join(came)}. Stop them first.")
        heard = await coordinator.heartbeat(job, member)
        owner = Owner(member=member, generation=max(heard.owned.values(), default=heard.generation))
        # From here on nobody else can commit: what this process knows of the job's own topics stays true.
        yield remains(namespace.state, job), owner
    finally:
        with contextlib.suppress(HeadwaterError):
            await coordinator.leave(job, member, reason="it was there to reset or restart the job")


async def _refuse_active(namespace: Namespace, coordinator: Coordinator, job: str) -> None:
    """Members whose leases have run out are as good as gone: joining expels them."""
    group = namespace.state.groups.get(job)
    if group is None or not group.members:
        return
    leases = await coordinator.leases.all(job)
    now_ms = coordinator.now_ms()
    alive = [
        member
        for member in group.members.values()
        if not overdue(member, leases.get(keys.lease_key(job, member.id)), now_ms)
    ]
    if alive:
        names = ", ".join(f"{member.id} ({member.client})" for member in alive)
        raise Conflict(
            f"Job {job!r} has {len(alive)} active members: {names}. Stop them first; one that was killed is let go of "
            f"{alive[0].session_ms // 1_000} s after its last sign of life.",
            job=job,
        )
