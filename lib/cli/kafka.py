"""``headwater kafka``: a gateway for Kafka clients."""

from __future__ import annotations

import contextlib
import ssl
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.serving import log_option, metrics_at, metrics_option, traced, until_stopped
from headwater.cli.settings import Command, Settings, pass_settings
from headwater.errors import InvalidRequest
from headwater.limits import KAFKA_HEDGE_MS_MAX, KAFKA_LINGER_MS, KAFKA_LINGER_MS_MAX, KAFKA_REBALANCE_DELAY_MS

if TYPE_CHECKING:
    from headwater.kafka.gateway import Gateway, Listener


@click.command(cls=Command)
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDRESS",
    default=("127.0.0.1:9092",),
    show_default=True,
    help="Where to listen: host:port, or name=host:port?namespace=…&auth=none|sasl|tls&tls=1&advertise=host:port"
    "&zone=…&transactions=reserved|deferred. May be repeated.",
)
@click.option(
    "--advertise",
    multiple=True,
    metavar="ADDRESS",
    help="What clients are told to connect to, as host:port or name=host:port. Default: where it listens.",
)
@click.option(
    "--node-id",
    type=click.IntRange(0, 2**31 - 1),
    help="Kafka's broker.id. Default: a number made of the advertised address.",
)
@click.option(
    "--zone",
    "--rack",
    "zone",
    default="",
    metavar="ZONE",
    help="The zone that this gateway runs in (broker.rack). Clients that name theirs are sent to gateways in it: by "
    "client.rack, or by zone=… in the client.id.",
)
@click.option(
    "--route",
    multiple=True,
    metavar="ROUTE",
    help="Lead clients to another namespace: user:NAME=NAMESPACE or, where auth is none, client:NAME=NAMESPACE by "
    "client.id; NAME may end in *. May be repeated.",
)
@click.option(
    "--linger-ms",
    type=click.FloatRange(0, KAFKA_LINGER_MS_MAX),
    default=KAFKA_LINGER_MS,
    show_default=True,
    help="How long a commit waits at most for batches of other clients: fewer requests to the store, later acks.",
)
@click.option(
    "--hedge-ms",
    type=click.FloatRange(0, KAFKA_HEDGE_MS_MAX),
    default=0,
    show_default=True,
    help="A commit that the store has not answered by then is sent a second time: quicker acks, more requests. 0: off.",
)
@click.option("--auto-create", is_flag=True, help="Make topics that clients ask for (auto.create.topics.enable).")
@click.option("--partitions", type=click.IntRange(1, 10_000), default=1, show_default=True, help="… with so many.")
@click.option(
    "--rebalance-delay-ms",
    type=click.IntRange(0, 60_000),
    default=KAFKA_REBALANCE_DELAY_MS,
    show_default=True,
    help="How long an empty group waits for more members (group.initial.rebalance.delay.ms).",
)
@click.option("--scram-file", type=click.Path(exists=True, dir_okay=False), help="SCRAM credentials as JSON.")
@click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False), help="PEM: certificate chain and key.")
@click.option("--tls-ca", type=click.Path(exists=True, dir_okay=False), help="PEM: who signs clients' certificates.")
@log_option("info")
@metrics_option
@pass_settings
def kafka(settings: Settings, /, metrics: tuple[str, int] | None, **given: Any) -> int:
    """Serve Kafka clients, unchanged, until Ctrl-C.

    The gateway keeps nothing: run as many as you like over one store, and stop any of them at any time. Ctrl-C
    answers what is in flight. Needs the extra kafka: pip install 'headwater[kafka]'.
    """
    with _friendly(), traced("kafka"):
        gateway = _gateway(settings, given)
        from headwater.kafka.loop import run

        return run(_serve(settings, gateway, metrics))


def _gateway(settings: Settings, given: dict[str, Any]) -> Gateway:
    from headwater.clock import SystemClock
    from headwater.kafka.gateway import Gateway
    from headwater.kafka.gateway import Settings as Behaviour
    from headwater.kafka.routes import parse_route
    from headwater.kafka.sasl import read_users
    from headwater.meters import PROCESS
    from headwater.store import open_store
    from headwater.store.metered import MeteredStore

    tls = _tls(given["tls_cert"], given["tls_ca"])
    scram = read_users(given["scram_file"]) if given["scram_file"] else {}
    clock = SystemClock()
    return Gateway(
        MeteredStore(open_store(settings.store, clock=clock), PROCESS),
        listeners(given["listen"], given["advertise"], settings.namespace, tls),
        Behaviour(
            node_id=given["node_id"],
            zone=given["zone"],
            routes=tuple(map(parse_route, given["route"])),
            linger_ms=given["linger_ms"],
            hedge_ms=given["hedge_ms"],
            auto_create=given["auto_create"],
            partitions_default=given["partitions"],
            rebalance_delay_ms=given["rebalance_delay_ms"],
            scram=scram,
        ),
        clock=clock,
        level=given["log_level"],
    )


