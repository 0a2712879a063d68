"""The pure machines under random operations: what must hold after every manifest, whatever members wish for."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec
import pytest
from msgspec import structs

from headwater.log import operations as ops
from headwater.log.state import Group, Member, State, assignors, migration
from tests.log.helpers import Fold

SEEDS = 60
STEPS = 80
NAMES = ["t0", "t1", "t2", "t3"]
MEMBERS = [f"m{n}" for n in range(8)]
INSTANCES = ["", "", "", "i0", "i1"]
Place = tuple[int, int]


class Chaos:
    """Draws operations on one group of each kind, and on one that changes its kind, most of them sensible."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.fold = Fold()
        self.time = 1_000
        for name in NAMES[:2]:
            self.fold.topic(self.rng.randint(1, 4), name)

    @property
    def state(self) -> State:
        return self.fold.state

    def step(self) -> list[ops.AnyOp]:
        """One manifest. The operations that took effect."""
        rng = self.rng
        self.time += rng.choice([0, 1, 100, 5_000, 60_000])
        intents = [
            self.fold.intent(*(self._op() for _ in range(rng.choice([1, 1, 1, 2, 3]))))
            for _ in range(rng.choice([1, 1, 2, 4]))
        ]
        before, generations = msgspec.json.encode(self.state.groups), self._generations()
        outcomes = self.fold.commit(*intents, time=self.time)
        if all(outcome.error for outcome in outcomes):
            assert before == msgspec.json.encode(self.state.groups), "a refused intent leaves no trace"
        for name, generation in self._generations().items():
            assert generation >= generations.get(name, 0)
        return [op for intent, outcome in zip(intents, outcomes, strict=True) if not outcome.error for op in intent.ops]

    def _generations(self) -> dict[str, int]:
        return {name: group.generation for name, group in self.state.groups.items()}

    def _op(self) -> ops.AnyOp:
        rng = self.rng
        draw = rng.random()
        if draw < 0.06:
            return self._topic_op()
        if draw < 0.4:
            return self._consumer_op("c")
        if draw < 0.65:
            return self._classic_op("k")
        return self._consumer_op("x") if rng.random() < 0.5 else self._mixed_op()

    def _topic_op(self) -> ops.AnyOp:
        rng, name = self.rng, self.rng.choice(NAMES)
        known = self.state.names.get(name)
        if known is None:
            return ops.CreateTopic(name=name, partitions=rng.randint(1, 4))
        if rng.random() < 0.4:
            return ops.DeleteTopic(topic=known)
        return ops.AddPartitions(topic=known, total=len(self.state.topics[known].partitions) + rng.randint(0, 2))

    def _consumer_op(self, name: str) -> ops.AnyOp:
        rng, draw = self.rng, self.rng.random()
        group = self.state.groups.get(name)
        member = rng.choice(list(group.members) if group and group.members and rng.random() < 0.8 else MEMBERS)
        known = group.members.get(member) if group else None
        if draw < 0.45:
            return ops.JoinGroup(
                group=name,
                member=rng.choice(MEMBERS),
                epoch=rng.choice([-1, -1, 0]),
                topics=rng.sample(NAMES, rng.randint(0, 4)),
                instance=rng.choice(INSTANCES),
                assignor=rng.choice(["", "", *assignors.NAMES]),
            )
        if draw < 0.75:
            owed = [(t, p) for t, places in (known.revoking if known else {}).items() for p in places]
            epoch = rng.choice([-1, known.epoch, 0]) if known else -1
            return ops.ReleasePartitions(group=name, member=member, partitions=owed or [(1, 0)], epoch=epoch)
        if draw < 0.85:
            return ops.LeaveGroup(group=name, member=member)
        entry = ops.OffsetEntry(rng.randint(1, 3), 0, rng.randint(0, 9))
        generation = rng.randint(-1, (group.generation if group else 0) + 1)
        return ops.CommitOffsets(group=name, member=member, generation=generation, offsets=[entry])

    def _mixed_op(self) -> ops.AnyOp:
        """As ``_classic_op``, of members whose subscription and claims are known."""
        rng, op = self.rng, self._classic_op("x")
        if not isinstance(op, ops.JoinClassic):
            return op
        group = self.state.groups.get("x")
        known = group.members.get(op.member) if group else None
        places = list(held(known)) if known else []
        claims = rng.choice([[], places, places[:1], [(1, 0), (2, 0)]])
        topics = rng.choice([None, *[rng.sample(NAMES, rng.randint(0, 4))] * 9])
        return structs.replace(op, topics=topics, claims=claims, protocols=[("a", "")])

    def _classic_op(self, name: str) -> ops.AnyOp:
        rng, draw, member = self.rng, self.rng.random(), self.rng.choice(MEMBERS[:4])
        group = self.state.groups.get(name)
        generation = group.generation if group else 0
        if draw < 0.5:
            return ops.JoinClassic(
                group=name,
                member=member,
                protocol_type=rng.choice(["consumer"] * 9 + ["connect"]),
                protocols=[(name, "") for name in rng.choice([["a", "b"], ["b", "a"], ["b"], ["c"]])],
                instance=rng.choice(INSTANCES),
                delay_ms=rng.choice([0, 0, 3_000]),
                rebalance_ms=10_000,
            )
        if draw < 0.65:
            return ops.SyncClassic(
                group=name,
                member=group.leader if group and group.leader and rng.random() < 0.8 else member,
                generation=generation - rng.choice([0, 0, 0, generation > 0]),
                assignments={name: f"to {name}" for name in MEMBERS},
            )
        if draw < 0.8:
            return ops.EndJoin(group=name, generation=generation)
        if draw < 0.9:
            return ops.LeaveGroup(group=name, member=member)
        entry = ops.OffsetEntry(1, 0, rng.randint(0, 9))
        return ops.CommitOffsets(group=name, member=member, generation=generation, offsets=[entry])


