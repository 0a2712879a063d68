"""Bytes that nobody should send: the arrow codec answers Corrupt, whatever they are."""

import struct

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import Corrupt
from headwater.log import codec_arrow
from headwater.log.batch import RECORD_SCHEMA, batch_of_records, decode, records_of
from headwater.types import Record

SEED = batch_of_records(
    [Record(value=b"value" * 300, key=b"k", timestamp=i, headers=(("h", b"1"),)) for i in range(3)],
    default_timestamp=0,
    compression="lz4",
).data
PLAIN = batch_of_records([Record(value=b"v", key=b"k", timestamp=5, headers=(("h", b"1"),))], default_timestamp=0).data


def stream(schema: pa.Schema, *batches: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def decodes_or_is_corrupt(data: bytes) -> None:
    try:
        decoded = decode("arrow", data, 0)
        list(records_of("t", 0, decoded))
    except Corrupt:
        pass


@given(st.binary(max_size=300))
def test_random_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        decode("arrow", data, 0)


@given(st.sampled_from([SEED, PLAIN]), st.lists(st.tuples(st.integers(0, 5_000), st.binary(max_size=9)), max_size=5))
def test_mutated_arrow_decodes_or_is_corrupt(data: bytes, changes: list[tuple[int, bytes]]) -> None:
    mutated = bytearray(data)
    for at, new in changes:
        at %= len(mutated)
        mutated[at : at + len(new)] = new
    decodes_or_is_corrupt(bytes(mutated))


def test_every_flipped_byte_decodes_or_is_corrupt() -> None:
    for data in (SEED, PLAIN):
        for at in range(len(data)):
            for mask in (0x01, 0x80, 0xFF):
                mutated = bytearray(data)
                mutated[at] ^= mask
                decodes_or_is_corrupt(bytes(mutated))


def test_every_cut_off_stream_is_corrupt() -> None:
    data = PLAIN + SEED
    for end in set(range(len(data))) - {len(PLAIN)}:
        with pytest.raises(Corrupt):
            decode("arrow", data[:end], 0)


def test_a_first_message_that_claims_another_type_is_corrupt() -> None:
    """Found by fuzzing: pyarrow takes the process down when it is asked for the schema of such a message."""
    source = pa.BufferReader(PLAIN)
    pa.ipc.read_message(source)
    schema_end = source.tell()
    claims = 0
    for at in range(8, schema_end):
        data = PLAIN[:at] + bytes([PLAIN[at] ^ 0xFF]) + PLAIN[at + 1 :]
        try:
            claims += pa.ipc.read_message(data).type == "unknown"
        except (pa.ArrowException, OSError):
            pass
        decodes_or_is_corrupt(data)
    assert claims >= 1
    with pytest.raises(Corrupt, match="begins with a record batch message"):
        decode("arrow", PLAIN[schema_end:-8] * 2 + codec_arrow.END_OF_STREAM, 0)


def test_other_columns_and_other_messages_are_corrupt() -> None:
    row = pa.record_batch({"timestamp": [1], "value": [b"v"]})
    with pytest.raises(Corrupt, match="other columns"):
        decode("arrow", stream(row.schema, row), 0)
    with pytest.raises(Corrupt, match="cut off"):
        decode("arrow", stream(RECORD_SCHEMA), 0)


def test_text_that_is_not_utf8_is_corrupt() -> None:
    data = batch_of_records([Record(value=b"", headers=(("a key", b""),))], default_timestamp=0).data
    assert 1 == data.count(b"a key")
    with pytest.raises(Corrupt):
        decode("arrow", data.replace(b"a key", b"a \xffey"), 0)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    claimed = 3_000_000_000
    value = SEED.rindex(struct.pack("<q", 4_500))  # in front of the compressed values
    bomb = SEED[:value] + struct.pack("<q", claimed) + SEED[value + 8 :]
    with pytest.raises(Corrupt, match="exceeds the bounds"):
        decode("arrow", bomb, 0)


def test_a_chunk_of_many_batches_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_arrow, "CHUNK_DECODED_BYTES_MAX", 12_000)
    assert 6 == len(decode("arrow", SEED * 2, 0))
    with pytest.raises(Corrupt, match="exceeds the bounds"):
        decode("arrow", SEED * 3, 0)
