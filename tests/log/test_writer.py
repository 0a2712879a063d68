"""The write path: order, company, limits, failures that stay where they belong, and nothing in flight at the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import pytest

from headwater.errors import (
    AlreadyExists,
    HeadwaterError,
    Indeterminate,
    InvalidRequest,
    NotFound,
    Unavailable,
)
from headwater.limits import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, INTENT_APPENDS_MAX, WINDOW
from headwater.log import keys
from headwater.log.intents import Intent, decode_manifest
from headwater.log.operations import CommitOffsets, CreateTopic, InitProducer, OffsetEntry
from headwater.log.options import Options
from headwater.log.outcomes import OutOfOrder
from headwater.log.payload import Piece
from headwater.log.queue import Pending, parse_token
from headwater.log.state import Outcome, State, apply
from headwater.log.turns import Look
from headwater.log.writer import Append
from headwater.sim.faults import ROUGH, Faults, SimBucket
from headwater.sim.latency import S3_EXPRESS, S3_STANDARD, Profile
from headwater.sim.loop import sim_loop
from headwater.store.base import ObjectStore
from tests.log.helpers import FIXED, Parts, blob, keys_under, memory, network, opened, simulate, still_running
from tests.log.helpers_store import Gate, Scripted, away, broken, lost_answer, slow

SMALL = Options(inline_bytes_max=1_000, segment_bytes_target=4_000)


class Pen:
    """One process with a topic of two partitions over a scripted store."""

    def __init__(self, options: Options | None = None) -> None:
        self.truth = memory()
        self.store = Scripted(self.truth)
        self.parts = Parts(self.store, options=options)
        self.writer, self.chain = self.parts.writer, self.parts.chain

    async def start(self) -> Pen:
        await self.chain.refresh()
        await self.writer.commit(ops=[CreateTopic(name="t", partitions=2)])
        await self.settle()
        return self

    async def settle(self) -> None:
        await self.writer.drain()
        self.store.calls.clear()

    def append(self, size: int = 10, *, fill: int = 7, partition: int = 0, token: str = "", **fields: Any) -> Any:
        batch = blob(size=size, fill=fill, **fields)
        return self.writer.commit([Append(topic=1, partition=partition, batch=batch)], token=token)

    def later(self, size: int = 10, **fields: Any) -> asyncio.Future[Outcome]:
        return asyncio.ensure_future(self.append(size, **fields))

    async def held_up(self, size: int = 10, *, for_s: float = 0.01) -> tuple[Gate, asyncio.Future[Outcome]]:
        """A commit whose PUT stands at the gate, so that what comes behind it gathers."""
        gate = Gate()
        self.store.will("put_if_absent", gate)
        first = self.later(size, fill=0)
        await sim_loop().sleep(for_s)
        return gate, first

    async def log(self, partition: int = 0) -> list[int]:
        """What the log holds: the first byte of each chunk in order, after a cold start."""
        reader = Parts(self.truth, writer="reader", seed=9)
        chunks = [chunk async for chunk in reader.reader.chunks("t", partition, 0)]
        assert [c.base for c in chunks] == [sum(c.count for c in chunks[:i]) for i in range(len(chunks))]
        return [c.data[0] for c in chunks]


def with_pen(main: Callable[[Pen], Coroutine[Any, Any, None]], options: Options | None = None) -> None:
    async def start() -> None:
        await main(await Pen(options).start())

    simulate(start())


# -- alone ---------------------------------------------------------------------------------------------


def test_one_batch_alone_is_one_put() -> None:
    async def main(pen: Pen) -> None:
        for i in range(20):
            assert [i] == (await pen.append()).bases
        await pen.writer.drain()
        assert {"put_if_absent": 20} == dict(pen.store.calls)

    with_pen(main)


def test_a_large_batch_alone_is_one_segment_and_one_manifest() -> None:
    async def main(pen: Pen) -> None:
        await pen.append(1_000)
        assert {"put_if_absent": 1} == dict(pen.store.calls)
        await pen.append(1_001)
        assert {"put_if_absent": 2, "put": 1} == dict(pen.store.calls)
        assert [7, 7] == await pen.log()

    with_pen(main, SMALL)


@pytest.mark.parametrize("size", [10, 1_001])
def test_an_outcome_is_told_before_those_who_wait_for_the_log_to_grow_are_woken(size: int) -> None:
    async def main(pen: Pen) -> None:
        heard: list[str] = []

        async def wait() -> None:
            await pen.chain.grown(pen.chain.state.seq, 60.0)
            heard.append("grown")

        waiting = asyncio.ensure_future(wait())
        await sim_loop().sleep(0)
        batch = blob(size=size, fill=7)
        outcome = await pen.writer.commit(
            [Append(topic=1, partition=0, batch=batch)], told=lambda outcome: heard.append(f"told {outcome.bases}")
        )
        await waiting
        assert [f"told {outcome.bases}", "grown"] == heard

    with_pen(main, SMALL)


@pytest.mark.parametrize("linger_ms", [0, 5])
def test_appends_of_one_moment_share_a_manifest(linger_ms: int) -> None:
    async def main(pen: Pen) -> None:
        outcomes = await asyncio.gather(*(pen.append(fill=i) for i in range(30)))
        assert list(range(30)) == [outcome.bases[0] for outcome in outcomes]
        assert pen.store.calls["put_if_absent"] <= 2
        assert list(range(30)) == await pen.log()

    with_pen(main, Options(linger_ms=linger_ms))


def test_linger_waits_so_long_for_company_and_no_longer() -> None:
    async def main(pen: Pen) -> None:
        start = pen.parts.clock.elapsed_s()
        first = pen.later(fill=1)
        await sim_loop().sleep(0.015)
        second = pen.later(fill=2)
        assert (await first).seq == (await second).seq
        assert 0.020 == pytest.approx(pen.parts.clock.elapsed_s() - start)

    with_pen(main, Options(linger_ms=20))


def test_linger_ends_when_all_callers_wait_themselves() -> None:
    async def main(pen: Pen) -> None:
        clock = pen.parts.clock
        start = clock.elapsed_s()

        def later(fill: int, caller: str) -> asyncio.Future[Outcome]:
            one = Append(topic=1, partition=0, batch=blob(fill=fill))
            return asyncio.ensure_future(pen.writer.commit([one], caller=caller))

        await later(0, "a")
        assert 0.0 == clock.elapsed_s() - start, "nobody else has ever come"
        first = later(1, "b")
        await sim_loop().sleep(0.015)
        assert not first.done(), "a had its answer just now, and may come back"
        second = later(2, "a")
        assert (await first).seq == (await second).seq
        assert 0.015 == pytest.approx(clock.elapsed_s() - start)

    with_pen(main, Options(linger_ms=20))


def test_linger_ends_when_a_segment_is_full() -> None:
    async def main(pen: Pen) -> None:
        start = pen.parts.clock.elapsed_s()
        first = pen.later(6_000)
        await sim_loop().sleep(0.005)
        assert not first.done()
        second = pen.later(6_000)
        assert (await first).seq == (await second).seq
        assert 0.005 == pytest.approx(pen.parts.clock.elapsed_s() - start)

    with_pen(main, Options(linger_ms=20, segment_bytes_target=10_000))


def test_what_comes_while_a_group_is_on_its_way_goes_together_afterwards() -> None:
    async def main(pen: Pen) -> None:
        gate = Gate()
        pen.store.will("put_if_absent", gate)
        first = pen.later(fill=0)
        await sim_loop().sleep(0.01)
        others = [pen.later(fill=i) for i in range(1, 20)]
        await sim_loop().sleep(0.01)
        gate.opened.set()
        assert 1 == len({(await other).seq for other in others} - {(await first).seq})
        assert list(range(20)) == await pen.log()

    with_pen(main)


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_calls_is_the_order_of_the_log_for_small_and_large_alike(seed: int) -> None:
    async def main(pen: Pen) -> None:
        rng = random.Random(seed)

        async def jitter(store: Scripted, act: Any) -> Any:
            await sim_loop().sleep(rng.random())
            return await act()

        pen.store.always = {"put": jitter, "put_if_absent": jitter}
        waiting = []
        for i in range(60):
            waiting.append(pen.later(rng.choice([1, 10, 900, 1_001, 3_000, 9_000]), fill=i))
            if rng.random() < 0.2:
                await sim_loop().sleep(rng.random())
        outcomes = await asyncio.gather(*waiting)
        assert list(range(60)) == await pen.log()
        assert sorted(o.bases[0] for o in outcomes) == [o.bases[0] for o in outcomes]

    with_pen(main, SMALL)


def test_one_call_may_name_many_partitions_and_all_of_it_is_one_commit() -> None:
    async def main(pen: Pen) -> None:
        for size in (10, 2_000):
            wanted = [Append(topic=1, partition=p, batch=blob(size=size, fill=p)) for p in (1, 0, 1)]
            outcome = await pen.writer.commit(wanted)
            assert outcome.bases[0] + 1 == outcome.bases[2]
        refused = [Append(topic=1, partition=p, batch=blob()) for p in (0, 2)]
        with pytest.raises(NotFound):
            await pen.writer.commit(refused)
        assert ([0, 0], [1, 1, 1, 1]) == (await pen.log(0), await pen.log(1))

    with_pen(main, SMALL)


# -- limits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "batch",
    [
        lambda: blob(size=0),
        lambda: blob(count=0),
        lambda: blob(count=-1),
        lambda: blob(size=BATCH_BYTES_MAX + 1),
        lambda: blob(count=BATCH_RECORDS_MAX + 1),
    ],
)
def test_a_batch_beyond_its_limits_is_refused_before_anything_is_sent(batch: Any) -> None:
    async def main(pen: Pen) -> None:
        with pytest.raises(InvalidRequest):
            await pen.writer.commit([Append(topic=1, partition=0, batch=batch())])
        with pytest.raises(InvalidRequest):
            await pen.writer.stage([Append(topic=1, partition=0, batch=batch())])
        assert {} == dict(pen.store.calls)

    with_pen(main)


def test_batches_at_their_limits_are_taken() -> None:
    async def main(pen: Pen) -> None:
        await pen.append(BATCH_BYTES_MAX)
        await pen.append(1, count=BATCH_RECORDS_MAX)
        assert 1 + BATCH_RECORDS_MAX == pen.chain.state.topics[1].partitions[0].next

    with_pen(main)


def test_appends_of_one_commit_are_bounded() -> None:
    async def main(pen: Pen) -> None:
        one = Append(topic=1, partition=0, batch=blob(size=1))
        with pytest.raises(InvalidRequest):
            await pen.writer.commit([one] * (INTENT_APPENDS_MAX + 1))
        assert {} == dict(pen.store.calls)
        assert INTENT_APPENDS_MAX == len((await pen.writer.commit([one] * INTENT_APPENDS_MAX)).bases)

    with_pen(main)


async def cold(truth: ObjectStore) -> State:
    """What another process reads."""
    other = Parts(truth, writer="other", seed=5)
    await other.chain.refresh()
    return other.chain.state


NONSENSE: dict[str, Callable[[Pen], Any]] = {
    "partition -1": lambda pen: pen.append(partition=-1),
    "sequence 2^31": lambda pen: pen.append(producer_id=1, producer_epoch=0, sequence=2**31),
    "epoch 2^15": lambda pen: pen.append(producer_id=1, producer_epoch=2**15, sequence=0),
    "producer -2": lambda pen: pen.append(producer_id=-2),
    "time beyond all": lambda pen: pen.append(timestamp_max=2**63),
    "time before all": lambda pen: pen.append(timestamp_min=-(2**63)),
    "codec": lambda pen: pen.append(codec="avro"),
    "token from the future": lambda pen: pen.append(token=f"abcdefgh@{2**63}"),
    "token no UTF-8": lambda pen: pen.append(token="\ud800\ud800\ud800\ud800@1"),
    "offset of partition -1": lambda pen: pen.writer.commit(
        ops=[CommitOffsets(group="g", offsets=[OffsetEntry(1, -1, 5)])]
    ),
    "member too long": lambda pen: pen.writer.commit(ops=[CommitOffsets(group="g", offsets=[], member="m" * 513)]),
    "config no text": lambda pen: pen.writer.commit(
        ops=[CreateTopic(name="u", partitions=1, config={"a": 1})]  # type: ignore[dict-item]
    ),
    "metadata for 4 MiB": lambda pen: pen.writer.commit(
        ops=[CommitOffsets(group="g", offsets=[OffsetEntry(1, 0, 5, "m" * 4_096)] * 1_500)]
    ),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_refused_and_never_reaches_the_chain(case: str) -> None:
    async def main(pen: Pen) -> None:
        pen.store.always["put_if_absent"] = slow(sim_loop(), 0.1)
        with pytest.raises(HeadwaterError):
            await asyncio.wait_for(NONSENSE[case](pen), 10)
        await asyncio.wait_for(pen.append(), 10)
        assert 1 == (await cold(pen.truth)).topics[1].partitions[0].next

    with_pen(main)


# -- failures ------------------------------------------------------------------------------------------------


def test_an_upload_that_fails_fails_only_those_that_named_it() -> None:
    async def main(pen: Pen) -> None:
        pen.store.will("put", *[away] * 60)
        waiting = [pen.later(2_000, fill=1), pen.later(10, fill=2)]
        await sim_loop().sleep(0.001)
        pen.store.will("put", *[])
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(results[0], Unavailable)
        assert isinstance(results[1], Outcome)
        pen.store.script.clear()
        await pen.append(2_000, fill=3)
        assert [2, 3] == await pen.log()

    with_pen(main, Options(inline_bytes_max=1_000, store_retry_s=5))


def test_a_store_that_is_away_is_unavailable_and_the_next_call_succeeds() -> None:
    async def main(pen: Pen) -> None:
        pen.store.always["put_if_absent"] = away
        with pytest.raises(Unavailable):
            await pen.append(fill=1)
        pen.store.always.clear()
        await pen.append(fill=2)
        assert [2] == await pen.log()

    with_pen(main, Options(commit_timeout_s=10))


def test_a_bug_below_reaches_its_callers() -> None:
    async def main(pen: Pen) -> None:
        pen.store.will("put_if_absent", broken)
        with pytest.raises((RuntimeError, Indeterminate)):
            await asyncio.wait_for(pen.append(fill=1), 600)
        await pen.append(fill=2)

    with_pen(main)


@pytest.mark.parametrize("size", [10, 2_000])
def test_a_token_tells_the_first_outcome_and_nothing_lands_twice(size: int) -> None:
    async def main(pen: Pen) -> None:
        pen.store.will("put_if_absent", lost_answer)
        pen.store.always["put_if_absent"] = away
        with pytest.raises(Indeterminate) as caught:
            await pen.append(size, fill=1)
        pen.store.always.clear()
        await pen.append(fill=2)
        for _ in range(3):
            assert [0] == (await pen.append(size, fill=1, token=caught.value.token)).bases
        assert [1, 2] == await pen.log()

    with_pen(main, Options(commit_timeout_s=10, inline_bytes_max=1_000))


def test_a_token_of_what_never_landed_lands_it_once() -> None:
    async def main(pen: Pen) -> None:
        async def lost(store: Scripted, act: Any) -> Any:
            raise Indeterminate("no answer")

        pen.store.always["put_if_absent"] = lost
        with pytest.raises(Indeterminate) as caught:
            await pen.append(fill=1)
        pen.store.always.clear()
        other = Parts(pen.truth, writer="w2", seed=2)
        await other.chain.refresh()
        await other.writer.commit([Append(topic=1, partition=0, batch=blob(fill=2))])
        token = caught.value.token
        assert [1] == (await pen.append(fill=1, token=token)).bases
        assert [1] == (await pen.append(fill=1, token=token)).bases
        assert [2, 1] == await pen.log()

    with_pen(main, Options(commit_timeout_s=10))


@pytest.mark.parametrize(("others", "known"), [(WINDOW - 2, True), (WINDOW, False)])
def test_a_token_is_good_for_the_window_and_then_the_outcome_stays_unknown(others: int, known: bool) -> None:
    async def main(pen: Pen) -> None:
        pen.store.will("put_if_absent", lost_answer)
        pen.store.always["put_if_absent"] = away
        with pytest.raises(Indeterminate) as caught:
            await pen.append(fill=1)
        pen.store.always.clear()
        for _ in range(others):
            await pen.append(fill=2)
        again = pen.append(fill=1, token=caught.value.token)
        if known:
            assert [0] == (await again).bases
        else:
            with pytest.raises(Indeterminate):
                await again
        assert 1 == (await pen.log()).count(1)

    with_pen(main, Options(commit_timeout_s=10))


def test_a_token_works_in_another_process() -> None:
    async def main(pen: Pen) -> None:
        pen.store.will("put_if_absent", lost_answer)
        pen.store.always["put_if_absent"] = away
        with pytest.raises(Indeterminate) as caught:
            await pen.append(fill=1)
        other = Parts(pen.truth, writer="w2", seed=2)
        batch = Append(topic=1, partition=0, batch=blob(fill=1))
        assert [0] == (await other.writer.commit([batch], token=caught.value.token)).bases
        assert [1] == await pen.log()

    with_pen(main, Options(commit_timeout_s=10))


@pytest.mark.parametrize("text", ["x", "@", "abcd", "abcd@", "abcd@x", "abcd@-1", "a@1", "a" * 65 + "@1", "abcd@²"])
def test_a_text_that_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_token(text)


def test_bytes_that_could_not_be_staged_were_certainly_not_committed() -> None:
    async def main(pen: Pen) -> None:
        pen.store.always["put"] = lost_answer
        with pytest.raises(Unavailable):
            await pen.append(2_000)

    with_pen(main, Options(store_retry_s=5, inline_bytes_max=1_000))


def test_the_token_of_every_indeterminate_can_be_sent_again() -> None:
    async def main(pen: Pen) -> None:
        pen.parts.committer.turns.direct = lambda losses, now: False  # type: ignore[method-assign]
        pen.store.always["put"] = lost_answer
        with pytest.raises(Indeterminate) as caught:
            await pen.append(10)
        parse_token(caught.value.token)

    with_pen(main, Options(store_retry_s=5, inline_bytes_max=1_000))


def test_a_cancelled_caller_breaks_nobody_and_its_commit_goes_on() -> None:
    async def main(pen: Pen) -> None:
        gate = Gate()
        pen.store.will("put_if_absent", gate)
        waiting = [pen.later(fill=i) for i in range(3)]
        await sim_loop().sleep(0.01)
        more = [pen.later(2_000, fill=3), pen.later(fill=4), pen.later(fill=5)]
        await sim_loop().sleep(0.01)
        for task in (waiting[1], more[0], more[1]):
            task.cancel()
        gate.opened.set()
        results = await asyncio.gather(*waiting, *more, return_exceptions=True)
        assert [1, 3, 4] == [i for i, r in enumerate(results) if isinstance(r, asyncio.CancelledError)]
        await pen.writer.drain()
        assert [0, 1, 2, 3, 4, 5] == await pen.log()

    with_pen(main, SMALL)


# -- begun, and not waited for ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 1_001])
def test_what_is_begun_is_in_the_queue_at_once_and_keeps_the_order_of_calls(size: int) -> None:
    async def main(pen: Pen) -> None:
        gate, first = await pen.held_up()
        begun = [pen.writer.begin([Append(topic=1, partition=0, batch=blob(size=size, fill=i))]) for i in (1, 2)]
        behind = pen.later(fill=3)
        gate.opened.set()
        assert [0] == (await first).bases
        assert [[1], [2]] == [(await each).bases for each in begun if each is not None]
        await behind
        assert [0, 1, 2, 3] == await pen.log()
        assert 0 == pen.writer._buffered

    with_pen(main, SMALL)


def test_what_is_begun_while_there_is_no_room_is_left_to_those_who_can_wait() -> None:
    async def main(pen: Pen) -> None:
        gate, first = await pen.held_up(80)
        one = [Append(topic=1, partition=0, batch=blob(size=30, fill=9))]
        assert pen.writer.begin(one) is None
        behind = pen.later(30, fill=1)
        await sim_loop().sleep(0.01)
        small = [Append(topic=1, partition=0, batch=blob(size=10, fill=9))]
        assert pen.writer.begin(small) is None, "it would overtake one that waits"
        gate.opened.set()
        await asyncio.gather(first, behind)
        begun = pen.writer.begin(one)
        assert begun is not None
        await begun
        assert [0, 1, 9] == await pen.log()

    with_pen(main, Options(write_buffer_bytes_max=100))


def test_a_refusal_of_what_is_begun_is_an_outcome_and_gives_its_room_back() -> None:
    async def main(pen: Pen) -> None:
        begun = pen.writer.begin([Append(topic=1, partition=5, batch=blob(size=10))])
        assert begun is not None
        assert "no_partition" == (await begun).error
        assert 0 == pen.writer._buffered
        with pytest.raises(InvalidRequest):
            pen.writer.begin([Append(topic=1, partition=0, batch=blob(size=BATCH_BYTES_MAX + 1))])
        assert 0 == pen.writer._buffered

    with_pen(main)


@pytest.mark.parametrize("size", [10, 1_001])
def test_what_was_begun_and_is_unknown_lands_once_when_it_is_asked_for_again(size: int) -> None:
    async def main(pen: Pen) -> None:
        pen.store.always["put_if_absent"] = lost_answer
        pen.store.always["get"] = away
        appends = [Append(topic=1, partition=0, batch=blob(size=size, fill=3))]
        begun = pen.writer.begin(appends)
        assert begun is not None
        with pytest.raises(Indeterminate) as caught:
            await begun
        pen.store.always.clear()
        outcome = await pen.writer.commit(appends, token=caught.value.token)
        assert [0] == outcome.bases
        assert [3] == await pen.log()
        assert 0 == pen.writer._buffered

    with_pen(main, Options(store_retry_s=5, commit_timeout_s=10, inline_bytes_max=1_000))


# -- back-pressure and the end --------------------------------------------------------------------------------


@pytest.mark.parametrize(("bound", "held"), [(999, 9), (1_000, 10), (1_001, 10), (1, 1)])
def test_a_writer_holds_only_so_many_bytes_and_then_waits(bound: int, held: int) -> None:
    async def main(pen: Pen) -> None:
        gate = Gate()
        pen.store.always["put_if_absent"] = gate
        waiting = [pen.later(100, fill=i) for i in range(30)]
        await sim_loop().sleep(1)
        assert held * 100 == pen.writer._buffered
        gate.opened.set()
        await asyncio.gather(*waiting)
        assert (0, 30) == (pen.writer._buffered, len(await pen.log()))

    with_pen(main, Options(write_buffer_bytes_max=bound))


def test_the_order_of_calls_holds_under_back_pressure() -> None:
    async def main(pen: Pen) -> None:
        gate, first = await pen.held_up(80)
        waiting = [first, pen.later(50, fill=1), pen.later(10, fill=2)]
        await sim_loop().sleep(0.01)
        gate.opened.set()
        await asyncio.gather(*waiting)
        assert [0, 1, 2] == await pen.log()

    with_pen(main, Options(write_buffer_bytes_max=100))


def test_a_failed_or_cancelled_call_gives_its_room_back() -> None:
    async def main(pen: Pen) -> None:
        with pytest.raises(NotFound):
            await pen.append(80, partition=5)
        gate = Gate()
        pen.store.will("put_if_absent", gate)
        waiting = [pen.later(80) for _ in range(3)]
        await sim_loop().sleep(0.01)
        waiting[1].cancel()
        waiting[0].cancel()
        await sim_loop().sleep(0.01)
        gate.opened.set()
        await waiting[2]
        assert 0 == pen.writer._buffered

    with_pen(main, Options(write_buffer_bytes_max=100))


def test_uploads_run_in_parallel_up_to_their_bound() -> None:
    async def main(pen: Pen) -> None:
        pen.store.always["put"] = slow(sim_loop(), 1.0)
        start = pen.parts.clock.elapsed_s()
        wanted = [Append(topic=1, partition=0, batch=blob(size=4_000, fill=i)) for i in range(12)]
        chunks = await pen.writer.stage(wanted)
        assert (3, 4.0) == (pen.store.requests_peak, pytest.approx(pen.parts.clock.elapsed_s() - start))
        assert 12 == len({chunk.obj for chunk in chunks}) == pen.store.calls["put"]
        assert [] == await pen.log()

    with_pen(main, Options(uploads_max=3, segment_bytes_target=4_000, inline_bytes_max=1_000))


def test_neighbours_share_segments_up_to_the_target() -> None:
    async def main(pen: Pen) -> None:
        wanted = [Append(topic=1, partition=0, batch=blob(size=1_500, fill=i)) for i in range(10)]
        chunks = await pen.writer.stage(wanted)
        assert 5 == len({chunk.obj for chunk in chunks})
        for i, chunk in enumerate(chunks):
            data = (await pen.truth.get(chunk.obj, start=chunk.pos, end=chunk.pos + chunk.len)).data
            assert bytes([i]) * 1_500 == data

    with_pen(main, SMALL)


@pytest.mark.parametrize("linger_ms", [0, 25])
def test_what_one_manifest_cannot_carry_does_not_wait_for_manifest_after_manifest(linger_ms: int) -> None:
    """A hundred callers with 100 kB each waited 1.5 s: five fit a manifest, and one followed the other."""

    async def main() -> None:
        options = Options(linger_ms=linger_ms)
        parts = Parts(network(profile=S3_STANDARD), options=options)
        await parts.chain.refresh()
        await parts.writer.commit(ops=[CreateTopic(name="t", partitions=1)])
        first, start_s = parts.chain.state.seq, parts.clock.elapsed_s()
        waits: list[float] = []

        async def call() -> None:
            for _ in range(3):
                began_s = parts.clock.elapsed_s()
                await parts.writer.commit([Append(topic=1, partition=0, batch=blob(size=100_000))])
                waits.append(parts.clock.elapsed_s() - began_s)

        await asyncio.gather(*(call() for _ in range(100)))
        assert sorted(waits)[len(waits) // 2] < 0.5
        assert parts.clock.elapsed_s() - start_s < 1.5
        assert parts.chain.state.seq - first < 20

    simulate(main())


def test_small_appends_that_no_manifest_takes_at_once_share_segments_for_a_linger() -> None:
    async def main(pen: Pen) -> None:
        gate, first = await pen.held_up(for_s=0.05)
        waiting = [first]
        for i in range(1, 20):  # 5 fit the next manifest
            waiting.append(pen.later(100_000, fill=i))
            await sim_loop().sleep(0.001)
        assert 0 == pen.store.calls["put"]
        await sim_loop().sleep(0.03)
        assert 1 == pen.store.calls["put"]
        gate.opened.set()
        await asyncio.gather(*waiting)
        assert list(range(20)) == await pen.log()
        assert {"put": 1, "put_if_absent": 2} == {kind: pen.store.calls[kind] for kind in ("put", "put_if_absent")}

    with_pen(main, Options(linger_ms=25))


def test_large_appends_share_a_segment_while_somebody_may_still_come() -> None:
    async def main(pen: Pen) -> None:
        async def call(caller: str, fill: int) -> Outcome:
            return await pen.writer.commit(
                [Append(topic=1, partition=0, batch=blob(size=2_000, fill=fill))], caller=caller
            )

        await call("a", 0)
        await call("b", 1)
        assert 2 == pen.store.calls["put"], "nobody else was known, or had just been answered"
        start_s = pen.parts.clock.elapsed_s()
        first = asyncio.ensure_future(call("a", 2))
        await sim_loop().sleep(0.015)
        assert 2 == pen.store.calls["put"], "b had its answer just now"
        await asyncio.gather(first, call("b", 3))
        assert 3 == pen.store.calls["put"]
        assert 0.015 == pytest.approx(pen.parts.clock.elapsed_s() - start_s)
        assert [0, 1, 2, 3] == await pen.log()

    with_pen(main, replace(SMALL, linger_ms=20))


def test_what_no_upload_can_take_yet_shares_a_segment() -> None:
    """Each large append waited for a turn of its own: eight clients with five of 1 MB each got 110 MB/s, not 170."""

    async def main(pen: Pen) -> None:
        pen.store.always["put"] = slow(sim_loop(), 1.0)
        waiting = []
        for i in range(8):
            waiting.append(pen.later(2_000, fill=i))
            await sim_loop().sleep(0.01)
        await asyncio.gather(*waiting)
        assert 2 + 2 == pen.store.calls["put"], "two at once, and the others as full as may be"
        assert list(range(8)) == await pen.log()

    with_pen(main, Options(uploads_max=2, inline_bytes_max=1_000, segment_bytes_target=8_000))


def test_an_empty_segment_that_was_to_be_closed_does_not_stay_open_for_ever() -> None:
    async def main(pen: Pen) -> None:
        assert [] == await pen.writer.stage([])
        (chunk,) = await pen.writer.stage([Append(topic=1, partition=0, batch=blob(size=2_000))])
        assert chunk.obj

    with_pen(main, SMALL)


def test_operations_alone_ride_in_the_manifest_however_full_it_is() -> None:
    async def main(pen: Pen) -> None:
        gate, first = await pen.held_up()
        more = [Append(topic=1, partition=0, batch=blob(size=2_000))]
        full = asyncio.ensure_future(pen.writer.commit_staged([], more, [], token="", intent_id="more-than-fits"))
        await sim_loop().sleep(0.01)
        alone = asyncio.ensure_future(pen.writer.commit(ops=[InitProducer()]))
        await sim_loop().sleep(0.01)
        gate.opened.set()
        await asyncio.gather(first, full, alone)
        assert 0 == pen.store.calls["put"]
        assert await pen.writer.stage(more), "what comes next is sent off"

    with_pen(main, SMALL)


def test_a_segment_that_the_next_commit_waits_for_fills_up_no_longer() -> None:
    async def main(pen: Pen) -> None:
        gate, first = await pen.held_up(for_s=1.01)
        behind = [pen.later(400_000, fill=i) for i in (1, 2)]  # one of them fits a manifest
        await sim_loop().sleep(0.01)
        gate.opened.set()
        start_s = pen.parts.clock.elapsed_s()
        await asyncio.gather(first, *behind)
        assert pen.parts.clock.elapsed_s() - start_s < 2.5
        assert [0, 1, 2] == await pen.log()

    with_pen(main, Options(linger_ms=1_000))


def test_a_commit_that_waits_for_one_segment_lets_the_next_one_fill() -> None:
    async def main(pen: Pen) -> None:
        pen.store.always["put"] = slow(sim_loop(), 0.060)
        waiting = []
        for i, pause_s in enumerate((0.030, 0.045, 0.015, 0.0)):
            waiting.append(pen.later(2_000, fill=i))
            await sim_loop().sleep(pause_s)
        await asyncio.gather(*waiting)
        assert 3 == pen.store.calls["put"], "the last two share one, though a commit waits for that of the second"
        assert list(range(4)) == await pen.log()

    with_pen(main, Options(linger_ms=20, inline_bytes_max=1_000))


def test_after_drain_nothing_is_in_flight() -> None:
    async def main(pen: Pen) -> None:
        pen.store.always = {kind: slow(sim_loop(), 0.3) for kind in ("put", "put_if_absent", "get", "list")}
        for i in range(10):
            pen.later(2_000 if i % 2 else 10, fill=i)
        await sim_loop().sleep(0.05)
        await pen.writer.drain()
        await pen.parts.house.drain()
        assert [] == still_running(sim_loop())
        assert 10 == len(await pen.log())

    with_pen(main, SMALL)


def test_after_drain_no_look_at_others_is_in_flight() -> None:
    async def main() -> None:
        store = Scripted(network(profile=FIXED))
        store.always["list"] = slow(sim_loop(), 5.0)
        pen = Parts(store, options=Options())
        await pen.chain.refresh()
        await pen.writer.commit(ops=[CreateTopic(name="t", partitions=1)])
        pen.committer.turns.look = lambda now, announced: Look.LIST  # type: ignore[method-assign]
        await pen.writer.commit([Append(topic=1, partition=0, batch=blob())])
        await pen.writer.drain()
        assert [] == still_running(sim_loop())

    simulate(main())


# -- company ---------------------------------------------------------------------------------------------------------


async def in_company(
    profile: Profile,
    writers: int,
    each: int,
    *,
    seed: int = 1,
    faults: Faults | None = None,
    sizes: Sequence[int] = (50,),
) -> tuple[SimBucket, float]:
    """So many processes append in closed loops; every record is in the log exactly once, in each writer's order."""
    bucket = SimBucket(sim_loop())
    rng = random.Random(seed)
    options = Options(inline_bytes_max=1_000)
    first = await opened(network(bucket, seed=seed), seed=seed, options=options)
    await first.create_topic("t", 2)
    namespaces = []
    for i in range(writers):
        store = network(bucket, profile=profile, seed=100 * seed + i, faults=faults)
        namespaces.append(await opened(store, seed=1_000 * seed + i, options=options))

    async def work(number: int) -> list[tuple[int, int]]:
        places = []
        for i in range(each):
            data = f"{number}:{i}".ljust(rng.choice(list(sizes)), ".")
            batch = blob()
            batch = type(batch)(codec="kafka2", data=data.encode(), count=1 + i % 3, timestamp_min=i, timestamp_max=i)
            token = ""
            while True:
                try:
                    placed = await namespaces[number].append("t", number % 2, batch, token=token)
                    break
                except Indeterminate as error:
                    token = error.token
            places.append((placed.base_offset, placed.commit))
        await namespaces[number].close()
        return places

    start = sim_loop().time()
    found = await asyncio.gather(*(work(i) for i in range(writers)))
    took_s = sim_loop().time() - start
    reader = await opened(network(bucket), seed=77)
    names: list[str] = []
    for partition in (0, 1):
        chunks = [chunk async for chunk in reader.reader.chunks("t", partition, 0)]
        placed = {c.data.decode().rstrip("."): c.base for c in chunks}
        names += [c.data.decode().rstrip(".") for c in chunks]
        for number in range(partition, writers, 2):
            assert [base for base, _ in found[number]] == [placed[f"{number}:{i}"] for i in range(each)]
    assert sorted(f"{w}:{i}" for w in range(writers) for i in range(each)) == sorted(names)
    for places in found:
        assert places == sorted(places)
    await first.close()
    return bucket, took_s


