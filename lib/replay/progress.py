"""A progress bar, where a person looks on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from headwater.errors import InvalidRequest
from headwater.replay.stream import Progress

Tell: TypeAlias = Callable[[Progress], object]


@contextmanager
def shown(progress: bool | Tell | None, topic: str) -> Iterator[Tell | None]:
    """Whom to tell how far a replay is: nobody, the caller's function, or a bar on a terminal while this lasts."""
    if callable(progress):
        yield progress
    elif progress and sys.stderr.isatty():
        with _bar(topic) as tell:
            yield tell
    else:
        yield None


def check_progress(progress: object) -> None:
    """Refuse what nobody can be told with, before anything is read."""
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise InvalidRequest(f"progress is None, True or a function, not {progress!r}.")


@contextmanager
def _bar(topic: str) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    parts = [
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}% {task.fields[records]:,} records"),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    ]
    with Bar(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(topic, total=None, records=0)

        def tell(now: Progress) -> None:
            # The speed is that of bytes, so bytes are the measure; their total is guessed from the offsets passed.
            total = now.bytes * now.total / now.done if now.done else None
            bar.update(task, completed=now.bytes, total=total, records=now.records)

        yield tell
