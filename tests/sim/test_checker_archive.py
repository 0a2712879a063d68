"""The judge of long retention, on small stories: what it must say, and when it must be silent."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pyarrow as pa

from headwater.log import keys, parquet, small
from headwater.log.history import state_at
from headwater.log.namespace import Namespace
from headwater.log.operations import File, SwapFiles
from headwater.sim.checker_archive import Ack, Court, Cut, Made, Rules, Sight, Statements, offsets_of
from headwater.sim.chronicle import RememberingBucket, Row
from headwater.sim.faults import SimStore
from headwater.sim.loop import SimClock, run, sim_loop
from headwater.types import Record
from headwater.upkeep.branch import branch

TP = ("t", 0)
DAY_S = 86_400.0
Story = Callable[["Stage"], Awaitable[None]]


class Stage:
    """A bucket that remembers, a namespace with the topic ``t``, and what is said of them."""

    def __init__(self) -> None:
        self.bucket = RememberingBucket(sim_loop())
        self.said = Statements()
        self.log: Namespace

    async def open(self, config: dict[str, str]) -> None:
        store = SimStore(self.bucket, loop=sim_loop(), rng=random.Random(1))
        self.log = await Namespace.open(store, clock=SimClock(sim_loop()), rng=random.Random(2))
        await self.log.create_topic("t", 1, config)

    async def send(self, *records: tuple[str, str | None]) -> int:
        """Append (key, value) at the present time; the base offset."""
        now_ms = self.bucket.wall_ms()
        batch = small.batch_of([Record(key=k.encode(), value=v and v.encode(), timestamp=now_ms) for k, v in records])
        return (await self.log.append(*TP, batch)).base_offset

    async def swap(
        self, rows: dict[int, Row], base: int, end: int, *, cleaned_ms: int = 0, was: list[File] | None = None
    ) -> File:
        """Put a file of these rows, and commit that it holds ``[base, end)``."""
        builder = parquet.FileBuilder()
        builder.add(
            pa.table(
                {
                    "offset": pa.array(list(rows), pa.int64()),
                    "timestamp": pa.array([row.timestamp for row in rows.values()], pa.timestamp("ms", tz="UTC")),
                    "key": pa.array([row.key for row in rows.values()], pa.binary()),
                    "value": pa.array([row.value for row in rows.values()], pa.binary()),
                    "headers": pa.nulls(len(rows), parquet.file_schema().field("headers").type),
                },
                schema=parquet.file_schema(),
            )
        )
        built = builder.finish()
        key = keys.archive_key("t", 0, base, end, self.log.state.seq, keys.fresh_name(self.log.chain.rng, 50))
        await self.log.store.put(key, built.data.to_pybytes())
        made = parquet.placed(built, base=base, end=end, key=key, cleaned_ms=cleaned_ms)
        clean = end if cleaned_ms else -1
        op = SwapFiles(
            topic=1, partition=0, base=base, end=end, was=[f.key for f in was or []], files=[made], clean=clean
        )
        await self.log.writer.commit(ops=[op])
        return made

    async def rows(self) -> dict[int, Row]:
        """Everything that is in the topic now."""
        found: dict[int, Row] = {}
        async for chunk in self.log.reader.chunks(*TP, 0):
            columns = [chunk.decode().column(name) for name in ("offset", "timestamp", "key", "value")]
            for offset, time, key, value in zip(*(c.cast(_PLAIN.get(c.type, c.type)) for c in columns), strict=True):
                found[offset.as_py()] = Row(time.as_py(), key.as_py(), value.as_py())
        return found


_PLAIN = {pa.timestamp("ms", tz="UTC"): pa.int64()}


def kinds(story: Story, *, config: dict[str, str] | None = None, tidy: bool = False) -> list[str]:
    """What the judge says of a story, in short."""

    async def main() -> list[str]:
        stage = Stage()
        await stage.open(config or {})
        await story(stage)
        await stage.log.drain()
        rules = Rules(history_ms=86_400_000, skew_ms=0, quiet_ms=stage.bucket.wall_ms(), tidy=tidy)
        return [found.kind for found in Court(stage.bucket, stage.said, rules).judge()]

    return run(main())


COMPACT = {"cleanup.policy": "compact", "delete.retention.ms": "60000"}


def test_an_archive_of_what_was_written_is_no_news() -> None:
    async def story(stage: Stage) -> None:
        await stage.send(("a", "1"), ("b", "2"))
        await stage.swap(await stage.rows(), 0, 2)
        stage.said.sights.append(Sight("default", TP, stage.log.state.seq, 0, 2, await stage.rows()))

    assert [] == kinds(story)


def test_a_record_that_an_archiver_loses_or_changes_is_missed() -> None:
    async def loses(stage: Stage) -> None:
        await stage.send(("a", "1"), ("b", "2"))
        rows = await stage.rows()
        await stage.swap({1: rows[1]}, 0, 2)

    async def changes(stage: Stage) -> None:
        await stage.send(("a", "1"), ("b", "2"))
        rows = await stage.rows()
        await stage.swap({0: rows[1], 1: rows[1]}, 0, 2)

    assert ["archive-lost"] == kinds(loses)
    assert ["archive-changed"] == kinds(changes)


def test_compaction_may_take_what_a_later_record_of_the_key_supersedes_and_nothing_else() -> None:
    async def superseded(stage: Stage) -> None:
        await stage.send(("a", "1"), ("b", "2"), ("a", "3"))
        rows = await stage.rows()
        file = await stage.swap(rows, 0, 3)
        await stage.swap({1: rows[1], 2: rows[2]}, 0, 3, cleaned_ms=stage.bucket.wall_ms(), was=[file])

    async def newest(stage: Stage) -> None:
        await stage.send(("a", "1"), ("b", "2"), ("a", "3"))
        rows = await stage.rows()
        file = await stage.swap(rows, 0, 3)
        await stage.swap({0: rows[0], 1: rows[1]}, 0, 3, cleaned_ms=stage.bucket.wall_ms(), was=[file])

    assert [] == kinds(superseded, config=COMPACT)
    assert ["archive-lost"] == kinds(superseded)  # the topic is not compacted
    assert ["archive-lost"] == kinds(newest, config=COMPACT)


def test_a_tombstone_stays_for_its_time_and_outlives_what_it_hides() -> None:
    def story(wait_s: float, keep: set[int]) -> Story:
        async def told(stage: Stage) -> None:
            await stage.send(("a", "1"), ("b", "2"), ("a", None))
            rows = await stage.rows()
            file = await stage.swap(rows, 0, 3)
            again = await stage.swap(
                {o: row for o, row in rows.items() if o in keep}, 0, 3, cleaned_ms=stage.bucket.wall_ms(), was=[file]
            )
            await sim_loop().sleep(wait_s)
            left = {o: row for o, row in rows.items() if o in keep and o != 2}
            await stage.swap(left, 0, 3, cleaned_ms=again.cleaned_ms, was=[again])

        return told

    assert [] == kinds(story(70.0, {1, 2}), config=COMPACT)
    assert ["tombstone-early"] == kinds(story(10.0, {1, 2}), config=COMPACT)
    assert ["archive-revived"] == kinds(story(70.0, {0, 1, 2}), config=COMPACT)


def test_what_was_compacted_away_does_not_come_back() -> None:
    async def story(stage: Stage) -> None:
        await stage.send(("a", "1"), ("a", "2"))
        rows = await stage.rows()
        file = await stage.swap(rows, 0, 2)
        again = await stage.swap({1: rows[1]}, 0, 2, cleaned_ms=stage.bucket.wall_ms(), was=[file])
        await stage.swap(rows, 0, 2, cleaned_ms=again.cleaned_ms, was=[again])

    assert ["archive-revived"] == kinds(story, config=COMPACT)


def test_a_log_start_that_moves_too_early_is_noticed() -> None:
    def story(wait_s: float) -> Story:
        async def told(stage: Stage) -> None:
            await stage.send(("a", "1"))
            await sim_loop().sleep(wait_s)
            await stage.log.trim(*TP, 1)

        return told

    async def asked(stage: Stage) -> None:
        await stage.send(("a", "1"))
        stage.said.trims[TP] = 1
        await stage.log.trim(*TP, 1)

    assert [] == kinds(story(70.0), config={"retention.ms": "60000"})
    assert ["retention-early"] == kinds(story(10.0), config={"retention.ms": "60000"})
    assert ["retention-early"] == kinds(story(10.0))
    assert [] == kinds(asked)


def test_a_look_at_the_past_is_held_against_the_past() -> None:
    def story(tamper: Callable[[dict[int, Row]], object]) -> Story:
        async def told(stage: Stage) -> None:
            await stage.send(("a", "1"), ("b", "2"))
            rows, commit = await stage.rows(), stage.log.state.seq
            await stage.send(("a", "3"))
            await stage.log.trim(*TP, 3)
            stage.said.trims[TP] = 3
            tamper(rows)
            offsets = offsets_of(await state_at(stage.log.chain, commit))
            stage.said.cuts.append(Cut("default", commit, stage.bucket.wall_ms(), {TP: (0, 2, rows)}, offsets))

        return told

    assert [] == kinds(story(lambda rows: None))
    assert ["as-of"] == kinds(story(lambda rows: rows.pop(0)))
    assert ["as-of"] == kinds(story(lambda rows: rows.update({2: Row(0, b"a", b"3")})))


def test_history_may_be_refused_once_a_later_snapshot_is_as_old_as_history() -> None:
    def story(wait_s: float) -> Story:
        async def told(stage: Stage) -> None:
            await stage.send(("a", "1"))
            commit = stage.log.state.seq
            await stage.send(("a", "2"))
            await stage.log.house.snapshot()
            await sim_loop().sleep(wait_s)
            stage.said.cuts.append(Cut("default", commit, stage.bucket.wall_ms(), error="collected"))

        return told

    assert [] == kinds(story(1.1 * DAY_S))
    assert ["as-of-refused"] == kinds(story(0.9 * DAY_S))


def test_readers_and_writers_are_believed_against_the_log() -> None:
    async def story(stage: Stage) -> None:
        base = await stage.send(("a", "1"), ("b", "2"))
        rows, seq = await stage.rows(), stage.log.state.seq
        stage.said.acks += [
            Ack("default", TP, seq, base, ((b"a", b"1"), (b"b", b"2"))),
            Ack("default", TP, seq, base + 1, ((b"a", b"1"),)),
        ]
        stage.said.sights += [
            Sight("default", TP, seq, 0, 2, {0: rows[0]}),
            Sight("default", TP, seq, 0, 2, {0: rows[0]}, whole=False),
            Sight("default", TP, seq, 0, 1, {0: rows[1]}),
        ]

    assert ["read-missed", "read-wrong", "ack-lost"] == kinds(story)


def test_nothing_is_deleted_that_a_state_within_history_needs() -> None:
    def story(wait_s: float) -> Story:
        async def told(stage: Stage) -> None:
            await stage.send(("a", "1"), ("a", "2"))
            rows = await stage.rows()
            file = await stage.swap(rows, 0, 2)
            await stage.swap(rows, 0, 2, was=[file])
            await stage.log.house.snapshot()
            await sim_loop().sleep(wait_s)
            await stage.log.store.delete([file.key])

        return told

    assert [] == kinds(story(1.1 * DAY_S))
    assert ["deleted-early"] == kinds(story(0.9 * DAY_S))


def test_what_a_branch_needs_of_its_origin_stays() -> None:
    async def story(stage: Stage) -> None:
        await stage.send(("a", "1"), ("a", "2"))
        rows = await stage.rows()
        file = await stage.swap(rows, 0, 2)
        made = await branch(stage.log, "other")
        stage.said.branches.append(Made("other", "default", made.commit))
        await stage.swap(rows, 0, 2, was=[file])
        await stage.log.house.snapshot()
        await sim_loop().sleep(1.1 * DAY_S)
        await stage.log.store.delete([file.key])

    assert ["deleted-early"] == kinds(story)


def test_what_nobody_names_is_garbage_in_the_end() -> None:
    async def story(stage: Stage) -> None:
        await stage.send(("a", "1"))
        key = keys.archive_key("t", 0, 0, 1, 0, "abcdefgh")
        await stage.log.store.put(key, b"lost")
        await sim_loop().sleep(9 * DAY_S)

    assert ["garbage"] == kinds(story, tidy=True)
    assert [] == kinds(story)
