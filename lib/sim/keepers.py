"""Who lives off a log's long life: keepers of the house, writers of keyed and of short-lived records, readers of the
past, slow readers, those who delete and found topics anew, and those who branch.

All but the keepers report to ``Statements`` what they saw and what was acknowledged to them.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Coroutine, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from headwater.errors import AlreadyExists, HeadwaterError, Indeterminate, NotFound, OffsetOutOfRange
from headwater.limits import COMPACT_MEMORY_BYTES
from headwater.log import small
from headwater.log.history import state_at
from headwater.log.namespace import Appended, Namespace
from headwater.log.state import State
from headwater.log.verify import verify
from headwater.replay import Commit, replay_batches
from headwater.sim.actors import RETRIES, Act, alarm, rest, rng_of
from headwater.sim.checker import Violation
from headwater.sim.checker_archive import Ack, Cut, Made, Sight, offsets_of
from headwater.sim.chronicle import MAIN, Row, rows_in, rows_of
from headwater.sim.faults import Process
from headwater.sim.history import TP
from headwater.types import Record
from headwater.upkeep.offload import inline

if TYPE_CHECKING:
    from headwater.sim.vault import Vault
    from headwater.sim.world import World

KEYED: TP = ("keyed", 0)  # compacted
BRIEF: TP = ("brief", 0)  # retention.ms is short
FLEETING: TP = ("fleeting", 0)  # deleted and created anew
KEYS = 4  # of the compacted topic: few, so that most records are superseded
MODULES = (  # where the bounds are that a world makes small
    *("log.state.archive", "log.files", "log.parquet", "upkeep.archiver", "upkeep.files", "upkeep.collector"),
    *("upkeep.cleaner", "upkeep.rewriting"),
)
COUNTED = ("files", "swaps", "dropped", "tombstones", "trimmed", "lost", "raised", "mended", "merged", "pages")
BRANCHES_MAX = 3

Chore: TypeAlias = Callable[[Namespace], Coroutine[Any, Any, Any]]


def cast_of(world: World) -> list[tuple[str, Act]]:
    """Who plays in this world beside those of every world."""
    plan = vault_of(world).vault
    found: list[tuple[str, Act]] = [(f"keeper{i}", keeper) for i in range(plan.keepers)]
    found += [(f"historian{i}", historian) for i in range(plan.historians)]
    found += [(f"slow{i}", slow_reader) for i in range(plan.slow_readers)]
    found += [(f"keyed{i}", keyed_writer) for i in range(plan.keyed_writers)]
    found += [(f"brief{i}", brief_writer) for i in range(plan.brief_writers)]
    found += [(f"founder{i}", founder) for i in range(plan.founders)]
    found += [(f"brancher{i}", brancher) for i in range(plan.branchers)]
    return found + [(f"tenant{i}", tenant) for i in range(plan.branchers)]


def vault_of(world: World) -> Vault:
    """The world as what it is."""
    return cast("Vault", world)


# -- chores -----------------------------------------------------------------------------------------------


async def _archive(log: Namespace) -> Any:
    return await import_module("headwater.upkeep.archiver").archive(log, offload=inline)


async def _compact(log: Namespace) -> Any:
    memory_bytes = log.chain.rng.choice([200, COMPACT_MEMORY_BYTES])
    return await import_module("headwater.upkeep.compaction").compact(
        log, offload=inline, memory_bytes_max=memory_bytes
    )


async def _retain(log: Namespace) -> Any:
    return await import_module("headwater.upkeep.retention").retain(log)


async def _collect(log: Namespace) -> Any:
    return await import_module("headwater.upkeep.collector").collect(log)


async def _prune(log: Namespace) -> int:
    return await log.house.prune()


async def _snapshot(log: Namespace) -> int:
    return await log.house.snapshot()


CHORES: Final[dict[str, Chore]] = {
    "archive": _archive,
    "compact": _compact,
    "retain": _retain,
    "collect": _collect,
    "prune": _prune,
    "snapshot": _snapshot,
}


async def keeper(world: World, process: Process, log: Namespace) -> None:
    """Does the chores in any order, of the branches too."""
    rng, vault = rng_of(world, process), vault_of(world)
    others: dict[str, Namespace] = {}
    while not world.over():
        name = rng.choice([MAIN, MAIN, *vault.branches()])
        what = rng.choice([*CHORES, "archive", "collect"])
        try:
            if name != log.name and name not in others:
                others[name] = await _beside(log, name)
            await chore(world, others.get(name, log), what)
        except HeadwaterError as error:
            alarm(error)
            vault.deeds[f"{what} failed"] += 1
        await rest(world, process, rng)
    for other in others.values():
        await other.drain()


async def chore(world: World, log: Namespace, what: str) -> None:
    """One chore; what it says that it has done is counted."""
    deeds = vault_of(world).deeds
    report = await CHORES[what](log)
    deeds[what] += 1
    if isinstance(report, int):
        return
    for field in dataclasses.fields(report):
        if field.name in COUNTED:
            deeds[f"{what}: {field.name}"] += int(getattr(report, field.name))


async def all_chores(world: World, log: Namespace) -> None:
    """Everything once, in the order in which upkeep does it."""
    for what in ("archive", "compact", "retain", "prune", "collect"):
        await chore(world, log, what)


async def verified(world: World, name: str) -> list[Violation]:
    """What ``headwater verify`` has to say against a namespace."""
    log = await world.handle(None, calm=True, name=name)
    report = await verify(log.store, clock=log.chain.clock, rng=log.chain.rng)
    await log.drain()
    return [Violation("verify", f"{name}: {report.problems}")] if report.problems else []


async def _beside(log: Namespace, name: str) -> Namespace:
    """Another namespace of the bucket, opened by the same process."""
    rng = random.Random(log.chain.rng.getrandbits(64))
    return await Namespace.open(log.bucket, name, clock=log.chain.clock, rng=rng, options=log.chain.options)


# -- writers ----------------------------------------------------------------------------------------------


async def keyed_writer(world: World, process: Process, log: Namespace) -> None:
    """Overwrites a few keys, and deletes one now and then."""
    rng, count = rng_of(world, process), 0
    while not world.over():
        records = []
        for _ in range(rng.randint(1, 4)):
            count += 1
            value = None if rng.random() < 0.35 else f"{process.name}/{count}".encode()
            records.append((f"k{rng.randint(1, KEYS)}".encode(), value))
        await _send(world, log, KEYED, records)
        await rest(world, process, rng)


async def brief_writer(world: World, process: Process, log: Namespace) -> None:
    """Writes records that retention takes away."""
    rng, count = rng_of(world, process), 0
    while not world.over():
        count += 1
        await _send(world, log, BRIEF, [(None, f"{process.name}/{count}".encode())] * rng.randint(1, 3))
        if vault_of(world).vault.trims and rng.random() < 0.2:
            await _trim(world, log, rng)
        await rest(world, process, rng)


async def _trim(world: World, log: Namespace, rng: random.Random) -> None:
    """Move the log start into the middle of whatever is there."""
    trims = vault_of(world).said.trims
    place = log.topic(BRIEF[0]).partitions[BRIEF[1]]
    before = rng.randint(place.start, place.next)
    trims[BRIEF] = max(trims.get(BRIEF, 0), before)
    try:
        await log.trim(*BRIEF, before)
    except HeadwaterError as error:
        alarm(error)


async def founder(world: World, process: Process, log: Namespace) -> None:
    """Deletes a topic and creates another of its name, while it is archived, read and written."""
    rng, count = rng_of(world, process), 0
    while not world.over():
        try:
            roll = rng.random()
            if roll < 0.12:
                await log.delete_topic(FLEETING[0])
            elif roll < 0.3:
                await log.create_topic(FLEETING[0], 1, vault_of(world).vault.settings[FLEETING[0]])
        except (NotFound, AlreadyExists):
            pass
        except HeadwaterError as error:
            alarm(error)
        count += 1
        await _send(world, log, FLEETING, [(b"k", f"{process.name}/{count}".encode())])
        await rest(world, process, rng)


async def tenant(world: World, process: Process, log: Namespace) -> None:
    """Writes to branches and reads them, as if they were namespaces like any other."""
    rng, count = rng_of(world, process), 0
    homes: dict[str, Namespace] = {}
    while not world.over():
        names = vault_of(world).branches()
        if names:
            name = rng.choice(names)
            try:
                if name not in homes:
                    homes[name] = await _beside(log, name)
                await homes[name].refresh()
            except HeadwaterError as error:
                alarm(error)
                await rest(world, process, rng)
                continue
            tp = rng.choice(_partitions(homes[name].state))
            count += 1
            await _send(world, homes[name], tp, [(b"k1", f"{process.name}/{count}".encode())])
            await _fetch(world, homes[name], rng.choice(_partitions(homes[name].state)), rng)
        await rest(world, process, rng)
    for home in homes.values():
        await home.drain()


async def _send(world: World, log: Namespace, tp: TP, records: Sequence[tuple[bytes | None, bytes | None]]) -> None:
    """Append, and again under the same token while nobody knows; an acknowledgement is reported."""
    now_ms = world.bucket.wall_ms()
    batch = small.batch_of([Record(key=key, value=value, timestamp=now_ms) for key, value in records])
    token = ""
    for _ in range(RETRIES):
        try:
            found: Appended = await log.append(*tp, batch, token=token)
        except Indeterminate as error:
            token = error.token
            if not token:
                return
            await world.loop.sleep(0.5)
        except HeadwaterError as error:
            alarm(error)
            return
        else:
            ack = Ack(namespace=log.name, tp=tp, commit=found.commit, base=found.base_offset, rows=tuple(records))
            vault_of(world).said.acks.append(ack)
            return


# -- readers ----------------------------------------------------------------------------------------------


async def historian(world: World, process: Process, log: Namespace) -> None:
    """Remembers commits that it saw and looks at them again later, up to the end of history and a little beyond."""
    rng, vault = rng_of(world, process), vault_of(world)
    seen: list[int] = []
    while not world.over():
        try:
            if not seen or rng.random() < 0.5:
                seen.append((await log.refresh()).seq)
            else:
                commit = rng.choice(seen)
                vault.said.cuts.append(await _look_back(world, log, commit))
        except HeadwaterError as error:
            alarm(error)
        await rest(world, process, rng)


async def _look_back(world: World, log: Namespace, commit: int) -> Cut:
    try:
        return await cut_of(world, log, await state_at(log.chain, commit))
    except NotFound as error:
        return Cut(namespace=log.name, commit=commit, ended_ms=world.bucket.wall_ms(), error=str(error))


async def cut_of(world: World, log: Namespace, state: State, *, everything: bool = False) -> Cut:
    """A look at the namespace as ``state`` has it: a few partitions of it, or all."""
    found: dict[TP, tuple[int, int, dict[int, Row]]] = {}
    places = _partitions(state)
    if not everything:
        places = world.rng.sample(places, min(len(places), 3))
    for tp in places:
        topic = state.named(tp[0])
        assert topic is not None, "it is one of the state's"
        start, end = topic.partitions[tp[1]].start, topic.partitions[tp[1]].stable_end
        if everything or world.rng.random() < 0.5:
            rows = await _fetched(log, tp, start, end, None if everything else state)
        else:
            rows = await _replayed(log, tp, state.seq)
        found[tp] = (start, end, rows)
    return Cut(
        namespace=log.name,
        commit=state.seq,
        ended_ms=world.bucket.wall_ms(),
        places=found,
        offsets=offsets_of(state),
    )


async def _fetched(log: Namespace, tp: TP, start: int, end: int, state: State | None) -> dict[int, Row]:
    """A range as consumers read it."""
    rows: dict[int, Row] = {}
    position = start
    while position < end:
        got = await log.reader.fetch(*tp, position, bytes_max=1 << 20, state=state)
        rows.update(pair for chunk in got.chunks for pair in rows_of(chunk) if pair[0] >= position)
        assert got.next_offset > position, "a fetch below the end moves on"
        position = got.next_offset
    return rows


async def _replayed(log: Namespace, tp: TP, commit: int) -> dict[int, Row]:
    """A partition as of a commit, as the replay library reads it."""
    rows: dict[int, Row] = {}
    async for batch in replay_batches(log, tp[0], partitions=[tp[1]], as_of=Commit(commit), offload=inline):
        rows.update(rows_in(batch))
    return rows


async def slow_reader(world: World, process: Process, log: Namespace) -> None:
    """Reads a partition with long pauses between two chunks, or sits on a list of files before it opens them."""
    rng = rng_of(world, process)
    while not world.over():
        try:
            places = _partitions(await log.refresh())
            tp = rng.choice(places)
            if rng.random() < 0.5:
                await _crawl(world, process, log, tp, rng)
            else:
                await _open_old_files(world, process, log, tp, rng)
        except (NotFound, OffsetOutOfRange):
            vault_of(world).deeds["slow readers outrun"] += 1
        except HeadwaterError as error:
            alarm(error)
        await rest(world, process, rng)


async def _crawl(world: World, process: Process, log: Namespace, tp: TP, rng: random.Random) -> None:
    said = vault_of(world).said
    commit = log.state.seq
    topic = log.topic(tp[0]).id
    start = log.topic(tp[0]).partitions[tp[1]].start
    async for chunk in log.reader.chunks(*tp, start, bytes_max=rng.choice([1, 400])):
        named = log.state.named(tp[0])
        if named is None or named.id != topic:
            return  # another topic bears the name by now
        rows = dict(rows_of(chunk))
        said.sights.append(Sight(log.name, tp, commit, chunk.base, chunk.end, rows))
        await rest(world, process, rng)


async def _open_old_files(world: World, process: Process, log: Namespace, tp: TP, rng: random.Random) -> None:
    """R6: what is gone is looked for again, and what is there is what it always was."""
    vault, commit = vault_of(world), log.state.seq
    files = [file async for file in log.lookup.files(log.topic(tp[0]).id, tp[1], 0)]
    await rest(world, process, rng)
    if vault.vault.sessions and rng.random() < 0.5:
        await world.loop.sleep(3 * 86_400.0)  # for so long that the collector takes what was replaced
    for file in files:
        try:
            placed, _ = await log.reader.archived.rows(file, file.base, bytes_max=rng.choice([1, 1 << 20]))
        except NotFound:
            vault.deeds["files gone under a reader"] += 1
            await _fetch(world, log, tp, rng)
            return
        rows = dict(rows_in(placed))
        vault.said.sights.append(Sight(log.name, tp, commit, file.base, file.end, rows, whole=False))


async def _fetch(world: World, log: Namespace, tp: TP, rng: random.Random) -> None:
    """One fetch from anywhere in the partition."""
    try:
        named = log.state.named(tp[0])
        if named is None:
            return
        partition = named.partitions[tp[1]]
        start = rng.randint(partition.start, partition.next)
        got = await log.reader.fetch(*tp, start, bytes_max=rng.choice([1, 1 << 20]))
    except (NotFound, OffsetOutOfRange):
        return
    except HeadwaterError as error:
        alarm(error)
        return
    rows = {offset: row for chunk in got.chunks for offset, row in rows_of(chunk) if offset >= start}
    vault_of(world).said.sights.append(Sight(log.name, tp, got.commit, start, got.next_offset, rows))


def _partitions(state: State) -> list[TP]:
    return [(topic.name, number) for topic in state.topics.values() for number in range(len(topic.partitions))]


# -- branches ---------------------------------------------------------------------------------------------


async def brancher(world: World, process: Process, log: Namespace) -> None:
    """Branches the namespace, a branch of it, or a topic, now or as of a commit that it saw a while ago."""
    rng, vault = rng_of(world, process), vault_of(world)
    seen: list[int] = []
    while not world.over():
        try:
            seen.append((await log.refresh()).seq)
            # One in a session, so that there are some left when the collector has begun to delete.
            due = 1 + world.loop.time() // vault.vault.session_s
            if len(vault.said.branches) < min(due, BRANCHES_MAX) and rng.random() < 0.7:
                await _plan_branch(vault, log, seen, rng)
            for made in [made for made in vault.said.branches if made.name not in vault.branches()]:
                origin = log if made.origin == log.name else await _beside(log, made.origin)
                await _branch(world, origin, made)
        except HeadwaterError as error:
            alarm(error)
            vault.deeds["branch failed"] += 1
        await rest(world, process, rng)


async def _plan_branch(vault: Vault, log: Namespace, seen: list[int], rng: random.Random) -> None:
    """Choose an origin, a commit (by preference the one that the collector takes next) and perhaps a topic."""
    vault.serial += 1
    origin, name = log, f"copy{vault.serial}"
    boundary = await log.chain.read_boundary()
    oldest = next((seq for seq in seen if seq + 1 >= boundary), None)
    at, topic = rng.choice([oldest, oldest, rng.choice(seen), None]), rng.choice(["", "", KEYED[0]])
    others = vault.branches()
    if others and rng.random() < 0.3:
        origin, at = await _beside(log, rng.choice(others)), None
    if at is None:
        at = await origin.house.snapshot()
    if topic and (await state_at(origin.chain, at)).named(topic) is None:
        topic = ""
    vault.said.branches.append(Made(name, origin.name, at, topic))


async def _branch(world: World, origin: Namespace, made: Made) -> None:
    from headwater.upkeep.branch import branch

    vault = vault_of(world)
    try:
        await branch(origin, made.name, at=made.commit, topic=made.topic or None)
        vault.deeds["branch made"] += 1
    except NotFound:
        vault.deeds["branch too late"] += 1
        if made.name not in vault.branches():
            vault.said.branches.remove(made)
