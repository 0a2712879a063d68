"""Worlds of long retention: clean seeds are clean, things really happen in them, and planted bugs are found."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import pytest
from msgspec.structs import replace

from headwater.errors import HeadwaterError, NotFound
from headwater.log import index
from headwater.log.chain import Chain
from headwater.log.lookup import Lookup
from headwater.log.reader import Fetched, Reader
from headwater.log.state import Archive, State
from headwater.sim import keepers
from headwater.sim.sweep import judge
from headwater.sim.vault import VaultPlan, plan_of, simulate
from tests.sim.helpers_worlds import Plant, expect_notice, missing, played

SEEDS = 30


# One worker plays them all, or two would play most of them twice.
@pytest.mark.xdist_group("vault")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_seed_keeps_every_promise(seed: int) -> None:
    assert [] == played("archive", seed)["violations"]


@pytest.mark.xdist_group("vault")
def test_things_really_happen() -> None:
    wanted = {
        *("made archive", "made files", "made boundary", "branches", "looks at the past", "looks refused"),
        *("deleted archive", "deleted segment", "deleted manifest", "deleted snapshot", "deleted index"),
        *("archive: files", "archive: merged", "archive: pages", "compact: dropped", "compact: tombstones"),
        *("retain: trimmed", "collect: raised"),
    }
    assert set() == missing("archive", range(SEEDS), wanted)


def test_the_same_seed_gives_the_same_history_twice() -> None:
    for seed in (1, 2):
        first, again = simulate(seed), simulate(seed)
        assert (first.digest, first.requests, first.deeds) == (again.digest, again.requests, again.deeds)


def test_plans_cover_every_kind_of_life() -> None:
    plans = [VaultPlan.draw(seed) for seed in range(200)]
    for name in ("sessions", "historians", "slow_readers", "keyed_writers", "brief_writers", "founders", "branchers"):
        assert any(getattr(plan, name) for plan in plans)
        assert not all(getattr(plan, name) for plan in plans)
    assert {True, False} == {plan.tidy for plan in plans}
    assert {True, False} == {plan_of(seed, plan).long_sleep for seed, plan in enumerate(plans)}


# -- planted bugs -----------------------------------------------------------------------------------------


def _upkeep(name: str) -> Any:
    return importlib.import_module(f"headwater.upkeep.{name}")


def _state(name: str) -> Any:
    return importlib.import_module(f"headwater.log.state.{name}")


def delete_before_the_boundary_is_durable(patch: pytest.MonkeyPatch) -> None:
    """Manifests go before anybody can find out why they are gone."""
    run = _upkeep("collector")._Run
    move, sweep = run._move_boundary, run._sweep

    async def nothing(self: Any) -> None:
        """Not yet."""

    async def swept(self: Any) -> None:
        await sweep(self)
        await move(self)

    patch.setattr(run, "_move_boundary", nothing)
    patch.setattr(run, "_sweep", swept)


def ignore_the_floor(patch: pytest.MonkeyPatch) -> None:
    """R4 off: segments and files that may still be committed are deleted, since nobody names them yet."""
    run = _upkeep("collector")._Run
    original = run._each_by_tip

    async def each(self: Any, kind: str, prefix: str, floor: int, aged: int, tip_of: Any) -> None:
        await original(self, kind, prefix, 1 << 60, aged, tip_of)

    patch.setattr(run, "_each_by_tip", each)


def use_the_floor_of_today(patch: pytest.MonkeyPatch) -> None:
    """What was committed behind the horizon, under a floor that was raised since, is deleted."""
    run = _upkeep("collector")._Run
    original = run._each_by_tip

    async def each(self: Any, kind: str, prefix: str, floor: int, aged: int, tip_of: Any) -> None:
        await original(self, kind, prefix, self.namespace.state.floor, aged, tip_of)

    patch.setattr(run, "_each_by_tip", each)


def forget_held_reservations(patch: pytest.MonkeyPatch) -> None:
    """What is reserved and not yet readable is not marked."""
    horizon = _upkeep("horizon")
    original = horizon.mark

    async def mark(chain: Chain, state: State, marks: Any, name: str = "") -> None:
        for topic in state.topics.values():
            for partition in topic.partitions:
                partition.held = []
        await original(chain, state, marks, name)

    patch.setattr(horizon, "mark", mark)


def forget_the_files_of_pages(patch: pytest.MonkeyPatch) -> None:
    """Files that the state lists itself are marked, and those that a page lists are not."""

    async def listed(chain: Chain, page: Any, state: State) -> list[str]:
        return []

    patch.setattr(_upkeep("horizon"), "listed_in", listed)


def take_the_newest_snapshot_for_the_horizon(patch: pytest.MonkeyPatch) -> None:
    """The horizon is where the newest snapshot is, however young it is."""
    survey = _upkeep("horizon").Survey
    original = survey.aged
    patch.setattr(survey, "aged", lambda self, age_ms: original(self, 0))


def keep_history_for_minutes(patch: pytest.MonkeyPatch) -> None:
    """The horizon is younger than the hour for which processes may trust what they know."""
    survey = _upkeep("horizon").Survey
    original = survey.aged
    patch.setattr(survey, "aged", lambda self, age_ms: original(self, 600_000))


def keep_history_for_a_day_whatever_is_promised(patch: pytest.MonkeyPatch) -> None:
    """history.retention.ms counts for nothing."""
    survey = _upkeep("horizon").Survey
    original = survey.aged
    patch.setattr(survey, "aged", lambda self, age_ms: original(self, 86_400_000))


def forget_branches(patch: pytest.MonkeyPatch) -> None:
    """What a branch needs of its origin is not marked."""
    horizon = _upkeep("horizon")

    async def mark(*args: Any) -> Any:
        return horizon.Family()

    patch.setattr(horizon, "mark_branches", mark)


def branch_without_a_pin(patch: pytest.MonkeyPatch) -> None:
    """A branch is made of a commit that can be read, and its origin's collector does not hear of it."""

    async def pin(origin: Any, made: Any) -> None:
        """Nobody is told."""

    patch.setattr(_upkeep("branch"), "_pin", pin)


