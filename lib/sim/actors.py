"""The cast of a world: what its processes do, and what they report to the history.

Records are their own names (uids); ``World.pack`` says how they lie in a batch.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from headwater.errors import Conflict, Corrupt, Fenced, HeadwaterError, Indeterminate, NotFound
from headwater.log import keys
from headwater.log import operations as ops
from headwater.log.intents import decode_segment, located
from headwater.log.journal import Draft
from headwater.log.namespace import Appended, Namespace
from headwater.log.outcomes import OutOfOrder, UnknownProducer
from headwater.log.producer import Producer
from headwater.log.writer import Append as AppendRequest
from headwater.sim.faults import Process
from headwater.sim.history import TP, Append, Got, OffsetCommit, OffsetFetch, Pipeline, Read, Transaction
from headwater.types import Batch
from headwater.upkeep.collector import collect

if TYPE_CHECKING:
    from headwater.sim.world import World

Act: TypeAlias = Callable[["World", Process, Namespace], Awaitable[None]]

INPUTS: tuple[TP, ...] = (("in", 0), ("in", 1))
OUTPUTS: tuple[TP, ...] = (("out", 0), ("out", 1))
HELD: TP = ("held", 0)
RETRIES = 6


def cast(world: World) -> list[tuple[str, Act]]:
    """Who plays in this world."""
    from headwater.sim import reservers

    plan = world.plan
    kinds: list[Act] = [plain_writer, idempotent_writer, transactional_writer]
    found: list[tuple[str, Act]] = [(f"writer{i}", world.rng.choice(kinds)) for i in range(plan.writers)]
    found += [(f"reader{i}", reader) for i in range(plan.readers)]
    found += [(f"pipe{i}", _pipeline(i % 2)) for i in range(plan.pipelines)]
    found += [(f"member{i}", member) for i in range(plan.members)]
    found += [(f"reserver{i}", reservers.reserver) for i in range(plan.reservers)]
    found += [(f"busybody{i}", busybody) for i in range(plan.busybodies)]
    found += [(f"hasty{i}", hasty_writer) for i in range(plan.hasty)]
    found += [("meddler", meddler)] * (plan.hasty > 0)
    return found


async def plain_writer(world: World, process: Process, log: Namespace) -> None:
    """Appends without a producer id; exactly once by the intent's own identity. Some ask for what cannot be."""
    rng, names = rng_of(world, process), names_of(process)
    while not world.over():
        if rng.random() < 0.1:
            await _ask_the_impossible(world, process, log, names)
            continue
        held = world.plan.reservers > 0 and rng.random() < 0.5
        tp, uids = HELD if held else rng.choice(INPUTS), names(rng.randint(1, 3))
        call = world.history.append(process.name, process.name, tp, uids)

        async def send(token: str, tp: TP = tp, uids: list[str] = uids) -> Appended:
            return await log.append(tp[0], tp[1], world.pack(uids), token=token)

        await settle(world, call, send)
        await rest(world, process, rng)


async def hasty_writer(world: World, process: Process, log: Namespace) -> None:
    """Sends on without waiting for answers, as clients of a gateway do: the log keeps the order of its calls."""
    rng, names = rng_of(world, process), names_of(process)

    async def send(tp: TP, uids: list[str]) -> int | None:
        call = world.history.append(process.name, process.name, tp, uids, idempotent=False)
        try:
            base = (await log.append(*tp, world.pack(uids))).base_offset
        except Indeterminate:
            world.history.unknown(call, "Indeterminate")
        except HeadwaterError as error:
            alarm(error)
            world.history.fail(call, type(error).__name__)
        else:
            world.history.ok(call, base)
            return base
        return None

    while not world.over():
        tp, sent = rng.choice(INPUTS), []
        for _ in range(rng.randint(2, 24)):
            sent.append(world.loop.create_task(send(tp, names(rng.randint(1, 2)))))
            await world.loop.sleep(rng.choice([0.0, rng.uniform(0.0, 0.1)]))
        bases = [base for base in await asyncio.gather(*sent) if base is not None]
        assert bases == sorted(bases), f"{process.name} sent one after another what lies at {bases}"
        await rest(world, process, rng)


