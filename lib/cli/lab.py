"""``headwater sim`` and ``headwater bench``: thin doors to ``headwater.sim.sweep`` and ``headwater.cli.benches``."""

from __future__ import annotations

from typing import Any

import click

from headwater.cli.settings import Command, Settings, general_options, pass_settings


@click.command(cls=Command)
@click.option("--seeds", type=click.IntRange(min=1), default=100, show_default=True, help="How many histories.")
@click.option("--first", type=click.IntRange(min=0), default=0, show_default=True, help="The first seed.")
@click.option("--jobs", type=click.IntRange(min=0), default=0, help="Processes; by default one a core.")
@click.option(
    "--world",
    type=click.Choice(["engine", "functions", "archive", "streams", "shares"]),
    default="engine",
    show_default=True,
    help="functions: real handlers that freeze, time out and vanish, and clients over HTTP. archive: days of "
    "archiving, compaction, retention, collection and branches, with readers of the past. streams: a job whose workers "
    "crash, freeze and share its tasks, beside one that nobody disturbs. shares: a share group whose records are "
    "handed out by processes that crash, freeze beyond their leases and wake as zombies.",
)
@pass_settings
def sim(settings: Settings, seeds: int, first: int, jobs: int, world: str) -> None:
    """Run the engine, unmodified, in virtual time over a bucket that misbehaves, and judge each history.

    One seed gives one history. Exit code 1 if a history breaks a promise; the report names the command that
    replays it.
    """
    from headwater.cli import output
    from headwater.sim.sweep import sweep

    with output.progress("simulating", None, "histories", quiet=settings.json) as advance:
        report = sweep(first, seeds, jobs, lambda *_: advance(0, 1), world=world)
    document: dict[str, Any] = report.as_dict()
    if settings.json:
        output.print_json(document)
    else:
        output.print_table(["", ""], [[name, str(value)] for name, value in document.items()], left=("", ""))
    if document.get("violations"):
        raise click.exceptions.Exit(1)


class Bench(click.Group):
    """The commands of ``headwater.cli.benches``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_benches())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = _benches().get(cmd_name)
        if found is not None and not any(parameter.name == "json" for parameter in found.params):
            present = {parameter.name for parameter in found.params}
            found.params += [option for option in general_options() if option.name not in present]
        return found


@click.group(cls=Bench)
def bench() -> None:
    """Measure the log, each time beside a baseline."""


def _benches() -> dict[str, click.Command]:
    from headwater.cli.benches import commands

    return commands
