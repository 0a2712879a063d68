"""What is said of groups, from the state alone."""

from __future__ import annotations

import pytest

from headwater.errors import NotFound
from headwater.groups.describe import GroupInfo, Lag, MemberInfo, group_info, lag, lag_by_topic
from headwater.log.operations import (
    CommitOffsets,
    DeleteTopic,
    InitProducer,
    JoinClassic,
    JoinGroup,
    LeaveGroup,
    OffsetEntry,
    ReleasePartitions,
    Reserve,
    SyncClassic,
    TrimLog,
)
from tests.log.helpers import Fold, chunk


def join(member: str, *topics: str) -> JoinGroup:
    return JoinGroup(group="g", member=member, topics=list(topics), client=f"c-{member}", instance=f"i-{member}")


def row(topic: str, partition: int, committed: int, end: int, behind: int, member: str = "", group: str = "g") -> Lag:
    return Lag(group=group, topic=topic, partition=partition, committed=committed, end=end, lag=behind, member=member)


def by_topic(fold: Fold) -> dict[str, tuple[int, int]]:
    """What ``lag`` says of the group, summed; ``lag_by_topic`` says the same."""
    found: dict[str, tuple[int, int]] = {}
    for each in lag(fold.state, "g"):
        behind, count = found.get(each.topic, (0, 0))
        found[each.topic] = behind + each.lag, count + 1
    assert found == lag_by_topic(fold.state, "g")
    return found


def test_a_group_goes_from_stable_by_reconciling_to_stable_and_ends_empty() -> None:
    fold = Fold()
    topic = fold.topic(2)
    fold.done(join("a", "t"))
    assert "Stable" == group_info(fold.state, "g").state
    fold.done(join("b", "t"))
    info = group_info(fold.state, "g")
    assert info == GroupInfo(
        group="g",
        kind="consumer",
        state="Reconciling",
        generation=2,
        assignor="cooperative-sticky",
        members=[
            MemberInfo(
                member="a",
                instance="i-a",
                client="c-a",
                epoch=1,
                topics=["t"],
                owned=[("t", 0)],
                revoking=[("t", 1)],
            ),
            MemberInfo(member="b", instance="i-b", client="c-b", epoch=2, topics=["t"], owned=[], revoking=[]),
        ],
    )
    fold.done(ReleasePartitions(group="g", member="a", partitions=[(topic, 1)]))
    assert "Stable" == group_info(fold.state, "g").state
    fold.done(LeaveGroup(group="g", member="a"), LeaveGroup(group="g", member="b"))
    assert ("Empty", []) == (group_info(fold.state, "g").state, group_info(fold.state, "g").members)


def test_a_classic_group_has_kafkas_states() -> None:
    fold = Fold()
    offer = JoinClassic(group="g", member="a", protocol_type="consumer", protocols=[("range", "")], delay_ms=1_000)
    fold.done(offer)
    assert ("PreparingRebalance", "classic") == (group_info(fold.state, "g").state, group_info(fold.state, "g").kind)
    fold = Fold()
    fold.done(JoinClassic(group="g", member="a", protocol_type="consumer", protocols=[("range", "")]))
    assert ("CompletingRebalance", "range") == (
        group_info(fold.state, "g").state,
        group_info(fold.state, "g").assignor,
    )
    fold.done(SyncClassic(group="g", member="a", generation=1, assignments={}))
    assert "Stable" == group_info(fold.state, "g").state
    fold.done(LeaveGroup(group="g", member="a"))
    assert "Empty" == group_info(fold.state, "g").state


def test_lag_is_what_readers_may_still_read() -> None:
    fold = Fold()
    one, two = fold.topic(2, "one"), fold.topic(3, "two")
    fold.done(chunk(one, 0, 10), chunk(one, 1, 4), chunk(two, 2, 7))
    fold.done(CommitOffsets(group="g", offsets=[OffsetEntry(one, 0, 4), OffsetEntry(two, 2, 7)]))
    assert [row("one", 0, 4, 10, 6), row("two", 2, 7, 7, 0)] == lag(fold.state, "g")
    assert {"one": (6, 1), "two": (0, 1)} == by_topic(fold)
    fold.done(join("a", "one", "nowhere"))
    assert [row("one", 0, 4, 10, 6, "a"), row("one", 1, -1, 4, 4, "a"), row("two", 2, 7, 7, 0)] == lag(fold.state, "g")
    assert {"one": (10, 2), "two": (0, 1)} == by_topic(fold)
    fold.done(TrimLog(topic=one, partition=0, before=8))
    assert row("one", 0, 4, 10, 2, "a") == lag(fold.state, "g")[0]
    assert {"one": (6, 2), "two": (0, 1)} == by_topic(fold)
    fold.done(DeleteTopic(topic=one))
    assert [row("two", 2, 7, 7, 0)] == lag(fold.state, "g")
    assert {"two": (0, 1)} == by_topic(fold)


def test_lag_ends_where_an_open_reservation_begins() -> None:
    fold = Fold()
    topic = fold.topic(1, "one")
    pid = fold.done(InitProducer()).values["pid"]
    fold.done(chunk(topic, 0, 3))
    fold.done(Reserve(pid=pid, epoch=0, timeout_ms=60_000), chunk(topic, 0, 5, pid=pid, epoch=0, seq=0))
    fold.done(CommitOffsets(group="g", offsets=[OffsetEntry(topic, 0, 1)]))
    assert [row("one", 0, 1, 3, 2)] == lag(fold.state)


def test_what_a_member_is_to_give_up_is_still_its_own() -> None:
    fold = Fold()
    fold.topic(2, "t")
    fold.done(join("a", "t"))
    fold.done(join("b", "t"))
    assert ["a", "a"] == [known.member for known in lag(fold.state, "g")]


def test_all_groups_come_by_name() -> None:
    fold = Fold()
    topic = fold.topic(1, "t")
    for name in ("z", "a"):
        fold.done(CommitOffsets(group=name, offsets=[OffsetEntry(topic, 0, 0)]))
    assert ["a", "z"] == [known.group for known in lag(fold.state)]
    with pytest.raises(NotFound, match="'no'"):
        lag(fold.state, "no")
    with pytest.raises(NotFound, match="'no'"):
        lag_by_topic(fold.state, "no")
    with pytest.raises(NotFound, match="'no'"):
        group_info(fold.state, "no")
