"""Leases: keys for any name, an age by the store's clock, and reasons to expel somebody."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.groups.leases import Lease, Leases, overdue, renewal_ms
from headwater.limits import HEARTBEAT_MS, LEASES_KNOWN_MAX, NAME_BYTES_MAX
from headwater.log import keys
from headwater.log.state import Member
from headwater.sim.faults import Faults
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.base import check_key
from tests.log.helpers import Parts, memory, network, simulate

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=NAME_BYTES_MAX).filter(
    lambda name: len(name.encode()) <= NAME_BYTES_MAX
)


@given(names, names)
def test_any_names_make_a_key_that_every_store_can_hold(group: str, member: str) -> None:
    key = keys.lease_key(group, member)
    check_key(key, 600)
    assert 3 == len(key.split("/"))
    assert key.startswith(keys.leases_of(group))


@given(names, names, names, names)
def test_different_members_have_different_keys(one: str, two: str, three: str, four: str) -> None:
    assert ((one, two) == (three, four)) == (keys.lease_key(one, two) == keys.lease_key(three, four))


@pytest.mark.parametrize(
    ("name", "part"),
    [("a", "a"), (".", "%2E"), ("..", "%2E%2E"), ("a/b", "a%2Fb"), ("~", "%7E"), ("a b", "a%20b"), ("é", "%C3%A9")],
)
def test_names_are_quoted(name: str, part: str) -> None:
    assert f"lease/{part}/{part}" == keys.lease_key(name, name)


def test_long_names_that_begin_alike_are_told_apart() -> None:
    assert keys.lease_key("g" * 201, "m") != keys.lease_key("g" * 202, "m")
    assert 200 + len("lease//m") == len(keys.lease_key("g" * 200, "m")) == len(keys.lease_key("g" * 512, "m"))


@pytest.mark.parametrize(("session_ms", "interval_ms"), [(6_000, 2_000), (45_000, 15_000), (1_800_000, HEARTBEAT_MS)])
def test_a_session_has_three_renewals_or_more(session_ms: int, interval_ms: int) -> None:
    assert interval_ms == renewal_ms(session_ms)


def lease(age_ms: int = 0, date_ms: int = 0) -> Lease:
    return Lease(age_ms=age_ms, date_ms=date_ms)


def test_a_lease_is_good_to_the_last_moment_of_its_session() -> None:
    member = Member(id="m", session_ms=45_000)
    assert "" == overdue(member, lease(45_000), 0)
    assert "45001" in overdue(member, lease(45_001), 0)
    assert "gone" in overdue(member, None, 0)


def test_a_release_is_overdue_only_when_both_clocks_say_so() -> None:
    member = Member(id="m", revoking={1: {0: 1}}, revoking_ms=1_000, rebalance_ms=500)
    assert "" == overdue(member, lease(date_ms=1_500), 9_999)
    assert "" == overdue(member, lease(date_ms=9_999), 1_500)
    assert "released" in overdue(member, lease(date_ms=1_501), 1_501)
    assert "" == overdue(Member(id="m"), lease(date_ms=9_999_999), 9_999_999)


def test_the_age_is_the_stores_and_not_ours() -> None:
    async def main() -> None:
        loop = sim_loop()
        parts = Parts(network(), clock=SimClock(loop, skew_ms=7_000_000, drift=3.0))
        leases = Leases(parts.chain)
        await leases.renew("g", "m", session_ms=45_000)
        await loop.sleep(10.0)
        found = await leases.look("g", "m")
        assert found is not None
        assert 10_000 == found.age_ms
        assert {"lease/g/m": found} == await leases.all("g") == await leases.all()
        assert {} == await leases.all("other")
        await leases.drop(["lease/g/m", "lease/g/never"])
        assert await leases.look("g", "m") is None

    simulate(main())


def test_a_lease_says_whose_it_is() -> None:
    async def main() -> None:
        store = memory()
        await Leases(Parts(store).chain).renew("g", "m", session_ms=45_000)
        body = msgspec.json.decode((await store.get("lease/g/m")).data)
        assert {"group": "g", "member": "m", "session_ms": 45_000} == body

    simulate(main())


def test_a_store_that_is_silent_for_a_while_is_asked_again() -> None:
    async def main() -> None:
        store = network(faults=Faults(lost_request=0.4, lost_answer=0.3, timeout_s=1.0))
        leases = Leases(Parts(store).chain)
        for _ in range(20):
            await leases.renew("g", "m", session_ms=45_000)
            assert await leases.look("g", "m") is not None
            assert 1 == len(await leases.all("g"))

    simulate(main(), rng=random.Random(3))


def test_a_process_remembers_a_bounded_number_of_members() -> None:
    async def main() -> None:
        leases = Leases(Parts(memory()).chain)
        for n in range(LEASES_KNOWN_MAX + 5):
            await leases.renew("g", f"m{n}", session_ms=45_000)
        assert LEASES_KNOWN_MAX == len(leases._seen)
        leases.forget("g", f"m{LEASES_KNOWN_MAX}")
        assert LEASES_KNOWN_MAX - 1 == len(leases._seen)

    simulate(main())