async def idempotent_writer(world: World, process: Process, log: Namespace) -> None:
    """Appends under sequence numbers; what is indeterminate is sent again under the same number."""
    rng, names = rng_of(world, process), names_of(process)
    producer = await producer_of(world, log, "")
    while producer is not None and not world.over():
        tp, uids = rng.choice(INPUTS), names(rng.randint(1, 3))
        call = world.history.append(process.name, f"pid{producer.id}", tp, uids, epoch=producer.epoch)
        sequence = producer.next_sequence(*tp)
        batch = world.pack(uids, rng.choice([0, 0, 60]))
        sent = False
        for _ in range(RETRIES):
            try:
                found = await (producer.resend(*tp, batch, sequence) if sent else producer.append(*tp, batch))
                world.history.ok(call, found.base_offset)
                break
            except Indeterminate:
                sent = True
            except HeadwaterError as error:
                alarm(error)
                not_applied(world, call, error, sent)
                break
            sent = True
        else:
            world.history.unknown(call, "Indeterminate")
        if world.history.events[-1].kind == "ok":
            if rng.random() < 0.2:
                await _send_again(producer, tp, batch, sequence, found.base_offset)
        else:
            # Something may be missing in the sequence: go on under a new identity.
            producer = await producer_of(world, log, "")
        await rest(world, process, rng)


async def transactional_writer(world: World, process: Process, log: Namespace) -> None:
    """Transactions over both input partitions and a group's offsets; several may fight for one id."""
    rng, names = rng_of(world, process), names_of(process)
    tid = rng.choice(["shared", process.name.split(".")[0]])
    producer = await producer_of(world, log, tid)
    while producer is not None and not world.over():
        sends = tuple((tp, tuple(names(rng.randint(1, 2)))) for tp in rng.sample(INPUTS, rng.randint(1, 2)))
        group, marks = f"marks-{tid}", ((INPUTS[0], rng.randint(0, 9)),)
        what = Transaction(producer=f"pid{producer.id}", sends=sends, epoch=producer.epoch, group=group, offsets=marks)
        call = world.history.invoke(process.name, what)
        if not await _transact(world, producer, call, sends, group, dict(marks), abort=rng.random() < 0.2):
            producer = await producer_of(world, log, tid)
        await rest(world, process, rng)


async def reader(world: World, process: Process, log: Namespace) -> None:
    """Polls every partition from the start to wherever the log goes; sometimes seeks."""
    rng = rng_of(world, process)
    places: dict[TP, int] = {}
    while not world.over():
        tp = HELD if world.plan.reservers and rng.random() < 0.4 else rng.choice([*INPUTS, *OUTPUTS])
        seek = rng.random() < 0.1
        start = rng.randint(0, places.get(tp, 0)) if seek else places.get(tp, 0)
        call = world.history.invoke(process.name, Read(reader=process.name, tp=tp, start=start, seek=seek))
        try:
            sizes, waits = [1, 60, 1 << 20], [0, 200]
            got = await read(world, log, tp, start, bytes_max=rng.choice(sizes), wait_ms=rng.choice(waits))
            world.history.ok(call, got)
            places[tp] = got.next
        except HeadwaterError as error:
            alarm(error)
            world.history.fail(call, type(error).__name__)
        await rest(world, process, rng)


def _pipeline(number: int) -> Act:
    """A read-process-write loop; two of them share the group, and the transactional id decides who lives."""

    async def act(world: World, process: Process, log: Namespace) -> None:
        rng = rng_of(world, process)
        source, target, group = INPUTS[number], OUTPUTS, f"pipe{number}"
        if not any(p.group == group for p in world.history.pipelines):
            world.history.declare(Pipeline(group=group, inputs=(source,), outputs=OUTPUTS, prefix=f"{group}:"))
        producer = await producer_of(world, log, group)
        while producer is not None and not world.over():
            try:
                call = world.history.invoke(process.name, OffsetFetch(group=group, tp=source))
                committed = (await log.committed(group)).get(source)
                world.history.ok(call, committed.offset if committed else None)
                start = committed.offset if committed else 0
                got = await read(world, log, source, start, bytes_max=rng.choice([1, 200]), wait_ms=0)
            except HeadwaterError as error:
                alarm(error)
                if _is_open(world, call):
                    world.history.fail(call, type(error).__name__)
                await rest(world, process, rng)
                continue
            if not got.records:
                await rest(world, process, rng)
                continue
            out = rng.choice(target)
            sends = ((out, tuple(f"{group}:{uid}" for _, uid in got.records)),)
            what = Transaction(
                producer=f"pid{producer.id}",
                sends=sends,
                epoch=producer.epoch,
                group=group,
                offsets=((source, got.next),),
            )
            call = world.history.invoke(process.name, what)
            if not await _transact(world, producer, call, sends, group, {source: got.next}, abort=False):
                producer = await producer_of(world, log, group)
            await rest(world, process, rng)

    return act


