"""``headwater offsets``: where partitions begin and end, where a time lies, how far groups are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headwater.cli.places import Start, StartType, resolve_all
from headwater.cli.settings import Command, Settings, pass_settings, with_namespace

if TYPE_CHECKING:
    from headwater.log.namespace import Namespace


@click.command(cls=Command)
@click.argument("topic", required=False)
@click.option("--time", "time", type=StartType(), help="Also the first offset at or after: @ms, @ISO or ISO 8601.")
@click.option("--group", "-g", metavar="NAME", help="What the group has committed, and its lag.")
@click.option("--reset", type=StartType(), help="With --group: commit earliest, latest, N, -N or a time instead.")
@click.option("--yes", is_flag=True, help="Reset without asking.")
@pass_settings
def offsets(
    settings: Settings, topic: str | None, time: Start | None, group: str | None, reset: Start | None, yes: bool
) -> None:
    """Show the offsets of TOPIC, or of a group, or reset those of a group.

    Give TOPIC and --group to see or reset a group in one topic only.
    """
    if group is None and topic is None:
        raise click.UsageError("Name a topic, or a group with --group.")
    if reset is not None and group is None:
        raise click.UsageError("--reset needs --group.")
    if time is not None and (group is not None or time.kind != "time"):
        raise click.UsageError("--time takes a time, as @2013-01-01T10:00:00Z, and a topic without --group.")
    if group is None:
        assert topic is not None
        _show_topic(settings, topic, time)
    else:
        if reset is not None:
            _reset(settings, group, topic, reset, yes)
        _show_group(settings, group, topic)


def _show_topic(settings: Settings, topic: str, time: Start | None) -> None:
    async def work(namespace: Namespace) -> list[dict[str, Any]]:
        found = []
        for number, place in enumerate(namespace.topic(topic).partitions):
            row: dict[str, Any] = {
                "topic": topic,
                "partition": number,
                "log_start": place.start,
                "stable_end": place.stable_end,
                "high_watermark": place.next,
            }
            if time is not None:
                hit = await namespace.reader.offset_at(topic, number, time.value)
                row["offset"], row["timestamp"] = hit or (None, None)
            found.append(row)
        return found

    rows = with_namespace(settings, work)
    from headwater.cli import output

    if settings.json:
        output.print_json(rows)
        return
    columns = ["partition", "log start", "stable end", "end"]
    table: list[list[object]] = [
        [str(r["partition"]), r["log_start"], r["stable_end"], r["high_watermark"]] for r in rows
    ]
    if time is not None:
        columns += [f"at {output.moment(time.value)}", "its time"]
        for line, row in zip(table, rows, strict=True):
            none = row["offset"] is None
            line += ["–", "after the end"] if none else [row["offset"], output.moment(row["timestamp"])]
    output.print_table(columns, table)


def _show_group(settings: Settings, group: str, topic: str | None) -> None:
    async def work(namespace: Namespace) -> list[dict[str, Any]]:
        return await group_rows(namespace, group, topic)

    rows = with_namespace(settings, work)
    from headwater.cli import output

    if settings.json:
        output.print_json(rows)
    elif not rows:
        click.echo(f"Group {group} has committed nothing{f' in topic {topic}' if topic else ''}.")
    else:
        table = [[r["topic"], r["partition"], r["offset"], r["high_watermark"], r["lag"]] for r in rows]
        output.print_table(["topic", "partition", "committed", "end", "lag"], table)


async def group_rows(namespace: Namespace, group: str, topic: str | None) -> list[dict[str, Any]]:
    """What the group has committed, with its lag: the records that it has not read yet."""
    if topic is not None:
        namespace.topic(topic)
    found = []
    for (name, partition), committed in sorted((await namespace.committed(group)).items()):
        if topic in (None, name):
            _, place = namespace.reader.place(name, partition)
            found.append(
                {
                    "group": group,
                    "topic": name,
                    "partition": partition,
                    "offset": committed.offset,
                    "high_watermark": place.next,
                    "lag": max(place.stable_end - max(committed.offset, place.start), 0),
                    "metadata": committed.metadata,
                }
            )
    return found


def _reset(settings: Settings, group: str, topic: str | None, reset: Start, yes: bool) -> None:
    async def plan(namespace: Namespace) -> dict[tuple[str, int], int]:
        names = {name for name, _ in await namespace.committed(group)} if topic is None else {topic}
        return await resolve_all(namespace, names, reset)

    places = with_namespace(settings, plan)
    if not places:
        raise click.UsageError(f"Group {group} has committed nothing; name the topic to set its offsets in.")
    if not yes:
        names = ", ".join(sorted({name for name, _ in places}))
        click.confirm(f"Reset group {group} in {len(places)} partitions of {names}?", abort=True, err=True)

    async def work(namespace: Namespace) -> None:
        await namespace.commit_offsets(group, places)

    with_namespace(settings, work, writes=True)