def swap_whatever_is_there(patch: pytest.MonkeyPatch) -> None:
    """A swap takes effect although others hold the range by now."""
    archive = _state("archive")
    original = archive._surroundings

    def surroundings(before: Archive, partition: Any, op: Any) -> Any:
        items = [*before.pages, *before.files]
        inside = [item for item in items if item.end > op.base and item.base < op.end]
        if inside and not op.was:
            return [i for i in items if i.end <= op.base], [i for i in items if i.base >= op.end]
        return original(before, partition, op)

    patch.setattr(archive, "_surroundings", surroundings)


def drop_one_file_too_many_when_the_log_is_trimmed(patch: pytest.MonkeyPatch) -> None:
    """The file across the new log start goes, too."""
    topics = next(module for name in ("topics", "archive") if "trimmed" in vars(module := _state(name)))

    def trimmed(archive: Archive | None, start: int) -> Archive | None:
        if archive is None:
            return None
        pages = [page for page in archive.pages if page.base >= start]
        return Archive(archive.end, archive.clean, pages, [file for file in archive.files if file.base >= start])

    patch.setattr(topics, "trimmed", trimmed)


def adopt_pages_that_are_ahead(patch: pytest.MonkeyPatch) -> None:
    """A process takes over pages from which somebody left out what is dead by now, and not yet as far as it knows."""
    original = index.adopt

    def adopt(state: State, pages: list[Any], paged: int) -> None:
        if paged <= state.seq:
            original(state, [replace(page, pruned=0) for page in pages], paged)
            state.pages = list(pages)

    patch.setattr(index, "adopt", adopt)


def prune_what_is_alive(patch: pytest.MonkeyPatch) -> None:
    """Entries go from the index although nothing is archived of them."""

    def hot(state: State, topic: int, partition: int) -> int:
        found = state.partition(topic, partition)
        return 1 << 63 if found is None else found.hot + 2

    patch.setattr(index, "_hot", hot)


def look_at_the_past_through_the_present(patch: pytest.MonkeyPatch) -> None:
    """A read as of an earlier commit takes its files from the newest state."""
    original = Lookup.files

    def files(self: Lookup, topic: int, partition: int, offset: int, state: Any = None, **options: Any) -> Any:
        return original(self, topic, partition, offset, None, **options)

    patch.setattr(Lookup, "files", files)


def look_for_shared_objects_at_home(patch: pytest.MonkeyPatch) -> None:
    """A branch looks in its own folder for what it shares with its origin."""
    patch.setattr(Chain, "home", lambda self, key, state: self.store)


def take_a_missing_object_for_an_empty_answer(patch: pytest.MonkeyPatch) -> None:
    """R6 off: what is gone was never there."""
    original = Reader._fetch_now

    async def fetch(self: Reader, topic: str, partition: int, offset: int, bytes_max: int, state: Any = None) -> Any:
        try:
            return await original(self, topic, partition, offset, bytes_max, state)
        except (NotFound, HeadwaterError):
            raise
        except Exception:  # _Vanished
            _, place = self.place(topic, partition, state)
            return Fetched(
                chunks=[],
                next_offset=place.stable_end,
                log_start=place.start,
                high_watermark=place.next,
                stable_end=place.stable_end,
                commit=self.chain.state.seq,
            )

    patch.setattr(Reader, "_fetch_now", fetch)


