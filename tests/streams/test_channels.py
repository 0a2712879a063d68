"""Event time: what rows are stamped with, and what watermarks of many channels make."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from headwater.streams.channels import Feed, lowest
from headwater.streams.frames import ENDED, NEVER


def frame(*times: int) -> pl.DataFrame:
    return pl.DataFrame({"_time": times}, schema={"_time": pl.Int64})


def stamps(feed: Feed, *times: int, channel: int = 0, floor: int = NEVER) -> list[int]:
    return feed.stamp(channel, frame(*times), floor).get_column("_wm").to_list()


def test_a_row_is_stamped_with_the_newest_time_before_it_less_the_disorder() -> None:
    feed = Feed(out_of_order=5)
    assert [NEVER, 95, 115, 115, 125] == stamps(feed, 100, 120, 110, 130, 90)
    assert [125] == stamps(feed, 1)
    assert 125 == feed.advance()


def test_where_nothing_asks_what_is_late_a_frame_has_the_stamp_of_its_first_row() -> None:
    feed = Feed(out_of_order=5)
    first = feed.stamp(0, frame(100, 120), NEVER, exact=False)
    second = feed.stamp(0, frame(110, 130), NEVER, exact=False)
    assert [NEVER, NEVER, 115, 115] == pl.concat([first, second]).get_column("_wm").to_list()
    assert 125 == feed.advance()


@given(st.lists(st.integers(0, 1_000), min_size=1, max_size=30), st.data())
def test_stamps_do_not_depend_on_how_rows_are_cut_into_frames(times: list[int], data: st.DataObject) -> None:
    whole = stamps(Feed(out_of_order=7), *times)
    feed, cut, at = Feed(out_of_order=7), [], 0
    while at < len(times):
        end = data.draw(st.integers(at + 1, len(times)))
        cut += stamps(feed, *times[at:end])
        feed.advance()
        at = end
    assert whole == cut


def test_the_slowest_channel_holds_back_the_others() -> None:
    feed = Feed(expected=2)
    feed.hear(0, 100, idle=False)
    assert NEVER == feed.advance()
    feed.hear(1, 40, idle=False)
    assert 40 == feed.advance()
    feed.hear(1, 400, idle=False)
    assert 100 == feed.advance()


def test_an_idle_channel_holds_back_nothing_until_it_speaks() -> None:
    feed = Feed(expected=2)
    feed.hear(0, 100, idle=False)
    feed.hear(1, 40, idle=True)
    assert 100 == feed.advance()
    assert not feed.is_idle
    feed.hear(1, 50, idle=False)
    assert 100 == feed.advance()  # time never goes back
    feed.hear(0, 200, idle=False)
    assert 100 == feed.advance()
    feed.hear(1, 150, idle=False)
    assert 150 == feed.advance()


def test_when_all_are_idle_what_came_is_complete() -> None:
    feed = Feed(out_of_order=10)
    stamps(feed, 100)
    assert 90 == feed.advance()
    feed.hear(0, None, idle=True)
    assert feed.is_idle
    assert 90 == feed.advance()


def test_what_wakes_up_behind_its_time_is_late() -> None:
    assert [100, 100] == stamps(Feed(), 10, 20, floor=100)


def test_a_successor_goes_on_where_its_document_was_made() -> None:
    feed, other = Feed(out_of_order=3), Feed(out_of_order=3)
    stamps(feed, 10, 50, 20)
    feed.hear(1, 30, idle=True)
    feed.advance()
    other.resume(feed.document())
    assert feed == other


def test_tables_hold_back_nothing_beside_a_stream() -> None:
    assert (7, True, False) == lowest([(7, True, False), (3, False, True)])
    assert (3, True, False) == lowest([(7, True, False), (3, True, False)])
    assert (3, False, True) == lowest([(7, False, True), (3, False, True)])
    assert (ENDED, False, True) == lowest([])


def test_an_idle_parent_holds_back_nothing_where_another_is_not() -> None:
    assert (7, True, False) == lowest([(7, True, False), (3, True, True)])
    assert (7, True, True) == lowest([(7, True, True), (3, True, True)])
    assert (3, True, True) == lowest([(ENDED, True, True), (3, True, True)]), "an absent one has no time to give"
