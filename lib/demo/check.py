"""Reads a topic back and holds it to its source, row by row, a whole batch at a time.

Every row with a key must be in the partition that Kafka's partitioner names, in the order of the source, and
nothing else between; the rows without a key must be somewhere, each once, in order within a partition.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headwater.clock import stopwatch_s
from headwater.demo.source import Source
from headwater.errors import HeadwaterError


class Mismatch(HeadwaterError):
    """What was read is not what the source holds."""

    what_now = "Run `headwater verify`; if it is clean, this is a bug worth reporting."


class Check:
    """The rows of one topic that are still to be seen. Feed it every partition's batches in order, then ``finish``."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.seen = 0
        self.spent_s = 0.0
        places = source.places()
        # The numbers of the rows that each partition must hold, in order, and of those that may be anywhere.
        self._due = [pc.indices_nonzero(pc.equal(places, pa.scalar(p, pa.int32()))) for p in range(source.partitions)]
        self._position = [0] * source.partitions
        keyless = pc.indices_nonzero(pc.is_null(places))
        self._keyless = self._expected(keyless)
        self._found: list[Any] = []
        self._newest = [-1] * source.partitions

    def feed(self, partition: int, rows: pa.RecordBatch) -> None:
        """Check the next rows of a partition. Raises ``Mismatch``."""
        started = stopwatch_s()
        keyed = pc.is_valid(rows.column("key"))
        self._feed_keyed(partition, rows.filter(keyed))
        self._feed_keyless(partition, rows.filter(pc.invert(keyed)))
        self.seen += rows.num_rows
        self.spent_s += stopwatch_s() - started

    def finish(self) -> None:
        """Every row of the source was there, and no other. Raises ``Mismatch``."""
        short = [p for p, due in enumerate(self._due) if self._position[p] != len(due)]
        if short:
            raise self._mismatch(short[0], "rows of the source are missing")
        found = pa.concat_arrays(self._found) if self._found else pa.array([], pa.int32())
        if len(found) != self._keyless.num_rows or len(pc.unique(found)) != self._keyless.num_rows:
            raise self._mismatch(-1, "rows without a key are missing or doubled")
        assert self.seen == len(self.source), "every row was one of these"

    def _feed_keyed(self, partition: int, rows: pa.RecordBatch) -> None:
        start = self._position[partition]
        due = self._due[partition].slice(start, rows.num_rows)
        if len(due) != rows.num_rows:
            raise self._mismatch(partition, "there are more rows than in the source")
        if rows.num_rows:
            expected = self._expected(due)
            for name in ("timestamp", "key", "value"):
                if not _same(rows.column(name), expected.column(name)):
                    raise self._mismatch(partition, f"a {name} differs from the source's", rows)
        self._position[partition] = start + rows.num_rows

    def _feed_keyless(self, partition: int, rows: pa.RecordBatch) -> None:
        if not rows.num_rows:
            return
        at: Any = pc.index_in(rows.column("value"), value_set=self._keyless.column("value"))
        if at.null_count:
            raise self._mismatch(partition, "a row without a key is not in the source", rows)
        expected = self._keyless.take(at)
        if not _same(rows.column("timestamp"), expected.column("timestamp")):
            raise self._mismatch(partition, "a timestamp differs from the source's", rows)
        order = [self._newest[partition], *at.to_pylist()]
        if any(later <= earlier for earlier, later in pairwise(order)):
            raise self._mismatch(partition, "rows without a key are out of order", rows)
        self._newest[partition] = order[-1]
        self._found.append(at)

    def _expected(self, numbers: Any) -> pa.RecordBatch:
        source = self.source
        table = source.records(source.table.take(numbers), source.times.take(numbers))
        columns = [
            _whole(table.column("timestamp")),
            _whole(table.column("key")).cast(pa.binary()),
            _whole(table.column("value")).cast(pa.binary()),
        ]
        return pa.RecordBatch.from_arrays(columns, names=["timestamp", "key", "value"])

    def _mismatch(self, partition: int, what: str, rows: pa.RecordBatch | None = None) -> Mismatch:
        where = f" partition {partition}" if partition >= 0 else ""
        near = f" near offset {rows.column('offset')[0].as_py()}" if rows is not None else ""
        return Mismatch(f"Topic {self.source.topic!r}{where}{near}: {what}.")


def _same(actual: Any, expected: Any) -> bool:
    if pa.types.is_timestamp(actual.type):
        actual = actual.view(pa.int64())
    return bool(actual.equals(expected))


def _whole(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
