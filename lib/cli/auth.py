"""``headwater auth``: API keys, access rules and quotas of a namespace."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headwater.cli.settings import Group, Settings, answer, pass_settings, with_verbs

if TYPE_CHECKING:
    from headwater.api.verbs import AclRule, KeyInfo, Verbs
    from headwater.log.namespace import Namespace

OPERATIONS = ("all", "read", "write", "create", "delete", "alter", "describe", "cluster_action")
RESOURCES = ("topic", "group", "cluster", "transactional_id")
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
F = TypeVar("F", bound=Callable[..., Any])


@click.group(cls=Group)
def auth() -> None:
    """API keys, access rules and quotas.

    Whoever can reach the bucket itself is its owner and may do all of this. Rules bind those who come through
    functions or `headwater dev`. As soon as there is one rule, what no rule allows is denied.
    """


class Duration(click.ParamType[int]):
    """``30d``, ``12h``, ``90m``, ``45s``: milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no duration; write 45s, 90m, 12h or 30d.", param, ctx)
        return int(found[1]) * _UNITS_MS[found[2]]


class Rate(click.ParamType[int]):
    """``10MiB``, ``512k``, ``1000``, or ``none`` for no bound (-1)."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip().lower()
        if text in ("none", "-1"):
            return -1
        found = re.fullmatch(r"([0-9]{1,12})([kmg]?)(?:i?b)?", text)
        if found is None:
            self.fail(f"{value!r} is no rate; write a number, 512KiB, 10MiB, or none.", param, ctx)
        return int(found[1]) * _SIZES[found[2]]


class Scope(click.ParamType["AclRule"]):
    """``read:topic:flights``, ``write:topic:raw-*``, ``all:cluster``."""

    name = "operation:resource:name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> AclRule:
        if not isinstance(value, str):
            rule: AclRule = value
            return rule
        operation, _, rest = value.partition(":")
        resource, _, name = rest.partition(":")
        if operation not in OPERATIONS or resource not in RESOURCES or (not name and resource != "cluster"):
            self.fail(
                f"{value!r} is no scope; write operation:resource:name, as in read:topic:flights, write:topic:raw-* or "
                f"all:cluster. Operations: {', '.join(OPERATIONS)}; resources: {', '.join(RESOURCES)}.",
                param,
                ctx,
            )
        prefix = name != "*" and name.endswith("*")
        return _rule("*", operation, resource, (name[:-1] if prefix else name) or "*", prefix=prefix)


# -- keys ----------------------------------------------------------------------------------------------


@auth.command(name="create-key")
@click.option("--principal", required=True, metavar="NAME", help="Who the key's bearer is.")
@click.option("--scope", "scopes", type=Scope(), multiple=True, help="What the key is for; may be repeated.")
@click.option("--expires", type=Duration(), help="After so long it is worth nothing, as in 30d. By default never.")
@pass_settings
def create_key(settings: Settings, principal: str, scopes: Sequence[AclRule], expires: int | None) -> None:
    """Create an API key. Its token is shown this once: only a hash of it is stored.

    With scopes the key may do what both they and the rules for its principal allow.
    """

    async def work(verbs: Verbs, namespace: Namespace) -> dict[str, Any]:
        from headwater.clock import SystemClock

        expires_ms = SystemClock().wall_ms() + expires if expires else 0
        info, token = await verbs.create_key(principal, scopes=list(scopes), expires_ms=expires_ms)
        return {**_key_row(info), "token": token}

    created = with_verbs(settings, work, writes=True)
    from headwater.cli import output

    if settings.json:
        output.print_json(created)
        return
    click.echo(created["token"])
    click.echo(f"Key {created['key']} of {principal}. Keep the token above: it is not shown again.", err=True)


@auth.command(name="list-keys")
@pass_settings
def list_keys(settings: Settings) -> None:
    """List the API keys, without their secrets."""

    async def work(verbs: Verbs, namespace: Namespace) -> list[dict[str, Any]]:
        return [_key_row(info) for info in await verbs.keys()]

    rows = with_verbs(settings, work)
    from headwater.cli import output

    if settings.json:
        output.print_json(rows)
    elif not rows:
        click.echo(f"No API keys in namespace {settings.namespace}.")
    else:
        table = [
            [
                r["key"],
                r["principal"],
                output.moment(r["created_ms"]),
                output.moment(r["expires_ms"]) if r["expires_ms"] else "never",
                ", ".join(r["scopes"]) or "–",
            ]
            for r in rows
        ]
        output.print_table(["key", "principal", "created", "expires", "scopes"], table, left=("principal", "scopes"))


@auth.command()
@click.argument("key")
@pass_settings
def revoke(settings: Settings, key: str) -> None:
    """Revoke the API key KEY. Every process knows it with the next commit that it reads."""

    async def work(verbs: Verbs, namespace: Namespace) -> None:
        await verbs.revoke_key(key)

    with_verbs(settings, work, writes=True)
    answer(settings, {"revoked": key}, f"Revoked key {key}.")


# -- access rules ----------------------------------------------------------------------------------------


@auth.group(cls=Group)
def acl() -> None:
    """Access rules, as Kafka's ACLs."""


