"""Locks on the records of one share-partition, as the process sees them that hands these records out. Pure.

                 acquire (count + 1)           accept, reject, gap
    available ──────────────────────► acquired ───────────────────► leaving ──confirm──► gone
        ▲                               │  │ release                   │
        │                               │  └──────► leaving ──confirm──┤ (delivered too often: gone, else available)
        ├── the lock's time is up ──────┤                              │
        ├── the session ends (count-1) ─┘                              └── the commit failed: the holder forgets it all
        └── … and delivered too often ─► spent: gone with the next commit

What a consumer says of a record counts once the log has it, so a record is *leaving* until then: nobody gets it, and
nobody may say something else of it. The times are those of the caller's clock, in seconds; nothing is timed in here.
Offsets come in by ``gain``, and only this process hands out these (``log.state.shares``).
Source: KIP-932 (record states), KIP-1222 (renewal), Kafka's SharePartition.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from headwater.errors import Conflict
from headwater.log.operations_shares import ShareMark

GAP, ACCEPT, RELEASE, REJECT, RENEW = range(5)  # what a consumer says of a record, in Kafka's numbers
TYPES: Final = (GAP, ACCEPT, RELEASE, REJECT, RENEW)


class NotAcquired(Conflict):
    """Who acknowledges a record does not hold it: the lock's time was up, or somebody has acknowledged it already."""

    what_now = "Go on with other records: these are delivered again, or were acknowledged before."


class State(Enum):
    """Where a record stands."""

    AVAILABLE = "available"
    ACQUIRED = "acquired"
    LEAVING = "leaving"
    SPENT = "spent"


@dataclass(frozen=True, slots=True)
class Run:
    """Offsets ``[base, end)`` that stand alike. ``stored`` is the count that the log knows of."""

    base: int
    end: int
    claim: int
    count: int
    stored: int
    state: State = State.AVAILABLE
    member: str = ""
    until_s: float = 0.0
    turn: int = 0  # of a leaving one: the parting that it leaves by


@dataclass(frozen=True, slots=True)
class Acquired:
    """Offsets ``[base, end)`` that a member was given, for the ``count``-th time."""

    base: int
    end: int
    count: int


@dataclass(frozen=True, slots=True)
class Said:
    """What a member says of the offsets ``[base, end)``."""

    base: int
    end: int
    type: int


@dataclass(frozen=True, slots=True)
class Parting:
    """What the log is to know. ``turn`` tells it from others that are on their way."""

    turn: int
    marks: list[ShareMark]


