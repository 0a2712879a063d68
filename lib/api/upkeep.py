"""Maintenance of a namespace by schedule: what nobody who serves requests has a reason to do.

Members whose leases ended are expelled, overdue reservations are voided, idle offsets, orphaned leases and the
documents of expired transactions, uploads and REST consumers go. Then records leave by retention, chunks are archived,
keys are compacted, a snapshot is stored if many manifests were folded since the last one, and what nobody can read any
more is collected. Any number of processes may do this at once. A namespace that rests costs one GET.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from headwater.api import asking
from headwater.api.messages import Call, Response, Route
from headwater.api.routes import MAINTAIN
from headwater.errors import HeadwaterError
from headwater.limits import DEFERRED_KEEP_MS
from headwater.log import keys
from headwater.log.namespace import Namespace
from headwater.log.reserving import expire_overdue
from headwater.meters import Meters, families
from headwater.types import Progress
from headwater.upkeep.idle import Memory, quiet_until
from headwater.upkeep.offload import Offload, in_thread, inline

SNAPSHOT_PART: Final = 4  # a quarter of the manifests that make a snapshot due make it worth while for upkeep
PRUNE_EVERY_MS: Final = 3_600_000  # index pages are looked through this often for what is dead in them
# Fields of a report that say how many there were of something.
_ITEMS: Final = (
    "members_expelled",
    "groups_expired",
    "joins_ended",
    "leases_dropped",
    "reservations_expired",
    "documents_dropped",
    "partitions_trimmed",
    "files_archived",
    "files_merged",
    "files_compacted",
    "pages_pruned",
    "objects_collected",
)
EXPIRE_MAX: Final = 1_000  # reservations voided in one run; the next run takes the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What upkeep did to one namespace. ``failed`` names the chores that an error broke off, and the error.

    ``rested``: there was nothing to do, which one look at the tip has shown. ``left``: the time was over before the
    work was; the next run goes on.
    """

    namespace: str
    commit: int
    rested: bool = False
    left: bool = False
    members_expelled: int = 0
    groups_expired: int = 0
    joins_ended: int = 0
    leases_dropped: int = 0
    reservations_expired: int = 0
    documents_dropped: int = 0
    partitions_trimmed: int = 0
    files_archived: int = 0
    bytes_archived: int = 0
    files_merged: int = 0
    files_compacted: int = 0
    pages_pruned: int = 0
    objects_collected: int = 0
    bytes_collected: int = 0
    snapshot: int = 0
    failed: tuple[str, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do."""
        counts = asdict(self)
        return not any(counts[name] for name in counts if name not in ("namespace", "commit", "rested"))


@dataclass(slots=True)
class _Run:
    """One run: what it may use, and what it has done so far."""

    namespace: Namespace
    offload: Offload
    progress: Progress | None
    deadline_s: float | None
    archive_now: bool
    done: dict[str, Any] = field(default_factory=dict)
    due: list[int] = field(default_factory=list)  # when the chores next have something to do, ms
    left: bool = False

    def note_due(self, at_ms: int | None) -> None:
        """A chore has something to do again at ``at_ms``, if nobody commits until then."""
        if at_ms is not None:
            self.due.append(at_ms)


async def keep_up(
    namespace: Namespace,
    *,
    deadline_s: float | None = None,
    offload: Offload | None = None,
    progress: Progress | None = None,
    archive_now: bool = False,
) -> Report:
    """Do every chore once. An error of one does not keep the others from being done.

    ``deadline_s`` is on the clock's ``elapsed_s``: the long chores stop there, and a later run goes on. With
    ``archive_now`` every chunk is archived, however young.

    Raises:
        HeadwaterError: the namespace cannot be read at all.

    Cost: 1 GET for a namespace that rests; else about 8 GETs and 6 LISTs, and what the chores find to do.
    """
    clock, meters = namespace.chain.clock, namespace.chain.options.meters
    began_s = clock.elapsed_s()
    try:
        report = await _kept_up(namespace, deadline_s, offload, progress, archive_now)
    except HeadwaterError:
        count_unreadable(meters, namespace.name)
        raise
    count(meters, report, clock.elapsed_s() - began_s, now_ms=clock.wall_ms())
    return report


def count(meters: Meters, report: Report, seconds: float, *, now_ms: int) -> None:
    """Count a round of ``seconds`` that has ended now in the metrics."""
    name = report.namespace
    failed = dict(line.split(": ", 1) for line in report.failed)
    outcome = "failed" if failed else "rested" if report.rested else "left" if report.left else "done"
    meters.counter(families.MAINTAIN_ROUNDS, name, outcome).add()
    meters.histogram(families.MAINTAIN_SECONDS, name).observe(seconds)
    if not failed:
        meters.gauge(families.MAINTAIN_SUCCESS, name).set(now_ms / 1_000)
    if report.rested:
        return
    for chore in _CHORES:
        meters.counter(families.MAINTAIN_CHORES, name, _named(chore), failed.get(_named(chore), "ok")).add()
    done = asdict(report)
    for what in _ITEMS:
        if done[what]:
            meters.counter(families.MAINTAIN_ITEMS, name, what).add(done[what])
    if report.snapshot:
        meters.counter(families.MAINTAIN_ITEMS, name, "snapshots").add()
    for what in ("archived", "collected"):
        if done[f"bytes_{what}"]:
            meters.counter(families.MAINTAIN_BYTES, name, what).add(done[f"bytes_{what}"])


def count_unreadable(meters: Meters, namespace: str) -> None:
    """Count a round that could not begin, since the namespace could not be read."""
    meters.counter(families.MAINTAIN_ROUNDS, namespace, "unreadable").add()


async def _kept_up(
    namespace: Namespace,
    deadline_s: float | None,
    offload: Offload | None,
    progress: Progress | None,
    archive_now: bool,
) -> Report:
    await namespace.refresh()
    memory = namespace.shared(Memory)
    if not archive_now and memory.rests(namespace.chain.clock.wall_ms()):
        return Report(namespace=namespace.name, commit=namespace.state.seq, rested=True)
    if offload is None:
        offload = in_thread if namespace.chain.options.threads else inline
    run = _Run(namespace, offload, progress, deadline_s, archive_now)
    failed: list[str] = []
    for chore in _CHORES:
        try:
            await chore(run)
        except HeadwaterError as error:
            failed.append(f"{_named(chore)}: {type(error).__name__}")
    await namespace.drain()
    report = replace(
        Report(namespace=namespace.name, commit=namespace.state.seq, left=run.left, failed=tuple(failed)), **run.done
    )
    if not failed and not run.left:
        now_ms = namespace.chain.clock.wall_ms()
        await memory.note(quiet_until(namespace.state, now_ms, run.due), idle=report.idle)
    return report


def _named(chore: Callable[[_Run], Awaitable[None]]) -> str:
    return chore.__name__.strip("_")


async def _groups(run: _Run) -> None:
    from headwater.groups.coordinator import Coordinator

    report = await Coordinator(run.namespace).sweep()
    run.done |= {
        "members_expelled": len(report.expelled),
        "groups_expired": len(report.expired),
        "joins_ended": len(report.ended),
        "leases_dropped": report.leases_dropped,
    }


async def _reservations(run: _Run) -> None:
    """Void what is overdue."""
    run.done["reservations_expired"] = await expire_overdue(run.namespace, EXPIRE_MAX)


async def _documents(run: _Run) -> None:
    from headwater.api import instance_store
    from headwater.api.documents import delete_older
    from headwater.api.transactions import Transactions
    from headwater.api.uploads import Uploads

    space = run.namespace
    dropped = await Transactions(space).sweep() + await Uploads(space).sweep()
    dropped += await delete_older(space.chain, keys.DEFERRED, DEFERRED_KEEP_MS)
    run.done["documents_dropped"] = dropped + await instance_store.sweep(space.chain)


async def _snapshot(run: _Run) -> None:
    """Shorten the next cold start, if the last snapshot is some way back."""
    namespace = run.namespace
    due = namespace.chain.options.snapshot_every // SNAPSHOT_PART
    if namespace.state.seq - namespace.state.paged < due:
        return
    await namespace.chain.adopt_pages()  # perhaps another process has just done it
    if namespace.state.seq - namespace.state.paged >= due:
        run.done["snapshot"] = await namespace.house.snapshot()


async def _retention(run: _Run) -> None:
    from headwater.upkeep.retention import retain

    report = await retain(run.namespace)
    run.done["partitions_trimmed"] = report.trimmed
    run.note_due(report.next_due_ms)


async def _archive(run: _Run) -> None:
    from headwater.upkeep.archiver import archive

    report = await archive(
        run.namespace,
        offload=run.offload,
        progress=run.progress,
        deadline_s=run.deadline_s,
        all=run.archive_now,
    )
    run.done |= {"files_archived": report.files, "bytes_archived": report.bytes_read, "files_merged": report.merged}
    run.left |= report.left > 0


async def _compaction(run: _Run) -> None:
    from headwater.upkeep.compaction import compact

    report = await compact(run.namespace, offload=run.offload, progress=run.progress, deadline_s=run.deadline_s)
    run.done["files_compacted"] = report.files
    run.left |= report.left
    run.note_due(report.next_due_ms)


async def _pages(run: _Run) -> None:
    """Index pages without what is dead by now; before a snapshot, since the next one is what names them."""
    memory, now_ms = run.namespace.shared(Memory), run.namespace.chain.clock.wall_ms()
    if memory.pruned_ms + PRUNE_EVERY_MS <= now_ms:  # it reads all pages
        run.done["pages_pruned"] = await run.namespace.house.prune()
        memory.pruned_ms = now_ms


async def _collection(run: _Run) -> None:
    from headwater.upkeep.collector import collect

    report = await collect(run.namespace, progress=run.progress, deadline_s=run.deadline_s)
    run.done |= {"objects_collected": report.objects, "bytes_collected": report.bytes}
    run.left |= not report.complete
    run.note_due(report.next_due_ms)


_CHORES: Final[tuple[Callable[[_Run], Awaitable[None]], ...]] = (
    _groups,
    _reservations,
    _documents,
    _retention,
    _archive,
    _compaction,
    _pages,
    _snapshot,
    _collection,
)


async def maintain(call: Call) -> Response:
    """Do the chores of the namespace now."""
    from headwater.api import access

    asking.refuse_fields(call)
    scopes = access.Rules(call.scopes, everyone=True) if call.scopes else None
    access.check(call.namespace.state, call.principal, scopes, "cluster_action", "cluster", access.CLUSTER)
    return asking.ok(asdict(await keep_up(call.namespace)))


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        pattern="/maintain",
        handler=maintain,
        functions=MAINTAIN,
        summary="Do the chores that a schedule does otherwise",
        consumes=("application/json",),
        answer=Report,
    ),
)
