"""Commits intents: alone by one PUT, in company through published segments. DESIGN section 4.

One task commits for the whole process, one group after another; while a group is on its way the next one gathers. Since
a manifest is decided before the next is sent, and segments say which they come after, the log keeps the order of calls.

    alone or leading   put_next(own intents inline + what others published)
    following          PUT segments; poll the chain until manifests name them, or take a turn
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence

from headwater import tracing
from headwater.errors import HeadwaterError, Indeterminate
from headwater.log.following import Follower
from headwater.log.intents import Manifest
from headwater.log.journal import Draft, Journal
from headwater.log.payload import Piece
from headwater.log.published import Group, Published
from headwater.log.queue import Pending, Queue, Told
from headwater.log.rotation import shares
from headwater.log.state import Outcome
from headwater.log.together import unheard
from headwater.log.turns import Seen, Turns

ASKED_MAX = 8  # requests for the next manifest under way at once: a slow one's length of those that overlap


class Committer:
    """The task that commits what stands in one process's queue."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.chain = journal.chain
        self.options = journal.chain.options
        self.queue = Queue(journal.chain)
        self.turns = Turns(journal.writer, journal.chain.rng, cooperative=self.options.cooperative)
        self.published = Published(journal.chain, self.turns, writer=journal.writer)  # by others
        self.follower = Follower(
            self.queue, self.turns, self.published, writer=journal.writer, take_turn=self._take_turn
        )
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._asked: set[asyncio.Task[None]] = set()
        self.chain.listeners.append(self._folded)

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
        outcome = self.queue.add(piece, ready, caller, told)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run_queue(), name="headwater-committer")
        return outcome

    async def drain(self) -> None:
        """Return when nothing is queued or in flight (R10)."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])
        if beside := [task for task in (self._looking, self.follower.ringing, *self._asked) if task is not None]:
            await asyncio.wait(beside)
        await self.journal.hedge.drain()

    @property
    def busy(self) -> bool:
        """Whether a group is on its way."""
        return self._task is not None and not self._task.done()

    # -- the loop ------------------------------------------------------------------------------------

    async def _run_queue(self) -> None:
        queue = self.queue
        while len(queue):
            group: list[Pending] = []
            try:
                await queue.linger()
                await self._await_turn()
                group = await queue.take()
                if group:
                    with tracing.within(group[0].trace):
                        await self._commit(group)
            except HeadwaterError as error:
                queue.fail(queue.undecided(group), error)
            except Exception as error:
                # A bug of ours, or of what we stand on: whoever waits must hear of it. Nothing says "not applied".
                unforeseen = Indeterminate(f"The commit failed in an unforeseen way: {error!r}")
                queue.fail([*group, *self.follower.abandoned()], unforeseen, error)
            except asyncio.CancelledError:
                for task in self._asked:
                    task.cancel()
                stopping = Indeterminate("The process is stopping; the commit was cut off.")
                queue.fail([*group, *self.follower.abandoned(), *queue.take_all()], stopping)
                raise

    async def _commit(self, group: list[Pending]) -> None:
        """Return when every intent of the group has its outcome."""
        deadline_s = self.chain.clock.elapsed_s() + self.options.commit_timeout_s
        losses = 0
        age_s = self.chain.age_s()
        if self.turns.looks_first(age_s) and await self.chain.step():
            if self.turns.is_outrun(self.chain.ahead, age_s) and self.published.is_recent(self.chain.state.seq):
                await self.follower.follow(group, deadline_s, is_behind=True)
            else:
                await self.chain.refresh()
        while left := self.queue.undecided(group):
            if self.chain.is_stale():
                await self.chain.refresh()
                continue
            if self.turns.direct(losses, self.chain.clock.elapsed_s()):
                self.queue.note_tips(left)
                if await self._race([p.piece for p in left], deadline_s, look=True):
                    continue
                losses += 1
                await self.chain.refresh()
                await self._await_turn()
            else:
                await self.follower.follow(left, deadline_s)

    async def _await_turn(self) -> None:
        """Let those write who come before us, if we take turns with others.

        Requests for their manifests overlap, since one that is late holds up all behind it. Cost: some 4 GETs for each.
        """
        clock, turns, chain = self.chain.clock, self.turns, self.chain
        while (left_s := turns.turn_in_s(now_s := clock.elapsed_s())) > 0:
            seq, pause_s = chain.state.seq, min(left_s, turns.ask_in_s(now_s))
            if pause_s > 0:
                await self._rest(pause_s)
            if chain.state.seq == seq and turns.ask_in_s(now_s := clock.elapsed_s()) <= 0:
                turns.asked(now_s)
                self._ask()

    async def _rest(self, seconds: float) -> None:
        """Let the time pass, or less if a request for the next manifest is answered meanwhile."""
        sleep = asyncio.get_running_loop().create_task(self.chain.clock.sleep(seconds))
        try:
            await asyncio.wait([sleep, *self._asked], return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()

    def _ask(self) -> None:
        """Ask for the next manifest, whatever of that is under way; who commits hears of it if that fails."""
        if len(self._asked) < ASKED_MAX:
            task: asyncio.Task[None] = asyncio.get_running_loop().create_task(self._step())
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)
            task.add_done_callback(unheard)

    async def _step(self) -> None:
        start_s = self.chain.clock.elapsed_s()
        if await self.chain.step():
            self.turns.took.note("get", self.chain.clock.elapsed_s() - start_s)

    async def _race(self, pieces: Sequence[Piece], deadline_s: float, *, look: bool, own: Sequence[Group] = ()) -> bool:
        """PUT the next manifest with ``pieces``, ``own`` segments and all that others are known to wait for.

        Whether it was ours.
        """
        clock, turns = self.chain.clock, self.turns
        if self._looking is not None and not self._looking.done():
            await asyncio.wait([self._looking], timeout=turns.patience_s(clock.elapsed_s()))
        draft = Draft(pieces=pieces, merged=self.published.mergeable(own))
        is_looking = self._looking is not None and not self._looking.done()
        if look and not is_looking and (reason := self.published.reason_to_look()):
            self._looking = asyncio.get_running_loop().create_task(self.published.look_beside_put(reason))
        start = clock.elapsed_s()
        won = await self.journal.put_next(draft, deadline_s=deadline_s)
        if won:
            turns.took.note("put", clock.elapsed_s() - start)
        return won

    async def _take_turn(self, own: Sequence[Group], deadline_s: float) -> None:
        """Nobody names what we have published, so we do, and with it what others wait for."""
        if not (self.turns.unaware() or self.turns.leads or self.turns.is_next):
            await self.published.look()
        await self._race((), deadline_s, look=False, own=own)

    # -- listening to the chain ------------------------------------------------------------------------

    def _folded(self, manifest: Manifest, outcomes: list[Outcome]) -> None:
        own = self.queue.folded(manifest, outcomes)
        self.published.folded(manifest)
        # A skewed clock costs us no more than a worse guess.
        age_s = max(0.0, (self.chain.clock.wall_ms() - manifest.time) / 1_000)
        seen = Seen(
            writer=manifest.writer,
            shares=shares(manifest),
            intents=len(manifest.intents),
            others=len(manifest.intents) - own,
            age_s=age_s,
        )
        self.turns.saw_manifest(seen, self.chain.clock.elapsed_s())
