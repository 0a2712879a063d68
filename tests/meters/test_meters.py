from __future__ import annotations

import pytest

from headwater import limits
from headwater.meters import OTHER, PROCESS, Distribution, Family, Histogram, Meters, Sample, families
from headwater.meters.cells import SECONDS


def test_the_same_labels_give_the_same_cell() -> None:
    meters = Meters()
    meters.counter(families.COMMITS, "a").add()
    meters.counter(families.COMMITS, "a").add(2)
    meters.counter(families.COMMITS, "b").add()
    found = meters.snapshot()["headwater_commits"]
    assert {("a",): 3.0, ("b",): 1.0} == found.cells
    assert 4.0 == found.total()
    assert 3.0 == found.total(namespace="a")
    assert 0.0 == found.total(namespace="c")


def test_meters_of_two_apps_know_nothing_of_each_other() -> None:
    one, two = Meters(), Meters()
    one.gauge(families.GROUPS, "ns").set(3)
    assert {} == two.snapshot()["headwater_groups"].cells
    assert {("ns",): 3.0} == one.snapshot()["headwater_groups"].cells
    assert isinstance(PROCESS, Meters)


def test_a_label_keeps_as_many_values_as_its_bound_and_the_rest_is_other() -> None:
    meters = Meters()
    for number in range(limits.METER_TOPICS_MAX + 2):
        meters.counter(families.PRODUCED_RECORDS, "ns", f"topic-{number}").add()
    for number in range(limits.METER_TOPICS_MAX + 2):
        meters.counter(families.PRODUCED_RECORDS, "ns", f"topic-{number}").add()
    cells = meters.snapshot()["headwater_produce_records"].cells
    assert limits.METER_TOPICS_MAX + 1 == len(cells)
    assert 2.0 == cells["ns", f"topic-{limits.METER_TOPICS_MAX - 1}"]
    assert 4.0 == cells["ns", OTHER]


def test_a_topic_that_has_its_place_has_it_in_every_family() -> None:
    meters = Meters()
    for number in range(limits.METER_TOPICS_MAX):
        meters.counter(families.PRODUCED_RECORDS, "ns", f"topic-{number}").add()
    meters.counter(families.FETCHED_RECORDS, "ns", "topic-0").add()
    meters.counter(families.FETCHED_RECORDS, "ns", "late").add()
    assert {("ns", "topic-0"): 1.0, ("ns", OTHER): 1.0} == meters.snapshot()["headwater_fetch_records"].cells


def test_a_value_belongs_to_the_first_bucket_whose_end_is_not_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.1):
        histogram.observe(value)
    assert Distribution((1.0, 2.0), (2, 2, 1), 6.6) == histogram.read()


def test_quantiles_lie_evenly_inside_a_bucket_and_stop_at_the_last_bound() -> None:
    found = Distribution((1.0, 2.0, 4.0), (0, 100, 0, 0), 150.0)
    assert 1.5 == found.quantile(0.5)
    assert 1.99 == pytest.approx(found.quantile(0.99))
    assert 4.0 == Distribution((1.0, 2.0, 4.0), (0, 0, 0, 1), 9.0).quantile(0.5)
    assert 0.0 == Distribution((1.0,), (0, 0), 0.0).quantile(0.99)
    assert 0.0 == Distribution((1.0,), (0, 0), 0.0).mean


def test_the_difference_of_two_readings_is_what_came_in_between() -> None:
    meters = Meters()
    meters.histogram(families.PRODUCE_SECONDS, "ns").observe(10.0)
    before = meters.snapshot()["headwater_produce_seconds"].total(namespace="ns")
    meters.histogram(families.PRODUCE_SECONDS, "ns").observe(0.02)
    after = meters.snapshot()["headwater_produce_seconds"].total(namespace="ns")
    assert isinstance(before, Distribution)
    assert isinstance(after, Distribution)
    assert (2, 1) == (after.count, (after - before).count)
    assert 0.025 >= (after - before).quantile(0.99) > 0.01


def test_an_empty_histogram_has_a_distribution_in_sum() -> None:
    found = Meters().snapshot()["headwater_produce_seconds"].total()
    assert Distribution(SECONDS, (0,) * (len(SECONDS) + 1), 0.0) == found


def test_a_collector_is_asked_when_somebody_looks_and_no_more_once_it_has_left() -> None:
    meters, asked = Meters(), []

    def lag() -> list[Sample]:
        asked.append(1)
        return [Sample(families.GROUP_LAG, ("ns", "g", "t"), 5.0), Sample(families.GROUP_LAG, ("ns", "g", "t"), 2.0)]

    leave = meters.collect(lag)
    assert [] == asked
    assert {("ns", "g", "t"): 7.0} == meters.snapshot()["headwater_group_lag_records"].cells
    leave()
    leave()
    assert {} == meters.snapshot()["headwater_group_lag_records"].cells
    assert [1] == asked


def test_every_family_has_a_help_text_its_unit_at_the_end_and_bounds_for_its_labels() -> None:
    assert len({family.name for family in families.ALL}) == len(families.ALL)
    for family in families.ALL:
        assert isinstance(family, Family)
        assert family.help.endswith((".", "…."))
        assert family.name.startswith("headwater_")
        assert not family.name.endswith("_total")
        assert family.name.endswith(family.unit)
        assert set(family.labels) <= set(families.KEPT)
