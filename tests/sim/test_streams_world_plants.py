"""Bugs that are planted into the runner of streams: the worlds notice each of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("polars")

from headwater.errors import Fenced
from headwater.log import operations as ops
from headwater.log.outcomes import UnknownMember
from headwater.sim import streams_plan
from headwater.sim.streams_plan import StreamsPlan
from headwater.sim.sweep import judge
from headwater.streams.runner import changelog, committing, computing, control, once, stepping
from headwater.streams.state import spill
from headwater.streams.task import Task
from tests.sim.helpers_worlds import Plant, expect_notice


def forget_the_changelog(patch: pytest.MonkeyPatch) -> None:
    """Offsets and outputs are committed, and what changed in the state is not."""
    original = computing.Computer.compute

    def compute(self: Any, *args: Any) -> Any:
        made = original(self, *args)
        return replace(made, batches=[each for each in made.batches if each[0] != self.job.changelog])

    patch.setattr(computing.Computer, "compute", compute)


def commit_outputs_before_offsets(patch: pytest.MonkeyPatch) -> None:
    """Two intents instead of one."""
    original = stepping.settle

    async def settle(namespace: Any, appends: Any, changes: Any) -> Any:
        if not appends:
            return await original(namespace, appends, changes)
        outcome = await original(namespace, appends, ())
        await original(namespace, (), changes)
        return outcome

    patch.setattr(stepping, "settle", settle)


def commit_offsets_before_outputs(patch: pytest.MonkeyPatch) -> None:
    """Two intents instead of one, the other way round."""
    original = stepping.settle

    async def settle(namespace: Any, appends: Any, changes: Any) -> Any:
        if not appends:
            return await original(namespace, appends, changes)
        await original(namespace, (), changes)
        return await original(namespace, appends, ())

    patch.setattr(stepping, "settle", settle)


def fence_nobody(patch: pytest.MonkeyPatch) -> None:
    """The group lets anybody commit whatever it likes."""
    original = stepping.settle

    async def settle(namespace: Any, appends: Any, changes: Any) -> Any:
        free = [op for op in changes if not isinstance(op, ops.CommitOffsets)]
        try:
            return await original(namespace, appends, changes)
        except (Fenced, UnknownMember):
            return await original(namespace, appends, free)

    patch.setattr(stepping, "settle", settle)


def leave_snapshots_unfenced(patch: pytest.MonkeyPatch) -> None:
    """A step that reads nothing commits no offset, so nobody refuses it."""

    async def commit(self: Any, lines: Any) -> Any:
        made = changelog.batches_of(lines, 0)
        batches = [(self.job.changelog, self.number, each) for each in made]
        return await stepping.settle(self.setting.namespace, stepping.appends_of(self.job, batches), [])

    async def settle(namespace: Any, appends: Any, changes: Any) -> Any:
        if not appends:
            changes = [op for op in changes if isinstance(op, ops.TrimLog)]
        return await original(namespace, appends, changes)

    original = stepping.settle
    patch.setattr(stepping, "settle", settle)
    patch.setattr(stepping.TaskRunner, "_commit_lines", commit)


def restore_every_snapshot(patch: pytest.MonkeyPatch) -> None:
    """Pieces of a snapshot are taken beside the deltas that say the same, whole or torn."""
    original = changelog.Copy._begin

    def begin(self: Any, said: Any, first: bool) -> None:
        original(self, said, True)

    patch.setattr(changelog.Copy, "_begin", begin)


def trim_before_the_snapshot_is_committed(patch: pytest.MonkeyPatch) -> None:
    """The changes go first, then what replaces them comes."""
    original = stepping.TaskRunner._snapshot

    async def snapshot(self: Any) -> None:
        namespace = self.setting.namespace
        _, place = namespace.reader.place(self.job.changelog, self.number)
        trim = ops.TrimLog(topic=self.job.topics[self.job.changelog].id, partition=self.number, before=place.next)
        await stepping.settle(namespace, (), [trim])
        await original(self)

    patch.setattr(stepping.TaskRunner, "_snapshot", snapshot)


def forget_how_far_time_had_come(patch: pytest.MonkeyPatch) -> None:
    """A task that begins again knows its state, and nothing of event time."""
    original = Task.restored

    def restored(self: Any, progress: Any) -> None:
        original(self, None)

    patch.setattr(Task, "restored", restored)


def send_again_under_a_new_name(patch: pytest.MonkeyPatch) -> None:
    """An intent of which nobody knows whether it took effect is made anew."""

    class Forgetful:
        """A namespace whose writer believes in no token."""

        def __init__(self, namespace: Any) -> None:
            self.chain, self.state, self.writer, self.real = namespace.chain, namespace.state, self, namespace.writer

        async def commit(self, appends: Any, changes: Any, *, token: str = "") -> Any:
            return await self.real.commit(appends, changes)

    inner = stepping.settle

    async def settle(namespace: Any, appends: Any, changes: Any) -> Any:
        return await inner(Forgetful(namespace), appends, changes)

    patch.setattr(stepping, "settle", settle)


def lose_marks_without_rows(patch: pytest.MonkeyPatch) -> None:
    """Only partitions that get rows hear how far time has come."""
    original = committing._to_repartition

    def send(job: Any, number: int, name: str, step: Any, told: Any, places: Any, time_ms: int) -> None:
        told[name] = step.marks[name]
        original(job, number, name, step, told, places, time_ms)

    patch.setattr(committing, "_to_repartition", send)


def hear_marks_before_their_rows(patch: pytest.MonkeyPatch) -> None:
    """A marker of one task holds for all of them."""
    original = computing.repartitioned

    def heard(node: str, placed: Any) -> Any:
        found = original(node, placed)
        newest = max((each.watermark for each in found if each.watermark is not None), default=None)
        return [replace(each, watermark=newest) for each in found]

    patch.setattr(computing, "repartitioned", heard)


def read_the_last_record_again(patch: pytest.MonkeyPatch) -> None:
    """A task begins at the last record that it has processed, not behind it."""
    original = stepping.TaskRunner._positions

    def positions(self: Any, copy: Any) -> Any:
        found = original(self, copy)
        return {
            place: max(offset - 1, 0) if place[0] in self.job.sources else offset for place, offset in found.items()
        }

    patch.setattr(stepping.TaskRunner, "_positions", positions)


def let_two_commits_fly(patch: pytest.MonkeyPatch) -> None:
    """A step is committed while it is not known what became of the one before."""

    async def settled(self: Any) -> None:
        self._commit = None

    patch.setattr(stepping.TaskRunner, "_settled", settled)


def work_on_in_a_pause(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether the job is paused."""
    for module in (once, stepping):
        patch.setattr(module, "is_paused", lambda state, changelog: False)


