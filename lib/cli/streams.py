"""``headwater streams``: run jobs of stream processing, look at them, and bring them to where they should be."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.places import Start, StartType, resolve_all
from headwater.cli.serving import log_option, metrics_at, metrics_option, traced
from headwater.cli.settings import Group, Settings, answer, opened, pass_settings, run, with_namespace

if TYPE_CHECKING:
    from headwater.lines import Lines
    from headwater.log.namespace import Namespace
    from headwater.streams.model import Spec
    from headwater.streams.topology import Topology


@click.group(cls=Group)
def streams() -> None:
    """Run jobs of stream processing, look at them, pause, reset and restart them.

    A job is a topology in Python: `headwater streams run jobs:delays` runs what `delays` is in jobs.py.
    """


@streams.command(name="run")
@click.argument("topology", metavar="MODULE:TOPOLOGY")
@click.option("--once", is_flag=True, help="Process what is there now, and end.")
@click.option("--listen", metavar="HOST:PORT", default="", help="Answer questions about the state over HTTP.")
@click.option(
    "--standbys", type=click.IntRange(0, 8), default=0, show_default=True, help="Standby copies of each task."
)
@click.option("--instance", metavar="NAME", default="", help="A name that this worker keeps over restarts.")
@click.option("--from", "reset", type=click.Choice(["earliest", "latest"]), default="earliest", show_default=True,
              help="Where a job begins that has committed nothing.")  # fmt: skip
@click.option("--lost", type=click.Choice(["raise", "skip"]), default="raise", show_default=True,
              help="What to do about records that retention took before they were read.")  # fmt: skip
@click.option("--spill", metavar="DIR", default="", help="A folder for state that outgrows the memory of an operator.")
@click.option("--memory", "memory_max", type=click.IntRange(min=0), default=0, metavar="BYTES",
              help="State that one operator of one task keeps in memory; needs --spill. 0 is no bound.")  # fmt: skip
@log_option("off", "which tasks this worker has, and how it ended")
@metrics_option
@pass_settings
def run_(
    settings: Settings,
    topology: str,
    once: bool,
    listen: str,
    standbys: int,
    instance: str,
    reset: str,
    lost: str,
    spill: str,
    memory_max: int,
    log_level: str,
    metrics: tuple[str, int] | None,
) -> None:
    """Run a job as one of its workers, until Ctrl-C; or with --once until what is there now is processed.

    Start as many as you like, anywhere: they share the job's tasks, and the results are the same.
    """
    if metrics is not None and once:
        raise click.UsageError("--metrics goes with a run that stays: one with --once is over before a scrape.")
    found = load(topology)
    from headwater.streams.runner import app

    options = app.WorkerOptions(
        num_standbys=standbys, instance=instance, reset=reset, lost=lost, spill=spill, memory_max=memory_max
    )

    lines = _lines(log_level, found.job)

    async def work() -> app.Report | None:
        async with opened(settings, writes=True, metered=True) as namespace:
            if once:
                return await app.run_once(found, namespace, options=options)
            async with metrics_at(metrics, lambda: [namespace]) as url:
                said = partial(_told, settings, url, lines)
                await app.run(found, namespace, listen=listen, options=options, ready=said)
            return None

    with traced(found.job), _ending(lines):
        report = run(work())
    if report is not None:
        from dataclasses import asdict

        sentence = (
            f"Job {report.job}: {report.records:,} records in, {report.rows_out:,} out, {report.commits:,} commits; "
            f"the log is at commit {report.commit:,}."
        )
        answer(settings, asdict(report), sentence)


def _lines(level: str, job: str) -> Lines:
    from headwater.clock import SystemClock
    from headwater.lines import Lines

    return Lines(SystemClock(), level=level, always={"process": "streams", "job": job})


@contextlib.contextmanager
def _ending(lines: Lines) -> Iterator[None]:
    """One line for how a worker ended: with what error, if with one."""
    from headwater.lines import error_of

    try:
        yield
    except Exception as error:
        lines.say("error", "failed", error=error_of(error))
        raise
    lines.say("info", "ended")


def _follow(lines: Lines, worker: Any) -> None:
    """One line whenever the worker has other tasks than before."""
    before: list[int] = []

    def look() -> None:
        nonlocal before
        now = sorted(worker.tasks)
        if now != before:
            before = now
            lines.say("info", "tasks", tasks=now, count=len(now))

    worker.listeners.append(look)


def _told(settings: Settings, metrics: str | None, lines: Lines, app: Any) -> None:
    """Say that it runs. SIGTERM ends it as a stop does: what is computed is committed, and others take over at once."""
    with contextlib.suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.worker.stop)
    if lines.wants("info"):
        _follow(lines, app.worker)
    where = f", answering at {app.address}" if app.address else ""
    where += f", metrics for Prometheus at {metrics}" if metrics is not None else ""
    document = {"job": app.job.name, "tasks": app.job.tasks, "address": app.address, "metrics": metrics}
    answer(settings, document, f"Job {app.job.name} runs with {app.job.tasks} tasks{where}. Ctrl-C ends this worker.")


@streams.command()
@click.argument("topology", metavar="MODULE:TOPOLOGY")
@click.option("--svg", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Draw it instead.")
@pass_settings
def describe(settings: Settings, topology: str, svg: Path | None) -> None:
    """Show the sub-topologies, sources, stores and sinks of a topology. Needs no store."""
    found = load(topology)
    from headwater.streams.describe import cards, described
    from headwater.streams.model import Spec
    from headwater.streams.svg import drawn

    spec = found if isinstance(found, Spec) else found.build()
    if svg is not None:
        svg.write_text(drawn(spec.job, cards(spec.nodes)))
        answer(settings, {"svg": str(svg)}, f"Drew {svg}.")
    elif settings.json:
        from headwater.cli import output

        output.print_json({"job": spec.job, "description": described(spec)})
    else:
        click.echo(described(spec))


@streams.command()
@click.argument("job")
@pass_settings
def status(settings: Settings, job: str) -> None:
    """Show a job's members and tasks, how far behind it is, and the size of its state."""

    async def work(namespace: Namespace) -> dict[str, Any]:
        from headwater.streams.runner import control

        return await control.status(namespace, job)

    found = with_namespace(settings, work)
    from headwater.cli import output

    if settings.json:
        output.print_json(found)
        return
    lag = sum(row["lag"] for row in found["lag"])
    click.echo(
        f"{job}: {found['state']}, {found['tasks']} tasks, {lag:,} records behind, as of commit {found['commit']:,}"
    )
    if found["members"]:
        rows = [[m["member"], m["instance"], m["address"], " ".join(map(str, m["tasks"]))] for m in found["members"]]
        output.print_table(["member", "instance", "address", "tasks"], rows, left=("instance", "address", "tasks"))
    if found["lag"]:
        rows = [[r["topic"], r["partition"], r["offset"], r["lag"]] for r in found["lag"]]
        output.print_table(["topic", "partition", "committed", "lag"], rows)
    if found["operators"]:
        rows = [
            [name, one["rows_in"], one["rows_out"], one["rows_late"],
             "" if one["watermark"] is None else output.moment(one["watermark"]), one["state_bytes"]]
            for name, one in found["operators"].items()
        ]  # fmt: skip
        names = ["operator", "rows in", "rows out", "late", "watermark", "state bytes"]
        output.print_table(names, rows, left=("operator", "watermark"))
    if found["savepoints"]:
        output.print_table(["savepoint", "commit"], [[name, at] for name, at in found["savepoints"].items()])


