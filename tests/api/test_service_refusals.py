"""What the service refuses, verb by verb: rights, quotas, names and numbers; and what its errors do not tell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from headwater.api.quotas import Quotas
from headwater.api.service import Service
from headwater.api.service_base import scrubbed
from headwater.api.verbs import AclRule, GroupOffset, GroupOffsets, ProducerId, Verbs
from headwater.errors import (
    Corrupt,
    Forbidden,
    HeadwaterError,
    Indeterminate,
    InvalidRequest,
    NotFound,
    OffsetOutOfRange,
    Throttled,
    Unavailable,
)
from headwater.limits import (
    CONFIGS_MAX,
    INTENT_APPENDS_MAX,
    METADATA_BYTES_MAX,
    NAME_BYTES_MAX,
    PARTITION_MAX,
    SCOPES_MAX,
    TOPIC_NAME_MAX,
)
from headwater.log.namespace import Namespace
from headwater.log.operations import ChangeAcls, SetQuota
from headwater.log.outcomes import UnknownProducer
from headwater.store.memory import MemoryStore
from tests.log.helpers import blob, memory, opened, simulate

TID, TOPIC, GROUP, CLUSTER = "transactional_id", "topic", "group", "cluster"
OFFSETS = GroupOffsets(group="g", offsets={("t", 0): GroupOffset(offset=0)})
PRODUCER = ProducerId(id=1, epoch=0)  # of the transactional id "x"
RULE = AclRule("bob", "read", "topic", "t")
Call = Callable[[Service], Awaitable[Any]]
Needs = Sequence[tuple[Any, Any]]

# Every verb, how it is called, and what one must be allowed for it.
VERBS: dict[str, tuple[Call, Needs]] = {
    "topic": (lambda s: s.topic("t"), [("describe", TOPIC)]),
    "offset_of": (lambda s: s.offset_of("t", 0), [("describe", TOPIC)]),
    "create_topic": (lambda s: s.create_topic("new"), [("create", TOPIC)]),
    "delete_topic": (lambda s: s.delete_topic("t"), [("delete", TOPIC)]),
    "add_partitions": (lambda s: s.add_partitions("t", 5), [("alter", TOPIC)]),
    "alter_topic": (lambda s: s.alter_topic("t", {"k": "v"}), [("alter", TOPIC)]),
    "schemas": (lambda s: s.schemas("t"), [("describe", TOPIC)]),
    "set_schema": (lambda s: s.set_schema("t", "arrow", '{"a": "int8"}'), [("alter", TOPIC)]),
    "delete_records": (lambda s: s.delete_records("t", 0, 1), [("delete", TOPIC)]),
    "produce": (lambda s: s.produce([("t", 0, blob())]), [("write", TOPIC)]),
    "init_producer": (lambda s: s.init_producer("x"), [("write", TID)]),
    "transact": (
        lambda s: s.transact(PRODUCER, [("t", 0, blob())], [OFFSETS]),
        [("write", TOPIC), ("read", TOPIC), ("read", GROUP), ("write", TID)],
    ),
    "begin": (lambda s: s.begin(PRODUCER), [("write", TID)]),
    "add": (
        lambda s: s.add("a" * 32, [("t", 0, blob())], [OFFSETS]),
        [("write", TOPIC), ("read", TOPIC), ("read", GROUP)],
    ),
    "upload": (lambda s: s.upload("t", 0, 10), [("write", TOPIC)]),
    "fetch": (lambda s: s.fetch("t", 0, 0), [("read", TOPIC)]),
    "ranges": (lambda s: s.ranges("t", 0, 0), [("read", TOPIC)]),
    "heartbeat": (lambda s: s.heartbeat("g", "m", topics=["t"], joining=True), [("read", TOPIC), ("read", GROUP)]),
    "leave": (lambda s: s.leave("g", "m"), [("read", GROUP)]),
    "commit_offsets": (lambda s: s.commit_offsets(OFFSETS), [("read", TOPIC), ("read", GROUP)]),
    "committed": (lambda s: s.committed("g"), [("describe", GROUP)]),
    "group": (lambda s: s.group("g"), [("describe", GROUP)]),
    "lag": (lambda s: s.lag("g"), [("describe", GROUP)]),
    "delete_group": (lambda s: s.delete_group("g"), [("delete", GROUP)]),
    "delete_offsets": (lambda s: s.delete_offsets("g", [("t", 0)]), [("delete", GROUP), ("read", TOPIC)]),
    "acls": (lambda s: s.acls(), [("describe", CLUSTER)]),
    "change_acls": (lambda s: s.change_acls([RULE]), [("alter", CLUSTER)]),
    "create_key": (lambda s: s.create_key("bob"), [("alter", CLUSTER)]),
    "keys": (lambda s: s.keys(), [("describe", CLUSTER)]),
    "revoke_key": (lambda s: s.revoke_key("nope"), [("alter", CLUSTER)]),
    "quotas": (lambda s: s.quotas(), [("describe", CLUSTER)]),
    "set_quota": (lambda s: s.set_quota("bob", requests_per_s=1), [("alter", CLUSTER)]),
    "abort_producer": (lambda s: s.abort_producer(PRODUCER.id, 0), [("alter", CLUSTER)]),
    "describe_namespace": (lambda s: s.describe_namespace(), [("describe", CLUSTER)]),
    "alter_namespace": (lambda s: s.alter_namespace({"history.retention.ms": "-1"}), [("alter", CLUSTER)]),
}
# What anybody may ask: lists leave out what the caller may not see; what is staged belongs to who began it.
OPEN: dict[str, Call] = {
    "topics": lambda s: s.topics(),
    "groups": lambda s: s.groups(),
    "commit": lambda s: s.commit("a" * 32),
    "abort": lambda s: s.abort("a" * 32),
    "append_upload": lambda s: s.append_upload("a" * 32),
}


async def made(store: MemoryStore) -> Namespace:
    """A namespace with a topic, a group and a transactional producer."""
    space = await opened(store)
    root = Service(space)
    await root.create_topic("t", 2)
    await root.produce([("t", 0, blob(3))])
    await root.commit_offsets(OFFSETS)
    assert PRODUCER.id == (await root.init_producer("x")).id
    return space


async def ruled(store: MemoryStore, *needs: tuple[Any, Any], principal: str = "ann") -> Namespace:
    """The same, where ann may do these things and no more."""
    space = await made(store)
    rules = [AclRule(principal, operation, resource, "*") for operation, resource in needs]
    await space.writer.commit(ops=[ChangeAcls(add=[*rules, AclRule("nobody", "read", "topic", "zzz")])])
    return space


async def outcome(call: Awaitable[Any]) -> HeadwaterError | None:
    try:
        await call
    except HeadwaterError as error:
        return error
    return None


# -- rights --------------------------------------------------------------------------------------------


def test_every_verb_is_here() -> None:
    verbs = {name for name in vars(Verbs) if not name.startswith("_")} - {"namespace", "aclose"}
    assert verbs == VERBS.keys() | OPEN.keys()


@pytest.mark.parametrize("name", VERBS)
def test_each_right_that_a_verb_needs_is_needed_and_all_together_are_enough(name: str) -> None:
    call, needs = VERBS[name]

    async def main() -> None:
        enough = await outcome(call(Service(await ruled(memory(), *needs), principal="ann")))
        assert not isinstance(enough, Forbidden | UnknownProducer)
        for missing in needs:
            space = await ruled(memory(), *(need for need in needs if need != missing))
            before = space.state.seq
            refused = await outcome(call(Service(space, principal="ann")))
            assert isinstance(refused, Forbidden | UnknownProducer), missing
            await space.refresh()
            assert before == space.state.seq, "a refusal changes nothing"

    simulate(main())


@pytest.mark.parametrize("name", VERBS)
def test_a_key_s_scopes_narrow_every_verb_for_root_too(name: str) -> None:
    async def main() -> None:
        scopes = [AclRule("*", "all", "topic", "zzz")]
        refused = await outcome(VERBS[name][0](Service(await made(memory()), scopes=scopes)))
        assert isinstance(refused, Forbidden | UnknownProducer)

    simulate(main())


@pytest.mark.parametrize("name", VERBS)
def test_what_does_not_exist_is_refused_like_what_does(name: str) -> None:
    async def main() -> None:
        there = await outcome(VERBS[name][0](Service(await ruled(memory()), principal="ann")))
        empty = await opened(memory())
        await empty.writer.commit(ops=[ChangeAcls(add=[AclRule("nobody", "read", "topic", "zzz")])])
        not_there = await outcome(VERBS[name][0](Service(empty, principal="ann")))
        assert (type(there), str(there)) == (type(not_there), str(not_there))

    simulate(main())


def test_lists_leave_out_what_the_caller_may_not_see() -> None:
    async def main() -> None:
        space = await made(memory())
        root = Service(space)
        await root.create_topic("u")
        await root.commit_offsets(GroupOffsets(group="g", offsets={("u", 0): GroupOffset(offset=0)}))
        await root.commit_offsets(GroupOffsets(group="h", offsets={("t", 0): GroupOffset(offset=0)}))
        await root.change_acls([AclRule("ann", "describe", "topic", "t"), AclRule("ann", "describe", "group", "g")])
        ann, eve = Service(space, principal="ann"), Service(space, principal="eve")
        assert ["t"] == [topic.name for topic in await ann.topics()]
        assert ["g"] == [group.group for group in await ann.groups()]
        assert [("g", "t")] == [(row.group, row.topic) for row in await ann.lag()]
        assert [("t", 0)] == list(await ann.committed("g"))
        assert ([], [], []) == (list(await eve.topics()), list(await eve.groups()), list(await eve.lag()))
        assert ["t", "u"] == [topic.name for topic in await root.topics()]

    simulate(main())


def test_a_topic_may_be_created_by_name_or_by_whoever_may_create_in_the_cluster() -> None:
    async def main() -> None:
        space = await ruled(memory(), ("create", CLUSTER))
        ann = Service(space, principal="ann")
        assert "new" == (await ann.create_topic("new")).name
        with pytest.raises(Forbidden):
            await ann.topic("new")

    simulate(main())


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.create_topic("__mine"),
        lambda s: s.produce([("__audit", 0, blob())]),
        lambda s: s.delete_topic("__audit"),
        lambda s: s.alter_topic("__audit", {"retention.ms": "1"}),
        lambda s: s.add_partitions("__audit", 2),
        lambda s: s.set_schema("__audit", "arrow", '{"a": "int8"}'),
        lambda s: s.delete_records("__audit", 0, -1),
        lambda s: s.transact(PRODUCER, [("__audit", 0, blob())]),
        lambda s: s.upload("__audit", 0, 1),
    ],
)
def test_root_itself_cannot_touch_the_audit_log_through_the_service(call: Call) -> None:
    async def main() -> None:
        root = Service(await made(memory()))
        with pytest.raises(Forbidden):
            await call(root)
        assert 1 == (await root.offset_of("__audit", 0)).offset

    simulate(main())


def test_a_new_rule_holds_for_reads_at_once_and_for_writes_of_a_warm_process_soon() -> None:
    async def main() -> None:
        store = memory()
        one = await made(store)
        two = await opened(store, seed=2)
        ann = Service(two, principal="ann")
        await ann.produce([("t", 0, blob())])
        await Service(one).change_acls([AclRule("ann", "all", "topic", "t", allow=False)])
        with pytest.raises(Forbidden):
            await ann.fetch("t", 0, 0)

        three = await opened(store, seed=3)
        bob = Service(three, principal="bob")
        await Service(one).change_acls([AclRule("bob", "all", "topic", "t", allow=False)])
        await three.chain.clock.sleep(31)
        with pytest.raises(Forbidden):
            await bob.produce([("t", 0, blob())])

    simulate(main())


def test_nobody_can_use_or_even_see_a_producer_of_somebody_else_s_transactional_id() -> None:
    async def main() -> None:
        space = await ruled(memory(), ("write", TOPIC))
        ann = Service(space, principal="ann")
        calls: list[Awaitable[Any]] = [
            ann.init_producer(current=PRODUCER),
            ann.transact(PRODUCER, [("t", 0, blob())]),
            ann.begin(PRODUCER),
            ann.produce([("t", 0, blob(producer_id=PRODUCER.id, producer_epoch=0, sequence=0))]),
        ]
        for call in calls:
            with pytest.raises(UnknownProducer) as refused:
                await call
            assert "x" not in refused.value.message.split()
        assert (PRODUCER.id, 1) == ((fresh := await Service(space).init_producer("x")).id, fresh.epoch)

    simulate(main())


# -- quotas --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*VERBS, *OPEN])
def test_each_verb_is_a_request(name: str) -> None:
    call = VERBS[name][0] if name in VERBS else OPEN[name]

    async def main() -> None:
        space = await made(memory())
        await space.writer.commit(ops=[SetQuota(principal="*", requests_per_s=1)])
        quotas = Quotas(space.chain.clock)
        await outcome(call(Service(space, principal="ann", quotas=quotas)))
        before = space.state.seq
        # The second one of this moment, by another Service of the process.
        refused = await outcome(call(Service(space, principal="ann", quotas=quotas)))
        assert isinstance(refused, Throttled)
        assert 1_000 >= refused.retry_after_ms > 0
        assert before == space.state.seq
        await outcome(call(Service(space, principal="bob", quotas=quotas)))

    simulate(main())


def test_bytes_produced_are_paid_for_before_and_bytes_fetched_after() -> None:
    async def main() -> None:
        space = await made(memory())
        await space.writer.commit(ops=[SetQuota(principal="ann", produce_bytes_per_s=100, fetch_bytes_per_s=10)])
        ann = Service(space, principal="ann", quotas=Quotas(space.chain.clock))
        await ann.produce([("t", 1, blob(size=60))])
        with pytest.raises(Throttled) as refused:
            await ann.produce([("t", 1, blob(size=30)), ("t", 0, blob(size=30))])
        assert 200 == refused.value.retry_after_ms
        assert 1 == (await ann.offset_of("t", 1)).offset
        assert 60 == len((await ann.fetch("t", 1, 0)).chunks[0].data)
        with pytest.raises(Throttled) as refused:
            await ann.fetch("t", 1, 0)
        assert 5_000 == refused.value.retry_after_ms
        await space.chain.clock.sleep(5)
        assert 1 == len((await ann.fetch("t", 1, 0)).chunks)

    simulate(main())


@pytest.mark.parametrize("quota", [{"produce_bytes_per_s": 10}, {"requests_per_s": 1}])
def test_a_throttled_retry_says_nothing_about_the_first_attempt(quota: dict[str, int]) -> None:
    async def main() -> None:
        space = await made(memory())
        await space.writer.commit(ops=[SetQuota(principal="ann", **quota)])
        ann = Service(space, principal="ann", quotas=Quotas(space.chain.clock))
        await ann.produce([("t", 0, blob(size=10))])
        with pytest.raises(Indeterminate) as undecided:
            await ann.produce([("t", 0, blob(size=10))], token="abcdef@1")
        assert ("abcdef@1", 1_000) == (undecided.value.token, undecided.value.data["retry_after_ms"])

    simulate(main())


def test_a_forbidden_retry_says_nothing_about_the_first_attempt() -> None:
    async def main() -> None:
        ann = Service(await ruled(memory()), principal="ann")
        for call in (
            ann.produce([("t", 0, blob())], token="abcdef@1"),
            ann.transact(PRODUCER, [("t", 0, blob())], token="abcdef@1"),
        ):
            with pytest.raises(Indeterminate, match="may not write topic 't'") as undecided:
                await call
            assert "abcdef@1" == undecided.value.token

    simulate(main())


# -- names and numbers ---------------------------------------------------------------------------------

BAD_NAMES = ["", ".", "..", "a\0b", "a\nb", "\x7f", "a\x85", "x" * (NAME_BYTES_MAX + 1), "\ud800"]
BAD_TOPICS = ["", ".", "..", "a/b", "a b", "../x", "t\n", "t\0", "é", "x" * (TOPIC_NAME_MAX + 1)]


def refuses(call: Call) -> None:
    async def main() -> None:
        space = await made(memory())
        before = space.state.seq
        with pytest.raises(InvalidRequest):
            await call(Service(space))
        await space.refresh()
        assert before == space.state.seq

    simulate(main())


@pytest.mark.parametrize("name", BAD_TOPICS)
def test_a_bad_topic_name_is_refused_by_every_verb_that_takes_one(name: str) -> None:
    offsets = GroupOffsets(group="g", offsets={(name, 0): GroupOffset(offset=0)})
    calls: list[Call] = [
        lambda s: s.topic(name),
        lambda s: s.offset_of(name, 0),
        lambda s: s.create_topic(name),
        lambda s: s.delete_topic(name),
        lambda s: s.add_partitions(name, 2),
        lambda s: s.alter_topic(name, {"k": "v"}),
        lambda s: s.delete_records(name, 0, 0),
        lambda s: s.produce([(name, 0, blob())]),
        lambda s: s.transact(PRODUCER, [(name, 0, blob())]),
        lambda s: s.transact(PRODUCER, [], [offsets]),
        lambda s: s.add("a" * 32, [(name, 0, blob())]),
        lambda s: s.upload(name, 0, 1),
        lambda s: s.fetch(name, 0, 0),
        lambda s: s.ranges(name, 0, 0),
        lambda s: s.heartbeat("g", "m", topics=[name], joining=True),
        lambda s: s.heartbeat("g", "m", released=[(name, 0)]),
        lambda s: s.commit_offsets(offsets),
        lambda s: s.delete_offsets("g", [(name, 0)]),
    ]
    for call in calls:
        refuses(call)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused_by_every_verb_that_takes_one(name: str) -> None:
    places = {("t", 0): GroupOffset(offset=0)}
    calls: list[Call] = [
        lambda s: s.heartbeat(name, "m"),
        lambda s: s.heartbeat("g", name),
        lambda s: s.leave(name, "m"),
        lambda s: s.leave("g", name),
        lambda s: s.commit_offsets(GroupOffsets(group=name, offsets=places)),
        lambda s: s.transact(PRODUCER, [], [GroupOffsets(group=name, offsets=places)]),
        lambda s: s.committed(name),
        lambda s: s.group(name),
        lambda s: s.lag(name),
        lambda s: s.delete_group(name),
        lambda s: s.delete_offsets(name, [("t", 0)]),
        lambda s: s.create_key(name),
        lambda s: s.revoke_key(name),
        lambda s: s.set_quota(name, requests_per_s=1),
        lambda s: s.change_acls([AclRule(name, "read", "topic", "t")]),
        lambda s: s.change_acls([AclRule("a", "read", "group", name)]),
        lambda s: s.commit(name),
        lambda s: s.abort(name),
        lambda s: s.add(name, [("t", 0, blob())]),
        lambda s: s.append_upload(name),
    ]
    if name:
        calls += [
            lambda s: s.init_producer(name),
            lambda s: s.produce([("t", 0, blob())], once=name),
            lambda s: s.commit_offsets(GroupOffsets(group="g", offsets=places, member=name)),
        ]
    for call in calls:
        refuses(call)


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.produce([]),
        lambda s: s.produce([("t", 0, blob())] * (INTENT_APPENDS_MAX + 1)),
        lambda s: s.produce([("t", -1, blob())]),
        lambda s: s.produce([("t", PARTITION_MAX, blob())]),
        lambda s: s.produce([("t", True, blob())]),
        lambda s: s.produce([("t", 0, blob())], token="no token"),
        lambda s: s.init_producer(current=ProducerId(id=-1, epoch=0)),
        lambda s: s.init_producer("x", current=ProducerId(id=1, epoch=2**15)),
        lambda s: s.transact(ProducerId(id=2**70, epoch=0), [("t", 0, blob())]),
        lambda s: s.begin(PRODUCER, timeout_ms=0),
        lambda s: s.add("a" * 32, []),
        lambda s: s.upload("t", 0, 0),
        lambda s: s.append_upload("a" * 32, sequence=-2),
        lambda s: s.fetch("t", 0, -1),
        lambda s: s.fetch("t", 0, 2**70),
        lambda s: s.fetch("t", 0, 0, bytes_max=0),
        lambda s: s.fetch("t", 0, 0, wait_ms=-1),
        lambda s: s.fetch("t", 0, 0, wait_ms=float("nan")),
        lambda s: s.fetch("t", 0, 0, wait_ms=float("inf")),
        lambda s: s.fetch("t", 0, 0, as_of=-1),
        lambda s: s.ranges("t", 0, 0, bytes_max=0),
        lambda s: s.ranges("t", 0, 0),  # memory cannot presign
        lambda s: s.upload("t", 0, 10),
        lambda s: s.offset_of("t", 0, -5),
        lambda s: s.offset_of("t", 0, "newest"),
        lambda s: s.create_topic("new", 0),
        lambda s: s.create_topic("new", PARTITION_MAX + 1),
        lambda s: s.create_topic("new", 1, {"UPPER": "v"}),
        lambda s: s.create_topic("new", 1, {"k": None}),
        lambda s: s.create_topic("new", 1, {"k": "v" * 5_000}),
        lambda s: s.create_topic("new", 1, {f"k{i}": "v" for i in range(CONFIGS_MAX + 1)}),
        lambda s: s.alter_topic("t", {}),
        lambda s: s.add_partitions("t", 0),
        lambda s: s.delete_records("t", 0, -2),
        lambda s: s.delete_offsets("g", []),
        lambda s: s.commit_offsets(GroupOffsets(group="g", offsets={("t", 0): GroupOffset(offset=-1)})),
        lambda s: s.commit_offsets(GroupOffsets(group="g", generation=-2, offsets={("t", 0): GroupOffset(offset=0)})),
        lambda s: s.commit_offsets(
            GroupOffsets(group="g", offsets={("t", 0): GroupOffset(offset=0, metadata="x" * (METADATA_BYTES_MAX + 1))})
        ),
        lambda s: s.change_acls(),
        lambda s: s.change_acls([AclRule("root", "read", "topic", "t", allow=False)]),
        lambda s: s.change_acls([AclRule("a", "cluster_action", "topic", "t")]),
        lambda s: s.change_acls([AclRule("a", "write", "group", "g")]),
        lambda s: s.change_acls([AclRule("a", "alter", "cluster", "mine")]),
        lambda s: s.change_acls([AclRule("a", "alter", "cluster", "*", "prefix")]),
        lambda s: s.change_acls([AclRule("a", "read", "topic", "no topic")]),
        lambda s: s.create_key("*"),
        lambda s: s.create_key("a", expires_ms=-1),
        lambda s: s.create_key("a", scopes=[AclRule("b", "read", "topic", "t")]),
        lambda s: s.create_key("a", scopes=[AclRule("*", "read", "topic", f"t{i}") for i in range(SCOPES_MAX + 1)]),
        lambda s: s.set_quota("a", requests_per_s=-2),
        lambda s: s.heartbeat("g", "m", topics=["t"], joining=True, session_ms=1),
    ],
)
def test_a_number_or_a_shape_out_of_bounds_is_refused_before_anything_is_done(call: Call) -> None:
    refuses(call)


def test_a_service_is_for_somebody() -> None:
    async def main() -> None:
        space = await opened(memory())
        for principal in ("", "*", "a\nb"):
            with pytest.raises(InvalidRequest):
                Service(space, principal=principal)

    simulate(main())


# -- errors tell nothing of the bucket -------------------------------------------------------------------


class Telltale(MemoryStore):
    """A store whose errors name everything, as those of S3 do."""

    url = "s3://my-bucket/some/where?endpoint=https://minio.example:9000"

    def __init__(self) -> None:
        super().__init__()
        self.url = Telltale.url
        self.broken = False

    async def get(self, key: str, **options: Any) -> Any:
        if self.broken:
            raise Forbidden(f"The store does not allow the get of {key!r} in {self.url}: 403 AccessDenied.", key=key)
        return await super().get(key, **options)


def test_an_error_of_the_store_keeps_its_type_and_loses_every_name() -> None:
    async def main() -> None:
        store = Telltale()
        space = await opened(store)
        await Service(space).create_topic("t")
        store.broken = True
        with pytest.raises(Forbidden) as refused:
            await Service(space, principal="ann").fetch("t", 0, 0)
        told = f"{refused.value} {refused.value.as_dict()} {refused.value.args}"
        for secret in ("my-bucket", "some/where", "minio", "manifest", "ns/", "00000"):
            assert secret not in told
        assert "The store does not allow the get of 'an object' in the store: 403 AccessDenied." == str(refused.value)
        assert "my-bucket" in str(refused.value.__cause__)

    simulate(main())


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("No object 'ns/manifest/00000000000000000007' in s3://my-bucket/some/where/ns.", "No object 'an object' in"),
        ("needs the object 'segment/00000000000000000007-abc-1.xyz', which", "needs the object 'an object', which"),
        ("'archive/topic=t/partition=0/7-9-abcd-3.parquet', a file", "'an object', a file"),
        ("'files/00000000000000000007-1-0-abcd', a list", "'an object', a list"),
        ("There is no bucket 'my-bucket' at s3://my-bucket.", "There is no bucket the store at the store"),
        ("Topic 'index/a' and group 'transaction/b' are fine.", "Topic 'index/a' and group 'transaction/b' are fine."),
        ("There is no topic 't' in namespace 'ns'.", "There is no topic 't' in namespace 'ns'."),
    ],
)
def test_what_is_scrubbed_and_what_is_not(message: str, expected: str) -> None:
    async def main() -> None:
        error = scrubbed(Corrupt(message), await opened(Telltale()))
        assert str(error).startswith(expected)

    simulate(main())


def test_a_scrubbed_error_keeps_what_its_class_carries() -> None:
    async def main() -> None:
        space = await opened(Telltale())
        range_error = scrubbed(OffsetOutOfRange("in s3://x/y", log_start=1, high_watermark=2), space)
        assert isinstance(range_error, OffsetOutOfRange)
        assert (1, 2, "in the store") == (range_error.log_start, range_error.high_watermark, range_error.message)
        lost = scrubbed(Indeterminate("of 'ns/lease/a'", token="ns/lease/a"), space)
        assert isinstance(lost, Indeterminate)
        assert ("an object", "of 'an object'") == (lost.token, lost.message)
        fine = Unavailable("later")
        assert fine is scrubbed(fine, space)

    simulate(main())


def test_a_topic_that_is_gone_is_not_found_whoever_asks() -> None:
    async def main() -> None:
        root = Service(await made(memory()))
        for call in (root.produce([("gone", 0, blob())]), root.fetch("gone", 0, 0), root.offset_of("t", 2)):
            with pytest.raises(NotFound):
                await call

    simulate(main())
