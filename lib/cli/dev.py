"""``headwater dev``: every function's routes on one port of this machine, over any store."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headwater.cli.serving import address, friendly, is_loopback, log_option, traced, until_stopped
from headwater.cli.settings import Command, Settings, pass_settings

if TYPE_CHECKING:
    from headwater.api.app import App

PORT = 8087
WATCH_S = 0.5  # how often --reload looks for changed files
_TOPIC = '{"name": "greetings", "partitions": 1}'
_RECORD = '{"records": [{"key": "en", "value": {"text": "hello"}}]}'
_MOVED = (  # consume, process, produce: the record and the offset become true together
    '{"transactional_id": "copier", "records": [{"topic": "greetings", "value": "hello again"}], '
    '"offsets": [{"group": "copiers", "offsets": [{"topic": "greetings", "partition": 0, "offset": 1}]}]}'
)


@click.command(cls=Command)
@address(PORT)
@click.option(
    "--auth",
    type=click.Choice(["none", "token"]),
    default="none",
    show_default=True,
    help="token: bearer tokens of `headwater auth create-key`. none: everybody may do everything.",
)
@click.option("--namespaces", metavar="LIST", help="Which ones to serve, as in a,b,tenant-*. Default: --namespace.")
@log_option("error")
@click.option("--reload", is_flag=True, help="Start again when a file of headwater changes.")
@pass_settings
def dev(
    settings: Settings, host: str, port: int, auth: str, namespaces: str | None, log_level: str, reload: bool
) -> int:
    """Serve the HTTP interface of all functions on one port, with maintenance, until Ctrl-C.

    What is asked for goes the way of a deployed function's requests. Ctrl-C finishes the requests and writes that
    are in flight. With --json the first line says where the server listens. Below /console are pages for people, and
    below /registry is a Confluent schema registry, as in schema.registry.url=http://127.0.0.1:8087/registry.
    """
    if reload:
        return _reloading()
    served = tuple(name.strip() for name in (namespaces or settings.namespace).split(",") if name.strip())
    with friendly(host, port), traced("dev"):
        return asyncio.run(_serve(settings, host, port, auth, served, log_level))


async def _serve(settings: Settings, host: str, port: int, auth: str, served: Sequence[str], log_level: str) -> int:
    from headwater.api.runtime import Settings as Environment
    from headwater.api.runtime import app_for
    from headwater.api.server import serve

    environment = Environment(store=settings.store, namespace=settings.namespace, namespaces=tuple(served), auth=auth)
    app = app_for("dev", environment, level=log_level, kind=_with_console())
    said = partial(_announce, settings, host=host, auth=auth)
    await until_stopped(serve(app, host, port, ready=said))
    return 0


def _with_console() -> type[App]:
    """With pages for people where what draws them is installed."""
    from headwater.api.app import App

    try:
        import jinja2  # noqa: F401 - a look whether it is there
    except ImportError:
        return App
    from headwater.console.app import ConsoleApp

    return ConsoleApp


# -- what is said at the start ----------------------------------------------------------------------------


def _announce(settings: Settings, url: str, *, host: str, auth: str) -> None:
    examples = examples_of(url, settings, auth)
    if settings.json:
        from headwater.cli import output

        output.print_json(
            {"url": url, "store": settings.store, "namespace": settings.namespace, "auth": auth, "examples": examples}
        )
    else:
        lines = "\n".join(f"  {line}" for line in examples)
        click.echo(
            f"Serving {settings.store} at {url} (auth: {auth}), for people at {url}/console. Ctrl-C ends it.\n\n"
            f"Try, in another shell:\n\n{lines}\n"
        )
    if auth == "none" and not is_loopback(host):
        click.echo(f"headwater: everybody who reaches {host} may do everything; see --auth token.", err=True)
    sys.stdout.flush()


def examples_of(url: str, settings: Settings, auth: str) -> list[str]:
    """Commands that work when they are run one after the other, on a namespace without the topic ``greetings``."""
    who = '-H "Authorization: Bearer $TOKEN" ' if auth == "token" else ""
    topic, record, moved = (shlex.quote(body) for body in (_TOPIC, _RECORD, _MOVED))
    json_type = "-H 'Content-Type: application/json'"
    records_type = "-H 'Content-Type: application/vnd.kafka.json.v2+json'"
    lines = [
        f"curl -sS {who}{json_type} -d {topic} {url}/admin/topics",
        f"curl -sS {who}{records_type} -d {record} {url}/topics/greetings",
        f"curl -sS {who}{json_type} -d {moved} {url}/transactions",
        f"curl -sS {who}'{url}/topics/greetings/partitions/0/records?from=earliest'",
        f"curl -sS {who}{url}/groups/copiers/lag",
        f"curl -sS {url}/openapi.json",
    ]
    if auth == "token":
        lines.insert(0, f"TOKEN=$(headwater auth create-key --principal me{settings.again})")
    return lines


# -- reload ---------------------------------------------------------------------------------------------------


def _reloading() -> int:
    """Run the same command in a child, and a fresh child whenever a file of the package has changed."""
    words = [sys.executable, "-m", "headwater.cli.main", *(word for word in sys.argv[1:] if word != "--reload")]
    seen = _stamps()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    child = _start(words)
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(WATCH_S)
            if (now := _stamps()) != seen:
                seen = now
                click.echo("headwater: a file has changed; starting again.", err=True)
                _stop(child)
                child = _start(words)
    finally:
        _stop(child)


def _start(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """In a group of its own: the terminal's Ctrl-C comes here, and the child hears of it once."""
    return subprocess.Popen(words, process_group=0)


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    child.wait()


def _stamps() -> dict[Path, int]:
    """When each file of the package was changed, in ns."""
    import headwater

    found = {}
    for folder in headwater.__path__:
        for path in Path(folder).rglob("*.py"):
            with contextlib.suppress(OSError):
                found[path] = path.stat().st_mtime_ns
    return found
