"""What this very process has measured since it started, from its meters. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headwater.meters import Distribution, Reading, families

HOUR_S: Final = 3_600.0
APART_S: Final = 10.0
_FINE: Final = frozenset({"ok", "NotFound", "AlreadyExists", "Conflict"})  # outcomes that are answers, not errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long something took, in ms."""

    what: str
    count: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Requests to the store of one kind."""

    kind: str
    count: int
    failed: int
    p50_ms: float
    p99_ms: float
    dollars: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """``lost`` of ``commits`` and itself went to a slot that was filled: contention.

    ``fetched`` is bytes out, ``records`` how many records these were.
    """

    commits: int
    lost: int
    fetched: int
    records: int
    latencies: Sequence[Latency]
    requests: Sequence[Requests]


@dataclass(frozen=True, slots=True, kw_only=True)
class Out:
    """What this process gave to readers, over the last ``span_s``."""

    span_s: float
    bytes_per_s: float
    records_per_s: float


class Served:
    """Rates out, from what the counters said when somebody looked: readings of the last hour, ten seconds apart."""

    def __init__(self, namespace: object = None) -> None:
        self._seen: deque[tuple[float, int, int]] = deque(maxlen=int(HOUR_S / APART_S))

    def rate(self, now_s: float, nbytes: int, records: int) -> Out | None:
        """The rate since the oldest reading that is known; None at the first look. Keeps this reading."""
        while self._seen and self._seen[0][0] < now_s - HOUR_S:
            self._seen.popleft()
        first = self._seen[0] if self._seen else None
        if not self._seen or now_s >= self._seen[-1][0] + APART_S:
            self._seen.append((now_s, nbytes, records))
        if first is None or now_s < first[0] + 1.0:
            return None
        span_s = now_s - first[0]
        return Out(span_s=span_s, bytes_per_s=(nbytes - first[1]) / span_s, records_per_s=(records - first[2]) / span_s)


def process(found: Mapping[str, Reading], namespace: str) -> Process:
    """What a snapshot says of ``namespace``, and of the store, which all namespaces share."""
    spans = (
        ("commit", families.COMMIT_SECONDS),
        ("produce", families.PRODUCE_SECONDS),
        ("fetch", families.FETCH_SECONDS),
    )
    latencies = []
    for what, family in spans:
        spent = found[family.name].total(namespace=namespace)
        assert isinstance(spent, Distribution)
        if spent.count:
            latencies.append(Latency(what=what, count=spent.count, p50_ms=_ms(spent, 0.5), p99_ms=_ms(spent, 0.99)))
    return Process(
        commits=_count(found, families.COMMITS.name, namespace=namespace),
        lost=_count(found, families.COMMITS_LOST.name, namespace=namespace),
        fetched=_count(found, families.FETCHED_BYTES.name, namespace=namespace),
        records=_count(found, families.FETCHED_RECORDS.name, namespace=namespace),
        latencies=latencies,
        requests=_requests(found),
    )


def _requests(found: Mapping[str, Reading]) -> list[Requests]:
    sent = found[families.STORE_REQUESTS.name]
    rows = []
    for kind in sorted({key[0] for key in sent.cells}):
        spent = found[families.STORE_SECONDS.name].total(kind=kind)
        paid = found[families.STORE_DOLLARS.name].total(kind=kind)
        assert isinstance(spent, Distribution)
        assert not isinstance(paid, Distribution)
        outcomes: dict[str, int] = {}
        for key, cell in sent.cells.items():
            if key[0] == kind and not isinstance(cell, Distribution):
                outcomes[key[2]] = outcomes.get(key[2], 0) + int(cell)
        rows.append(
            Requests(
                kind=kind,
                count=sum(outcomes.values()),
                failed=sum(count for outcome, count in outcomes.items() if outcome not in _FINE),
                p50_ms=_ms(spent, 0.5),
                p99_ms=_ms(spent, 0.99),
                dollars=paid,
            )
        )
    return rows


def _ms(spent: Distribution, part: float) -> float:
    return spent.quantile(part) * 1_000


def _count(found: Mapping[str, Reading], name: str, **labels: str) -> int:
    total = found[name].total(**labels)
    assert not isinstance(total, Distribution)
    return int(total)
