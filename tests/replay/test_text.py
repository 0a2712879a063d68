from __future__ import annotations

import io
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv as pv
import pytest

from headwater.errors import InvalidRequest
from headwater.replay import text


def lines(batch: pa.RecordBatch, *documents: str) -> list[dict[str, Any]]:
    written = b"".join(text.json_lines(batch, documents))
    assert batch.num_rows == written.count(b"\n")
    return [orjson.loads(line) for line in written.splitlines()]


def batch(**columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def test_objects_and_arrays_are_embedded_and_other_text_stays_text() -> None:
    values = [b'{"a": 1}', b"[1,\n 2]", b"5", b"null", b'"text"', b"{broken", b"", None, 'ä"\\\n'.encode(), b"[1] [2]"]
    found = lines(batch(value=pa.array(values)), "value")
    expected = [{"a": 1}, [1, 2], "5", "null", '"text"', "{broken", "", None, 'ä"\\\n', "[1] [2]"]
    assert [{"value": each} for each in expected] == found
    as_text = [{"value": None if value is None else value.decode()} for value in values]
    assert as_text == lines(batch(value=pa.array(values)))


def test_documents_alone_are_copied_digit_for_digit() -> None:
    values = pa.array([b'{"n": 1.10, "big": 12345678901234567890}'] * 3)
    assert b'{"value":{"n": 1.10, "big": 12345678901234567890}}\n' * 3 == b"".join(
        text.json_lines(batch(value=values), ["value"])
    )


def test_bytes_that_are_no_text_are_base64_and_marked() -> None:
    values = pa.array([b"\xff\x00", b"plain", None, b'{"a":1}'])
    assert [
        {"value": "/wA=", "value_encoding": "base64"},
        {"value": "plain"},
        {"value": None},
        {"value": {"a": 1}},
    ] == lines(batch(value=values), "value")


def test_every_type_has_a_form() -> None:
    found = lines(
        batch(
            flag=pa.array([True, None]),
            real=pa.array([1.5, float("nan")]),
            time=pa.array([1_357_034_400_123, None], pa.timestamp("ms", "UTC")),
            local=pa.array([1_357_034_400, None], pa.timestamp("s")),
            day=pa.array([date(2013, 1, 1), None]),
            price=pa.array([Decimal("1.20"), None]),
            tags=pa.array([["a", None], None]),
            place=pa.array([{"x": 1, "b": b"\xff"}, None]),
            nothing=pa.nulls(2),
            headers=pa.array([[{"key": "h", "value": b"1"}], None]),
        )
    )
    assert {
        "flag": True,
        "real": 1.5,
        "time": "2013-01-01T10:00:00.123Z",
        "local": "2013-01-01T10:00:00",
        "day": "2013-01-01",
        "price": 1.2,
        "tags": ["a", None],
        "place": {"x": 1, "b": "/w=="},
        "nothing": None,
        "headers": [["h", "1"]],
    } == found[0]
    assert {**dict.fromkeys(found[0]), "headers": []} == found[1]


def test_a_slice_gives_its_own_rows() -> None:
    whole = batch(offset=pa.array(range(10)), value=pa.array([b"v%d" % i for i in range(10)]))
    assert [{"offset": i, "value": f"v{i}"} for i in (4, 5, 6)] == lines(whole.slice(4, 3), "value")


def test_large_batches_go_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "STEP_BYTES", 100)
    whole = batch(offset=pa.array(range(100)), value=pa.array([b"x" * 50] * 100))
    assert list(range(100)) == [line["offset"] for line in lines(whole)]
    assert len(list(text.csv_rows(whole, header=True))) > 10


def test_csv_reads_back_as_it_was() -> None:
    whole = batch(
        offset=pa.array([1, 2, 3]),
        timestamp=pa.array([datetime(2013, 7, 4, tzinfo=UTC)] * 3, pa.timestamp("ms", "UTC")),
        value=pa.array([b'a,"b"\nc', b"", None]),
        tags=pa.array([[1, 2], None, []]),
    )
    written = b"".join(text.csv_rows(whole, header=True))
    assert written.startswith((b"offset,timestamp,value,tags\n", b'"offset"'))
    options = pv.ConvertOptions(strings_can_be_null=True, null_values=[""], quoted_strings_can_be_null=False)
    found = pv.read_csv(
        io.BytesIO(written), convert_options=options, parse_options=pv.ParseOptions(newlines_in_values=True)
    )
    assert ['a,"b"\nc', "", None] == found.column("value").to_pylist()
    assert ["[1,2]", None, "[]"] == found.column("tags").to_pylist()


def test_csv_refuses_bytes_and_names_the_record() -> None:
    whole = batch(partition=pa.array([3, 3]), offset=pa.array([8, 9]), value=pa.array([b"fine", b"\xff"]))
    with pytest.raises(InvalidRequest, match="'value' of partition 3 offset 9"):
        list(text.csv_rows(whole, header=True))
