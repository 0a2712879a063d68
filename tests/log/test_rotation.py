"""Whose manifest is next, where a few busy processes take turns."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest

from headwater.bench.contention import Result, measure_gateways
from headwater.log import keys
from headwater.log.intents import Intent
from headwater.log.operations import CreateTopic
from headwater.log.rotation import BUSY_INTENTS, PASSED_MAX, RECENT, ROTATING_MAX, Rotation, shares
from headwater.log.turns import ROTATING_LISTED_S, ROTATING_LOSSES_MAX, SILENCE_PUTS, Durations, Look, Seen, Turns
from tests.log.helpers import chunk, manifest

BUSY = BUSY_INTENTS


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
    turns.saw_manifest(Seen(writer="c", shares={"c": BUSY}, age_s=1.0), 11.0)
    assert turns.ask_in_s(11.0) <= 0, "the next one may have been there for long"


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
