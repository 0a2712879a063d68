"""``headwater group``: consumer groups, their members, how far they are, and how to put them elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.places import Start, StartType, resolve_all
from headwater.cli.settings import Group, Settings, answer, pass_settings, with_verbs

if TYPE_CHECKING:
    from headwater.api.verbs import TP, GroupInfo, Lag, Verbs
    from headwater.log.namespace import Namespace


@click.group(cls=Group)
def group() -> None:
    """List, describe, reset and delete consumer groups; their lag."""


topics_option = click.option("--topic", "topics", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
partitions_option = click.option(
    "--partition", "partitions", type=click.IntRange(min=0), multiple=True, help="Only this one of the one --topic."
)


@group.command(name="list")
@pass_settings
def list_(settings: Settings) -> None:
    """List the groups."""

    async def work(verbs: Verbs, namespace: Namespace) -> list[dict[str, Any]]:
        found = []
        for info in await verbs.groups():
            lags = await verbs.lag(info.group)
            found.append({**_summary(info), "partitions": len(lags), "lag": sum(lag.lag for lag in lags)})
        return found

    rows = with_verbs(settings, work)
    from headwater.cli import output

    if settings.json:
        output.print_json(rows)
    elif not rows:
        click.echo(f"No groups in namespace {settings.namespace} of {settings.store}.")
    else:
        columns = ["group", "state", "protocol", "generation", "members", "partitions", "lag"]
        table = [[r["group"], r["state"], *(r[name] for name in ("kind", *columns[3:]))] for r in rows]
        output.print_table(columns, table, left=("state", "protocol"))


@group.command()
@click.argument("name")
@pass_settings
def describe(settings: Settings, name: str) -> None:
    """Show a group's members, what each of them owns, and how far the group is in each partition."""

    async def work(verbs: Verbs, namespace: Namespace) -> dict[str, Any]:
        info = await verbs.group(name)
        members = [
            {
                "member": m.member,
                "instance": m.instance,
                "client": m.client,
                "epoch": m.epoch,
                "topics": list(m.topics),
                "owned": [list(place) for place in m.owned],
                "revoking": [list(place) for place in m.revoking],
            }
            for m in info.members
        ]
        return {**_summary(info), "members": members, "offsets": [_lag_row(lag) for lag in await verbs.lag(name)]}

    found = with_verbs(settings, work)
    from headwater.cli import output

    if settings.json:
        output.print_json(found)
        return
    how = f", assigned by {found['assignor']}" if found["assignor"] else ""
    click.echo(f"{name}: {found['state']}, {found['kind'] or 'no'} protocol, generation {found['generation']}{how}")
    if found["members"]:
        rows = [
            [m["member"], m["instance"], m["client"], m["epoch"], _places(m["owned"]), _places(m["revoking"])]
            for m in found["members"]
        ]
        columns = ["member", "instance", "client", "epoch", "owns", "gives up"]
        output.print_table(columns, rows, left=("instance", "client", "owns", "gives up"))
    if found["offsets"]:
        _print_lags(found["offsets"], group=False)


@group.command()
@click.argument("name", required=False)
@pass_settings
def lag(settings: Settings, name: str | None) -> None:
    """Show how many records each group has yet to read, or those of one group."""

    async def work(verbs: Verbs, namespace: Namespace) -> list[dict[str, Any]]:
        if name is not None:
            await verbs.group(name)
        return [_lag_row(found) for found in await verbs.lag(name)]

    rows = with_verbs(settings, work)
    from headwater.cli import output

    if settings.json:
        output.print_json(rows)
    elif not rows:
        click.echo(f"No group has committed anything in namespace {settings.namespace} of {settings.store}.")
    else:
        _print_lags(rows, group=True)


