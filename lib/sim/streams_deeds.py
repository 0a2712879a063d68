"""What happens inside runners in a world, counted from outside, so that no world passes in which nothing did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from headwater.errors import Fenced, HeadwaterError, Indeterminate
from headwater.log.operations import TrimLog
from headwater.log.outcomes import UnknownMember
from headwater.streams.runner import changelog, stepping, worker
from headwater.streams.runner.committing import Forgotten


@contextmanager
def counted(deeds: Counter[str]) -> Iterator[None]:
    """Count while the block lasts: commits and how they end, restores, snapshots, whole and torn, and trims."""
    settle, restore = vars(stepping)["settle"], vars(stepping)["restore"]
    line, begin = changelog.Copy._line, changelog.Copy._begin
    snapshot, start = stepping.TaskRunner._snapshot, worker.Worker._begin

    async def settled(namespace: Any, appends: Any, changes: Any) -> Any:
        try:
            outcome = await settle(_Watched(namespace, deeds), appends, changes)
        except (Fenced, UnknownMember, Forgotten) as error:
            deeds[f"commits: {type(error).__name__}"] += 1
            raise
        deeds["commits"] += 1
        deeds["commits without input"] += not appends
        deeds["trims"] += sum(isinstance(op, TrimLog) for op in changes)
        return outcome

    def read(self: Any, key: bytes, value: Any) -> Any:
        goes_on = key.startswith(changelog.PIECE) or key in (changelog.END, changelog.PROGRESS, changelog.TOPOLOGY)
        deeds["torn snapshots met"] += self._inside and not goes_on
        return line(self, key, value)

    def begun(self: Any, said: Any, first: bool) -> None:
        deeds["snapshots skipped"] += not first
        deeds["snapshots restored"] += first
        begin(self, said, first)

    async def restored(namespace: Any, making: Any, number: int, copy: Any, **options: Any) -> Any:
        deeds["restores from standbys"] += copy is not None
        found = await restore(namespace, making, number, copy, **options)
        deeds["restores"] += 1
        deeds["restores of state"] += found.rows > 0
        return found

    async def snapped(self: Any) -> None:
        deeds["snapshots begun"] += 1
        await snapshot(self)
        deeds["snapshots"] += 1

    async def started(self: Any, number: int, fence: Any) -> None:
        deeds["tasks taken"] += 1
        await start(self, number, fence)

    with _patched(
        (stepping, "settle", settled),
        (stepping, "restore", restored),
        (changelog.Copy, "_line", read),
        (changelog.Copy, "_begin", begun),
        (stepping.TaskRunner, "_snapshot", snapped),
        (worker.Worker, "_begin", started),
    ):
        yield


class _Watched:
    """A namespace whose indeterminate commits are counted."""

    def __init__(self, namespace: Any, deeds: Counter[str]) -> None:
        self._namespace = namespace
        self._deeds = deeds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._namespace, name)

    @property
    def writer(self) -> Any:
        """Itself, as what it is asked for is ``commit`` alone."""
        return self

    async def commit(self, *args: Any, **options: Any) -> Any:
        """The writer's, with a look at how it ends."""
        try:
            return await self._namespace.writer.commit(*args, **options)
        except Indeterminate:
            self._deeds["commits: Indeterminate"] += 1
            raise
        except HeadwaterError as error:
            self._deeds[f"attempts: {type(error).__name__}"] += 1
            raise


@contextmanager
def _patched(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    before = [(place, name, vars(place)[name]) for place, name, _ in changes]
    for place, name, value in changes:
        setattr(place, name, value)
    try:
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
