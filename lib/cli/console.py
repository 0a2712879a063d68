"""``headwater console``: pages for people, and nothing else, over any store."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.serving import address, friendly, log_option, metrics_at, metrics_option, traced, until_stopped
from headwater.cli.settings import Command, Settings, pass_settings

if TYPE_CHECKING:
    from headwater.api.app import App

PORT = 8088


@click.command(cls=Command)
@address(PORT)
@click.option(
    "--auth",
    type=click.Choice(["none", "token"]),
    default="none",
    show_default=True,
    help="token: people sign in with tokens of `headwater auth create-key`. none: everybody may do everything.",
)
@log_option("error")
@metrics_option
@pass_settings
def console(
    settings: Settings, host: str, port: int, auth: str, log_level: str, metrics: tuple[str, int] | None
) -> int:
    """Serve the web console over the store, until Ctrl-C: topics, messages, groups, transactions, commits, storage.

    It needs nobody else: any number of consoles may look at one bucket. `headwater dev` has it too, at /console.
    """
    with friendly(host, port), traced("console"):
        return asyncio.run(_serve(settings, host, port, auth, log_level, metrics))


async def _serve(
    settings: Settings, host: str, port: int, auth: str, log_level: str, metrics: tuple[str, int] | None
) -> int:
    from headwater.api.runtime import Settings as Environment
    from headwater.api.runtime import app_for
    from headwater.api.server import serve

    environment = Environment(store=settings.store, namespace=settings.namespace, auth=auth)
    app = app_for("dev", environment, level=log_level, kind=_pages_only)
    async with metrics_at(metrics, app.open_namespaces) as url:
        await until_stopped(serve(app, host, port, ready=partial(_announce, settings, url), maintain_s=0.0))
    return 0


def _pages_only(routes: object, **options: Any) -> App:
    from headwater.console.app import ConsoleApp
    from headwater.console.render import check_installed

    check_installed()
    return ConsoleApp((), **options)


def _announce(settings: Settings, metrics: str | None, url: str) -> None:
    if settings.json:
        from headwater.cli import output

        said = {"url": f"{url}/console", "store": settings.store, "namespace": settings.namespace, "metrics": metrics}
        output.print_json(said)
    else:
        if metrics is not None:
            click.echo(f"Metrics for Prometheus: {metrics}")
        click.echo(f"The console of {settings.store} is at {url}/console. Ctrl-C ends it.")
    sys.stdout.flush()
