"""Record batches as share groups take them: which offsets lie in which bytes, and words about records. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from kio.schema.errors import ErrorCode

from headwater.groups.share_partition import RENEW, TYPES, Said
from headwater.kafka.errors import Refusal
from headwater.kafka.messages import Fields
from headwater.types import Buffer

_SIZE_END: Final = 12  # base offset and length come before what the length counts
_HEAD: Final = struct.Struct(">qi11xi30xi")  # base offset, length, last offset delta, records


@dataclass(frozen=True, slots=True)
class Extent:
    """A batch's bytes ``[start, end)`` and its offsets ``[base, next)``. ``records`` may be fewer, or none."""

    start: int
    end: int
    base: int
    next: int
    records: int


def extents(data: Buffer) -> Iterator[Extent]:
    """The batches that lie back to back in bytes from the log. Cost: 1 us each."""
    start = 0
    while start < len(data):
        base, length, delta, records = _HEAD.unpack_from(data, start)
        end = start + _SIZE_END + length
        assert start < end <= len(data), "the batches were checked before"
        yield Extent(start, end, base, base + delta + 1, records)
        start = end


def said_in(batches: Sequence[Fields], *, may_renew: bool) -> list[Said]:
    """What a request says of records, in runs that say the same.

    Raises ``Refusal`` for what makes no sense in itself.
    """
    found: list[Said] = []
    last = -1
    for batch in batches:
        first, end, types = batch["first_offset"], batch["last_offset"] + 1, batch["acknowledge_types"]
        if not 0 <= first < end or first <= last:
            raise _invalid(f"Offsets {first} to {end - 1} are not above those before them.")
        if len(types) not in (1, end - first):
            raise _invalid(f"{end - first} records have one acknowledgement for all, or one each, not {len(types)}.")
        for kind in set(types):
            if kind not in TYPES or (kind == RENEW and not may_renew):
                raise _invalid(f"Acknowledgement {kind} is none that may be said here.")
        last = end - 1
        if len(types) == 1:
            found.append(Said(first, end, types[0]))
            continue
        for kind, run in groupby(types):
            size = len(list(run))
            found.append(Said(first, first + size, kind))
            first += size
    return found


def _invalid(message: str) -> Refusal:
    return Refusal(ErrorCode.invalid_request, message)
