"""What a process counts and measures of itself: for ``/metrics``, for CloudWatch, and for the console.

    MeteredStore, journal, writer, reader, app, gateway, …  ──► Meters ──► snapshot() ──► Prometheus, EMF, console

Every family (a name, its kind, its labels) is in ``headwater.meters.families``; nothing else is ever counted, so that
dashboards and alarms can be checked against that list. A process has one ``Meters``, ``PROCESS``, and whoever wants
figures of its own (a test, a second app) makes another one and hands it to ``Options(meters=…)`` and to the store.

**Reading it.** ``Meters.snapshot()`` gives ``dict[str, Reading]`` by the family's name:

    Reading.family      Family: name, kind ("counter", "gauge", "histogram"), help, labels (names), unit
    Reading.cells       dict from label values (a tuple of str, in the order of ``family.labels``; ``()`` if there are
                        none) to float, or to ``Distribution`` in a histogram
    Reading.total(**labels)   sum of the cells that have these label values; a ``Distribution`` for a histogram
    Distribution        bounds (upper ends, of seconds or of a count), counts (one for each bound and one for what is
                        above all of them, not cumulative), sum, count, ``quantile(0.99)``, ``mean``; ``new - old`` is
                        what came in between, so that a page shows the p99 of the last minute

A family without a cell yet has a reading with no cells. Counters never go back while the process lives; their names
have no ``_total``, which the text format adds. All times are seconds, all sizes bytes.

**Bounds.** A label whose values others choose (a topic, a group) keeps the first so many of them, see
``families.KEPT``; what comes later counts under ``OTHER``. So a snapshot has a bounded size, whatever clients do.

Cost: an observation through a cell that is held takes 0.1 us, through the family 0.3 us, under ``OTHER`` 2 us.
Nothing is locked, since CPython switches threads between calls and never inside the addition that these are. A
collector (``collect``) is asked when somebody looks, and costs nothing before.
"""

from headwater.meters.cells import Counter, Distribution, Family, Gauge, Histogram
from headwater.meters.meters import OTHER, PROCESS, Meters, Reading, Sample

__all__ = [
    "OTHER",
    "PROCESS",
    "Counter",
    "Distribution",
    "Family",
    "Gauge",
    "Histogram",
    "Meters",
    "Reading",
    "Sample",
]
