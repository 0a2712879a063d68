from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headwater.log.partitioner import partition_of
from tests.cli.conftest import Headwater


def read(hw: Headwater, topic: str = "t") -> list[dict[str, Any]]:
    return hw("consume", topic, "--json").lines


def values(hw: Headwater, topic: str = "t") -> list[str]:
    return [record["value"] for record in read(hw, topic)]


def test_each_line_is_a_record(hw: Headwater) -> None:
    ran = hw("produce", "t", "--create", "--json", stdin=b"a\n\nb\r\nc")
    assert ran.json["records"] == 4
    assert values(hw) == ["a", "", "b\r", "c"]


def test_bytes_that_are_no_text_survive(hw: Headwater) -> None:
    hw("produce", "t", "--create", stdin=b"\xff\xfe:\x00\n")
    assert hw("consume", "t").out == b"\xff\xfe:\x00\n"
    assert read(hw)[0]["value_encoding"] == "base64"


def test_keys_go_where_kafka_puts_them(hw: Headwater) -> None:
    keys = [f"key-{i}" for i in range(50)]
    lines = "".join(f"{key}:v:{i}\n" for i, key in enumerate(keys))
    hw("produce", "t", "--create", "--partitions", "5", "--key-separator", ":", stdin=lines.encode())
    found = read(hw)
    assert {r["key"]: r["partition"] for r in found} == {key: partition_of(key.encode(), 5) for key in keys}
    assert {r["key"]: r["value"] for r in found} == {key: f"v:{i}" for i, key in enumerate(keys)}


def test_a_line_without_a_key_is_named(hw: Headwater) -> None:
    ran = hw("produce", "t", "--create", "--key-separator", ":", stdin=b"a:1\nb:2\nc\n")
    assert ran.code == 1
    assert "Line 3 has no key" in ran.err
    assert "0 records are in the log" in ran.err
    assert values(hw) == []


