"""The entry point: the tree of commands, and the one place where errors become sentences and exit codes.

Exit codes: 0 done; 1 an error of the tree in ``headwater.errors``, or ``verify`` found something; 2 the command
line is wrong; 130 Ctrl-C; 141 whoever read the output has gone.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from headwater.cli.settings import Settings, as_written, general_options
from headwater.errors import HeadwaterError

# Name -> module, attribute, the line in `headwater --help`. Modules are imported when their command is called.
COMMANDS = {
    "topic": ("headwater.cli.topic", "topic", "Create, list, describe, alter, trim and delete topics."),
    "namespace": ("headwater.cli.namespace", "namespace", "Show or set the configs of the namespace."),
    "produce": ("headwater.cli.produce", "produce", "Append records from a file or from standard input."),
    "consume": ("headwater.cli.consume", "consume", "Print records."),
    "offsets": ("headwater.cli.offsets", "offsets", "Show or reset offsets of topics and groups."),
    "group": ("headwater.cli.group", "group", "List, describe, reset and delete consumer groups; their lag."),
    "auth": ("headwater.cli.auth", "auth", "API keys, access rules and quotas."),
    "inspect": ("headwater.cli.inspect", "inspect", "Show what an object of the bucket holds."),
    "verify": ("headwater.cli.verify", "verify", "Check every invariant of a namespace."),
    "top": ("headwater.cli.top", "top", "Watch what flows, who lags and what is stuck."),
    "doctor": ("headwater.cli.doctor", "doctor", "Find out what is wrong, from the bucket to the client."),
    "branch": ("headwater.cli.branch", "branch", "Copy a namespace or a topic as of a commit, sharing every object."),
    "maintain": ("headwater.cli.maintain", "maintain", "Archive, retain, compact and collect, once or for ever."),
    "replay": ("headwater.cli.replay", "replay", "Copy a range of a topic to files or to another topic."),
    "sql": ("headwater.cli.sql", "sql", "Answer SQL over topics, as of now or of an earlier commit."),
    "streams": ("headwater.cli.streams", "streams", "Run jobs of stream processing; pause, reset and restart them."),
    "iceberg": ("headwater.cli.iceberg", "iceberg", "Keep an Apache Iceberg table over a topic's archive."),
    "dev": ("headwater.cli.dev", "dev", "Serve the HTTP interface of all functions on one port."),
    "console": ("headwater.cli.console", "console", "Serve the web console, and nothing else."),
    "kafka": ("headwater.cli.kafka", "kafka", "Serve Kafka clients, unchanged."),
    "demo": ("headwater.cli.demo", "demo", "Send a year of real flights through the log and check them."),
    "sim": ("headwater.cli.lab", "sim", "Run seeded simulations of the engine and judge them."),
    "bench": ("headwater.cli.lab", "bench", "Measure, beside a baseline."),
}


class Root(click.Group):
    """Finds commands in ``COMMANDS`` without importing the others."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = as_written(self.help)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"There is no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(
    cls=Root, params=general_options(environment=True), context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="headwater", message="%(version)s")
def cli() -> None:
    r"""An exactly-once, ordered event log whose only state is a bucket.

    \b
    Begin:  headwater topic create greetings --partitions 3
            echo 'en:hello' | headwater produce greetings --key-separator :
            headwater consume greetings
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and say how it went, as an exit code; never a traceback for what a user can cause."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    settings = Settings()
    try:
        status: Any = cli.main(args=words, prog_name="headwater", standalone_mode=False, obj=settings)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        return _refused(error, as_json=settings.json or "--json" in words)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except HeadwaterError as error:
        return _failed(error, settings)
    return status if isinstance(status, int) else 0


def _refused(error: click.ClickException, *, as_json: bool) -> int:
    if as_json:
        _print_json({"error": type(error).__name__, "message": error.format_message(), "applied": "no"})
    else:
        error.show()
    return error.exit_code


def _failed(error: HeadwaterError, settings: Settings) -> int:
    if settings.json:
        _print_json(error.as_dict())
    else:
        where = f"(store {settings.store}, namespace {settings.namespace})"
        click.echo(f"headwater: {error}\n  {error.what_now}\n  {where}", err=True)
    return 1


def _print_json(document: dict[str, object]) -> None:
    import orjson

    click.echo(orjson.dumps(document), err=True)


if __name__ == "__main__":
    sys.exit(main())