def held(member: Member) -> Iterator[Place]:
    for side in (member.owned, member.revoking):
        for topic, places in side.items():
            yield from ((topic, partition) for partition in places)


def targets(group: Group) -> dict[str, set[Place]]:
    return {name: {(t, p) for t, places in mine.items() for p in places} for name, mine in group.target.items()}


def wanted(state: State, group: Group) -> set[Place]:
    """All partitions that somebody subscribes to."""
    ids = {state.names[name] for member in group.members.values() for name in member.topics if name in state.names}
    return {(topic, partition) for topic in ids for partition in range(len(state.topics[topic].partitions))}


def check_consumer(state: State, group: Group) -> None:
    owners = Counter(place for member in group.members.values() for place in held(member))
    assert all(count == 1 for count in owners.values()), "I5: a partition has one owner"
    target = targets(group)
    assert set(target) == set(group.members)
    assert Counter(wanted(state, group)) == Counter(place for places in target.values() for place in places)
    for name, member in group.members.items():
        assert name == member.id
        mine = {(t, p) for t, places in member.owned.items() for p in places}
        assert mine <= target[name], "what the target does not name is to be revoked"
        assert all(state.topics[topic].name in member.topics for topic, _ in target[name])
        assert bool(member.revoking) == bool(member.revoking_ms)
        assert all(places for side in (member.owned, member.revoking) for places in side.values())
        since = [g for side in (member.owned, member.revoking) for places in side.values() for g in places.values()]
        assert all(g <= member.epoch <= group.generation for g in since), "an epoch covers what it owns"
        if not member.revoking:
            free = target[name] - owners.keys()
            assert not free, "who owes nothing has all that is free"
            assert member.epoch == group.generation
        if member.protocols:
            assert member.joined, "a group has begun when all its classic members have joined"
            assert member.portable
            assert 0 < member.generation <= group.generation
            assert all(since <= group.generation for since in since_of(member.owned))
            told = {(topic, partition) for topic, places in member.told.items() for partition in places}
            assert migration.knows_all(member) == (told == mine and not member.revoking)


