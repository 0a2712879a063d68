"""The benchmarks as commands of ``headwater bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headwater.cli.settings import Command, Settings, pass_settings


@click.command(cls=Command)
@click.option("--writers", type=click.IntRange(min=1), default=256, show_default=True, help="Closed-loop writers.")
@click.option(
    "--requests-per-s",
    type=click.FloatRange(0, 100_000),
    default=0.0,
    help="Instead, the writers are gateways whose clients send so many requests in all.",
)
@click.option(
    "--pause-s",
    type=click.FloatRange(0, 3_600),
    default=0.0,
    help="… and one more sends a request now and then, so long after the last one.",
)
@click.option(
    "--profile",
    type=click.Choice(["s3-standard", "s3-express"]),
    default="s3-standard",
    show_default=True,
    help="Store.",
)
@click.option("--seconds", type=float, default=0.0, help="Simulated seconds; 0 chooses by the number of writers.")
@click.option("--seed", type=int, default=1, show_default=True, help="The seed of all latencies.")
@click.option(
    "--seeds",
    type=click.IntRange(1, 1_000),
    default=1,
    show_default=True,
    help="Runs from that seed on, whose figures are pooled; one run's tail says little.",
)
@pass_settings
def contention(
    settings: Settings,
    writers: int,
    requests_per_s: float,
    pause_s: float,
    profile: str,
    seconds: float,
    seed: int,
    seeds: int,
) -> None:
    """Many uncoordinated writers on one namespace, in simulated time, beside the naive loop."""
    from headwater.bench.contention import bench

    _show(
        settings,
        bench(
            writers,
            profile,
            seconds=seconds,
            seed=seed,
            seeds=seeds,
            requests_per_s=requests_per_s,
            pause_s=pause_s,
        ),
    )


@click.command(cls=Command)
@click.option("--batches", type=click.IntRange(min=8), default=64, show_default=True, help="Batches of 1 MiB a round.")
@pass_settings
def append(settings: Settings, batches: int) -> None:
    """Append throughput of one process on the memory and file stores, beside plain PUTs of the same bytes."""
    from headwater.bench.throughput import bench_append

    _show(settings, bench_append(batches=batches))


@click.command(cls=Command)
@click.option("--batches", type=click.IntRange(min=8), default=64, show_default=True, help="Batches of 1 MiB.")
@pass_settings
def fetch(settings: Settings, batches: int) -> None:
    """Read throughput of one process on the memory and file stores, beside plain GETs of the same bytes."""
    from headwater.bench.throughput import bench_fetch

    _show(settings, bench_fetch(batches=batches))


@click.command(cls=Command)
@pass_settings
def fold(settings: Settings) -> None:
    """The fold's speed, and cold starts after 10^3, 10^4 and 10^5 manifests."""
    from headwater.bench.fold import bench

    _show(settings, bench())


@click.command(cls=Command)
@click.option("--scale", type=click.FloatRange(0.01, 10), default=1.0, show_default=True, help="Of requests sent.")
@pass_settings
def http(settings: Settings, scale: float) -> None:
    """`headwater dev` over a memory store, driven from another process; latencies as on S3 Standard."""
    from headwater.bench.http import bench

    _show(settings, bench(scale))


@click.command(cls=Command)
@click.option("--mib", type=click.IntRange(min=1), default=256, show_default=True, help="Of values, each size.")
@click.option("--seconds", type=click.FloatRange(1, 600), default=30.0, show_default=True, help="Of each latency.")
@click.option("--peer", default="", metavar="PROGRAM", help="Tansu's program; by default that of ./.peers or PATH.")
@pass_settings
def kafka(settings: Settings, mib: int, seconds: float, peer: str) -> None:
    """A gateway under librdkafka, beside a bare server that keeps bytes in memory, and a peer; latencies as on S3."""
    from headwater.bench.kafka import bench

    _show(settings, bench(mib, seconds, peer))


@click.command(cls=Command)
@click.option("--manifests", type=click.IntRange(min=1_000), default=100_000, show_default=True, help="Of history.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Fresh processes of each.")
@pass_settings
def coldstart(settings: Settings, manifests: int, rounds: int) -> None:
    """From a fresh process to the first acknowledged produce, and to the first fetched record."""
    from headwater.bench.coldstart import bench

    _show(settings, bench(manifests, rounds))


