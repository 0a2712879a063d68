"""Names of objects: encode and parse are inverses, order is the order of numbers, and the rest is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import Corrupt, InvalidRequest
from headwater.limits import TOPIC_NAME_MAX
from headwater.log import keys

numbers = st.integers(0, 10**20 - 2)


@given(numbers, numbers)
def test_numbers_come_back_and_sort_as_numbers(one: int, two: int) -> None:
    for make in (keys.manifest_key, keys.snapshot_key, keys.boundary_key):
        assert one == keys.parse_numbered_key(make(one))
        assert (one < two) == (make(one) < make(two))
    assert (one, two, 0) == keys.parse_index_key(keys.index_key(one, two))
    assert (one, two, one + 1) == keys.parse_index_key(keys.index_key(one, two, one + 1))
    assert two == keys.parse_file_page_key(keys.file_page_key(two, 7, 3, "abcd"))
    assert (one, "b") == keys.parse_branch_key(keys.branch_key(one, "b"))
    found = keys.parse_archive_key(keys.archive_key("a.b", 3, one, two, 9, "abcd"))
    assert keys.ArchiveKey("a.b", 3, one, two, 9) == found


@given(numbers, st.from_regex(r"\A[0-9a-z]{1,32}\Z"), st.integers(0, 10**12 - 1), st.from_regex(r"\A[\w-]{0,99}\Z"))
def test_segments_come_back(tip: int, writer: str, number: int, tag: str) -> None:
    if not tag.isascii():
        return
    key = keys.segment_key(tip, writer, number, tag)
    assert keys.SegmentKey(tip, writer, number, tag) == keys.parse_segment_key(key)
    assert keys.segments_after(tip) < key < keys.segments_after(tip + 1)


@pytest.mark.parametrize(
    "key",
    ["", "segment/", "segment/1-w-1", f"segment/{1:020d}-W-1", f"segment/{1:020d}-w-1.", f"segment/{1:020d}-w-1\n"],
)
def test_other_names_are_no_segments(key: str) -> None:
    with pytest.raises(Corrupt):
        keys.parse_segment_key(key)


@pytest.mark.parametrize("key", ["manifest/", "manifest/1", f"manifest/{1:020d}x", f"index/{1:020d}", f"{1:020d}"])
def test_other_names_are_no_pages_and_mostly_no_numbers(key: str) -> None:
    with pytest.raises(Corrupt):
        keys.parse_index_key(key)
    if not key.startswith("index/"):
        with pytest.raises(Corrupt):
            keys.parse_numbered_key(key)


def test_only_ascii_digits_are_digits() -> None:
    with pytest.raises(Corrupt):
        keys.parse_numbered_key("manifest/" + "٣" * 20)


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * TOPIC_NAME_MAX, "...", "-"])
def test_topic_names_as_in_kafka(name: str) -> None:
    assert name == keys.check_topic_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "ä", "a b", "a\n", "x" * (TOPIC_NAME_MAX + 1)])
def test_other_topic_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        keys.check_topic_name(name)


@pytest.mark.parametrize("name", ["", ".a", "A", "a/b", "a" * 64, "ä", "a\n", "-"])
def test_other_namespaces_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        keys.check_namespace(name)
    assert "a" * 63 == keys.check_namespace("a" * 63)
