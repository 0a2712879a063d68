"""Publishing while somebody else leads: several segments under way, in the order of calls, found by GETs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from headwater.errors import Indeterminate
from headwater.limits import PUBLISHED_MAX
from headwater.log import keys
from headwater.log.intents import FORMAT, Intent, SegmentHeader, decode_segment, encode_segment, located
from headwater.log.journal import Draft
from headwater.log.operations import CreateTopic
from headwater.log.options import Options
from headwater.log.published import LOOKBACK_MIN, Group
from headwater.log.state import Outcome
from headwater.log.writer import Append
from headwater.sim.faults import SimBucket
from headwater.sim.loop import sim_loop
from tests.log.helpers import FIXED, Parts, blob, chunk, network, simulate
from tests.log.helpers_store import Gate, Scripted, away

PUT_S = FIXED.put[0] / 1_000


class Pair:
    """Two processes over one bucket, where every request takes as long as ``FIXED`` says: the one only follows."""

    def __init__(self, options: Options | None = None) -> None:
        self.bucket = SimBucket(sim_loop())
        self.store = Scripted(network(self.bucket, profile=FIXED, seed=1))
        self.wires = Scripted(network(self.bucket, profile=FIXED, seed=2))
        self.follower = Parts(self.store, writer="second", seed=1, options=options)
        self.leader = Parts(self.wires, writer="first", seed=2)

    async def start(self) -> Pair:
        await self.leader.chain.refresh()
        await self.leader.writer.commit(ops=[CreateTopic(name="t", partitions=1)])
        await self.follower.chain.refresh()
        turns = self.follower.committer.turns
        turns.direct = lambda losses, now: False  # type: ignore[method-assign]
        turns.my_turn = lambda missed, now: False  # type: ignore[method-assign]
        return self

    def later(self, fill: int) -> asyncio.Future[Outcome]:
        append = Append(topic=1, partition=0, batch=blob(fill=fill))
        return asyncio.ensure_future(self.follower.writer.commit([append]))

    async def sent(self, count: int) -> list[asyncio.Future[Outcome]]:
        """So many appends, each in a segment of its own, which is stored when this returns."""
        found = []
        for fill in range(count):
            found.append(self.later(fill))
            await sim_loop().sleep(1.5 * PUT_S)
        return found

    async def segments(self) -> list[Group]:
        """What the follower has published, in that order."""
        store = network(self.bucket)
        found = []
        async for stat in store.list(keys.SEGMENTS):
            if keys.segment_writer(stat.key) == "second":
                header = decode_segment((await store.get(stat.key)).data)
                found.append((stat.key, [located(intent, stat.key) for intent in header.intents]))
        return sorted(found, key=lambda group: keys.parse_segment_key(group[0]).number)

    async def name(self, *groups: Group) -> None:
        """A manifest of the leader's that takes these segments in and nothing else."""
        await self.leader.chain.refresh()
        deadline_s = self.leader.clock.elapsed_s() + 60.0
        assert await self.leader.journal.put_next(Draft(merged=groups), deadline_s=deadline_s)

    async def log(self) -> list[int]:
        reader = Parts(network(self.bucket), writer="reader", seed=9)
        return [found.data[0] async for found in reader.reader.chunks("t", 0, 0)]


def with_pair(main: Callable[[Pair], Coroutine[None, None, None]], options: Options | None = None) -> None:
    async def start() -> None:
        await main(await Pair(options).start())

    simulate(start())


# -- several under way ------------------------------------------------------------------------------------


def test_what_gathers_is_published_while_earlier_segments_wait_for_their_manifest() -> None:
    async def main(pair: Pair) -> None:
        waiting = await pair.sent(PUBLISHED_MAX + 2)
        published = await pair.segments()
        assert PUBLISHED_MAX == len(published)
        before = ["", *(intents[-1].id for _, intents in published[:-1])]
        assert before == [intents[0].after for _, intents in published]
        await pair.name(*published)
        await sim_loop().sleep(3 * PUT_S)
        behind = (await pair.segments())[PUBLISHED_MAX:]
        assert [2] == [len(intents) for _, intents in behind]
        await pair.name(*behind)
        assert list(range(PUBLISHED_MAX + 2)) == [(await each).bases[0] for each in waiting]
        assert list(range(PUBLISHED_MAX + 2)) == await pair.log()

    with_pair(main)


