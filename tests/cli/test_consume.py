from __future__ import annotations

import pytest

from tests.cli.conftest import Headwater


@pytest.fixture
def ten(hw: Headwater) -> Headwater:
    """Topic ``t`` of one partition with the values 0 to 9, a second of event time apart from 1970 on."""
    lines = "".join(f'{{"value":"{i}","key":"k{i}","timestamp":{i * 1_000}}}\n' for i in range(10))
    hw("produce", "t", "--create", "--format", "jsonl", "--envelope", stdin=lines.encode())
    return hw


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        ("beginning", "0123456789"),
        ("end", ""),
        ("0", "0123456789"),
        ("7", "789"),
        ("10", ""),
        ("-2", "89"),
        ("-100", "0123456789"),
        ("@7000", "789"),
        ("@6001", "789"),
        ("@9001", ""),
        ("@-5", "0123456789"),
        ("@1970-01-01T00:00:08Z", "89"),
        ("1970-01-01T00:00:08.500Z", "9"),
        ("1970-01-01T01:00:09+01:00", "9"),
    ],
)
def test_reading_begins_where_it_is_told_to(ten: Headwater, offset: str, expected: str) -> None:
    assert ten("consume", "t", "--offset", offset).text.replace("\n", "") == expected


@pytest.mark.parametrize("offset", ["soon", "@soon", "1.5", "--", "2013-13-01", "٣"])
def test_a_place_that_is_none_is_refused(ten: Headwater, offset: str) -> None:
    ran = ten("consume", "t", "--offset", offset)
    assert ran.code in (1, 2)
    assert ran.out == b""


def test_an_offset_out_of_range_names_the_range(ten: Headwater) -> None:
    ran = ten("consume", "t", "--offset", "11", "--json")
    assert (ran.code, ran.error["error"]) == (1, "OffsetOutOfRange")
    assert (ran.error["log_start"], ran.error["high_watermark"]) == (0, 10)


@pytest.mark.parametrize(("limit", "expected"), [("0", ""), ("3", "012"), ("10", "0123456789"), ("99", "0123456789")])
def test_a_limit_is_kept(ten: Headwater, limit: str, expected: str) -> None:
    assert ten("consume", "t", "-n", limit).text.replace("\n", "") == expected


def test_json_lines_hold_the_whole_record(ten: Headwater) -> None:
    record = {"topic": "t", "partition": 0, "offset": 3, "timestamp": 3000, "key": "k3", "value": "3", "headers": []}
    assert ten("consume", "t", "--offset", "3", "-n", "1", "--json").lines == [record]


def test_base64_can_be_asked_for(ten: Headwater) -> None:
    (found,) = ten("consume", "t", "-n", "1", "--json", "--encoding", "base64").lines
    assert (found["value"], found["value_encoding"], found["key"]) == ("MA==", "base64", "azA=")


def test_a_format_has_kcats_tokens(hw: Headwater) -> None:
    lines = b'{"value":"v","key":"k","timestamp":5,"headers":{"a":"1","b":null}}\n{"value":null,"timestamp":6}\n'
    hw("produce", "t", "--create", "--format", "jsonl", "--envelope", stdin=lines)
    ran = hw("consume", "t", "-f", r"%t [%p] %o %T %k(%K)\t%s(%S) %h 100%%\x21\\\n")
    assert ran.text == "t [0] 0 5 k(1)\tv(1) a=1,b= 100%!\\\nt [0] 1 6 (-1)\t(-1)  100%!\\\n"


@pytest.mark.parametrize("template", ["%z", "%", r"\q", "x%"])
def test_a_bad_format_is_refused(ten: Headwater, template: str) -> None:
    assert ten("consume", "t", "-f", template).code == 2


def test_partitions_can_be_chosen(hw: Headwater) -> None:
    hw("topic", "create", "t", "--partitions", "3")
    for partition in range(3):
        hw("produce", "t", "--partition", str(partition), stdin=b"%d\n" % partition)
    assert hw("consume", "t").text == "0\n1\n2\n"
    assert hw("consume", "t", "-p", "2", "-p", "0").text == "2\n0\n"
    ran = hw("consume", "t", "-p", "3")
    assert ran.code == 1
    assert "partitions 0 to 2" in ran.err


