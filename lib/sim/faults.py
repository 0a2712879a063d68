"""A bucket that is right, and the network between it and a process, which is not.

``SimBucket`` is strongly consistent: each request takes effect at one instant of virtual time.
``SimStore`` is one process's way to it. A request travels there, is applied, and its answer travels
back, and on each leg a fault may strike:

    caller ---- request latency ----> bucket ---- answer latency ----> caller
           lost, refused, turned away   |      answer lost, or a lie (409, 412, 503)
           or landing minutes later     one instant

A request that has left lands whatever becomes of its caller: the process may time out, pause or crash.
``Process`` is what crashes and pauses, at a chosen await of its own or at the world's command.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias, TypeVar, cast

from msgspec import structs

from headwater.errors import (
    AlreadyExists,
    Conflict,
    HeadwaterError,
    Indeterminate,
    InvalidRequest,
    NotFound,
    Raced,
    Throttled,
    Unavailable,
)
from headwater.sim.latency import ZERO, Kind, Profile
from headwater.sim.loop import OWNER, START_WALL_MS, SimLoop
from headwater.store.base import Blob, Body, Stat, check_key, joined

T = TypeVar("T")

LIST_PAGE_KEYS: Final = 1_000  # as S3 answers; each page is a request of its own
REFUSED_S: Final = 0.001  # a refused connection is known at once


# -- processes ----------------------------------------------------------------------------------------


class Process:
    """A process that may crash or pause whenever it waits for the store or for its clock.

    Its code runs in tasks made by ``spawn``; tasks that those make belong to it too. ``crash_at``
    names the await (counted from 1) at which it dies, ``pauses`` the awaits at which all of it stands
    still for so many seconds. A dead process's calls never return: they unwind with ``CancelledError``.
    """

    def __init__(
        self,
        name: str,
        loop: SimLoop,
        *,
        crash_at: int | None = None,
        pauses: Iterable[tuple[int, float]] = (),
        on_crash: Callable[[Process], None] | None = None,
    ) -> None:
        self.name = name
        self.alive = True
        self.awaits = 0
        self._loop = loop
        self._crash_at = crash_at
        self._pauses = dict(pauses)
        self._strikes = frozenset(self._pauses) | ({crash_at} if crash_at is not None else frozenset())
        self._on_crash = on_crash
        self._resume_s = -math.inf

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str = "") -> asyncio.Task[T]:
        """Run ``coro`` as this process: it dies with it."""
        context = copy_context()
        context.run(OWNER.set, self)
        return self._loop.create_task(coro, name=f"{self.name}/{name}" if name else self.name, context=context)

    def crash(self) -> None:
        """Kill it now. What it sent may still land. A second call does nothing."""
        if not self.alive:
            return
        self.alive = False
        for task in self._loop.pending(self):
            task.cancel()
        if self._on_crash is not None:
            self._on_crash(self)

    def pause(self, seconds: float) -> None:
        """Let nothing that it awaits resume for so long, counted from now. Its clocks go on."""
        self._resume_s = max(self._resume_s, self._loop.time() + seconds)

    @property
    def paused(self) -> bool:
        """Whether it stands still now."""
        return self._resume_s > self._loop.time()

    def passes(self) -> bool:
        """Count one await and say whether the process may go on; if not, await ``held``."""
        self.awaits += 1
        if self.awaits in self._strikes:
            if self.awaits == self._crash_at:
                self.crash()
            else:
                self.pause(self._pauses[self.awaits])
        return self.alive and self._resume_s <= self._loop.time()

    async def held(self) -> None:
        """Wait until the pause is over; a dead process never comes back."""
        while self.alive and (left_s := self._resume_s - self._loop.time()) > 0:
            await self._loop.sleep(left_s)
        if not self.alive:
            raise asyncio.CancelledError(f"The process {self.name} has crashed.")

    async def checkpoint(self) -> None:
        """One await of the process: here it may be struck."""
        if not self.passes():
            await self.held()


# -- the bucket ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Counters:
    """Requests that reached the bucket, by kind, and the bytes that they moved."""

    put: int = 0
    get: int = 0
    head: int = 0
    list: int = 0  # pages
    delete: int = 0  # calls, whatever the number of their keys
    missing: int = 0  # GET and HEAD that found nothing; counted above too
    refused: int = 0  # conditional writes whose condition was false; counted above too
    bytes_in: int = 0
    bytes_out: int = 0

    def as_dict(self) -> dict[str, int]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(slots=True)
class _Object:
    data: bytes
    etag: str
    modified_ms: int
    version: int


class SimBucket:
    """The truth: every method is one request, applied at the instant of its call.

    ``resolution_ms`` is the step of the store's clock, which stamps objects and answers
    (HTTP dates have whole seconds: 1,000). The clock is the loop's time and owes nothing to any process.
    A ``taciturn`` store does not say the time in its answers to writes, as C8 allows.
    """

    def __init__(
        self, loop: SimLoop, *, start_ms: int = START_WALL_MS, resolution_ms: int = 1, taciturn: bool = False
    ) -> None:
        self.counters = Counters()
        self.objects: dict[str, _Object] = {}
        self.keys: list[str] = []  # sorted; Python orders str by code point, which is UTF-8 byte order (C6)
        self.versions = 0
        self._loop = loop
        self._start_ms = start_ms
        self._step_ms = resolution_ms
        self._taciturn = taciturn

    def wall_ms(self) -> int:
        """The store's own clock (C8)."""
        now_ms = self._start_ms + int(self._loop.time() * 1_000)
        return now_ms - now_ms % self._step_ms

    def get(self, key: str, start: int, end: int | None) -> Blob:
        self.counters.get += 1
        found = self._find(key)
        data = found.data if start == 0 and end is None else found.data[start:end]
        self.counters.bytes_out += len(data)
        return Blob(data=data, stat=self._stat(key, found))

    def head(self, key: str) -> Stat:
        self.counters.head += 1
        return self._stat(key, self._find(key))

    def put(self, key: str, data: bytes) -> Stat:
        self.counters.put += 1
        return self._write(key, data)

    def put_if_absent(self, key: str, data: bytes) -> Stat:
        self.counters.put += 1
        if key in self.objects:
            self.counters.refused += 1
            raise AlreadyExists(f"The key {key!r} is taken.")
        return self._write(key, data)

    def put_if_match(self, key: str, data: bytes, etag: str) -> Stat:
        self.counters.put += 1
        found = self.objects.get(key)
        if found is None or found.etag != etag:
            self.counters.refused += 1
            if found is None:
                raise Conflict(f"The object {key!r} is gone.")
            raise AlreadyExists(f"The object {key!r} has the ETag {found.etag}, not {etag}.")
        return self._write(key, data)

    def page(self, prefix: str, start_after: str, limit: int) -> tuple[tuple[Stat, ...], bool]:
        """Up to ``limit`` objects after ``start_after``, and whether more follow."""
        self.counters.list += 1
        keys = self.keys
        first = bisect_right(keys, start_after) if start_after >= prefix else bisect_left(keys, prefix)
        last = first
        while last < len(keys) and last - first < limit and keys[last].startswith(prefix):
            last += 1
        stats = tuple(self._stat(key, self.objects[key]) for key in keys[first:last])
        return stats, last < len(keys) and keys[last].startswith(prefix)

    def delete(self, keys: Sequence[str]) -> None:
        self.counters.delete += 1
        for key in keys:
            if self.objects.pop(key, None) is not None:
                del self.keys[bisect_left(self.keys, key)]

    def _find(self, key: str) -> _Object:
        found = self.objects.get(key)
        if found is None:
            self.counters.missing += 1
            raise NotFound(f"There is no object {key!r}.")
        return found

    def _write(self, key: str, data: bytes) -> Stat:
        if key not in self.objects:
            self._claim(key)
        self.versions += 1
        self.counters.bytes_in += len(data)
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        written = self.objects[key] = _Object(data, etag, self.wall_ms(), self.versions)
        stat = self._stat(key, written)
        return structs.replace(stat, modified_ms=-1, date_ms=-1) if self._taciturn else stat

    def _claim(self, key: str) -> None:
        """Put a new key into its place, unless one of the two would be a folder of the other."""
        below = bisect_left(self.keys, key + "/")
        parent = next((key[:i] for i, c in enumerate(key) if c == "/" and key[:i] in self.objects), "")
        if parent or (below < len(self.keys) and self.keys[below].startswith(key + "/")):
            raise InvalidRequest(f"The key {key!r} and {parent or self.keys[below]!r}: one is a folder of the other.")
        self.keys.insert(bisect_left(self.keys, key), key)

    def _stat(self, key: str, found: _Object) -> Stat:
        return Stat(
            key=key, size=len(found.data), etag=found.etag, modified_ms=found.modified_ms, date_ms=self.wall_ms()
        )