@streams.command()
@click.argument("job")
@pass_settings
def pause(settings: Settings, job: str) -> None:
    """Make all workers of a job hold still. It stays so until `resume`, whoever starts or stops meanwhile."""
    _pause(settings, job, paused=True)


@streams.command()
@click.argument("job")
@pass_settings
def resume(settings: Settings, job: str) -> None:
    """Let the workers of a paused job go on."""
    _pause(settings, job, paused=False)


def _pause(settings: Settings, job: str, *, paused: bool) -> None:
    async def work(namespace: Namespace) -> int:
        from headwater.streams.runner import control

        return await control.pause(namespace, job, paused=paused)

    commit = with_namespace(settings, work, writes=True)
    word = "paused" if paused else "resumed"
    answer(settings, {"job": job, "state": word, "commit": commit}, f"Job {job} is {word} as of commit {commit:,}.")


@streams.command()
@click.argument("job")
@click.option("--to", "to", type=StartType(), default="earliest", show_default=True,
              help="Where to begin: earliest, latest, or a time.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do it without asking.")
@pass_settings
def reset(settings: Settings, job: str, to: Start, yes: bool) -> None:
    """Forget all state of a job and begin anew. What it has written to its output topics stays; so a table may keep
    keys that the new run never writes: make its topic anew as well.

    Shows what would be done, and asks. Refused while members are active. Everything is one commit.
    """

    async def preview(namespace: Namespace) -> tuple[dict[tuple[str, int], int], dict[str, Any]]:
        from headwater.streams.runner import control
        from headwater.streams.runner.remains import remains

        found = remains(namespace.state, job)
        places = await resolve_all(namespace, found.sources, to)
        return places, await control.plan_reset(namespace, job, places)

    places, plan = with_namespace(settings, preview)
    if not settings.json:
        _show_reset(plan)
    if not yes:
        click.confirm(f"Forget the state of job {job} and begin there?", abort=True, err=True)

    async def work(namespace: Namespace) -> int:
        from headwater.streams.runner import control

        return await control.reset(namespace, job, places)

    commit = with_namespace(settings, work, writes=True)
    answer(settings, {**plan, "commit": commit}, f"Job {job} is as new since commit {commit:,}.")


