"""``headwater verify``: every invariant of a namespace, and exit code 1 if one is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headwater.cli.settings import Command, Settings, pass_settings, run

if TYPE_CHECKING:
    from headwater.log.verify import Report


@click.command(cls=Command)
@pass_settings
def verify(settings: Settings) -> int:
    """Check every invariant of the namespace. Exit code 1 if one is broken.

    The chain of manifests has no holes and folds again to every snapshot; offsets are dense; every chunk and every
    file of the archive that can be read is there, with the right CRC, count and times; no intent took effect twice;
    index pages hold what the manifests say; nothing names what is not there, also as of earlier commits. Objects that
    nothing names are told by kind with their bytes, and are no error. Nothing is written. Reads everything once.
    """
    report = run(_verify(settings))
    from headwater.cli import output

    if settings.json:
        output.print_json({"store": settings.store, "namespace": settings.namespace, **report.as_dict()})
    else:
        _print(report, settings)
    return 0 if report.clean else 1


async def _verify(settings: Settings) -> Report:
    from headwater.cli.output import phases
    from headwater.clock import SystemClock, system_entropy
    from headwater.log import keys
    from headwater.log.verify import verify as check
    from headwater.store import open_store
    from headwater.store.prefixed import PrefixedStore

    keys.check_namespace(settings.namespace)
    store = open_store(settings.store)
    try:
        view = PrefixedStore(store, f"{settings.namespace}/")
        with phases("checking", quiet=settings.json) as show:
            return await check(view, clock=SystemClock(), rng=system_entropy(), on_progress=show)
    finally:
        await store.aclose()


def _print(report: Report, settings: Settings) -> None:
    from headwater.cli.output import amount, console, print_table, size

    counts = report.counts
    if report.last_manifest:
        span = f"{report.first_manifest} to {report.last_manifest}"
        rows: list[list[object]] = [["manifests", span], ["intents", counts.get("intents", 0)]]
        rows += [[name, counts.get(name, 0)] for name in ("snapshots", "pages", "segments", "topics", "partitions")]
        rows += [[name, counts.get(name, 0)] for name in ("chunks", "records")]
        rows += [["chunk bytes", size(counts.get("chunk_bytes", 0))], ["archive files", counts.get("files", 0)]]
        rows += [["archived records", counts.get("archived_records", 0)]]
        rows += [["archived bytes", size(counts.get("file_bytes", 0))], ["objects", counts.get("objects", 0)]]
        rows.append(["bytes in all", size(counts.get("object_bytes", 0))])
        print_table(["checked", ""], rows)
        click.echo()
    if report.orphans:
        found = sorted(report.orphans.items())
        orphans: list[list[object]] = [[kind.replace("_", " "), count, size(total)] for kind, (count, total) in found]
        print_table(["orphans", "objects", "bytes"], orphans)
        click.echo()
    for note in report.notes:
        click.echo(f"note: {note}")
    for problem in report.problems:
        console().print(f"[bold red]{problem.kind}[/]", problem.key or "–", soft_wrap=True)
        click.echo(f"  {problem.message}")
    more = report.problem_count - len(report.problems)
    if more:
        click.echo(f"… and {more:,} more")
    if not counts.get("objects"):
        click.echo(f"There is nothing in namespace {settings.namespace} of {settings.store}.")
        return
    click.echo("Every invariant holds." if report.clean else f"{amount(report.problem_count, 'problem')} found.")