def since_of(places: Mapping[int, Mapping[int, int]]) -> list[int]:
    return [since for partitions in places.values() for since in partitions.values()]


def check_open(group: Group) -> None:
    """While classic members are awaited nothing is granted but what one of them has claimed."""
    owners = Counter(place for member in group.members.values() for place in held(member))
    assert all(count == 1 for count in owners.values()), "I5: a partition has one owner"
    assert group.deadline_ms > 0
    for member in group.members.values():
        assert member.epoch == group.generation or member.revoking
        if member.protocols and not member.joined:
            assert not list(held(member))
            assert member.generation < group.generation
        elif member.protocols:
            assert member.generation == -1, "it is told when all have joined"


def check_moves(before: Group, after: Group, state: State, applied: list[ops.AnyOp]) -> None:
    """A partition leaves a member only by its own release, with its member, or with its topic.

    A classic one releases what it does not claim when it joins.
    """
    mine = [op for op in applied if getattr(op, "group", "") == after.name]
    released = {(op.member, tuple(p)) for op in mine if isinstance(op, ops.ReleasePartitions) for p in op.partitions}
    claims = [(op.member, set(map(tuple, op.claims))) for op in mine if isinstance(op, ops.JoinClassic)]
    left = {op.member for op in mine if isinstance(op, ops.LeaveGroup)}
    renamed = {op.member for op in mine if isinstance(op, ops.JoinGroup)}
    taken = {op.instance for op in mine if isinstance(op, ops.JoinGroup | ops.JoinClassic) if op.instance}
    for name, member in before.members.items():
        if name in left or name not in after.members or name in renamed or member.instance in taken:
            continue
        still = set(held(after.members[name]))
        unclaimed = [claimed for other, claimed in claims if other == name]
        for place in held(member):
            gone = (name, place) in released or any(place not in claimed for claimed in unclaimed)
            assert place in still or place[0] not in state.topics or gone


def check_classic(group: Group) -> None:
    assert (group.phase == "empty") == (not group.members)
    assert (group.phase in ("preparing", "completing")) == (group.deadline_ms > 0)
    assert not group.delayed or group.phase == "preparing"
    if group.phase == "preparing" and not group.delayed:
        assert not all(member.joined for member in group.members.values()), "a phase ends when all have joined"
    if group.phase in ("completing", "stable"):
        assert group.leader in group.members
        assert all(group.protocol in dict(member.protocols) for member in group.members.values())
        assert all(member.joined or member.instance for member in group.members.values())
    if group.phase == "completing":
        assert not any(member.assignment for member in group.members.values())


def check(state: State) -> None:
    for group in state.groups.values():
        if group.kind == "classic":
            check_classic(group)
        elif group.members and group.phase == "preparing":
            check_open(group)
        elif group.members:
            check_consumer(state, group)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_rules_hold_after_every_manifest(seed: int) -> None:
    chaos = Chaos(seed)
    for _ in range(STEPS):
        before = msgspec.msgpack.decode(msgspec.msgpack.encode(chaos.state.groups), type=dict[str, Group])
        applied = chaos.step()
        check(chaos.state)
        for name in before.keys() & {"c", "x"} & chaos.state.groups.keys():
            after = chaos.state.groups[name]
            if ("consumer", "empty") == (before[name].kind, before[name].phase) == (after.kind, after.phase):
                check_moves(before[name], after, chaos.state, applied)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_partition_finds_its_member_when_members_release(seed: int) -> None:
    chaos = Chaos(seed)
    for _ in range(STEPS):
        chaos.step()
    group = chaos.state.groups.get("c")
    if group is None:
        return
    for _ in range(2):
        for name, member in list(group.members.items()):
            owed = [(t, p) for t, places in member.revoking.items() for p in places]
            if owed:
                chaos.fold.done(ops.ReleasePartitions(group="c", member=name, partitions=owed))
    assert targets(group) == {
        name: {(t, p) for t, places in member.owned.items() for p in places} for name, member in group.members.items()
    }
    assert wanted(chaos.state, group) == {place for member in group.members.values() for place in held(member)}


