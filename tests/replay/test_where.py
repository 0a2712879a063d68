from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from headwater.errors import InvalidRequest
from headwater.replay.where import CHARS_MAX, parse_where

TABLE = pa.table(
    {
        "offset": pa.array(range(6), pa.int64()),
        "timestamp": pa.array([datetime(2013, 7, day, tzinfo=UTC) for day in range(1, 7)], pa.timestamp("ms", "UTC")),
        "key": pa.array([b"a", b"b", None, b"\xff", b"a", b"c"]),
        "delay": pa.array([5, None, -3, 61, 60, 0], pa.int32()),
        "carrier": pa.array(["UA", "AA", None, "UA", "B6", "AA"]),
        "late": pa.array([True, False, None, True, False, False]),
        "price": pa.array([Decimal("1.50"), None, None, None, None, Decimal("2.00")]),
    }
)


@pytest.mark.parametrize(
    ("condition", "offsets"),
    [
        ("delay > 60", [3]),
        ("delay >= 60 and carrier == 'B6'", [4]),
        ('delay > 60 or carrier in ("AA", "B6")', [1, 3, 4, 5]),
        ("carrier not in ['UA'] and delay is not None", [2, 4, 5]),
        ("not delay > 0", [2, 5]),
        ("60 <= delay", [3, 4]),
        ("-3 < delay <= 5", [0, 5]),
        ("delay is None", [1]),
        ("delay == None", [1]),
        ("carrier != None and key is None", []),
        ("delay > 4.5 and delay < 60.5", [0, 4]),
        ('key == "a"', [0, 4]),
        (r'key == b"\xff"', [3]),
        ("late", [0, 3]),
        ("not late", [1, 4, 5]),
        ("late == False", [1, 4, 5]),
        ('timestamp >= "2013-07-05"', [4, 5]),
        ('timestamp < "2013-07-02T02:00:00+02:00"', [0]),
        ('timestamp == "2013-07-03T00:00:00Z"', [2]),
        ('price == "1.5"', [0]),
        ("offset == delay", []),
        ("(offset > 1 and offset < 4) and (delay > 0)", [3]),
    ],
)
def test_a_condition_chooses_rows(condition: str, offsets: list[int]) -> None:
    found = TABLE.filter(parse_where(condition, TABLE.schema))
    assert offsets == found.column("offset").to_pylist()


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("", "cannot be read"),
        ("delay >", "cannot be read"),
        ("delay = 5", "cannot be read"),
        ("dely > 5", "There is no column 'dely'; there are offset"),
        ("delay > 'many'", "int32 and cannot be compared with 'many'"),
        ("timestamp > 'soon'", "cannot be compared"),
        ("carrier > 5", "cannot be compared"),
        ("carrier", "compare it with something"),
        ("delay + 1 > 5", "no meaning"),
        ("len(carrier) == 2", "no meaning"),
        ("__import__('os').system('true')", "no meaning"),
        ("5 > 3", "no meaning"),
        ("delay in 5", "no meaning"),
        ("(" * 5_000, "cannot be read"),
        ("delay > 5 " + " " * CHARS_MAX, "at most"),
        ("not " * 2_000 + "late", "cannot be read"),
    ],
)
def test_what_has_no_meaning_is_refused(condition: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_where(condition, TABLE.schema)
    assert said in str(caught.value)
