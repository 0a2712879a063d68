"""``headwater kafka``, started as people start it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from headwater.cli.kafka import listeners
from headwater.errors import InvalidRequest
from tests.cli.conftest import Headwater

HEADWATER = [sys.executable, "-m", "headwater.cli.main"]


@contextlib.contextmanager
def running(store: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    command = [*HEADWATER, "kafka", "--json", "--listen", "127.0.0.1:0", "--store", f"file://{store}", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield process, json.loads(line)
        finally:
            process.terminate()


def test_a_client_writes_and_reads_and_sigterm_ends_it(store: Path, hw: Headwater) -> None:
    with running(store, "--auto-create", "--partitions", "2") as (process, said):
        (listener,) = said["listeners"]
        producer = Producer({"bootstrap.servers": listener["address"]})
        producer.produce("greetings", b"hello", partition=1)
        assert 0 == producer.flush(30)
        consumer = Consumer({"bootstrap.servers": listener["address"], "group.id": "g"})
        consumer.assign([TopicPartition("greetings", 1, 0)])
        message = consumer.poll(30)
        consumer.close()
        assert message is not None
        assert b"hello" == message.value()
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert (0, b"") == (process.returncode, err)
    assert 2 == len(hw("topic", "describe", "greetings", "--json").json["partitions"])


def test_gateways_at_different_addresses_have_different_numbers(store: Path) -> None:
    with running(store) as (_, one), running(store) as (_, two):
        assert one["node_id"] != two["node_id"]


def test_who_listens_everywhere_is_told_to_say_where_that_is(store: Path) -> None:
    more = ("--listen", "a=0.0.0.0:0", "--listen", "b=0.0.0.0:0?advertise=kafka.example:9092", "--zone", "z")
    with running(store, *more) as (process, said):
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert [b"Listener a"] == re.findall(rb"Listener \S+", err)
    assert b"advertise=HOST:PORT" in err
    assert ["127.0.0.1", "0.0.0.0", "kafka.example"] == [
        each["advertised"].rpartition(":")[0] for each in said["listeners"]
    ]
    assert ("z", "reserved") == (said["zone"], said["listeners"][0]["transactions"])


def test_an_address_that_is_taken_is_an_error_and_no_traceback(hw: Headwater) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = hw("kafka", "--listen", "127.0.0.1:0", "--listen", f"b=127.0.0.1:{port}", "--json")
    assert 1 == ran.code
    assert f"Cannot listen: b on 127.0.0.1 port {port}: Address already in use." == ran.error["message"]


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        ("nowhere", "is no address"),
        ("127.0.0.1:99999", "is no address"),
        ("127.0.0.1:1?colour=red", "there is no 'colour'"),
        ("127.0.0.1:1?auth=magic", "auth is none, sasl or tls"),
        ("127.0.0.1:1?tls=1", "TLS needs --tls-cert"),
    ],
)
def test_a_listener_that_makes_no_sense_is_refused(listen: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        listeners((listen,), (), "default", None)


def test_listeners_have_names_addresses_and_namespaces() -> None:
    given = ("in=127.0.0.1:9092", "out=0.0.0.0:9093?namespace=tenant&auth=sasl")
    one, two = listeners(given, ("out=kafka.example:443",), "default", None)
    assert ("in", "127.0.0.1", 9092, None, "default", "none") == (
        *(one.name, one.host, one.port),
        *(one.advertised, one.namespace, one.auth),
    )
    assert two.advertised is not None
    assert ("kafka.example", 443) == (two.advertised.host, two.advertised.port)
    assert ("out", "tenant", "sasl") == (two.name, two.namespace, two.auth)


def test_a_listener_has_its_own_address_zone_and_transactions() -> None:
    one, two = listeners(
        ("a=0.0.0.0:9092?advertise=[2001:db8::1]:443&zone=eu-1a&transactions=deferred", "0.0.0.0:9093"), (), "n", None
    )
    assert one.advertised is not None
    assert ("2001:db8::1", 443, "eu-1a", "deferred") == (
        *(one.advertised.host, one.advertised.port),
        *(one.zone, one.transactions),
    )
    assert ("listener-1", "n", None, "", "reserved") == (
        *(two.name, two.namespace, two.advertised),
        *(two.zone, two.transactions),
    )


@pytest.mark.parametrize(
    ("listen", "advertise", "message"),
    [
        (("127.0.0.1:1?transactions=never",), (), "transactions is reserved or deferred"),
        (("127.0.0.1:1?tls=yes",), (), "tls is 0 or 1"),
        (("127.0.0.1:1?namespace=Orders",), (), "is no namespace"),
        (("127.0.0.1:1?advertise=here",), (), "is no address"),
        (("a=127.0.0.1:1", "a=127.0.0.1:2"), (), "Two listeners are called 'a'"),
        (("a=127.0.0.1:1",), ("b=127.0.0.1:2",), "no --listen does"),
    ],
)
def test_listeners_that_contradict_themselves_are_refused(
    listen: tuple[str, ...], advertise: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        listeners(listen, advertise, "default", None)