def test_a_group_goes_on_where_it_stopped(ten: Headwater) -> None:
    assert ten("consume", "t", "--group", "g", "-n", "4").text == "0\n1\n2\n3\n"
    assert ten("consume", "t", "--group", "g", "-n", "2").text == "4\n5\n"
    assert ten("consume", "t", "--group", "other", "-n", "1").text == "0\n"
    assert ten("consume", "t", "--group", "g").text == "6\n7\n8\n9\n"
    assert ten("consume", "t", "--group", "g").text == ""


def test_a_group_behind_the_log_start_is_told_so(ten: Headwater) -> None:
    ten("consume", "t", "--group", "g", "-n", "1")
    ten("topic", "trim", "t", "0", "8")
    ran = ten("consume", "t", "--group", "g")
    assert ran.text == "8\n9\n"
    assert "going on at 8" in ran.err


def test_lag_counts_what_is_left(ten: Headwater) -> None:
    ten("consume", "t", "--group", "g", "-n", "4")
    (row,) = ten("offsets", "--group", "g", "--json").json
    assert (row["offset"], row["high_watermark"], row["lag"]) == (4, 10, 6)
    assert "lag" in ten("offsets", "--group", "g").text


@pytest.mark.parametrize(("reset", "offset"), [("earliest", 0), ("latest", 10), ("7", 7), ("-1", 9), ("@5000", 5)])
def test_a_group_can_be_reset(ten: Headwater, reset: str, offset: int) -> None:
    ten("consume", "t", "--group", "g", "-n", "4")
    (row,) = ten("offsets", "--group", "g", "--reset", reset, "--yes", "--json").json
    assert row["offset"] == offset


def test_a_reset_asks_first(ten: Headwater) -> None:
    ten("consume", "t", "--group", "g", "-n", "4")
    assert ten("offsets", "--group", "g", "--reset", "latest", stdin=b"n\n").code == 130
    assert ten("offsets", "--group", "g", "--json").json[0]["offset"] == 4


def test_a_group_can_begin_anywhere_by_reset(ten: Headwater) -> None:
    assert ten("offsets", "--group", "new", "--reset", "5", "--yes").code == 2
    assert ten("offsets", "t", "--group", "new", "--reset", "5", "--yes").code == 0
    assert ten("consume", "t", "--group", "new", "-n", "1").text == "5\n"


def test_a_reset_out_of_range_is_refused(ten: Headwater) -> None:
    ran = ten("offsets", "t", "--group", "g", "--reset", "11", "--yes", "--json")
    assert (ran.code, ran.error["error"]) == (1, "OffsetOutOfRange")


def test_offsets_shows_each_partition_and_a_time(ten: Headwater) -> None:
    (row,) = ten("offsets", "t", "--time", "@6500", "--json").json
    assert row == {
        "topic": "t",
        "partition": 0,
        "log_start": 0,
        "stable_end": 10,
        "high_watermark": 10,
        "offset": 7,
        "timestamp": 7000,
    }
    (row,) = ten("offsets", "t", "--time", "@9001", "--json").json
    assert (row["offset"], row["timestamp"]) == (None, None)
    assert "after the end" in ten("offsets", "t", "--time", "@9001").text


@pytest.mark.parametrize(
    "words", [[], ["t", "--reset", "1"], ["t", "--time", "5"], ["t", "--group", "g", "--time", "@5"]]
)
def test_offsets_refuses_what_makes_no_sense(ten: Headwater, words: list[str]) -> None:
    assert ten("offsets", *words).code == 2


def test_unknown_names_are_not_found(ten: Headwater) -> None:
    for words in (["consume", "x"], ["offsets", "x"], ["offsets", "x", "--group", "g"]):
        ran = ten(*words)
        assert ran.code == 1
        assert "no topic 'x'" in ran.err
    assert ten("offsets", "--group", "nobody", "--json").json == []
