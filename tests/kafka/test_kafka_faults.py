"""Real clients while gateways are killed and the store refuses, dawdles and loses answers: nothing of it shows.

HEADWATER_FAULT_S says how long there are faults (default 20 s; ``scripts/kafka-faults`` has them for 30 minutes).
Before and after them there is a twentieth of that without any, at most half a minute, to compare what the clients get
done.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from headwater.clock import stopwatch_s
from headwater.log.namespace import Namespace
from headwater.store import open_store
from tests.kafka.helpers_checker import History, check, timeline
from tests.kafka.helpers_fault_clients import DRAIN_S, FAULT_S, KINDS, PARTITIONS, READERS, STALLED_S, WORKED, Clients
from tests.kafka.helpers_fault_diary import cluster, stacks
from tests.kafka.helpers_fault_gateways import Gateways, make_topics, running

CALM_S = min(FAULT_S / 20, 30.0)
TOPICS = ("orders", "done")


@pytest.mark.slow
@pytest.mark.timeout(FAULT_S + 2 * CALM_S + 2 * DRAIN_S + 240)
def test_no_anomaly_shows_while_gateways_die_and_the_store_fails(tmp_path: Path) -> None:
    make_topics(tmp_path, dict.fromkeys(TOPICS, PARTITIONS))
    history = History()
    with running(tmp_path) as gateways:
        clients = Clients(history, gateways.bootstrap)
        rates = _drive(clients, gateways)
        stuck = _finish(clients, tmp_path / "store")
        if stuck or clients.errors:
            _explain(clients, gateways)
    history.log = asyncio.run(_read_all(tmp_path / "store"))
    orders = {value for place, records in history.log.items() if place[0] == "orders" for _, value in records}
    done = Counter(value % WORKED for place, each in history.log.items() if place[0] == "done" for _, value in each)
    print(f"\n{len(orders)} orders, {done.total()} results, {gateways.kills} kills, {gateways.faults()}")
    start_s, cpu_s = gateways.slowest
    print(f"the slowest start took {start_s:.1f} s ({cpu_s:.1f} s of CPU); {gateways.given_up} were given up")
    print(f"transactions: {dict(Counter(history.ends.values()))}\n{rates}", *clients.diary.lines(), sep="\n")
    findings = clients.errors + stuck + check(history)
    if findings:
        print(f"What readers were told and given: {_keep_timeline(history)}")
    assert [] == _some_of_each(findings)
    assert [] == sorted(orders - set(done))[:10]
    assert [] == sorted((Counter(done) - Counter(orders)).items())[:10]
    assert len(orders) > FAULT_S
    assert {"commit"} <= set(history.ends.values())
    assert gateways.kills > FAULT_S / 20


def _drive(clients: Clients, gateways: Gateways) -> str:
    """Peace, faults, peace; what was done of each kind in a second of each, and how long at worst nothing was."""
    pause = threading.Event()
    marks = [(stopwatch_s(), clients.diary.totals())]
    clients.start()
    pause.wait(CALM_S)
    marks.append((stopwatch_s(), clients.diary.totals()))
    gateways.all_again(calm=False)
    gateways.kill_for(FAULT_S)
    marks.append((stopwatch_s(), clients.diary.totals()))
    gateways.all_again(calm=True)
    pause.wait(CALM_S)
    marks.append((stopwatch_s(), clients.diary.totals()))
    still = clients.diary.standstills_s()
    clients.stop_producing()
    lines = []
    for kind in KINDS:
        phases = [
            (totals.get(kind, 0) - before.get(kind, 0)) / (end_s - start_s)
            for (start_s, before), (end_s, totals) in pairwise(marks)
        ]
        before, during, after = (f"{each:.1f}" for each in phases)
        lines.append(f"{kind}: {before}/s before, {during}/s during, {after}/s after; none for {still[kind]:.1f} s")
        if still[kind] > STALLED_S:
            clients.errors.append(f"{kind}: nothing for {still[kind]:.0f} s while there was work")
    return "\n".join(lines)


def _finish(clients: Clients, store: Path) -> list[str]:
    """Let all that is left be done and read, and the clients end; what does not."""
    found = [clients.wait_until_worked()]
    if not found[0]:
        found.append(clients.wait_until_read(asyncio.run(_read_all(store))))
    if not any(found):
        clients.history.caught_up = set(READERS)
        clients.stop()
        found += [f"{each.name} does not end" for each in clients.threads if each.is_alive()]
    return [each for each in found if each]


def _keep_timeline(history: History) -> Path:
    """Write it to a file that outlives the run."""
    handle, path = tempfile.mkstemp(prefix="headwater-faults-", suffix=".txt")
    with open(handle, "w") as file:
        file.write("\n".join(timeline(history)))
    return Path(path)


def _some_of_each(findings: list[str]) -> list[str]:
    """At most five of each kind, so that none hides another one."""
    kinds: Counter[str] = Counter()
    shown = []
    for finding in findings:
        kind = finding.partition(":")[0]
        kinds[kind] += 1
        if kinds[kind] <= 5:
            shown.append(finding)
    return shown + [f"{kind}: {count} in all" for kind, count in kinds.items() if count > 5]


def _explain(clients: Clients, gateways: Gateways) -> None:
    """Print all that clients, gateways and threads can tell of why nothing moves; then let the clients end."""
    print(*stacks(clients.threads), *clients.diary.lines(), sep="\n")
    gateways.tell()
    try:
        print(*cluster(clients.bootstrap, ("workers", *READERS), TOPICS, PARTITIONS), sep="\n")
    except Exception as error:
        print(f"The gateways do not say: {error!r}")
    clients.stop()
    print(*stacks(clients.threads), sep="\n")


async def _read_all(folder: Path) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """The log without any gateway, as a committed reader sees it."""
    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    async with await Namespace.open(open_store(f"file://{folder}"), owns_store=True) as namespace:
        for name in TOPICS:
            for partition in range(PARTITIONS):
                rows = found.setdefault((name, partition), [])
                async for chunk in namespace.reader.chunks(name, partition, 0):
                    placed = chunk.decode()
                    offsets, values = placed.column("offset").to_pylist(), placed.column("value").to_pylist()
                    rows += [(offset, int(value)) for offset, value in zip(offsets, values, strict=True)]
    return found
