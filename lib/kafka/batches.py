"""Record batches on their way in and out: from a client's bytes to ``Batch``, and what stands for a gap."""

from __future__ import annotations

import struct
from typing import Final

import google_crc32c

from headwater.log import kafka2
from headwater.log.batch import batch_of_kafka2
from headwater.types import Batch, Buffer

_CHECKED: Final = struct.Struct(">hiqqqhii")
_FRONT: Final = struct.Struct(">qiibI")


def batch_from(data: Buffer, *, check_records: bool) -> Batch:
    """The batch in the records of one partition of a Produce request. Raises ``InvalidRequest``.

    ``data`` itself goes into the batch, so nobody may change it any more. ``check_records`` looks into the records, for
    topics whose records must have a key. Cost: the CRC.
    """
    return batch_of_kafka2(data, check_records=check_records)


def is_transactional(data: Buffer) -> bool:
    """Whether the first batch is part of a transaction. ``data`` may be anything."""
    return len(data) >= kafka2.HEADER_BYTES and bool(data[22] & kafka2.TRANSACTIONAL)


def empty_batch(start: int, end: int) -> bytes:
    """A batch without records that takes a reader from ``start`` to ``end``, as Kafka's compaction leaves them."""
    deltas = end - start - 1
    if deltas >= 2**31 - 1:  # a delta is 32 bits wide: a larger gap is two
        middle = start + 2**30
        return empty_batch(start, middle) + empty_batch(middle, end)
    checked = _CHECKED.pack(0, deltas, -1, -1, -1, -1, -1, 0)
    crc = google_crc32c.value(checked)
    return _FRONT.pack(start, kafka2.HEADER_BYTES - 12, -1, kafka2.MAGIC, crc) + checked