@pytest.mark.parametrize("lets_go", [True, False], ids=["eager", "cooperative"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_partition_finds_its_member_of_either_protocol(seed: int, lets_go: bool) -> None:
    chaos = Chaos(seed)
    for _ in range(STEPS):
        chaos.step()
    group = chaos.state.groups.get("x")
    if group is None:
        return
    chaos.fold.done(ops.JoinGroup(group="x", member="new", topics=NAMES)) if group.kind != "classic" else None
    for _ in range(6):
        for name, member in list(group.members.items()):
            owed = [(t, p) for t, places in member.revoking.items() for p in places]
            if member.protocols and (group.kind == "classic" or not migration.knows_all(member) or not member.joined):
                told = [(t, p) for t, places in member.told.items() for p in places if t in chaos.state.topics]
                chaos.fold.done(
                    ops.JoinClassic(
                        group="x",
                        member=name,
                        protocol_type=group.protocol_type,
                        protocols=member.protocols,
                        instance=member.instance,
                        topics=member.topics if member.portable else None,
                        claims=[] if lets_go else sorted(set(told) & set(held(member)) - set(owed)),
                    )
                )
            elif owed and not member.protocols:
                chaos.fold.done(ops.ReleasePartitions(group="x", member=name, partitions=owed))
    check(chaos.state)
    if group.kind == "classic":
        assert all(member.joined for member in group.members.values())
        return
    assert targets(group) == {
        name: {(t, p) for t, places in member.owned.items() for p in places} for name, member in group.members.items()
    }
    assert all(migration.knows_all(member) for member in group.members.values() if member.protocols)
    assert wanted(chaos.state, group) == {place for member in group.members.values() for place in held(member)}


@pytest.mark.parametrize("assignor", assignors.NAMES)
def test_who_waits_for_a_topic_that_does_not_exist_gets_none_of_the_others(assignor: str) -> None:
    # Seed 0 found the sticky assignors counting such a member in where all the others were alike.
    fold = Fold()
    topic = fold.topic(4, "t")
    fold.done(ops.JoinGroup(group="c", member="a", topics=["t"], assignor=assignor))
    fold.done(ops.JoinGroup(group="c", member="b", topics=["later"], assignor=assignor))
    assert {"a": {topic: [0, 1, 2, 3]}, "b": {}} == fold.state.groups["c"].target


def test_a_release_that_was_long_on_its_way_takes_nothing_that_was_given_again() -> None:
    fold = Fold()
    topic = fold.topic(2, "t")
    late = ops.ReleasePartitions(group="c", member="a", partitions=[(topic, 1)], epoch=1)
    fold.done(ops.JoinGroup(group="c", member="a", topics=["t"]))
    for name, since in (("b", 1), ("c", 4)):
        fold.done(ops.JoinGroup(group="c", member=name, topics=["t"]))
        member = fold.state.groups["c"].members["a"]
        assert {topic: {1: since}} == member.revoking
        if name == "b":
            fold.done(late)  # in generation 3 it is the other one's
            fold.done(ops.LeaveGroup(group="c", member=name))
    fold.done(late)
    assert {topic: {1: 4}} == fold.state.groups["c"].members["a"].revoking
    fold.done(ops.ReleasePartitions(group="c", member="a", partitions=[(topic, 1)], epoch=4))
    assert {} == fold.state.groups["c"].members["a"].revoking


def test_what_is_granted_after_its_target_has_a_generation_of_its_own() -> None:
    # A member that named the target's generation could not be told from one that had heard of the later grant, and what
    # it said of its partitions before counted as a release of that one: a late heartbeat made a second owner.
    fold = Fold()
    topic = fold.topic(2, "t")
    fold.done(ops.JoinGroup(group="c", member="a", topics=["t"]))
    fold.done(ops.JoinGroup(group="c", member="b", topics=["t"]))
    early = fold.state.groups["c"].members["b"].epoch
    fold.done(ops.ReleasePartitions(group="c", member="a", partitions=[(topic, 1)], epoch=1))
    granted = fold.state.groups["c"].members["b"]
    assert {topic: {1: granted.epoch}} == granted.owned
    assert early < granted.epoch == fold.state.groups["c"].generation
    fold.done(ops.JoinGroup(group="c", member="b", topics=["u"], epoch=0))
    fold.done(ops.ReleasePartitions(group="c", member="b", partitions=[(topic, 1)], epoch=early))
    assert {topic: {1: granted.epoch}} == fold.state.groups["c"].members["b"].revoking


def test_a_classic_join_that_was_long_on_its_way_releases_nothing_that_its_member_was_told_since() -> None:
    fold = Fold()
    topic = fold.topic(2, "t")
    fold.done(ops.JoinGroup(group="c", member="new", topics=["t"]))
    join = ops.JoinClassic(
        group="c", member="old", protocol_type="consumer", protocols=[("range", "")], topics=["t"], as_of=fold.state.seq
    )
    fold.done(join)
    fold.done(ops.ReleasePartitions(group="c", member="new", partitions=[(topic, 1)]))
    fold.done(structs.replace(join, as_of=fold.state.seq))
    assert {topic: [1]} == fold.state.groups["c"].members["old"].told
    now = fold.state.seq
    fold.done(ops.JoinGroup(group="c", member="another", topics=["t"], instance=""))
    fold.done(ops.LeaveGroup(group="c", member="another"))
    fold.done(ops.JoinGroup(group="c", member="new", topics=["t", "u"], epoch=0))
    fold.done(structs.replace(join, topics=["u"], as_of=now, claims=[(topic, 1)]))
    assert [1] == list(fold.state.groups["c"].members["old"].revoking[topic])
    fold.done(structs.replace(join, topics=["u"]))
    assert [1] == list(fold.state.groups["c"].members["old"].revoking[topic]), "it was sent before it had anything"
    fold.done(structs.replace(join, topics=["u"], as_of=fold.state.seq))
    assert {} == fold.state.groups["c"].members["old"].revoking


def test_the_draw_reaches_every_corner() -> None:
    applied, phases, kinds = Counter[str](), Counter[str](), Counter[str]()
    for seed in range(40):
        chaos = Chaos(seed)
        for _ in range(STEPS):
            applied.update(type(op).__name__ for op in chaos.step())
            if "k" in chaos.state.groups:
                phases[chaos.state.groups["k"].phase] += 1
            if "x" in chaos.state.groups:
                mixed = chaos.state.groups["x"]
                speaks = {"classic" if member.protocols else "consumer" for member in mixed.members.values()}
                kinds[" ".join([mixed.kind, mixed.phase, *sorted(speaks)])] += 1
    for kind in (ops.JoinGroup, ops.ReleasePartitions, ops.LeaveGroup, ops.CommitOffsets, ops.JoinClassic):
        assert applied[kind.__name__] > 50, applied
    for kind in (ops.SyncClassic, ops.EndJoin, ops.CreateTopic, ops.DeleteTopic, ops.AddPartitions):
        assert applied[kind.__name__] > 10, applied
    assert all(phases[name] > 10 for name in ("empty", "preparing", "completing", "stable")), phases
    for kind in ("classic preparing classic", "consumer preparing classic consumer", "consumer empty classic consumer"):
        assert kinds[kind] > 50, kinds
