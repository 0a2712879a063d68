"""``headwater produce``: a stream in, several batches in flight, every record acknowledged from the bucket."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import click

from headwater.cli.settings import Command, Settings, opened, pass_settings, run

if TYPE_CHECKING:
    from headwater.cli.output import Advance
    from headwater.cli.sources import Block
    from headwater.log.namespace import Appended, Namespace
    from headwater.log.partitioner import Sticky
    from headwater.types import Batch

IN_FLIGHT_MAX = 6  # blocks; with BLOCK_BYTES_MAX they stay below the writer's buffer, so their order is kept
BLOCK_BYTES_MAX = 8 << 20
BATCH_ROWS_MAX = 1 << 18
Read: TypeAlias = "tuple[Block, list[tuple[str, int, Batch]]]"
RESENDS_MAX = 5  # how often an append whose answer was lost is sent again under its token


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the command line asks for."""

    topic: str
    format: str
    key_separator: str | None
    key_field: str | None
    timestamp_field: str | None
    envelope: bool
    partition: int | None
    batch_bytes: int
    compression: str
    create: bool
    partitions: int


@click.command(cls=Command)
@click.argument("topic")
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--format",
    type=click.Choice(["lines", "jsonl", "csv"]),
    default="lines",
    show_default=True,
    help="lines: a value a line. jsonl: a JSON value a line. csv: a header row; each row becomes a JSON object.",
)
@click.option("--key-separator", metavar="TEXT", help="lines: what stands between key and value, as in key:value.")
@click.option("--key-field", metavar="NAME", help="jsonl, csv: the field that is the key.")
@click.option("--timestamp-field", metavar="NAME", help="jsonl, csv: the field that is the time (ms or ISO 8601).")
@click.option("--envelope", is_flag=True, help="jsonl: lines are records as `consume --json` prints them.")
@click.option("--partition", type=click.IntRange(min=0), help="Send all to this one, whatever the keys.")
@click.option("--batch-bytes", type=click.IntRange(1, BLOCK_BYTES_MAX), default=1 << 20, show_default=True)
@click.option("--compression", type=click.Choice(["zstd", "lz4", "none"]), default="zstd", show_default=True)
@click.option("--create", is_flag=True, help="Create the topic if it is missing.")
@click.option("--partitions", type=click.IntRange(min=1), default=1, show_default=True, help="With --create.")
@click.option(
    "--acks",
    type=click.Choice(["all", "1", "0"]),
    default="all",
    show_default=True,
    help="As in Kafka. Every acknowledgement comes from the bucket, so all and 1 are the same: the record is stored. "
    "0 sends in the same way and does not make the exit code depend on it.",
)
@pass_settings
def produce(settings: Settings, /, topic: str, file: IO[bytes], acks: str, **options: Any) -> int:
    """Append records to TOPIC from FILE or from standard input.

    Keys go where Kafka's default partitioner puts them; records without a key stay together on one partition for
    a batch at a time. Several batches are in flight, in order. Each block of input is one commit: all of its
    records are in the log, or none. When a row is wrong, everything before its block is in the log, nothing of it
    and behind it is, and the error says how many records that makes.
    """
    plan = Plan(topic=topic, **options)
    _check(plan)
    try:
        count = run(_produce(settings, plan, file))
    except Exception as error:
        from headwater.errors import HeadwaterError, InvalidRequest

        if acks != "0" or not isinstance(error, HeadwaterError) or isinstance(error, InvalidRequest):
            raise
        click.echo(f"headwater: {error} (ignored: --acks 0)", err=True)
        return 0
    from headwater.cli import output

    if settings.json:
        output.print_json({"topic": topic, **count.as_dict()})
    elif sys.stderr.isatty():
        click.echo(f"{output.amount(count.records, 'record')} in {output.amount(count.commits, 'commit')}.", err=True)
    return 0


def _check(plan: Plan) -> None:
    lines = plan.format == "lines"
    if plan.key_separator is not None and (not lines or not plan.key_separator):
        raise click.UsageError("--key-separator is a text of at least one character, for --format lines.")
    if lines and (plan.key_field or plan.timestamp_field):
        raise click.UsageError("--key-field and --timestamp-field need --format jsonl or csv.")
    if plan.envelope and (plan.format != "jsonl" or plan.key_field or plan.timestamp_field):
        raise click.UsageError("--envelope goes with --format jsonl and without --key-field and --timestamp-field.")


@dataclass(slots=True)
class Count:
    """What is acknowledged."""

    records: int = 0
    batches: int = 0
    commits: int = 0

    def as_dict(self) -> dict[str, int]:
        return {"records": self.records, "batches": self.batches, "commits": self.commits}


async def _produce(settings: Settings, plan: Plan, stream: IO[bytes]) -> Count:
    from headwater.cli import output

    async with opened(settings, writes=True) as namespace:
        partitions = await _partitions(namespace, plan)
        block_bytes = plan.batch_bytes
        if plan.partition is None and (plan.key_separator or plan.key_field or plan.envelope):
            block_bytes = min(block_bytes * partitions, BLOCK_BYTES_MAX)  # a block is split among the partitions
        with output.progress(plan.topic, _size(stream), quiet=settings.json or stream.isatty()) as advance:
            return await _Sender(namespace, plan, partitions, advance).send(_blocks(plan, stream, block_bytes))


