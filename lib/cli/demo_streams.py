"""``headwater demo streams``: three jobs over the demonstration's topics, each with a small table."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.demo import limited, with_bars
from headwater.cli.settings import Command, Settings, pass_settings, run

if TYPE_CHECKING:
    from headwater.demo.run import Progress
    from headwater.demo.streams import JobFigures, StreamFigures
    from headwater.store.base import ObjectStore

SHOWN = 5  # rows of the tables that are not a list of ten


@click.command(cls=Command)
@limited
@pass_settings
def streams(settings: Settings, limit: int | None) -> None:
    """Run three jobs of stream processing over the flights, exactly once, and hold each to DuckDB over the raw files.

    Departures come as they happen and count for the hour of their schedule, so delayed ones are late: delays per
    airport and hour, with planes and weather; a running table of the worst airports; flights that one plane cannot have
    flown. Topics that are missing are made first. A second run finds the jobs done, and checks again.
    Needs the extras `demo` and `streams`.
    """
    from headwater.replay.extras import extra

    extra("polars", "streams")
    extra("duckdb", "demo")
    figures = run(with_bars(settings, _work(settings, limit)))
    from headwater.cli import output

    if settings.json:
        output.print_json(figures.as_dict())
    else:
        _print(figures, settings)


def _work(
    settings: Settings, limit: int | None
) -> Callable[[ObjectStore, Progress], Coroutine[Any, Any, StreamFigures]]:
    async def work(store: ObjectStore, show: Progress) -> StreamFigures:
        from headwater.demo.streams import run as demonstrate

        return await demonstrate(store, settings.namespace, limit=limit, on_progress=show)

    return work


def _print(figures: StreamFigures, settings: Settings) -> None:
    from headwater.cli.output import amount

    if figures.produced:
        click.echo(f"Made {', '.join(figures.produced)} in {figures.produce_s:.1f} s.")
    for job in figures.jobs:
        click.echo()
        _PRINTERS[job.job](job)
    rows = sum(sum(job.compared.values()) for job in figures.jobs)
    click.echo(
        f"\nDuckDB read the raw files in {figures.raw_s:.1f} s. It finds {amount(rows, 'row')}: the jobs have given "
        "these and no other."
    )
    at = settings.again
    click.echo(
        f"\nTry next:\n"
        f"  headwater streams status demo-delays{at}\n"
        f"  headwater consume airport-hours --limit 3{at}\n"
        f"  headwater consume impossible-rotations --limit 3{at}\n"
        f"  headwater streams describe headwater.demo.streams:delays"
    )


def _print_delays(job: JobFigures) -> None:
    from headwater.cli.output import amount

    hours, late = job.compared["airport-hours"], job.compared["late-departures"]
    click.echo(
        f"Delays per origin and hour of schedule, with planes and weather: {amount(hours, 'hour')}, the worst first. "
        f"{amount(late, 'flight')} left when the hour had been over for 2 h, too late for it: late-departures. "
        f"{_took(job)}"
    )
    columns = ["origin", "hour", "departures", "mean delay", "worst", "seats", "oldest plane", "°F", "mph", "miles"]
    rows = [
        [
            row["origin"], _minute(row["window_start"]), row["departures"], f"{row['delay']:.0f} min",
            f"{row['worst']} min", row["seats"], _known(row["oldest"]), _known(row["temp"]),
            _known(row["wind_speed"]), _known(row["visib"]),
        ]
        for row in job.shown[:SHOWN]
    ]  # fmt: skip
    _table(columns, rows, left=("hour",))


def _print_worst(job: JobFigures) -> None:
    from headwater.cli.output import amount

    airports, updates = job.compared["worst-airports"], job.written["worst-airports"]
    click.echo(
        f"The worst airports to fly to, as they stand in a running table of {amount(airports, 'row')} and "
        f"{amount(updates, 'update')}. {_took(job)}"
    )
    rows = [[row["dest"], row["flights"], f"{row['delay']:.1f} min"] for row in job.shown]
    _table(["airport", "flights", "mean delay at arrival"], rows)


def _print_rotations(job: JobFigures) -> None:
    from headwater.cli.output import amount

    pairs = job.compared["impossible-rotations"]
    click.echo(
        f"One tail number, two flights: {amount(pairs, 'pair')} of which the second left while the first was in the "
        f"air, the boldest first. {_took(job)}"
    )
    rows = [
        [
            row["tailnum"], f"{row['carrier']} {row['flight']}", f"{row['origin']}–{row['dest']}",
            _minute(row["departed"]), _minute(row["landed"]), f"{row['carrier_next']} {row['flight_next']}",
            row["origin_next"], _minute(row["departed_next"]),
        ]
        for row in job.shown[:SHOWN]
    ]  # fmt: skip
    columns = ["plane", "flight", "route", "left", "in the air until", "next", "from", "which left"]
    _table(columns, rows, left=tuple(columns))


_PRINTERS = {"demo-delays": _print_delays, "demo-worst": _print_worst, "demo-rotations": _print_rotations}


def _took(job: JobFigures) -> str:
    if not job.records:
        return "Done before."
    from headwater.cli.output import amount

    return f"({amount(job.records, 'record')} in {job.run_s:.1f} s, {amount(job.commits, 'commit')}.)"


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}Z"


def _known(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, left: Sequence[str] = ()) -> None:
    from headwater.cli.output import print_table

    if rows:
        click.echo()
        print_table(columns, rows, left=left)
