"""``headwater replay``: a range of a topic into a file, a folder, standard output, or another topic."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.moments import MomentType, TimeType
from headwater.cli.settings import Command, Settings, opened, pass_settings, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.log.namespace import Namespace
    from headwater.replay.stream import Replay

FORMS = ("parquet", "arrow", "jsonl", "csv")
PLAIN = ("partition", "offset", "timestamp", "key", "value", "headers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the command line asks for."""

    topic: str
    partitions: tuple[int, ...]
    since: datetime | None
    until: datetime | None
    from_offset: int | None
    to_offset: int | None
    as_of: int | datetime | None
    columns: tuple[str, ...]
    where: str | None
    order: str
    to: str
    output: str | None

    @property
    def target(self) -> str | None:
        """The topic to replay into."""
        return self.to.removeprefix("topic:") if self.to.startswith("topic:") else None

    @property
    def is_folder(self) -> bool:
        """Whether the output is a folder of parts."""
        return self.output is not None and (self.output.endswith("/") or Path(self.output).is_dir())

    def as_dict(self) -> dict[str, Any]:
        """What decides which records come out, in which form: an interrupted run and its next have the same."""
        moment = self.as_of.isoformat() if isinstance(self.as_of, datetime) else self.as_of
        return {
            "topic": self.topic,
            "partitions": sorted(self.partitions),
            "since": self.since and self.since.isoformat(),
            "until": self.until and self.until.isoformat(),
            "from_offset": self.from_offset,
            "to_offset": self.to_offset,
            "as_of": moment,
            "columns": list(self.columns),
            "where": self.where,
            "order": self.order,
            "to": self.to,
        }


class TargetType(click.ParamType[str]):
    """A form, or ``topic:NAME``."""

    name = "target"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if text not in FORMS and not (text.startswith("topic:") and len(text) > len("topic:")):
            self.fail(f"{text!r} is none of {', '.join(FORMS)} and topic:NAME.", param, ctx)
        return text


@click.command(cls=Command)
@click.argument("topic")
@click.option("--partition", "-p", "partitions", type=click.IntRange(min=0), multiple=True, help="Default: all.")
@click.option("--since", type=TimeType(), help="Records at or after this time: 2013-07-04, 2013-07-04T12:00:00Z, @ms.")
@click.option("--until", type=TimeType(), help="Records before this time.")
@click.option("--from-offset", type=click.IntRange(min=0), help="Of each partition.")
@click.option("--to-offset", type=click.IntRange(min=0), help="Of each partition; this one is not included.")
@click.option("--as-of", type=MomentType(), metavar="COMMIT|TIME", help="As the topic was then.")
@click.option("--columns", metavar="A,B", help="Default: all; for jsonl those of a record, without the typed ones.")
@click.option("--where", metavar="EXPR", help="""As in 'dep_delay > 60 and carrier == "UA"'.""")
@click.option(
    "--order", type=click.Choice(["partition", "timestamp"]), default="partition", help="One by one, or merged by time."
)
@click.option(
    "--to", type=TargetType(), required=True, metavar="FORM", help="parquet, arrow, jsonl, csv or topic:NAME."
)
@click.option("--output", "-o", type=click.Path(), help="A file, or a folder/; default: standard output.")
@pass_settings
def replay(settings: Settings, /, columns: str | None, **options: Any) -> None:
    r"""Replay a range of TOPIC straight from the bucket: archive and hot tail, as of one commit.

    A file is there when it is complete: until then it is FILE.partial. A folder (a name that ends in / or is one) gets
    a file for each million offsets of a partition; if that is interrupted, the same command goes on where it stopped,
    with the records of the first run's commit. jsonl is what `consume --json` prints, but values that are JSON objects
    or arrays are embedded.

    topic:NAME appends to another topic, exactly once: the same command after an interruption goes on where it stopped,
    and later copies what is new. The group `replay-NAME-…` remembers how far it is.

    \b
    headwater replay flights --since 2013-07-04 --until 2013-07-05 --to parquet -o july4.parquet
    headwater replay flights --where 'dep_delay > 60' --columns offset,carrier,dep_delay --to csv
    headwater replay flights --as-of 2013-07-04 --to topic:flights-again
    """
    chosen = tuple(name.strip() for name in columns.split(",")) if columns else ()
    plan = Plan(columns=chosen, **options)
    _check(plan)
    run(_replay(settings, plan))


def _check(plan: Plan) -> None:
    if plan.since is not None and plan.from_offset is not None:
        raise click.UsageError("Begin at an offset or at a time: give --from-offset or --since.")
    if plan.until is not None and plan.to_offset is not None:
        raise click.UsageError("End at an offset or at a time: give --to-offset or --until.")
    if plan.target is not None and (plan.output is not None or plan.columns):
        raise click.UsageError("--output and --columns are for files; topic:NAME gets whole records.")
    if plan.output is None and plan.to == "parquet" and sys.stdout.isatty():
        raise click.UsageError("Parquet is nothing for a terminal: give --output.")


