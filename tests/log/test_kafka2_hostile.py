"""Records that nobody should send: the kafka2 codec answers Corrupt, whatever they are."""

import random
import sys
from typing import Any, Literal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater import limits
from headwater.errors import Corrupt, InvalidRequest
from headwater.log import codec_inflate, codec_kafka2, kafka2
from headwater.log.batch import batch_of_kafka2, decode
from tests.log.test_kafka2 import COMPRESSED, PLAIN, RECORDS, ROW, Row, built, packed, parts, rows_of


def varint(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def record(*fields: int | bytes) -> bytes:
    body = b"".join(varint(field) if isinstance(field, int) else field for field in fields)
    return varint(len(body)) + body


@pytest.mark.parametrize(
    "records",
    [
        b"",
        b"\x80" * 20,
        b"\xff" * 100,
        record(0, 0, 0, -1, -1, 0) + b"\x00",
        record(0, 0, 1, -1, -1, 0),
        record(0, 0, 0, 2**63 - 1, -1, 0),
        record(0, 0, 0, 2**63 - 40, -1, 0),
        record(0, 0, 0, 2**40, -1, 0),
        record(0, 0, 0, -1, 2**63 - 1, 0),
        record(0, 0, 0, -1, -1, -5),
        record(0, 0, 0, -1, -1, 2**62),
        record(0, 0, 0, -1, -1, 1, -1, 0),
        record(0, 0, 0, -1, -1, 1, 2, b"\xff\xff", 0),
        record(0, 0, 0, -1, -1, 3, 0, b"\x81"),
        record(0, 0, 0, -1, -1, 3, b"\x81"),
        varint(7) + record(0, 0, 0, -1, -1, 0)[1:],
        varint(-1) + record(0, 0, 0, -1, -1, 0)[1:],
    ],
    ids=lambda records: records[:12].hex(),
)
def test_hostile_records_are_corrupt(records: bytes) -> None:
    assert 1 == batch_of_kafka2(packed(records)).count
    with pytest.raises(Corrupt):
        decode("kafka2", packed(records), 0)


def test_a_record_in_a_large_batch_may_not_claim_headers_without_bound() -> None:
    count = 10_000_000
    zeros = bytes(2 * count)
    bomb = record(0, 0, 0, -1, -1, count, zeros)
    data = packed(pa.Codec("zstd").compress(bomb, asbytes=True), attributes=4)
    assert len(data) < 10_000
    with pytest.raises(Corrupt, match="a record claims"):
        decode("kafka2", data, 0)


def test_the_headers_of_a_batch_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_kafka2, "BATCH_HEADERS_MAX", 100)
    assert ROW == rows_of(PLAIN, 0)
    with pytest.raises(Corrupt, match="more than 100 headers"):
        decode("kafka2", built([*ROW, ROW[0]]), 0)


def test_the_walk_over_a_large_batch_passes_honest_records() -> None:
    large: list[Row] = [(5, b"k", bytes(3 * limits.MIB), []), (5, None, bytes(6 * limits.MIB), []), (5, None, None, [])]
    assert large == rows_of(built(large), 0)
    with pytest.raises(Corrupt):
        decode("kafka2", packed(parts(built(large))[1] + b"\x80", 3), 0)


@pytest.mark.parametrize("name", COMPRESSED)
def test_decompression_stops_at_the_bound(name: str) -> None:
    codec, body = COMPRESSED[name]
    if codec == 0:
        return
    kind: Any = kafka2.CODECS[codec]
    assert RECORDS == codec_inflate.decompress(kind, memoryview(body), len(RECORDS))
    with pytest.raises(Corrupt, match="once decompressed"):
        codec_inflate.decompress(kind, memoryview(body), len(RECORDS) - 1)


@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4"])
def test_a_bomb_does_not_take_memory(codec: Literal["gzip", "zstd", "lz4"]) -> None:
    bomb = pa.Codec(codec).compress(bytes(200 * limits.MIB), asbytes=True)
    with pytest.raises(Corrupt, match="once decompressed"):
        decode("kafka2", packed(bomb, attributes=kafka2.CODECS.index(codec)), 0)


def test_a_snappy_bomb_is_refused_by_what_it_claims() -> None:
    for claim in (b"\xff\xff\xff\xff\x0f", b"\xff" * 10, b"\x80\x80\x80\x80\x01"):
        with pytest.raises(Corrupt):
            decode("kafka2", packed(claim + b"xyz", attributes=2), 0)


def test_a_chunk_of_many_batches_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_kafka2, "CHUNK_DECODED_BYTES_MAX", 2 * len(RECORDS))
    assert ROW * 2 == rows_of(PLAIN * 2, 0)
    with pytest.raises(Corrupt, match="once decompressed"):
        decode("kafka2", PLAIN * 3, 0)


@given(st.binary(max_size=200))
def test_random_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        decode("kafka2", data, 0)
    with pytest.raises(InvalidRequest):
        batch_of_kafka2(data)


@given(st.binary(max_size=80), st.integers(1, 5), st.sampled_from([0, 1, 2, 3, 4, 8]))
def test_random_records_under_a_right_crc_decode_or_are_corrupt(records: bytes, count: int, attributes: int) -> None:
    try:
        assert count == len(decode("kafka2", packed(records, count, attributes), 0))
    except Corrupt:
        pass


@given(
    st.sampled_from(sorted(COMPRESSED)), st.lists(st.tuples(st.integers(0, 2**20), st.binary(max_size=9)), max_size=4)
)
def test_mutated_records_under_a_right_crc_decode_or_are_corrupt(name: str, changes: list[tuple[int, bytes]]) -> None:
    codec, body = COMPRESSED[name]
    mutated = bytearray(body)
    for at, new in changes:
        at %= len(mutated)
        mutated[at : at + len(new)] = new
    try:
        assert 50 == len(decode("kafka2", packed(bytes(mutated), 50, codec), 0))
    except Corrupt:
        pass


def test_many_single_mutations_decode_or_are_corrupt() -> None:
    small = built([(5, b"k", b"v", [("h", b"1"), ("i", None)]), (6, None, None, [])])
    rng = random.Random(5)
    for at in range(kafka2.HEADER_BYTES, len(small)):
        for new in range(256):
            body = bytearray(small[kafka2.HEADER_BYTES :])
            body[at - kafka2.HEADER_BYTES] = new
            if rng.random() < 0.5:
                del body[rng.randrange(len(body)) :]
            try:
                assert 2 == len(decode("kafka2", packed(bytes(body), 2), 0))
            except Corrupt:
                pass


def test_without_aiokafka_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "aiokafka"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiokafka", None)
    codec_kafka2.aiokafka_record.cache_clear()
    with pytest.raises(InvalidRequest, match=r"pip install 'headwater\[kafka\]'"):
        decode("kafka2", PLAIN, 0)
    assert 50 == batch_of_kafka2(PLAIN).count
