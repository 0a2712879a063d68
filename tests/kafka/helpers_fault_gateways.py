"""Two gateways in processes of their own over one directory, which a test kills and starts again."""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from headwater.clock import stopwatch_s
from headwater.log.namespace import Namespace
from headwater.store import open_store
from tests.kafka.helpers_faulty import AFRESH, run

KILL_EVERY_S = (2.0, 5.0)
BOTH = 0.1  # how often both are killed at once
# A start folds the log in rounds of 16 manifests, each as slow as its slowest answer: in two rounds of five one is
# refused, and comes a second later. So it reads 25 a second while the other gateway commits 150, and after 8 rounds
# sets itself a last one to fold: 256 behind the snapshot and what came in 4 s, doubled at most, which takes 85 s with
# outages of 1.5 s in 12. Measured: 50 s, 1 s of them CPU. A machine that runs other tests takes twice as long.
START_S = 180.0
GIVEN_UP_MAX = 20  # starts that an outage of the store may spoil


class Gateways:
    """Two processes that are killed in turn."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = [_free_port(), _free_port()]
        self._processes: dict[int, tuple[BaseProcess, Connection]] = {}
        self._seeds = iter(range(1, 1 << 20))
        self._calm = True
        self.kills = self.given_up = 0
        self.slowest = (0.0, 0.0)  # of the starts: seconds, and seconds of CPU

    @property
    def bootstrap(self) -> str:
        """What clients call bootstrap.servers."""
        return ",".join(f"127.0.0.1:{port}" for port in self._ports)

    def start(self, node: int) -> None:
        """Begin a process; ``wait`` until it serves."""
        seed = 0 if self._calm else next(self._seeds)
        heard, ready = AFRESH.Pipe(duplex=False)
        words = (self._ports[node], node + 1, str(self._folder), seed, ready)
        process = AFRESH.Process(target=run, args=words, daemon=True)
        process.start()
        ready.close()
        self._processes[node] = (process, heard)

    def wait(self, node: int) -> None:
        """Until it serves; one whose store fails for longer than it has patience is started again."""
        start_s = stopwatch_s()
        while (cpu_s := self._cpu_s(node)) is None:
            self.given_up += 1
            assert self.given_up <= GIVEN_UP_MAX, f"Gateway {node} does not start; its standard error says why."
            self.kill(node)
            self.start(node)
        self.slowest = max(self.slowest, (stopwatch_s() - start_s, cpu_s))

    def _cpu_s(self, node: int) -> float | None:
        """The seconds of CPU that its start took; None if it has ended."""
        _, heard = self._processes[node]
        if not heard.poll(START_S):
            self.tell()
            raise AssertionError(f"Gateway {node} does not serve after {START_S:.0f} s; above is where its tasks are.")
        try:
            return float(heard.recv())
        except EOFError:
            return None

    def kill(self, node: int) -> None:
        """As kill -9 does, and only that: nothing is told to anybody."""
        process, heard = self._processes.pop(node)
        process.kill()
        process.join()
        heard.close()
        self.kills += 1

    def all_again(self, *, calm: bool) -> None:
        """Kill each and start it over a store that fails, or over one that does not; the other serves meanwhile."""
        self._calm = calm
        for node in range(2):
            self.kill(node)
            self.start(node)
            self.wait(node)

    @contextmanager
    def dying(self) -> Iterator[None]:
        """Gateways are killed, as by ``kill_for``, for as long as this lasts; at least one was at its end."""
        over = threading.Event()
        killer = threading.Thread(target=self.kill_for, args=(math.inf, over))
        killer.start()
        try:
            yield
        finally:
            over.set()
            killer.join()
        print(f"{self.kills} kills, {self.faults()}")
        assert self.kills

    def kill_for(self, seconds: float, pause: threading.Event | None = None) -> None:
        """Kill one or the other, at times both, every few seconds, and start it again; setting ``pause`` ends it.

        A killed one serves again before the next is killed: where starting takes long since the machine is busy, there
        would else be nobody whom clients could ask, and all would seem to stand still.
        """
        rng = random.Random(7)
        pause = pause or threading.Event()
        end_s = stopwatch_s() + seconds
        while stopwatch_s() < end_s and not pause.is_set():
            pause.wait(rng.uniform(*KILL_EVERY_S))
            nodes = range(2) if rng.random() < BOTH else [rng.randrange(2)]
            for node in nodes:
                self.kill(node)
            pause.wait(rng.uniform(0.0, 1.0))
            for node in nodes:
                self.start(node)
            for node in nodes:
                self.wait(node)

    def stop(self) -> None:
        """Kill those that run."""
        for node in list(self._processes):
            self.kill(node)

    def tell(self) -> None:
        """Have each print where its tasks are, on standard error."""
        for process, _ in self._processes.values():
            os.kill(process.pid or 0, signal.SIGUSR1)

    def faults(self) -> str:
        """How many of each kind the stores planted."""
        planted = self._folder / "faults"
        counts = Counter(planted.read_text().split() if planted.exists() else ())
        return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def make_topics(folder: Path, partitions: Mapping[str, int]) -> None:
    """Topics in FOLDER/store with so many partitions, made without any gateway."""

    async def make() -> None:
        async with await Namespace.open(open_store(f"file://{folder}/store"), owns_store=True) as namespace:
            for name, count in partitions.items():
                await namespace.create_topic(name, count)

    asyncio.run(make())


@contextmanager
def running(folder: Path) -> Iterator[Gateways]:
    """Two gateways over FOLDER/store that serve, until the end of the block."""
    gateways = Gateways(folder)
    try:
        for node in range(2):
            gateways.start(node)
        for node in range(2):
            gateways.wait(node)
        yield gateways
    finally:
        gateways.stop()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