async def _partitions(namespace: Namespace, plan: Plan) -> int:
    from headwater.errors import AlreadyExists

    if plan.create and namespace.state.named(plan.topic) is None:
        try:
            await namespace.create_topic(plan.topic, plan.partitions)
        except AlreadyExists:
            pass  # somebody was first, which is as good
    found = await namespace.find_topic(plan.topic)
    if plan.partition is not None:
        namespace.reader.place(plan.topic, plan.partition)
    return len(found.partitions)


def _blocks(plan: Plan, stream: IO[bytes], block_bytes: int) -> Iterator[Block]:
    from headwater.cli import sources

    if plan.format == "lines":
        return sources.read_lines(stream, block_bytes, plan.key_separator.encode() if plan.key_separator else None)
    if plan.format == "csv":
        return sources.read_csv(stream, block_bytes, plan.key_field, plan.timestamp_field)
    if plan.envelope:
        return sources.read_envelopes(stream, block_bytes)
    return sources.read_json_lines(stream, block_bytes, plan.key_field, plan.timestamp_field)


class _Sender:
    """Sends blocks in order, several at once, and knows at any moment what is acknowledged."""

    def __init__(self, namespace: Namespace, plan: Plan, partitions: int, advance: Advance) -> None:
        from headwater.clock import system_entropy
        from headwater.log.partitioner import Sticky

        self.namespace = namespace
        self.plan = plan
        self.partitions = partitions
        self.advance = advance
        self.count = Count()
        self.sticky: Sticky = Sticky(plan.batch_bytes, system_entropy())
        self.flying: deque[tuple[Block, asyncio.Task[list[Appended]]]] = deque()

    async def send(self, blocks: Iterator[Block]) -> Count:
        """Send them all. An error says how many records are in the log, and which lines are not."""
        from headwater.errors import HeadwaterError

        try:
            # Reading may wait for a slow pipe; commits go on meanwhile.
            while (read := await _in_thread(lambda: self._next(blocks))) is not None:
                block, batches = read
                while len(self.flying) >= IN_FLIGHT_MAX:
                    await self._land()
                task = asyncio.get_running_loop().create_task(self._append(batches))
                self.flying.append((block, task))
                while self.flying and self.flying[0][1].done():
                    await self._land()
            while self.flying:
                await self._land()
        except HeadwaterError as error:
            error.message = f"{error.message} {await self._told()}"
            error.data["records"] = self.count.records
            raise
        except asyncio.CancelledError:
            click.echo(await self._told(), err=True)
            raise
        return self.count

    def _next(self, blocks: Iterator[Block]) -> Read | None:
        block = next(blocks, None)
        return None if block is None else (block, self._encode(block))

    def _encode(self, block: Block) -> list[tuple[str, int, Batch]]:
        from headwater.log import partitioner
        from headwater.log.batch import encode_arrow

        now_ms = self.namespace.chain.clock.wall_ms()
        compression: Any = None if self.plan.compression == "none" else self.plan.compression
        if self.plan.partition is not None:
            parts = {self.plan.partition: block.table}
        else:
            sticky = self.sticky.take(self.partitions, block.nbytes)
            parts = partitioner.split(block.table, self.partitions, sticky)
        return [
            (
                self.plan.topic,
                partition,
                encode_arrow(table.slice(at, BATCH_ROWS_MAX), compression=compression, default_timestamp=now_ms),
            )
            for partition, table in parts.items()
            for at in range(0, table.num_rows, BATCH_ROWS_MAX)
        ]

    async def _append(self, batches: list[tuple[str, int, Batch]]) -> list[Appended]:
        from headwater.errors import Indeterminate

        token = ""
        for _ in range(RESENDS_MAX):
            try:
                return await self.namespace.append_many(batches, token=token)
            except Indeterminate as error:
                # Under the same token it takes effect once, whatever became of the first sending.
                token = error.token or token
        return await self.namespace.append_many(batches, token=token)

    async def _land(self) -> None:
        block, task = self.flying[0]
        placed = await task
        self.flying.popleft()
        self._note(block, placed)

    async def _told(self) -> str:
        """Wait for what is in flight, and say what is in the log and what is not."""
        missing = []
        while self.flying:
            block, task = self.flying.popleft()
            await asyncio.wait([task])
            if task.exception() is None:
                self._note(block, task.result())
            else:
                missing.append(f"{block.first} to {block.last}")
        are = "1 record is" if self.count.records == 1 else f"{self.count.records:,} records are"
        lost = f"; lines {', '.join(missing)} are not acknowledged" if missing else ""
        return f"{are} in the log{lost}."

    def _note(self, block: Block, placed: list[Appended]) -> None:
        self.count.records += block.table.num_rows
        self.count.batches += len(placed)
        self.count.commits += 1
        self.advance(block.nbytes, block.table.num_rows)


async def _in_thread(read: Callable[[], Read | None]) -> Read | None:
    """The result of ``read``, run in a thread that does not keep the process alive: a Ctrl-C must not wait for a
    terminal's next line, as it would with ``asyncio.to_thread``.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Read | None] = loop.create_future()

    def tell(block: Read | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(block)
        else:
            done.set_exception(error)

    def work() -> None:
        try:
            block, error = read(), None
        except BaseException as raised:
            block, error = None, raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, block, error)

    threading.Thread(target=work, name="headwater-input", daemon=True).start()
    return await done


def _size(stream: IO[bytes]) -> int | None:
    """Bytes of a file; unknown for a pipe."""
    import os
    import stat

    try:
        status = os.fstat(stream.fileno())
    except (OSError, AttributeError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
