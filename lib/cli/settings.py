"""What every command shares: where the log is, how to answer, and one way to open a namespace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from headwater.api.verbs import Verbs
    from headwater.log.namespace import Namespace
    from headwater.log.options import Options

T = TypeVar("T")
DEFAULT_STORE = "file://./.headwater"
PIPE_CLOSED = 141  # as a shell reports a process that SIGPIPE has ended


@dataclass(slots=True)
class Settings:
    """The general options, which may stand before and after the command."""

    store: str = DEFAULT_STORE
    namespace: str = "default"
    json: bool = False

    @property
    def again(self) -> str:
        """The options that lead to the same log again, to be put behind a command that people are told to try."""
        store = f" --store {shlex.quote(self.store)}" if self.store != DEFAULT_STORE else ""
        return store + (f" --namespace {self.namespace}" if self.namespace != "default" else "")


class Command(click.Command):
    """A command that also takes the general options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += general_options()
        self.help = as_written(self.help)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it. If whoever read the output has gone, as in ``headwater consume … | head``, end quietly."""
        try:
            answer = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # What is still buffered goes nowhere, or the interpreter would complain at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(PIPE_CLOSED) from None
        return answer


def as_written(text: str | None) -> str | None:
    r"""A help text whose paragraphs that begin with a line ``\b`` keep their lines."""
    return text and text.replace("\\b\n", "\b\n")


class Group(click.Group):
    """A group whose commands take the general options."""

    command_class = Command


def general_options(*, environment: bool = False) -> list[click.Parameter]:
    """Fresh options; the root's look at the environment, so that one behind a command overrides them."""
    return [
        click.Option(
            ["--store"],
            metavar="URL",
            envvar="HEADWATER_STORE" if environment else None,
            help=f"file:///dir, s3://bucket/prefix or memory://name.  [HEADWATER_STORE; default: {DEFAULT_STORE}]",
            expose_value=False,
            callback=_note,
        ),
        click.Option(
            ["--namespace"],
            metavar="NAME",
            envvar="HEADWATER_NAMESPACE" if environment else None,
            help="The unit of order and tenancy.  [HEADWATER_NAMESPACE; default: default]",
            expose_value=False,
            callback=_note,
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            help="Answer in JSON: one document, or one line for each thing.",
            expose_value=False,
            callback=_note,
        ),
    ]


def _note(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value and parameter.name:
        setattr(settings_of(context), parameter.name, value)


def settings_of(context: click.Context) -> Settings:
    """The one ``Settings`` of this run."""
    return context.find_root().ensure_object(Settings)


pass_settings = click.make_pass_decorator(Settings, ensure=True)


@contextlib.asynccontextmanager
async def opened(
    settings: Settings, *, writes: bool = False, metered: bool = False, options: Options | None = None
) -> AsyncIterator[Namespace]:
    """The namespace, up to date. Without ``writes`` nothing is ever written, not even to an empty store.

    With ``metered`` the process counts its requests to the store.
    """
    from headwater.log.namespace import Namespace
    from headwater.store import open_store

    store = open_store(settings.store)
    if metered:
        from headwater.meters import PROCESS
        from headwater.store.metered import MeteredStore

        store = MeteredStore(store, PROCESS)
    try:
        if writes:
            namespace = await Namespace.open(store, settings.namespace, options=options)
        else:
            namespace = Namespace(store, settings.namespace, options=options)
            await namespace.refresh()
        async with namespace:
            yield namespace
    finally:
        await store.aclose()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine. Ctrl-C cancels it and comes out as ``KeyboardInterrupt``."""
    return asyncio.run(work)


def with_namespace(
    settings: Settings, work: Callable[[Namespace], Coroutine[Any, Any, T]], *, writes: bool = False
) -> T:
    """Open the namespace, do ``work`` with it, close it."""

    async def whole() -> T:
        async with opened(settings, writes=writes) as namespace:
            return await work(namespace)

    return run(whole())


def answer(settings: Settings, document: dict[str, Any], sentence: str) -> None:
    """Say what was done: a document for programs, a sentence for people."""
    from headwater.cli import output

    if settings.json:
        output.print_json(document)
    else:
        click.echo(sentence)


def with_verbs(
    settings: Settings, work: Callable[[Verbs, Namespace], Coroutine[Any, Any, T]], *, writes: bool = False
) -> T:
    """As ``with_namespace``, and with the verbs: whoever holds the bucket's credentials acts as its owner."""
    from headwater.api.service import Service

    async def whole() -> T:
        async with opened(settings, writes=writes) as namespace:
            return await work(Service(namespace), namespace)

    return run(whole())