# -- what goes wrong ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """From ``start_s`` to ``end_s`` of virtual time the store turns away this ``share`` of all requests."""

    start_s: float
    end_s: float
    share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often each thing goes wrong, as the probability for one request, and how badly.

    ``lost_request``, ``lost_answer`` and ``late`` leave the caller with ``Indeterminate`` after
    ``timeout_s`` (a read with ``Unavailable``: nothing hangs on it). So does an answer that takes longer.
    """

    refused: float = 0.0  # no connection: Unavailable, not applied
    throttled: float = 0.0  # 503 SlowDown: Throttled, not applied
    unavailable: float = 0.0  # 503: Unavailable, not applied
    spike: float = 0.0  # the latency times spike_factor
    lost_request: float = 0.0  # never applied
    lost_answer: float = 0.0  # applied at once
    late: float = 0.0  # applied late_s after the caller gave up, whatever became of the caller
    false_503: float = 0.0  # a write is applied and answered Unavailable, as R2 allows
    raced: float = 0.0  # a conditional write: 409 without a winner, not applied
    raced_taken: float = 0.0  # a conditional write that lost is told 409 (Raced) instead of 412
    own_412: float = 0.0  # a conditional write is applied and answered 412: the service had tried twice
    partial_delete: float = 0.0  # some of the keys are deleted, then Unavailable

    timeout_s: float = 10.0
    late_s: tuple[float, float] = (0.5, 300.0)  # drawn log-uniformly
    spike_factor: tuple[float, float] = (5.0, 100.0)  # drawn log-uniformly
    bursts: tuple[Burst, ...] = ()
    until_s: float = math.inf  # after this virtual time nothing new goes wrong

    @classmethod
    def swarm(cls, rng: random.Random, *, rate_max: float = 0.08, **fixed: Any) -> Faults:
        """Faults for one seed: each kind is absent, or as frequent as the seed says.

        Leaving kinds out finds more than mixing all of them always (Groce et al., "Swarm Testing", 2012).
        """
        rates = {kind: rate_max * rng.random() ** 2 if rng.random() < 0.5 else 0.0 for kind in FAULT_KINDS}
        return cls(**(rates | fixed))


_ANY: Final = ("refused", "throttled", "unavailable", "spike", "lost_request", "lost_answer", "late")
_CONDITIONAL: Final = ("raced", "raced_taken", "own_412")
FAULT_KINDS: Final = (*_ANY, "false_503", *_CONDITIONAL, "partial_delete")

CALM: Final = Faults()
ROUGH: Final = Faults(**cast("dict[str, Any]", dict.fromkeys(FAULT_KINDS, 0.02)))
HOSTILE: Final = Faults(**cast("dict[str, Any]", dict.fromkeys(FAULT_KINDS, 0.07)))

# Which faults may strike which operation.
_STRIKES: Final[dict[str, tuple[str, ...]]] = {
    "get": _ANY,
    "head": _ANY,
    "list": _ANY,
    "put": (*_ANY, "false_503"),
    "put_if_absent": (*_ANY, "false_503", *_CONDITIONAL),
    "put_if_match": (*_ANY, "false_503", *_CONDITIONAL),
    "delete": (*_ANY, "false_503", "partial_delete"),
}
_KINDS: Final[dict[str, Kind]] = {"get": "get", "head": "get", "list": "list", "delete": "delete"}  # else "put"

_Outcome: TypeAlias = Any  # what a request answers, or the HeadwaterError that its caller is to see


class SimStore:
    """One process's store (``headwater.store.base.ObjectStore``) over the shared bucket.

    Every operation costs its latency in virtual time, and ``process`` may be struck before and after it.
    ``struck`` counts the faults that struck, by kind, so that a world can tell whether it tested anything.
    """

    def __init__(
        self,
        bucket: SimBucket,
        *,
        loop: SimLoop,
        rng: random.Random,
        profile: Profile = ZERO,
        faults: Faults = CALM,
        process: Process | None = None,
        url: str = "sim://bucket",
        key_bytes_max: int = 1024,
    ) -> None:
        self.url = url
        self.key_bytes_max = key_bytes_max
        self.bucket = bucket
        self.struck: dict[str, int] = {}
        self._loop = loop
        self._rng = rng
        self._profile = profile
        self._process = process or Process("nobody", loop)
        self.set_faults(faults)

    def set_faults(self, faults: Faults) -> None:
        """From now on this goes wrong; what is under way stays as it is."""
        self._faults = faults
        self._odds = {op: [(kind, getattr(faults, kind)) for kind in kinds] for op, kinds in _STRIKES.items()}
        self._total = {op: sum(odds for _, odds in table) for op, table in self._odds.items()}
        assert max(self._total.values()) <= 1, "the faults of one operation add up to more than certainty"

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        check_key(key, self.key_bytes_max)
        return cast(Blob, await self._request("get", self.bucket.get, key, start, end))

    async def head(self, key: str) -> Stat:
        check_key(key, self.key_bytes_max)
        return cast(Stat, await self._request("head", self.bucket.head, key))

    async def put(self, key: str, body: Body) -> Stat:
        check_key(key, self.key_bytes_max)
        return cast(Stat, await self._request("put", self.bucket.put, key, joined(body)))

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        check_key(key, self.key_bytes_max)
        return cast(Stat, await self._request("put_if_absent", self.bucket.put_if_absent, key, joined(body)))

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        check_key(key, self.key_bytes_max)
        return cast(Stat, await self._request("put_if_match", self.bucket.put_if_match, key, joined(body), etag))

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        """Each page is a snapshot of its own instant: writes between two pages show in the later one only."""
        more, left = True, math.inf if limit is None else limit
        while more and left > 0:
            size = int(min(LIST_PAGE_KEYS, left))
            stats, more = await self._request("list", self.bucket.page, prefix, start_after, size)
            for stat in stats:
                yield stat
            left -= len(stats)
            start_after = stats[-1].key if stats else start_after

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            check_key(key, self.key_bytes_max)
        if keys:
            await self._request("delete", self.bucket.delete, tuple(keys))

    async def aclose(self) -> None:
        """Nothing to release."""

    # -- one request ------------------------------------------------------------------------------------

    async def _request(self, op: str, apply: Callable[..., T], *args: Any) -> T:
        process = self._process
        if not process.passes():
            await process.held()
        answer: asyncio.Future[_Outcome] = self._loop.create_future()
        self._send(op, answer, apply, args)
        outcome = await answer
        if not process.passes():
            await process.held()
        if isinstance(outcome, HeadwaterError):
            raise outcome
        return cast(T, outcome)

    def _send(self, op: str, answer: asyncio.Future[_Outcome], apply: Callable[..., T], args: tuple[Any, ...]) -> None:
        """Set the request on its way: decide its fate now, since only one draw of many seeds ends badly."""
        rng, loop = self._rng, self._loop
        trip_s = self._profile.sample(_KINDS.get(op, "put"), rng)
        out_s = trip_s * rng.random()
        fault = self._draw(op)
        if fault == "spike":
            stretch = _log_uniform(rng, self._faults.spike_factor)
            trip_s, out_s, fault = trip_s * stretch, out_s * stretch, ""
        timeout_s = self._faults.timeout_s
        if fault in ("lost_request", "lost_answer", "late") or trip_s > timeout_s:
            loop.call_later(timeout_s, _settle, answer, _silence(op, timeout_s))
            if fault != "lost_request":
                late_s = timeout_s + _log_uniform(rng, self._faults.late_s) if fault == "late" else out_s
                loop.call_later(late_s, _apply, apply, args)
        elif fault == "refused":
            loop.call_later(REFUSED_S, _settle, answer, Unavailable(f"The store refused the connection ({op})."))
        elif fault in ("throttled", "unavailable", "raced"):
            loop.call_later(trip_s, _settle, answer, _turned_away(fault, op))
        else:
            if fault == "partial_delete":
                args = (tuple(key for key in args[0] if rng.random() < 0.5),)
            loop.call_later(out_s, self._land, answer, trip_s - out_s, apply, args, fault)

    def _draw(self, op: str) -> str:
        """The fault that strikes this request, mostly none (``""``)."""
        faults, now_s = self._faults, self._loop.time()
        if now_s > faults.until_s:
            return ""
        fault = ""
        if (total := self._total[op]) and (point := self._rng.random()) < total:
            for fault, odds in self._odds[op]:  # noqa: B007 - the last one stands if rounding leaves a rest
                if (point := point - odds) < 0:
                    break
        for burst in faults.bursts:
            if burst.start_s <= now_s < burst.end_s and self._rng.random() < burst.share:
                fault = "throttled" if self._rng.random() < 0.5 else "unavailable"
        if fault:
            self.struck[fault] = self.struck.get(fault, 0) + 1
        return fault

    def _land(
        self, answer: asyncio.Future[_Outcome], back_s: float, apply: Callable[..., T], args: tuple[Any, ...], lie: str
    ) -> None:
        """The instant at which the bucket applies a request; then its answer, or a lie, sets out."""
        outcome = _apply(apply, args)
        if lie:
            outcome = _lied(lie, outcome)
        self._loop.call_later(back_s, _settle, answer, outcome)


def _apply(apply: Callable[..., T], args: tuple[Any, ...]) -> _Outcome:
    try:
        return apply(*args)
    except HeadwaterError as error:
        return error.with_traceback(None)  # its frames would make a cycle with this very answer


def _settle(answer: asyncio.Future[_Outcome], outcome: _Outcome) -> None:
    if not answer.done():  # a caller that was cancelled no longer listens
        answer.set_result(outcome)


def _lied(lie: str, outcome: _Outcome) -> _Outcome:
    """What the service says instead of ``outcome``, which it has carried out."""
    if lie == "raced_taken" and isinstance(outcome, AlreadyExists):
        return Raced("409: another write to this key was under way.")
    if lie == "own_412" and not isinstance(outcome, HeadwaterError):
        return AlreadyExists("412: the key is taken, by this very write.")
    if lie in ("false_503", "partial_delete") and not isinstance(outcome, HeadwaterError):
        return Unavailable(f"503 although it was applied ({lie}).")
    return outcome


def _turned_away(fault: str, op: str) -> HeadwaterError:
    if fault == "throttled":
        return Throttled(f"503 SlowDown ({op}).", retry_after_ms=200)
    if fault == "raced":
        return Raced(f"409: a race without a winner ({op}).")
    return Unavailable(f"503 ({op}).")


def _silence(op: str, timeout_s: float) -> HeadwaterError:
    message = f"No answer to {op} within {timeout_s} s."
    return Unavailable(message) if op in ("get", "head", "list") else Indeterminate(message)


def _log_uniform(rng: random.Random, between: tuple[float, float]) -> float:
    low, high = between
    return low * math.exp(rng.random() * math.log(high / low))