def _rule_options(command: F) -> F:
    for option in (
        click.option("--deny", is_flag=True, help="The rule denies; it wins over all that allow."),
        click.option("--prefix", is_flag=True, help="The name is the beginning of names."),
        click.option("--transactional-id", "transactional_id", metavar="NAME"),
        click.option("--cluster", is_flag=True, help="The namespace itself: administration."),
        click.option("--group", "group", metavar="NAME", help="A consumer group; * for all."),
        click.option("--topic", metavar="NAME", help="A topic; * for all."),
        click.option("--operation", "operations", type=click.Choice(OPERATIONS), multiple=True, required=True),
        click.option("--principal", required=True, metavar="NAME", help="* for everybody."),
    ):
        command = option(command)
    return command


@acl.command(name="add")
@_rule_options
@pass_settings
def acl_add(settings: Settings, /, **words: Any) -> None:
    """Add rules. The first one makes everything else denied."""
    _change_acls(settings, _rules(**words), remove=False)


@acl.command(name="remove")
@_rule_options
@pass_settings
def acl_remove(settings: Settings, /, **words: Any) -> None:
    """Remove rules, named as they were added. A rule that is not there is an error."""
    _change_acls(settings, _rules(**words), remove=True)


@acl.command(name="list")
@click.option("--principal", metavar="NAME", help="Only the rules that name this one.")
@pass_settings
def acl_list(settings: Settings, principal: str | None) -> None:
    """List the rules."""

    async def work(verbs: Verbs, namespace: Namespace) -> list[dict[str, Any]]:
        return [_acl_row(rule) for rule in await verbs.acls() if principal in (None, rule.principal)]

    rows = with_verbs(settings, work)
    from headwater.cli import output

    if settings.json:
        output.print_json(rows)
    elif not rows:
        click.echo(f"No access rules in namespace {settings.namespace}.")
    else:
        columns = list(rows[0])
        output.print_table(columns, [list(row.values()) for row in rows], left=columns)


def _rules(
    principal: str,
    operations: Sequence[str],
    topic: str | None,
    group: str | None,
    cluster: bool,
    transactional_id: str | None,
    prefix: bool,
    deny: bool,
) -> list[AclRule]:
    named = {"topic": topic, "group": group, "cluster": "*" if cluster else None, "transactional_id": transactional_id}
    chosen = [(resource, name) for resource, name in named.items() if name]
    if not chosen:
        raise click.UsageError("Say what the rule is about: --topic, --group, --cluster or --transactional-id.")
    if prefix and cluster:
        raise click.UsageError("--prefix does not go with --cluster.")
    if prefix and any(name == "*" for _, name in chosen):
        raise click.UsageError("--prefix does not go with *, which stands for everything by itself.")
    return [
        _rule(principal, operation, resource, name, prefix=prefix, allow=not deny)
        for resource, name in chosen
        for operation in operations
    ]


def _rule(
    principal: str, operation: str, resource: str, name: str, *, prefix: bool = False, allow: bool = True
) -> AclRule:
    import msgspec

    from headwater.log.operations import AclRule

    pattern = "prefix" if prefix else "literal"
    return msgspec.convert([principal, operation, resource, name, pattern, allow], AclRule)


def _change_acls(settings: Settings, rules: list[AclRule], *, remove: bool) -> None:
    async def work(verbs: Verbs, namespace: Namespace) -> None:
        if remove:
            from msgspec.structs import replace

            from headwater.api.access import CLUSTER
            from headwater.errors import NotFound

            known = set(await verbs.acls())
            for number, rule in enumerate(rules):
                # A rule for the cluster that a Kafka client has made names it as Kafka does.
                named = [rule, *([replace(rule, name=CLUSTER)] if rule.resource == "cluster" else [])]
                found = next((each for each in named if each in known), None)
                if found is None:
                    raise NotFound(f"There is no such rule: {_told(rule)}.")
                rules[number] = found
            await verbs.change_acls(remove=rules)
        else:
            await verbs.change_acls(add=rules)

    with_verbs(settings, work, writes=True)
    word = "removed" if remove else "added"
    sentence = "\n".join(f"{word.capitalize()}: {_told(rule)}." for rule in rules)
    answer(settings, {word: [_acl_row(rule) for rule in rules]}, sentence)


# -- quotas ------------------------------------------------------------------------------------------------


@auth.group(cls=Group)
def quota() -> None:
    """Bounds a second for principals, in each serving process."""


