"""What a seed decides of a world of stream processing, and the records that its writers send."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from headwater.log import small
from headwater.log.options import Options
from headwater.sim.faults import Burst, Faults
from headwater.sim.latency import S3_EXPRESS, S3_STANDARD
from headwater.sim.streams_jobs import DISORDER_MS, IDLING, PLAYS, Play
from headwater.sim.world import Plan
from headwater.types import Record

KEYS = 6
GROUPS = 3
START_MS = 1_700_000_000_000  # event time has nothing to do with anybody's clock
DEEDS = ("pause", "reset", "restart", "spill", "idle")  # what is done to a job, or where it runs, beside the usual
DEED_RATE = 0.5  # of worlds that have one
STORING = ("enriched", "everywhere", "looked up", "of table", "of tables", "two tables")  # plays whose state spills
END_MS = 3_600_000  # how far beyond all others the last record of a partition lies


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsPlan:
    """What a seed decides beside the plan that every world has."""

    seed: int
    play: str
    partitions: int
    workers: int
    once: float  # the share of a worker's lives that are runs that end
    patience_s: float  # how long a function may run before it is cut off
    stay_s: float  # how long a worker of many stays
    standbys: int
    session_ms: int
    drowsy: float  # how often a worker falls asleep at a commit
    batch_bytes: int
    poison: float
    late: float
    nulls: float
    again: float
    ends: bool  # whether event time is brought to its end, so that every window closes
    keepers: int
    archive: bool
    limits: dict[str, int]  # bounds of ``headwater.limits`` that are to bite
    deed: str = ""  # one of ``DEEDS``

    @classmethod
    def draw(cls, seed: int) -> StreamsPlan:
        """The plan of a seed: the plays take turns, and every other world has a deed."""
        rng, deeds = random.Random(f"streams-{seed}"), random.Random(f"streams-deeds-{seed}")
        names = [name for name in PLAYS if name != IDLING]
        deed = deeds.choice(DEEDS) if deeds.random() < DEED_RATE else ""
        pages = {"STREAMS_PAGE_BYTES_MIN": deeds.choice([1, 300])} if deed == "spill" else {}
        return cls(
            seed=seed,
            play={"idle": IDLING, "spill": deeds.choice(STORING)}.get(deed, names[seed % len(names)]),
            partitions=rng.choice([1, 2, 2, 3, 4]),
            workers=rng.choice([1, 2, 3, 3]),
            once=rng.choice([0.0, 0.3, 1.0]),
            patience_s=rng.choice([0.5, 2.0, 8.0]),
            stay_s=rng.choice([2.0, 6.0, 30.0]),
            standbys=rng.choice([0, 0, 1]),
            session_ms=rng.choice([1_500, 1_500, 3_000]),
            drowsy=rng.choice([0.0, 0.0, 0.05, 0.1]),
            batch_bytes=rng.choice([1, 400, 4_000, 1 << 22]),
            poison=rng.choice([0.0, 0.05]),
            late=rng.choice([0.0, 0.1, 0.3]),
            nulls=rng.choice([0.0, 0.1]),
            again=rng.choice([0.0, 0.1]),
            ends=rng.random() < 0.7,
            keepers=rng.choice([0, 0, 1, 2]),
            archive=rng.random() < 0.4,
            limits={
                "STREAMS_CHANGELOG_BYTES_MIN": rng.choice([1, 4_000, 20_000, 1 << 23]),
                "STREAMS_CHANGELOG_COMMIT_BYTES": rng.choice([1, 1_000]),
                "STREAMS_SNAPSHOT_BYTES": rng.choice([1, 1_000, 1 << 25]),
                "STREAMS_TRIM_BYTES": rng.choice([1, 1_500, 1 << 23]),
                "STREAMS_LANE_BYTES": rng.choice([300, 2_000, 1 << 23]),
                "STREAMS_TICK_MS": rng.choice([200, 1_000]),
                "STREAMS_POLL_MS": rng.choice([500, 10_000]),
                **pages,
            },
            deed=deed,
        )

    @property
    def repeats(self) -> bool:
        """Whether outputs may be written again: they stay when a job is brought back to an earlier state."""
        return self.deed in ("reset", "restart")

    @property
    def of(self) -> Play:
        """The play that is given."""
        return PLAYS[self.play]


def plan_of(seed: int) -> Plan:
    """The plan that every world has, as it suits a world in which a job runs."""
    plan = Plan.draw(seed)
    rng = random.Random(f"streams-plan-{seed}")
    active_s = rng.uniform(6.0, 20.0)
    bursts = tuple(
        Burst(start_s=start, end_s=start + rng.uniform(0.5, 4.0), share=rng.choice([0.5, 1.0]))
        for start in (rng.uniform(0, active_s) for _ in range(rng.choice([0, 0, 1])))
    )
    return replace(
        plan,
        profile=rng.choice([S3_STANDARD, S3_EXPRESS]),
        faults=replace(
            Faults.swarm(rng, rate_max=rng.choice([0.0, 0.05, 0.15]), false_503=0.0, bursts=bursts),
            timeout_s=rng.choice([1.0, 1.0, 10.0]),
            until_s=active_s,
        ),
        active_s=active_s,
        crash_rate=rng.choice([0.0, 0.5, 0.9]),
        pause_rate=rng.choice([0.0, 0.3]),
        long_sleep=False,
        window=rng.choice([12, 512, 512]),
        options=Options(
            threads=False,
            linger_ms=rng.choice([0.0, 0.0, 20.0]),
            inline_bytes_max=rng.choice([0, 400, 1 << 19]),
            snapshot_every=rng.choice([4, 16, 256]),
            commit_timeout_s=rng.choice([0.5, 1.5, 10.0]),
            store_retry_s=rng.choice([5.0, 60.0]),
        ),
    )


class Events:
    """Everything that writers ever send: out of order, late, twice, without keys or values, or unreadable."""

    def __init__(self, plan: StreamsPlan) -> None:
        self.plan = plan
        self.rng = random.Random(f"events-{plan.seed}")
        self.now_ms = START_MS
        self.serial = 0
        self.sent: dict[str, list[Record]] = {}

    def batch(self, topic: str) -> Iterator[tuple[int, list[Record]]]:
        """The next few records for a topic, by partition."""
        places: dict[int, list[Record]] = {}
        make = self._change if topic in (*self.plan.of.tables, *self.plan.of.live) else self._event
        for _ in range(self.rng.randint(1, 6)):
            record = make(topic)
            places.setdefault(self.place(record), []).append(record)
        yield from places.items()

    def place(self, record: Record) -> int:
        """Where a record lies; those without a key in the partition to which null keys are sent."""
        return small.partition_of(record.key, self.plan.partitions)

    def last(self, topic: str) -> Sequence[tuple[int, list[Record]]]:
        """A record for each partition that ends all windows."""
        return [
            (
                number,
                [self._record(f"end{number}", {"k": f"end{number}", "g": "end", "v": 1}, self.now_ms + END_MS)],
            )
            for number in range(self.plan.partitions)
        ]

    def _event(self, topic: str) -> Record:
        rng, plan = self.rng, self.plan
        earlier = self.sent.setdefault(topic, [])
        if earlier and rng.random() < plan.again:
            return rng.choice(earlier)
        if plan.of.poison and rng.random() < plan.poison:
            self.serial += 1
            return Record(key=b"p", value=b"{no json %d" % self.serial, timestamp=self.now_ms)
        self.now_ms += rng.randint(0, 900)
        if rng.random() < plan.nulls / 3:
            return Record(key=b"k1", value=None, timestamp=self.now_ms)
        age_ms = rng.randint(0, DISORDER_MS)
        if rng.random() < plan.late:
            age_ms = rng.randint(DISORDER_MS, 20_000)
        key = None if rng.random() < plan.nulls / 3 else f"k{rng.randint(1, KEYS)}"
        fields = {
            "k": key,
            "g": None if rng.random() < plan.nulls else f"g{rng.randint(1, GROUPS)}",
            "v": None if rng.random() < plan.nulls else rng.randint(0, 12),
        }
        record = self._record(key, fields, self.now_ms - age_ms)
        earlier.append(record)
        return record

    def _change(self, topic: str) -> Record:
        rng = self.rng
        key = f"k{rng.randint(1, KEYS)}"
        self.now_ms += rng.randint(0, 300)
        if rng.random() < 0.15:
            return Record(key=key.encode(), value=None, timestamp=self.now_ms)
        value = {"k": key, "label": f"n{rng.randint(1, GROUPS)}", "ts": self.now_ms}
        return Record(key=key.encode(), value=msgspec.json.encode(value), timestamp=self.now_ms)

    def _record(self, key: str | None, fields: Mapping[str, object], time_ms: int) -> Record:
        self.serial += 1
        value = msgspec.json.encode({**fields, "ts": time_ms, "id": self.serial})
        return Record(key=None if key is None else key.encode(), value=value, timestamp=self.now_ms)