class SharePartition:
    """The runs of offsets that this process hands out, of which no two overlap, in order."""

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self._turn = 0

    # -- what there is -----------------------------------------------------------------------------------

    @property
    def runs(self) -> Sequence[Run]:
        """All runs, in order."""
        return self._runs

    @property
    def claims(self) -> set[int]:
        """The claims under which it holds anything."""
        return {run.claim for run in self._runs}

    def available(self, base: int = 0) -> Run | None:
        """The first run at or after ``base`` that may be acquired."""
        for run in self._runs[max(bisect_right(self._runs, base, key=_base) - 1, 0) :]:
            if run.state is State.AVAILABLE and run.end > base:
                return run if run.base >= base else replace(run, base=base)
        return None

    def is_locked(self) -> bool:
        """Whether a member holds a record, or one is leaving."""
        return any(run.state in (State.ACQUIRED, State.LEAVING) for run in self._runs)

    # -- what happens ------------------------------------------------------------------------------------

    def gain(self, base: int, end: int, *, count: int, claim: int) -> None:
        """These offsets are this process's to hand out."""
        at = bisect_right(self._runs, base, key=_base)
        assert not at or self._runs[at - 1].end <= base
        assert at == len(self._runs) or end <= self._runs[at].base
        self._runs.insert(at, Run(base, end, claim, count, count))

    def acquire(self, member: str, base: int, end: int, *, until_s: float) -> list[Acquired]:
        """Lock what is available in ``[base, end)`` for a member, until then."""
        found: list[Acquired] = []

        def lock(run: Run) -> Run:
            if run.state is not State.AVAILABLE:
                return run
            found.append(Acquired(run.base, run.end, run.count + 1))
            return replace(run, state=State.ACQUIRED, count=run.count + 1, member=member, until_s=until_s)

        self._change(base, end, lock)
        return found

    def acknowledge(self, member: str, said: Sequence[Said], *, until_s: float, limit: int) -> Parting:
        """What a member says of records: what the log is to know of it, to be told to ``confirm`` when it does.

        Renewals take effect at once. A released record that was delivered ``limit`` times is done.

        Raises:
            NotAcquired: the member does not hold one of them, or says two things of it. Nothing is changed.
        """
        self._check_held(member, said)
        parting = self._parting()
        for each in said:
            if each.type == RENEW:
                self._change(each.base, each.end, lambda run: replace(run, until_s=until_s))
            else:
                self._change(each.base, each.end, self._leaves(parting, each.type == RELEASE, limit))
        return _tidied(parting)

    def confirm(self, parting: Parting) -> None:
        """The log knows of this. What is done or given back is gone from here; the rest is available again."""
        for mark in parting.marks:

            def settle(run: Run, mark: ShareMark = mark) -> Run | None:
                if run.claim != mark.claim:
                    return run
                if run.state is State.LEAVING and run.turn == parting.turn:
                    if mark.count < 0 or mark.free:
                        return None
                    run = replace(run, state=State.AVAILABLE, member="", until_s=0.0, turn=0)
                return replace(run, stored=max(run.stored, mark.count))

            self._change(mark.base, mark.end, settle)

    def expire(self, now_s: float, *, limit: int) -> bool:
        """Whether the time of a lock was up. What was delivered ``limit`` times is spent, the rest available."""
        late = [run for run in self._runs if run.state is State.ACQUIRED and run.until_s <= now_s]
        for run in late:
            becomes = State.SPENT if run.count >= limit else State.AVAILABLE
            self._put(replace(run, state=becomes, member="", until_s=0.0))
        return bool(late)

    def release(self, member: str) -> bool:
        """The member's session is over: what it holds is available, and was not delivered. Whether it held any."""
        held = [run for run in self._runs if run.state is State.ACQUIRED and run.member == member]
        for run in held:
            self._put(replace(run, state=State.AVAILABLE, count=run.count - 1, member="", until_s=0.0))
        return bool(held)

    def spend(self, base: int, end: int) -> None:
        """There are no records in ``[base, end)``, or none any more: what is available of it is done with."""
        self._change(base, end, lambda run: replace(run, state=State.SPENT) if run.state is State.AVAILABLE else run)

    # -- what the log should know ------------------------------------------------------------------------

    def unsaid(self) -> Parting:
        """What time has done, for the next commit: spent runs, which leave by it, and deliveries that count."""
        parting = self._parting()
        for run in list(self._runs):
            if run.state is State.SPENT:
                self._change(run.base, run.end, self._leaves(parting, False, 0))
            elif run.state is State.AVAILABLE and run.count > run.stored:
                parting.marks.append(ShareMark(run.base, run.end, run.claim, run.count))
        return _tidied(parting)

    def spare(self) -> Parting:
        """What nobody holds, to be given back: it leaves by this."""
        parting = self._parting()
        for run in list(self._runs):
            if run.state is State.AVAILABLE:
                parting.marks.append(ShareMark(run.base, run.end, run.claim, run.count, free=True))
                self._put(replace(run, state=State.LEAVING, turn=parting.turn))
        return _tidied(parting)

    # -- the parts ---------------------------------------------------------------------------------------

    def _parting(self) -> Parting:
        self._turn += 1
        return Parting(self._turn, [])

    @staticmethod
    def _leaves(parting: Parting, again: bool, limit: int) -> Callable[[Run], Run]:
        def leave(run: Run) -> Run:
            count = run.count if again and run.count < limit else -1
            parting.marks.append(ShareMark(run.base, run.end, run.claim, count))
            return replace(run, state=State.LEAVING, turn=parting.turn)

        return leave

    def _check_held(self, member: str, said: Sequence[Said]) -> None:
        last = -1
        for each in sorted(said, key=lambda each: each.base):
            if each.base < last:
                raise NotAcquired(f"Two things are said of offset {each.base}.")
            last, position = each.end, each.base
            for run in self._runs[max(bisect_right(self._runs, each.base, key=_base) - 1, 0) :]:
                if run.base > position or position >= each.end:
                    break
                if run.end <= position:
                    continue
                if run.state is not State.ACQUIRED or run.member != member:
                    break
                position = run.end
            if position < each.end:
                raise NotAcquired(f"Offset {position} is not acquired by member {member!r}.")

    def _put(self, run: Run) -> None:
        """This run in the place of those that hold its offsets, which stand alike."""
        self._change(run.base, run.end, lambda known: replace(run, base=known.base, end=known.end))

    def _change(self, base: int, end: int, becomes: Callable[[Run], Run | None]) -> None:
        """Put what ``becomes`` says in the place of the runs in ``[base, end)``; None takes one away."""
        runs = self._runs
        first = max(bisect_right(runs, base, key=_base) - 1, 0)
        while first < len(runs) and runs[first].end <= base:
            first += 1
        last, middle = first, list[Run]()
        while last < len(runs) and runs[last].base < end:
            run = runs[last]
            last += 1
            if run.base < base:
                middle.append(replace(run, end=base))
            inside = becomes(replace(run, base=max(run.base, base), end=min(run.end, end)))
            if inside is not None:
                middle.append(inside)
            if run.end > end:
                middle.append(replace(run, base=end))
        # One more on either side, so that neighbours that have come to stand alike become one again.
        before, behind = runs[max(first - 1, 0) : first], runs[last : last + 1]
        runs[first - len(before) : last + len(behind)] = _merged([*before, *middle, *behind])


def _merged(runs: Iterable[Run]) -> list[Run]:
    found: list[Run] = []
    for run in runs:
        if found and found[-1].end == run.base and replace(found[-1], base=run.base, end=run.end) == run:
            found[-1] = replace(found[-1], end=run.end)
        else:
            found.append(run)
    return found


def _tidied(parting: Parting) -> Parting:
    """With neighbouring marks that say the same made one."""
    found: list[ShareMark] = []
    for mark in sorted(parting.marks, key=lambda mark: mark.base):
        last = found[-1] if found else None
        if last and (last.end, last.claim, last.count, last.free) == (mark.base, mark.claim, mark.count, mark.free):
            found[-1] = ShareMark(last.base, mark.end, mark.claim, mark.count, mark.free)
        else:
            found.append(mark)
    return Parting(parting.turn, found)


def _base(run: Run) -> int:
    return run.base
