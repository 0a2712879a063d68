"""What clients of a fault run did last, what met them, and how much they got done: for rates and post mortems."""

from __future__ import annotations

import sys
import threading
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from headwater.clock import stopwatch_s

LINES = 3  # innermost lines of a stack that are shown


class Diary:
    """Notes of all clients; any thread may write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: dict[str, tuple[str, float]] = {}
        self._errors: dict[str, Counter[str]] = defaultdict(Counter)
        self._last: dict[str, str] = {}
        self._done: Counter[str] = Counter()
        self._moved_s: dict[str, float] = {}
        self._still_s: dict[str, float] = defaultdict(float)

    def step(self, name: str, what: str) -> None:
        """``name`` begins with ``what``."""
        with self._lock:
            self._steps[name] = (what, stopwatch_s())

    def met(self, name: str, error: BaseException | str) -> None:
        """An error that the client goes on after; it is counted under its text."""
        with self._lock:
            text = str(error)[:160]
            self._errors[name][text] += 1
            self._last[name] = text

    def start(self, kinds: Iterable[str]) -> None:
        """From now on these kinds of work are expected to go on."""
        with self._lock:
            self._moved_s = dict.fromkeys(kinds, stopwatch_s())

    def did(self, kind: str, count: int) -> None:
        """``count`` more of a kind of work is done."""
        now_s = stopwatch_s()
        with self._lock:
            self._done[kind] += count
            self._still_s[kind] = max(self._still_s[kind], now_s - self._moved_s.get(kind, now_s))
            self._moved_s[kind] = now_s

    def totals(self) -> dict[str, int]:
        """How much of each kind is done by now."""
        with self._lock:
            return dict(self._done)

    def standstills_s(self) -> dict[str, float]:
        """The longest time in which nothing of a kind was done, up to now."""
        now_s = stopwatch_s()
        with self._lock:
            return {kind: max(self._still_s[kind], now_s - moved_s) for kind, moved_s in self._moved_s.items()}

    def lines(self) -> list[str]:
        """Each client's last step and its errors with their numbers."""
        now_s = stopwatch_s()
        with self._lock:
            found = []
            for name, (what, since_s) in sorted(self._steps.items()):
                found.append(f"{name}: {what}, for {now_s - since_s:.1f} s; last error: {self._last.get(name, 'none')}")
                found += [f"    {count} x {text}" for text, count in self._errors[name].most_common(6)]
            return found


def stacks(threads: Iterable[threading.Thread]) -> list[str]:
    """Where the threads that have not ended are."""
    frames = sys._current_frames()
    found = []
    for thread in threads:
        frame = frames.get(thread.ident or 0)
        if thread.is_alive() and frame is not None:
            calls = [f"{each.name}:{each.lineno}" for each in traceback.extract_stack(frame)[-LINES:]]
            found.append(f"thread {thread.name} runs: {' > '.join(calls)}")
    return found


def cluster(bootstrap: str, groups: Iterable[str], topics: Iterable[str], partitions: int) -> list[str]:
    """What gateways say of partitions, groups and open transactions, through kafka-python's admin client."""
    import kafka as kafka_python
    from kafka.admin import OffsetSpec
    from kafka.protocol.consumer import IsolationLevel

    admin = kafka_python.KafkaAdminClient(bootstrap_servers=bootstrap.split(","), request_timeout_ms=10_000)
    places = [kafka_python.TopicPartition(topic, number) for topic in topics for number in range(partitions)]
    latest = dict.fromkeys(places, OffsetSpec.LATEST)

    def ends() -> list[str]:
        high = admin.list_partition_offsets(latest)
        stable = admin.list_partition_offsets(latest, IsolationLevel.READ_COMMITTED)
        return [f"{at}: high watermark {high[at].offset}, last stable offset {stable[at].offset}" for at in places]

    def producers() -> list[str]:
        return [f"{at}: {each}" for at, each in admin.describe_producers(places).items()]

    def committed() -> list[str]:
        return [f"{group}: {admin.list_group_offsets({group: None})}" for group in groups]

    def members() -> list[str]:
        return [f"{group}: {admin.describe_groups([group])}" for group in groups]

    def transactions() -> list[str]:
        listed = [each for rows in admin.list_transactions().values() for each in rows]
        return [str(admin.describe_transactions([each.transactional_id])) for each in listed]

    try:
        return [line for ask in (ends, producers, committed, members, transactions) for line in _asked(ask)]
    finally:
        admin.close()


def _asked(ask: Callable[[], list[str]]) -> list[str]:
    """What could not be learned is a line, too."""
    try:
        return [f"{ask.__name__}:", *(f"    {line}" for line in ask())]
    except Exception as error:
        return [f"{ask.__name__}: {error!r}"]
