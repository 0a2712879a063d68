"""What a job holds is bounded, whatever is done to it, and the plot says so."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from headwater.bench import streams_memory

ROWS = 200


def test_state_stays_within_what_its_windows_allow() -> None:
    for skewed in (False, True):
        held = streams_memory._windows(60, ROWS, 1, skewed=skewed)
        assert max(held) <= 17 * ROWS
        assert max(held[:30]) * 1.2 >= max(held[30:]), "the second half holds no more than the first"


def test_a_skewed_key_holds_less_not_more() -> None:
    even, skewed = (streams_memory._windows(40, ROWS, 1, skewed=skewed) for skewed in (False, True))
    assert sum(skewed) < sum(even)


def test_what_waited_for_a_stalled_partition_goes_once_it_is_idle() -> None:
    held = streams_memory._stalled(80, ROWS, 1)
    assert held[29] > 25 * ROWS, "nothing closes while somebody may still bring older rows"
    assert max(held) <= (17 + 30) * ROWS
    assert max(held[31:]) <= 17 * ROWS


def test_a_report_is_drawn_as_one_picture() -> None:
    report = {
        "seconds": 3,
        "runs": {
            "a<b": {"unit": "rows", "bound": 10, "most": 4, "holds": True, "held": [1, 4, 2]},
            "none": {"unit": "bytes", "bound": 0, "most": 0, "holds": True, "held": [0]},
        },
    }
    picture = streams_memory.drawn(report)
    root = ET.fromstring(picture)
    assert 2 == len(root.findall("{http://www.w3.org/2000/svg}polyline"))
    assert "a&lt;b: rows held, at most 4 of 10" in picture
    assert picture == streams_memory.drawn(report)
