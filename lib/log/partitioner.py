"""Which partition a record belongs to: Kafka's default partitioner, so that other clients agree on each key.

A key goes to ``(murmur2(key) & 0x7fffffff) % partitions``. Records without a key go together to one "sticky"
partition at a time, which makes fewer and larger batches (KIP-480).

Hashing a column works on whole columns of 32-bit words (`pyarrow.compute` wraps around on unsigned integers),
one group of equally long distinct keys at a time, since Arrow's bytes of such a group lie in a regular grid.
"""

from __future__ import annotations

import random
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from headwater.log.small import murmur2, partition_of

__all__ = ["Sticky", "grouped", "murmur2", "partition_of", "partitions_of", "split"]

_M = 0x5BD1E995
_SEED = 0x9747B28C
_R = 24
_MASK = 0xFFFFFFFF
_GROUP_MIN = 64  # keys of one length; fewer are hashed faster one by one
_WORDS_MAX = 256  # longer keys too: the cost of a call is nothing against their bytes


def partitions_of(keys: pa.Array[Any] | pa.ChunkedArray[Any], partitions: int) -> pa.Array[Any]:
    """The partition (int32) of each key of a binary or string column; null where the key is null.

    Cost: about 15 ns for a key that repeats, 130 ns for a distinct one of 16 bytes, 400 ns if lengths vary widely.
    """
    assert partitions >= 1, partitions
    column: Any = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
    if not len(column):
        return pa.array([], pa.int32())
    encoded = column.cast(pa.binary()).dictionary_encode()
    chosen = _modulo(pc.bit_wise_and(_hashes(encoded.dictionary), _u32(0x7FFFFFFF)), partitions)
    return cast("pa.Array[Any]", chosen.take(encoded.indices))


def split(table: pa.Table, partitions: int, sticky: int) -> dict[int, pa.Table]:
    """The rows of ``table`` by the partition of their ``key``, each in its old order; no empty tables.

    Rows without a key go to ``sticky``. Cost: the hashing, one stable sort and one gather of the rows.
    """
    if "key" not in table.schema.names or table.column("key").null_count == table.num_rows:
        return {sticky: table} if table.num_rows else {}
    return grouped(table, pc.fill_null(partitions_of(table.column("key"), partitions), pa.scalar(sticky, pa.int32())))


def grouped(table: pa.Table, chosen: Any) -> dict[int, pa.Table]:
    """The rows of ``table`` by what ``chosen`` (int32, one for each row) says, each group in its old order."""
    counts = sorted((entry["values"], entry["counts"]) for entry in pc.value_counts(chosen).to_pylist())
    if len(counts) == 1:
        return {counts[0][0]: table}
    ordered = table.take(pc.array_sort_indices(chosen))  # a stable sort
    result = {}
    start = 0
    for partition, count in counts:
        result[partition] = ordered.slice(start, count)
        start += count
    return result


class Sticky:
    """The partition for records without a key: one until ``batch_bytes`` went there, then another (KIP-480)."""

    def __init__(self, batch_bytes: int, rng: random.Random) -> None:
        self._batch_bytes = batch_bytes
        self._rng = rng
        self._partition = -1
        self._given = 0

    def take(self, partitions: int, nbytes: int) -> int:
        """The partition, of ``partitions`` there are now, for the next ``nbytes`` bytes of records."""
        if not 0 <= self._partition < partitions or self._given >= self._batch_bytes:
            self._partition = self._another(partitions)
            self._given = 0
        self._given += nbytes
        return self._partition

    def _another(self, partitions: int) -> int:
        if partitions == 1 or not 0 <= self._partition < partitions:
            return self._rng.randrange(partitions)
        return (self._partition + self._rng.randrange(1, partitions)) % partitions


def _hashes(keys: Any) -> Any:
    """The hashes (uint32) of ``keys``, a binary array without nulls."""
    lengths = pc.binary_length(keys)
    groups = pc.value_counts(lengths).to_pylist()
    if len(groups) == 1:
        return _hash_group(keys, groups[0]["values"])
    parts = [pa.array([], pa.uint32())]
    order = pc.array_sort_indices(lengths)
    start = 0
    for group in sorted(groups, key=lambda group: int(group["values"])):
        parts.append(_hash_group(keys.take(order.slice(start, group["counts"])), group["values"]))
        start += group["counts"]
    return pa.concat_arrays(parts).take(pc.array_sort_indices(order))


def _hash_group(keys: Any, length: int) -> Any:
    if len(keys) < _GROUP_MIN or length > 4 * _WORDS_MAX:
        return pa.array([murmur2(key) & _MASK for key in keys.to_pylist()], pa.uint32())
    m, r = _u32(_M), _u32(_R)
    h: Any = pa.repeat(_u32(_SEED ^ length), len(keys))
    for at in range(0, length - 3, 4):
        k = pc.multiply(_words(keys, at, 4), m)
        k = pc.bit_wise_xor(k, pc.shift_right(k, r))
        h = pc.bit_wise_xor(pc.multiply(h, m), pc.multiply(k, m))
    if length & 3:
        h = pc.multiply(pc.bit_wise_xor(h, _tail(keys, length)), m)
    h = pc.multiply(pc.bit_wise_xor(h, pc.shift_right(h, _u32(13))), m)
    return pc.bit_wise_xor(h, pc.shift_right(h, _u32(15)))


def _tail(keys: Any, length: int) -> Any:
    """The last one to three bytes of each key as a little-endian number."""
    at = length & ~3
    if length & 3 == 1:
        return _words(keys, at, 1)
    low = _words(keys, at, 2)
    if length & 3 == 2:
        return low
    return pc.bit_wise_or(low, pc.shift_left(_words(keys, at + 2, 1), _u32(16)))


def _words(keys: Any, at: int, width: int) -> Any:
    """``width`` bytes at byte ``at`` of each key, which all reach that far, as uint32."""
    data = pc.binary_slice(keys, at, at + width).buffers()[2]
    kind = {1: pa.uint8(), 2: pa.uint16(), 4: pa.uint32()}[width]
    words: Any = pa.Array.from_buffers(kind, len(keys), [None, data])
    return words if width == 4 else words.cast(pa.uint32())


def _modulo(numbers: Any, divisor: int) -> Any:
    whole = pc.multiply(pc.divide(numbers, _u32(divisor)), _u32(divisor))
    return pc.subtract(numbers, whole).cast(pa.int32())


def _u32(value: int) -> Any:
    return pa.scalar(value, pa.uint32())