def test_a_follower_that_wins_a_turn_leads_and_publishes_no_more() -> None:
    async def main(pair: Pair) -> None:
        turns = pair.follower.committer.turns
        waiting = await pair.sent(2)
        del turns.direct, turns.my_turn  # type: ignore[attr-defined]
        await asyncio.gather(*waiting)
        assert turns.leads
        assert [2] == (await pair.later(2)).bases
        assert 2 == len(await pair.segments())
        assert [0, 1, 2] == await pair.log()

    with_pair(main)


# -- their order ------------------------------------------------------------------------------------------


def test_a_segment_that_is_named_before_an_earlier_one_is_void_and_published_anew() -> None:
    async def main(pair: Pair) -> None:
        waiting = await pair.sent(2)
        first, second = await pair.segments()
        await pair.name(second)
        await sim_loop().sleep(3 * PUT_S)
        assert not any(each.done() for each in waiting)
        anew = (await pair.segments())[-1]
        assert (second[1][0].id, first[1][0].id) == (anew[1][0].id, anew[1][0].after)
        await pair.name(first, anew)
        assert [[0], [1]] == [(await each).bases for each in waiting]
        assert [0, 1] == await pair.log()

    with_pair(main)


def test_who_commits_for_others_leaves_out_what_comes_after_the_undecided_and_takes_the_rest_in_order() -> None:
    async def main(pair: Pair) -> None:
        await pair.sent(2)
        first, second = await pair.segments()
        others = pair.leader.committer.published
        others._take_in(*second, 1 << 20)
        assert [] == others.mergeable()
        others._take_in(*first, 1 << 20)
        assert [first, second] == others.mergeable()
        await pair.name(first)
        assert [second] == others.mergeable()

    with_pair(main)


def test_a_writers_tenth_segment_comes_behind_its_ninth() -> None:
    async def main(pair: Pair) -> None:
        others = pair.leader.committer.published
        for number in (10, 9):
            key = keys.segment_key(1, "second", number)
            others._take_in(key, [Intent(id=f"id-{number}", tip=1, appends=[chunk(obj=key)])], 1 << 20)
        assert ["id-9", "id-10"] == [intents[0].id for _, intents in others.mergeable()]

    with_pair(main)


def test_a_segment_that_cannot_be_stored_leaves_its_callers_in_doubt_and_holds_up_nobody() -> None:
    async def main(pair: Pair) -> None:
        first = pair.later(0)
        await sim_loop().sleep(1.5 * PUT_S)
        pair.store.always["put"] = away
        second = pair.later(1)
        with pytest.raises(Indeterminate) as caught:
            await second
        assert caught.value.token
        del pair.store.always["put"]
        third = pair.later(2)
        await sim_loop().sleep(3 * PUT_S)
        published = await pair.segments()
        assert ["", published[0][1][0].id] == [intents[0].after for _, intents in published]
        await pair.name(*published)
        assert [[0], [1]] == [(await first).bases, (await third).bases]
        assert [0, 2] == await pair.log()

    with_pair(main, Options(store_retry_s=2.0))


def test_callers_of_every_segment_hear_of_it_when_the_chain_cannot_be_read() -> None:
    async def main(pair: Pair) -> None:
        waiting = await pair.sent(2)
        pair.store.always["get"] = away
        for each in waiting:
            with pytest.raises(Indeterminate):
                await each
        del pair.store.always["get"]
        await pair.follower.writer.drain()
        behind = pair.later(9)
        await sim_loop().sleep(3 * PUT_S)
        await pair.name(*await pair.segments())
        assert [2] == (await behind).bases  # what nobody could tell has come to pass, in its order
        assert [0, 1, 9] == await pair.log()

    with_pair(main, Options(store_retry_s=2.0))


