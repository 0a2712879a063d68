"""Latency profiles: their percentiles, and that a seed repeats itself."""

from __future__ import annotations

import random

import pytest

from headwater.sim.latency import PROFILES, S3_EXPRESS, S3_STANDARD, ZERO, Kind, Profile

CASES: list[tuple[Profile, Kind, float, float]] = [
    (S3_STANDARD, "put", 60, 220),
    (S3_STANDARD, "get", 30, 150),
    (S3_STANDARD, "list", 45, 200),
    (S3_STANDARD, "delete", 60, 220),
    (S3_EXPRESS, "put", 12, 30),
    (S3_EXPRESS, "get", 6, 18),
    (S3_EXPRESS, "list", 15, 40),
    (S3_EXPRESS, "delete", 12, 30),
]


@pytest.mark.parametrize(("profile", "kind", "p50_ms", "p99_ms"), CASES)
def test_samples_have_the_median_and_the_tail_of_the_profile(
    profile: Profile, kind: Kind, p50_ms: float, p99_ms: float
) -> None:
    rng = random.Random(1)
    samples = sorted(profile.sample(kind, rng) * 1_000 for _ in range(20_000))
    assert p50_ms == pytest.approx(samples[10_000], rel=0.03)
    assert p99_ms == pytest.approx(samples[19_800], rel=0.08)


def test_zero_takes_no_time_and_no_randomness() -> None:
    rng = random.Random(1)
    before = rng.getstate()
    assert [0.0] * 4 == [ZERO.sample(kind, rng) for kind in ("put", "get", "list", "delete")]
    assert before == rng.getstate()


def test_a_seed_repeats_itself() -> None:
    a, b = random.Random(3), random.Random(3)
    assert [S3_STANDARD.sample("put", a) for _ in range(9)] == [S3_STANDARD.sample("put", b) for _ in range(9)]


def test_profiles_are_found_by_name() -> None:
    assert {"zero", "s3-standard", "s3-express"} == set(PROFILES)
    assert all(name == profile.name for name, profile in PROFILES.items())


def test_a_tail_below_the_median_is_refused() -> None:
    with pytest.raises(AssertionError):
        Profile("backwards", put=(10, 5), get=(1, 1), list=(1, 1))
