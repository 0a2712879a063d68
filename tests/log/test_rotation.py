"""Whose manifest is next, where a few busy processes take turns."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from itertools import count, pairwise

import pytest

from headwater.bench.contention import Result, measure_gateways
from headwater.errors import Indeterminate
from headwater.log import keys
from headwater.log.committer import ASKED_MAX
from headwater.log.intents import Intent
from headwater.log.operations import CreateTopic
from headwater.log.rotation import BUSY_INTENTS, PASSED_MAX, RECENT, ROTATING_MAX, Rotation, shares
from headwater.log.turns import ROTATING_LISTED_S, ROTATING_LOSSES_MAX, SILENCE_PUTS, Durations, Look, Seen, Turns
from headwater.sim.faults import SimBucket
from headwater.sim.loop import sim_loop
from tests.log.helpers import FIXED, Parts, chunk, manifest, network, simulate
from tests.log.helpers_store import Gate, Scripted, away

BUSY = BUSY_INTENTS
PUT_S = FIXED.put[0] / 1_000


def after(*written: str | tuple[str, Mapping[str, int]]) -> Rotation:
    """What is known after these manifests: of a busy writer, or with the shares of several."""
    rotation = Rotation()
    for each in written:
        rotation.saw(*((each, {each: BUSY}) if isinstance(each, str) else each))
    return rotation


# -- whose share is what ------------------------------------------------------------------------------------


def segment(writer: str, number: int = 1) -> str:
    return keys.segment_key(1, writer, number)


def test_a_manifest_of_one_writer_is_all_its_own() -> None:
    assert {"a": 2} == shares(manifest(1, Intent(id="1", tip=0), Intent(id="2", tip=0), writer="a"))


def test_of_several_writers_those_intents_count_that_have_bytes() -> None:
    intents = [
        Intent(id="1", tip=0, appends=[chunk(obj="")]),  # its own, inline
        Intent(id="2", tip=0, appends=[chunk(obj=segment("a0"))]),  # its own, from a segment of bytes alone
        Intent(id="3", tip=0, ops=[CreateTopic(name="t", partitions=1)]),  # anybody's
        Intent(id="4", tip=0, appends=[chunk(obj=segment("b"))]),
        Intent(id="5", tip=0, appends=[chunk(obj=segment("b0", 7)), chunk(obj=segment("b"))]),
        Intent(id="6", tip=0, appends=[chunk(obj="elsewhere")]),
    ]
    found = shares(manifest(1, *intents, merged=[segment("b"), segment("c")], writer="a"))
    assert {"a": 2, "b": 2, "c": 0} == found


def test_of_a_crowd_nothing_is_counted() -> None:
    others = [segment(f"w{number}") for number in range(ROTATING_MAX)]
    mine = Intent(id="1", tip=0, appends=[chunk(obj="")])
    found = shares(manifest(1, mine, merged=others, writer="a"))
    assert {0} == set(found.values())
    assert ROTATING_MAX + 1 == len(found)
    assert () == after("b", "c", "b", ("a", found), "b", "c").order


# -- the order ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "order"),
    [
        (["a"] * 5, ""),  # alone
        (["a", "b"], "ab"),
        (["a", "b", "a"], "ba"),
        (["b", "a", "c"], "bac"),
        (["a", ("a", {"a": BUSY, "b": BUSY})], "ba"),  # who was named has not written yet, and is next
        (["a", ("a", {"a": BUSY, "c": BUSY, "b": BUSY})], "bca"),  # of two, by their names
        (["a", ("a", {"a": BUSY, "b": BUSY - 1})], ""),  # it has little to send
        (["a", "b", ("b", {"b": 1})], ""),  # it has little to send by now
        (["b", *["a"] * PASSED_MAX], "ba"),
        (["b", *["a"] * (PASSED_MAX + 1)], ""),  # it lets its turns pass
        (["b", *["a", "c"] * PASSED_MAX], "bac"),  # each of the others has written twice
        (["b", *["a", "c"] * PASSED_MAX, "a"], "ca"),
        (["b", ("b", {"b": BUSY, "x": 0}), "a"], "ba"),  # one that writes now and then does not take part
        (list("abcdefgh")[:ROTATING_MAX], "abcdefgh"),
        (list("abcdefghi")[: ROTATING_MAX + 1], ""),  # too many
        ([*"abcdefghi", *"abcdefgh" * (RECENT // 8)], "abcdefgh"),  # … until one of them has been away for long
    ],
)
def test_who_takes_turns_is_told_by_the_last_manifests(
    written: Sequence[str | tuple[str, Mapping[str, int]]], order: str
) -> None:
    assert list(order) == list(after(*written).order)


def test_all_who_have_seen_the_last_manifests_agree() -> None:
    rng = random.Random(1)
    written = [rng.choice("abcd") for _ in range(200)]
    assert all(after(*written[:end]).order == after(*written[max(0, end - RECENT) : end]).order for end in range(200))


# -- turns ----------------------------------------------------------------------------------------------------


def turns_of(writer: str, *written: str, now: float = 0.0) -> Turns:
    turns = Turns(writer, random.Random(1))
    for each in written:
        turns.saw_manifest(Seen(writer=each, shares={each: BUSY}, intents=BUSY), now)
    return turns


def test_who_is_next_writes_at_once_and_the_others_when_those_before_them_are_silent() -> None:
    silence_s = SILENCE_PUTS * Durations().put + Durations().get
    written = ("a", "b", "c")
    assert [0.0, silence_s, 2 * silence_s] == [turns_of(me, *written).turn_in_s(0.0) for me in written]
    assert [True, False, False] == [turns_of(me, *written).is_next for me in written]
    third = turns_of("c", *written)
    assert third.turn_in_s(2 * silence_s - 0.1) == pytest.approx(0.1)
    assert 0.0 == third.turn_in_s(2 * silence_s - 1e-9), "a sleep so short ends before it begins, for ever"
    assert 0.0 == third.turn_in_s(10.0)
    assert 0.0 == turns_of("d", *written).turn_in_s(0.0), "it takes no turns, and follows as ever"
    assert 0.0 == turns_of("a", "a", "a").turn_in_s(0.0)


@pytest.mark.parametrize(("me", "gets"), [("b", 0.5), ("a", 1.0)])
def test_who_comes_behind_the_next_one_asks_twice_while_a_get_takes_and_the_others_once(me: str, gets: float) -> None:
    took, turns = Durations(), turns_of(me, "c", "b", "a", now=10.0)
    first_s = turns.ask_in_s(10.0)
    assert 0.3 * took.put == pytest.approx(first_s)
    turns.asked(10.0 + first_s)
    assert gets * took.get == pytest.approx(turns.ask_in_s(10.0 + first_s))
    assert 0.0 == turns.ask_in_s(10.0 + first_s + gets * took.get - 1e-9)
    turns.saw_manifest(Seen(writer="c", shares={"c": BUSY}, age_s=1.0), 11.0)
    assert 0.0 == turns.ask_in_s(11.0), "the next one may have been there for long"


def test_who_takes_turns_writes_itself_though_others_are_busy_until_it_has_lost_too_often() -> None:
    turns = turns_of("a", "b", "a", "b", "a", "b")
    assert all(turns.direct(losses, 0.0) for losses in range(ROTATING_LOSSES_MAX + 1))
    assert not turns.direct(ROTATING_LOSSES_MAX + 1, 0.0)
    assert not turns_of("c", "b", "a", "b", "a").direct(0, 0.0)


def test_who_takes_turns_listens_and_lists_now_and_then() -> None:
    turns = turns_of("a", "b", "a", "b", "a")
    assert Look.LIST is turns.look(0.0, 0)
    turns.listed(0.0, is_news=True)
    assert Look.BELL is turns.look(ROTATING_LISTED_S / 2, 0)
    assert Look.BELL | Look.ANNOUNCED == turns.look(ROTATING_LISTED_S / 2, 1)
    assert Look.LIST is turns.look(ROTATING_LISTED_S, 1)


def test_a_naive_writer_takes_no_turns() -> None:
    turns = Turns("a", random.Random(1), cooperative=False)
    for each in "abab":
        turns.saw_manifest(Seen(writer=each, shares={each: BUSY}, intents=BUSY), 0.0)
    assert turns.direct(9, 0.0)
    assert (0.0, False) == (turns.turn_in_s(0.0), turns.rotates)


# -- processes ------------------------------------------------------------------------------------------------


class Two:
    """Two processes over one bucket, each with enough to send at a time."""

    def __init__(self) -> None:
        bucket = SimBucket(sim_loop())
        self.stores = [Scripted(network(bucket, profile=FIXED, seed=seed)) for seed in range(2)]
        self.each = [Parts(store, writer="ab"[seed], seed=seed) for seed, store in enumerate(self.stores)]
        self.wrote: list[str] = []  # whose manifests they were
        self.each[0].chain.listeners.append(lambda manifest, _: self.wrote.append(manifest.writer))
        self._names = count()

    async def burst(self, who: int) -> float:
        """So many intents at once that one takes turns; how long they took, in seconds."""
        start_s = sim_loop().time()
        ops = [CreateTopic(name=f"t{next(self._names)}", partitions=1) for _ in range(BUSY)]
        await asyncio.gather(*(self.each[who].writer.commit(ops=[op]) for op in ops))
        return sim_loop().time() - start_s

    async def start(self) -> Two:
        for part in self.each:
            await part.chain.refresh()
        for _ in range(4):
            await asyncio.gather(self.burst(0), self.burst(1))
        assert all(part.committer.turns.rotates for part in self.each)
        return self


def test_two_busy_processes_take_turns_and_neither_publishes_anything() -> None:
    async def main() -> None:
        two = await Two().start()
        del two.wrote[:]
        for store in two.stores:
            store.calls.clear()
        for _ in range(8):
            await asyncio.gather(two.burst(0), two.burst(1))
        for part in two.each:
            await part.committer.drain()
        assert [] == [writer for writer, following in pairwise(two.wrote) if writer == following]
        assert [8, 8] == [store.calls["put_if_absent"] for store in two.stores]
        assert [0, 0] == [store.calls["put"] for store in two.stores]
        assert [0, 0] == [store._requests for store in two.stores]

    simulate(main())


def test_who_has_nothing_to_send_or_is_dead_is_waited_for_twice() -> None:
    async def main() -> None:
        two = await Two().start()
        assert "a" == two.wrote[-1], "the other one is next"
        waits = [await two.burst(0) for _ in range(PASSED_MAX + 2)]
        took = two.each[0].committer.turns.took
        silent_s, alone_s = SILENCE_PUTS * took.put + took.get + PUT_S, PUT_S
        assert [silent_s] * PASSED_MAX + [alone_s] * 2 == pytest.approx(waits, abs=0.15)
        assert not two.each[0].committer.turns.rotates

    simulate(main())


def test_what_goes_wrong_while_one_waits_for_its_turn_is_told_by_its_commit() -> None:
    async def main() -> None:
        two = await Two().start()
        two.stores[0].always["get"] = away
        await two.burst(0)  # its own PUT tells that the slot was free
        assert "a" == two.wrote[-1]
        await two.each[0].committer.drain()
        assert 0 == two.stores[0]._requests

    simulate(main())


def test_waiting_for_a_turn_goes_by_the_clock_that_one_has() -> None:
    """``bench year`` lets months pass in seconds, and waited for 324 s by the clock of the wall."""

    async def main() -> None:
        two = await Two().start()
        passed: list[float] = []

        async def sleep(seconds: float) -> None:
            passed.append(seconds)
            await sim_loop().sleep(seconds / 1_000)

        clock = two.each[0].clock
        clock.sleep = sleep  # type: ignore[method-assign]
        elapsed_s = clock.elapsed_s
        clock.elapsed_s = lambda: elapsed_s() + sum(passed)  # type: ignore[method-assign]
        start_s = sim_loop().time()
        await two.burst(0)
        assert sim_loop().time() - start_s < 2 * PUT_S
        assert sum(passed) > SILENCE_PUTS * PUT_S / 2

    simulate(main())


def test_who_is_broken_off_while_it_waits_for_its_turn_leaves_nothing_on_its_way() -> None:
    async def main() -> None:
        two = await Two().start()
        gate = Gate()
        two.stores[0].always["get"] = gate
        waiting = asyncio.ensure_future(two.burst(0))
        await sim_loop().sleep(0.3)
        assert 1 < gate.waiting <= ASKED_MAX
        task = two.each[0].committer._task
        assert task is not None
        task.cancel()
        with pytest.raises(Indeterminate, match="stopping"):
            await waiting
        await two.each[0].committer.drain()
        assert 0 == two.stores[0]._requests

    simulate(main())


# -- what it is good for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gateways", "p50", "p99"), [(2, 160, 430), (4, 240, 570), (8, 410, 900)])
def test_busy_gateways_that_take_turns_ack_sooner_with_fewer_requests(gateways: int, p50: float, p99: float) -> None:
    """Where one led, two had 220 / 779 ms with 20 PUTs a second, four 336 / 899 with 35, eight 435 / 975 with 60."""
    runs = [
        measure_gateways(gateways, "s3-standard", requests_per_s=400.0, seconds=20.0, seed=seed) for seed in range(1, 5)
    ]
    found = Result.pooled(runs)
    done = sorted(found.latencies_ms)
    assert done[len(done) // 2] < p50
    assert done[len(done) * 99 // 100] < p99
    assert found.put * len(done) / found.seconds < 16
