"""For how long a commit waits for whoever may still come."""

from __future__ import annotations

import math

import pytest

from headwater.log.company import Company


def test_while_nobody_says_who_he_is_anybody_may_come() -> None:
    assert math.inf == Company(0.025).awaited_s(1.0)


def test_nobody_is_awaited_while_all_wait_themselves() -> None:
    company = Company(0.025)
    company.begin("a")
    company.begin("b")
    assert 0.0 == company.awaited_s(1.0)


def test_who_has_his_answer_is_awaited_until_he_is_back_or_late() -> None:
    company = Company(0.025)
    company.begin("a")
    company.end("a", 1.0)
    assert 0.020 == pytest.approx(company.awaited_s(1.005))
    company.begin("a")
    assert 0.0 == company.awaited_s(1.005)
    company.end("a", 1.010)
    assert 0.0 == company.awaited_s(1.035)
    assert 0.0 == company.awaited_s(1.011), "who is late is no longer awaited, whatever the clock says then"


def test_a_caller_with_two_appends_under_way_is_away_after_the_second() -> None:
    company = Company(0.025)
    company.begin("a")
    company.begin("a")
    company.end("a", 1.0)
    assert 0.0 == company.awaited_s(1.0)
    company.end("a", 2.0)
    assert 0.025 == pytest.approx(company.awaited_s(2.0))


def test_the_last_one_to_go_is_awaited_longest() -> None:
    company = Company(0.025)
    for caller, now_s in (("a", 1.0), ("b", 1.010)):
        company.begin(caller)
        company.end(caller, now_s)
    assert 0.015 == pytest.approx(company.awaited_s(1.020))
    company.leave("b")
    assert 0.005 == pytest.approx(company.awaited_s(1.020))


def test_who_has_left_is_not_awaited_and_an_answer_that_comes_later_changes_nothing() -> None:
    company = Company(0.025)
    company.begin("a")
    company.leave("a")
    company.leave("a")
    company.end("a", 1.0)
    assert 0.0 == company.awaited_s(1.0)