@pytest.mark.parametrize("profile", [FIXED, S3_STANDARD, S3_EXPRESS], ids=lambda profile: profile.name)
@pytest.mark.parametrize("writers", [2, 8])
def test_writers_in_company_all_succeed_and_every_record_is_there_once(profile: Profile, writers: int) -> None:
    simulate(in_company(profile, writers, 25))


@pytest.mark.parametrize("seed", range(6))
def test_writers_in_company_over_a_rough_network_land_every_record_once(seed: int) -> None:
    simulate(in_company(S3_EXPRESS, 4, 15, seed=seed, faults=ROUGH, sizes=(50, 1_500)))


def test_writers_on_one_memory_store_all_succeed() -> None:
    async def main() -> None:
        truth = memory()
        pens = [Parts(truth, writer=f"w{i}", seed=i) for i in range(8)]
        await asyncio.gather(*(pen.chain.refresh() for pen in pens))
        await pens[0].writer.commit(ops=[CreateTopic(name="t", partitions=1)])

        async def work(pen: Parts) -> None:
            await pen.chain.refresh()
            for _ in range(20):
                await pen.writer.commit([Append(topic=1, partition=0, batch=blob())])

        await asyncio.gather(*(work(pen) for pen in pens))
        assert 160 == (await cold(truth)).topics[1].partitions[0].next

    simulate(main())


