"""What the state of a namespace gives away: who is stuck, who has lost records, and which chores nobody does. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from headwater.doctor.findings import Finding
from headwater.limits import (
    DOCTOR_HOT_TIMES,
    DOCTOR_NAMED,
    DOCTOR_OVERDUE_MS,
    DOCTOR_SKEW_MS,
    DOCTOR_TAIL_MANIFESTS,
)
from headwater.log.config import TopicConfig
from headwater.log.state import State
from headwater.words import amount

AREA: Final = "namespace"
MAINTAIN: Final = "Run `headwater maintain`, or see why the scheduled function `maintain` does not."


def examine_state(state: State, *, now_ms: int, tip: int, snapshot: int) -> list[Finding]:
    """What is to be said of a state as of ``now_ms``; ``tip`` and ``snapshot`` are manifest numbers (0: none).

    Cost: one walk over partitions, producers and groups; no request.
    """
    if not tip:
        says = "Nothing was ever written here."
        do = "Create a topic, or mend --store and --namespace if you expected one."
        return [Finding(area=AREA, check="exists", level="note", says=says, do=do)]
    held = sum(len(topic.partitions) for topic in state.topics.values())
    counts = ((len(state.topics), "topic"), (held, "partition"), (len(state.groups), "group"))
    says = f"{', '.join(amount(count, word) for count, word in counts)} as of commit {tip:,}."
    return [
        Finding(area=AREA, check="exists", level="ok", says=says),
        _time(state, now_ms),
        _cold_start(tip, snapshot),
        _transactions(state, now_ms),
        _groups(state),
        _archive(state),
    ]


def _time(state: State, now_ms: int) -> Finding:
    ahead_ms = state.time_ms - now_ms
    if ahead_ms <= DOCTOR_SKEW_MS:
        return _ok("commit time", f"The newest commit is {_age(max(0, -ahead_ms))} old.")
    return _warning(
        "commit time",
        says=f"The newest commit bears a time {_age(ahead_ms)} ahead of this machine's: a writer's clock ran ahead, or "
        "this one is behind. Commit times never go back, so retention and time-outs wait until it is caught up.",
        do="Set the clocks of all writers by NTP.",
    )


def _cold_start(tip: int, snapshot: int) -> Finding:
    behind = tip - snapshot
    if behind <= DOCTOR_TAIL_MANIFESTS:
        return _ok("cold start", f"It folds {amount(behind, 'commit')} behind the newest snapshot.")
    return _warning(
        "cold start",
        says=f"The newest snapshot is {behind:,} commits old: a cold start has to read and fold all of them.",
        do=MAINTAIN,
    )


def _transactions(state: State, now_ms: int) -> Finding:
    late = [p for p in state.producers.values() if p.is_busy and p.deadline_ms + DOCTOR_OVERDUE_MS < now_ms]
    if not late:
        busy = sum(producer.is_busy for producer in state.producers.values())
        says = f"{amount(busy, 'transaction')} open, none of them overdue." if busy else "None is open."
        return _ok("transactions", says)
    places = [place for producer in late for place in producer.open]
    stalled = [f"{state.topics[topic].name}-{number}" for topic, number in places if topic in state.topics]
    return Finding(
        area=AREA,
        check="transactions",
        level="failure",
        says=f"{_some([p.tid or str(p.id) for p in late])}: past their deadline and not ended. "
        f"Nobody reads beyond them in {_some(stalled)}.",
        do=f"{MAINTAIN} It aborts what is overdue.",
    )


def _groups(state: State) -> Finding:
    lost = sorted({f"{group}: {topic}-{partition}" for group, topic, partition in _lost(state)})
    if not lost:
        return _ok("groups", "No group has a committed offset below what retention has kept.")
    return _warning(
        "groups",
        says=f"Records went by retention before the group had read them ({_some(lost)}). A consumer goes on where its "
        "auto.offset.reset says.",
        do="Read faster (more members or partitions), or keep longer: `headwater topic alter TOPIC --config "
        "retention.ms=…`. `headwater offsets reset` acknowledges the gap.",
    )


def _lost(state: State) -> Iterator[tuple[str, str, int]]:
    for group in state.groups.values():
        for topic, places in group.offsets.items():
            known = state.topics.get(topic)
            if known is None:
                continue
            for number, committed in places.items():
                if number < len(known.partitions) and 0 <= committed.offset < known.partitions[number].start:
                    yield group.name, known.name, number


def _archive(state: State) -> Finding:
    behind = []
    for topic in state.topics.values():
        config = TopicConfig.of(topic.config)
        for number, partition in enumerate(topic.partitions):
            if config.archive and partition.hot_bytes > DOCTOR_HOT_TIMES * config.archive_bytes:
                behind.append(f"{topic.name}-{number}")
    if not behind:
        return _ok("archive", "No partition keeps more in small chunks than the archiver lets wait.")
    return _warning(
        "archive",
        says=f"{_some(behind)}: more than {DOCTOR_HOT_TIMES} times archive.bytes waits for the archive. Readers pay a "
        "request for each small chunk, and objects that nobody needs stay.",
        do=MAINTAIN,
    )


def _warning(check: str, *, says: str, do: str) -> Finding:
    return Finding(area=AREA, check=check, level="warning", says=says, do=do)


def _ok(check: str, says: str) -> Finding:
    return Finding(area=AREA, check=check, level="ok", says=says)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:DOCTOR_NAMED])
    more = len(names) - DOCTOR_NAMED
    return f"{shown} and {more:,} more" if more > 0 else shown


def _age(ms: int) -> str:
    for unit, size in (("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000)):
        if ms >= 2 * size:
            return f"{ms // size:,} {unit}"
    return f"{ms / 1_000:.1f} s"