@group.command()
@click.argument("name")
@click.option("--to", "to", type=StartType(), required=True, help="earliest, latest, N, -N before the end, or a time.")
@topics_option
@partitions_option
@click.option("--execute", is_flag=True, help="Do it. Without this the plan is only shown.")
@pass_settings
def reset(
    settings: Settings, name: str, to: Start, topics: Sequence[str], partitions: Sequence[int], execute: bool
) -> None:
    """Set a group's offsets: in all topics that it has committed, or in those named.

    Without --execute nothing is changed. A group that has members is refused: stop them first. All partitions move
    in one commit.
    """
    _check_partitions(topics, partitions)

    async def work(verbs: Verbs, namespace: Namespace) -> list[dict[str, Any]]:
        from headwater.api.verbs import GroupOffset, GroupOffsets
        from headwater.errors import InvalidRequest

        before = await verbs.committed(name)
        names = topics or [topic for topic, _ in before]
        places = await resolve_all(namespace, names, to, partitions)
        if not places:
            raise InvalidRequest(f"Group {name!r} has committed nothing; name the topic to set its offsets in.")
        if execute:
            offsets = {place: GroupOffset(offset=offset) for place, offset in places.items()}
            await verbs.commit_offsets(GroupOffsets(group=name, offsets=offsets))
        return [
            {
                "group": name,
                "topic": topic,
                "partition": partition,
                "before": before[topic, partition].offset if (topic, partition) in before else -1,
                "after": offset,
                "executed": execute,
            }
            for (topic, partition), offset in places.items()
        ]

    rows = with_verbs(settings, work, writes=execute)
    from headwater.cli import output

    if settings.json:
        output.print_json(rows)
        return
    table = [[r["topic"], r["partition"], "–" if r["before"] < 0 else r["before"], r["after"]] for r in rows]
    output.print_table(["topic", "partition", "before", "after"], table)
    if not execute:
        click.echo("Nothing was changed. Add --execute to do this.", err=True)


@group.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_settings
def delete(settings: Settings, name: str, yes: bool) -> None:
    """Delete a group and what it has committed. A group that has members is refused."""

    async def look(verbs: Verbs, namespace: Namespace) -> None:
        await verbs.group(name)

    async def work(verbs: Verbs, namespace: Namespace) -> None:
        await verbs.delete_group(name)

    with_verbs(settings, look)
    if not yes:
        click.confirm(f"Delete group {name} with its offsets?", abort=True, err=True)
    with_verbs(settings, work, writes=True)
    answer(settings, {"deleted": name}, f"Deleted group {name}.")


@group.command(name="delete-offsets")
@click.argument("name")
@topics_option
@partitions_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_settings
def delete_offsets(settings: Settings, name: str, topics: Sequence[str], partitions: Sequence[int], yes: bool) -> None:
    """Forget what a group has committed in some topics. A group that has members is refused."""
    if not topics:
        raise click.UsageError("Name a --topic. To forget all of the group: headwater group delete.")
    _check_partitions(topics, partitions)

    async def look(verbs: Verbs, namespace: Namespace) -> list[TP]:
        await verbs.group(name)
        chosen = [place for place in await verbs.committed(name) if place[0] in topics]
        return sorted(place for place in chosen if not partitions or place[1] in partitions)

    async def work(verbs: Verbs, namespace: Namespace) -> None:
        await verbs.delete_offsets(name, places)

    places = with_verbs(settings, look)
    if not places:
        raise click.UsageError(f"Group {name} has committed nothing there.")
    what = f"{len(places)} offset{'' if len(places) == 1 else 's'} of group {name}"
    if not yes:
        click.confirm(f"Forget {what}?", abort=True, err=True)
    with_verbs(settings, work, writes=True)
    answer(settings, {"group": name, "deleted": [list(place) for place in places]}, f"Forgot {what}.")


def _check_partitions(topics: Sequence[str], partitions: Sequence[int]) -> None:
    if partitions and len(topics) != 1:
        raise click.UsageError("--partition needs exactly one --topic.")


def _summary(info: GroupInfo) -> dict[str, Any]:
    return {
        "group": info.group,
        "kind": info.kind,
        "state": info.state,
        "generation": info.generation,
        "assignor": info.assignor,
        "members": len(info.members),
    }


def _lag_row(lag: Lag) -> dict[str, Any]:
    return {
        "group": lag.group,
        "topic": lag.topic,
        "partition": lag.partition,
        "offset": lag.committed,
        "high_watermark": lag.end,
        "lag": lag.lag,
        "member": lag.member,
    }


def _print_lags(rows: Sequence[dict[str, Any]], *, group: bool) -> None:
    from headwater.cli import output

    columns = ["topic", "partition", "committed", "end", "lag", "member"]
    table: list[list[object]] = [
        [
            r["topic"],
            r["partition"],
            "–" if r["offset"] < 0 else r["offset"],
            r["high_watermark"],
            r["lag"],
            r["member"],
        ]
        for r in rows
    ]
    if group:
        columns, table = ["group", *columns], [[r["group"], *line] for r, line in zip(rows, table, strict=True)]
    output.print_table(columns, table, left=("topic", "member"))


def _places(places: Sequence[Sequence[Any]]) -> str:
    by_topic: dict[str, list[int]] = {}
    for topic, partition in places:
        by_topic.setdefault(topic, []).append(partition)
    return " ".join(f"{topic}[{','.join(map(str, sorted(found)))}]" for topic, found in sorted(by_topic.items()))