def test_a_process_that_folds_its_own_log_again_holds_the_same_state() -> None:
    async def main() -> None:
        bucket, _ = await in_company(S3_STANDARD, 4, 10)
        state = State()
        for seq in range(1, 10_000):
            held = bucket.objects.get(f"ns/{keys.manifest_key(seq)}")
            if held is None:
                break
            apply(state, decode_manifest(held.data, seq))
        parts = await opened(network(bucket), seed=5)
        assert (state.seq, state.topics) == (parts.state.seq, parts.state.topics)

    simulate(main())


def test_names_are_taken_once_whoever_is_first() -> None:
    async def main() -> None:
        bucket = SimBucket(sim_loop())
        spaces = [await opened(network(bucket, profile=FIXED, seed=i), seed=i) for i in range(4)]
        results = await asyncio.gather(*(space.create_topic("t") for space in spaces), return_exceptions=True)
        assert 3 == sum(isinstance(result, AlreadyExists) for result in results)
        assert 1 == (await cold(spaces[0].store)).next_topic - 1

    simulate(main())


def test_an_idempotent_batch_out_of_order_is_refused_with_its_own_error() -> None:
    async def main(pen: Pen) -> None:
        pid = (await pen.writer.commit(ops=[InitProducer()])).values["pid"]
        with pytest.raises(OutOfOrder):
            await pen.append(producer_id=pid, producer_epoch=0, sequence=3)
        assert [] == await keys_under(pen.truth, "segment/")

    with_pen(main)


