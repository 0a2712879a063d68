"""The doctor: what is well is called well, and each thing that can be wrong is found, named and answered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from headwater.clock import SystemClock
from headwater.doctor import Finding, worst
from headwater.doctor.deployment import examine_round_trip
from headwater.doctor.namespace import examine_state
from headwater.doctor.run import visit
from headwater.doctor.store import examine_store
from headwater.errors import Forbidden, Unauthorized
from headwater.limits import (
    DOCTOR_HOT_TIMES,
    DOCTOR_OVERDUE_MS,
    DOCTOR_SKEW_MS,
    DOCTOR_SLOW_MS,
    DOCTOR_TAIL_MANIFESTS,
)
from headwater.log.operations import (
    AlterTopic,
    CommitOffsets,
    OffsetEntry,
    Reserve,
    TrimLog,
)
from headwater.store.base import Blob, Body, Stat
from headwater.store.memory import MemoryStore
from tests.log.helpers import Fold, chunk

MINUTE = 60_000


class Patient(MemoryStore):
    """A store in memory with one thing wrong with it."""

    def __init__(self, wrong: str = "") -> None:
        super().__init__()
        self.wrong = wrong

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        return await (self.put if self.wrong == "fakes" else super().put_if_absent)(key, body)

    async def delete(self, keys: Sequence[str]) -> None:
        if self.wrong == "keeps":
            raise Forbidden("s3:DeleteObject is denied.")
        await super().delete(keys)

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        found = await super().get(key, start=start, end=end)
        return Blob(data=found.data[::-1], stat=found.stat) if self.wrong == "garbles" else found

    async def head(self, key: str) -> Stat:
        found = await super().head(key)
        if self.wrong != "late":
            return found
        when = found.date_ms + 2 * DOCTOR_SKEW_MS
        return Stat(key=key, size=found.size, etag=found.etag, modified_ms=when, date_ms=when)

    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> Any:
        if self.wrong == "shut":
            raise Unauthorized("The access key does not exist.")
        return super().list(prefix, start_after=start_after, limit=limit)


def examined(store: MemoryStore, **how: bool) -> list[Finding]:
    options = {"writes": True, **how}
    return asyncio.run(examine_store(store, clock=SystemClock(), rng=random.Random(1), **options))


async def keys_of(store: MemoryStore) -> list[str]:
    return [stat.key async for stat in store.list("")]


def only(findings: Sequence[Finding], check: str) -> Finding:
    (found,) = [finding for finding in findings if finding.check == check]
    return found


def test_a_store_that_is_well_is_called_well_and_left_as_it_was() -> None:
    store = Patient()
    found = examined(store)
    assert ["reachable", "reads and writes", "clocks", "conditional writes", "deletes"] == [f.check for f in found]
    assert {"ok"} == {f.level for f in found}
    assert [] == asyncio.run(keys_of(store))


@pytest.mark.parametrize(
    ("wrong", "check", "level", "advice"),
    [
        ("shut", "reachable", "failure", "AWS_ACCESS_KEY_ID"),
        ("fakes", "conditional writes", "failure", "Change the request"),
        ("keeps", "deletes", "failure", "s3:DeleteObject"),
        ("garbles", "reads and writes", "failure", "Do not use this store"),
        ("late", "clocks", "warning", "NTP"),
    ],
)
def test_what_is_wrong_with_a_store_is_named_and_answered(wrong: str, check: str, level: str, advice: str) -> None:
    found = examined(Patient(wrong))
    assert {check} == {f.check for f in found if f.level != "ok"}
    finding = only(found, check)
    assert level == finding.level
    assert advice in finding.do


class SlowClock(SystemClock):
    """Every look at it finds that ``step_s`` has passed."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self.now_s = 0.0

    def elapsed_s(self) -> float:
        self.now_s += self.step_s
        return self.now_s


@pytest.mark.parametrize(("step_s", "level"), [(DOCTOR_SLOW_MS / 1_000, "ok"), (DOCTOR_SLOW_MS / 999, "warning")])
def test_a_slow_store_is_noticed(step_s: float, level: str) -> None:
    found = asyncio.run(examine_store(Patient(), clock=SlowClock(step_s), rng=random.Random(1), writes=True))
    assert level == only(found, "reads and writes").level