def listeners(
    listen: tuple[str, ...], advertise: tuple[str, ...], namespace: str, tls: ssl.SSLContext | None
) -> list[Listener]:
    """The listeners that the options name. Raises ``InvalidRequest``."""
    from headwater.kafka.settings import Listener
    from headwater.log.keys import check_namespace

    told = dict(_named(text, number) for number, text in enumerate(advertise))
    found = []
    for number, text in enumerate(listen):
        place, _, query = text.partition("?")
        name, address = _named(place, number)
        options = _options(text, query)
        secure = options.get("tls") == "1" or options["auth"] == "tls"
        if secure and tls is None:
            raise InvalidRequest(f"--listen {text}: TLS needs --tls-cert.")
        found.append(
            Listener(
                name=name,
                host=address.host,
                port=address.port,
                advertised=_named(options["advertise"], 0)[1] if "advertise" in options else told.get(name),
                namespace=check_namespace(options.get("namespace", namespace)),
                auth=options["auth"],  # type: ignore[arg-type]
                tls=tls if secure else None,
                zone=options.get("zone", ""),
                transactions=options["transactions"],  # type: ignore[arg-type]
            )
        )
    _check_names(found, told)
    return found


_CHOICES = {"auth": ("none", "sasl", "tls"), "transactions": ("reserved", "deferred"), "tls": ("0", "1")}
_FREE = ("namespace", "advertise", "zone")


def _options(text: str, query: str) -> dict[str, str]:
    """What follows the question mark, with the defaults of what can only be one of a few."""
    options = dict(part.partition("=")[::2] for part in query.split("&") if part)
    if unknown := options.keys() - {*_CHOICES, *_FREE}:
        there_are = ", ".join(sorted({*_CHOICES, *_FREE}))
        raise InvalidRequest(f"--listen {text}: there is no {min(unknown)!r}; there are {there_are}.")
    for name, choices in _CHOICES.items():
        if options.setdefault(name, choices[0]) not in choices:
            listed = f"{', '.join(choices[:-1])} or {choices[-1]}"
            raise InvalidRequest(f"--listen {text}: {name} is {listed}, not {options[name]!r}.")
    return options


def _check_names(found: list[Listener], told: dict[str, Any]) -> None:
    """A name is one listener's: by it gateways find each other's addresses."""
    names = [each.name for each in found]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise InvalidRequest(f"Two listeners are called {twice!r}; give each --listen a name of its own.")
    if strange := told.keys() - set(names):
        raise InvalidRequest(f"--advertise names {min(strange)!r}, and no --listen does; there are {', '.join(names)}.")


def _named(text: str, number: int) -> tuple[str, Any]:
    """A name and an address; without a name the listeners are numbered."""
    from headwater.kafka.model import Address

    name, mark, place = text.rpartition("=")
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise InvalidRequest(f"{text!r} is no address: write host:port, as in 0.0.0.0:9092.")
    return name if mark else f"listener-{number}", Address(host=host.strip("[]") or "0.0.0.0", port=int(port))


def _tls(certificate: str | None, authority: str | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate)
        if authority is not None:
            context.load_verify_locations(authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise InvalidRequest(
            f"The TLS files cannot be used: {error}. They are PEM; --tls-cert has the key too."
        ) from error
    return context


async def _serve(settings: Settings, gateway: Gateway, metrics: tuple[str, int] | None) -> int:
    from headwater.kafka.gateway import serve

    try:
        async with metrics_at(metrics, gateway.open_namespaces) as url:
            await until_stopped(serve(gateway, ready=partial(_announce, settings, url)))
    finally:
        await gateway.store.aclose()
    return 0


@contextlib.contextmanager
def _friendly() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"Cannot listen: {error.strerror or error}.") from error
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"The gateway needs {error.name}, which is not installed: pip install 'headwater[kafka]'."
        ) from error


def _announce(settings: Settings, metrics: str | None, gateway: Gateway) -> None:
    places = [
        {
            "name": each.listener.name,
            "address": f"{each.address.host}:{each.address.port}",
            "advertised": f"{told.host}:{told.port}",
            "namespace": each.listener.namespace,
            "auth": each.listener.auth,
            "tls": each.listener.tls is not None,
            "zone": each.listener.zone,
            "transactions": each.listener.transactions,
        }
        for each in gateway.listening
        for told in [each.listener.advertised or each.address]
    ]
    for place in places:
        if str(place["advertised"]).startswith(("0.0.0.0:", ":::")):
            click.echo(
                f"Listener {place['name']} tells clients to connect to {place['advertised']}, which is their own "
                "machine. Say where they find this one: --listen '…?advertise=HOST:PORT'.",
                err=True,
            )
    if settings.json:
        from headwater.cli import output

        output.print_json(
            {
                "listeners": places,
                "store": settings.store,
                "node_id": gateway.node_id,
                "zone": gateway.settings.zone,
                "metrics": metrics,
            }
        )
    else:
        for place in places:
            click.echo(
                f"Serving {settings.store}, namespace {place['namespace']}, to Kafka clients at {place['address']} "
                f"(auth: {place['auth']}{', TLS' if place['tls'] else ''}). Ctrl-C ends it."
            )
        if metrics is not None:
            click.echo(f"Metrics for Prometheus: {metrics}")
        first = places[0]["address"]
        again = replace(settings, namespace=gateway.listening[0].listener.namespace).again
        click.echo(
            "\nTry, in another shell:\n\n"
            f"  headwater topic create greetings{again}\n"
            f"  echo hello | kcat -b {first} -t greetings -P\n"
            f"  kcat -b {first} -t greetings -C -e\n"
        )
    sys.stdout.flush()
