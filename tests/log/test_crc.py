"""The CRC of a concatenation from the CRCs of its parts."""

from __future__ import annotations

import google_crc32c
from hypothesis import given
from hypothesis import strategies as st

from headwater.log.crc import combined


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_the_sum_of_a_concatenation_comes_from_the_sums_of_its_parts(first: bytes, second: bytes) -> None:
    found = combined(google_crc32c.value(first), google_crc32c.value(second), len(second))
    assert google_crc32c.value(first + second) == found


def test_it_holds_for_lengths_of_several_bytes() -> None:
    for size in (255, 256, 257, 65_535, 65_536, 1 << 20, (1 << 24) + 3):
        first, second = b"head", bytes(size)
        found = combined(google_crc32c.value(first), google_crc32c.value(second), size)
        assert google_crc32c.value(first + second) == found