async def member(world: World, process: Process, log: Namespace) -> None:
    """Drives everybody out of a group and joins it, then commits offsets until someone does the same to it."""
    rng, group, tp = rng_of(world, process), "club", INPUTS[0]
    offset, lives = 0, 0
    while not world.over():
        lives += 1
        me = f"{process.name}-{lives}"
        try:
            since = await _take_over(log, group, me, tp)
        except HeadwaterError as error:
            alarm(error)
            since = None
        if since is None:
            await rest(world, process, rng)
            continue
        for _ in range(rng.randint(1, 6)):
            offset += rng.randint(1, 5)
            what = OffsetCommit(group=group, offsets=((tp, offset),), owner=me, generation=since)
            call = world.history.invoke(process.name, what)

            async def commit(token: str, offset: int = offset, since: int = since, me: str = me) -> None:
                op = await log.offsets_op(group, {tp: offset}, since, me)
                await log.writer.commit(ops=[op], token=token)

            if not await settle(world, call, commit):
                break
            await rest(world, process, rng)


async def _take_over(log: Namespace, group: str, me: str, tp: TP) -> int | None:
    """The generation since which ``me`` owns ``tp``; None if it is gone again already."""
    found = (await log.refresh()).groups.get(group)
    wishes: list[ops.AnyOp] = [ops.LeaveGroup(group=group, member=name) for name in (found.members if found else ())]
    await log.writer.commit(ops=[*wishes, ops.JoinGroup(group=group, member=me, topics=[tp[0]], as_of=log.state.seq)])
    mine = log.state.groups[group].members.get(me)
    return mine.owned.get(log.topic(tp[0]).id, {}).get(tp[1]) if mine else None


async def busybody(world: World, process: Process, log: Namespace) -> None:
    """Commits whatever anyone has ever published, late or decided or not: by R1 that must change nothing."""
    rng = rng_of(world, process)
    while not world.over():
        await rest(world, process, rng)
        await _commit_segments(world, process, log, lambda found: rng.sample(found, min(len(found), rng.randint(1, 8))))


async def meddler(world: World, process: Process, log: Namespace) -> None:
    """Commits what has just been published, the newest first: by R1 that must not turn anybody's order around."""
    rng = rng_of(world, process)
    while not world.over():
        await rest(world, process, rng)
        await _commit_segments(world, process, log, lambda found: sorted(found)[: -rng.randint(2, 4) : -1])


async def _commit_segments(
    world: World, process: Process, log: Namespace, choose: Callable[[list[str]], list[str]]
) -> None:
    try:
        await log.refresh()
        merged = []
        for key in choose([stat.key async for stat in log.store.list(keys.SEGMENTS)]):
            header = decode_segment((await log.store.get(key)).data)
            if header.intents:
                merged.append((key, [located(intent, key) for intent in header.intents]))
        deadline_s = log.chain.clock.elapsed_s() + 5.0
        await log.journal.put_next(Draft(merged=merged), deadline_s=deadline_s)
    except HeadwaterError as error:
        alarm(error)
        world.history.note(process.name, "busybody", type(error).__name__)


async def sweeper(world: World, process: Process, log: Namespace) -> None:
    """Collects and prunes, as upkeep does, beside everybody else."""
    rng = rng_of(world, process)
    while not world.over():
        seconds = rng.uniform(0.2, 1.0) * (43_200.0 if world.plan.long_sleep else 20.0)
        await process.checkpoint()
        await world.loop.sleep(seconds)
        await process.checkpoint()
        try:
            await collect(log)
            await log.house.prune()
        except HeadwaterError as error:
            alarm(error)


# -- shared steps ---------------------------------------------------------------------------------------


async def read_all(world: World, log: Namespace, tp: TP) -> list[tuple[int, str]]:
    """Every record of a partition."""
    records: list[tuple[int, str]] = []
    position = 0
    while True:
        got = await read(world, log, tp, position, bytes_max=1 << 20, wait_ms=0)
        records += got.records
        if got.next == position:
            return records
        position = got.next


async def read(world: World, log: Namespace, tp: TP, start: int, *, bytes_max: int, wait_ms: float) -> Got:
    """One fetch, as the history tells it."""
    fetched = await log.reader.fetch(*tp, start, bytes_max=bytes_max, wait_ms=wait_ms)
    records = tuple((offset, uid) for chunk in fetched.chunks for offset, uid in world.unpack(chunk) if offset >= start)
    return Got(records=records, next=fetched.next_offset, to_end=fetched.next_offset == fetched.high_watermark)