def reset_offsets_alone(patch: pytest.MonkeyPatch) -> None:
    """A reset job begins anew, and still has the state that it had."""
    original = control.settle

    async def settle(namespace: Any, appends: Any, changes: Any) -> Any:
        return await original(namespace, appends, [op for op in changes if not isinstance(op, ops.TrimLog)])

    patch.setattr(control, "settle", settle)


def restart_offsets_alone(patch: pytest.MonkeyPatch) -> None:
    """A job that is brought back reads from there again, into the state that it has now."""

    async def replace_nothing(*given: Any) -> list[Any]:
        return []

    patch.setattr(control, "_replace", replace_nothing)


def forget_what_lay_in_repartition_topics(patch: pytest.MonkeyPatch) -> None:
    """What was on its way at the commit that a job is brought back to is not sent again."""

    async def forget(namespace: Any, past: Any, then: Any, name: str, offsets: Any, changes: Any) -> list[Any]:
        topic = namespace.topic(name)
        for number, place in enumerate(topic.partitions):
            offsets[name, number] = place.next
            changes.append(ops.TrimLog(topic=topic.id, partition=number, before=place.next))
        return []

    patch.setattr(control, "_reappend", forget)


def lose_pages_that_were_changed_after_they_were_spilled(patch: pytest.MonkeyPatch) -> None:
    """A page is written once; what changed in it since is not."""
    original = spill.Pages._made

    def made(self: Any, old: Any, frame: Any) -> Any:
        pages = original(self, replace(old, file=None), frame)
        if old.file is not None and len(pages) == 1:
            pages[0].file = old.file
        return pages

    patch.setattr(spill.Pages, "_made", made)


