"""What the clients saw: calls, their answers, and what the world did to the processes.

A call is open from its ``invoke`` until it ends in ``ok``, ``fail`` (certainly not applied) or
``unknown``; a call that never ends is unknown. **A call stays open over its retries**: a world that
retries with the same identity ends the call once, with the last word. Order is the order of recording,
which is exact, since one loop runs everything; ``at_s`` is only for the reader of a report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import orjson

TP: TypeAlias = tuple[str, int]  # topic, partition
Sends: TypeAlias = tuple[tuple[TP, tuple[str, ...]], ...]  # record uids for each partition, in order
Offsets: TypeAlias = tuple[tuple[TP, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Records sent to one or more partitions at once. Answer: the base offset of each send (``Bases``).

    ``idempotent`` promises that no uid is stored twice, and that one producer's uids are in order.
    """

    producer: str
    sends: Sends
    epoch: int = 0
    idempotent: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction(Append):
    """Appends and group offsets that become true together. ``fail`` means aborted, by whomever."""

    group: str = ""
    offsets: Offsets = ()
    owner: str = ""
    generation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One poll of one partition from ``start``. ``seek`` says that the reader chose the place anew. Answer: ``Got``."""

    reader: str
    tp: TP
    start: int
    seek: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """What a read returned, where the reader goes on, and whether it says that nothing more is there now.

    ``to_end`` is held against every append that was acknowledged before the read began; a reader that
    stopped at an open reservation did not reach the end.
    """

    records: tuple[tuple[int, str], ...]
    next: int
    to_end: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetCommit:
    """A group's offsets, committed by ``owner``. Commits with a ``generation`` are fenced by it.

    ``each``: not the whole group but each partition is fenced, by the generation since which ``owner`` owns it.
    """

    group: str
    offsets: Offsets
    owner: str = ""
    generation: int | None = None
    each: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetFetch:
    """A question for a group's committed offset. Answer: the offset, or ``None``."""

    group: str
    tp: TP


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A heartbeat of a group's member, known as ``owner`` in all its lives. Answer: ``Told``."""

    group: str
    member: str
    owner: str
    joining: bool = False
    released: tuple[TP, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a member holds, with the generation since which it owns it; ``revoke`` until it has released it."""

    generation: int
    owned: Offsets
    revoke: Offsets = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that happened to a process: ``crash``, ``pause``, ``jump``, ``restart``, …"""

    what: str
    detail: str = ""


What: TypeAlias = Append | Transaction | Read | OffsetCommit | OffsetFetch | Beat | Note
Bases: TypeAlias = tuple[int | None, ...]
Answer: TypeAlias = Bases | Got | Told | int | str | None


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the history. ``call`` pairs an invoke with its end; it is the invoke's ``seq``."""

    seq: int
    at_s: float
    process: str
    kind: Literal["invoke", "ok", "fail", "unknown", "note"]
    call: int
    what: What | None = None  # of an invoke or a note
    answer: Answer = None  # of an ok; of a fail or unknown the error's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Offsets ``[start, end)`` that may lawfully be missing: a reservation that was aborted."""

    tp: TP
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A read-process-write loop: for each input uid exactly one output ``prefix + uid`` in some output partition."""

    group: str
    inputs: tuple[TP, ...]
    outputs: tuple[TP, ...]
    prefix: str = "f:"


class History:
    """An append-only list of events, with the declarations that a checker needs to judge them.

    ``now`` gives the virtual time: ``loop.time``.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.events: list[Event] = []
        self.gaps: list[Gap] = []
        self.pipelines: list[Pipeline] = []
        self._now = now
        self._open: dict[int, str] = {}

    def invoke(self, process: str, what: What) -> int:
        """A call begins. Returns its number, for ``ok``, ``fail`` or ``unknown``."""
        seq = len(self.events)
        self.events.append(Event(seq, self._now(), process, "invoke", seq, what))
        self._open[seq] = process
        return seq

    def append(
        self, process: str, producer: str, tp: TP, uids: Iterable[str], *, epoch: int = 0, idempotent: bool = True
    ) -> int:
        """``invoke`` for the common case: records for one partition."""
        sends = ((tp, tuple(uids)),)
        return self.invoke(process, Append(producer=producer, sends=sends, epoch=epoch, idempotent=idempotent))

    def ok(self, call: int, answer: Answer = None) -> None:
        """It was done, and this is the answer: ``Bases`` or one base offset, ``Got``, or an offset."""
        self._end(call, "ok", (answer,) if isinstance(answer, int) and self._sends(call) else answer)

    def fail(self, call: int, error: str = "") -> None:
        """It was certainly not done, and never will be; ``error`` is the error's class name (``Fenced``)."""
        self._end(call, "fail", error)

    def unknown(self, call: int, error: str = "") -> None:
        """Nobody knows whether it was or will be done."""
        self._end(call, "unknown", error)

    def note(self, process: str, what: str, detail: str = "") -> None:
        """Something happened to a process."""
        seq = len(self.events)
        self.events.append(Event(seq, self._now(), process, "note", seq, Note(what=what, detail=detail)))

    def crash(self, process: str) -> None:
        """The process died; its open calls end as unknown."""
        self.note(process, "crash")
        for call in [call for call, owner in self._open.items() if owner == process]:
            self.unknown(call, "crash")

    def declare(self, lawful: Gap | Pipeline) -> None:
        """Tell the checker about a lawful gap, or about a pipeline that it shall judge."""
        if isinstance(lawful, Gap):
            self.gaps.append(lawful)
        else:
            self.pipelines.append(lawful)

    def digest(self) -> str:
        """A hash of everything above: the same seed must give the same digest, in any process."""
        plain = orjson.dumps([self.events, self.gaps, self.pipelines])
        return hashlib.sha256(plain).hexdigest()

    def _sends(self, call: int) -> bool:
        return isinstance(self.events[call].what, Append)

    def _end(self, call: int, kind: Literal["ok", "fail", "unknown"], answer: Answer) -> None:
        """End a call; a second end is ignored only after a crash, when a dying task may still report."""
        process = self._open.pop(call, None)
        if process is None:
            assert any(e.call == call and e.answer == "crash" for e in self.events[call:]), "a call ends once"
            return
        self.events.append(Event(len(self.events), self._now(), process, kind, call, None, answer))