# -- what one writer can do to the others ---------------------------------------------------------------------------


def big_intent(entries: int) -> list[CommitOffsets]:
    return [CommitOffsets(group="g", offsets=[OffsetEntry(1, 0, i, "m" * 4_000) for i in range(entries)])]


def test_a_huge_published_intent_kills_no_other_writer() -> None:
    async def main() -> None:
        truth = memory()
        loud, quiet = Parts(truth, writer="loud", seed=1), Parts(truth, writer="quiet", seed=2)
        await loud.chain.refresh()
        await loud.writer.commit(ops=[CreateTopic(name="t", partitions=1)])
        await quiet.chain.refresh()
        huge = Piece(intent=Intent(id="huge", tip=0, ops=[*big_intent(1_300)]))
        await loud.committer.follower._publish([Pending(huge, sim_loop().create_future())], "")
        quiet.committer.turns.look = lambda now, announced: Look.LIST  # type: ignore[method-assign]
        for _ in range(3):
            await asyncio.wait_for(quiet.writer.commit([Append(topic=1, partition=0, batch=blob())]), 600)
            await sim_loop().sleep(1)

    simulate(main())


def test_an_intent_of_many_appends_is_merged_and_holds_up_nobody() -> None:
    async def main() -> None:
        bucket = SimBucket(sim_loop())
        pens = [Parts(network(bucket, profile=FIXED, seed=i), writer=f"w{i}", seed=i) for i in range(3)]
        for pen in pens:
            await pen.chain.refresh()
        await pens[0].writer.commit(ops=[CreateTopic(name="t", partitions=1)])
        for pen in pens:
            await pen.chain.refresh()
            pen.committer.turns.direct = lambda losses, now: False  # type: ignore[method-assign]
        one = Append(topic=1, partition=0, batch=blob(size=1))
        wide = asyncio.ensure_future(pens[0].writer.commit([one] * 3_000))
        await sim_loop().sleep(1)
        small = await asyncio.wait_for(pens[1].writer.commit([one]), 20)
        assert small.seq < 20
        await asyncio.wait_for(wide, 20)

    simulate(main())


def test_a_token_from_ahead_of_the_chain_writes_no_endless_manifests() -> None:
    async def main(pen: Pen) -> None:
        pen.store.always["put_if_absent"] = slow(sim_loop(), 0.1)
        with pytest.raises((InvalidRequest, Indeterminate)):
            await asyncio.wait_for(pen.append(token="abcdefgh@1000"), 60)
        assert pen.chain.state.seq < 20

    with_pen(main, Options(commit_timeout_s=5))


def test_a_corrupt_segment_of_another_writer_stops_nobody() -> None:
    async def main() -> None:
        truth = memory()
        pen = Parts(truth)
        await pen.chain.refresh()
        await pen.writer.commit(ops=[CreateTopic(name="t", partitions=1)])
        for number, data in enumerate((b"", b"garbage", b"{" * 200)):
            await truth.put(keys.segment_key(1, "other", number), data)
        await truth.put(keys.segment_key(1, "other", 9, "AAAA"), b"tag")
        await truth.put("segment/not-a-segment", b"x")
        pen.committer.turns.look = lambda now, announced: Look.LIST  # type: ignore[method-assign]
        for _ in range(3):
            await pen.writer.commit([Append(topic=1, partition=0, batch=blob())])

    simulate(main())
