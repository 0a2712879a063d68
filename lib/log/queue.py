"""What the callers of one process want committed, in the order of their calls, until each outcome is known.

Who commits takes a group from the front, makes sure of it by whatever way (``committer``, ``following``), and hears of
outcomes by the fold.
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
from headwater.log.chain import Chain
from headwater.log.company import Company
from headwater.log.intents import Manifest
from headwater.log.payload import Piece
from headwater.log.state import Outcome, once
from headwater.log.state.fold import LATE, VOID
from headwater.log.together import unheard

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


class Queue:
    """Intents in the order of their calls, and what is known of those that were taken."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.options = chain.options
        self.company = Company(self.options.linger_ms / 1_000)
        self.waits: Callable[[asyncio.Future[Piece]], object] = _nothing  # told of the next intent, if it is not ready
        self._line: deque[Pending] = deque()
        self._nbytes = 0
        self._inline_bytes = 0  # of those, what is to ride in a manifest
        self._came = asyncio.Event()
        self._unanswered: dict[str, Pending] = {}  # by the intent's id, those that were taken included

    def __len__(self) -> int:
        """How many have not been taken yet."""
        return len(self._line)

    def add(
        self, piece: Piece, ready: asyncio.Future[Piece] | None, caller: Hashable, told: Told | None
    ) -> asyncio.Future[Outcome]:
        """The future of the intent's outcome; it stands in the queue, unless it is under way already."""
        known = self._unanswered.get(piece.intent.id)
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
        self._unanswered[piece.intent.id] = pending
        self._line.append(pending)
        self._nbytes += pending.nbytes
        self._inline_bytes += piece.size
        self._came.set()
        return pending.outcome

    def has_room_inline(self, nbytes: int) -> bool:
        """Whether the manifest that is next may carry so many bytes more."""
        return self._inline_bytes + nbytes <= self.options.inline_bytes_max

    # -- from the front ------------------------------------------------------------------------------

    async def linger(self) -> None:
        """Wait until the oldest intent is ``linger_ms`` old, a segment is full, or there is nobody to wait for.

        Much of that passes while the last PUT is on its way.
        """
        if self.options.linger_ms <= 0:
            return
        end_s = self._line[0].since_s + self.options.linger_ms / 1_000
        while self._nbytes < self.options.segment_bytes_target:
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

    async def take(self) -> list[Pending]:
        """The next intents that fit one manifest, in the order of their calls; uploads still running end the group."""
        group: list[Pending] = []
        size = 0
        while self._line and len(group) < MANIFEST_INTENTS_MAX // 2:
            head = self._line[0]
            if head.ready is not None:
                if not head.ready.done():
                    if group:
                        break
                    self.waits(head.ready)
                try:
                    head.piece = head.ready.result() if head.ready.done() else await head.ready
                except HeadwaterError as error:
                    self._pop()
                    self.fail([head], error)
                    continue
                head.ready = None
            cost = head.piece.size + head.piece.header_bytes
            if group and size + cost > max(self.options.inline_bytes_max, INLINE_BYTES_MAX):
                break
            group.append(self._pop())
            size += cost
        return group

    def take_all(self) -> list[Pending]:
        """Whatever waits, ready or not: for who gives up."""
        return [self._pop() for _ in range(len(self._line))]

    def _pop(self) -> Pending:
        first = self._line.popleft()
        self._nbytes -= first.nbytes
        self._inline_bytes -= first.piece.size
        return first

    # -- what became of them -------------------------------------------------------------------------

    def note_tips(self, group: Sequence[Pending]) -> None:
        """The group is about to be sent: under which tip."""
        for pending in group:
            pending.tip = self.chain.state.seq if pending.piece.tip is None else pending.piece.tip
            pending.loads = self.chain.loads

    def undecided(self, group: Sequence[Pending]) -> list[Pending]:
        """Those of the group that are certainly not committed yet; the others hear what became of them."""
        left = []
        for pending in group:
            if pending.outcome.done():
                continue
            known = self._outcome(pending)
            if known is None:
                left.append(pending)
            elif known.error == LATE:
                self.fail([pending], Indeterminate(known.message))
            else:
                self._resolve(pending, known)
        return left

    def folded(self, manifest: Manifest, outcomes: list[Outcome]) -> int:
        """A manifest was folded: those it decides hear of it. How many of its intents were ours."""
        own = 0
        for intent, outcome in zip(manifest.intents, outcomes, strict=True):
            pending = self._unanswered.get(intent.id)
            if pending is None:
                continue
            own += 1
            if outcome.error not in VOID:
                self._resolve(pending, outcome)
        return own

    def fail(self, group: Sequence[Pending], error: HeadwaterError, cause: BaseException | None = None) -> None:
        """Tell the group's callers of an error: that nobody knows what became of it, where that is so."""
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

    def _resolve(self, pending: Pending, outcome: Outcome) -> None:
        self._forget(pending)
        if not pending.outcome.done():
            pending.outcome.set_result(outcome)
            if pending.told is not None:
                pending.told(outcome)

    def _forget(self, pending: Pending) -> None:
        """It waits no more."""
        known = self._unanswered.pop(pending.piece.intent.id, None)
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
