"""The things that hold one number, or one distribution, and the description of a family of them."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

# Upper ends of buckets in seconds: 1-2.5-5 from half a millisecond (memory) to two minutes (a commit gives up).
SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
# … and of counts, up to what a manifest may hold.
COUNTS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: every cell of it has the same meaning and differs in its label values only.

    ``unit``, if there is one, is the last part of the name (OpenMetrics 1.0). ``bounds`` are a histogram's buckets.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    bounds: tuple[float, ...] = SECONDS


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1) -> None:
        """Count ``amount``, which is not negative."""
        self.value += amount


class Gauge:
    """A number that goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def set(self, value: float) -> None:
        """It is ``value`` now."""
        self.value = value

    def add(self, amount: float) -> None:
        """Change it by ``amount``."""
        self.value += amount


class Histogram:
    """How often something was how large, in fixed buckets."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Note one ``value``; it belongs to the first bucket whose upper end is not below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def read(self) -> Distribution:
        """What was seen up to now."""
        return Distribution(self.bounds, tuple(self.counts), self.sum)


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a histogram has seen: ``counts[i]`` values up to ``bounds[i]`` and above the bound before it."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Their mean; 0 if there was none."""
        return self.sum / self.count if self.count else 0.0

    def quantile(self, part: float) -> float:
        """The value that ``part`` (0 to 1) of them do not exceed, 0 if there was none.

        Inside a bucket values are taken to lie evenly, as Prometheus's ``histogram_quantile`` does; of what lies above
        the last bound no more is known than that.
        """
        rank, below = part * self.count, 0
        for index, found in enumerate(self.counts[:-1]):
            if found and below + found >= rank:
                low = self.bounds[index - 1] if index else 0.0
                return low + (self.bounds[index] - low) * (rank - below) / found
            below += found
        return self.bounds[-1] if self.counts[-1] else 0.0

    def __add__(self, other: Distribution) -> Distribution:
        assert self.bounds == other.bounds, "distributions of one family"
        return Distribution(
            self.bounds, tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)), self.sum + other.sum
        )

    def __sub__(self, other: Distribution) -> Distribution:
        """What has come since ``other`` was read."""
        assert self.bounds == other.bounds, "distributions of one family"
        return Distribution(
            self.bounds, tuple(a - b for a, b in zip(self.counts, other.counts, strict=True)), self.sum - other.sum
        )
