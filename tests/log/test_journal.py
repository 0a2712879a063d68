"""R2 and R5 of the journal over a store that does as a script says: one rule, one test, and the PUTs counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from headwater.errors import Forbidden, HeadwaterError, Indeterminate, InvalidRequest, StorageFull, Unavailable
from headwater.limits import MANIFEST_KEEP_S, STALE_AFTER_S, WINDOW
from headwater.log import keys, snapshot
from headwater.log.intents import Intent, decode_manifest
from headwater.log.journal import Draft
from headwater.log.namespace import Namespace
from headwater.log.operations import CreateTopic
from headwater.log.payload import Piece
from headwater.sim.loop import sim_loop
from headwater.store.base import Body, Stat
from headwater.store.memory import MemoryStore
from headwater.types import Batch
from tests.log.helpers import Fold, chunk, keys_under, stored
from tests.log.helpers_desk import Desk, at_a_desk
from tests.log.helpers_store import (
    Step,
    after,
    applied_503,
    away,
    broken,
    forbidden,
    lost_answer,
    lost_request,
    own_412,
    raced,
    raced_by_itself,
    then,
    throttled,
)

DAY_S = 86_400.0


def test_alone_a_commit_is_one_put_and_nothing_else() -> None:
    async def main(desk: Desk) -> None:
        assert await desk.put()
        assert {"put_if_absent": 1} == dict(desk.store.calls)
        assert (1, "mine") == (desk.chain.state.seq, await desk.slot())
        assert desk.chain.state.recent["mine"].values == {"topic": 1}

    at_a_desk(main)


COMMITTED: dict[str, tuple[list[Step], int]] = {
    "the request is lost": ([lost_request], 2),
    "the answer is lost": ([lost_answer], 2),
    "both, again and again": ([lost_request, lost_answer, lost_answer, lost_request], 5),
    "412 on our own write": ([own_412], 1),
    "409 without a winner": ([raced], 2),
    "409 and the winner is us": ([raced_by_itself], 1),
    "503 throttling": ([throttled, throttled], 3),
    "503 and applied": ([applied_503], 2),
    "away for a while": ([away] * 8, 9),
    "raced after a lost answer": ([lost_answer, raced], 2),
}


@pytest.mark.parametrize("case", COMMITTED)
def test_a_commit_that_took_effect_is_found_committed(case: str) -> None:
    steps, puts = COMMITTED[case]

    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", *steps)
        assert await desk.put()
        assert puts == desk.puts
        assert ("mine", 1, ["manifest/" + "0" * 19 + "1"]) == (
            await desk.slot(),
            desk.chain.state.seq,
            await keys_under(desk.truth, ""),
        )

    at_a_desk(main)


def test_every_sending_has_the_same_bytes_and_the_same_slot() -> None:
    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", lost_request, throttled, away, raced, lost_request)
        assert await desk.put()
        assert 1 == len(set(desk.store.bodies))
        assert 6 == len(desk.store.bodies)

    at_a_desk(main)


LOST: dict[str, tuple[list[Step], int]] = {
    "412": ([], 1),
    "409 with a winner": ([raced], 1),
    "the request was lost, then 412": ([lost_request], 2),
    "503, then 412": ([throttled], 2),
}


@pytest.mark.parametrize("case", LOST)
def test_a_slot_that_somebody_else_holds_is_lost_and_folded(case: str) -> None:
    steps, puts = LOST[case]

    async def main(desk: Desk) -> None:
        await desk.rival()
        desk.store.will("put_if_absent", *steps)
        assert not await desk.put()
        assert (puts, 1) == (desk.puts, desk.chain.state.seq)
        assert ("rival", ["rival"]) == (await desk.slot(), list(desk.chain.state.names))
        assert await desk.put()
        assert (2, "mine") == (desk.chain.state.seq, await desk.slot(2))

    at_a_desk(main)


def test_a_rival_that_comes_while_our_request_is_lost_wins() -> None:
    async def main(desk: Desk) -> None:
        async def rival() -> None:
            await desk.rival()

        desk.store.will("put_if_absent", lost_request, after(rival))
        assert not await desk.put()
        assert "rival" == await desk.slot()

    at_a_desk(main)


def test_our_own_late_landing_is_recognised() -> None:
    async def main(desk: Desk) -> None:
        async def lands() -> None:
            key, body = desk.store.bodies[0]
            await desk.truth.put_if_absent(key, body)

        desk.store.will("put_if_absent", lost_request, after(lands))
        assert await desk.put()
        assert 2 == desk.puts

    at_a_desk(main)


# -- the deadline ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([away], Unavailable),
        ([throttled], Unavailable),
        ([lost_request, away], Indeterminate),
        ([lost_answer, away], Indeterminate),
        ([away, lost_request, away], Indeterminate),
    ],
)
def test_at_the_deadline_only_what_was_certainly_turned_away_is_unavailable(
    steps: list[Step], kind: type[HeadwaterError]
) -> None:
    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", *steps[:-1])
        desk.store.always["put_if_absent"] = steps[-1]
        start = desk.parts.clock.elapsed_s()
        with pytest.raises(kind) as caught:
            await desk.put(deadline_s=30)
        assert kind is caught.type
        assert 15 < desk.parts.clock.elapsed_s() - start <= 30
        assert 3 < desk.puts < 60
        assert 0 == desk.chain.state.seq

    at_a_desk(main)


def test_a_503_of_a_write_that_was_applied_is_not_called_unapplied_at_the_deadline() -> None:
    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", applied_503)
        desk.store.always["put_if_absent"] = away
        try:
            assert await desk.put(deadline_s=10)
        except Indeterminate:
            pass
        assert "mine" == await desk.slot()

    at_a_desk(main)


@pytest.mark.parametrize("first", [own_412, raced_by_itself, lost_answer])
def test_a_slot_that_cannot_be_read_any_more_is_indeterminate(first: Step) -> None:
    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", first)
        desk.store.always["get"] = away
        desk.store.always["put_if_absent"] = raced
        with pytest.raises(Indeterminate):
            await desk.put(deadline_s=30)

    at_a_desk(main)


def test_a_refusal_before_anything_was_sent_is_what_it_is() -> None:
    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", away, forbidden)
        with pytest.raises(Forbidden):
            await desk.put()
        assert await desk.put()

    at_a_desk(main)


def test_a_refusal_behind_a_lost_request_leaves_it_unknown() -> None:
    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", lost_request, forbidden)
        with pytest.raises(Indeterminate):
            await desk.put()

    at_a_desk(main)


def test_an_error_that_no_store_should_raise_is_not_swallowed() -> None:
    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", broken)
        with pytest.raises(RuntimeError):
            await desk.put()

    at_a_desk(main)


# -- R5: knowledge older than an hour ------------------------------------------------------------------------


def sleeps(desk: Desk, seconds: float) -> Callable[[], Coroutine[Any, Any, None]]:
    async def sleep() -> None:
        await sim_loop().sleep(seconds)

    return sleep


async def collected(truth: MemoryStore, commits: int) -> Fold:
    """The world goes on: so many commits, a snapshot of the last, and all manifests below it are collected."""
    fold = Fold()
    for i in range(commits):
        fold.do(CreateTopic(name=f"other-{i}", partitions=1), name=f"other-{i}")
    seq = fold.state.seq
    await truth.put(keys.snapshot_key(seq), snapshot.encode(fold.state))
    await truth.put(keys.LATEST, snapshot.encode_latest(seq))
    await truth.put_if_absent(keys.boundary_key(seq), b"")
    await truth.put_if_absent(keys.manifest_key(seq), stored(fold.manifests[-1]))
    return fold


@pytest.mark.parametrize(("nap_s", "lists"), [(STALE_AFTER_S, 0), (STALE_AFTER_S + 1, 1)])
def test_knowledge_older_than_an_hour_is_checked_against_the_boundary(nap_s: float, lists: int) -> None:
    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", then(sleeps(desk, nap_s)))
        assert await desk.put()
        assert lists == desk.store.calls["list"]
        assert 1 == desk.chain.state.seq

    at_a_desk(main)


def test_a_slot_at_the_boundary_is_a_commit() -> None:
    async def main(desk: Desk) -> None:
        await desk.truth.put(keys.boundary_key(1), b"")
        desk.store.will("put_if_absent", then(sleeps(desk, 2 * STALE_AFTER_S)))
        assert await desk.put()

    at_a_desk(main)


def test_a_recycled_slot_is_no_commit() -> None:
    async def main(desk: Desk) -> None:
        async def world() -> None:
            await sim_loop().sleep(2 * MANIFEST_KEEP_S)
            await collected(desk.truth, 9)

        desk.store.will("put_if_absent", after(world))
        assert not await desk.put()
        assert (9, False) == (desk.chain.state.seq, "mine" in desk.chain.state.recent)
        assert "topic-mine" not in desk.chain.state.names
        assert await desk.put()
        assert ("mine", 10) == (await desk.slot(10), desk.chain.state.seq)

    at_a_desk(main)


def test_a_wall_clock_that_says_an_hour_is_enough_when_the_other_slept_too() -> None:
    async def main(desk: Desk) -> None:
        desk.parts.clock.jump(int((STALE_AFTER_S + 1) * 1_000))
        assert desk.chain.is_stale()
        desk.parts.clock.jump(-int((STALE_AFTER_S + 1) * 1_000))
        assert not desk.chain.is_stale()
        desk.parts.clock.jump(-int(9 * STALE_AFTER_S * 1_000))  # a clock that was set back hides no time
        await sim_loop().sleep(STALE_AFTER_S + 1)
        assert desk.chain.is_stale()

    at_a_desk(main)


def test_when_nobody_remembers_any_more_the_fate_of_a_slept_over_put_is_indeterminate() -> None:
    async def main(desk: Desk) -> None:
        async def world() -> None:
            await sim_loop().sleep(2 * MANIFEST_KEEP_S)
            await collected(desk.truth, WINDOW + 1)

        desk.store.will("put_if_absent", after(world))
        with pytest.raises(Indeterminate):
            await desk.put()

    at_a_desk(main)


def test_a_boundary_that_cannot_be_listed_leaves_a_late_answer_unknown() -> None:
    async def main(desk: Desk) -> None:
        desk.store.will("put_if_absent", then(sleeps(desk, 2 * STALE_AFTER_S)))
        desk.store.always["list"] = away
        with pytest.raises(Indeterminate):
            await desk.put()

    at_a_desk(main)


# -- what is written ---------------------------------------------------------------------------------------------


def test_manifest_time_is_the_larger_of_the_clock_and_the_time_before() -> None:
    async def main(desk: Desk) -> None:
        assert await desk.put()
        first = desk.chain.state.time_ms
        assert desk.parts.clock.wall_ms() == first
        desk.parts.clock.jump(-1_000_000)
        assert await desk.put(name="next")
        assert first == desk.chain.state.time_ms

    at_a_desk(main)


def test_inline_bytes_lie_where_the_manifest_says_behind_own_and_merged_intents() -> None:
    async def main(desk: Desk) -> None:
        one, two = b"a" * 100, b"b" * 33
        own = [chunk(obj="", pos=0, len=len(data)) for data in (one, two)]
        pieces = [Piece(intent=Intent(id=f"own-{i}", tip=0, appends=[c]), parts=[d], size=len(d)) for i, (c, d) in
                  enumerate(zip(own, (one, two), strict=True))]  # fmt: skip
        other = Intent(id="other", tip=0, appends=[chunk()])
        draft = Draft(pieces=pieces, merged=[("segment/x", [other])])
        assert await desk.parts.journal.put_next(draft, deadline_s=99)
        data = (await desk.truth.get(keys.manifest_key(1))).data
        made = decode_manifest(data, 1)
        assert [one, two] == [data[c.pos : c.pos + c.len] for i in made.intents[:2] for c in i.appends]
        assert (other, ["segment/x"], 3) == (made.intents[2], made.merged, len(made.intents))

    at_a_desk(main)


def test_the_manifest_names_its_writer_and_two_puts_never_have_the_same_bytes() -> None:
    async def main(desk: Desk) -> None:
        for name in ("aaaa", "bbbb"):
            assert await desk.put(name=name)
        made = [decode_manifest((await desk.truth.get(keys.manifest_key(seq))).data, seq) for seq in (1, 2)]
        assert ["w1", "w1"] == [m.writer for m in made]
        assert made[0].id != made[1].id

    at_a_desk(main)


def test_an_undecodable_slot_stops_the_writer_with_a_clear_error() -> None:
    async def main(desk: Desk) -> None:
        await desk.truth.put(keys.manifest_key(1), b"garbage")
        with pytest.raises(HeadwaterError) as caught:
            await desk.put()
        assert not isinstance(caught.value, Unavailable | InvalidRequest)

    at_a_desk(main)


def test_a_full_disk_is_reported_at_once_and_nothing_is_applied() -> None:
    async def main() -> None:
        truth = MemoryStore()

        class Full(MemoryStore):
            async def put_if_absent(self, key: str, body: Body) -> Stat:
                raise StorageFull("The disk is full.")

        log = await Namespace.open(truth)
        await log.create_topic("t")
        full = Full()
        full._shelf = truth._shelf
        late = await Namespace.open(full)
        with pytest.raises(StorageFull):
            await late.append("t", 0, Batch(codec="kafka2", data=b"x", count=1, timestamp_min=0, timestamp_max=0))
        assert 0 == (await log.refresh()).topics[1].partitions[0].next

    asyncio.run(main())