@click.command(cls=Command)
@click.option("--callers", type=click.IntRange(min=1), default=256, show_default=True, help="One-request processes.")
@click.option("--profile", type=click.Choice(["s3-standard", "s3-express"]), default="s3-standard", show_default=True)
@click.option("--seconds", type=float, default=0.0, help="Simulated seconds; 0 chooses by the number of callers.")
@click.option("--seed", type=int, default=1, show_default=True, help="The seed of all latencies.")
@pass_settings
def serverless(settings: Settings, callers: int, profile: str, seconds: float, seed: int) -> None:
    """Concurrent one-request processes that produce through real handlers, in simulated time."""
    from headwater.bench.serverless import bench

    _show(settings, bench(callers, profile, seconds=seconds, seed=seed))


@click.command(cls=Command)
@click.option("--mib", type=click.IntRange(min=1), default=8, show_default=True, help="Of keys and values, each kind.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="The best one counts.")
@pass_settings
def formats(settings: Settings, mib: int, rounds: int) -> None:
    """Parquet beside Arrow IPC for the files of the archive: size, speed, seeks, and who can read them."""
    from headwater.bench.formats import bench

    _show(settings, bench(mib, rounds))


@click.command(cls=Command)
@click.option("--mib", type=click.IntRange(min=1), default=64, show_default=True, help="Keys and values, a partition.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Of which the best counts.")
@click.option("--seek-files", type=click.IntRange(min=1), default=10_000, show_default=True, help="Files of the seek.")
@pass_settings
def replay(settings: Settings, mib: int, rounds: int, seek_files: int) -> None:
    """Replay of a whole partition beside pyarrow, DuckDB and plain reads of the same files; a seek by time."""
    from headwater.bench.replay import bench

    _show(settings, bench(mib, rounds, seek_files=seek_files))


@click.command(cls=Command)
@click.option("--file-mib", type=click.IntRange(min=1, max=60), default=60, show_default=True, help="Chunks of a file.")
@click.option("--seed", type=int, default=1, show_default=True, help="The seed of all latencies.")
@pass_settings
def cost(settings: Settings, file_mib: int, seed: int) -> None:
    """Dollars at S3's list prices: ingest, archive, collect, rest. In simulated time, with every request counted."""
    from headwater.bench.cost import bench

    report = bench(file_mib, seed)
    if not settings.json:  # these go by rows of their own, which a table has no room for
        report["results"] = [{name: row.get(name, "") for name in _COST_COLUMNS} for row in report["results"]]
    _show(settings, report)


_COST_COLUMNS = (
    "workload",
    "gib_per_day",
    "put_per_day",
    "get_per_day",
    "list_per_day",
    "usd_per_day",
    "usd_per_gib",
    "archive_reads_usd_per_day",
    "bytes_written_to_ingested",
)


def _show(settings: Settings, report: dict[str, Any]) -> None:
    from headwater.cli import output

    if settings.json:
        output.print_json(report)
        return
    flat = {name: value for name, value in report.items() if not isinstance(value, list | dict)}
    output.print_table(["", ""], [[name, str(value)] for name, value in flat.items()], left=("", ""))
    for name, value in report.items():
        if isinstance(value, dict):
            value = [value]
        if isinstance(value, list):
            columns = list(value[0])
            output.print_table([name, *columns], [["", *(str(row[c]) for c in columns)] for row in value], left=(name,))


@click.command(cls=Command)
@click.option("--manifests", type=click.IntRange(min=1_000), default=100_000, show_default=True, help="Of the year.")
@click.option("--segments", type=click.IntRange(min=1), default=10_000, show_default=True, help="Named by them.")
@click.option("--partitions", type=click.IntRange(min=1), default=4, show_default=True, help="Of the one topic.")
@pass_settings
def year(settings: Settings, manifests: int, segments: int, partitions: int) -> None:
    """A simulated year, archived and collected as it goes: state, cold start and commits must stay as they are."""
    from headwater.bench.year import bench

    _show(settings, bench(manifests, segments, partitions=partitions))


@click.command(cls=Command)
@click.option("--rows", type=click.IntRange(min=100), default=100_000, show_default=True, help="Flights.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Of which the best counts.")
@pass_settings
def schemas(settings: Settings, rows: int, rounds: int) -> None:
    """The check of values by their topic's schema, and their typed columns: flights as JSON and as Avro, one core."""
    from headwater.bench.schemas import bench

    _show(settings, bench(rows, rounds))


@click.command(cls=Command)
@click.option("--events", type=click.IntRange(min=1_000), default=2_000_000, show_default=True, help="Of the stream.")
@click.option("--rounds", type=click.IntRange(min=1), default=2, show_default=True, help="Of which the best counts.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the events.")
@click.option("--query", "queries", multiple=True, help="Only this one; may be repeated.")
@click.option(
    "--peer-python",
    default="",
    envvar="HEADWATER_PEER_PYTHON",
    help="An interpreter with quixstreams and bytewax; by default that of ./.peers, if there is one.",
)
@pass_settings
def nexmark(
    settings: Settings, events: int, rounds: int, seed: int, queries: tuple[str, ...], peer_python: str
) -> None:
    """Stream processing: Nexmark's queries in process and through a log, checked against DuckDB, beside its peers."""
    from headwater.bench.nexmark.report import bench

    report = bench(events, rounds=rounds, seed=seed, peer_python=peer_python, names=queries)
    if not settings.json:
        report["results"] = [
            {"query": name, **{column: row.get(column) for column in _NEXMARK_COLUMNS}}
            for name, row in report.pop("queries").items()
        ]
        report["missed"] = ", ".join(report["missed"]) or "nothing"
        report.pop("peers")
    _show(settings, report)


_NEXMARK_COLUMNS = (
    "events_per_s",
    "events_per_s_log",
    "ratio_to_flink",
    "ratio_to_flink_log",
    "ratio_to_best_python_peer",
    "ratio_to_batch",
)


@click.command()
@click.option("--batches", default=60, type=click.IntRange(4), show_default=True, help="Of 100,000 rows each.")
@click.option("--rounds", default=2, type=click.IntRange(1), show_default=True, help="The best one counts.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path),
              help="Instead run for 5 minutes of event time, draw what is held, and fail if it grows.")  # fmt: skip
@pass_settings
def streams(settings: Settings, batches: int, rounds: int, plot: Path | None) -> None:
    """Stream processing: windows by kernel on one core, the restore of state, and with --plot what memory is held.

    The plot has windows that expire, a skewed key, a stalled partition and a slow sink, each with its bound.
    """
    if plot is not None:
        _plotted(settings, plot)
        return
    from headwater.bench.streams import bench

    _show(settings, bench(batches, rounds=rounds))


@click.command(cls=Command)
@click.option("--partitions", type=click.IntRange(min=1), default=10_000, show_default=True, help="In topics of 100.")
@click.option("--groups", type=click.IntRange(min=1), default=65_000, show_default=True, help="With 4 offsets each.")
@click.option("--rounds", type=click.IntRange(min=1), default=10, show_default=True, help="Of which the median counts.")
@pass_settings
def console(settings: Settings, partitions: int, groups: int, rounds: int) -> None:
    """CPU time of the console's pages over a large namespace, each after one more commit, and memory."""
    from headwater.bench.console import bench

    _show(settings, bench(partitions, groups, rounds))


def _plotted(settings: Settings, plot: Path) -> None:
    from headwater.bench import streams_memory

    report = streams_memory.bench()
    plot.write_text(streams_memory.drawn(report))
    rows = [{"run": name, **{key: run[key] for key in ("unit", "most", "bound", "holds")}}
            for name, run in report["runs"].items()]  # fmt: skip
    _show(settings, {"bench": "streams memory", "plot": str(plot), "results": rows})
    if not all(row["holds"] for row in rows):
        raise click.ClickException("More is held than its bound: this is an error of Headwater; report it.")


commands: dict[str, click.Command] = {
    "console": console,
    "contention": contention,
    "append": append,
    "fetch": fetch,
    "fold": fold,
    "http": http,
    "kafka": kafka,
    "coldstart": coldstart,
    "serverless": serverless,
    "replay": replay,
    "formats": formats,
    "cost": cost,
    "year": year,
    "schemas": schemas,
    "nexmark": nexmark,
    "streams": streams,
}