def test_a_segment_that_takes_too_long_leaves_its_callers_in_doubt_one_after_another() -> None:
    async def main(pair: Pair) -> None:
        began_s = sim_loop().time()
        waiting = await pair.sent(2)
        for each in waiting:
            with pytest.raises(Indeterminate, match="too contended"):
                await each
        assert 5.0 <= sim_loop().time() - began_s < 6.5
        await pair.follower.writer.drain()

    with_pair(main, Options(commit_timeout_s=5.0))


def test_a_follower_that_is_broken_off_leaves_nothing_on_its_way() -> None:
    async def main(pair: Pair) -> None:
        (first,) = await pair.sent(1)
        gate = Gate()
        pair.store.will("put", gate)
        second = pair.later(1)
        await sim_loop().sleep(PUT_S)
        task = pair.follower.committer._task
        assert task is not None
        task.cancel()
        for each in (first, second):
            with pytest.raises(Indeterminate, match="stopping"):
                await each
        assert task.cancelled()
        assert 0 == pair.store._requests

    with_pair(main)


# -- where the next one is --------------------------------------------------------------------------------


def test_who_leads_finds_announced_segments_by_gets() -> None:
    async def main(pair: Pair) -> None:
        others = pair.leader.committer.published
        await pair.sent(2)  # the first one is told by its key's tag; the second one says where the third will be
        await others.look()
        assert 2 == len(others.mergeable())
        pair.later(2)
        await sim_loop().sleep(1.5 * PUT_S)
        pair.leader.committer.turns.listed(pair.leader.chain.clock.elapsed_s(), is_news=False)
        pair.wires.calls.clear()
        await others.look_beside_put(others.reason_to_look())
        assert (3, {"get": 1}) == (len(others.mergeable()), dict(pair.wires.calls))

    with_pair(main)


def test_a_list_now_and_then_finds_what_nobody_has_announced() -> None:
    async def main(pair: Pair) -> None:
        others = pair.leader.committer.published
        await pair.sent(2)
        await others.look()
        kinds = []
        for _ in range(6):
            pair.wires.calls.clear()
            await others.look_beside_put(others.reason_to_look())
            kinds.append("".join(sorted(pair.wires.calls)))
        # What is news is followed by another LIST, and the next one comes a quarter of a second later.
        assert ["list", *["get"] * 4, "list"] == kinds

    with_pair(main)


def test_an_announced_key_is_used_while_lists_find_it_for_long() -> None:
    async def main(pair: Pair) -> None:
        waiting = await pair.sent(2)
        told = pair.follower.committer.follower._announced
        await pair.name(*await pair.segments())
        await asyncio.gather(*waiting)
        third = pair.later(3)
        await sim_loop().sleep(2 * PUT_S)
        published = await pair.segments()
        assert told == published[-1][0]
        follower = pair.follower.committer
        told = follower.follower._announced
        follower.published._per_manifest.extend([10**6] * 8)  # many write: a LIST looks back for 8 manifests
        for _ in range(LOOKBACK_MIN // 2):
            await pair.name()
        await pair.name(*published)
        await third
        pair.later(4)
        await sim_loop().sleep(2 * PUT_S)
        last = (await pair.segments())[-1][0]
        assert told != last
        assert follower.chain.state.seq == keys.parse_segment_key(last).tip

    with_pair(main)


@pytest.mark.parametrize(
    "told", [f"segment/{1:020d}-other-9", f"segment/{1:020d}-second-3", "manifest/00000000000000000001", "nonsense", ""]
)
def test_an_announcement_that_is_not_the_writers_next_segment_is_not_believed(told: str) -> None:
    async def main(pair: Pair) -> None:
        others, key = pair.leader.committer.published, keys.segment_key(1, "second", 3)
        intents = [Intent(id="some-id", tip=1, appends=[chunk(obj=f"segment/{0:020d}-w-1")])]
        header = SegmentHeader(v=FORMAT, kind="segment", writer="second", intents=intents, next=told)
        await network(pair.bucket).put(key, encode_segment(header, 0))
        await others.look()
        assert [(key, intents)] == others.mergeable()
        assert 0 == others.announced

    with_pair(main)
