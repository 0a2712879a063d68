"""The handle: topics, groups, many batches at once, and what it refuses before anything is sent."""

from __future__ import annotations

import pytest

from headwater.errors import AlreadyExists, Conflict, Fenced, InvalidRequest, NotFound
from headwater.limits import METADATA_BYTES_MAX, NAME_BYTES_MAX, PARTITION_MAX
from headwater.log.operations import JoinGroup
from headwater.sim.loop import sim_loop
from tests.log.helpers import blob, memory, opened, simulate, still_running


def test_topics_are_made_grown_altered_and_deleted_and_other_processes_see_it() -> None:
    async def main() -> None:
        store = memory()
        one, two = await opened(store), await opened(store, seed=2)
        made = await one.create_topic("t", 2, {"k": "v"})
        assert ("t", 2, {"k": "v"}) == (made.name, len(made.partitions), made.config)
        assert made.id == (await two.find_topic("t")).id
        with pytest.raises(AlreadyExists):
            await two.create_topic("t")
        await two.add_partitions("t", 3)
        await two.alter_topic("t", {"k": None, "l": "w"})
        await one.refresh()
        assert (3, {"l": "w"}) == (len(one.topic("t").partitions), one.topic("t").config)
        await one.delete_topic("t")
        await two.refresh()
        for call in (two.find_topic, two.delete_topic):
            with pytest.raises(NotFound):
                await call("t")
        assert made.id < (await two.create_topic("t")).id

    simulate(main())


def test_an_append_to_a_topic_that_was_deleted_elsewhere_is_refused_even_if_its_name_is_back() -> None:
    async def main() -> None:
        store = memory()
        one, two = await opened(store), await opened(store, seed=2)
        await one.create_topic("t")
        await two.refresh()
        await one.delete_topic("t")
        await one.create_topic("t")
        with pytest.raises(NotFound):
            await two.append("t", 0, blob())
        assert 0 == (await two.append("t", 0, blob())).base_offset

    simulate(main())


@pytest.mark.parametrize("partitions", [0, -1, PARTITION_MAX + 1])
def test_a_wrong_number_of_partitions_is_refused(partitions: int) -> None:
    async def main() -> None:
        space = await opened(memory())
        for call in (lambda: space.create_topic("t", partitions), lambda: space.add_partitions("t", partitions)):
            with pytest.raises(InvalidRequest):
                await call()
        assert 0 == space.state.seq

    simulate(main())


def test_many_batches_and_offsets_are_one_commit() -> None:
    async def main() -> None:
        space = await opened(memory())
        await space.create_topic("a", 2)
        await space.create_topic("b")
        placed = await space.append_many(
            [("a", 0, blob(2)), ("b", 0, blob(3)), ("a", 0, blob(4))], offsets={"g": {("b", 0): 3}, "h": {("a", 1): 0}}
        )
        assert [(0, 2), (0, 3), (2, 4)] == [(p.base_offset, p.count) for p in placed]
        assert 1 == len({p.commit for p in placed})
        assert (3, 0) == (
            (await space.committed("g"))["b", 0].offset,
            (await space.committed("h"))["a", 1].offset,
        )
        with pytest.raises(NotFound):
            await space.append_many([("a", 0, blob())], offsets={"g": {("a", 9): 1}})
        assert 6 == (await space.reader.fetch("a", 0, 0)).high_watermark

    simulate(main())


def test_group_offsets_are_kept_fenced_and_bounded() -> None:
    async def main() -> None:
        space = await opened(memory())
        await space.create_topic("a", 2)
        assert {} == await space.committed("g")
        await space.commit_offsets("g", {("a", 0): 5, ("a", 1): 6}, metadata="m")
        found = await space.committed("g")
        assert [(5, "m"), (6, "m")] == [(found["a", p].offset, found["a", p].metadata) for p in (0, 1)]
        await space.writer.commit(ops=[JoinGroup(group="g", member="m", topics=["a"])])
        with pytest.raises(Fenced):
            await space.commit_offsets("g", {("a", 0): 9})
        await space.commit_offsets("g", {("a", 0): 9}, generation=1, member="m")
        with pytest.raises(Conflict):
            await space.commit_offsets("g", {("a", 0): 9}, generation=0, member="m")
        for group, offset, metadata in (
            ("", 1, ""), ("g" * (NAME_BYTES_MAX + 1), 1, ""), ("g", -1, ""), ("g", 1, "m" * (METADATA_BYTES_MAX + 1)),
        ):  # fmt: skip
            with pytest.raises(InvalidRequest):
                await space.commit_offsets(group, {("a", 0): offset}, metadata=metadata)

    simulate(main())


def test_trimming_moves_the_start_and_no_further_than_the_end() -> None:
    async def main() -> None:
        space = await opened(memory())
        await space.create_topic("a")
        await space.append("a", 0, blob(5))
        await space.trim("a", 0, 5)
        assert 5 == (await space.reader.fetch("a", 0, 5)).log_start
        with pytest.raises(InvalidRequest):
            await space.trim("a", 0, 6)
        for topic, partition in (("a", 1), ("a", -1), ("b", 0)):
            with pytest.raises(NotFound):
                await space.trim(topic, partition, 0)

    simulate(main())


def test_closing_leaves_nothing_in_flight_and_may_be_done_twice() -> None:
    async def main() -> None:
        async with await opened(memory()) as space:
            await space.create_topic("a")
            for _ in range(5):
                await space.append("a", 0, blob(size=600_000))
        await space.close()
        assert [] == still_running(sim_loop())

    simulate(main())
