"""``headwater maintain``: everything that a namespace needs done now and then, once or for ever."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.serving import log_option, metrics_at, metrics_option, traced, until_stopped
from headwater.cli.settings import Command, Settings, pass_settings, run

if TYPE_CHECKING:
    from headwater.api.upkeep import Report
    from headwater.lines import Lines
    from headwater.log.namespace import Namespace
    from headwater.store.base import ObjectStore

STOPPED = 143  # as a shell has it for a program that SIGTERM has ended: the run was not completed


@click.command(cls=Command)
@click.option("--once", is_flag=True, help="Do what is due now, and end.")
@click.option("--every", "every_s", type=click.FloatRange(min=1), default=60.0, show_default=True, metavar="SECONDS")
@click.option("--all", "everywhere", is_flag=True, help="Every namespace of the store.")
@click.option("--archive-now", is_flag=True, help="Archive every chunk, however young; with --once.")
@log_option("off", "what rounds have done; with debug all rounds")
@metrics_option
@pass_settings
def maintain(
    settings: Settings,
    once: bool,
    every_s: float,
    everywhere: bool,
    archive_now: bool,
    log_level: str,
    metrics: tuple[str, int] | None,
) -> int:
    """Archive, retain, compact, collect and tidy up, until Ctrl-C or SIGTERM.

    Old chunks become Parquet files, records leave by retention or compaction, objects that nobody can read any more are
    deleted, members and transactions that died are cleared away. Any number of processes may do this at once. A
    namespace in which nothing happens costs one GET a round.

    SIGTERM breaks off what is under way, which the next run does again, and waits for commits that are on their way.

    Exit code 1 with --once if a chore failed, which is tried again in the next run, and 143 if SIGTERM came first.
    """
    if archive_now and not once:
        raise click.UsageError("--archive-now goes with --once: a loop would archive every few records by themselves.")
    if metrics is not None and once:
        raise click.UsageError("--metrics goes with the loop: a run with --once is over before anybody scrapes it.")
    from headwater.clock import SystemClock
    from headwater.lines import Lines

    told = Lines(SystemClock(), level=log_level, always={"process": "maintain"})
    with traced("maintain"):
        status = run(until_stopped(_maintain(settings, once, every_s, everywhere, archive_now, metrics, told)))
    if status is None:
        return STOPPED if once else 0
    return status


async def _maintain(
    settings: Settings,
    once: bool,
    every_s: float,
    everywhere: bool,
    archive_now: bool,
    metrics: tuple[str, int] | None,
    told: Lines,
) -> int:
    from headwater.clock import SystemClock
    from headwater.meters import PROCESS
    from headwater.store import open_store
    from headwater.store.metered import MeteredStore

    clock = SystemClock()
    store = MeteredStore(open_store(settings.store), PROCESS)
    spaces: dict[str, Namespace] = {}
    try:
        async with metrics_at(metrics, spaces.values) as url:
            _announce(settings, url)
            while True:
                failed = 0
                async for name in _names(store, settings, everywhere):
                    begun_s = clock.elapsed_s()
                    report = await _round(store, spaces, name, archive_now=archive_now, cold=once)
                    failed += bool(report.get("failed"))
                    _tell(settings, report, once=once)
                    _log(told, report, clock.elapsed_s() - begun_s)
                if once:
                    return 1 if failed else 0
                await clock.sleep(every_s)
    finally:
        for space in spaces.values():
            with contextlib.suppress(Exception):
                await space.close()
        await store.aclose()


async def _names(store: ObjectStore, settings: Settings, everywhere: bool) -> AsyncIterator[str]:
    if not everywhere:
        yield settings.namespace
        return
    from headwater.api.app import namespaces_in

    async for name in namespaces_in(store):
        yield name


async def _round(
    store: ObjectStore, spaces: dict[str, Namespace], name: str, *, archive_now: bool, cold: bool
) -> dict[str, Any]:
    from headwater.api.upkeep import count_unreadable, keep_up
    from headwater.cli.output import phases
    from headwater.errors import HeadwaterError
    from headwater.log.namespace import Namespace
    from headwater.meters import PROCESS
    from headwater.store.prefixed import PrefixedStore
    from headwater.upkeep import idle

    try:
        if name not in spaces:
            from headwater.clock import SystemClock

            if cold and not archive_now and await idle.rests(PrefixedStore(store, f"{name}/"), SystemClock()):
                return {"namespace": name, "rested": True}
            spaces[name] = await Namespace.open(store, name, probe=False)
        with phases(f"{name}:") as progress:
            report: Report = await keep_up(spaces[name], progress=progress, archive_now=archive_now)
        return asdict(report)
    except HeadwaterError as error:
        if name not in spaces:  # else its round was begun, and counts as it ended
            count_unreadable(PROCESS, name)
        return {"namespace": name, "failed": [f"{type(error).__name__}: {error}"]}


def _announce(settings: Settings, metrics: str | None) -> None:
    """Say where the metrics are, before the first round: it may take long."""
    if metrics is None:
        return
    from headwater.cli import output

    if settings.json:
        output.print_json({"metrics": metrics})
    else:
        click.echo(f"Metrics for Prometheus: {metrics}")
    sys.stdout.flush()


def _tell(settings: Settings, report: dict[str, Any], *, once: bool) -> None:
    from headwater.cli import output

    if settings.json:
        output.print_json(report)
        return
    for failure in report.get("failed") or ():
        click.echo(f"{report['namespace']}: {failure}", err=True)
    done = _summary(report)
    if done or once:
        click.echo(f"{report['namespace']}: {done or 'nothing to do'}")


def _log(told: Lines, report: dict[str, Any], seconds: float) -> None:
    """One line for a round, with what is not nothing."""
    level = "error" if report.get("failed") else "info" if _summary(report) else "debug"
    if told.wants(level):
        told.say(level, "upkeep", **{name: value for name, value in report.items() if value}, ms=seconds * 1_000)


# field of the report → what it counts, and what became of it
_WORDS = {
    "members_expelled": ("dead member", "expelled"),
    "groups_expired": ("idle group", "forgotten"),
    "joins_ended": ("overdue join", "ended"),
    "leases_dropped": ("orphaned lease", "dropped"),
    "reservations_expired": ("overdue reservation", "voided"),
    "documents_dropped": ("expired document", "dropped"),
    "partitions_trimmed": ("partition", "trimmed"),
    "files_archived": ("file", "archived"),
    "files_merged": ("small file", "merged"),
    "files_compacted": ("file", "compacted"),
    "pages_pruned": ("index page", "pruned"),
    "objects_collected": ("object", "collected"),
}


def _summary(report: dict[str, Any]) -> str:
    """What was done, in words; empty if nothing was."""
    from headwater.cli.output import size

    parts = []
    for name, (noun, done) in _WORDS.items():
        if count := report.get(name, 0):
            parts.append(f"{count:,} {noun}{'' if count == 1 else 's'} {done}")
    for name, word in (("bytes_archived", "archived"), ("bytes_collected", "collected")):
        if report.get(name):
            parts.append(f"{size(report[name])} {word}")
    if report.get("snapshot"):
        parts.append(f"snapshot {report['snapshot']:,}")
    if report.get("left"):
        parts.append("more is left for the next run")
    return ", ".join(parts)