@quota.command(name="set")
@click.option("--principal", required=True, metavar="NAME", help="* for everybody without a quota of their own.")
@click.option("--produce", type=Rate(), help="Bytes a second, as in 10MiB; none lifts the bound.")
@click.option("--fetch", type=Rate(), help="Bytes a second.")
@click.option("--requests", type=Rate(), help="Requests a second.")
@pass_settings
def quota_set(settings: Settings, principal: str, produce: int | None, fetch: int | None, requests: int | None) -> None:
    """Set a principal's quota. What is not named stays as it is; with every bound lifted the quota is gone."""
    if produce is None and fetch is None and requests is None:
        raise click.UsageError("Say what to set: --produce, --fetch or --requests.")

    async def work(verbs: Verbs, namespace: Namespace) -> dict[str, Any]:
        from headwater.log.state.model import Quota

        old = (await namespace.refresh()).quotas.get(principal, Quota())
        await verbs.set_quota(
            principal,
            produce_bytes_per_s=old.produce_bytes_per_s if produce is None else produce,
            fetch_bytes_per_s=old.fetch_bytes_per_s if fetch is None else fetch,
            requests_per_s=old.requests_per_s if requests is None else requests,
        )
        return _quota_row(principal, (await namespace.refresh()).quotas.get(principal, Quota()))

    row = with_verbs(settings, work, writes=True)
    told = ", ".join(f"{name} {_bound(value)}" for name, value in row.items() if name != "principal")
    answer(settings, row, f"{principal}: {told}.")


@quota.command(name="list")
@pass_settings
def quota_list(settings: Settings) -> None:
    """List the quotas."""

    async def work(verbs: Verbs, namespace: Namespace) -> list[dict[str, Any]]:
        return [_quota_row(name, found) for name, found in sorted(namespace.state.quotas.items())]

    rows = with_verbs(settings, work)
    from headwater.cli import output

    if settings.json:
        output.print_json(rows)
    elif not rows:
        click.echo(f"No quotas in namespace {settings.namespace}.")
    else:
        table = [[r["principal"], *(_bound(value) for value in list(r.values())[1:])] for r in rows]
        output.print_table(["principal", "produce bytes/s", "fetch bytes/s", "requests/s"], table)


# -- SCRAM users of the Kafka gateway ------------------------------------------------------------------------


@auth.command(name="scram-user")
@click.argument("user")
@click.option(
    "--file",
    "path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file that `headwater kafka --scram-file` reads. It is made if there is none.",
)
@click.option("--iterations", type=int, default=4_096, show_default=True, help="Hashes of the password, to 16384.")
@click.option("--remove", is_flag=True, help="Take the user out of the file.")
def scram_user(user: str, path: Path, iterations: int, remove: bool) -> None:
    """Give a user a password for SCRAM, in a file for the Kafka gateway.

    The password comes from a prompt, or from a line of standard input. The file has keys that prove it, and not the
    password itself; gateways read it when they start. For everything else API keys are simpler.
    """
    from headwater.api.names import check_principal
    from headwater.clock import system_entropy
    from headwater.kafka import sasl

    check_principal(user)
    entries = sasl.read_entries(str(path)) if path.exists() else {}
    if remove:
        if entries.pop(user, None) is None:
            raise click.ClickException(f"The file has no user {user!r}.")
    else:
        password = _password()
        random = system_entropy().getrandbits
        entries[user] = {
            mechanism: sasl.scram_entry(mechanism, password, salt=sasl.fresh_salt(random), iterations=iterations)
            for mechanism in sasl.SCRAM
        }
    _replace(path, json.dumps(entries, indent=2) + "\n")
    click.echo(f"{user} is {'out of' if remove else 'in'} {path}. Start the gateways anew to make it so.", err=True)


def _password() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")


def _replace(path: Path, text: str) -> None:
    """Write a file that only its owner reads, wholly or not at all."""
    made = path.with_name(f".{path.name}.new")
    with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    made.replace(path)


# -- how they look -------------------------------------------------------------------------------------------


def _key_row(info: KeyInfo) -> dict[str, Any]:
    return {
        "key": info.key,
        "principal": info.principal,
        "created_ms": info.created_ms,
        "expires_ms": info.expires_ms,
        "scopes": [_scope(rule) for rule in info.scopes],
    }


def _scope(rule: AclRule) -> str:
    star = "*" if rule.pattern == "prefix" else ""
    return f"{rule.operation}:{rule.resource}:{rule.name}{star}"


def _acl_row(rule: AclRule) -> dict[str, Any]:
    return {
        "principal": rule.principal,
        "permission": "allow" if rule.allow else "deny",
        "operation": rule.operation,
        "resource": rule.resource,
        "name": rule.name,
        "pattern": rule.pattern,
    }


def _told(rule: AclRule) -> str:
    verb = "allow" if rule.allow else "deny"
    return f"{verb} {rule.principal} to {rule.operation} {rule.resource} {rule.name} ({rule.pattern})"


def _quota_row(principal: str, found: Any) -> dict[str, Any]:
    return {
        "principal": principal,
        "produce_bytes_per_s": found.produce_bytes_per_s,
        "fetch_bytes_per_s": found.fetch_bytes_per_s,
        "requests_per_s": found.requests_per_s,
    }


def _bound(value: int) -> str:
    return "unbounded" if value < 0 else f"{value:,}"