async def settle(world: World, call: int, send: Callable[[str], Awaitable[Appended | int | None]]) -> bool:
    """Send, and send again under the same token while nobody knows. Whether it was done."""
    token = ""
    for _ in range(RETRIES):
        try:
            found = await send(token)
        except Indeterminate as error:
            token = error.token
            if not token:
                break
            await world.loop.sleep(0.5)
        except HeadwaterError as error:
            alarm(error)
            not_applied(world, call, error, bool(token))
            return False
        else:
            world.history.ok(call, found.base_offset if isinstance(found, Appended) else found)
            return True
    world.history.unknown(call, "Indeterminate")
    return False


def not_applied(world: World, call: int, error: HeadwaterError, sent_before: bool) -> None:
    """A definite refusal ends a call as failed; if an earlier sending is in doubt, some refusals decide nothing."""
    if sent_before and not isinstance(error, NotFound | Conflict):
        world.history.unknown(call, type(error).__name__)
    elif sent_before and isinstance(error, Fenced | UnknownProducer | OutOfOrder):
        # The first sending may have been applied before the epoch moved on.
        world.history.unknown(call, type(error).__name__)
    else:
        world.history.fail(call, type(error).__name__)


async def _transact(
    world: World,
    producer: Producer,
    call: int,
    sends: Sequence[tuple[TP, Sequence[str]]],
    group: str,
    offsets: dict[TP, int],
    *,
    abort: bool,
) -> bool:
    """One transaction to its end. Whether the producer may go on."""
    transaction = producer.transaction()
    try:
        for tp, uids in sends:
            await transaction.append(*tp, world.pack(uids))
        await transaction.send_offsets(group, offsets)
    except HeadwaterError as error:
        alarm(error)
        transaction.abort()
        world.history.fail(call, type(error).__name__)
        return True
    if abort:
        transaction.abort()
        world.history.fail(call, "Aborted")
        return True
    sent = False
    for _ in range(RETRIES):
        try:
            placed = await transaction.commit()
        except Indeterminate:
            sent = True
            await world.loop.sleep(0.5)
        except HeadwaterError as error:
            alarm(error)
            # A transaction's own identity is remembered, so even after a doubtful sending a refusal is the truth,
            # unless it comes from a check that runs before the log is asked.
            not_applied(world, call, error, sent)
            return False
        else:
            world.history.ok(call, tuple(append.base_offset for append in placed))
            return True
    world.history.unknown(call, "Indeterminate")
    return False


async def producer_of(world: World, log: Namespace, tid: str) -> Producer | None:
    """A producer, however long it takes; None when the world ends first."""
    while not world.over():
        try:
            return await log.producer(tid)
        except HeadwaterError as error:
            alarm(error)
            await log.chain.clock.sleep(0.5)
    return None


async def _ask_the_impossible(
    world: World, process: Process, log: Namespace, names: Callable[[int], list[str]]
) -> None:
    """An intent whose second half is refused: the first half must not stay."""
    what = Append(producer=process.name, sends=((INPUTS[0], tuple(names(1))),))
    call = world.history.invoke(process.name, what)
    topic = log.topic(INPUTS[0][0]).id
    good = AppendRequest(topic=topic, partition=0, batch=world.pack(what.sends[0][1]))
    bad = AppendRequest(topic=topic, partition=99, batch=world.pack(["nowhere"]))

    async def send(token: str) -> None:
        await log.writer.commit([good, bad], token=token)

    assert not await settle(world, call, send), "there is no partition 99"


async def _send_again(producer: Producer, tp: TP, batch: Batch, sequence: int, base: int) -> None:
    """An impatient client sends what was acknowledged: if it gets an answer, it is the first one."""
    try:
        again = await producer.resend(*tp, batch, sequence)
    except HeadwaterError as error:
        alarm(error)
        return
    assert again.base_offset == base, "a retried append returns the first answer"


def alarm(error: HeadwaterError) -> None:
    """Nobody damages bytes in these worlds, so an engine that calls them damaged has lost its way."""
    if isinstance(error, Corrupt):
        raise error


async def rest(world: World, process: Process, rng: random.Random) -> None:
    """What an actor does between two acts; before and after it the process may be struck."""
    await process.checkpoint()
    await world.loop.sleep(world.rest_s(rng))
    await process.checkpoint()


def _is_open(world: World, call: int) -> bool:
    return not any(event.call == call and event.kind != "invoke" for event in world.history.events[call:])


def rng_of(world: World, process: Process) -> random.Random:
    """Randomness of one process."""
    return random.Random(f"{world.plan.seed}-{process.name}")


def names_of(process: Process) -> Callable[[int], list[str]]:
    """Uids that nobody else gives out."""
    count = 0

    def take(n: int) -> list[str]:
        nonlocal count
        count += n
        return [f"{process.name}/{i}" for i in range(count - n, count)]

    return take
