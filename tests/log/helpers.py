"""What the tests of the log share: short ways to make chunks, intents, manifests, batches and processes."""

from __future__ import annotations

import random
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from headwater.limits import WINDOW
from headwater.log import frame
from headwater.log.chain import Chain
from headwater.log.committer import Committer
from headwater.log.house import House
from headwater.log.intents import Intent, Manifest, encode_manifest
from headwater.log.journal import Journal
from headwater.log.lookup import Lookup
from headwater.log.namespace import Namespace
from headwater.log.operations import AnyOp, Chunk, CreateTopic, InitProducer
from headwater.log.options import Options
from headwater.log.reader import Reader
from headwater.log.state import Outcome, State, apply
from headwater.log.writer import Writer
from headwater.sim.faults import Faults, SimBucket, SimStore
from headwater.sim.latency import ZERO, Profile
from headwater.sim.loop import SimClock, SimLoop, run, sim_loop
from headwater.store.base import ObjectStore
from headwater.store.memory import MemoryStore
from headwater.types import Batch

T = TypeVar("T")

FIXED = Profile("fixed", put=(100, 100), get=(50, 50), list=(80, 80))  # every request takes exactly this
LIMIT_S = 48 * 3_600.0  # of virtual time; a test that needs more never ends
STEPS_MAX = 3_000_000


def simulate(main: Coroutine[Any, Any, T], *, rng: random.Random | None = None, limit_s: float = LIMIT_S) -> T:
    """Run ``main`` in virtual time; a test that spins or sleeps for ever fails soon."""
    return run(main, rng=rng, limit_s=limit_s, steps_max=STEPS_MAX)


# -- the pure parts -----------------------------------------------------------------------------------


def chunk(topic: int = 1, partition: int = 0, count: int = 1, **fields: Any) -> Chunk:
    """A chunk of 10 bytes a record in some segment, unless told otherwise."""
    known: dict[str, Any] = {
        "codec": "arrow",
        "pos": 64,
        "len": 10 * count,
        "crc": 7,
        "min": 1_000,
        "max": 2_000,
        "obj": f"segment/{0:020d}-w-1",
    }
    return Chunk(topic=topic, partition=partition, count=count, **{**known, **fields})


class Fold:
    """A state and short ways to move it on, one manifest at a time."""

    def __init__(self, state: State | None = None) -> None:
        self.state = State() if state is None else state
        self.manifests: list[Manifest] = []
        self.names = 0

    def intent(self, *what: AnyOp | Chunk, tip: int | None = None, name: str = "", after: str = "") -> Intent:
        """A fresh intent made at the present tip."""
        self.names += 1
        return Intent(
            id=name or f"id-{self.names}",
            tip=self.state.seq if tip is None else tip,
            appends=[part for part in what if isinstance(part, Chunk)],
            ops=[part for part in what if not isinstance(part, Chunk)],
            after=after,
        )

    def commit(self, *intents: Intent, time: int = 0) -> list[Outcome]:
        """One manifest with these intents."""
        made = manifest(self.state.seq + 1, *intents, time=time)
        self.manifests.append(made)
        return apply(self.state, made)

    def do(self, *what: AnyOp | Chunk, time: int = 0, **fields: Any) -> Outcome:
        """One manifest with one intent."""
        return self.commit(self.intent(*what, **fields), time=time)[0]

    def done(self, *what: AnyOp | Chunk, **fields: Any) -> Outcome:
        """``do``, and it is applied."""
        outcome = self.do(*what, **fields)
        assert ("", "") == (outcome.error, outcome.message)
        return outcome

    def skip(self, manifests: int) -> None:
        """So many manifests without intents."""
        for _ in range(manifests):
            self.commit()

    def topic(self, partitions: int = 1, name: str = "t") -> int:
        return self.done(CreateTopic(name=name, partitions=partitions)).values["topic"]

    def producer(self, tid: str = "") -> int:
        return self.done(InitProducer(tid=tid)).values["pid"]

    def past_the_window(self) -> None:
        self.skip(WINDOW)


def manifest(seq: int, *intents: Intent, time: int = 0, merged: Sequence[str] = (), writer: str = "w") -> Manifest:
    return Manifest(
        v=1,
        kind="manifest",
        seq=seq,
        id=f"manifest-{seq}",
        writer=writer,
        time=time,
        intents=list(intents),
        merged=list(merged),
    )


def stored(made: Manifest, payload: bytes = b"") -> bytes:
    """The bytes of a manifest as an object."""
    return encode_manifest(made, len(payload)) + payload


def blob(count: int = 1, size: int = 10, *, fill: int = 7, **fields: Any) -> Batch:
    """A batch of opaque bytes; nothing in the log looks into them."""
    known: dict[str, Any] = {"codec": "kafka2", "timestamp_min": 1_000, "timestamp_max": 2_000}
    return Batch(data=bytes([fill % 256]) * size, count=count, **{**known, **fields})


def crc(data: bytes) -> int:
    return frame.checksum(data)


# -- one process --------------------------------------------------------------------------------------


class Parts:
    """The parts of one process over a store, without a namespace around them."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        writer: str = "w1",
        seed: int = 1,
        options: Options | None = None,
        clock: SimClock | None = None,
    ) -> None:
        self.clock = clock or SimClock(sim_loop())
        self.chain = Chain(store, clock=self.clock, rng=random.Random(seed), options=options or Options())
        self.journal = Journal(self.chain, writer=writer)
        self.committer = Committer(self.journal)
        self.house = House(self.chain, writer=writer)
        self.writer = Writer(self.committer)
        self.lookup = Lookup(self.chain, self.house)
        self.reader = Reader(self.chain, self.lookup)


def memory() -> MemoryStore:
    """A store whose clock is the simulation's."""
    return MemoryStore(clock=SimClock(sim_loop()))


def network(
    bucket: SimBucket | None = None, *, profile: Profile = ZERO, seed: int = 1, faults: Faults | None = None
) -> SimStore:
    loop = sim_loop()
    options = {} if faults is None else {"faults": faults}
    return SimStore(bucket or SimBucket(loop), loop=loop, rng=random.Random(seed), profile=profile, **options)


async def opened(
    store: ObjectStore, *, seed: int = 1, options: Options | None = None, clock: SimClock | None = None
) -> Namespace:
    return await Namespace.open(
        store, "ns", clock=clock or SimClock(sim_loop()), rng=random.Random(seed), options=options
    )


async def keys_under(store: ObjectStore, prefix: str) -> list[str]:
    return [stat.key async for stat in store.list(prefix)]


def still_running(loop: SimLoop) -> list[str]:
    """Tasks in flight beside the test's own."""
    return [task.get_name() for task in loop.pending() if task.get_name() != "main"]
