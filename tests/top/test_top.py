"""``headwater top``: what it shows of two looks, in words, and on a screen that nobody looks at."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from headwater.errors import Unavailable
from headwater.limits import TOP_ROWS_MAX
from headwater.log.namespace import Namespace
from headwater.log.operations import CommitOffsets, JoinGroup, OffsetEntry, Reserve
from headwater.log.options import Options
from headwater.log.state import State
from headwater.store.base import Blob
from headwater.store.memory import MemoryStore
from headwater.top import GroupRow, sample, view_of
from headwater.top.text import ORDERS, eta, groups_in, headline, scaled, signed, topics_in
from headwater.words import span
from tests.log.helpers import Fold, chunk

MINUTE = 60_000


def made() -> tuple[Fold, int]:
    fold = Fold()
    topic = fold.topic(2, "orders")
    fold.topic(1, "quiet")
    fold.done(chunk(topic=topic, count=10))
    fold.done(CommitOffsets(group="billing", offsets=[OffsetEntry(topic, 0, 4)]))
    return fold, topic


def test_rates_are_differences_over_the_time_between_two_looks() -> None:
    fold, topic = made()
    before = sample(fold.state, 10.0)
    fold.done(chunk(topic=topic, count=30))
    fold.done(chunk(topic=topic, partition=1, count=10))
    view = view_of(fold.state, sample(fold.state, 14.0), before, now_ms=0)
    orders, quiet = view.topics
    assert (10.0, 100.0, 50, 500) == (orders.records_per_s, orders.bytes_per_s, orders.records, orders.hot_bytes)
    assert (0.0, 0.0) == (quiet.records_per_s, quiet.bytes_per_s)
    assert (0.5, 10.0, 100.0) == (view.overview.commits_per_s, view.overview.records_per_s, view.overview.bytes_per_s)


def test_lag_its_change_and_when_it_will_be_gone() -> None:
    fold, topic = made()
    before = sample(fold.state, 0.0)
    fold.done(CommitOffsets(group="billing", offsets=[OffsetEntry(topic, 0, 8)]))
    (row,) = view_of(fold.state, sample(fold.state, 2.0), before, now_ms=0).groups
    assert (2, -2.0, 1.0) == (row.lag, row.lag_per_s, row.eta_s)
    fold.done(chunk(topic=topic, count=5))
    (row,) = view_of(fold.state, sample(fold.state, 4.0), before, now_ms=0).groups
    assert (7, 0.25, None) == (row.lag, row.lag_per_s, row.eta_s)


def test_the_first_look_has_no_rates_and_a_new_topic_has_all_that_it_holds() -> None:
    fold, _ = made()
    now = sample(fold.state, 5.0)
    assert 0.0 == view_of(fold.state, now, now, now_ms=0).overview.records_per_s
    view = view_of(fold.state, sample(fold.state, 5.0), sample(State(), 0.0), now_ms=0)
    assert 2.0 == view.overview.records_per_s


def test_an_open_transaction_stalls_its_partition_and_is_overdue_after_its_deadline() -> None:
    fold, topic = made()
    pid = fold.producer("x")
    fold.done(Reserve(pid=pid, epoch=0, timeout_ms=MINUTE), chunk(topic=topic, partition=1, pid=pid, epoch=0))
    now = sample(fold.state, 0.0)
    due_ms = fold.state.producers[pid].deadline_ms
    assert 1 == view_of(fold.state, now, now, now_ms=0).topics[0].stalled
    for now_ms, overdue in ((due_ms, 0), (due_ms + 1, 1)):
        overview = view_of(fold.state, now, now, now_ms=now_ms).overview
        assert (1, overdue) == (overview.transactions, overdue)
    assert ("transactions", "1, 1 overdue") in headline(overview, due_ms + 1)


def test_members_are_counted_and_rows_are_ordered_and_filtered() -> None:
    fold, _ = made()
    fold.done(JoinGroup(group="audit", member="m", topics=["orders"]))
    now = sample(fold.state, 0.0)
    view = view_of(fold.state, now, now, now_ms=0)
    assert [0, 1] == sorted(row.members for row in view.groups)
    for order in ORDERS:
        assert {"orders", "quiet"} == {row.name for row in topics_in(view, order)}
    assert ["audit", "billing"] == [row.name for row in groups_in(view, "name")]
    assert ["audit"] == [row.name for row in groups_in(view, "largest", "aud")]


@pytest.mark.parametrize(
    ("value", "plain", "binary"),
    [
        (0, "0", "0 B"),
        (999, "999", "999 B"),
        (1_000, "1 k", "1000 B"),
        (1_536, "1.5 k", "1.5 KiB"),
        (10**9, "1 G", "954 MiB"),
        (2**60, "1152922 T", "1048576 TiB"),
    ],
)
def test_numbers_are_short(value: float, plain: str, binary: str) -> None:
    assert (plain, binary) == (scaled(value), scaled(value, binary=True))


def test_words_for_changes_and_times() -> None:
    assert ["–", "+2 k", "−2"] == [signed(change) for change in (0, 2_000, -2)]
    assert ["0 s", "99 s", "2 min", "2 h", "3 d"] == [span(s) for s in (0, 99, 100, 7_200, 3 * 86_400)]

    def row(lag: int, change: float, eta_s: float | None) -> GroupRow:
        return GroupRow(name="g", state="Stable", members=1, lag=lag, lag_per_s=change, eta_s=eta_s)

    assert ["", "5 s", "never", "–"] == [
        eta(one) for one in (row(0, 0, 0.0), row(10, -2, 5.0), row(10, 1, None), row(10, 0, None))
    ]


# -- the screen --------------------------------------------------------------------------------------------


class Moody(MemoryStore):
    """A store that can be told to say nothing."""

    silent = False

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        if self.silent:
            raise Unavailable("The bucket is on holiday.")
        return await super().get(key, start=start, end=end)


def on_screen(test: Callable[..., Awaitable[None]], *, topics: int = 3) -> None:
    from headwater.top.app import Top

    async def main() -> None:
        store = Moody()
        async with await Namespace.open(store, rng=random.Random(1), options=Options(store_retry_s=0.01)) as namespace:
            for number in range(topics):
                await namespace.create_topic(f"topic-{number:03}")
            app = Top(namespace, every_s=3_600, where="memory://")
            async with app.run_test(size=(120, 40)) as pilot:
                await app.look()
                await test(app, pilot, store)

    asyncio.run(main())


def test_a_key_orders_pauses_and_filters() -> None:
    async def test(app: object, pilot: object, store: Moody) -> None:
        from textual.pilot import Pilot
        from textual.widgets import DataTable

        from headwater.top.app import Top

        assert isinstance(app, Top)
        assert isinstance(pilot, Pilot)
        table = app.query_one("#topics", DataTable)
        assert 3 == table.row_count
        await pilot.press("slash", "2", "enter")
        assert 1 == table.row_count
        await pilot.press("escape")
        assert 3 == table.row_count
        await pilot.press("o")
        assert "name" == app.order
        await pilot.press("p")
        assert app.paused
        await pilot.press("q")

    on_screen(test)


def test_a_silent_store_is_told_and_the_last_view_stays() -> None:
    async def test(app: object, pilot: object, store: Moody) -> None:
        from textual.widgets import DataTable, Static

        from headwater.top.app import Top

        assert isinstance(app, Top)
        trouble = app.query_one("#trouble", Static)
        assert not trouble.has_class("shown")
        store.silent = True
        await app.look()
        assert trouble.has_class("shown")
        assert "The bucket is on holiday." in str(trouble.render())
        assert 3 == app.query_one("#topics", DataTable).row_count
        store.silent = False
        await app.look()
        assert not trouble.has_class("shown")

    on_screen(test)


def test_more_rows_than_anyone_reads_are_cut_and_counted() -> None:
    async def test(app: object, pilot: object, store: Moody) -> None:
        from textual.widgets import DataTable

        from headwater.top.app import Top

        assert isinstance(app, Top)
        assert TOP_ROWS_MAX + 1 == app.query_one("#topics", DataTable).row_count

    on_screen(test, topics=TOP_ROWS_MAX + 1)
