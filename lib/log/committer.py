"""Commits intents: alone by one PUT, in company through published segments. DESIGN section 4.

One task commits for the whole process, one group after another; while a group is on its way the next one
gathers. Since a process never has two groups in flight, the log keeps the order of its calls.

    alone or leading   put_next(own intents inline + what others published)
    following          PUT a segment; poll the chain until a manifest names it, or take a turn
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from headwater import tracing
from headwater.errors import HeadwaterError, Indeterminate, InvalidRequest
from headwater.limits import INLINE_BYTES_MAX, MANIFEST_INTENTS_MAX, WINDOW
from headwater.log import keys
from headwater.log.company import Company
from headwater.log.intents import FORMAT, Intent, Manifest, SegmentHeader, encode_segment, located
from headwater.log.journal import Draft, Journal
from headwater.log.payload import Piece, assemble
from headwater.log.published import Group, Published
from headwater.log.state import Outcome, once
from headwater.log.state.fold import LATE
from headwater.log.tags import encode_tag
from headwater.log.together import unheard
from headwater.log.turns import Seen, Turns

Told: TypeAlias = Callable[[Outcome], object]


@dataclass(slots=True)
class Pending:
    """An intent that waits for its outcome."""

    piece: Piece
    outcome: asyncio.Future[Outcome]
    ready: asyncio.Future[Piece] | None = None  # set while its bytes are still being uploaded
    nbytes: int = 0  # of its records
    caller: Hashable = None  # for whom it is, if that was said
    since_s: float = 0.0  # when it came
    tip: int = -1  # the tip under which it was last sent
    loads: int = 0  # ``chain.loads`` at that time
    trace: object = None  # in which it came; the first one of a group has the requests of all of it
    told: Told | None = None  # hears of the outcome at once


class Committer:
    """The queue of one process's intents, and the task that commits them."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.chain = journal.chain
        self.options = journal.chain.options
        self.turns = Turns(journal.writer, journal.chain.rng, cooperative=self.options.cooperative)
        self.published = Published(journal.chain, self.turns, writer=journal.writer)  # by others
        self.company = Company(self.options.linger_ms / 1_000)
        self._queue: deque[Pending] = deque()
        self._queued_bytes = 0
        self._queued_inline = 0  # of those, the bytes that are to ride in a manifest
        self.waits: Callable[[asyncio.Future[Piece]], object] = _nothing  # told of the next intent, if it is not ready
        self._came = asyncio.Event()
        self._waiting: dict[str, Pending] = {}
        self._segments = 0
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self.chain.listeners.append(self._folded)

    # -- the callers' side ---------------------------------------------------------------------------

    def submit(
        self,
        piece: Piece,
        ready: asyncio.Future[Piece] | None = None,
        *,
        caller: Hashable = None,
        told: Told | None = None,
    ) -> asyncio.Future[Outcome]:
        """Queue an intent. Its outcome comes in the order of calls; ``ready`` delays it (and those behind it).

        ``told`` is called with an outcome that is known, inside the fold: whoever waits for the chain to grow hears of
        it later. It must be quick and not raise.
        """
        known = self._waiting.get(piece.intent.id)
        if known is not None:
            return known.outcome
        pending = Pending(
            piece,
            asyncio.get_running_loop().create_future(),
            ready,
            nbytes=sum([chunk.len for chunk in piece.intent.appends]),
            caller=caller,
            since_s=self.chain.clock.elapsed_s(),
            trace=tracing.here(),
            told=told,
        )
        if caller is not None:
            self.company.begin(caller)
        # A caller that gave up must not make the loop complain about an outcome that nobody fetched, nor must a queue
        # that was cut off while bytes were still being stored.
        pending.outcome.add_done_callback(unheard)
        if ready is not None:
            ready.add_done_callback(unheard)
        self._waiting[piece.intent.id] = pending
        self._queue.append(pending)
        self._queued_bytes += pending.nbytes
        self._queued_inline += piece.size
        self._came.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run_queue(), name="headwater-committer")
        return pending.outcome

    def has_room_inline(self, nbytes: int) -> bool:
        """Whether the manifest that is next may carry so many bytes more."""
        return self._queued_inline + nbytes <= self.options.inline_bytes_max

    async def drain(self) -> None:
        """Return when nothing is queued or in flight (R10)."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])
        if self._looking is not None:
            await asyncio.wait([self._looking])
        await self.journal.hedge.drain()

    @property
    def busy(self) -> bool:
        """Whether a group is on its way."""
        return self._task is not None and not self._task.done()

    # -- the loop ------------------------------------------------------------------------------------

    async def _run_queue(self) -> None:
        while self._queue:
            group: list[Pending] = []
            try:
                await self._linger()
                group = await self._take()
                if group:
                    with tracing.within(group[0].trace):
                        await self._commit(group)
            except HeadwaterError as error:
                self._fail(self._undecided(group), error)
            except Exception as error:
                # A bug of ours, or of what we stand on: whoever waits must hear of it. Nothing says "not applied".
                self._fail(group, Indeterminate(f"The commit failed in an unforeseen way: {error!r}"), error)
            except asyncio.CancelledError:
                self._fail([*group, *self._queue], Indeterminate("The process is stopping; the commit was cut off."))
                self._queue.clear()
                self._queued_bytes = self._queued_inline = 0
                raise

    async def _linger(self) -> None:
        """Wait until the oldest intent is ``linger_ms`` old, a segment is full, or there is nobody to wait for.

        Much of that passes while the last PUT is on its way.
        """
        if self.options.linger_ms <= 0:
            return
        end_s = self._queue[0].since_s + self.options.linger_ms / 1_000
        while self._queued_bytes < self.options.segment_bytes_target:
            now_s = self.chain.clock.elapsed_s()
            left_s = min(end_s - now_s, self.company.awaited_s(now_s))
            if left_s <= 0:
                return
            self._came.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._came.wait()
            except TimeoutError:
                return

    async def _take(self) -> list[Pending]:
        """The next intents that fit one manifest, in the order of their calls; uploads still running end the group."""
        group: list[Pending] = []
        size = 0
        while self._queue and len(group) < MANIFEST_INTENTS_MAX // 2:
            head = self._queue[0]
            if head.ready is not None:
                if not head.ready.done():
                    if group:
                        break
                    self.waits(head.ready)
                try:
                    head.piece = head.ready.result() if head.ready.done() else await head.ready
                except HeadwaterError as error:
                    self._pop()
                    self._fail([head], error)
                    continue
                head.ready = None
            cost = head.piece.size + head.piece.header_bytes
            if group and size + cost > max(self.options.inline_bytes_max, INLINE_BYTES_MAX):
                break
            group.append(self._pop())
            size += cost
        return group

    def _pop(self) -> Pending:
        first = self._queue.popleft()
        self._queued_bytes -= first.nbytes
        self._queued_inline -= first.piece.size
        return first

    async def _commit(self, group: list[Pending]) -> None:
        """Return when every intent of the group has its outcome."""
        deadline_s = self.chain.clock.elapsed_s() + self.options.commit_timeout_s
        losses = 0
        while left := self._undecided(group):
            if self.chain.is_stale():
                await self.chain.refresh()
                continue
            self._note_tips(left)
            if self.turns.direct(losses, self.chain.clock.elapsed_s()):
                if await self._race([p.piece for p in left], deadline_s, look=True):
                    continue
                losses += 1
                await self.chain.refresh()
            else:
                await self._follow(left, deadline_s)

    def _undecided(self, group: list[Pending]) -> list[Pending]:
        left = []
        for pending in group:
            if pending.outcome.done():
                continue
            known = self._outcome(pending)
            if known is None:
                left.append(pending)
            elif known.error == LATE:
                self._fail([pending], Indeterminate(known.message))
            else:
                self._resolve(pending, known)
        return left

    def _outcome(self, pending: Pending) -> Outcome | None:
        """What is known of an intent: its outcome, None while it is certainly not committed, or that nobody knows.

        A process that folds every manifest hears of its intent's outcome when it comes. One that started again
        from a snapshot meanwhile (R5) must rely on the memory of ids, which reaches back WINDOW manifests.
        """
        state, piece = self.chain.state, pending.piece
        known = state.recent.get(piece.intent.id) or once.answered(state, piece.intent)
        if known is not None:
            return known
        tip = piece.tip if piece.tip is not None else pending.tip
        missed = piece.tip is not None or (pending.tip >= 0 and pending.loads != self.chain.loads)
        if missed and tip + WINDOW <= state.seq:
            return Outcome(
                state.seq,
                LATE,
                f"The intent was sent at tip {tip}; more than {WINDOW} commits later nobody remembers whether it was "
                "committed. Read the log to see.",
            )
        return None

    def _note_tips(self, group: Sequence[Pending]) -> None:
        for pending in group:
            pending.tip = self.chain.state.seq if pending.piece.tip is None else pending.piece.tip
            pending.loads = self.chain.loads

    def _fail(self, group: Sequence[Pending], error: HeadwaterError, cause: BaseException | None = None) -> None:
        for pending in group:
            self._forget(pending)
            if pending.outcome.done():
                continue
            # Whoever may have missed manifests since it sent an intent cannot say that it was not applied.
            missed = pending.tip >= 0 and (pending.loads != self.chain.loads or self.chain.is_stale())
            if missed or isinstance(error, Indeterminate):
                # The store names its writes after keys; to our callers an intent's identity is its token.
                unknown = Indeterminate(error.message, token=_token(pending))
                unknown.__cause__ = cause or error
                pending.outcome.set_exception(unknown)
            else:
                pending.outcome.set_exception(error)

    # -- alone, or leading ----------------------------------------------------------------------------

    async def _race(self, pieces: Sequence[Piece], deadline_s: float, *, look: bool, own: Sequence[Group] = ()) -> bool:
        """PUT the next manifest with ``pieces``, ``own`` segments and all that others are known to wait for.

        Whether it was ours.
        """
        clock, turns = self.chain.clock, self.turns
        if self._looking is not None and not self._looking.done():
            await asyncio.wait([self._looking], timeout=turns.list_patience_s())
        draft = Draft(pieces=pieces, merged=self.published.mergeable(own))
        if look and turns.look_around(clock.elapsed_s()) and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self.published.look(turns.list_delay_s()))
        start = clock.elapsed_s()
        won = await self.journal.put_next(draft, deadline_s=deadline_s)
        if won:
            turns.took.note("put", clock.elapsed_s() - start)
        return won

    # -- following --------------------------------------------------------------------------------------

    async def _follow(self, group: list[Pending], deadline_s: float) -> None:
        """Publish the group and see it committed, by someone else or by ourselves. Returns when all is decided."""
        try:
            while left := self._undecided(group):
                await self._follow_one_segment(left, deadline_s)
                if self.chain.is_stale():
                    await self.chain.refresh()
        except Indeterminate:
            raise
        except HeadwaterError as error:
            # Published intents are anyone's to commit, so nothing that befalls us afterwards says "not applied".
            raise Indeterminate(f"The intent was published and its fate could not be learnt: {error}") from error

    async def _follow_one_segment(self, group: list[Pending], deadline_s: float) -> None:
        """Publish once; return when all is decided, or when the segment is void by R4."""
        clock, turns, chain = self.chain.clock, self.turns, self.chain
        self._note_tips(group)
        key, intents = await self._publish([p.piece for p in group])
        # Out of sight of LISTs, or (R4) void: publish anew under a newer tip. That is safe, since all manifests
        # up to that tip are folded and none has committed these intents: any two that yet might are less than
        # WINDOW apart, within which ids are remembered (R3).
        renew_at = min(intent.tip for intent in intents) + min(WINDOW, self.published.lookback())
        turns.published(clock.elapsed_s())
        await clock.sleep(turns.first_poll_s())
        seen = chain.state.seq
        while self._undecided(group):
            if clock.elapsed_s() > deadline_s:
                raise Indeterminate("The log was too contended, or the store too slow, for this commit's deadline.")
            start = clock.elapsed_s()
            found = await chain.step()
            if found:
                turns.took.note("get", clock.elapsed_s() - start)
            if chain.state.seq >= renew_at:
                return
            missed = chain.state.seq - seen
            if turns.my_turn(missed, clock.elapsed_s()) and self._undecided(group):
                await self._take_turn(key, intents, deadline_s, look=not turns.unaware())
                seen = chain.state.seq
            elif not found:
                await clock.sleep(turns.poll_s())

    async def _publish(self, pieces: Sequence[Piece]) -> tuple[str, list[Intent]]:
        """PUT the intents with their bytes as a segment that anyone may commit."""
        tip = self.chain.state.seq
        self._segments += 1

        def build(intents: list[Intent]) -> SegmentHeader:
            return SegmentHeader(v=FORMAT, kind="segment", writer=self.journal.writer, intents=intents)

        header, parts, _ = assemble(pieces, tip, build, encode_segment)
        tag = encode_tag(header.intents[0]) if len(header.intents) == 1 else ""
        key = keys.segment_key(tip, self.journal.writer, self._segments, tag)
        if len(key.encode()) > self.chain.store.key_bytes_max:
            key = keys.segment_key(tip, self.journal.writer, self._segments)
        start = self.chain.clock.elapsed_s()
        await self.chain.retry(lambda: self.chain.store.put(key, parts))
        self.turns.took.note("put", self.chain.clock.elapsed_s() - start)
        return key, [located(intent, key) for intent in header.intents]

    async def _take_turn(self, key: str, intents: list[Intent], deadline_s: float, *, look: bool) -> None:
        if look:
            await self.published.look(0)
        await self._race((), deadline_s, look=False, own=[(key, intents)])

    # -- listening to the chain ------------------------------------------------------------------------------

    def _folded(self, manifest: Manifest, outcomes: list[Outcome]) -> None:
        own = 0
        for intent, outcome in zip(manifest.intents, outcomes, strict=True):
            pending = self._waiting.get(intent.id)
            if pending is None:
                continue
            own += 1
            if outcome.error != LATE:
                self._resolve(pending, outcome)
        self.published.folded(manifest)
        # A skewed clock costs us no more than a worse guess.
        age_s = max(0.0, (self.chain.clock.wall_ms() - manifest.time) / 1_000)
        seen = Seen(
            writer=manifest.writer,
            writers=len({manifest.writer, *map(keys.segment_writer, manifest.merged)}),
            intents=len(manifest.intents),
            others=len(manifest.intents) - own,
            age_s=age_s,
        )
        self.turns.saw_manifest(seen, self.chain.clock.elapsed_s())

    def _resolve(self, pending: Pending, outcome: Outcome) -> None:
        self._forget(pending)
        if not pending.outcome.done():
            pending.outcome.set_result(outcome)
            if pending.told is not None:
                pending.told(outcome)

    def _forget(self, pending: Pending) -> None:
        """It waits no more."""
        known = self._waiting.pop(pending.piece.intent.id, None)
        if known is not None and pending.caller is not None:
            self.company.end(pending.caller, self.chain.clock.elapsed_s())


def _token(pending: Pending) -> str:
    """The identity under which an indeterminate intent may be sent again: its id, and the tip that bounds it (R4)."""
    return f"{pending.piece.intent.id}@{pending.tip}"


def parse_token(token: str) -> tuple[str, int]:
    """The intent id and tip in a token. Raises ``InvalidRequest``."""
    identity, _, tip = token.partition("@")
    if not 4 <= len(identity) <= 64 or not tip.isascii() or not tip.isdigit():
        raise InvalidRequest(f"{token[:80]!r} is not the token of an earlier attempt.")
    return identity, int(tip)


def _nothing(_: object) -> None:
    pass
