"""Hostile bytes at every decoder of the log's objects: nothing but ``Corrupt`` ever comes out."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.errors import Corrupt, UpgradeRequired
from headwater.limits import HEADER_BYTES_MAX, OBJECT_BYTES_MAX, PAYLOAD_ALIGN
from headwater.log import frame, index, snapshot, tags
from headwater.log.intents import (
    Intent,
    Manifest,
    SegmentHeader,
    decode_manifest,
    decode_segment,
    encode_manifest,
    encode_segment,
)
from headwater.log.operations import (
    AclRule,
    AddPartitions,
    AlterTopic,
    ChangeAcls,
    Chunk,
    CommitOffsets,
    CreateTopic,
    DeleteGroup,
    DeleteOffsets,
    DeleteTopic,
    DropScram,
    EndJoin,
    EndReserve,
    EndTransaction,
    ExpireOffsets,
    ExpireReserve,
    InitProducer,
    JoinClassic,
    JoinGroup,
    LeaveGroup,
    OffsetEntry,
    Once,
    RaiseFloor,
    ReleasePartitions,
    Reserve,
    ReserveOffsets,
    RevokeKey,
    SetKey,
    SetQuota,
    SyncClassic,
    TrimLog,
)
from headwater.log.state import PageRef, State
from tests.log.helpers import Fold, chunk
from tests.log.helpers_groups import scram_op

CORPUS = Path(__file__).parent / "corpus"
RELAXED = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))

EVERY_OP: list[Any] = [
    CreateTopic(name="tö", partitions=3, config={"retention.ms": "1"}),
    DeleteTopic(topic=1),
    AddPartitions(topic=1, total=9),
    AlterTopic(topic=1, config={"a": None, "b": "c"}),
    TrimLog(topic=1, partition=0, before=9),
    InitProducer(tid="x", pid=3, epoch=4),
    InitProducer(tid="x", timeout_ms=9),
    InitProducer(),
    EndTransaction(pid=3, epoch=4),
    Reserve(pid=3, epoch=4, timeout_ms=5),
    EndReserve(pid=3, epoch=4, commit=True),
    EndReserve(pid=3, epoch=4, commit=False, bump=False),
    EndReserve(pid=3, epoch=4, commit=True, after=2, brings=True),
    ReserveOffsets(pid=3, epoch=4, timeout_ms=5, offsets=CommitOffsets(group="g", offsets=[OffsetEntry(1, 0, 5)])),
    ExpireReserve(pid=3),
    CommitOffsets(group="g", offsets=[OffsetEntry(1, 0, 5, "m", 7), OffsetEntry(1, 1, 5)], generation=1, member="m"),
    DeleteOffsets(group="g", partitions=[(1, 0)]),
    ExpireOffsets(group="g", idle_ms=5),
    JoinGroup(group="g", member="m", topics=["t"], epoch=3, instance="i", assignor="range", client="c", as_of=4),
    ReleasePartitions(group="g", member="m", partitions=[(1, 0)]),
    LeaveGroup(group="g", member="m", reason="why"),
    JoinClassic(group="g", member="m", protocol_type="consumer", protocols=[("range", "bWV0YQ==")], delay_ms=3),
    EndJoin(group="g", generation=2),
    SyncClassic(group="g", member="m", generation=2, assignments={"m": "eA=="}),
    DeleteGroup(group="g"),
    ChangeAcls(add=[AclRule("p", "read", "topic", "t", "prefix", False)], remove=[AclRule("p", "all", "cluster", "*")]),
    SetKey(key="key1", hash="a" * 64, principal="p", scopes=[AclRule("p", "read", "topic", "t")], expires_ms=9),
    RevokeKey(key="key1"),
    SetQuota(principal="p", requests_per_s=5),
    scram_op(),
    DropScram(user="u", mechanism="SCRAM-SHA-512"),
    Once(key="k", request="r"),
    RaiseFloor(floor=3),
]
PAYLOAD = bytes(range(256)) * 2


def a_manifest() -> Manifest:
    inline = chunk(obj="", pos=4_096, len=100, pid=5, epoch=1, seq=9)
    return Manifest(
        v=1,
        kind="manifest",
        seq=7,
        id="abcd",
        writer="w",
        time=9,
        intents=[Intent(id="idid", tip=6, appends=[inline, chunk()], ops=EVERY_OP)],
        merged=["segment/x"],
    )


def manifest_bytes() -> bytes:
    return encode_manifest(a_manifest(), len(PAYLOAD), 4_096) + PAYLOAD


def segment_bytes() -> bytes:
    header = SegmentHeader(v=1, kind="segment", writer="w", intents=[Intent(id="idid", tip=6, ops=EVERY_OP)])
    return encode_segment(header, len(PAYLOAD)) + PAYLOAD


def page_bytes() -> bytes:
    fold = Fold()
    fold.topic(partitions=2)
    fold.done(chunk(count=3), chunk(partition=1), chunk())
    sealed = index.seal(fold.state)
    assert sealed is not None
    return sealed[1]


def snapshot_bytes() -> bytes:
    fold = Fold()
    fold.topic(partitions=2)
    pid = fold.producer("x")
    fold.done(chunk(pid=pid, epoch=0, seq=0), chunk(partition=1))
    fold.done(CommitOffsets(group="g", offsets=[OffsetEntry(1, 0, 1)]))
    fold.done(Reserve(pid=pid, epoch=0, timeout_ms=5), chunk(pid=pid, epoch=0))
    return snapshot.encode(fold.state)


def read_page(data: bytes) -> object:
    header, base = index.decode_header(data)
    return [index.decode_run(run, data[base + run.pos : base + run.pos + run.len]) for run in header.runs]


DECODERS: dict[str, tuple[Callable[[], bytes], Callable[[bytes], object]]] = {
    "frame": (manifest_bytes, frame.decode),
    "frame_beginning": (manifest_bytes, lambda data: frame.decode(data, whole=False)),
    "header_bytes": (manifest_bytes, frame.header_bytes),
    "manifest": (manifest_bytes, lambda data: decode_manifest(data, 7)),
    "segment": (segment_bytes, decode_segment),
    "segment_beginning": (segment_bytes, lambda data: decode_segment(data, whole=False)),
    "snapshot": (snapshot_bytes, lambda data: snapshot.decode(data, 5)),
    "latest": (lambda: snapshot.encode_latest(5), snapshot.decode_latest),
    "index": (page_bytes, read_page),
}
every_decoder = pytest.mark.parametrize("name", DECODERS)


def only_corrupt(decode: Callable[[bytes], object], data: bytes) -> None:
    try:
        decode(data)
    except Corrupt:
        pass


def sealed(json: bytes, payload: bytes = b"") -> bytes:
    """A frame whose line is right, whatever stands in it."""
    return frame.encode(json, len(payload)) + payload


@every_decoder
def test_valid_bytes_are_read(name: str) -> None:
    make, decode = DECODERS[name]
    decode(make())


@every_decoder
@RELAXED
@given(data=st.binary(max_size=300))
def test_random_bytes_are_corrupt(name: str, data: bytes) -> None:
    with pytest.raises(Corrupt):
        DECODERS[name][1](data)


@every_decoder
@RELAXED
@given(seed=st.integers(0, 2**32))
def test_mutated_bytes_are_corrupt_or_read(name: str, seed: int) -> None:
    make, decode = DECODERS[name]
    rng = random.Random(seed)
    data = bytearray(make())
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.choice([1, 8, 100])]
            case 2:
                data[at:at] = rng.choice([b"0", b"\n", b"{", b'"', bytes(rng.randrange(64))])
            case _:
                data[at:at] = data[: rng.randrange(len(data))]
        data = data or bytearray(b"x")
    only_corrupt(decode, bytes(data))


@every_decoder
@RELAXED
@given(seed=st.integers(0, 2**32))
def test_mutated_headers_with_a_right_checksum_are_corrupt_or_read(name: str, seed: int) -> None:
    """The CRC keeps accidents out; this is what a buggy or hostile writer could put behind a right one."""
    make, decode = DECODERS[name]
    rng = random.Random(seed)
    data = make()
    line, base = frame.decode(data)
    json = bytearray(line.rstrip())
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(1, len(json))
        match rng.randrange(5):
            case 0:
                json[at] = rng.randrange(256)
            case 1:
                json[at : at + 1] = rng.choice([b"-", b"9" * 30, b"1e999", b"null", b"[", b"{}", b'"', b"\\ud800"])
            case 2:
                del json[at : at + rng.choice([1, 2, 10])]
            case 3:
                json[at:at] = b"[" * rng.choice([1, 100, 5_000])
            case _:
                json[at:at] = json[at : at + rng.choice([1, 10, 50])]
    only_corrupt(decode, sealed(bytes(json), data[base:]))


@every_decoder
def test_every_truncation_of_the_line_is_corrupt(name: str) -> None:
    make, decode = DECODERS[name]
    data = make()
    _, base = frame.decode(data)
    ends = range(frame.PREFIX_BYTES) if name == "header_bytes" else range(base)
    for end in ends:
        with pytest.raises(Corrupt):
            decode(data[:end])


@pytest.mark.parametrize("make", [manifest_bytes, segment_bytes, snapshot_bytes, page_bytes])
def test_a_byte_more_or_less_is_found_in_the_whole_object(make: Callable[[], bytes]) -> None:
    data = make()
    for wrong in (data[:-1], data + b"\n", data + data):
        with pytest.raises(Corrupt):
            frame.decode(wrong)


def test_every_flip_of_a_bit_in_a_line_is_found() -> None:
    data = manifest_bytes()
    _, base = frame.decode(data)
    for at in range(base):
        for bit in range(8):
            wrong = bytearray(data)
            wrong[at] ^= 1 << bit
            with pytest.raises(Corrupt):
                decode_manifest(bytes(wrong), 7)


def test_every_changed_byte_in_a_snapshot_or_an_index_run_is_found() -> None:
    for make, decode in (DECODERS["snapshot"], DECODERS["index"]):
        data = make()
        for at in range(len(data)):
            wrong = bytearray(data)
            wrong[at] ^= 0x20
            with pytest.raises(Corrupt):
                decode(bytes(wrong))


# -- what only a newer program could have written (R9) ---------------------------------------------------


def plain(data: bytes) -> tuple[dict[str, Any], bytes]:
    line, base = frame.decode(data)
    return msgspec.json.decode(line), data[base:]


NEWER = {name: DECODERS[name] for name in ("manifest", "segment", "segment_beginning", "snapshot", "latest", "index")}


@pytest.mark.parametrize("name", NEWER)
def test_a_newer_version_says_upgrade(name: str) -> None:
    make, decode = NEWER[name]
    header, payload = plain(make())
    for strange in ({}, {"seq": "seven"}, {"intents": {}}, {"more": 1}):
        with pytest.raises(UpgradeRequired):
            decode(sealed(msgspec.json.encode({**header, "v": 2, **strange}), payload))


@pytest.mark.parametrize("name", NEWER)
def test_an_unknown_field_says_upgrade(name: str) -> None:
    make, decode = NEWER[name]
    header, payload = plain(make())
    with pytest.raises(UpgradeRequired):
        decode(sealed(msgspec.json.encode({**header, "more": 1}), payload))


@pytest.mark.parametrize("where", ["op", "intent", "chunk", "codec", "in_op", "entry"])
@pytest.mark.parametrize("name", ["manifest", "segment"])
def test_an_unknown_word_deep_inside_says_upgrade(name: str, where: str) -> None:
    make, decode = NEWER[name]
    header, payload = plain(make())
    intent = header["intents"][0]
    intent.setdefault("appends", [msgspec.to_builtins(chunk())])
    match where:
        case "op":
            intent["ops"][0]["op"] = "levitate"
        case "intent":
            intent["more"] = 1
        case "chunk":
            intent["appends"][0]["more"] = 1
        case "codec":
            intent["appends"][0]["codec"] = "avro"
        case "in_op":
            intent["ops"][0]["more"] = 1
        case _:
            op = next(op for op in intent["ops"] if op["op"] == "commitoffsets")
            op["offsets"][0].append("more")
    with pytest.raises(UpgradeRequired):
        decode(sealed(msgspec.json.encode(header), payload))


def test_an_unknown_field_of_the_state_in_a_snapshot_says_upgrade() -> None:
    header, payload = plain(snapshot_bytes())
    whole = msgspec.json.decode(payload)
    for change in (whole, whole["topics"]["1"], whole["producers"]["1"], whole["groups"]["g"]):
        change["more"] = 1
        body = msgspec.json.encode(whole)
        with pytest.raises(UpgradeRequired):
            snapshot.decode(sealed(msgspec.json.encode({**header, "payload_crc": frame.checksum(body)}), body), 5)
        del change["more"]


def test_a_known_version_with_a_value_out_of_its_bounds_is_corrupt_and_no_upgrade() -> None:
    header, payload = plain(manifest_bytes())
    for field, value in (("seq", -1), ("time", "x"), ("intents", 5), ("writer", None)):
        with pytest.raises(Corrupt) as caught:
            decode_manifest(sealed(msgspec.json.encode({**header, field: value}), payload), 7)
        assert Corrupt is caught.type


# -- the wrong object at the right key -----------------------------------------------------------------------


def test_an_object_of_another_kind_or_number_is_corrupt() -> None:
    for data in (manifest_bytes(), segment_bytes(), snapshot_bytes(), page_bytes(), snapshot.encode_latest(3)):
        with pytest.raises(Corrupt):
            decode_manifest(data, 8)
        with pytest.raises(Corrupt):
            snapshot.decode(data, 4)
    with pytest.raises(Corrupt):
        decode_segment(manifest_bytes())
    with pytest.raises(Corrupt):
        decode_manifest(segment_bytes(), 7)
    with pytest.raises(Corrupt):
        index.decode_header(snapshot_bytes())
    with pytest.raises(Corrupt):
        snapshot.decode_latest(snapshot_bytes())


@pytest.mark.parametrize(("pos", "length"), [(0, 1), (4_095, 1), (4_096, len(PAYLOAD) + 1), (2**40, 1)])
def test_a_manifest_that_names_inline_bytes_outside_its_payload_is_corrupt(pos: int, length: int) -> None:
    wrong = Intent(id="idid", tip=6, appends=[chunk(obj="", pos=pos, len=length)])
    made = msgspec.structs.replace(a_manifest(), intents=[wrong])
    with pytest.raises(Corrupt):
        decode_manifest(encode_manifest(made, len(PAYLOAD), 4_096) + PAYLOAD, 7)


# -- round trips -------------------------------------------------------------------------------------------------


def test_manifests_and_segments_come_back_as_they_were() -> None:
    assert a_manifest() == decode_manifest(manifest_bytes(), 7)
    header = decode_segment(segment_bytes())
    assert EVERY_OP == header.intents[0].ops
    data = segment_bytes()
    assert header == decode_segment(data[: frame.header_bytes(data)], whole=False)


@RELAXED
@given(st.binary(max_size=50), st.integers(0, 5_000), st.integers(0, 4))
def test_frames_come_back_as_they_were(text: bytes, payload: int, extra: int) -> None:
    json = msgspec.json.encode({"text": text})
    base = frame.payload_base(json) + extra * PAYLOAD_ALIGN
    data = frame.encode(json, payload, base) + b"p" * payload
    line, found = frame.decode(data)
    assert (base, msgspec.json.decode(json)) == (found, msgspec.json.decode(line))
    assert (0, b"\n") == (base % PAYLOAD_ALIGN, data[base - 1 : base])
    assert 1 == data[:base].count(b"\n")
    assert (line, base) == frame.decode(data[:base], whole=False)
    assert base == frame.header_bytes(data[: frame.PREFIX_BYTES])
    assert msgspec.json.decode(data[:base])["size"] == len(data)


def test_a_header_too_large_to_be_read_again_is_never_built() -> None:
    fits = b'{"a":"' + b"x" * (HEADER_BYTES_MAX - frame.PREFIX_BYTES - 64) + b'"}'
    frame.decode(frame.encode(fits, 0))
    with pytest.raises(AssertionError):
        frame.encode(fits + b" " * 64, 0)
    with pytest.raises(AssertionError):
        frame.encode(b'{"a":1}', OBJECT_BYTES_MAX)


def test_latest_and_snapshots_come_back_as_they_were() -> None:
    assert 2**40 == snapshot.decode_latest(snapshot.encode_latest(2**40))
    data = snapshot_bytes()
    assert data == snapshot.encode(snapshot.decode(data, 5))
    assert msgspec.json.encode(State()) == msgspec.json.encode(snapshot.decode(snapshot.encode(State()), 0))


# -- tags -----------------------------------------------------------------------------------------------------------

signed = st.integers(-(2**62), 2**62)


@RELAXED
@given(
    st.integers(0, 2**40), st.integers(0, 10_000), st.integers(1, 2**20), st.sampled_from(["arrow", "kafka2"]),
    st.integers(0, 2**26), st.integers(1, 2**26), st.integers(0, 2**32 - 1), signed, signed,
    st.integers(-1, 2**62), st.integers(-1, 2**15 - 1), st.integers(-1, 2**31 - 1),
    st.text("ab_-", min_size=4, max_size=64),
)  # fmt: skip
def test_a_tag_says_what_the_intent_says_or_is_not_made(
    topic: int, partition: int, count: int, codec: Any, pos: int, length: int, crc: int, low: int, high: int, pid: int,
    epoch: int, seq: int, name: str,
) -> None:  # fmt: skip
    low, high = min(low, high), max(low, high)
    made = Chunk(
        topic=topic, partition=partition, count=count, codec=codec, pos=pos, len=length, crc=crc, min=low, max=high,
        pid=pid, epoch=epoch, seq=seq,
    )  # fmt: skip
    tag = tags.encode_tag(Intent(id=name, tip=3, appends=[made]))
    if tag:
        assert len(tag) <= 150
        located = msgspec.structs.replace(made, obj="segment/key")
        assert Intent(id=name, tip=9, appends=[located]) == tags.decode_tag(tag, tip=9, key="segment/key")


def test_only_one_append_with_its_bytes_in_the_segment_fits_a_tag() -> None:
    small = chunk(obj="")
    assert tags.encode_tag(Intent(id="idid", tip=1, appends=[small]))
    for intent in (
        Intent(id="idid", tip=1),
        Intent(id="idid", tip=1, appends=[small, small]),
        Intent(id="idid", tip=1, appends=[chunk()]),
        Intent(id="idid", tip=1, appends=[small], ops=[DeleteTopic(topic=1)]),
        Intent(id="idid", tip=1, appends=[small], after="earlier"),
    ):
        assert "" == tags.encode_tag(intent)


def readable(text: str) -> None:
    """The tag is refused, or it gives an intent that every process can read back out of a manifest."""
    try:
        intent = tags.decode_tag(text, tip=6, key=f"segment/{6:020d}-w-1.{text}")
    except Corrupt:
        return
    made = msgspec.structs.replace(a_manifest(), intents=[intent])
    assert [intent] == decode_manifest(encode_manifest(made, 0), 7).intents


@RELAXED
@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=", max_size=160))
def test_random_tags_are_corrupt_or_readable_by_all(text: str) -> None:
    readable(text)


@pytest.mark.parametrize("text", ["ü", "\ud800", "a", "====", "", "A" * 10_000, "\x00"])
def test_strange_tags_are_corrupt(text: str) -> None:
    with pytest.raises(Corrupt):
        tags.decode_tag(text, tip=6, key="segment/x")


def test_a_tag_whose_span_passes_the_largest_time_is_corrupt() -> None:
    """A combiner would have written a manifest that nobody can read, and stopped the namespace for good."""
    wide = chunk(obj="", min=2**62 - 1, max=2**62)
    text = tags.encode_tag(Intent(id="idid", tip=1, appends=[wide]))
    fields = list(msgspec.msgpack.decode(_unpacked(text)))
    fields[9] = 2**62
    with pytest.raises(Corrupt):
        tags.decode_tag(_packed(msgspec.msgpack.encode(fields)), tip=1, key="segment/x")


@RELAXED
@given(st.integers(0, 12), st.integers(-(2**63), 2**64 - 1) | st.text(max_size=3) | st.none() | st.lists(st.none()))
def test_tags_with_one_strange_field_are_corrupt_or_readable_by_all(at: int, value: object) -> None:
    fields = list(msgspec.msgpack.decode(_unpacked(tags.encode_tag(Intent(id="idid", tip=1, appends=[chunk(obj="")])))))
    fields[at] = value
    readable(_packed(msgspec.msgpack.encode(fields)))


def _unpacked(text: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _packed(data: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# -- index runs -------------------------------------------------------------------------------------------------------


def run_of(raw: bytes, rows: int = 1) -> tuple[index.Run, bytes]:
    packed = zlib.compress(raw)
    return index.Run(1, 0, rows, 0, 1, 0, 0, len(packed), frame.checksum(packed)), packed


@RELAXED
@given(st.binary(max_size=100))
def test_random_runs_are_corrupt(raw: bytes) -> None:
    run, packed = run_of(raw, rows=77)
    with pytest.raises(Corrupt):
        index.decode_run(run, packed)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x91" * 100_000,  # arrays in arrays
        b"\x91\x9b" + bytes(10) + b"\x91" * 100_000,  # … behind a whole entry
        msgspec.msgpack.encode([[0, 1, "avro", 1, "", 0, 1, 0, 0, 0]]),
        msgspec.msgpack.encode([[0, 1, "arrow", 1, "", 0, 1, 0, 0]]),
        msgspec.msgpack.encode([]),
        b"",
    ],
)
def test_strange_runs_are_corrupt(raw: bytes) -> None:
    run, packed = run_of(raw)
    with pytest.raises(Corrupt):
        index.decode_run(run, packed)


def test_a_run_that_inflates_without_end_is_corrupt_and_not_held_in_memory() -> None:
    run, packed = run_of(msgspec.msgpack.encode([b"\0" * (OBJECT_BYTES_MAX + 1)]))
    with pytest.raises(Corrupt):
        index.decode_run(run, packed)


def test_a_directory_that_points_outside_its_page_is_corrupt() -> None:
    fold = Fold()
    fold.topic()
    fold.done(chunk())
    entries = list(fold.state.topics[1].partitions[0].tail)
    body = index.encode(PageRef(1, 2, 0, 1), {(1, 0): entries})
    header, payload = plain(body)
    for field, value in ((6, 999), (6, -1), (7, 0), (7, 10**9), (8, 1), (2, 5)):
        runs = [list(run) for run in header["runs"]]
        runs[0][field] = value
        with pytest.raises(Corrupt):
            read_page(sealed(msgspec.json.encode({**header, "runs": runs}), payload))


# -- the corpus: inputs that were found, or that deserve a name --------------------------------------------------------


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.bin")), ids=lambda path: path.stem)
def test_the_corpus_is_corrupt_for_every_decoder(path: Path) -> None:
    data = path.read_bytes()
    for name, (_, decode) in DECODERS.items():
        if name.startswith(("frame", "header")):  # some of it is a fine frame around nonsense
            only_corrupt(decode, data)
            continue
        with pytest.raises(Corrupt):
            decode(data)
