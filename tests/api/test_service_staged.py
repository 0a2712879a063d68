"""What takes several requests, through the service: whose it is, who may go on with it, and presigned ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from headwater.api import presign
from headwater.api.quotas import Quotas
from headwater.api.service import Service
from headwater.api.verbs import AclRule, GroupOffset, GroupOffsets
from headwater.errors import Conflict, Forbidden, NotFound, OffsetOutOfRange, Throttled
from headwater.limits import PRESIGN_S
from headwater.log import frame
from headwater.log.namespace import Namespace
from headwater.log.operations import SetQuota
from headwater.log.outcomes import UnknownProducer
from headwater.store.base import ObjectStore
from tests.log.helpers import blob, memory, opened, simulate


class Signer:
    """Presigns for a store in memory: the URL is the key and the range, and ``read`` follows it."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def get(self, key: str, start: int, end: int, expires_s: int) -> tuple[str, Mapping[str, str]]:
        assert PRESIGN_S == expires_s
        return f"memory:{key}", {"range": f"bytes={start}-{end - 1}"}

    async def read(self, url: str, headers: Mapping[str, str]) -> bytes:
        first, last = headers["range"].removeprefix("bytes=").split("-")
        return (await self.store.get(url.removeprefix("memory:"), start=int(first), end=int(last) + 1)).data


