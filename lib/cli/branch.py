"""``headwater branch``: copies of a namespace or a topic that share every object with it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from headwater.cli.settings import Command, Settings, answer, pass_settings, with_namespace

if TYPE_CHECKING:
    from headwater.log.namespace import Namespace
    from headwater.upkeep.branch import Branch


@click.command(cls=Command)
@click.argument("new", required=False)
@click.option("--at", type=click.IntRange(min=1), metavar="COMMIT", help="As of this commit; now without.")
@click.option("--topic", metavar="TOPIC", help="This topic alone, with the groups' offsets in it.")
@click.option("--drop", is_flag=True, help="Delete the branch NEW and what it alone holds.")
@click.option("--yes", is_flag=True, help="Do not ask before --drop.")
@pass_settings
def branch(settings: Settings, new: str | None, at: int | None, topic: str | None, drop: bool, yes: bool) -> None:
    """Make the namespace NEW a copy of this one as of a commit, or list the branches.

    Nothing is copied: the branch shares every object with its origin, writes its own beside them, and neither can
    change the other. What a branch needs stays in the origin until the branch no longer needs it or is dropped.
    """
    if drop:
        _drop(settings, new, yes)
    elif new is None:
        if at or topic:
            raise click.UsageError("Name the branch that is to be made: headwater branch NEW --at COMMIT.")
        _list(settings)
    else:
        _make(settings, new, at, topic)


def _make(settings: Settings, new: str, at: int | None, topic: str | None) -> None:
    async def work(namespace: Namespace) -> Branch:
        from headwater.upkeep.branch import branch as make

        return await make(namespace, new, at=at, topic=topic)

    made = with_namespace(settings, work)
    what = f"topic {made.topic} of {made.origin}" if made.topic else made.origin
    line = (
        f"Namespace {made.namespace} is {what} as of commit {made.commit:,}. Use it with --namespace {made.namespace}."
    )
    answer(settings, asdict(made), line)


def _list(settings: Settings) -> None:
    async def work(namespace: Namespace) -> list[Branch]:
        from headwater.upkeep.branch import branches

        return await branches(namespace)

    found = with_namespace(settings, work)
    from headwater.cli import output

    if settings.json:
        output.print_json([asdict(each) for each in found])
    elif not found:
        click.echo(f"Namespace {settings.namespace} has no branches.")
    else:
        rows = [[each.namespace, each.commit, each.topic or "all"] for each in found]
        output.print_table(["branch", "as of commit", "topics"], rows, left=["topics"])


def _drop(settings: Settings, new: str | None, yes: bool) -> None:
    if new is None:
        raise click.UsageError("Name the branch that is to be dropped: headwater branch NEW --drop.")
    if not yes:
        click.confirm(f"Delete the namespace {new} and everything that it alone holds?", abort=True, err=True)

    async def work(namespace: Namespace) -> int:
        from headwater.upkeep.branch import drop_branch

        return await drop_branch(namespace, new)

    count = with_namespace(settings, work)
    answer(settings, {"branch": new, "objects_deleted": count}, f"Dropped {new}: {count:,} objects deleted.")
