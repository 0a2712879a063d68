"""``headwater namespace``: the namespace itself and its configs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headwater.cli.settings import Command, Settings, answer, pass_settings, with_verbs
from headwater.cli.topic import Config

if TYPE_CHECKING:
    from headwater.api.verbs import Verbs
    from headwater.log.namespace import Namespace


@click.command(cls=Command)
@click.option("--set", "configs", type=Config(), multiple=True, help="history.retention.ms=…; -1 is for ever.")
@click.option("--unset", "unsets", multiple=True, metavar="NAME", help="Take a configuration back to its default.")
@pass_settings
def namespace(settings: Settings, configs: tuple[tuple[str, str], ...], unsets: tuple[str, ...]) -> None:
    """Show the namespace and its configuration, or change that.

    history.retention.ms says how far back "as of" and branches reach: for so long everything is kept that later commits
    replace. It is at least a day, which is the default.
    """
    changes: dict[str, str | None] = {**dict(configs), **dict.fromkeys(unsets)}

    async def work(verbs: Verbs, space: Namespace) -> dict[str, Any]:
        if changes:
            await verbs.alter_namespace(changes)
        info = await verbs.describe_namespace()
        return {
            "namespace": info.name,
            "commit": info.commit,
            "time_ms": info.time_ms,
            "topics": len(space.state.topics),
            "config": dict(info.config),
        }

    found = with_verbs(settings, work, writes=bool(changes))
    from headwater.cli import output

    since = output.moment(found["time_ms"])
    lines = [f"{found['namespace']}: commit {found['commit']:,} of {since}, {found['topics']} topics"]
    lines += [f"  {name} = {value}" for name, value in sorted(found["config"].items())]
    answer(settings, found, "\n".join(lines))