@pytest.fixture
def signers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every store can presign."""
    monkeypatch.setattr(presign, "presigner", Signer)


async def space(**topics: int) -> Namespace:
    found = await opened(memory())
    for name, partitions in topics.items():
        await found.create_topic(name, partitions)
    return found


# -- transactions ----------------------------------------------------------------------------------------


def test_a_transaction_of_several_requests_becomes_visible_at_once_and_answers_twice() -> None:
    async def main() -> None:
        one = Service(await space(t=2), principal="ann")
        who = await one.init_producer("x")
        name = await one.begin(who)
        await one.add(name, [("t", 0, blob(2))])
        offsets = GroupOffsets(group="g", offsets={("t", 0): GroupOffset(offset=1)})
        await one.add(name, [("t", 1, blob(3))], [offsets])
        assert ([], {}) == ((await one.fetch("t", 0, 0)).chunks, await one.committed("g"))
        done = await one.commit(name)
        assert [(0, 0, 2), (1, 0, 3)] == [(a.partition, a.base_offset, a.count) for a in done.appended]
        assert (who.id, who.epoch + 1, "x") == (done.producer.id, done.producer.epoch, done.producer.transactional_id)
        assert 1 == (await one.committed("g"))[("t", 0)].offset
        assert done == await one.commit(name)
        with pytest.raises(Conflict):
            await one.abort(name)

    simulate(main())


def test_what_was_aborted_is_gone() -> None:
    async def main() -> None:
        one = Service(await space(t=1))
        name = await one.begin(await one.init_producer("x"))
        await one.add(name, [("t", 0, blob())])
        await one.abort(name)
        await one.abort(name)
        for call in (one.commit(name), one.add(name, [("t", 0, blob())])):
            with pytest.raises(Conflict):
                await call
        assert 0 == (await one.offset_of("t", 0)).offset

    simulate(main())


def test_a_transaction_of_somebody_else_does_not_exist() -> None:
    async def main() -> None:
        place = await space(t=1)
        ann, eve = Service(place, principal="ann"), Service(place, principal="eve")
        name = await ann.begin(await ann.init_producer("x"))
        for call in (eve.add(name, [("t", 0, blob())]), eve.commit(name), eve.abort(name)):
            with pytest.raises(NotFound):
                await call
        await ann.commit(name)

    simulate(main())


@pytest.mark.parametrize("resource", ["topic", "group", "transactional_id"])
def test_a_right_that_was_taken_away_is_missed_by_the_commit_and_not_by_its_repetition(resource: str) -> None:
    async def main() -> None:
        place = await space(t=1)
        ann, root = Service(place, principal="ann"), Service(place)
        offsets = GroupOffsets(group="g", offsets={("t", 0): GroupOffset(offset=1)})
        for tid in ("x", "y"):
            name = await ann.begin(await ann.init_producer(tid))
            await ann.add(name, [("t", 0, blob())], [offsets])
            if tid == "x":
                done = await ann.commit(name)
                first = name
        denial = AclRule("ann", "all", resource, "*", allow=False)  # type: ignore[arg-type]
        others = [AclRule("ann", "all", kind, "*") for kind in ("topic", "group", "transactional_id")]  # type: ignore[arg-type]
        await root.change_acls([denial, *others])
        with pytest.raises((Forbidden, UnknownProducer)):
            await ann.commit(name)
        assert done == await ann.commit(first)
        assert 1 == (await root.offset_of("t", 0)).offset

    simulate(main())


def test_bytes_that_are_added_are_paid_for() -> None:
    async def main() -> None:
        place = await space(t=1)
        await place.writer.commit(ops=[SetQuota(principal="ann", produce_bytes_per_s=10)])
        ann = Service(place, principal="ann", quotas=Quotas(place.chain.clock))
        name = await ann.begin(await ann.init_producer("x"))
        await ann.add(name, [("t", 0, blob(size=10))])
        with pytest.raises(Throttled):
            await ann.add(name, [("t", 0, blob(size=10))])
        assert 1 == len((await ann.commit(name)).appended)

    simulate(main())


# -- ranges ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("signers")
def test_ranges_open_exactly_the_bytes_that_a_fetch_would_answer() -> None:
    async def main() -> None:
        place = await space(t=1)
        one, signer = Service(place), Signer(place.store)
        await one.produce([("t", 0, blob(2, fill=1)), ("t", 0, blob(3, fill=2))])
        await one.produce([("t", 0, blob(1, size=600_000, fill=3))])  # too large for a manifest
        told = await one.ranges("t", 0, 0)
        read = [await signer.read(found.url, found.headers) for found in told.ranges]
        fetched = await one.fetch("t", 0, 0)
        assert [chunk.data for chunk in fetched.chunks] == read
        assert [(chunk.base, chunk.count, chunk.codec) for chunk in fetched.chunks] == [
            (found.base, found.count, found.codec) for found in told.ranges
        ]
        assert [(len(data), frame.checksum(data)) for data in read] == [(r.length, r.crc32c) for r in told.ranges]
        assert (6, 0, 6, fetched.commit) == (told.next_offset, told.log_start, told.high_watermark, told.commit)
        assert {place.chain.clock.wall_ms() + PRESIGN_S * 1_000} == {found.expires_ms for found in told.ranges}

    simulate(main())


@pytest.mark.usefixtures("signers")
def test_ranges_go_on_from_where_they_stopped_and_end_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from headwater.api import service_read

    async def main() -> None:
        one = Service(await space(t=1))
        for _ in range(5):
            await one.produce([("t", 0, blob(2, size=10))])
        first = await one.ranges("t", 0, 0, bytes_max=25)
        assert ([0, 2], 4) == ([found.base for found in first.ranges], first.next_offset)
        monkeypatch.setattr(service_read, "RANGES_MAX", 1)
        second = await one.ranges("t", 0, 5)
        assert ([4], 6) == ([found.base for found in second.ranges], second.next_offset)
        last = await one.ranges("t", 0, 10)
        assert ([], 10) == (list(last.ranges), last.next_offset)
        with pytest.raises(OffsetOutOfRange):
            await one.ranges("t", 0, 11)

    simulate(main())


@pytest.mark.usefixtures("signers")
def test_bytes_of_ranges_are_charged_like_fetched_ones() -> None:
    async def main() -> None:
        place = await space(t=1)
        await place.append("t", 0, blob(size=30))
        await place.writer.commit(ops=[SetQuota(principal="ann", fetch_bytes_per_s=10)])
        ann = Service(place, principal="ann", quotas=Quotas(place.chain.clock))
        await ann.ranges("t", 0, 0)
        for call in (ann.ranges("t", 0, 0), ann.fetch("t", 0, 0)):
            with pytest.raises(Throttled) as refused:
                await call
            assert 2_000 == refused.value.retry_after_ms

    simulate(main())


# -- uploads ---------------------------------------------------------------------------------------------


def test_an_upload_whose_right_was_taken_away_or_whose_owner_is_another_is_not_appended() -> None:
    from headwater.api.uploads import Uploads

    class Put(Signer):
        def put(self, key: str, length: int, expires_s: int) -> tuple[str, Mapping[str, str]]:
            return f"memory:{key}", {"content-length": str(length)}

    async def main() -> None:
        place = await space(t=1)
        signer: Any = Put(place.store)
        uploads = Uploads(place, signer)
        place._shared[Uploads] = uploads
        ann, eve = Service(place, principal="ann"), Service(place, principal="eve")
        told = await ann.upload("t", 0, 10)
        with pytest.raises(NotFound):
            await eve.append_upload(told.id)
        with pytest.raises(NotFound):
            await ann.append_upload(told.id)  # nothing was PUT yet
        await Service(place).change_acls([AclRule("ann", "read", "topic", "t")])
        with pytest.raises(Forbidden):
            await ann.append_upload(told.id)

    simulate(main())
