"""``headwater topic schema``: show the schema of a topic, and give it the next version."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.settings import Command, Settings, answer, pass_settings, with_namespace
from headwater.errors import InvalidRequest

if TYPE_CHECKING:
    from headwater.log.namespace import Namespace
    from headwater.log.state import Schema


@click.command(cls=Command)
@click.argument("topic")
@click.option("--set", "source", type=click.Path(dir_okay=False, allow_dash=True), metavar="FILE",
              help="Make this definition the newest version; - reads standard input.")  # fmt: skip
@click.option("--format", "format_", type=click.Choice(["json", "avro", "arrow"]), default="json", show_default=True,
              help="How values are written: JSON by JSON Schema, Avro, or tables of these columns.")  # fmt: skip
@click.option("--python", "annotation", metavar="MODULE:CLASS", help="A dataclass, TypedDict, NamedTuple or Struct.")
@click.option("--all", "everything", is_flag=True, help="Show every version with its definition.")
@pass_settings
def schema(
    settings: Settings, topic: str, source: str | None, format_: str, annotation: str | None, everything: bool
) -> None:
    """Show the schema of TOPIC, or give it one: values are checked by it from then on.

    A later version adds columns that may be null, and widens types; anything else is refused. The definition of
    "arrow" is a JSON object of column and type, as in {"year": "int32 not null", "tags": "list<item: string>"}.
    """
    if source is not None and annotation is not None:
        raise click.UsageError("Give the schema once: by --set or by --python.")
    if source is None and annotation is None:
        _show(settings, topic, everything)
        return
    definition = _class(annotation) if annotation is not None else _text(str(source))

    async def work(namespace: Namespace) -> Schema:
        from headwater.schemas.change import set_schema

        return await set_schema(namespace, topic, format_, definition)

    found = with_namespace(settings, work, writes=True)
    answer(
        settings,
        {"topic": topic, **described(found)},
        f"Topic {topic} has version {found.version} of its schema: {len(found.columns)} columns, values as "
        f"{found.format}.",
    )


def described(found: Schema) -> dict[str, Any]:
    """A version as plain data."""
    columns = [{"name": each.name, "type": each.type, "nullable": each.nullable} for each in found.columns]
    return {
        "version": found.version,
        "commit": found.seq,
        "format": found.format,
        "columns": columns,
        "definition": found.definition,
    }


def _show(settings: Settings, topic: str, everything: bool) -> None:
    async def work(namespace: Namespace) -> list[Schema]:
        return list(namespace.topic(topic).schemas)

    versions = with_namespace(settings, work)
    from headwater.cli import output

    if settings.json:
        output.print_json({"topic": topic, "schemas": [described(each) for each in versions]})
        return
    if not versions:
        click.echo(f"Topic {topic} has no schema: its values are bytes.")
    for each in versions if everything else versions[-1:]:
        click.echo(f"{topic}: version {each.version} since commit {each.seq}, values as {each.format}")
        rows = [[column.name, column.type, "" if column.nullable else "not null"] for column in each.columns]
        output.print_table(["column", "type", ""], rows)
        if everything:
            click.echo(each.definition)


def _text(source: str) -> str:
    try:
        return sys.stdin.read() if source == "-" else Path(source).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The definition cannot be read from {source}: {error}.") from None


def _class(name: str) -> type:
    """The class that ``module:Class`` names, with modules of the working directory among them."""
    from importlib import import_module

    module, mark, attribute = name.partition(":")
    if not mark or not module or not attribute:
        raise click.UsageError("--python takes MODULE:CLASS, as in events:Flight.")
    sys.path.insert(0, "")
    try:
        found: Any = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidRequest(f"{name} cannot be imported: {error}.") from None
    finally:
        sys.path.remove("")
    if not isinstance(found, type):
        raise InvalidRequest(f"{name} is no class.")
    return found
