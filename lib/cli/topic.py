"""``headwater topic``: create, list, describe, delete, alter, trim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headwater.cli.files import files
from headwater.cli.schema import schema
from headwater.cli.settings import Group, Settings, answer, pass_settings, with_namespace

if TYPE_CHECKING:
    from headwater.log.namespace import Namespace
    from headwater.log.state import Partition, Topic


@click.group(cls=Group)
def topic() -> None:
    """Create, list, describe, alter, trim and delete topics."""


class Config(click.ParamType[tuple[str, str]]):
    """``name=value``."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, mark, rest = str(value).partition("=")
        if not mark or not name.strip():
            self.fail(f"{value!r} is no configuration; write name=value, as in retention.ms=86400000.", param, ctx)
        return name.strip(), rest


config_option = click.option("--config", "configs", type=Config(), multiple=True, help="May be given several times.")


@topic.command()
@click.argument("name")
@click.option("--partitions", type=click.IntRange(min=1), default=1, show_default=True)
@config_option
@pass_settings
def create(settings: Settings, name: str, partitions: int, configs: tuple[tuple[str, str], ...]) -> None:
    """Create a topic."""

    async def work(namespace: Namespace) -> dict[str, Any]:
        return describe_topic(await namespace.create_topic(name, partitions, dict(configs)))

    created = with_namespace(settings, work, writes=True)
    answer(settings, created, f"Created topic {name} with {_partitions(partitions)}.")


@topic.command(name="list")
@pass_settings
def list_(settings: Settings) -> None:
    """List the topics."""

    async def work(namespace: Namespace) -> list[dict[str, Any]]:
        return [describe_topic(found) for _, found in sorted((t.name, t) for t in namespace.state.topics.values())]

    topics = with_namespace(settings, work)
    from headwater.cli import output

    if settings.json:
        output.print_json(topics)
    elif not topics:
        click.echo(f"No topics in namespace {settings.namespace} of {settings.store}.")
    else:
        rows = [[t["name"], len(t["partitions"]), t["records"], output.size(t["bytes"])] for t in topics]
        output.print_table(["topic", "partitions", "records", "stored"], rows)


@topic.command()
@click.argument("name")
@pass_settings
def describe(settings: Settings, name: str) -> None:
    """Show a topic's partitions and configuration.

    "stored" counts the bytes of all batches ever committed, as they lie in the bucket. Offsets below "archived to"
    are read from the archive, which holds "archive" bytes of files.
    """

    async def work(namespace: Namespace) -> dict[str, Any]:
        return describe_topic(namespace.topic(name))

    found = with_namespace(settings, work)
    from headwater.cli import output

    if settings.json:
        output.print_json(found)
        return
    click.echo(f"{name}: id {found['id']}, created {output.moment(found['created_ms'])}")
    for key, value in sorted(found["config"].items()):
        click.echo(f"  {key} = {value}")
    if found["schema"]:
        click.echo(f"  schema: version {found['schema']['version']}, values as {found['schema']['format']}")
    rows = [
        [
            str(p["partition"]),
            p["log_start"],
            p["high_watermark"],
            p["stable_end"],
            p["records"],
            output.size(p["bytes"]),
            p["archived"],
            output.size(p["archived_bytes"]),
        ]
        for p in found["partitions"]
    ]
    columns = ["partition", "log start", "high watermark", "stable end", "records", "stored", "archived to", "archive"]
    output.print_table(columns, rows)


@topic.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_settings
def delete(settings: Settings, name: str, yes: bool) -> None:
    """Delete a topic and all that is in it."""

    async def look(namespace: Namespace) -> dict[str, Any]:
        return describe_topic(namespace.topic(name))

    async def work(namespace: Namespace) -> None:
        await namespace.delete_topic(name)

    found = with_namespace(settings, look)
    if not yes:
        click.confirm(f"Delete topic {name} with {found['records']:,} records?", abort=True, err=True)
    with_namespace(settings, work, writes=True)
    answer(settings, {"deleted": name, "records": found["records"]}, f"Deleted topic {name}.")


@topic.command()
@click.argument("name")
@click.option("--partitions", type=click.IntRange(min=1), help="Grow to this many. Keys then map to other partitions.")
@config_option
@click.option("--unset", "unsets", multiple=True, metavar="NAME", help="Take a configuration back to its default.")
@pass_settings
def alter(
    settings: Settings,
    name: str,
    partitions: int | None,
    configs: tuple[tuple[str, str], ...],
    unsets: tuple[str, ...],
) -> None:
    """Add partitions, set and unset configurations: all of it or, if a part is refused, nothing."""
    if partitions is None and not configs and not unsets:
        raise click.UsageError("Say what to alter: --partitions, --config or --unset.")

    async def work(namespace: Namespace) -> dict[str, Any]:
        from headwater.log import operations
        from headwater.log.config import check_topic_config

        for config, value in configs:
            check_topic_config(config, value)
        found = await namespace.find_topic(name)
        ops: list[operations.AnyOp] = []
        if partitions is not None:
            ops.append(operations.AddPartitions(topic=found.id, total=partitions))
        if configs or unsets:
            ops.append(operations.AlterTopic(topic=found.id, config={**dict(configs), **dict.fromkeys(unsets)}))
        await namespace.writer.commit(ops=ops)
        return describe_topic(namespace.topic(name))

    altered = with_namespace(settings, work, writes=True)
    config = ", ".join(f"{key}={value}" for key, value in sorted(altered["config"].items()))
    parts = _partitions(len(altered["partitions"]))
    answer(settings, altered, f"Topic {name} has {parts} and {config or 'no configuration'}.")


@topic.command()
@click.argument("name")
@click.argument("partition", type=click.IntRange(min=0))
@click.argument("offset", type=click.IntRange(min=0))
@pass_settings
def trim(settings: Settings, name: str, partition: int, offset: int) -> None:
    """Move the log start of PARTITION forward to OFFSET. What lies below is gone for readers."""

    async def work(namespace: Namespace) -> int:
        await namespace.trim(name, partition, offset)
        return namespace.reader.place(name, partition)[1].start

    start = with_namespace(settings, work, writes=True)
    answer(
        settings,
        {"topic": name, "partition": partition, "log_start": start},
        f"Partition {partition} of {name} starts at offset {start:,}.",
    )


topic.add_command(schema)
topic.add_command(files)


def describe_topic(topic: Topic) -> dict[str, Any]:
    """The topic as plain data. Records are offsets in the log; an aborted reservation counts too."""
    partitions = [
        {
            "partition": number,
            "log_start": place.start,
            "high_watermark": place.next,
            "stable_end": place.stable_end,
            "records": place.next - place.start,
            "bytes": place.bytes,
            "archived": place.archived,
            "archived_bytes": _archived_bytes(place),
        }
        for number, place in enumerate(topic.partitions)
    ]
    return {
        "name": topic.name,
        "id": topic.id,
        "created_ms": topic.created_ms,
        "config": topic.config,
        "schema": None if topic.schema is None else {"version": topic.schema.version, "format": topic.schema.format},
        "records": sum(place["records"] for place in partitions),
        "bytes": sum(place["bytes"] for place in partitions),
        "partitions": partitions,
    }


def _archived_bytes(place: Partition) -> int:
    archive = place.archive
    if archive is None:
        return 0
    return sum(page.bytes for page in archive.pages) + sum(file.bytes for file in archive.files)


def _partitions(count: int) -> str:
    return f"{count} partition{'' if count == 1 else 's'}"
