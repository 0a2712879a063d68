"""What a gateway counts of its clients' requests. The cells are held, so that counting one takes well under a us.

What the gateway knows anyway (connections, bytes that it holds, its shelves) is looked up when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kio.schema.errors import ErrorCode

from headwater import lines
from headwater.kafka import schema
from headwater.meters import Meters, Sample, families

if TYPE_CHECKING:
    from headwater.kafka.gateway import Gateway

PRODUCE, FETCH, SHARE_FETCH = 0, 1, 78


class Figures:
    """The counters of one gateway. ``received`` and ``sent`` are bytes."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._apis: dict[int, ApiFigures] = {}
        self.received = meters.counter(families.KAFKA_RECEIVED)
        self.sent = meters.counter(families.KAFKA_SENT)
        self.disconnects = meters.counter(families.KAFKA_DISCONNECTS)

    def api(self, number: int) -> ApiFigures:
        """Those of one API that is served."""
        found = self._apis.get(number)
        if found is None:
            found = self._apis[number] = ApiFigures(self._meters, number)
        return found


class ApiFigures:
    """The counters of one API, by the name that Kafka gives it."""

    __slots__ = ("_meters", "_ok", "_seconds", "name")

    def __init__(self, meters: Meters, number: int) -> None:
        first, _ = schema.versions(number)
        self.name = schema.message(number, first, "request").name.removesuffix("Request")
        self._meters = meters
        self._ok = meters.counter(families.KAFKA_REQUESTS, self.name, ErrorCode.none.name)
        self._seconds = meters.histogram(families.KAFKA_SECONDS, self.name)

    def answered(self, seconds: float, code: int = 0) -> None:
        """A request has its answer, with an error for all of it or with none."""
        self._seconds.observe(seconds)
        if code:
            self._meters.counter(families.KAFKA_REQUESTS, self.name, ErrorCode(code).name).add()
        else:
            self._ok.add()

    def refused(self, code: int) -> None:
        """A partition in an answer has an error."""
        name = ErrorCode(code).name
        self._meters.counter(families.KAFKA_PARTITION_ERRORS, self.name, name).add()
        lines.refused(name)

    def throttled(self, ms: float) -> None:
        """A request waits, or is to wait, since its client's quota is used up."""
        self._meters.histogram(families.KAFKA_THROTTLE_SECONDS, self.name).observe(ms / 1_000)


def looked_up(gateway: Gateway) -> Iterator[Sample]:
    """What is not counted but there to be seen; for ``Meters.collect``."""
    yield Sample(families.KAFKA_CONNECTIONS, (), len(gateway.connections))
    yield Sample(families.KAFKA_PAUSED, (), len(gateway.paused))
    yield Sample(families.KAFKA_HELD, (), gateway.held_bytes)
    for shelf in gateway.shelves():
        labels = (shelf.namespace.name,)
        yield Sample(families.SHELF_HITS, labels, shelf.hits)
        yield Sample(families.SHELF_MISSES, labels, shelf.misses)
        yield Sample(families.SHELF_BYTES, labels, shelf.size)