def test_read_only_writes_nothing() -> None:
    class Closed(Patient):
        async def put(self, key: str, body: Body) -> Stat:
            raise AssertionError(f"{key} was written")

        put_if_absent = put

    assert ["reachable"] == [f.check for f in examined(Closed(), writes=False)]


def state_of(fold: Fold, *, now_ms: int = 0, snapshot: int = 0) -> list[Finding]:
    return examine_state(fold.state, now_ms=now_ms, tip=fold.state.seq, snapshot=snapshot)


def test_an_empty_namespace_is_no_failure_and_says_what_to_do() -> None:
    (found,) = state_of(Fold())
    assert ("note", True) == (found.level, "Create a topic" in found.do)


def test_a_namespace_that_is_well_is_called_well() -> None:
    fold = Fold()
    fold.topic()
    found = state_of(fold)
    assert "ok" == worst(found)
    assert "1 topic, 1 partition, 0 groups as of commit 1." == only(found, "exists").says


def test_a_transaction_past_its_deadline_is_named_with_what_it_stalls() -> None:
    fold = Fold()
    fold.topic(2, "orders")
    pid = fold.producer("billing")
    fold.done(Reserve(pid=pid, epoch=0, timeout_ms=MINUTE), chunk(partition=1, pid=pid, epoch=0))
    due_ms = fold.state.producers[pid].deadline_ms + DOCTOR_OVERDUE_MS
    assert "ok" == only(state_of(fold, now_ms=due_ms), "transactions").level
    found = only(state_of(fold, now_ms=due_ms + 1), "transactions")
    assert "failure" == found.level
    assert "billing" in found.says
    assert "orders-1" in found.says
    assert "headwater maintain" in found.do


def test_a_group_whose_next_record_is_gone_is_named() -> None:
    fold = Fold()
    topic = fold.topic(name="orders")
    fold.done(chunk(count=10))
    fold.done(CommitOffsets(group="billing", offsets=[OffsetEntry(topic, 0, 4)]))
    fold.done(TrimLog(topic=topic, partition=0, before=4))
    assert "ok" == only(state_of(fold), "groups").level
    fold.done(TrimLog(topic=topic, partition=0, before=5))
    found = only(state_of(fold), "groups")
    assert "warning" == found.level
    assert "billing: orders-0" in found.says


def test_an_archive_that_nobody_keeps_is_noticed() -> None:
    fold = Fold()
    topic = fold.topic(name="orders")
    fold.done(AlterTopic(topic=topic, config={"archive.bytes": "1000"}))
    for _ in range(DOCTOR_HOT_TIMES):
        fold.done(chunk(count=100))
    assert "ok" == only(state_of(fold), "archive").level
    fold.done(chunk(count=1))
    found = only(state_of(fold), "archive")
    assert ("warning", True) == (found.level, "orders-0" in found.says)


def test_a_commit_from_the_future_is_noticed() -> None:
    fold = Fold()
    fold.commit(time=DOCTOR_SKEW_MS)
    assert "ok" == only(state_of(fold, now_ms=0), "commit time").level
    fold.commit(time=DOCTOR_SKEW_MS + 1)
    assert "warning" == only(state_of(fold, now_ms=0), "commit time").level


def test_a_snapshot_that_is_long_overdue_is_noticed() -> None:
    state = Fold().state
    for snapshot, level in ((1, "ok"), (0, "warning")):
        found = examine_state(state, now_ms=0, tip=DOCTOR_TAIL_MANIFESTS + 1, snapshot=snapshot)
        assert level == only(found, "cold start").level


def test_a_visit_with_a_round_trip_leaves_no_topic_behind() -> None:
    store = Patient()

    async def main() -> list[Finding]:
        source = visit(store, "default", clock=SystemClock(), rng=random.Random(2), round_trip=True)
        return [finding async for finding in source]

    found = asyncio.run(main())
    assert "ok" == only(found, "round trip").level
    # What is left is the service's own record of who made and deleted a topic.
    assert "1 topic, 1 partition," in only(asyncio.run(main()), "exists").says


def test_a_round_trip_that_is_refused_says_why() -> None:
    class Refusing:
        async def create_topic(self, name: str) -> None:
            raise Forbidden(f"You may not create {name}.")

    verbs: Any = Refusing()
    work = examine_round_trip(verbs, area="service", clock=SystemClock(), rng=random.Random(3))
    found = asyncio.run(work)
    assert ("failure", "Ask the owner for the right, or stop.") == (found.level, found.do)
