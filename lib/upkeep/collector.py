"""The collector: what nobody can come to need is deleted, and nothing else, whoever sleeps or dies meanwhile.

    look ──► snapshots and the boundary; the HORIZON h: the newest snapshot older than history.retention.ms
    mark ──► everything that the state at h names (see ``horizon``)
    move ──► PUT boundary/<h+1>: from here on nobody reads a manifest up to h by its number
    mark ──► LIST branches: what each of them and of theirs needs; LIST snapshots from h on: the pages they name
    sweep ─► manifests up to h; segments, files and file pages with a tip below the floor as of h; pages up to h;
             snapshots below h; older boundary markers. Each unless it is marked.
    floor ─► RaiseFloor, if bytes wait for it. In the end the hint ``collected``.

**Why a marked object is enough.** Who reads builds on a state at or behind h: present readers know the tip of an hour
ago at worst (R5), "as of" reaches to h, a cold start begins with a snapshot from h on. Whatever such a state names was
named at h, and is marked; or it was committed behind h. Then it is a manifest or page above h, which is not looked at;
or a segment or file, whose tip is not below the floor as of h: the fold refuses those (R4). Whoever reads by an older
state meets a 404, looks again, and starts from a newer one (R6).

**Sleepers.** A process that wakes after days may fill a slot below the boundary. It looks at the boundary before it
believes that (R5), so nobody reads it, and it has no mark: the next sweep takes it. A segment that it stores late has
an old tip, and can no longer be committed. A snapshot that it stores may name pages that are gone; it notices (see
``House``), and if it dies first, ``pages`` writes that snapshot anew. A collector that sleeps between any two
steps and goes on with an old h deletes only what was dead at h. That stays dead, and under none of these keys comes a
new object to live: names of segments and files are made once, and for index pages see ``pages``.

**Two collectors** with horizons h < k: the one at h deletes a part of what the other one may. Snapshot h may vanish
under it; then it looks again. Each deletes boundary markers below the greatest that it has seen, so the greatest stays.

**Crashes and partial deletes.** The order is what makes them harmless: the boundary is durable before anything goes,
so a reader that misses a manifest finds out why. All deletes may be repeated, and every sweep looks at everything.

**A published segment that nobody has committed yet** may be named by anybody, late: below the floor the fold refuses
it, and above it is not touched. **A staged segment** of an open transaction is bound by the floor in the same way.
The floor is raised to F, the newest snapshot at least a day old. A process that is awake knows more than F, so its
segments have a tip of F or more; transactions and uploads are far shorter than a day. **A reservation** that is open
at h marks its bytes wherever it is released; one made behind h has bytes above the floor as of h.

**A branch made meanwhile** pins its commit N before it lists the boundary, and we list the pins after the boundary is
durable. If its pin was not there yet, it finds a boundary of h+1 and gives up unless N is at or behind h; and then all
that it needs is kept for our own readers. Of a branch that was begun before and is not finished, all that state N names
stays, and the snapshot and the manifests that lead to N, so that the next run knows it, too.

**history.retention.ms** is what the present state says. So a lengthened one counts at once, for whatever was not
collected before; and a shortened one does too, which that of the horizon would not allow (-1 would stay for ever).
-1 keeps everything: no boundary, no deletes, and no orphan is looked for, since all may be part of the history.

**Grace.** In a namespace whose maintenance runs, what nobody can read any more is gone after history.retention.ms and
``COLLECT_GRACE_MS``, in the worst case: one day until a snapshot is due, one until it may raise the floor, one until a
commit lies between it and bytes of the last tip. Then a namespace in which nothing happens comes to rest: no
collector commits, writes or lists anything but the two short lists that tell it so. Strays of sleepers are taken by the
next sweep, which the next commits bring about, or ``full``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from headwater.errors import Conflict, Corrupt, NotFound
from headwater.limits import COLLECT_EVERY_MS, DELETE_KEYS, DELETES_MAX
from headwater.log import keys, snapshot
from headwater.log.chain import Chain
from headwater.log.config import FOREVER, NamespaceConfig
from headwater.log.intents import FORMAT, encode_hint
from headwater.log.namespace import Namespace
from headwater.log.operations import RaiseFloor
from headwater.log.state import State
from headwater.log.together import to_the_end
from headwater.store.base import Stat
from headwater.types import Progress
from headwater.upkeep import horizon as h
from headwater.upkeep.pages import DAY_MS, Pages


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectReport:
    """What a run did, or with ``dry_run`` would do.

    ``deleted`` and ``freed`` are objects and bytes by kind. ``marked`` are the objects that stay. ``rested``: nothing
    can have changed since the last sweep. ``complete``: it came to its end. ``unfinished`` names branches whose making
    broke off, for whose sake things stay: finish or drop them. ``next_due_ms``, by the local clock, is when there may
    be something to do if nobody commits until then; None for never.
    """

    horizon: int = 0
    boundary: int = 1
    floor: int = 0
    marked: int = 0
    deleted: dict[str, int] = field(default_factory=dict)
    freed: dict[str, int] = field(default_factory=dict)
    snapshot: int = 0
    raised: bool = False
    mended: int = 0
    unfinished: tuple[str, ...] = ()
    rested: bool = False
    complete: bool = True
    next_due_ms: int | None = None

    @property
    def objects(self) -> int:
        """Deleted objects."""
        return sum(self.deleted.values())

    @property
    def bytes(self) -> int:
        """Their bytes."""
        return sum(self.freed.values())


async def collect(
    namespace: Namespace,
    *,
    progress: Progress | None = None,
    dry_run: bool = False,
    deadline_s: float | None = None,
    full: bool = False,
) -> CollectReport:
    """Delete what nobody can come to need. Any number of processes may do this at once, and stop at any point.

    ``deadline_s`` is on the clock's ``elapsed_s``: a run that is not done by then stops, and the next one goes on. With
    ``full`` everything is looked through even if nothing can have changed but by sleepers.

    Raises:
        Corrupt: no snapshot behind the boundary can be read whole. Nothing was deleted; run ``headwater verify``.
        Unavailable, Indeterminate, Throttled: the store is down. Call again: nothing is lost, and all of it may be
            repeated.

    Cost: 1 GET, 2 LISTs and 1 GET if there is nothing to do. A sweep, once an hour at most, reads the pages of the
    horizon and lists everything: 1 GET a page of 262,144 entries, 1 LIST and 1 DELETE for each 1,000 objects. Memory:
    70 MB for each million live objects.
    """
    for _ in range(h.LOOK_AGAIN_MAX):
        try:
            return await _Run(namespace, progress or _silent, dry_run, deadline_s, full).collect()
        except _Outrun:
            continue
    raise Conflict("Other collectors move the horizon faster than this one can look. Leave it to them.")


async def next_due_ms(namespace: Namespace) -> int | None:
    """When ``collect`` could next have something to do, by the local clock, if nobody commits until then. None: never.

    Cost: 2 LISTs, 1 GET.
    """
    return await _Run(namespace, _silent, True, None, False).next_due_ms()


class _Outrun(Exception):
    """Another collector has moved on, and took what this one goes by."""


class _Late(Exception):
    """The deadline has come."""


def _silent(what: str, done: int, total: int) -> None:
    """Nobody looks on."""


@dataclass(slots=True)
class _Sum:
    """What was done so far, and which keys wait to be deleted."""

    deleted: dict[str, int] = field(default_factory=dict)
    freed: dict[str, int] = field(default_factory=dict)
    doomed: list[str] = field(default_factory=list)

    def add(self, kind: str, stat: Stat) -> None:
        self.deleted[kind] = self.deleted.get(kind, 0) + 1
        self.freed[kind] = self.freed.get(kind, 0) + stat.size
        self.doomed.append(stat.key)


class _Run:
    """One run of the collector."""

    def __init__(
        self, namespace: Namespace, progress: Progress, dry_run: bool, deadline_s: float | None, full: bool
    ) -> None:
        self.namespace = namespace
        self.chain: Chain = namespace.chain
        self.progress = progress
        self.dry_run = dry_run
        self.deadline_s = deadline_s
        self.full = full
        self.survey = h.Survey()
        self.marks = h.Marks()
        self.family = h.Family()
        self.base = State()  # the state at the horizon
        self.sum = _Sum()
        self.written = 0
        self.raised = False
        self.mended = 0
        self.waits_below = False  # bytes wait for a floor of ``aged`` …
        self.waits_at = False  # … or for one above it
        self.again_ms = 0

    async def collect(self) -> CollectReport:
        state = await self.namespace.refresh()
        keep_ms = NamespaceConfig.of(state.config).history_retention_ms
        if keep_ms == FOREVER:
            return CollectReport(floor=state.floor)
        self.survey = await h.survey(self.chain)
        await self._snapshot_if_due()
        hint = await h.read_collected(self.chain)
        if not self.full and self._rests(keep_ms, hint):
            return self._report(keep_ms, hint, rested=True)
        try:
            await self._find_horizon(keep_ms)
            await self._move_boundary()
            self.family = await h.mark_branches(self.chain, self.base.seq, self.marks, self.namespace.name)
            await self._sweep()
        except _Late:
            return self._report(keep_ms, hint, complete=False)
        if not self.dry_run:
            await self._raise_floor()
            hint = await self._leave_hint()
        return self._report(keep_ms, hint)

    async def next_due_ms(self) -> int | None:
        keep_ms = NamespaceConfig.of(self.namespace.state.config).history_retention_ms
        if keep_ms == FOREVER:
            return None
        self.survey = await h.survey(self.chain)
        return self._due_ms(keep_ms, await h.read_collected(self.chain))

    # -- look and mark -------------------------------------------------------------------------------------

    async def _snapshot_if_due(self) -> None:
        """A snapshot of what was committed since the last one, if that is a day old: without one nothing ages."""
        newest, state = self.survey.newest, self.namespace.state
        behind = state.seq > (newest.seq if newest else 0)
        if behind and not self.dry_run and (newest is None or newest.modified_ms + DAY_MS <= self.survey.now_ms):
            await self._snapshot()

    async def _snapshot(self) -> None:
        self.written = await self.namespace.house.snapshot()
        self.survey = replace(self.survey, snapshots=(*self.survey.snapshots, h.Seen(self.written, self.survey.now_ms)))

    def _aged(self) -> int:
        """F: a process that is awake knows a newer tip, or this one."""
        return next(iter(self.survey.aged(DAY_MS)), self.survey.boundary - 1)

    def _rests(self, keep_ms: int, hint: tuple[h.Collected, int] | None) -> bool:
        """Whether the last sweep went as far as this one could; or it was just now."""
        if hint is None:
            # Before the first day is over there is nothing that could go.
            return not self.survey.aged(min(keep_ms, DAY_MS)) and self.survey.boundary == 1
        swept, at_ms = hint
        if self.survey.now_ms < at_ms + COLLECT_EVERY_MS:
            return True
        wanted = max(next(iter(self.survey.aged(keep_ms)), 0) + 1, self.survey.boundary)
        stray = self._below(swept.boundary - 1) > swept.kept
        same = (swept.boundary, swept.aged) == (wanted, self._aged()) and not stray
        return same and not 0 < swept.again_ms <= self.survey.now_ms

    def _below(self, seq: int) -> int:
        """How many snapshots lie below ``seq``."""
        return sum(seen.seq < seq for seen in self.survey.snapshots)

    async def _find_horizon(self, keep_ms: int) -> None:
        """The newest snapshot that is old enough and whole, and marks on all that it names."""
        candidates = self.survey.aged(keep_ms)
        if self.survey.boundary - 1 not in candidates:
            candidates.append(self.survey.boundary - 1)  # what another collector began with a shorter history
        self.progress("mark", 0, 1)
        for seq in candidates:
            self.marks = h.Marks()
            try:
                self.base = await h.load(self.chain, seq)
                await h.mark(self.chain, self.base, self.marks)
            except (NotFound, Corrupt) as error:
                if await self.chain.read_boundary() > self.survey.boundary:
                    raise _Outrun from error
                continue  # written by a sleeper, of pages that were gone; or damaged
            self.progress("mark", 1, 1)
            return
        raise Corrupt(
            f"No snapshot of {self.survey.boundary - 1} or later in {self.chain.store.url} is whole, so nobody can "
            "tell what must stay. Nothing was deleted. Run `headwater verify`."
        )

    async def _move_boundary(self) -> None:
        boundary = self.base.seq + 1
        if self.dry_run or boundary <= self.survey.boundary:
            return
        await self.chain.put_once(keys.boundary_key(boundary), b"{}\n")

    # -- sweep ----------------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Each kind by itself; what is listed while others delete it is deleted twice, which does no harm."""
        base, floor, aged = self.base, self.base.floor, self._aged()
        first = 2 if base.origins else 1  # manifest 1 of a branch says that the name is taken
        await self._each("manifests", keys.MANIFESTS, first, base.seq + 1)
        await self._each_by_tip("segments", keys.SEGMENTS, floor, aged, _segment_tip)
        await self._each_by_tip("file_pages", keys.FILE_PAGES, floor, aged, keys.parse_file_page_key)
        await self._each_by_tip("files", keys.ARCHIVE, floor, aged, _file_tip)
        await self._pages()
        await self._each("snapshots", keys.SNAPSHOTS, 0, base.seq)
        await self._each("boundaries", keys.BOUNDARIES, 0, max(self.survey.boundary, base.seq + 1))
        await self._correct_latest()

    async def _each(self, kind: str, prefix: str, first: int, end: int) -> None:
        """Delete the objects of a kind whose number lies in ``[first, end)``, unless they are marked."""

        def goes_on(stat: Stat) -> bool:
            return _number(keys.parse_numbered_key, stat.key) < end

        async for stat in h.stats_under(self.chain, prefix, goes_on):
            if stat.key not in self.marks and _number(keys.parse_numbered_key, stat.key) >= first:
                await self._doom(kind, stat)
        await self._flush(kind)

    async def _correct_latest(self) -> None:
        """A sleeper may have left a hint at a snapshot that is gone: cold starts would have to look for another."""
        newest = self.survey.newest
        if newest is None or self.dry_run:
            return
        try:
            hint = snapshot.decode_latest((await self.chain.retry(lambda: self.chain.store.get(keys.LATEST))).data)
        except (NotFound, Corrupt):
            hint = 0
        if hint < self.base.seq <= newest.seq:
            await self.chain.retry(lambda: self.chain.store.put(keys.LATEST, snapshot.encode_latest(newest.seq)))

    async def _each_by_tip(self, kind: str, prefix: str, floor: int, aged: int, tip_of: Callable[[str], int]) -> None:
        """Delete what nobody may commit any more and nobody names; note what waits for the floor."""
        in_order = prefix != keys.ARCHIVE
        raised = self.namespace.state.floor

        def goes_on(stat: Stat) -> bool:
            return not in_order or _number(tip_of, stat.key) <= max(aged, floor)

        async for stat in h.stats_under(self.chain, prefix, goes_on):
            tip = _number(tip_of, stat.key)
            if not 0 <= tip <= max(aged, floor - 1) or stat.key in self.marks:
                continue
            if tip < floor:
                await self._doom(kind, stat)
            elif tip >= raised:
                self.waits_below |= tip < aged
                self.waits_at |= tip == aged
        await self._flush(kind)

    async def _pages(self) -> None:
        """Index pages up to the horizon that neither a snapshot from there on nor a branch names."""
        pages = Pages(self.chain, self.base, self.survey.now_ms)
        await pages.look([(self.chain, self.base.seq), *self.family.members], self._check_time)
        async for stat in h.stats_under(self.chain, keys.INDEXES, lambda _: True):
            if pages.may_go(stat) and stat.key not in self.marks:
                await self._doom("pages", stat)
        await self._flush("pages")
        self.again_ms = pages.again_ms
        if not self.dry_run:
            self.mended = await pages.mend()

    # -- deletes ---------------------------------------------------------------------------------------------

    async def _doom(self, kind: str, stat: Stat) -> None:
        self.sum.add(kind, stat)
        if len(self.sum.doomed) >= DELETE_KEYS * DELETES_MAX:
            await self._flush(kind)

    async def _flush(self, kind: str) -> None:
        """Delete what has gathered: in batches, a few at once, ridden through 503s."""
        doomed, self.sum.doomed = self.sum.doomed, []
        self._check_time()
        if self.dry_run or not doomed:
            return
        batches = [doomed[at : at + DELETE_KEYS] for at in range(0, len(doomed), DELETE_KEYS)]
        await to_the_end(self.chain.retry(_deletion(self.chain, batch)) for batch in batches)
        self.progress(kind, self.sum.deleted[kind], self.sum.deleted[kind])

    def _check_time(self) -> None:
        if self.deadline_s is not None and self.chain.clock.elapsed_s() > self.deadline_s:
            raise _Late

    # -- the floor, and the end --------------------------------------------------------------------------------

    async def _raise_floor(self) -> None:
        """Let bytes go that nobody has committed: nothing older than F is from now on.

        Those of tip F itself need a newer snapshot. If there is nothing behind F, this very commit makes it possible.
        """
        aged, state = self._aged(), await self.namespace.refresh()
        if not (self.waits_below and aged > state.floor) and not (self.waits_at and state.seq == aged):
            return
        await self.namespace.writer.commit(ops=[RaiseFloor(floor=aged)])
        self.raised = True
        newest = self.survey.newest
        if newest is None or newest.seq <= aged:  # a quiet namespace: nobody else will write one soon
            await self._snapshot()

    async def _leave_hint(self) -> tuple[h.Collected, int]:
        kept = sum(keys.snapshot_key(seen.seq) in self.marks for seen in self.survey.snapshots)
        hint = h.Collected(FORMAT, "collected", self.base.seq + 1, self._aged(), self.again_ms, kept)
        body = encode_hint(hint)
        await self.chain.retry(lambda: self.chain.store.put(keys.COLLECTED, body))
        return hint, self.survey.now_ms

    def _report(
        self, keep_ms: int, hint: tuple[h.Collected, int] | None, *, rested: bool = False, complete: bool = True
    ) -> CollectReport:
        return CollectReport(
            horizon=self.base.seq,
            boundary=max(self.survey.boundary, self.base.seq + 1),
            floor=self.namespace.state.floor,
            marked=len(self.marks),
            deleted=self.sum.deleted,
            freed=self.sum.freed,
            snapshot=self.written,
            raised=self.raised,
            mended=self.mended,
            unfinished=tuple(self.family.unfinished),
            rested=rested,
            complete=complete,
            next_due_ms=self._due_ms(keep_ms, hint) if complete else self.chain.clock.wall_ms(),
        )

    def _due_ms(self, keep_ms: int, hint: tuple[h.Collected, int] | None) -> int | None:
        """The first moment at which something could be done, from the store's clock to the local one."""
        survey, newest = self.survey, self.survey.newest
        swept, at_ms = hint if hint is not None else (None, -COLLECT_EVERY_MS)
        times = [seen.modified_ms + keep_ms for seen in survey.snapshots if not swept or seen.seq >= swept.boundary]
        times += [seen.modified_ms + DAY_MS for seen in survey.snapshots if not swept or seen.seq > swept.aged]
        if self.namespace.state.seq > (newest.seq if newest else 0):
            times.append(newest.modified_ms + DAY_MS if newest else survey.now_ms)
        if swept is not None and swept.again_ms:
            times.append(swept.again_ms)
        if not times:
            return None
        due_ms = max(min(times), at_ms + COLLECT_EVERY_MS)
        return self.chain.clock.wall_ms() + max(due_ms - survey.now_ms, 0)


def _deletion(chain: Chain, batch: Sequence[str]) -> Callable[[], Awaitable[None]]:
    return lambda: chain.store.delete(batch)


def _segment_tip(key: str) -> int:
    return keys.parse_segment_key(key).tip


def _file_tip(key: str) -> int:
    return keys.parse_archive_key(key).tip


def _number(tip_of: Callable[[str], int], key: str) -> int:
    """The number in a name; -1 for an object that is none of ours, and is left alone."""
    try:
        return tip_of(key)
    except Corrupt:
        return -1
