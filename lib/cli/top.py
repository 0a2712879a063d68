"""``headwater top``: the overview in a terminal."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from headwater.cli.settings import Command, Settings, opened, pass_settings, run

if TYPE_CHECKING:
    from headwater.log.namespace import Namespace


@click.command(cls=Command)
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(min=0.2),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look: 1 GET each time, $0.0007 an hour at 2 s on S3.",
)
@click.option("--once", is_flag=True, help="Look twice, print what flowed in between, and end.")
@pass_settings
def top(settings: Settings, every_s: float, once: bool) -> int:
    """Watch what flows, who lags and what is stuck.

    Keys: q quit, p pause, o another order, / filter by name, tab to the other table. Nothing is written. Without a
    terminal, with --once or with --json it looks twice and prints one answer.
    """
    once = once or settings.json or not sys.stdout.isatty()
    return run(_top(settings, every_s, once=once))


async def _top(settings: Settings, every_s: float, *, once: bool) -> int:
    from headwater.limits import TOP_PATIENCE_S
    from headwater.log.options import Options

    async with opened(settings, options=Options(store_retry_s=TOP_PATIENCE_S)) as namespace:
        if once:
            await _once(settings, namespace, every_s)
            return 0
        try:
            from headwater.top.app import Top
        except ImportError as error:
            raise click.ClickException("The terminal view needs Textual: pip install 'headwater[top]'") from error
        await Top(namespace, every_s=every_s, where=f"{settings.store} {settings.namespace}").run_async()
    return 0


async def _once(settings: Settings, namespace: Namespace, every_s: float) -> None:
    from headwater.cli import output
    from headwater.top import sample, view_of
    from headwater.top.text import (
        GROUP_COLUMNS,
        ORDERS,
        TOPIC_COLUMNS,
        group_cells,
        groups_in,
        headline,
        topic_cells,
        topics_in,
    )

    clock = namespace.chain.clock
    before = sample(namespace.state, clock.elapsed_s())
    await clock.sleep(every_s)
    state = await namespace.refresh()
    view = view_of(state, sample(state, clock.elapsed_s()), before, now_ms=clock.wall_ms())
    if settings.json:
        topics, groups = [asdict(row) for row in view.topics], [asdict(row) for row in view.groups]
        output.print_json({"overview": asdict(view.overview), "topics": topics, "groups": groups})
        return
    click.echo("   ".join(f"{name} {value}" for name, value in headline(view.overview, clock.wall_ms())))
    if view.topics:
        output.print_table(TOPIC_COLUMNS, [topic_cells(row) for row in topics_in(view, ORDERS[0])])
    if view.groups:
        output.print_table(GROUP_COLUMNS, [group_cells(row) for row in groups_in(view, ORDERS[0])], left=["state"])
