"""Charts as SVG, drawn by the server: no script, no library, readable without colours."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.console.commits import Commit

BARS = 60


def buckets(commits: Sequence[Commit], since_ms: int, until_ms: int, count: int = BARS) -> list[tuple[int, int, int]]:
    """Commits, records and bytes in ``count`` equal spans of ``[since_ms, until_ms)``."""
    found = [(0, 0, 0)] * count
    width = max(1, until_ms - since_ms)
    for commit in commits:
        at = (commit.time_ms - since_ms) * count // width
        if 0 <= at < count:
            commits_, records, size = found[at]
            found[at] = commits_ + 1, records + commit.records, size + commit.bytes
    return found


def bars(values: Sequence[float], *, width: int = 600, height: int = 80) -> list[tuple[float, float, float, float]]:
    """Rectangles (x, y, width, height) for values of 0 and more; the tallest is ``height``."""
    top = max(values, default=0) or 1
    step = width / max(1, len(values))
    found = []
    for at, value in enumerate(values):
        tall = height * value / top
        if value:
            found.append((round(at * step, 1), round(height - tall, 1), round(step * 0.8, 1), round(tall, 1)))
    return found