def compact_away_the_newest_value(patch: pytest.MonkeyPatch) -> None:
    """Of every key the first record of the dirty section stays, not the last."""
    latest = _upkeep("latest")

    def grouped(table: Any) -> Any:
        found = table.group_by("key", use_threads=False).aggregate([("offset", "min")])
        return found.rename_columns(["key" if name == "key" else "offset" for name in found.column_names])

    patch.setattr(latest, "_grouped", grouped)


def close_the_gaps_that_compaction_leaves(patch: pytest.MonkeyPatch) -> None:
    """What is left of a file gets new offsets."""
    import pyarrow as pa

    rewriting = _upkeep("rewriting")
    original = rewriting.kept

    def kept(table: Any, rule: Any, counts: Any) -> Any:
        left = original(table, rule, counts)
        if not 0 < left.num_rows < table.num_rows:
            return left
        offsets = pa.array(range(rule.base, rule.base + left.num_rows), pa.int64())
        return left.set_column(0, left.schema.field(0), offsets)

    patch.setattr(rewriting, "kept", kept)


def forget_tombstones_at_once(patch: pytest.MonkeyPatch) -> None:
    """A tombstone goes with the first compaction that meets it again, whatever delete.retention.ms says."""
    cleaner = _upkeep("cleaner").Cleaner
    patch.setattr(cleaner, "_expired", lambda self, work, file: file.end <= work.section.start)


def forget_tombstones_before_what_they_hide(patch: pytest.MonkeyPatch) -> None:
    """Compaction goes over the dirty section alone: older values stay, and the tombstones that hid them go."""
    cleaner = _upkeep("cleaner").Cleaner
    original = cleaner._loses

    async def loses(self: Any, work: Any, file: Any) -> bool:
        if file.end <= work.section.start and not self._expired(work, file):
            return False
        return bool(await original(self, work, file))

    patch.setattr(cleaner, "_loses", loses)


def trim_what_is_young(patch: pytest.MonkeyPatch) -> None:
    """Retention goes by the oldest record of a file, not by its newest."""
    retention = _upkeep("retention")
    original = retention._units

    async def units(namespace: Any, place: Any) -> Any:
        async for unit in original(namespace, place):
            yield replace(unit, max=unit.min - 10_000_000)

    patch.setattr(retention, "_units", units)


# The seeds that may be needed. They begin where a world was seen to notice, since each costs a second.
PLANTS: dict[Plant, range] = {
    delete_before_the_boundary_is_durable: range(28, 178),
    ignore_the_floor: range(60),
    use_the_floor_of_today: range(5, 155),
    forget_held_reservations: range(150),
    forget_the_files_of_pages: range(7, 67),
    take_the_newest_snapshot_for_the_horizon: range(60),
    keep_history_for_minutes: range(60),
    keep_history_for_a_day_whatever_is_promised: range(60),
    forget_branches: range(60),
    branch_without_a_pin: range(60),
    swap_whatever_is_there: range(60),
    drop_one_file_too_many_when_the_log_is_trimmed: range(8, 68),
    adopt_pages_that_are_ahead: range(146, 296),
    prune_what_is_alive: range(60),
    look_at_the_past_through_the_present: range(60),
    look_for_shared_objects_at_home: range(60),
    take_a_missing_object_for_an_empty_answer: range(28, 128),
    compact_away_the_newest_value: range(60),
    close_the_gaps_that_compaction_leaves: range(60),
    forget_tombstones_at_once: range(100),
    forget_tombstones_before_what_they_hide: range(6, 66),
    trim_what_is_young: range(112, 172),
}


def compact_many_keys(patch: pytest.MonkeyPatch) -> None:
    """Worlds of a few days in which keys are so many that what deletes one is often the last word on it."""
    drawn = VaultPlan.draw
    cleaning = {
        "archive.bytes": "200",
        "archive.ms": "3600000",
        "min.cleanable.dirty.ratio": "0",
        "min.compaction.lag.ms": "0",
        "delete.retention.ms": "2000",
    }

    def draw(seed: int) -> VaultPlan:
        plan = drawn(seed)
        keyed = {**plan.settings[keepers.KEYED[0]], **cleaning}
        settings = {**plan.settings, keepers.KEYED[0]: keyed}
        return dataclasses.replace(
            plan, sessions=4, keyed_writers=2, keepers=3, historians=0, branchers=0, tidy=False, settings=settings
        )

    patch.setattr(VaultPlan, "draw", draw)
    patch.setattr(keepers, "KEYS", 200)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    if plant is forget_tombstones_before_what_they_hide:
        compact_many_keys(monkeypatch)
    expect_notice("archive", plant, PLANTS[plant], monkeypatch)


@pytest.mark.parametrize("seed", [6, 9])
def test_a_world_of_many_keys_keeps_its_promises(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compact_many_keys(monkeypatch)
    assert [] == judge(seed, "archive")["violations"]
