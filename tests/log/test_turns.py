"""Whose turn it is: what is drawn, and from what."""

from __future__ import annotations

import random

import pytest

from headwater.bench.contention import measure_gateways
from headwater.log.turns import (
    ANNOUNCED_MAX,
    LISTED_S,
    LONE_S,
    RECENT,
    STREAK,
    UNAWARE,
    Durations,
    Look,
    Seen,
    Turns,
)

REST_S = 2.2 * Durations().put + Durations().get  # that a chain may have without anybody's stepping forward


@pytest.mark.parametrize("intents", [1, 40, 1_000])
def test_how_long_a_follower_waits_goes_by_how_many_write_and_not_by_how_much(intents: int) -> None:
    for seed in range(200):
        turns = Turns("me", random.Random(seed))
        for _ in range(RECENT):
            turns.saw_manifest(
                Seen(writer="other", shares={"other": 1, "me": 1}, intents=intents, others=intents), 10.0
            )
        turns.published(10.0)
        assert not turns.my_turn(0, 10.0 + REST_S)
        assert turns.my_turn(0, 10.0 + REST_S + 0.6 * 2 * (Durations().put + Durations().list))


@pytest.mark.parametrize("intents", [1, 40])
def test_a_writer_whose_manifests_carry_nobody_elses_intents_does_not_know_that_others_wait(intents: int) -> None:
    turns = Turns("me", random.Random(1))
    alone = Seen(writer="other", intents=intents, others=intents)
    turns.saw_manifest(Seen(writer="other", shares={"other": 1, "me": 1}, intents=intents, others=intents), 0.0)
    for _ in range(RECENT - 1):
        turns.saw_manifest(alone, 0.0)
        assert not turns.unaware()
        assert not turns.passed_over(UNAWARE)
    turns.saw_manifest(alone, 0.0)
    assert turns.unaware()
    assert turns.passed_over(UNAWARE)


def test_in_company_announced_keys_are_asked_for_and_a_list_now_and_then() -> None:
    turns = Turns("me", random.Random(1))
    turns.saw_manifest(Seen(writer="me", shares={"me": 1, "other": 1}, intents=2, others=1), 0.0)
    assert Look.LIST is turns.look(0.0, 1), "nothing was listed yet"
    turns.listed(0.0, is_news=True)
    assert Look.LIST is turns.look(0.0, 1), "where there was news there may be more"
    turns.listed(0.0, is_news=False)
    assert Look.ANNOUNCED is turns.look(LISTED_S / 2, 1)
    assert Look.LIST is turns.look(LISTED_S / 2, 0), "nobody has said where to look"
    assert Look.LIST is turns.look(LISTED_S / 2, ANNOUNCED_MAX + 1), "one LIST costs less than so many GETs"
    assert Look.LIST is turns.look(LISTED_S, 1)


def test_who_is_alone_looks_where_somebody_said_that_it_will_be_and_lists_after_a_streak() -> None:
    turns = Turns("me", random.Random(1))
    assert not turns.look(0.0, 0)
    assert Look.ANNOUNCED is turns.look(0.0, 1)
    assert Look.LIST is turns.look(0.0, ANNOUNCED_MAX + 1)
    for number in range(STREAK):
        assert not Look.LIST & turns.look(LONE_S * number / STREAK, 0)
        turns.saw_manifest(Seen(writer="me"), LONE_S * number / STREAK)
    assert Look.LIST is turns.look(LONE_S, 0)
    assert Look.ANNOUNCED | Look.BELL == turns.look(LONE_S, 1)
    turns.saw_pending(0, LONE_S)
    assert not turns.look(LONE_S, 0), "it has just looked"


def test_who_does_not_cooperate_looks_at_nobody() -> None:
    turns = Turns("me", random.Random(1), cooperative=False)
    turns.saw_manifest(Seen(writer="me", shares={"me": 1, "other": 1}, intents=2, others=1), 0.0)
    for number in range(2 * STREAK):
        turns.saw_manifest(Seen(writer="me"), LONE_S * number / STREAK)
    assert not turns.look(LONE_S * 2, 0)


@pytest.mark.parametrize("seed", range(3))
def test_two_gateways_with_many_clients_wait_for_each_other_no_longer_than_a_few_round_trips(seed: int) -> None:
    """A follower drew its turn from a time that grew with the requests of the leader's clients: it waited for 6 s and
    more, and 12 s at 1,000 requests a second, for a leader whose clients had gone."""
    found = measure_gateways(2, "s3-standard", requests_per_s=1_000.0, seconds=4.0, seed=seed)
    assert 4_000 == pytest.approx(len(found.latencies_ms), abs=10)
    assert max(found.latencies_ms) < 2_000
