"""What this process knows of the manifest chain: cold start, catching up, and how old the knowledge is.

The chain is read with GETs of the next number until there is none (404). Reading is safe from any
number of tasks at once: a manifest is folded exactly when it is the successor of the state.

R5, the reader's half. A 404 on the next number means "this is the tip" only if that number was never
collected; and an object there is a commit only if the slot was never recycled. So knowledge of the tip
older than an hour is thrown away and the process starts again from ``latest``. A snapshot is no
knowledge of the tip either: what is folded behind it stays apart, and nobody sees it, until a 404 was
followed by a LIST of the boundary that finds it not above the first manifest folded. Until then everyone
in this process goes on with the old state, which was true when it was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from headwater.clock import Clock
from headwater.errors import (
    AlreadyExists,
    Corrupt,
    HeadwaterError,
    Indeterminate,
    InvalidRequest,
    NotFound,
    Raced,
)
from headwater.limits import CATCH_UP_AHEAD_MAX, CATCH_UP_PARALLEL_MAX, INLINE_CACHE_BYTES, MANIFEST_BYTES_MAX
from headwater.log import index, keys, snapshot
from headwater.log.cache import ByteCache
from headwater.log.intents import Manifest, decode_manifest
from headwater.log.options import Options
from headwater.log.state import Outcome, State, apply
from headwater.log.together import together
from headwater.store.base import Blob, Body, ObjectStore, Stat
from headwater.store.retry import retrying
from headwater.types import Buffer

T = TypeVar("T")
CHASE_MANIFESTS = 80  # folded one after another: who is not at the tip by then sets itself a last one to fold
FOLLOWED_MAX = 3  # manifests found by one look each, before it is asked where the tip is
LOOK_AGAIN_MAX = 3  # how often a cold start looks for a snapshot that the collector does not take away under it
Listener = Callable[[Manifest, list[Outcome]], None]


@dataclass(frozen=True, slots=True)
class _Fresh:
    """A state that is read anew, beside the one in use, and the first manifest folded into it."""

    state: State
    first: int


@dataclass(frozen=True, slots=True)
class _Gap:
    """A number that no manifest had when it was asked for, at ``at``: what was acknowledged before lies below it."""

    seq: int
    at: tuple[int, float]


class Chain:
    """The state of a namespace as far as this process has folded it, and the means to fold further."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        clock: Clock,
        rng: random.Random,
        options: Options,
        sibling: Callable[[str], ObjectStore] | None = None,
    ) -> None:
        self.store = store
        self.name = ""  # the namespace's, by which its figures are told
        self.sibling = sibling  # the store of another namespace of this bucket: a branch reads what it shares there
        self.clock = clock
        self.rng = rng
        self.options = options
        self.state = State()
        self.bytes_folded = 0
        self.adopted = 0  # the snapshot whose pages are in use
        self.loads = 0  # how often this process started (again) from a snapshot, so that it missed manifests
        self.inline = ByteCache(INLINE_CACHE_BYTES)  # manifests with payload: a tailing reader has its data already
        self.listeners: list[Listener] = []
        self.ahead = 0  # manifests that have probably come since, as the last look that has found one lets expect
        self.sent_s: float | None = None  # when this process sent the manifest that is on its way, if one is
        self._known_at: tuple[int, float] | None = None  # wall ms, elapsed s of the last certain tip
        self._followed = 0  # manifests that ``follow`` has found since then
        self._looks = 0  # of ``follow``, that have ended
        self._checks_started = 0
        self._checks_done = 0
        self._check_failed: HeadwaterError | None = None
        self._checking = asyncio.Lock()
        self._following = asyncio.Lock()
        self._grown = asyncio.Event()

    # -- freshness -------------------------------------------------------------------------------

    def age_s(self) -> float:
        """How long ago the tip was certain: the larger of what the wall clock and the boot clock say."""
        if self._known_at is None:
            return float("inf")
        wall_ms, elapsed_s = self._known_at
        return max((self.clock.wall_ms() - wall_ms) / 1_000, self.clock.elapsed_s() - elapsed_s)

    def is_stale(self) -> bool:
        """Whether R5 forbids to build on what is known."""
        return self.age_s() > self.options.stale_after_s

    def now(self) -> tuple[int, float]:
        """Both clocks, to be handed to ``known`` once the request that starts now has proved the tip."""
        return self.clock.wall_ms(), self.clock.elapsed_s()

    def known(self, at: tuple[int, float]) -> None:
        """The tip was certain at ``at``."""
        self._known_at = at if self._known_at is None else max(self._known_at, at, key=lambda pair: pair[1])
        self._followed = self.ahead = 0

    def is_asking(self, within_s: float) -> bool:
        """Whether a manifest of this process is on its way since less than so long: its answer will tell the tip."""
        return self.sent_s is not None and self.clock.elapsed_s() - self.sent_s < within_s

    # -- folding ---------------------------------------------------------------------------------

    def fold(self, manifest: Manifest, size: int, parts: Sequence[Buffer] = ()) -> bool:
        """Fold ``manifest``, of these bytes, if it is the next one, and tell the listeners. False if it is not."""
        if manifest.seq != self.state.seq + 1:
            return False
        try:
            outcomes = self._apply(self.state, manifest, size, parts)
        except BaseException:
            # The state may be half changed: build nothing on it, and start again from a snapshot.
            self._known_at = None
            raise
        for listener in self.listeners:
            listener(manifest, outcomes)
        self._wake()
        return True

    async def step(self) -> bool:
        """Fold the next manifest if it exists: one GET. False means that the tip was just now certain."""
        before, seq, before_ms = self.now(), self.state.seq + 1, self.state.time_ms
        data = None if self.is_stale() else await self.read_slot(seq)
        if self.is_stale():  # also after the GET: this process may have slept in between
            await self.refresh()
            return False
        if seq == self.state.seq + 1:
            if data is None:
                self.known(before)
            else:
                self.fold(read_manifest(data, seq), len(data), [data])
                self.ahead = self._expected(self.state, 1, before_ms)
        return data is not None

    async def refresh(self) -> None:
        """Fold up to a number of which a request that began after this call has found no manifest.

        What was acknowledged anywhere before the call is in the state after it. It ends though others write faster
        than this process reads. Callers at the same time share the work. Cost: 1 GET at the tip; behind it, one GET
        a manifest, up to 16 at once within ``options.catch_up_bytes_max``; far behind it, also a few HEADs.
        """
        ticket = self._checks_started
        async with self._checking:
            if self._checks_done > ticket:
                if self._check_failed is not None:
                    raise self._check_failed
                return
            self._checks_started += 1
            started = self._checks_started
            try:
                await self._catch_up()
            except HeadwaterError as error:
                # For those who wait behind this look: theirs would fare no better.
                self._checks_done, self._check_failed = started, error
                raise
            # A look that is cancelled says nothing: those behind it must look themselves.
            self._checks_done, self._check_failed = started, None

    @property
    def is_behind(self) -> bool:
        """Whether the last look of ``follow`` has found a manifest: the next one may be there as well."""
        return self._followed > 0

    async def follow(self, seq: int) -> None:
        """Look for a manifest above ``seq`` once; for who waits for more, and reads what comes as soon as it is here.

        Whether what it finds is the last one is not asked: that would cost who waits for it another round trip. Callers
        at the same time share the look. Cost: 1 GET; that of ``refresh`` once ``FOLLOWED_MAX`` looks in a row have
        found something, since others write as fast as this process can ask then.
        """
        ticket = self._looks
        async with self._following:
            if self.state.seq > seq or self._looks > ticket:
                return
            try:
                if self._followed >= FOLLOWED_MAX:
                    await self.refresh()
                elif await self.step():
                    self._followed += 1
            except HeadwaterError:
                self._looks += 1  # those who wait behind it would fare no better
                raise
            self._looks += 1

    async def grown(self, seq: int, timeout_s: float) -> bool:
        """Wait until something above ``seq`` is folded in this process, at most ``timeout_s``."""
        if self.state.seq <= seq:
            with contextlib.suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the event.
                async with asyncio.timeout(timeout_s):
                    await self._grown.wait()
        return self.state.seq > seq

    async def read_slot(self, seq: int) -> bytes | None:
        """The bytes of manifest ``seq``, or None if there is none. Rides out a silent or throttling store."""
        try:
            return (await self.retry(lambda: self.store.get(keys.manifest_key(seq)))).data
        except NotFound:
            return None

    async def read_slots(self, seq: int, count: int) -> list[bytes | None]:
        """The bytes of up to ``count`` slots from ``seq`` on, at least one; None ends them, the first that is free.

        Several are read at once, and one that is slow holds up no other: what comes early waits for it. When that is
        a quarter of ``options.catch_up_bytes_max`` it stops short of ``count``, as it does at ``CATCH_UP_AHEAD_MAX``.
        """
        found: dict[int, bytes | None] = {}
        ahead = iter(range(seq, seq + min(count, CATCH_UP_AHEAD_MAX)))
        taken, is_over = 0, False
        most = self.options.catch_up_bytes_max // 4

        async def read() -> None:
            nonlocal taken, is_over
            while not is_over and taken <= most and (at := next(ahead, None)) is not None:
                data = found[at] = await self.read_slot(at)
                is_over |= data is None
                taken += len(data or b"")

        await together(*(read() for _ in range(min(count, self._parallel_max()))))
        slots = [found[at] for at in range(seq, seq + len(found))]
        return slots[: slots.index(None) + 1] if None in slots else slots

    async def read(self, key: str, *, start: int = 0, end: int | None = None, state: State | None = None) -> Blob:
        """Bytes of an object that ``state`` (the present one) names. Rides out a silent or throttling store.

        Raises:
            NotFound: it is gone: merged, archived or compacted, and collected. Look again in a newer state (R6).

        Cost: 1 GET.
        """
        home = self.home(key, state or self.state)
        return await self.retry(lambda: home.get(key, start=start, end=end))

    def home(self, key: str, state: State) -> ObjectStore:
        """The namespace in which an object lies that ``state`` names: of a branch, perhaps that of an origin."""
        owner = owner_of(key, state)
        return self.other(owner) if owner else self.store

    def other(self, namespace: str) -> ObjectStore:
        """The store of another namespace of this bucket."""
        if self.sibling is None:
            raise InvalidRequest(f"Namespace {namespace!r} is needed, too, and only {self.store.url} is open.")
        return self.sibling(namespace)

    async def put_once(self, key: str, body: Body, store: ObjectStore | None = None) -> bool:
        """Store what anyone would store under this key in the same way. False if it was there, perhaps by ourselves."""
        target = self.store if store is None else store

        async def put() -> bool:
            try:
                await target.put_if_absent(key, body)
            except AlreadyExists:
                return False
            except Raced as error:
                raise Indeterminate(str(error)) from error
            return True

        return await self.retry(put)

    async def listed(
        self, prefix: str, *, start_after: str = "", limit: int | None = None, store: ObjectStore | None = None
    ) -> list[Stat]:
        """What lies under ``prefix``, in order. Cost: 1 LIST for each 1,000 objects."""
        target = self.store if store is None else store

        async def found() -> list[Stat]:
            return [stat async for stat in target.list(prefix, start_after=start_after, limit=limit)]

        return await self.retry(found)

    async def retry(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do a read, or a write that may be repeated, until it answers or ``store_retry_s`` is over."""
        return await retrying(call, clock=self.clock, rng=self.rng, deadline_s=self.options.store_retry_s)

    async def _catch_up(self) -> None:
        fresh = await self._load() if self.is_stale() else None
        gap: _Gap | None = None
        count, chased = max(1, min(self.ahead, CHASE_MANIFESTS)), 0
        while True:
            state = self.state if fresh is None else fresh.state
            if gap is None and chased >= CHASE_MANIFESTS:
                gap = await self._gap_above(state.seq)
            before, seq, before_ms = self.now(), state.seq + 1, state.time_ms
            found = await self.read_slots(seq, count)
            if fresh is None and self.is_stale():
                fresh, gap, chased = await self._load(), None, 0
                continue
            for i, data in enumerate(found):
                if data is None:
                    gap = _Gap(seq + i, before)
                    break
                if seq + i == state.seq + 1:
                    manifest = read_manifest(data, seq + i)
                    if fresh is None:
                        self.fold(manifest, len(data), [data])
                    else:
                        self._apply(state, manifest, len(data), [data])
            if gap is not None and gap.seq <= state.seq + 1:
                if fresh is None:
                    self.known(gap.at)
                    return
                if await self.read_boundary() <= fresh.first:
                    self._start_from(fresh.state, fresh.first, gap.at)
                    return
                fresh, gap, chased = await self._load(), None, 0
            chased += len(found)
            expected = min(self._expected(state, len(found), before_ms), CHASE_MANIFESTS)
            count = 1 if found[-1] is None else max(2 * len(found), expected)
            del found, data  # the next ones have the memory

    async def _gap_above(self, seq: int) -> _Gap:
        """A number above ``seq`` that has no manifest yet, at most twice as far away as the tip is.

        For who reads more slowly than others write, and would follow the tip for ever: it has a last number to fold.

        Cost: 1 HEAD for each doubling of the distance.
        """
        ahead = CATCH_UP_PARALLEL_MAX
        while True:
            before, key = self.now(), keys.manifest_key(seq + ahead)
            try:
                await self.retry(lambda key=key: self.store.head(key))  # type: ignore[misc]
            except NotFound:
                return _Gap(seq + ahead, before)
            ahead *= 2

    def _expected(self, state: State, found: int, before_ms: int) -> int:
        """How many manifests follow if the log has gone on as in the last ``found``."""
        pace_ms = max(1.0, (state.time_ms - before_ms) / found)
        return int((self.clock.wall_ms() - state.time_ms) / pace_ms)

    def _parallel_max(self) -> int:
        return max(1, min(CATCH_UP_PARALLEL_MAX, self.options.catch_up_bytes_max // MANIFEST_BYTES_MAX))

    def _apply(self, state: State, manifest: Manifest, size: int, parts: Sequence[Buffer]) -> list[Outcome]:
        outcomes = apply(state, manifest)
        self.bytes_folded += size
        if parts and any(not chunk.obj for intent in manifest.intents for chunk in intent.appends):
            self.inline.put(keys.manifest_key(manifest.seq), parts)
        return outcomes

    def _start_from(self, state: State, first: int, known_at: tuple[int, float]) -> None:
        """Take over a state that was read anew and proved to be the tip. Nobody saw it while it grew."""
        # Nothing is certain before the first cold start, nor after a fold that broke off: then any state is better.
        if state.seq > self.state.seq or self._known_at is None:
            self.state = state
            self.adopted = first - 1
            self.loads += 1
        self.known(known_at)
        self._wake()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    # -- cold start --------------------------------------------------------------------------------

    async def _load(self) -> _Fresh:
        """Begin again from ``latest``. Cost: 2 GETs, 1 LIST.

        Snapshots may be collected between being found and being read, so it looks again before it gives up.
        """
        for _ in range(LOOK_AGAIN_MAX):
            hint, boundary = await together(self._read_latest(), self.read_boundary())
            state = await self._read_snapshot(hint) if hint + 1 >= boundary else None
            if state is None:
                state = await self._newest_snapshot(boundary)
            if state is not None:
                return _Fresh(state, state.seq + 1)
        raise Corrupt(
            f"Manifests below {boundary} are deleted and no snapshot of {boundary - 1} or later exists in "
            f"{self.store.url}: the history cannot be read. Restore a snapshot."
        )

    async def read_boundary(self) -> int:
        """The lowest manifest number that still exists (R5). Cost: 1 LIST."""
        return max([1, *(keys.parse_numbered_key(stat.key) for stat in await self.listed(keys.BOUNDARIES))])

    async def _read_latest(self) -> int:
        try:
            blob = await self.retry(lambda: self.store.get(keys.LATEST))
        except NotFound:
            return 0
        with naming(keys.LATEST):
            return snapshot.decode_latest(blob.data)

    async def _read_snapshot(self, seq: int) -> State | None:
        if seq == 0:
            return State()
        try:
            blob = await self.retry(lambda: self.store.get(keys.snapshot_key(seq)))
        except NotFound:
            return None
        with naming(keys.snapshot_key(seq)):
            return snapshot.decode(blob.data, seq)

    async def _newest_snapshot(self, boundary: int) -> State | None:
        """The hint was of no use: look at what snapshots there are. None if none leads past the boundary."""
        for stat in reversed(await self.listed(keys.SNAPSHOTS)):
            seq = keys.parse_numbered_key(stat.key)
            if seq + 1 < boundary:
                break
            state = await self._read_snapshot(seq)
            if state is not None:
                return state
        return State() if boundary == 1 else None

    async def adopt_pages(self, *, lost: bool = False) -> None:
        """Take over the pages of the newest snapshot: others sealed, merged and pruned them, and may collect ours.

        With ``lost``, an object that was needed is gone: if there are no other pages to take over, this process starts
        again from a snapshot, since what it builds on may be collected.

        Cost: 1 GET, and 1 more if there is a snapshot that this process has neither written nor seen here.
        """
        seq = await self._read_latest()
        if seq >= self.state.paged and seq != self.adopted:
            found = await self._read_snapshot(seq)
            if found is not None and index.adopt(self.state, found.pages, found.paged):
                self.adopted = seq
                return
        if lost:
            self.forget()
            await self.refresh()

    def forget(self) -> None:
        """Build nothing more on the present state: the next look at the tip starts from a snapshot."""
        self._known_at = None


def owner_of(key: str, state: State) -> str:
    """The namespace in whose folder an object lies that ``state`` names; empty for its own."""
    if state.origins:
        age = keys.age_of(key)
        for origin in state.origins:
            if age <= origin.seq:
                return origin.namespace
    return ""


def read_manifest(data: bytes, seq: int) -> Manifest:
    """The manifest in the bytes of slot ``seq``. Raises ``Corrupt`` or ``UpgradeRequired`` with the slot's key."""
    with naming(keys.manifest_key(seq)):
        return decode_manifest(data, seq)


@contextlib.contextmanager
def naming(key: str) -> Iterator[None]:
    """Say in a ``Corrupt`` which object it was."""
    try:
        yield
    except Corrupt as error:
        if error.data.get("key"):
            raise
        raise type(error)(f"{key!r} is damaged: {error.message}", key=key) from error
