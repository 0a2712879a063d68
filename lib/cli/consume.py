"""``headwater consume``: records of a topic, from a place or from where a group stopped."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.places import Start, StartType, resolve
from headwater.cli.settings import Command, Settings, opened, pass_settings, run
from headwater.log.polling import LongPoll

if TYPE_CHECKING:
    from headwater.cli.formats import Render
    from headwater.log.namespace import Namespace
    from headwater.log.reader import Fetched


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the command line asks for."""

    topic: str
    start: Start | None
    partitions: tuple[int, ...]
    group: str | None
    limit: int | None
    follow: bool


@click.command(cls=Command)
@click.argument("topic")
@click.option(
    "--offset",
    "-o",
    "start",
    type=StartType(),
    help="beginning (the default), end, N, -N (the last N), or a time: @1357034400000 (ms), @2013-01-01T10:00:00Z.",
)
@click.option("--partition", "-p", "partitions", type=click.IntRange(min=0), multiple=True, help="Default: all.")
@click.option("--group", "-g", metavar="NAME", help="Begin where the group stopped, and commit what was printed.")
@click.option("--limit", "-n", type=click.IntRange(min=0), help="Stop after so many records.")
@click.option("--format", "-f", "template", metavar="FORMAT", help=r"As kcat's, e.g. '%t [%p] %o %T %k: %s\n'.")
@click.option("--encoding", type=click.Choice(["utf8", "base64"]), default="utf8", help="--json: how bytes look.")
@click.option("--follow", is_flag=True, help="Wait for more. Without it, stop at the end as of now.")
@pass_settings
def consume(settings: Settings, /, template: str | None, encoding: str, **options: Any) -> None:
    r"""Print the records of TOPIC: values, a line each.

    Partitions come one after the other, each in order. --json prints
    {"topic","partition","offset","timestamp","key","value","headers"} a line; bytes that are no UTF-8 are base64
    and marked so.

    \b
    Tokens of --format:
      %t topic  %p partition  %o offset  %T timestamp in ms  %k key  %s value
      %K length of the key  %S length of the value (-1: null)  %h headers  %%
      \n \r \t \\ \0 \xHH

    A group's offsets are committed after the records were printed: a crash in between prints them again. While
    a group has members, only they may commit, and this command is refused.
    """
    from headwater.cli import formats

    if template is not None:
        render = formats.kcat(template)
    else:
        render = formats.json_lines(encoding) if settings.json else formats.values
    run(_consume(settings, Plan(**options), render))


async def _consume(settings: Settings, plan: Plan, render: Render) -> None:
    async with opened(settings) as namespace:
        topic = namespace.topic(plan.topic)
        chosen = dict.fromkeys(plan.partitions) or dict.fromkeys(range(len(topic.partitions)))
        positions = {partition: await _begin(namespace, plan, partition) for partition in chosen}
        await _Printer(namespace, plan, render, positions).print_all()


async def _begin(namespace: Namespace, plan: Plan, partition: int) -> int:
    _, place = namespace.reader.place(plan.topic, partition)
    if plan.group is not None and plan.start is None:
        committed = (await namespace.committed(plan.group)).get((plan.topic, partition))
        if committed is not None:
            if place.start <= committed.offset <= place.next:
                return committed.offset
            nearest = min(max(committed.offset, place.start), place.next)
            click.echo(
                f"headwater: group {plan.group} committed offset {committed.offset} of partition {partition}, "
                f"which holds [{place.start}, {place.next}); going on at {nearest}.",
                err=True,
            )
            return nearest
    return await resolve(namespace, plan.topic, partition, plan.start or Start("beginning"))


class _Printer:
    """Prints partitions from their positions on, and commits them for a group."""

    def __init__(self, namespace: Namespace, plan: Plan, render: Render, positions: dict[int, int]) -> None:
        self.namespace = namespace
        self.plan = plan
        self.render = render
        self.positions = positions
        self.committed = dict(positions) if plan.group else {}
        self.left = plan.limit

    async def print_all(self) -> None:
        """Print to the end as of now, then with ``--follow`` what comes, until the limit or Ctrl-C."""
        ends = {p: self.namespace.reader.place(self.plan.topic, p)[1].stable_end for p in self.positions}
        for partition, end in ends.items():
            await self._print_to(partition, end)
        await self._commit()
        chain = self.namespace.chain
        poll = LongPoll(chain)
        while self.plan.follow and self.left != 0:
            seq = chain.state.seq
            await poll.more(seq)
            if chain.state.seq > seq:
                poll = LongPoll(chain)
            for partition in self.positions:
                end = self.namespace.reader.place(self.plan.topic, partition)[1].stable_end
                await self._print_to(partition, end)
            await self._commit()

    async def _print_to(self, partition: int, end: int) -> None:
        while self.positions[partition] < end and self.left != 0:
            at = self.positions[partition]
            fetched = await self.namespace.reader.fetch(self.plan.topic, partition, at, fresh=False)
            if fetched.next_offset <= at:
                return
            self._print(partition, fetched, end)
            await self._commit()

    def _print(self, partition: int, fetched: Fetched, end: int) -> None:
        from headwater.log.batch import slice_from

        for chunk in fetched.chunks:
            rows = slice_from(chunk.decode(), self.positions[partition])
            rows = rows.slice(0, max(end - self.positions[partition], 0))
            if self.left is not None:
                rows = rows.slice(0, self.left)
                self.left -= rows.num_rows
            if rows.num_rows:
                sys.stdout.buffer.write(self.render(self.plan.topic, partition, rows))
                self.positions[partition] = rows.column("offset")[-1].as_py() + 1
            if self.left == 0:
                break
        else:
            self.positions[partition] = min(fetched.next_offset, end)
        sys.stdout.buffer.flush()

    async def _commit(self) -> None:
        if self.plan.group is None:
            return
        moved = {
            (self.plan.topic, partition): offset
            for partition, offset in self.positions.items()
            if offset != self.committed[partition]
        }
        if moved:
            await self.namespace.commit_offsets(self.plan.group, moved)
            self.committed = dict(self.positions)
