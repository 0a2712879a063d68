"""JSON of the verbs' data: what goes out comes back the same, and requests are read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.api import verbs, wire
from headwater.api.messages import HttpError
from headwater.api.verbs import AclRule, Appended, GroupOffset, Heartbeat
from headwater.errors import InvalidRequest

RULE = AclRule("User:a", "read", "topic", "orders", "prefix", False)

SAMPLES: list[tuple[Any, Any]] = [
    (
        verbs.TopicInfo(
            name="t",
            id=1,
            created_ms=7,
            config={"retention.ms": "1"},
            partitions=[verbs.PartitionInfo(partition=0, log_start=1, end=3, stable_end=2)],
            commit=9,
        ),
        verbs.TopicInfo,
    ),
    (verbs.OffsetAt(offset=3, timestamp=4), verbs.OffsetAt),
    (verbs.ProducerId(id=1, epoch=2, transactional_id="é"), verbs.ProducerId),
    (verbs.GroupOffset(offset=1), verbs.GroupOffset),
    (
        verbs.GroupOffsets(group="g", offsets={("t", 0): GroupOffset(offset=5, metadata="m", committed_ms=6)}),
        verbs.GroupOffsets,
    ),
    (verbs.GroupOffsets(group="g", offsets={}), verbs.GroupOffsets),
    (
        verbs.Written(
            appended=[Appended(topic="t", partition=0, base_offset=1, count=2, commit=3)],
            commit=3,
            producer=verbs.ProducerId(id=1, epoch=2),
        ),
        verbs.Written,
    ),
    (
        Heartbeat(
            group="g",
            member="m",
            epoch=1,
            generation=2,
            owned={("t", 0): 2, ("u", 1): 1},
            revoke=[("t", 1)],
            interval_ms=5,
            topics=["t"],
        ),
        Heartbeat,
    ),
    (
        verbs.GroupInfo(
            group="g",
            kind="consumer",
            state="stable",
            generation=1,
            assignor="range",
            members=[
                verbs.MemberInfo(
                    member="m", instance="", client="c", epoch=1, topics=["t"], owned=[("t", 0)], revoking=[]
                )
            ],
        ),
        verbs.GroupInfo,
    ),
    ([verbs.Lag(group="g", topic="t", partition=0, committed=-1, end=3, lag=3)], list[verbs.Lag]),
    (
        verbs.Ranges(
            ranges=[
                verbs.Range(
                    url="https://x/y?z=1",
                    headers={"range": "bytes=0-9"},
                    base=0,
                    count=1,
                    codec="arrow",
                    length=10,
                    crc32c=2**32 - 1,
                    expires_ms=4,
                )
            ],
            next_offset=1,
            log_start=0,
            high_watermark=1,
            commit=2,
        ),
        verbs.Ranges,
    ),
    (verbs.Upload(id="u", url="https://x", headers={}, prefix=b"\x00\xff{", expires_ms=1), verbs.Upload),
    (verbs.KeyInfo(key="abcd", principal="User:a", created_ms=1, expires_ms=0, scopes=[RULE]), verbs.KeyInfo),
    (verbs.QuotaInfo(principal="User:a", requests_per_s=5), verbs.QuotaInfo),
    (
        verbs.SchemaInfo(
            version=1,
            format="json",
            definition="{}",
            columns=[verbs.ColumnInfo(name="a", type="int64", nullable=False)],
            commit=4,
        ),
        verbs.SchemaInfo,
    ),
    (verbs.ColumnInfo(name="a", type="list<item: int8>", nullable=True), verbs.ColumnInfo),
    (verbs.NamespaceInfo(name="n", config={"a": "b"}, commit=1, time_ms=2), verbs.NamespaceInfo),
    ([RULE], list[AclRule]),
    ({("t", 0): GroupOffset(offset=1)}, Mapping[verbs.TP, GroupOffset]),
]


@pytest.mark.parametrize(("value", "kind"), SAMPLES, ids=lambda each: getattr(type(each), "__name__", "") or "kind")
def test_data_of_the_verbs_survives_the_way_there_and_back(value: Any, kind: Any) -> None:
    assert value == wire.decode(wire.encode(value), kind)


def test_every_data_of_the_verbs_has_a_sample() -> None:
    from dataclasses import is_dataclass

    made = {name for name, kind in vars(verbs).items() if is_dataclass(kind) and kind.__module__ == verbs.__name__}
    nested = {"PartitionInfo", "MemberInfo", "Range", "Lag"}
    assert made - nested <= {type(value).__name__ for value, _ in SAMPLES}


def test_pairs_are_objects_with_names() -> None:
    said = msgspec.json.decode(wire.encode(SAMPLES[7][0]))
    assert [{"topic": "t", "partition": 0, "generation": 2}, {"topic": "u", "partition": 1, "generation": 1}] == (
        said["owned"]
    )
    assert [{"topic": "t", "partition": 1}] == said["revoke"]


def test_rules_are_objects_with_names() -> None:
    said = msgspec.json.decode(wire.encode([RULE]))
    assert [
        {
            "principal": "User:a",
            "operation": "read",
            "resource": "topic",
            "name": "orders",
            "pattern": "prefix",
            "allow": False,
        }
    ] == said


def test_answers_may_hold_fields_that_the_reader_does_not_know() -> None:
    found = wire.decode(b'{"offset":1,"timestamp":2,"more":3}', verbs.OffsetAt)
    assert verbs.OffsetAt(offset=1, timestamp=2) == found
    group: verbs.GroupOffsets = wire.decode(b'{"group":"g","offsets":[],"more":3}', verbs.GroupOffsets)
    assert verbs.GroupOffsets(group="g", offsets={}) == group


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"offset":"1"}', b"\xff", b"[" * 100_000, b'{"group":"g"}'])
@pytest.mark.parametrize("kind", [verbs.OffsetAt, verbs.GroupOffsets, Heartbeat])
def test_an_answer_that_does_not_fit_is_refused(data: bytes, kind: Any) -> None:
    with pytest.raises(InvalidRequest):
        wire.decode(data, kind)


def test_a_request_with_a_field_that_is_not_known_is_unprocessable() -> None:
    with pytest.raises(HttpError) as caught:
        wire.request(b'{"total":3,"totl":4}', wire.AddPartitions)
    assert 422 == caught.value.status
    assert "totl" in caught.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe"])
def test_a_request_that_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        wire.request(body, wire.AddPartitions)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"total":0}', wire.AddPartitions),
        (b'{"total":1.5}', wire.AddPartitions),
        (b'{"total":"1"}', wire.AddPartitions),
        (b"[]", wire.AddPartitions),
        (b"[" * 100_000, wire.AddPartitions),
        (b'{"offsets":[{"topic":"t","partition":-1,"offset":0}]}', wire.CommitOffsets),
        (b'{"offsets":[{"topic":"t","partition":0,"offset":-1}]}', wire.CommitOffsets),
        (b'{"offsets":[{"topic":"t","partition":0,"offset":99999999999999999999}]}', wire.CommitOffsets),
        (b'{"add":[{"principal":"a","operation":"fly","resource":"topic","name":"t"}]}', wire.ChangeAcls),
    ],
)
def test_a_request_out_of_its_bounds_is_unprocessable(body: bytes, kind: Any) -> None:
    with pytest.raises(HttpError) as caught:
        wire.request(body, kind)
    assert 422 == caught.value.status


TEXT = st.text(max_size=12)
WHOLE = st.integers(0, 2**62)
PLACES = st.tuples(st.text("abc._-", min_size=1, max_size=9), st.integers(0, 2**31 - 1))
OFFSETS = st.builds(GroupOffset, offset=WHOLE, metadata=TEXT, committed_ms=st.integers(-1, 2**62))


@given(
    st.builds(
        Heartbeat,
        group=TEXT,
        member=TEXT,
        epoch=WHOLE,
        generation=WHOLE,
        owned=st.dictionaries(PLACES, WHOLE, max_size=4),
        revoke=st.lists(PLACES, max_size=4),
        interval_ms=WHOLE,
        topics=st.lists(TEXT, max_size=3),
    )
)
def test_any_heartbeat_survives(beat: Heartbeat) -> None:
    assert beat == wire.decode(wire.encode(beat), Heartbeat)


@given(
    st.builds(
        verbs.GroupOffsets,
        group=TEXT,
        offsets=st.dictionaries(PLACES, OFFSETS, max_size=4),
        member=TEXT,
        generation=st.integers(-1, 2**62),
    )
)
def test_any_offsets_survive(offsets: verbs.GroupOffsets) -> None:
    assert offsets == wire.decode(wire.encode(offsets), verbs.GroupOffsets)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_data_or_refused(data: bytes) -> None:
    for kind in (verbs.TopicInfo, Heartbeat, verbs.GroupInfo, list[AclRule], verbs.Upload, verbs.KeyInfo):
        try:
            wire.decode(data, kind)
        except InvalidRequest:
            pass
    for body in (wire.CommitOffsets, wire.Beat, wire.ChangeAcls, wire.CreateKey):
        try:
            wire.request(data, body)
        except (InvalidRequest, HttpError):
            pass
