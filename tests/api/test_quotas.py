"""Quotas: what a second may hold, what comes after, and that memory stays bounded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.api import quotas as quotas_module
from headwater.api.quotas import Kind, Quotas
from headwater.errors import Throttled
from headwater.limits import QUOTA_WAIT_MS_MAX
from headwater.log.state.model import Quota


class ByHand:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def wall_ms(self) -> int:
        return int(self.now_s * 1_000)

    def elapsed_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Desk:
    """Quotas, a clock, and short ways to ask."""

    def __init__(self, **rates: Any) -> None:
        self.clock = ByHand()
        self.quotas = Quotas(self.clock)
        self.rules = {"ann": Quota(**rates)}

    def wait_ms(self, kind: Kind, amount: float = 1, principal: str = "ann", namespace: str = "ns") -> int:
        """0 if it was paid, else when to come back."""
        try:
            self.quotas.take(self.rules, namespace, principal, kind, amount)
        except Throttled as error:
            return error.retry_after_ms
        return 0


def test_a_second_s_worth_may_come_at_once_and_then_at_the_rate() -> None:
    desk = Desk(requests_per_s=4)
    assert [0, 0, 0, 0, 250] == [desk.wait_ms("requests") for _ in range(5)]
    desk.clock.now_s += 0.1
    assert 150 == desk.wait_ms("requests")
    desk.clock.now_s += 0.15
    assert [0, 250] == [desk.wait_ms("requests") for _ in range(2)]
    desk.clock.now_s += 3_600
    assert [0, 0, 0, 0, 250] == [desk.wait_ms("requests") for _ in range(5)]


def test_whoever_comes_when_told_is_let_in() -> None:
    desk = Desk(produce_bytes_per_s=3)
    for amount in (1, 2, 3, 7, 1, 1):
        wait_ms = desk.wait_ms("produce", amount)
        desk.clock.now_s += wait_ms / 1_000
        assert wait_ms == 0 or 0 == desk.wait_ms("produce", amount)


def test_what_is_larger_than_a_bucket_needs_a_full_one_and_leaves_a_debt() -> None:
    desk = Desk(produce_bytes_per_s=100)
    assert 0 == desk.wait_ms("produce", 1)
    assert 10 == desk.wait_ms("produce", 1_000)
    desk.clock.now_s += 0.01
    assert 0 == desk.wait_ms("produce", 1_000)
    assert 9_010 == desk.wait_ms("produce", 1)


def test_a_refusal_takes_nothing() -> None:
    desk = Desk(produce_bytes_per_s=100)
    assert 0 == desk.wait_ms("produce", 60)
    assert [200, 200] == [desk.wait_ms("produce", 60) for _ in range(2)]
    assert 0 == desk.wait_ms("produce", 40)


def test_what_was_fetched_is_charged_afterwards_and_the_next_fetch_waits() -> None:
    desk = Desk(fetch_bytes_per_s=1_000)
    desk.quotas.check(desk.rules, "ns", "ann", "fetch")
    desk.quotas.charge(desk.rules, "ns", "ann", "fetch", 3_000)
    with pytest.raises(Throttled) as refused:
        desk.quotas.check(desk.rules, "ns", "ann", "fetch")
    assert 2_000 == refused.value.retry_after_ms
    assert "1000 bytes fetched a second" in refused.value.message
    desk.clock.now_s += 2
    desk.quotas.check(desk.rules, "ns", "ann", "fetch")


def test_nothing_is_nothing_and_the_time_to_come_back_is_bounded() -> None:
    desk = Desk(requests_per_s=0, produce_bytes_per_s=1, fetch_bytes_per_s=0)
    assert QUOTA_WAIT_MS_MAX == desk.wait_ms("requests")
    assert 0 == desk.wait_ms("produce", 10**9)
    assert QUOTA_WAIT_MS_MAX == desk.wait_ms("produce")
    with pytest.raises(Throttled):
        desk.quotas.check(desk.rules, "ns", "ann", "fetch")


def test_principals_namespaces_and_kinds_have_buckets_of_their_own() -> None:
    desk = Desk(requests_per_s=1, produce_bytes_per_s=1)
    desk.rules["bob"] = Quota(requests_per_s=1)
    assert 0 == desk.wait_ms("requests")
    assert 0 == desk.wait_ms("requests", principal="bob")
    assert 0 == desk.wait_ms("requests", namespace="other")
    assert 0 == desk.wait_ms("produce")
    assert 0 < desk.wait_ms("requests")


def test_a_star_bounds_each_of_those_without_a_quota_of_their_own() -> None:
    desk = Desk()
    desk.rules = {"*": Quota(requests_per_s=1), "ann": Quota(produce_bytes_per_s=5)}
    assert [0, 0, 0] == [desk.wait_ms("requests") for _ in range(3)]
    for principal in ("bob", "eve"):
        assert [0, 1_000] == [desk.wait_ms("requests", principal=principal) for _ in range(2)]


def test_without_a_quota_nothing_is_bounded_and_nothing_is_kept() -> None:
    desk = Desk()
    assert 0 == desk.wait_ms("requests", principal="bob")
    assert 0 == desk.wait_ms("produce", 10**12)
    assert 0 == len(desk.quotas)


def test_a_new_rate_holds_at_once() -> None:
    desk = Desk(requests_per_s=100)
    assert 0 == desk.wait_ms("requests")
    desk.rules = {"ann": Quota(requests_per_s=2)}
    assert [0, 0, 500] == [desk.wait_ms("requests") for _ in range(3)]
    desk.rules = {}
    assert 0 == desk.wait_ms("requests")


def test_buckets_are_bounded_and_those_in_debt_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas_module, "QUOTA_BUCKETS_MAX", 3)
    desk = Desk()
    desk.rules = {"*": Quota(requests_per_s=1)}
    for name in "ab":
        assert 0 == desk.wait_ms("requests", principal=name)
    desk.clock.now_s += 1
    assert [0, 1_000] == [desk.wait_ms("requests", principal="c") for _ in range(2)]
    assert 0 == desk.wait_ms("requests", principal="d")
    assert 2 == len(desk.quotas)
    assert 1_000 == desk.wait_ms("requests", principal="c")
    for name in "efgh":
        desk.wait_ms("requests", principal=name)
        assert 3 >= len(desk.quotas)


@given(
    st.integers(1, 1_000),
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 3_000)), min_size=1, max_size=60),
)
def test_in_no_stretch_of_time_more_passes_than_its_rate_a_burst_and_one_request(
    rate: int, steps: list[tuple[float, int]]
) -> None:
    desk = Desk(produce_bytes_per_s=rate)
    passed: list[tuple[float, int]] = []
    for pause_s, amount in steps:
        desk.clock.now_s += pause_s
        if desk.wait_ms("produce", amount) == 0:
            passed.append((desk.clock.now_s, amount))
    for i, (begun_s, _) in enumerate(passed):
        for j in range(i, len(passed)):
            total = sum(amount for _, amount in passed[i:j])
            assert total <= rate * (passed[j][0] - begun_s + 1) + 1e-3


@given(st.integers(1, 1_000), st.lists(st.integers(1, 3_000), min_size=1, max_size=30))
def test_the_time_that_a_refusal_names_is_enough_and_one_less_is_not(rate: int, amounts: list[int]) -> None:
    desk = Desk(produce_bytes_per_s=rate)
    for amount in amounts:
        wait_ms = desk.wait_ms("produce", amount)
        if wait_ms > 1:
            desk.clock.now_s += (wait_ms - 1) / 1_000
            assert 1 == desk.wait_ms("produce", amount)
            wait_ms = 1
        desk.clock.now_s += wait_ms / 1_000
        assert wait_ms == 0 or 0 == desk.wait_ms("produce", amount)