def _show_reset(plan: dict[str, Any]) -> None:
    from headwater.cli import output

    rows = [
        [row["topic"], row["partition"], "–" if row["before"] < 0 else row["before"], row["after"]]
        for row in plan["offsets"]
    ]
    if rows:
        output.print_table(["topic", "partition", "before", "after"], rows)
    if plan["how"] == "trim":
        click.echo(f"Trims {plan['internal_topics'][0]}: {plan['state_records']:,} records of state.")
    if plan["deleted_topics"]:
        click.echo(f"Deletes {', '.join(plan['deleted_topics'])}: the next run makes those anew that it still needs.")


@streams.command()
@click.argument("job")
@click.argument("name", required=False, default="")
@pass_settings
def savepoint(settings: Settings, job: str, name: str) -> None:
    """Print the commit to which the job can be brought back as it is now, and keep it under NAME if one is given.

    It can be gone back to for as long as history.retention.ms of the namespace says, a day unless set.
    """

    async def work(namespace: Namespace) -> dict[str, Any]:
        from headwater.streams.runner import control

        return await control.savepoint(namespace, job, name)

    found = with_namespace(settings, work, writes=bool(name))
    kept = f" ({name})" if name else ""
    sentence = (
        f"{found['commit']}\nJob {job} as of commit {found['commit']:,}{kept}: {len(found['offsets'])} offsets, "
        f"{found['lag']:,} records not yet read. Back: headwater streams restart {job} --at {name or found['commit']}"
    )
    answer(settings, found, sentence)


@streams.command()
@click.argument("job")
@click.option("--at", "at", required=True, metavar="COMMIT", help="A commit's number, or a savepoint's name.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_settings
def restart(settings: Settings, job: str, at: str, yes: bool) -> None:
    """Bring a job's state and offsets back to what they were at a commit. The next run goes on from there.

    Tables that the job writes get the rows that they had then. Records of streams that it has written since stay, and
    are written again. Refused while members are active. Everything is one commit.
    """

    async def find(namespace: Namespace) -> int:
        from headwater.errors import NotFound
        from headwater.streams.runner.remains import remains, savepoints

        found = savepoints(remains(namespace.state, job))
        if at in found:
            return found[at]
        if not at.isdigit():
            raise NotFound(f"Job {job!r} has no savepoint {at!r}; it has {', '.join(found) or 'none'}.")
        return int(at)

    commit = with_namespace(settings, find)
    if not yes:
        click.echo(
            "Tables that the job writes will be as they were then; records of streams that it has written since stay, "
            "and will be written again.",
            err=True,
        )
        click.confirm(f"Bring job {job} back to commit {commit:,}?", abort=True, err=True)

    async def work(namespace: Namespace) -> dict[str, Any]:
        from headwater.streams.runner import control

        return await control.restart(namespace, job, commit)

    done = with_namespace(settings, work, writes=True)
    where = f"Job {job} is where it was at commit {commit:,}, by commit {done['commit']:,}."
    answer(settings, done, f"{where} Its tables are as they were then; other records written since stay.")


@streams.command()
@click.argument("job")
@click.argument("name", metavar="STORE")
@click.argument("key", nargs=-1)
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Rows at most.")
@click.option("--as-of", "as_of", type=click.IntRange(min=0), default=None, metavar="COMMIT", help="As it was then.")
@pass_settings
def query(settings: Settings, job: str, name: str, key: tuple[str, ...], limit: int, as_of: int | None) -> None:
    """Ask the workers of a job for the rows of a store: those of KEY, one value a key column, or all.

    The workers must have been started with --listen.
    """

    async def work(namespace: Namespace) -> list[dict[str, Any]]:
        from headwater.streams.runner import asking

        return await asking.rows(namespace, job, name, key, limit=limit, as_of=as_of)

    rows = with_namespace(settings, work)
    from headwater.cli import output

    if settings.json:
        output.print_json(rows)
    elif not rows:
        click.echo(f"Store {name} of job {job} has nothing there.")
    else:
        columns = list(rows[0])
        output.print_table(columns, [[_cell(row[each]) for each in columns] for row in rows], left=columns)


def _cell(value: object) -> str:
    return "–" if value is None else str(value)


def load(name: str) -> Topology | Spec:
    """The topology that ``MODULE:NAME`` names, here or on the Python path."""
    import sys

    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise click.UsageError(f"Name a topology as MODULE:NAME, as jobs:delays, not {name!r}.")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    from headwater.streams.loading import load_topology

    return load_topology(name)
