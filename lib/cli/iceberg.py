"""``headwater iceberg``: an Apache Iceberg table over a topic's archive files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headwater.cli.settings import Group, Settings, pass_settings, with_namespace
from headwater.cli.topic import Config

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.log.namespace import Namespace
    from headwater.replay.iceberg import Synced, Target


@click.group(cls=Group)
def iceberg() -> None:
    """Keep an Apache Iceberg table over a topic's archive files, which stay as they are."""


def _target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option("--table", metavar="NAMESPACE.NAME", default="", help="Default: Headwater's namespace and topic."),
        click.option("--catalog", metavar="NAME", default="", help="A catalog of pyiceberg's configuration."),
        click.option(
            "--property",
            "properties",
            type=Config(),
            multiple=True,
            help="Of the catalog, as in uri=https://… or type=glue. May be given several times.",
        ),
        click.option(
            "--warehouse", metavar="URL", default="", help="Where Iceberg's own files go. Default: the store."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@iceberg.command()
@click.argument("topic")
@_target_options
@pass_settings
def export(settings: Settings, /, topic: str, **options: Any) -> None:
    """Make the Iceberg table of TOPIC, and add all files of its archive.

    Without --catalog and --property the table is in a catalog in SQLite: in the store's own directory, or in
    ./.headwater if the store is a bucket. Called again it does what sync does.
    """
    _sync(settings, topic, options, create=True)


@iceberg.command()
@click.argument("topic")
@_target_options
@pass_settings
def sync(settings: Settings, /, topic: str, **options: Any) -> None:
    """Bring the Iceberg table of TOPIC up to date: new files are added, replaced ones go, each exactly once.

    It may be interrupted, repeated, and run by several at once. Records that are not archived yet are not in the table:
    `headwater maintain --once` archives what is due.
    """
    _sync(settings, topic, options, create=False)


def _sync(settings: Settings, topic: str, options: dict[str, Any], *, create: bool) -> None:
    async def work(namespace: Namespace) -> Synced:
        from headwater.replay.iceberg import sync as bring_up

        return await bring_up(namespace, topic, _target(options), create=create)

    _show(settings, with_namespace(settings, work))


def _target(options: dict[str, Any]) -> Target:
    from headwater.replay.iceberg import Target

    return Target(
        catalog=options["catalog"],
        properties=dict(options["properties"]),
        table=options["table"],
        warehouse=options["warehouse"],
    )


def _show(settings: Settings, done: Synced) -> None:
    from dataclasses import asdict

    from headwater.cli import output

    if settings.json:
        output.print_json(asdict(done))
        return
    click.echo(
        f"Table {done.table}: {output.amount(done.added, 'file')} added, {done.removed:,} taken out. It has "
        f"{output.amount(done.files, 'file')} with {output.amount(done.records, 'record')}, as of commit {done.commit}."
    )
    if done.unarchived:
        click.echo(
            f"{output.amount(done.unarchived, 'offset')} of the topic are not archived yet, and not in the table."
        )
    for name in done.left_out:
        click.echo(f"Column {name!r} is left out: Iceberg cannot widen it as the schema did, or has no such type.")
    click.echo(f"  {done.metadata}")
