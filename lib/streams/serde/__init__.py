"""Records to frames and back: values, keys, frames as bytes, and dead letters. Columns at a time, never row by row."""

from headwater.streams.serde.dead import Dead, dead_records, dead_rows
from headwater.streams.serde.decode import Decoded, decode
from headwater.streams.serde.encode import encode, encode_by_partition
from headwater.streams.serde.keys import key_array, key_frame
from headwater.streams.serde.packing import pack, unpack

__all__ = [
    "Dead",
    "Decoded",
    "dead_records",
    "dead_rows",
    "decode",
    "encode",
    "encode_by_partition",
    "key_array",
    "key_frame",
    "pack",
    "unpack",
]
