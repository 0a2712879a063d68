"""All cells of a process by family and label values, and what they read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from headwater.meters import families
from headwater.meters.cells import Counter, Distribution, Family, Gauge, Histogram

OTHER: Final = "other"  # stands for all values of a label beyond those that are kept

_Cell = TypeVar("_Cell", Counter, Gauge, Histogram)


class Sample(NamedTuple):
    """One number that a collector tells: of a counter its whole sum, of a gauge what it is."""

    family: Family
    labels: tuple[str, ...]
    value: float


Collector = Callable[[], Iterable[Sample]]


@dataclass(frozen=True, slots=True)
class Reading:
    """A family as it was when somebody looked; see ``headwater.meters`` for the shapes."""

    family: Family
    cells: dict[tuple[str, ...], float | Distribution]

    def total(self, **labels: str) -> float | Distribution:
        """The sum of the cells with these label values: 0.0, or an empty distribution, if there is none."""
        places = [(self.family.labels.index(name), value) for name, value in labels.items()]
        chosen = [cell for key, cell in self.cells.items() if all(key[place] == value for place, value in places)]
        if self.family.kind != "histogram":
            return sum(cell for cell in chosen if isinstance(cell, float | int))
        found = Histogram(self.family.bounds).read()
        for cell in chosen:
            assert isinstance(cell, Distribution)
            found += cell
        return found


class Meters:
    """The cells of one process. Asking twice for a cell gives the same one."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, tuple[str, ...]], Counter] = {}
        self._gauges: dict[tuple[str, tuple[str, ...]], Gauge] = {}
        self._histograms: dict[tuple[str, tuple[str, ...]], Histogram] = {}
        self._kept: dict[str, set[str]] = {}
        self._collectors: dict[object, Collector] = {}

    # -- counting ----------------------------------------------------------------------------------------

    def counter(self, family: Family, *labels: str) -> Counter:
        """The counter of ``family`` with these label values."""
        found = self._counters.get((family.name, labels))
        return self._made(self._counters, family, labels, Counter) if found is None else found

    def gauge(self, family: Family, *labels: str) -> Gauge:
        """The gauge of ``family`` with these label values."""
        found = self._gauges.get((family.name, labels))
        return self._made(self._gauges, family, labels, Gauge) if found is None else found

    def histogram(self, family: Family, *labels: str) -> Histogram:
        """The histogram of ``family`` with these label values."""
        found = self._histograms.get((family.name, labels))
        if found is not None:
            return found
        return self._made(self._histograms, family, labels, lambda: Histogram(family.bounds))

    def collect(self, collector: Collector) -> Callable[[], None]:
        """Ask ``collector`` at every snapshot, until the function that is returned is called.

        It is called on the thread that looks. Samples with the same labels add up. It bounds its labels itself, by
        what there is now: were they remembered here, names long gone would keep new ones out.
        """
        key = object()
        self._collectors[key] = collector

        def leave() -> None:
            self._collectors.pop(key, None)

        return leave

    def _made(
        self,
        cells: dict[tuple[str, tuple[str, ...]], _Cell],
        family: Family,
        labels: tuple[str, ...],
        make: Callable[[], _Cell],
    ) -> _Cell:
        assert len(labels) == len(family.labels), f"{family.name} has the labels {family.labels}"
        # Only what is kept is remembered: were the others remembered as well, their number would be clients' to choose.
        return cells.setdefault((family.name, self._bounded(family, labels)), make())

    def _bounded(self, family: Family, labels: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self._known(name, value) for name, value in zip(family.labels, labels, strict=True))

    def _known(self, label: str, value: str) -> str:
        kept = self._kept.setdefault(label, set())
        if value in kept:
            return value
        if len(kept) >= families.KEPT[label]:
            return OTHER
        kept.add(value)
        return value

    # -- reading -----------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Reading]:
        """Every family by name, with its cells as they are now; shapes in ``headwater.meters``.

        Cost: about 1 us a cell, and what the collectors take.
        """
        found: dict[str, Reading] = {family.name: Reading(family, {}) for family in families.ALL}
        for (name, labels), counter in list(self._counters.items()):
            found[name].cells[labels] = counter.value
        for (name, labels), gauge in list(self._gauges.items()):
            found[name].cells[labels] = gauge.value
        for (name, labels), histogram in list(self._histograms.items()):
            found[name].cells[labels] = histogram.read()
        for collector in list(self._collectors.values()):
            for family, labels, value in collector():
                cells_of = found[family.name].cells
                before = cells_of.get(labels, 0.0)
                assert not isinstance(before, Distribution), "collectors tell numbers"
                cells_of[labels] = before + value
        return found


PROCESS: Final = Meters()
