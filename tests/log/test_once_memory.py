"""How long an Idempotency-Key is remembered: an hour, and in any case as long as a published repetition may come."""

from __future__ import annotations

import random

from headwater.limits import ONCE_KEEP_MS, WINDOW
from headwater.log.namespace import Namespace
from headwater.log.operations import CreateTopic, Once
from headwater.log.writer import Append
from headwater.sim.faults import SimBucket, SimStore
from headwater.sim.loop import SimClock, sim_loop
from headwater.types import Batch
from tests.log.helpers import Fold, chunk, simulate

KEY = Once(key="k", request="r")
HOUR = ONCE_KEEP_MS + 1
RECORD = Batch(codec="kafka2", data=b"x", count=1, timestamp_min=0, timestamp_max=0)


def folded() -> Fold:
    fold = Fold()
    fold.commit(fold.intent(CreateTopic(name="t", partitions=1)))
    return fold


def end(fold: Fold) -> int:
    found = fold.state.partition(1, 0)
    assert found is not None
    return found.next


def test_a_repetition_that_was_published_before_its_key_was_decided_changes_nothing_hours_later() -> None:
    fold = folded()
    late = fold.intent(KEY, chunk())
    first = fold.commit(fold.intent(KEY, chunk()))[0]
    again = fold.commit(late, time=10 * HOUR)[0]
    assert (1, first.bases, first.seq) == (end(fold), again.bases, again.values["first"])


def test_until_the_window_is_over_the_key_is_known_and_after_it_the_repetition_is_void() -> None:
    for wait, error in ((WINDOW - 2, ""), (WINDOW - 1, "late")):
        fold = folded()
        late = fold.intent(KEY, chunk())
        fold.commit(fold.intent(KEY, chunk()))
        for _ in range(wait):
            fold.commit(time=10 * HOUR)
        assert error == fold.commit(late, time=10 * HOUR)[0].error
        assert 1 == end(fold)


def test_a_key_that_is_older_than_both_is_free_again() -> None:
    fold = folded()
    fold.commit(fold.intent(KEY, chunk()))
    for _ in range(WINDOW + 1):
        fold.commit(time=HOUR)
    assert {} == fold.state.once
    assert [1] == fold.commit(fold.intent(KEY, chunk()), time=HOUR)[0].bases
    assert 2 == end(fold)


def test_a_repetition_whose_key_is_known_is_answered_without_a_write() -> None:
    async def main() -> None:
        loop, rng = sim_loop(), random.Random(1)
        bucket = SimBucket(loop)
        log = await Namespace.open(SimStore(bucket, loop=loop, rng=rng), clock=SimClock(loop), rng=rng)
        topic = await log.create_topic("t")
        append = Append(topic=topic.id, partition=0, batch=RECORD)
        first = await log.writer.commit([append], [KEY])
        puts = bucket.counters.put
        again = await log.writer.commit([append], [KEY])
        assert (first.bases, first.seq, puts) == (again.bases, again.values["first"], bucket.counters.put)
        await log.close()

    simulate(main())