async def _replay(settings: Settings, plan: Plan) -> None:
    async with opened(settings, writes=plan.target is not None) as namespace:
        if plan.target is not None:
            await _to_topic(settings, namespace, plan)
        elif plan.output is None:
            await _to_stdout(namespace, plan)
        elif plan.is_folder:
            await _to_folder(settings, namespace, plan, Path(plan.output))
        else:
            await _to_file(settings, namespace, plan, Path(plan.output))


async def _to_stdout(namespace: Namespace, plan: Plan) -> None:
    from headwater.replay.export import export_stream

    found = await _opened(namespace, plan)
    with _bar(found, quiet=sys.stdout.isatty()) as watched:
        await export_stream(watched, plan.to, sys.stdout.buffer)


async def _to_file(settings: Settings, namespace: Namespace, plan: Plan, path: Path) -> None:
    from headwater.replay.export import export_file

    found = await _opened(namespace, plan)
    try:
        with _bar(found, quiet=settings.json) as watched:
            records = await export_file(watched, plan.to, path)
    except BaseException:
        click.echo(f"headwater: {path} was not written; the same command begins it anew.", err=True)
        raise
    _said(settings, plan, records=records, commit=found.commit, output=str(path))


async def _to_folder(settings: Settings, namespace: Namespace, plan: Plan, folder: Path) -> None:
    from headwater.replay.export import Exported, begun, export_parts

    state = begun(folder, plan.as_dict())
    found = await _opened(namespace, plan, commit=None if state is None else state.commit)
    again = state is not None and bool(state.parts)
    state = state or Exported(plan=plan.as_dict(), commit=found.commit)
    try:
        with _bar(found, quiet=settings.json) as watched:
            state = await export_parts(watched, plan.to, folder, state)
    except BaseException:
        from headwater.cli.output import amount

        done = amount(len(state.parts), "part")
        click.echo(
            f"headwater: interrupted with {done} complete in {folder}; the same command goes on there.", err=True
        )
        raise
    files = sum(1 for count in state.parts.values() if count)
    _said(settings, plan, records=state.records, commit=state.commit, output=str(folder), files=files, resumed=again)


async def _to_topic(settings: Settings, namespace: Namespace, plan: Plan) -> None:
    from dataclasses import asdict

    from headwater.cli.output import amount, print_json
    from headwater.replay.copying import COLUMNS, copy, group_of

    assert plan.target is not None
    found = await _opened(namespace, replace(plan, columns=COLUMNS))
    group = group_of(plan.target, {**plan.as_dict(), "source": found.view.topic.id})
    try:
        with _bar(found, quiet=settings.json) as watched:
            done = await copy(namespace, watched, plan.target, group)
    except BaseException:
        click.echo("headwater: interrupted; the same command goes on behind the last transaction.", err=True)
        raise
    if settings.json:
        print_json({**asdict(done), "commit": found.commit})
        return
    earlier = f" {amount(done.before, 'offset')} had been passed before." if done.before else ""
    click.echo(
        f"Appended {amount(done.records, 'record')} of {plan.topic} to {plan.target} in "
        f"{amount(done.transactions, 'transaction')}, as of commit {found.commit}.{earlier}"
    )


async def _opened(namespace: Namespace, plan: Plan, commit: int | None = None) -> Replay:
    """The replay that the plan describes; ``commit`` is that of an interrupted run."""
    from headwater.replay.ranges import commit_of
    from headwater.replay.stream import open_replay
    from headwater.replay.where import parse_where

    moment = plan.as_of if commit is None else commit
    if isinstance(moment, datetime):
        moment = await commit_of(namespace, moment)  # once, for both
    condition = None
    columns = plan.columns or (PLAIN if plan.to == "jsonl" else None)
    if plan.where is not None:
        whole = (await open_replay(namespace, plan.topic, as_of=moment)).shape.whole
        condition = parse_where(plan.where, whole)
    return await open_replay(
        namespace,
        plan.topic,
        partitions=plan.partitions or None,
        start=_place(plan.since, plan.from_offset, "earliest"),
        end=_place(plan.until, plan.to_offset, "latest"),
        columns=columns,
        filter=condition,
        order=plan.order,  # type: ignore[arg-type]
        as_of=moment,
    )


def _place(time: datetime | None, offset: int | None, default: str) -> str | int | datetime:
    return time if time is not None else offset if offset is not None else default


@contextmanager
def _bar(found: Replay, *, quiet: bool) -> Iterator[Replay]:
    """The same replay, which shows how far it is where a person looks on."""
    from headwater.replay.progress import shown

    with shown(not quiet, found.view.topic.name) as tell:
        yield replace(found, progress=tell)


def _said(settings: Settings, plan: Plan, **done: Any) -> None:
    from headwater.cli.output import amount, print_json

    if settings.json:
        print_json({"topic": plan.topic, "form": plan.to, **done})
        return
    files = f" in {amount(done['files'], 'file')}" if "files" in done else ""
    resumed = " An interrupted run was finished." if done.get("resumed") else ""
    click.echo(
        f"Wrote {amount(done['records'], 'record')} of {plan.topic} to {done['output']}{files}, as of commit "
        f"{done['commit']}.{resumed}"
    )
