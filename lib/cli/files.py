"""``headwater topic files``: the archive's Parquet files of a topic, for tools that read them by themselves."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.moments import MomentType, TimeType
from headwater.cli.settings import Command, Settings, pass_settings, with_namespace

if TYPE_CHECKING:
    from datetime import datetime

    from headwater.log.namespace import Namespace
    from headwater.replay import ArchiveFile


@click.command(cls=Command)
@click.argument("name")
@click.option("--partition", "-p", "partitions", type=click.IntRange(min=0), multiple=True, help="Default: all.")
@click.option("--since", type=TimeType(), help="Only files with records at or after this time.")
@click.option("--until", type=TimeType(), help="Only files with records before this time.")
@click.option("--as-of", type=MomentType(), metavar="COMMIT|TIME", help="As the topic was then.")
@click.option("--urls", is_flag=True, help="Only where they are, a line each.")
@pass_settings
def files(settings: Settings, /, urls: bool, **options: Any) -> None:
    """List the archive's Parquet files of the topic NAME, by partition and offset.

    Take these rather than all that lies in the folder: files that were merged or compacted stay there until they are
    collected. Records that are not archived yet are in none of them; records below "start" were deleted.
    """

    async def work(namespace: Namespace) -> list[ArchiveFile]:
        return await _listed(namespace, **options)

    found = with_namespace(settings, work)
    from headwater.cli import output

    if urls:
        click.echo("".join(f"{file.url}\n" for file in found), nl=False)
    elif settings.json:
        for file in found:
            output.print_json(asdict(file))
    elif not found:
        click.echo(f"Nothing of topic {options['name']} is archived there.")
    else:
        for file in found:
            click.echo(
                f"{file.url}\n  partition {file.partition}, offsets {file.start:,} to {file.end:,}, "
                f"{output.amount(file.count, 'record')} from {output.moment(file.min)} to {output.moment(file.max)}, "
                f"{output.size(file.bytes)}"
            )


async def _listed(
    namespace: Namespace,
    *,
    name: str,
    partitions: tuple[int, ...],
    since: datetime | None,
    until: datetime | None,
    as_of: int | datetime | None,
) -> list[ArchiveFile]:
    from headwater.replay.dataset import listed
    from headwater.replay.stream import open_replay

    return await listed(
        await open_replay(
            namespace,
            name,
            partitions=partitions or None,
            start=since or "earliest",
            end=until or "latest",
            as_of=as_of,
        )
    )
