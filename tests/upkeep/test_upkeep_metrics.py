"""What a round of maintenance leaves in the metrics."""

from __future__ import annotations

from typing import Any

import pytest

from headwater.api.upkeep import keep_up
from headwater.errors import Unavailable
from headwater.meters import Distribution, Meters
from headwater.store.base import Blob
from headwater.store.memory import MemoryStore
from headwater.upkeep.offload import inline
from tests.log.helpers import simulate
from tests.upkeep.helpers_upkeep import START_MS, arrow, clock, opened, some


class Gone(MemoryStore):
    """A store that answers nothing more once it is ``away``, or only no lists once it is ``listless``."""

    away = False
    listless = False

    async def get(self, key: str, **part: Any) -> Blob:
        if self.away:
            raise Unavailable("The store is away.")
        return await super().get(key, **part)

    def list(self, prefix: str, **part: Any) -> Any:
        if self.listless:
            raise Unavailable("The store lists nothing.")
        return super().list(prefix, **part)


def cells(meters: Meters, name: str) -> dict[tuple[str, ...], Any]:
    found = meters.snapshot()[f"headwater_maintenance_{name}"].cells
    return {key[1:]: cell.count if isinstance(cell, Distribution) else cell for key, cell in found.items()}


def test_a_round_is_done_or_rests_and_says_when_that_was() -> None:
    meters = Meters()

    async def work() -> None:
        log = await opened(MemoryStore(clock=clock()), meters=meters)
        await log.create_topic("t")
        await log.append("t", 0, arrow(some(log)))
        await keep_up(log, offload=inline, archive_now=True)
        assert {("done",): 1.0} == cells(meters, "rounds")
        assert {("files_archived",): 1.0} == cells(meters, "items")
        assert {("archived",)} == set(cells(meters, "bytes"))
        chores = cells(meters, "chores")
        assert 1.0 == chores["archive", "ok"]
        assert 9 == len(chores)
        first_s = cells(meters, "last_success_timestamp_seconds")[()]
        assert START_MS / 1_000 <= first_s
        await keep_up(log, offload=inline)
        await log.chain.clock.sleep(60)
        await keep_up(log, offload=inline)
        assert 1.0 <= cells(meters, "rounds")["rested",]
        assert 60 <= cells(meters, "last_success_timestamp_seconds")[()] - first_s
        assert sum(cells(meters, "rounds").values()) == cells(meters, "round_seconds")[()]

    simulate(work())


def test_a_chore_that_fails_is_no_success() -> None:
    meters = Meters()

    async def work() -> None:
        store = Gone(clock=clock())
        log = await opened(store, meters=meters, store_retry_s=0.1)
        await log.create_topic("t")
        store.listless = True
        report = await keep_up(log, offload=inline)
        assert report.failed
        assert {("failed",): 1.0} == cells(meters, "rounds")
        assert {} == cells(meters, "last_success_timestamp_seconds")
        broken = {key: count for key, count in cells(meters, "chores").items() if key[1] != "ok"}
        assert {tuple(line.split(": ")): 1.0 for line in report.failed} == broken

    simulate(work())


def test_a_namespace_that_cannot_be_read_counts_as_unreadable() -> None:
    meters = Meters()

    async def work() -> None:
        store = Gone(clock=clock())
        log = await opened(store, meters=meters, store_retry_s=0.1)
        await log.create_topic("t")
        store.away = True
        with pytest.raises(Unavailable):
            await keep_up(log, offload=inline)
        assert {("unreadable",): 1.0} == cells(meters, "rounds")

    simulate(work())
