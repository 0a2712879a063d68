"""``headwater doctor``: what is wrong, from the bucket to the client, and what to do about it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.settings import Command, Settings, pass_settings, run

if TYPE_CHECKING:
    from headwater.doctor import Finding

_MARKS = {"ok": "[green]✓[/]", "note": "[blue]·[/]", "warning": "[yellow]![/]", "failure": "[bold red]✗[/]"}


@click.command(cls=Command)
@click.option("--url", metavar="URL", help="Also the service there: `headwater dev`, or the URL of the function admin.")
@click.option("--token", envvar="HEADWATER_TOKEN", help="The API key's token for --url.  [HEADWATER_TOKEN]")
@click.option("--auth", type=click.Choice(["iam", "none"]), help="… or sign with AWS credentials.")
@click.option("--kafka", metavar="HOST:PORT", help="Also the Kafka gateway there, and every address it advertises.")
@click.option("--read-only", is_flag=True, help="Write nothing: conditional writes and rights to write go unchecked.")
@click.option("--round-trip", is_flag=True, help="Send a record through a topic that is made for it and deleted.")
@pass_settings
def doctor(
    settings: Settings,
    url: str | None,
    token: str | None,
    auth: str | None,
    kafka: str | None,
    read_only: bool,
    round_trip: bool,
) -> int:
    r"""Check a store, a namespace and a deployment, and say in plain words what to do. Exit code 1 on a failure.

    The store: reachable, readable, writable, fast, its conditional writes real, its clock near ours. The namespace:
    clocks, snapshots, overdue transactions, groups whose records are gone, chores that nobody does. With --url and
    --kafka what stands before it. Some 40 small requests ($0.0002 on S3); what is written below .probe/ is deleted.

    For every invariant of every stored byte: headwater verify.
    """
    if read_only and round_trip:
        raise click.UsageError("--round-trip writes a record; leave --read-only away, or it.")
    given = {"url": url, "token": token, "auth": auth, "kafka": kafka}
    return run(_doctor(settings, given, writes=not read_only, round_trip=round_trip))


async def _doctor(settings: Settings, given: dict[str, Any], *, writes: bool, round_trip: bool) -> int:
    from headwater.cli import output
    from headwater.doctor import worst

    found: list[Finding] = []
    async with contextlib.aclosing(_findings(settings, given, writes=writes, round_trip=round_trip)) as source:
        async for finding in source:
            if not settings.json:
                _print(finding, heading=not found or found[-1].area != finding.area)
            found.append(finding)
    verdict = worst(found)
    if settings.json:
        rows = [finding.as_dict() for finding in found]
        document = {"store": settings.store, "namespace": settings.namespace, "verdict": verdict, "findings": rows}
        output.print_json(document)
    else:
        click.echo()
        click.echo(_verdict(found))
    return 1 if verdict == "failure" else 0


async def _findings(
    settings: Settings, given: dict[str, Any], *, writes: bool, round_trip: bool
) -> AsyncGenerator[Finding, None]:
    from headwater.clock import SystemClock, system_entropy
    from headwater.doctor.deployment import examine_kafka
    from headwater.doctor.run import visit
    from headwater.log import keys
    from headwater.store import open_store

    keys.check_namespace(settings.namespace)
    clock, rng = SystemClock(), system_entropy()
    store = open_store(settings.store)
    try:
        source = visit(store, settings.namespace, clock=clock, rng=rng, writes=writes, round_trip=round_trip)
        async for finding in source:
            yield finding
    finally:
        await store.aclose()
    if given["url"]:
        async for finding in _service(settings, given, round_trip=round_trip):
            yield finding
    if given["kafka"]:
        for finding in await examine_kafka(given["kafka"]):
            yield finding


async def _service(settings: Settings, given: dict[str, Any], *, round_trip: bool) -> AsyncIterator[Finding]:
    from headwater.client import connect
    from headwater.clock import SystemClock, system_entropy
    from headwater.doctor import worst
    from headwater.doctor.deployment import AREA, examine_round_trip, examine_service

    clock, url = SystemClock(), given["url"]
    async with connect(url, namespace=settings.namespace, token=given["token"], auth=given["auth"]) as verbs:
        found = await examine_service(verbs, url, clock=clock, namespace=settings.namespace)
        for finding in found:
            yield finding
        if round_trip and worst(found) != "failure":
            yield await examine_round_trip(verbs, area=AREA, clock=clock, rng=system_entropy())


def _print(finding: Finding, *, heading: bool) -> None:
    from rich.markup import escape
    from rich.padding import Padding

    from headwater.cli.output import console

    out = console()
    if heading:
        out.print(f"[bold]{finding.area}[/]")
    out.print(Padding(f"{_MARKS[finding.level]} {finding.check}: {escape(finding.says)}", (0, 0, 0, 2), expand=False))
    if finding.do:
        out.print(Padding(f"[bold]→[/] {escape(finding.do)}", (0, 0, 0, 6), expand=False))


def _verdict(found: list[Finding]) -> str:
    from headwater.cli import output

    counts = [(word, sum(finding.level == word for finding in found)) for word in ("failure", "warning")]
    said = [output.amount(count, word) for word, count in counts if count]
    return f"{' and '.join(said)}: see the arrows above." if said else "All is well."
