"""``headwater inspect``: what lies in the bucket, and what any one object holds, damaged ones too."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.settings import Command, Settings, pass_settings, run

if TYPE_CHECKING:
    from headwater.store.base import ObjectStore

_SHORT = re.compile(r"(manifest|snapshot|boundary)/(\d{1,19})\Z")


@click.command(cls=Command)
@click.argument("key", required=False)
@click.option("--payload", is_flag=True, help="Also decode the chunks and show their first records.")
@click.option("--limit", "-n", type=click.IntRange(min=0), default=5, show_default=True, help="Records of each chunk.")
@pass_settings
def inspect(settings: Settings, key: str | None, payload: bool, limit: int) -> int:
    """Show what the object KEY holds; without KEY, how many objects of each kind there are.

    KEY is one inside the namespace, as manifest/00000000000000000012 or, for numbered ones, manifest/12. Of a
    damaged object everything is shown that can still be read; the exit code is 1 then.
    """
    from headwater.cli import output

    if key is None:
        kinds = run(_list(settings))
        if settings.json:
            output.print_json(kinds)
        elif not kinds:
            click.echo(f"There is nothing in namespace {settings.namespace} of {settings.store}.")
        else:
            rows = [[k["kind"], k["objects"], output.size(k["bytes"]), k["first"], k["last"]] for k in kinds]
            output.print_table(["kind", "objects", "bytes", "first", "last"], rows, left=("first", "last"))
        return 0
    document = run(_load(settings, _full(key, settings.namespace), limit if payload else None))
    if settings.json:
        output.print_json(document)
    else:
        from headwater.cli import views

        views.show(document)
    return 1 if document["problems"] else 0


def _full(key: str, namespace: str) -> str:
    key = key.removeprefix(f"{namespace}/")
    match = _SHORT.match(key)
    return f"{match[1]}/{int(match[2]):020d}" if match else key


async def _list(settings: Settings) -> list[dict[str, Any]]:
    store = _open(settings)
    found: dict[str, dict[str, Any]] = {}
    try:
        async for stat in store.list(""):
            name, _, rest = stat.key.partition("/")
            kind = found.setdefault(name, {"kind": name, "objects": 0, "bytes": 0, "first": rest, "last": rest})
            kind["objects"] += 1
            kind["bytes"] += stat.size
            kind["last"] = rest
    finally:
        await store.aclose()
    return list(found.values())


async def _load(settings: Settings, key: str, payload: int | None) -> dict[str, Any]:
    from headwater.cli import objects

    store = _open(settings)
    try:
        return await objects.describe(store, key, payload)
    finally:
        await store.aclose()


def _open(settings: Settings) -> ObjectStore:
    from headwater.log import keys
    from headwater.store import open_store
    from headwater.store.prefixed import PrefixedStore

    keys.check_namespace(settings.namespace)
    return PrefixedStore(open_store(settings.store), f"{settings.namespace}/")