def test_what_came_before_a_bad_block_is_in_the_log(hw: Headwater, tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_bytes(b"".join(b"k:%d\n" % i for i in range(1_000)) + b"bad\n")
    ran = hw("produce", "t", file, "--create", "--key-separator", ":", "--batch-bytes", "512", "--json")
    assert ran.code == 1
    assert "Line 1001 has no key" in ran.error["message"]
    assert ran.error["records"] == len(values(hw)) > 900
    assert values(hw) == [str(i) for i in range(ran.error["records"])]


def test_many_blocks_keep_their_order(hw: Headwater, tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_bytes(b"".join(b"%d\n" % i for i in range(20_000)))
    ran = hw("produce", "t", file, "--create", "--batch-bytes", "4096", "--json")
    assert (ran.json["records"], ran.json["commits"]) == (20_000, -(-file.stat().st_size // 4096))
    assert values(hw) == [str(i) for i in range(20_000)]


def test_json_lines_keep_their_text(hw: Headwater) -> None:
    lines = b'{"k":"a","t":5, "x":[1, 2]}\n\n  \n{"k":"b","t":7,"n":1.50}\n'
    hw("produce", "t", "--create", "--format", "jsonl", "--key-field", "k", "--timestamp-field", "t", stdin=lines)
    found = read(hw)
    assert [r["value"] for r in found] == ['{"k":"a","t":5, "x":[1, 2]}', '{"k":"b","t":7,"n":1.50}']
    assert [(r["key"], r["timestamp"]) for r in found] == [("a", 5), ("b", 7)]


@pytest.mark.parametrize(
    ("line", "key", "timestamp"),
    [
        ('{"k":12,"t":"2013-01-01T10:00:00Z"}', "12", 1357034400000),
        ('{"k":"é","t":"2013-01-01T10:00:00.250+01:00"}', "é", 1357030800250),
        ('{"k":true,"t":"1357034400000"}', "true", 1357034400000),
        ('{"k":1.5,"t":"2013-01-01"}', "1.5", 1356998400000),
        ('{"k":null,"t":-5}', None, -5),
    ],
)
def test_json_fields_of_all_kinds(hw: Headwater, line: str, key: str | None, timestamp: int) -> None:
    options = ["--create", "--format", "jsonl", "--key-field", "k", "--timestamp-field", "t"]
    assert hw("produce", "t", *options, stdin=f"{line}\n".encode()).code == 0
    (found,) = read(hw)
    assert (found["key"], found["timestamp"], found["value"]) == (key, timestamp, line)


def test_mixed_json_fields_stay_with_their_lines(hw: Headwater) -> None:
    lines = b'{"k":"a"}\n{"k":1}\n\n{}\n'
    hw("produce", "t", "--create", "--format", "jsonl", "--key-field", "k", stdin=lines)
    assert {r["value"]: r["key"] for r in read(hw)} == {'{"k":"a"}': "a", '{"k":1}': "1", "{}": None}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (b'{"k":"a"}\n\n{"k":\n', "Line 3 is no JSON"),
        (b'{"k":"a"}\n{"k":"b"} {"k":"c"}\n', "Line 2 is no JSON"),
        (b'{"k":"a"}\n7\n', "Line 2 is no JSON object"),
        (b'{"k":["a"]}\n', "Line 1 has a key that is neither text nor a number"),
    ],
)
def test_a_bad_json_line_is_named(hw: Headwater, lines: bytes, said: str) -> None:
    ran = hw("produce", "t", "--create", "--format", "jsonl", "--key-field", "k", stdin=lines)
    assert ran.code == 1
    assert said in ran.err
    assert values(hw) == []


def test_a_bad_timestamp_is_named(hw: Headwater) -> None:
    options = ["--create", "--format", "jsonl", "--timestamp-field", "t"]
    ran = hw("produce", "t", *options, stdin=b'{"t":1}\n{"t":"soon"}\n')
    assert ran.code == 1
    assert "Line 2 has the timestamp 'soon'" in ran.err


def test_csv_rows_become_json_objects_without_loss(hw: Headwater) -> None:
    rows = 'id,n,zip,ok,note\na,1.50,02134,true,"say ""hi"""\nb,NA,10001,false,\n"",-3,10001,,"x\ny"\n'
    ran = hw("produce", "t", "--create", "--format", "csv", "--key-field", "id", "--json", stdin=rows.encode())
    assert ran.json["records"] == 3
    found = [json.loads(value) for value in values(hw)]
    assert found == [
        {"id": "a", "n": 1.5, "zip": "02134", "ok": True, "note": 'say "hi"'},
        {"id": "b", "n": None, "zip": "10001", "ok": False, "note": None},
        {"id": "", "n": -3, "zip": "10001", "ok": None, "note": "x\ny"},
    ]
    assert '"n":1.50' in values(hw)[0]
    assert [r["key"] for r in read(hw)] == ["a", "b", ""]


def test_csv_takes_times_from_a_column(hw: Headwater) -> None:
    options = ["--create", "--format", "csv", "--timestamp-field", "at"]
    hw("produce", "t", *options, stdin=b"at,v\n2013-01-01T10:00:00Z,1\n2013-01-01T10:00:01Z,2\n")
    assert [r["timestamp"] for r in read(hw)] == [1357034400000, 1357034401000]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (b"a,b\n1,2\n3\n", "Row 3 of the CSV has 1 fields and the header row has 2"),
        (b"", "there is no header row"),
        (b"a,a\n1,2\n", "more than once"),
        (b"a,b\n1,\xff\n", "cannot be read"),
        (b"x,b\n1,2\n", "no column 'a'"),
    ],
)
def test_a_bad_csv_is_explained(hw: Headwater, rows: bytes, said: str) -> None:
    ran = hw("produce", "t", "--create", "--format", "csv", "--key-field", "a", stdin=rows)
    assert ran.code == 1
    assert said in ran.err
    assert "0 records are in the log" in ran.err


