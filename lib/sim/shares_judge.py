"""Who judges a share group: what every consumer was given and told, against what KIP-932 promises.

redelivered   a record came again after its acknowledgement was confirmed
two-holders   two processes that live and may trust their claims both hand out one offset
too-often     a record was delivered more often than the group's limit
backwards     the start of a share-partition moved back, or the fold holds spans that do not meet
undelivered   a record was never delivered, and retention did not take it
unfinished    something is neither accepted nor archived at the end
unconfirmed   what was confirmed is not done at the end
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

from headwater.groups.share_partition import ACCEPT, REJECT, State
from headwater.groups.shares import Place, Shares
from headwater.log.state import Partition, Share
from headwater.sim.checker import Violation
from headwater.sim.faults import Process

WORDS = {0: "gap", 1: "accepted", 2: "released", 3: "rejected", 4: "renewed"}


class Judge:
    """Hears of everything at the moment at which it happens, and of every process what it believes to hold."""

    def __init__(self, now_s: Callable[[], float], limit: int) -> None:
        self.violations: list[Violation] = []
        self.deeds: Counter[str] = Counter()
        self.events = 0
        self._now_s = now_s
        self._limit = limit
        self._done: dict[Place, set[int]] = {}
        self._seen: dict[Place, set[int]] = {}
        self._starts: dict[tuple[str, Place], int] = {}
        self._open: dict[str, tuple[Process, Shares]] = {}
        self._digest = hashlib.sha256()

    def opened(self, process: Process, shares: Shares) -> None:
        """A process begins to hand out records."""
        self._open[process.name] = (process, shares)

    def closed(self, process: Process) -> None:
        """It has given everything back."""
        self.deeds["closed"] += 1
        self._open.pop(process.name, None)

    def delivered(self, process: Process, place: Place, base: int, end: int, count: int) -> None:
        """A consumer of that process was given these offsets."""
        self._note(f"{process.name} {place[2]} {base} {end} {count}")
        self.deeds["delivered" if count == 1 else "delivered again"] += 1
        again = self._done.setdefault(place, set()).intersection(range(base, end))
        if again:
            self._found("redelivered", place, f"{process.name} hands out {min(again)}, which is done")
        if count > self._limit:
            self._found("too-often", place, f"{base} to {end - 1} are delivered for the {count}th time")
        self._seen.setdefault(place, set()).update(range(base, end))
        for name, (other, shares) in self._open.items():
            if name != process.name and other.alive and _holds(shares, place, base, end):
                self._found("two-holders", place, f"{name} holds {base} to {end - 1}, and {process.name} hands it out")
        self._look(process.name, place)

    def said(self, place: Place, base: int, end: int, kind: int) -> None:
        """A consumer's word about these offsets was confirmed."""
        self._note(f"{place[2]} {base} {end} {WORDS[kind]}")
        self.deeds[WORDS[kind]] += 1
        if kind in (ACCEPT, REJECT):
            self._done.setdefault(place, set()).update(range(base, end))

    def ended(self, place: Place, share: Share | None, partition: Partition) -> None:
        """How a share-partition is when all is over."""
        start = share.start if share is not None else 0
        if start < partition.next:
            self._found("unfinished", place, f"it ends at {partition.next}, and the group at {start}: {share}")
        missed = set(range(partition.start, partition.next)) - self._seen.get(place, set())
        if missed:
            self._found("undelivered", place, f"nobody was ever given {min(missed)}, of {len(missed)} like it")
        lost = {offset for offset in self._done.get(place, ()) if offset >= start}
        if share is not None:
            done = {o for span in share.spans if span.is_done for o in range(span.base, span.end)}
            lost -= done
        if lost:
            self._found("unconfirmed", place, f"{min(lost)} was confirmed, and is not done")

    def digest(self) -> str:
        """Equal for equal histories."""
        return self._digest.hexdigest()

    def _look(self, name: str, place: Place) -> None:
        _, shares = self._open[name]
        share = shares.namespace.state.groups[place[0]].shares[place[1]][place[2]]
        meets = [share.start, *(span.end for span in share.spans)] == [*(s.base for s in share.spans), share.next]
        if not meets or share.start < self._starts.get((name, place), 0):
            self._found("backwards", place, f"{name} sees {share}")
        self._starts[name, place] = share.start

    def _note(self, line: str) -> None:
        self.events += 1
        self._digest.update(f"{self._now_s():.6f} {line}\n".encode())

    def _found(self, kind: str, place: Place, what: str) -> None:
        if len(self.violations) < 20:
            self.violations.append(Violation(kind, f"Partition {place[2]} at {self._now_s():.2f} s: {what}."))


def _holds(shares: Shares, place: Place, base: int, end: int) -> bool:
    """Whether a process would hand out, or take an acknowledgement of, one of these offsets if it were asked now."""
    if not shares.is_leased or place not in shares._held:
        return False
    runs = (run for run in shares._held[place].locks.runs if run.state is not State.LEAVING)  # its answer may be late
    return any(run.base < end and run.end > base for run in runs)
