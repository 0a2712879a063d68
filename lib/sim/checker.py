"""Judge a history against the promises of DESIGN section 1, knowing nothing of how they are kept.

The input is what clients saw, and one full read of everything by a fresh reader at the end. Each rule
below is a function from the facts to the violations that it found; ``KINDS`` lists what they can say.
A rule never guesses: where a call is unknown and the evidence fits both outcomes, it is silent.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from headwater.sim.checker_groups import GROUP_KINDS, Club, assembled, ownership
from headwater.sim.history import TP, Append, Event, Got, History, OffsetCommit, OffsetFetch, Read, Transaction

Place: TypeAlias = tuple[TP, int]

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "lost": "an acknowledged record is not in the log",
        "misplaced": "an acknowledged record is not where the answer said",
        "duplicate": "a record of an idempotent append is at two places",
        "invented": "a record that nobody sent, or that was read before it was sent",
        "failed-visible": "a record of an append that certainly failed is in the log",
        "aborted-visible": "a record of an aborted transaction is in the log",
        "aborted-read": "a reader saw a record of an aborted transaction or failed append",
        "torn": "a transaction is visible in part, or its records and its group offsets disagree",
        "gap": "offsets are not dense, or not rising",
        "disorder": "one producer's records are not in the order in which it sent them",
        "zombie-append": "an older epoch of a producer wrote after a newer one",
        "zombie-commit": "an older generation of a group committed after a newer one",
        "disagreement": "two reads saw different records at one offset",
        "vanished": "a record that was read is gone from its offset",
        "went-back": "a reader met an offset twice without seeking",
        "skipped": "a reader passed over a record",
        "stale": "a read to the end missed what was acknowledged or read before it began",
        "offset-lost": "a committed group offset was overwritten by nothing, or by something older",
        "offset-invented": "a group offset that nobody committed",
        "offset-regress": "a group offset went back although nobody committed backwards",
        "fenced-offset": "a group offset comes from a commit that was refused, or had to be",
        **GROUP_KINDS,
        "pipeline-missing": "a consumed input has no output",
        "pipeline-duplicate": "a consumed input has several outputs",
        "pipeline-early": "an input has an output although its offset is not committed",
        "pipeline-orphan": "an output of an input that does not exist",
    }
)


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise: its kind (of ``KINDS``), a sentence, and the events that show it."""

    kind: str
    detail: str
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The end: all records of every partition, the groups' offsets (``None``: not asked for), and their members.

    Records below ``log_start`` were lawfully deleted, and are not missed.
    """

    records: Mapping[TP, Sequence[tuple[int, str]]]
    offsets: Mapping[tuple[str, TP], int] | None = None
    log_start: Mapping[TP, int] = field(default_factory=dict)
    clubs: Mapping[str, Club] = field(default_factory=dict)


def check(history: History, final: Final) -> list[Violation]:
    """Every broken promise that the history shows; an empty list is a clean run. Pure, and about linear."""
    facts = _Facts(history, final)
    return [violation for rule in RULES for violation in rule(facts)]


class _Call:
    """An invoke with its end, and (once somebody asked) whether it took effect."""

    __slots__ = ("end", "invoke", "status", "what")

    def __init__(self, invoke: Event) -> None:
        self.invoke = invoke
        self.what = invoke.what
        self.end: Event | None = None
        self.status = "unknown"

    @property
    def events(self) -> tuple[Event, ...]:
        return (self.invoke,) if self.end is None else (self.invoke, self.end)

    @property
    def ended(self) -> float:
        """When it was over: an unknown call may take effect at any later time."""
        return math.inf if self.end is None or self.status == "unknown" else self.end.seq

    def base(self, n: int) -> int | None:
        """The answered base offset of its send ``n``."""
        answer = self.end.answer if self.end is not None and self.status == "ok" else None
        return answer[n] if isinstance(answer, tuple) and n < len(answer) else None


class _Facts:
    """The history and the final read, indexed once for all rules."""

    def __init__(self, history: History, final: Final) -> None:
        self.history = history
        self.final = final
        self.calls: dict[int, _Call] = {}
        self.senders: dict[str, list[_Call]] = {}
        self.stored: dict[str, list[Place]] = {}
        self.seen: dict[str, dict[Place, Event | None]] = {}  # first seen by; None: by the final read only
        self.at: dict[Place, dict[str, Event | None]] = {}
        self.offsets = {tp: sorted(offset for offset, _ in records) for tp, records in final.records.items()}
        for event in history.events:
            self._take(event)
        for tp, records in final.records.items():  # last, so that the first reader of a record is remembered
            for offset, uid in records:
                self.stored.setdefault(uid, []).append((tp, offset))
                self._see((tp, offset), uid, None)
        self.writes = [(call, call.what) for call in self.calls.values() if isinstance(call.what, Append)]
        self.reads = [
            (call.end, call.what, call.end.answer, call)
            for call in self.calls.values()
            if isinstance(call.what, Read) and call.end is not None and isinstance(call.end.answer, Got)
        ]

    def _take(self, event: Event) -> None:
        if event.kind == "invoke":
            call = self.calls[event.seq] = _Call(event)
            if isinstance(call.what, Append):
                for _, uids in call.what.sends:
                    for uid in uids:
                        self.senders.setdefault(uid, []).append(call)
        elif event.kind != "note":
            call = self.calls[event.call]
            call.end, call.status = event, event.kind
            if isinstance(call.what, Read) and isinstance(event.answer, Got):
                for offset, uid in event.answer.records:
                    self._see((call.what.tp, offset), uid, event)

    def _see(self, place: Place, uid: str, by: Event | None) -> None:
        self.seen.setdefault(uid, {}).setdefault(place, by)
        self.at.setdefault(place, {}).setdefault(uid, by)

    def start(self, tp: TP) -> int:
        return self.final.log_start.get(tp, 0)

    def first_between(self, tp: TP, start: int, end: int) -> int | None:
        """The first offset of the final read in ``[start, end)``."""
        offsets = self.offsets.get(tp, [])
        i = bisect_left(offsets, start)
        return offsets[i] if i < len(offsets) and offsets[i] < end else None

    def shows(self, call: _Call, tp: TP, uid: str) -> bool | None:
        """Whether ``uid`` proves that ``call`` took effect (or did not); ``None`` if it proves nothing."""
        if uid not in self.seen:
            return None if self.start(tp) else False
        others = {other.status for other in self.senders[uid] if other is not call}
        # A uid is stored once at most, so what an acknowledged call stored was not stored by this one.
        return False if "ok" in others else None if "unknown" in others else True

    def stored_by(self, uid: str) -> _Call | None:
        """The call that stored a record which several may have sent; ``None`` if nobody can tell."""
        senders = self.senders[uid]
        if len(senders) == 1:
            return senders[0]
        for statuses in (("ok",), ("unknown", "open")):
            found = [call for call in senders if call.status in statuses]
            if found:
                # Of several that succeeded, the later ones repeated the first (P4).
                return found[0] if len(found) == 1 or "ok" in statuses else None
        return senders[0]

    def applied(self, call: _Call) -> bool | None:
        """Whether a call took effect; ``None`` if nobody can tell."""
        if call.status != "unknown" or not isinstance(call.what, Append):
            return {"ok": True, "fail": False}.get(call.status)
        proofs = {self.shows(call, tp, uid) for tp, uids in call.what.sends for uid in uids} - {None}
        return True in proofs if proofs else None


# -- records ------------------------------------------------------------------------------------------


def _acknowledged(facts: _Facts) -> Iterator[Violation]:
    for call, what in facts.writes:
        if call.status != "ok":
            continue
        lost, kept = [], False
        for n, (tp, uids) in enumerate(what.sends):
            base = call.base(n)
            for i, uid in enumerate(uids):
                places = facts.stored.get(uid, [])
                if not places and facts.start(tp) > (0 if base is None else base + i):
                    continue  # lawfully deleted, or perhaps so
                kept = kept or bool(places)
                if not places:
                    lost.append(uid)
                elif base is not None and (tp, base + i) not in places:
                    detail = f"{uid} was acknowledged at {tp} offset {base + i} and is at {places}"
                    yield Violation("misplaced", detail, call.events)
        if lost:
            kind = "torn" if kept and isinstance(what, Transaction) else "lost"
            yield Violation(kind, f"acknowledged and not in the log: {lost}", call.events)


def _once(facts: _Facts) -> Iterator[Violation]:
    for uid, places in facts.seen.items():
        senders = facts.senders.get(uid, [])
        again = len(facts.stored.get(uid, ())) > 1 or len(places) > 1
        if again and any(isinstance(c.what, Append) and c.what.idempotent for c in senders):
            events = tuple(e for c in senders for e in c.events) + tuple(e for e in places.values() if e)
            yield Violation("duplicate", f"{uid} is at {list(places)}", events)


def _sent(facts: _Facts) -> Iterator[Violation]:
    for uid, places in facts.seen.items():
        first = facts.senders[uid][0].invoke if uid in facts.senders else None
        for place, event in places.items():
            if first is None or (event is not None and event.seq < first.seq):
                yield Violation("invented", f"{uid} at {place} was not sent", (event,) if event else ())


def _refused(facts: _Facts) -> Iterator[Violation]:
    for call, what in facts.writes:
        if call.status != "fail":
            continue
        uids = [uid for _, uids in what.sends for uid in uids if all(c.status == "fail" for c in facts.senders[uid])]
        if stored := [uid for uid in uids if uid in facts.stored]:
            kind = "aborted-visible" if isinstance(what, Transaction) else "failed-visible"
            yield Violation(kind, f"not applied, yet in the log: {stored}", call.events)
        for uid in uids:
            for place, event in facts.seen.get(uid, {}).items():
                if event is not None:
                    yield Violation("aborted-read", f"{uid} was read at {place}", (*call.events, event))


def _atomic(facts: _Facts) -> Iterator[Violation]:
    for call, what in facts.writes:
        if call.status != "unknown" or not isinstance(what, Transaction):
            continue
        shown = {uid: facts.shows(call, tp, uid) for tp, uids in what.sends for uid in uids}
        if {True, False} <= set(shown.values()):
            missing = [uid for uid, visible in shown.items() if visible is False]
            yield Violation("torn", f"a part of the transaction is visible, and {missing} not", call.events)


def _dense(facts: _Facts) -> Iterator[Violation]:
    for tp, records in facts.final.records.items():
        gaps = sorted((gap.start, gap.end) for gap in facts.history.gaps if gap.tp == tp)
        expected = facts.start(tp)
        for offset, uid in records:
            for start, end in gaps:
                if start <= expected < min(end, offset):
                    expected = min(end, offset)
            if offset != expected:
                yield Violation("gap", f"{tp}: {uid} is at offset {offset}, expected was {expected}")
            expected = max(expected, offset + 1)


def _order(facts: _Facts) -> Iterator[Violation]:
    ranks: dict[tuple[TP, str], tuple[Append, _Call, tuple[int, int, int]]] = {}
    for call, what in facts.writes:  # of several sendings of a uid the first one counts
        for i, (tp, uid) in enumerate((tp, uid) for tp, uids in what.sends for uid in uids):
            if facts.stored_by(uid) is call:
                ranks[tp, uid] = (what, call, (what.epoch, call.invoke.seq, i))
    for tp, records in facts.final.records.items():
        last: dict[str, tuple[tuple[int, int, int], str, _Call]] = {}
        for _, uid in records:
            if (tp, uid) not in ranks:
                continue
            what, call, rank = ranks[tp, uid]
            if not what.idempotent:
                continue
            before, earlier, sender = last.get(what.producer, (rank, uid, call))
            if rank < before:
                kind = "zombie-append" if rank[0] < before[0] else "disorder"
                yield Violation(kind, f"{tp}: {uid} is after {earlier}", (*sender.events, *call.events))
            else:
                last[what.producer] = (rank, uid, call)


def _zombies(facts: _Facts) -> Iterator[Violation]:
    newest: dict[str, int] = {}  # by producer ("p:") and group ("g:"), among calls that have succeeded
    known: dict[int, dict[str, int]] = {}  # the same when a call began
    for event in facts.history.events:
        call = facts.calls.get(event.call)
        if call is None:
            continue
        marks = _marks(call)
        if event.kind == "invoke":
            known[event.seq] = {name: newest.get(name, mark) for name, mark in marks.items()}
        elif event.kind == "ok":
            origin = known[_origin(facts, call).invoke.seq]
            for name, mark in marks.items():
                if mark < origin.get(name, mark):
                    kind = "zombie-append" if name.startswith("p:") else "zombie-commit"
                    detail = f"{name[2:]}: {mark} succeeded, begun after {origin[name]} had"
                    yield Violation(kind, detail, call.events)
                newest[name] = max(newest.get(name, mark), mark)


def _marks(call: _Call) -> dict[str, int]:
    """The epoch and the generation under which a call acts."""
    marks = {}
    if isinstance(call.what, Append) and call.what.idempotent:
        marks["p:" + call.what.producer] = call.what.epoch
    if isinstance(call.what, OffsetCommit) and call.what.each:
        return marks  # judged by ``ownership``
    if isinstance(call.what, Transaction | OffsetCommit) and call.what.generation is not None and call.what.offsets:
        marks["g:" + call.what.group] = call.what.generation
    return marks


def _origin(facts: _Facts, call: _Call) -> _Call:
    """The first call that sent the same records: a repeated append is answered as the first one was (P4)."""
    uids = [uid for _, uids in call.what.sends for uid in uids] if isinstance(call.what, Append) else []
    return facts.senders[uids[0]][0] if uids else call


# -- readers ------------------------------------------------------------------------------------------


def _agree(facts: _Facts) -> Iterator[Violation]:
    for (tp, offset), uids in facts.at.items():
        events = tuple(event for event in uids.values() if event)
        if len(uids) > 1:
            yield Violation("disagreement", f"{tp} offset {offset} was {sorted(uids)}", events)
        if offset >= facts.start(tp) and facts.first_between(tp, offset, offset + 1) is None:
            yield Violation("vanished", f"{tp} offset {offset} was {sorted(uids)} and is gone", events)


def _cursors(facts: _Facts) -> Iterator[Violation]:
    positions: dict[tuple[str, TP], int] = {}
    for end, what, got, call in facts.reads:
        steps = [(what.start, what.start)] if not what.seek else []
        steps += [(offset, offset + 1) for offset, _ in got.records] + [(got.next, got.next)]
        position = positions.get((what.reader, what.tp), what.start) if not what.seek else what.start
        for offset, following in steps:
            missed = facts.first_between(what.tp, position, offset)
            if offset < position or missed is not None:
                kind = "went-back" if offset < position else "skipped"
                detail = f"{what.reader} on {what.tp}: at {position}, then {offset}"
                yield Violation(kind, detail, (call.invoke, end))
            position = following
        positions[what.reader, what.tp] = got.next


def _fresh(facts: _Facts) -> Iterator[Violation]:
    reached: dict[TP, int] = {}
    known: dict[int, int] = {}
    for event in facts.history.events:
        call = facts.calls.get(event.call)
        if call is None or not isinstance(call.what, Append | Read):
            continue
        if event.kind == "invoke" and isinstance(call.what, Read):
            known[event.seq] = reached.get(call.what.tp, 0)
        elif event.kind == "ok" and isinstance(call.what, Append):
            for n, (tp, uids) in enumerate(call.what.sends):
                base = call.base(n)
                reached[tp] = max(reached.get(tp, 0), 0 if base is None else base + len(uids))
        elif isinstance(call.what, Read) and isinstance(event.answer, Got):
            if event.answer.to_end and event.answer.next < known[event.call]:
                detail = f"{call.what.reader} ended at {event.answer.next}, and {known[event.call]} was known"
                yield Violation("stale", detail, call.events)
            ends = [offset + 1 for offset, _ in event.answer.records]
            reached[call.what.tp] = max([reached.get(call.what.tp, 0), *ends])


# -- groups and pipelines -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Commit:
    call: _Call
    value: int
    generation: int | None
    applied: bool | None

    @property
    def began(self) -> int:
        return self.call.invoke.seq


def _commits(facts: _Facts) -> dict[tuple[str, TP], list[_Commit]]:
    found: dict[tuple[str, TP], list[_Commit]] = {}
    for call in facts.calls.values():
        what = call.what
        if isinstance(what, Transaction | OffsetCommit):
            for tp, value in what.offsets:
                commit = _Commit(call, value, what.generation, facts.applied(call))
                found.setdefault((what.group, tp), []).append(commit)
    return found


def _offsets(facts: _Facts) -> Iterator[Violation]:
    """Each group offset is a register: a value that is seen was the last one at some moment of the look."""
    commits = _commits(facts)
    fetched: dict[tuple[str, TP], list[_Call]] = {}
    for call in facts.calls.values():
        if isinstance(call.what, OffsetFetch) and call.status == "ok" and call.end is not None:
            fetched.setdefault((call.what.group, call.what.tp), []).append(call)
            answer = call.end.answer
            assert answer is None or isinstance(answer, int), "a fetch answers an offset or None"
            key = call.what.group, call.what.tp
            yield from _explained(key, commits.get(key, []), answer, call.invoke.seq, call.end.seq, call.events)
    for key, calls in fetched.items():
        yield from _monotone(key, commits.get(key, []), calls)
    if facts.final.offsets is not None:
        for key in {**commits, **dict.fromkeys(facts.final.offsets)}:
            yield from _explained(key, commits.get(key, []), facts.final.offsets.get(key), math.inf, math.inf, ())


def _explained(
    key: tuple[str, TP],
    commits: list[_Commit],
    value: int | None,
    began: float,
    ended: float,
    events: tuple[Event, ...],
) -> Iterator[Violation]:
    """A look between ``began`` and ``ended`` saw ``value``: which commit can it come from?"""
    sure = [c for c in commits if c.applied and (c.call.ended < began or began == math.inf)]
    fence = max((c.generation for c in sure if c.generation is not None), default=-1)
    unfenced = [c for c in sure if c.generation is None or c.generation >= fence]
    floor = max(unfenced, key=lambda c: c.began, default=None)
    could = [
        c
        for c in commits
        if c.applied is not False
        and c.began < ended
        and (floor is None or c.call.ended >= floor.began)
        and (c.generation is None or c.generation >= fence)
    ]
    if any(c.value == value for c in could) or (value is None and floor is None):
        return
    sources = [c for c in commits if c.value == value and c.began < ended]
    if any(c.applied is False and isinstance(c.call.what, Transaction) and not _was_fenced(c.call) for c in sources):
        kind = "torn"
    elif any(c.applied is False or (c.generation is not None and c.generation < fence) for c in sources):
        kind = "fenced-offset"
    elif value is not None and not sources:
        kind = "offset-invented"
    else:
        kind = "torn" if floor is not None and isinstance(floor.call.what, Transaction) else "offset-lost"
    last = f"the last sure commit is {floor.value}" if floor else "none is sure"
    sources += [floor] if floor else []
    yield Violation(kind, f"{key}: {value}, and {last}", events + tuple(e for c in sources for e in c.call.events))


def _was_fenced(call: _Call) -> bool:
    return call.end is not None and call.end.answer == "Fenced"


def _monotone(key: tuple[str, TP], commits: list[_Commit], fetches: list[_Call]) -> Iterator[Violation]:
    values = [c.value for c in commits if c.applied is not False]
    if values != sorted(values):
        return  # somebody went back on purpose
    open_values = {c.value for c in commits if c.call.status == "unknown"}
    highest, shown = -1, None
    for call in sorted(fetches, key=lambda c: c.ended):
        answer = call.end.answer if call.end else None
        value = answer if isinstance(answer, int) else -1
        if value < highest and shown is not None and shown.ended < call.invoke.seq and value not in open_values:
            yield Violation("offset-regress", f"{key}: {value} after {highest}", shown.events + call.events)
        if value >= highest:
            highest, shown = value, call


def _groups(facts: _Facts) -> Iterator[Violation]:
    calls = {seq: call.what for seq, call in facts.calls.items()}
    for found in (*ownership(facts.history.events, calls), *assembled(facts.final.clubs)):
        yield Violation(*found)


def _pipelines(facts: _Facts) -> Iterator[Violation]:
    if facts.final.offsets is None:
        return
    for pipeline in facts.history.pipelines:
        inputs = {uid for tp in pipeline.inputs for _, uid in facts.final.records.get(tp, ())}
        for tp in pipeline.inputs:
            done = facts.final.offsets.get((pipeline.group, tp), 0)
            for offset, uid in facts.final.records.get(tp, ()):
                made = sum(place[0] in pipeline.outputs for place in facts.stored.get(pipeline.prefix + uid, ()))
                kind = "pipeline-early" if made and offset >= done else "pipeline-duplicate" if made > 1 else ""
                if not made and offset < done and not any(map(facts.start, pipeline.outputs)):
                    kind = "pipeline-missing"
                if kind:
                    detail = f"{pipeline.group} at {tp} offset {offset} of {done}: {made} outputs of {uid}"
                    yield Violation(kind, detail)
        for tp in pipeline.outputs if not any(map(facts.start, pipeline.inputs)) else ():
            for _, uid in facts.final.records.get(tp, ()):
                if uid.startswith(pipeline.prefix) and uid.removeprefix(pipeline.prefix) not in inputs:
                    yield Violation("pipeline-orphan", f"{uid} in {tp} has no input")


RULES = (
    *(_acknowledged, _once, _sent, _refused, _atomic, _dense, _order, _zombies),
    *(_agree, _cursors, _fresh, _offsets, _groups, _pipelines),
)