def test_an_envelope_brings_back_what_consume_printed(hw: Headwater) -> None:
    record = {"key": None, "value": None, "timestamp": 5, "headers": [["a", "1"], ["b", None]]}
    lines = json.dumps(record) + '\n{"value":"_w==","value_encoding":"base64"}\n{"value":{"a":1},"headers":{"h":"x"}}\n'
    lines = lines.replace("_w==", "/w==")
    assert hw("produce", "t", "--create", "--format", "jsonl", "--envelope", stdin=lines.encode()).code == 0
    first = read(hw)
    assert first[0] == {"topic": "t", "partition": 0, "offset": 0, **record}
    assert (first[1]["value"], first[2]["value"], first[2]["headers"]) == ("/w==", '{"a":1}', [["h", "x"]])
    printed = hw("consume", "t", "--json").out
    hw("produce", "u", "--create", "--format", "jsonl", "--envelope", stdin=printed)
    assert [{**r, "topic": "t"} for r in read(hw, "u")] == first


@pytest.mark.parametrize("line", ["7", "{}", '{"value":1,"x":2}', '{"value":"a","value_encoding":"hex"}', "nonsense"])
def test_a_bad_envelope_is_named(hw: Headwater, line: str) -> None:
    ran = hw("produce", "t", "--create", "--format", "jsonl", "--envelope", stdin=f'{{"value":1}}\n{line}\n'.encode())
    assert ran.code == 1
    assert "Line 2 " in ran.err


def test_a_partition_can_be_chosen(hw: Headwater) -> None:
    hw("topic", "create", "t", "--partitions", "3")
    hw("produce", "t", "--partition", "2", "--key-separator", ":", stdin=b"a:1\nb:2\n")
    assert [r["partition"] for r in read(hw)] == [2, 2]
    ran = hw("produce", "t", "--partition", "3", stdin=b"a\n")
    assert ran.code == 1
    assert "partitions 0 to 2" in ran.err


@pytest.mark.parametrize("compression", ["zstd", "lz4", "none"])
def test_every_compression_reads_back(hw: Headwater, compression: str) -> None:
    text = b"same\n" * 2_000
    hw("produce", "t", "--create", "--compression", compression, stdin=text)
    assert hw("consume", "t").out == text


@pytest.mark.parametrize("acks", ["all", "1", "0"])
def test_acks_are_taken(hw: Headwater, acks: str) -> None:
    assert hw("produce", "t", "--create", "--acks", acks, stdin=b"a\n").code == 0
    assert values(hw) == ["a"]


@pytest.mark.parametrize(
    "options",
    [
        ["--key-separator", ""],
        ["--format", "csv", "--key-separator", ":"],
        ["--key-field", "k"],
        ["--envelope"],
        ["--format", "jsonl", "--envelope", "--key-field", "k"],
        ["--batch-bytes", "0"],
    ],
)
def test_options_that_do_not_go_together_are_refused(hw: Headwater, options: list[str]) -> None:
    assert hw("produce", "t", "--create", *options, stdin=b"a\n").code == 2


def test_an_unknown_topic_is_refused_and_nothing_is_made(hw: Headwater) -> None:
    ran = hw("produce", "nope", stdin=b"a\n")
    assert ran.code == 1
    assert "no topic 'nope'" in ran.err
    assert hw("topic", "list", "--json").json == []


def test_a_line_too_long_is_refused(hw: Headwater) -> None:
    ran = hw("produce", "t", "--create", stdin=b"short\n" + b"x" * (8 << 20) + b"y")
    assert ran.code == 1
    assert "8388608" in ran.err


def test_no_input_is_no_record(hw: Headwater) -> None:
    assert hw("produce", "t", "--create", "--json").json == {"topic": "t", "records": 0, "batches": 0, "commits": 0}
