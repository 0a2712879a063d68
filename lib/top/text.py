"""The words and numbers of a view, as columns for a table: the same in a terminal and in plain text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from headwater.top.view import GroupRow, Overview, TopicRow, View
from headwater.words import span

TOPIC_COLUMNS: Final = ("topic", "partitions", "records/s", "bytes/s", "records", "archived", "hot", "stalled")
GROUP_COLUMNS: Final = ("group", "state", "members", "lag", "lag/s", "caught up in")
ORDERS: Final = ("busiest", "name", "largest")


def topics_in(view: View, order: str, part: str = "") -> list[TopicRow]:
    """The topics whose name holds ``part``, in one of ``ORDERS``."""
    keys: dict[str, Callable[[TopicRow], Any]] = {
        "busiest": lambda row: (-row.bytes_per_s, row.name),
        "name": lambda row: row.name,
        "largest": lambda row: (-row.records, row.name),
    }
    return sorted((row for row in view.topics if part in row.name), key=keys[order])


def groups_in(view: View, order: str, part: str = "") -> list[GroupRow]:
    """The groups whose name holds ``part``, in one of ``ORDERS``."""
    keys: dict[str, Callable[[GroupRow], Any]] = {
        "busiest": lambda row: (-row.lag, row.name),
        "name": lambda row: row.name,
        "largest": lambda row: (-row.members, row.name),
    }
    return sorted((row for row in view.groups if part in row.name), key=keys[order])


def topic_cells(row: TopicRow) -> tuple[str, ...]:
    """In the order of ``TOPIC_COLUMNS``."""
    return (
        row.name,
        f"{row.partitions:,}",
        rate(row.records_per_s),
        rate(row.bytes_per_s, binary=True),
        f"{row.records:,}",
        f"{row.archived:,}",
        scaled(row.hot_bytes, binary=True),
        f"{row.stalled:,}" if row.stalled else "",
    )


def group_cells(row: GroupRow) -> tuple[str, ...]:
    """In the order of ``GROUP_COLUMNS``."""
    return (row.name, row.state, f"{row.members:,}", f"{row.lag:,}", signed(row.lag_per_s), eta(row))


def headline(overview: Overview, now_ms: int) -> Sequence[tuple[str, str]]:
    """Names and values of the overview."""
    age_s = max(0.0, (now_ms - overview.time_ms) / 1_000)
    overdue = f", {overview.overdue:,} overdue" if overview.overdue else ""
    return [
        ("commit", f"{overview.commit:,}" + (f", {span(age_s)} ago" if overview.commit else "")),
        ("commits/s", rate(overview.commits_per_s)),
        ("records/s", rate(overview.records_per_s)),
        ("bytes/s", rate(overview.bytes_per_s, binary=True)),
        ("members", f"{overview.members:,}"),
        ("lag", f"{overview.lag:,}"),
        ("transactions", f"{overview.transactions:,}{overdue}"),
    ]


def rate(value: float, *, binary: bool = False) -> str:
    """A rate; nothing where nothing flows, so that what does stands out."""
    return scaled(value, binary=binary) if value else "–"


def signed(value: float) -> str:
    """A change a second with its sign."""
    if not value:
        return "–"
    return ("+" if value > 0 else "−") + scaled(abs(value))


def eta(row: GroupRow) -> str:
    """When the group will have caught up, in words."""
    if row.eta_s is None:
        return "never" if row.lag_per_s > 0 else "–"
    return "" if row.eta_s == 0 else span(row.eta_s)


def scaled(value: float, *, binary: bool = False) -> str:
    """Three digits and a unit: thousands (k, M, G), or 1,024s (KiB, MiB, GiB)."""
    step, units = (1_024.0, ("B", "KiB", "MiB", "GiB", "TiB")) if binary else (1_000.0, ("", "k", "M", "G", "T"))
    at = 0
    while value >= step and at < len(units) - 1:
        value, at = value / step, at + 1
    digits = f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"
    return f"{digits} {units[at]}".rstrip()
