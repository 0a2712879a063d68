from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headwater.log import operations
from headwater.log.namespace import Namespace
from headwater.store import open_store
from tests.cli.conftest import Headwater


@pytest.fixture
def read(hw: Headwater) -> Headwater:
    """Topic ``a`` of two partitions, of which group ``g`` has read all but the last record of partition 0."""
    hw("topic", "create", "a", "--partitions", "2")
    hw("produce", "a", "--partition", "0", stdin=b"1\n2\n3\n")
    hw("produce", "a", "--partition", "1", stdin=b"4\n")
    assert hw("group", "reset", "g", "--topic", "a", "--to", "-1", "--execute").code == 0
    assert hw("group", "reset", "g", "--topic", "a", "--partition", "1", "--to", "latest", "--execute").code == 0
    return hw


def join(store: Path, group: str) -> None:
    async def main() -> None:
        async with await Namespace.open(open_store(f"file://{store}"), owns_store=True) as log:
            await log.writer.commit(
                ops=[operations.JoinGroup(group=group, member="m-1", topics=["a"], client="worker")]
            )

    asyncio.run(main())


def offsets(hw: Headwater, group: str = "g") -> dict[tuple[str, int], int]:
    return {(row["topic"], row["partition"]): row["offset"] for row in hw("group", "lag", group, "--json").json}


def test_groups_are_listed_with_their_lag(read: Headwater) -> None:
    assert "g" in read("group", "list").text
    rows = read("group", "list", "--json").json
    assert [(r["group"], r["members"], r["partitions"], r["lag"]) for r in rows] == [("g", 0, 2, 1)]


def test_without_groups_the_lists_are_empty(hw: Headwater) -> None:
    assert hw("group", "list", "--json").json == []
    assert hw("group", "lag", "--json").json == []
    assert "No groups" in hw("group", "list").text


def test_lag_counts_what_is_yet_to_be_read(read: Headwater) -> None:
    rows = read("group", "lag", "g", "--json").json
    assert [(r["partition"], r["offset"], r["high_watermark"], r["lag"]) for r in rows] == [(0, 2, 3, 1), (1, 1, 1, 0)]
    assert read("group", "lag", "--json").json == rows
    assert "committed" in read("group", "lag").text


def test_a_member_is_described_with_what_it_owns(read: Headwater, store: Path) -> None:
    join(store, "g")
    found = read("group", "describe", "g", "--json").json
    (member,) = found["members"]
    assert (member["member"], member["client"], member["topics"]) == ("m-1", "worker", ["a"])
    assert sorted(member["owned"]) == [["a", 0], ["a", 1]]
    text = read("group", "describe", "g").text
    assert "m-1" in text
    assert "a[0,1]" in text


@pytest.mark.parametrize("words", [("describe", "nope"), ("lag", "nope"), ("delete", "nope", "--yes")])
def test_a_group_that_does_not_exist_is_an_error(read: Headwater, words: tuple[str, ...]) -> None:
    ran = read("group", *words, "--json")
    assert (ran.code, ran.error["error"]) == (1, "NotFound")


def test_reset_shows_its_plan_and_does_nothing_without_execute(read: Headwater) -> None:
    before = offsets(read)
    ran = read("group", "reset", "g", "--to", "earliest", "--json")
    assert [(r["partition"], r["before"], r["after"], r["executed"]) for r in ran.json] == [
        (0, 2, 0, False),
        (1, 1, 0, False),
    ]
    assert "--execute" in read("group", "reset", "g", "--to", "earliest").err
    assert offsets(read) == before


@pytest.mark.parametrize(
    ("to", "expected"),
    [("earliest", [0, 0]), ("latest", [3, 1]), ("0", [0, 0]), ("@0", [0, 0]), ("2100-01-01", [3, 1])],
)
def test_reset_executes(read: Headwater, to: str, expected: list[int]) -> None:
    assert read("group", "reset", "g", "--to", to, "--execute").code == 0
    assert list(offsets(read).values()) == expected


def test_reset_of_one_partition_leaves_the_others(read: Headwater) -> None:
    read("group", "reset", "g", "--to", "1", "--topic", "a", "--partition", "0", "--execute")
    assert offsets(read) == {("a", 0): 1, ("a", 1): 1}


def test_reset_beyond_the_end_changes_nothing_at_all(read: Headwater) -> None:
    before = offsets(read)
    assert read("group", "reset", "g", "--to", "3", "--execute").code == 1  # partition 1 ends at 1
    assert offsets(read) == before


def test_reset_of_a_group_with_members_is_refused(read: Headwater, store: Path) -> None:
    before = offsets(read)
    join(store, "g")
    ran = read("group", "reset", "g", "--to", "earliest", "--execute", "--json")
    assert (ran.code, ran.error["applied"]) == (1, "no")
    assert offsets(read) == before


def test_reset_of_an_unknown_group_needs_a_topic(read: Headwater) -> None:
    assert read("group", "reset", "new", "--to", "earliest").code == 1
    assert read("group", "reset", "new", "--to", "earliest", "--topic", "a", "--execute").code == 0
    assert offsets(read, "new") == {("a", 0): 0, ("a", 1): 0}


@pytest.mark.parametrize(
    "words",
    [
        ("--to", "sometimes"),
        ("--to", "0", "--partition", "1"),
        ("--to", "0", "--topic", "a", "--topic", "b", "--partition", "1"),
        (),
    ],
)
def test_a_senseless_reset_is_a_usage_error(read: Headwater, words: tuple[str, ...]) -> None:
    assert read("group", "reset", "g", *words).code == 2


def test_reset_of_a_topic_or_partition_that_does_not_exist_is_an_error(read: Headwater) -> None:
    assert read("group", "reset", "g", "--to", "0", "--topic", "nope").code == 1
    assert read("group", "reset", "g", "--to", "0", "--topic", "a", "--partition", "7").code == 1


def test_a_deleted_group_is_gone(read: Headwater) -> None:
    assert read("group", "delete", "g", stdin=b"n\n").code == 130
    assert read("group", "delete", "g", "--yes", "--json").json == {"deleted": "g"}
    assert read("group", "list", "--json").json == []


def test_a_group_with_members_is_not_deleted(read: Headwater, store: Path) -> None:
    join(store, "g")
    assert read("group", "delete", "g", "--yes", "--json").error["error"] == "Conflict"


def test_offsets_of_some_partitions_can_be_forgotten(read: Headwater) -> None:
    ran = read("group", "delete-offsets", "g", "--topic", "a", "--partition", "1", "--yes", "--json")
    assert ran.json == {"group": "g", "deleted": [["a", 1]]}
    assert offsets(read) == {("a", 0): 2}
    assert read("group", "delete-offsets", "g", "--topic", "a", "--partition", "1", "--yes").code == 2
    assert read("group", "delete-offsets", "g", "--yes").code == 2