PLANTS: dict[Plant, range] = {  # some begin where a world was seen to notice, since each costs up to a second
    forget_the_changelog: range(60),
    commit_outputs_before_offsets: range(60),
    commit_offsets_before_outputs: range(60),
    fence_nobody: range(60),
    leave_snapshots_unfenced: range(12, 112),
    restore_every_snapshot: range(12, 72),
    trim_before_the_snapshot_is_committed: range(10, 70),
    forget_how_far_time_had_come: range(60),
    send_again_under_a_new_name: range(60),
    lose_marks_without_rows: range(60),
    hear_marks_before_their_rows: range(60),
    read_the_last_record_again: range(60),
    let_two_commits_fly: range(60),
    work_on_in_a_pause: range(60),
    reset_offsets_alone: range(60),
    restart_offsets_alone: range(60),
    forget_what_lay_in_repartition_topics: range(9, 69),
    lose_pages_that_were_changed_after_they_were_spilled: range(60),
}


# What is done to the job in every world for these; in worlds for the others nothing is, since outputs that may be there
# twice would hide some.
DEEDS: dict[Plant, str] = {
    work_on_in_a_pause: "pause",
    reset_offsets_alone: "reset",
    restart_offsets_alone: "restart",
    forget_what_lay_in_repartition_topics: "restart",
    lose_pages_that_were_changed_after_they_were_spilled: "spill",
}

# In worlds for these snapshots are written all the time; and what else they have.
OF_SNAPSHOTS: dict[Plant, dict[str, Any]] = {
    leave_snapshots_unfenced: {"workers": 3, "drowsy": 0.1, "session_ms": 1_500},
    restore_every_snapshot: {},
    trim_before_the_snapshot_is_committed: {},
}


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    always(DEEDS.get(plant, ""), monkeypatch)
    if plant in OF_SNAPSHOTS:
        snapshot_at_every_step(monkeypatch, **OF_SNAPSHOTS[plant])
    expect_notice("streams", plant, PLANTS[plant], monkeypatch)


@pytest.mark.parametrize("deed", sorted({*DEEDS.values()}))
def test_a_world_of_such_deeds_keeps_its_promises(deed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    always(deed, monkeypatch)
    assert [] == judge(2, "streams")["violations"]


@pytest.mark.parametrize("plant", OF_SNAPSHOTS, ids=lambda plant: plant.__name__)
def test_a_world_of_snapshots_keeps_its_promises(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    always("", monkeypatch)
    snapshot_at_every_step(monkeypatch, **OF_SNAPSHOTS[plant])
    assert [] == judge(PLANTS[plant][0], "streams")["violations"]


def snapshot_at_every_step(patch: pytest.MonkeyPatch, **given: Any) -> None:
    """Changelogs are due to be replaced as soon as there is anything in them, in pieces and over several commits."""
    drawn = StreamsPlan.draw
    names = ("CHANGELOG_BYTES_MIN", "CHANGELOG_COMMIT_BYTES", "SNAPSHOT_BYTES", "TRIM_BYTES")
    limits = {f"STREAMS_{name}": 1 for name in names}

    def draw(seed: int) -> StreamsPlan:
        plan = drawn(seed)
        return replace(plan, limits={**plan.limits, **limits}, **given)

    patch.setattr(StreamsPlan, "draw", draw)


def always(deed: str, patch: pytest.MonkeyPatch) -> None:
    """Every world has this deed; with an empty one none has any."""
    patch.setattr(streams_plan, "DEED_RATE", 1.0 if deed else 0.0)
    if deed:
        patch.setattr(streams_plan, "DEEDS", (deed,))
