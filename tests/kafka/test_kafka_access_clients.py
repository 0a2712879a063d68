"""Real clients prove who they are, and get the rights of that principal and no others."""

from __future__ import annotations

import asyncio
import socket
import struct
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import aiokafka
import aiokafka.admin
import aiokafka.errors
import confluent_kafka as ck
import kafka as kafka_python
import kafka.errors as kp_errors
import pytest
from confluent_kafka import admin as ca

from headwater.api.service import Service
from headwater.kafka import sasl
from headwater.kafka.gateway import Listener, Settings
from headwater.limits import KAFKA_STRANGER_BYTES_MAX
from headwater.log.operations import AclRule
from tests.kafka.test_kafka_access import Client as Scram

WAIT_S = 10.0
SCRAM = list(sasl.SCRAM)
ANN = [
    AclRule("ann", "all", "topic", "ann-", "prefix"),
    AclRule("ann", "read", "group", "ann"),
    AclRule("ann", "describe", "cluster", "kafka-cluster"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """A gateway that asks who comes: ann has an API key, and a password for SCRAM."""

    running: Any
    key: str
    token: str

    @property
    def bootstrap(self) -> str:
        return str(self.running.bootstrap)

    def confluent(self, mechanism: str, user: str = "", password: str = "", **more: Any) -> dict[str, Any]:
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": mechanism,
            **({"sasl.username": user, "sasl.password": password} if user else {}),
            **more,
        }

    def python(self, mechanism: str, user: str, password: str) -> dict[str, Any]:
        return {
            "bootstrap_servers": self.bootstrap,
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": mechanism,
            "sasl_plain_username": user,
            "sasl_plain_password": password,
        }

    def secret(self, mechanism: str) -> str:
        return self.token if mechanism == "PLAIN" else "pencil"


@pytest.fixture
def house(serve: Any) -> House:
    entries = {mechanism: sasl.scram_entry(mechanism, "pencil", salt=b"salt" * 4) for mechanism in SCRAM}
    users = {"ann": {mechanism: sasl.scram_keys(mechanism, entry) for mechanism, entry in entries.items()}}
    running = serve(None, [Listener(port=0, auth="sasl")], Settings(linger_ms=1.0, scram=users))
    running.create_topic("ann-1")
    running.create_topic("others")

    async def prepare() -> tuple[str, str]:
        root = Service(await running.gateway.namespace("default"))
        key, token = await root.create_key("ann")
        await root.change_acls(ANN)
        return key.key, token

    key, token = running.run(prepare())
    return House(running=running, key=key, token=token)


def code(futures: dict[Any, Future[Any]]) -> int:
    """The code of the error that the one future raises, 0 for none."""
    (future,) = futures.values()
    error: Any = future.exception(WAIT_S)
    return 0 if error is None else int(error.args[0].code())


# -- confluent-kafka -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", *SCRAM])
def test_confluent_has_the_rights_of_its_principal(house: House, mechanism: str) -> None:
    known = house.confluent(mechanism, "ann", house.secret(mechanism))
    client = ca.AdminClient(known)
    assert 0 == code(client.create_topics([ca.NewTopic("ann-2", 1)]))
    assert ck.KafkaError.TOPIC_AUTHORIZATION_FAILED == code(client.create_topics([ca.NewTopic("bob-2", 1)]))
    assert ck.KafkaError.TOPIC_AUTHORIZATION_FAILED == code(client.delete_topics(["others"]))
    assert {"ann-1", "ann-2"} == set(client.list_topics(timeout=WAIT_S).topics)

    delivered: list[Any] = []
    producer = ck.Producer(known)
    producer.produce("ann-1", b"v", on_delivery=lambda error, message: delivered.append((error, message.offset())))
    assert 0 == producer.flush(WAIT_S)
    assert [(None, 0)] == delivered
    consumer = ck.Consumer({**known, "group.id": "ann", "auto.offset.reset": "earliest"})
    consumer.assign([ck.TopicPartition("ann-1", 0, 0)])
    message = consumer.poll(WAIT_S)
    consumer.close()
    assert message is not None and b"v" == message.value()


def test_confluent_shows_a_token(house: House) -> None:
    client = ca.AdminClient(house.confluent("OAUTHBEARER", oauth_cb=lambda _: (house.token, 4e9, "ann", {})))
    client.poll(0.2)
    assert {"ann-1"} == set(client.list_topics(timeout=WAIT_S).topics)


@pytest.mark.parametrize("mechanism", ["PLAIN", *SCRAM])
def test_confluent_is_told_that_its_password_is_wrong(house: House, mechanism: str) -> None:
    told: list[Any] = []
    client = ca.AdminClient(
        house.confluent(mechanism, "ann", "wrong", error_cb=lambda error: told.append(error.code()))
    )
    with pytest.raises(ck.KafkaException):
        client.list_topics(timeout=1.0)
    client.poll(0)
    assert ck.KafkaError._AUTHENTICATION in told


def test_a_client_that_does_not_say_who_it_is_gets_nothing(house: House) -> None:
    client = ca.AdminClient({"bootstrap.servers": house.bootstrap})
    with pytest.raises(ck.KafkaException):
        client.list_topics(timeout=1.0)


def test_a_stranger_sends_small_requests_and_whoever_is_known_large_ones(house: House) -> None:
    address = (house.running.gateway.listening[0].address.host, house.running.gateway.listening[0].address.port)
    with socket.create_connection(address, timeout=WAIT_S) as stranger:
        stranger.sendall((KAFKA_STRANGER_BYTES_MAX + 1).to_bytes(4, "big"))
        assert b"" == stranger.recv(1)

    async def main() -> None:
        known = house.python("PLAIN", "ann", house.token)
        async with aiokafka.AIOKafkaProducer(**known) as producer:
            await producer.send_and_wait("ann-1", bytes(KAFKA_STRANGER_BYTES_MAX + 1))

    asyncio.run(main())


# -- kafka-python ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", *SCRAM])
def test_kafka_python_has_the_rights_of_its_principal(house: House, mechanism: str) -> None:
    client = kafka_python.KafkaAdminClient(**house.python(mechanism, "ann", house.secret(mechanism)))
    try:
        assert ["ann-1"] == list(client.list_topics())
        with pytest.raises(kp_errors.TopicAuthorizationFailedError):
            client.delete_topics(["others"])
    finally:
        client.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", *SCRAM])
def test_kafka_python_is_told_that_its_password_is_wrong(
    house: House, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(kp_errors.KafkaTimeoutError):  # it tries again and again
        kafka_python.KafkaAdminClient(**house.python(mechanism, "ann", "wrong"), bootstrap_timeout_ms=300)
    assert "SaslAuthenticationFailedError: Authentication failed: the credentials are not known here" in caplog.text


# -- aiokafka --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", *SCRAM])
def test_aiokafka_has_the_rights_of_its_principal(house: House, mechanism: str) -> None:
    async def main() -> None:
        known = house.python(mechanism, "ann", house.secret(mechanism))
        async with aiokafka.AIOKafkaProducer(**known) as producer:
            sent = await producer.send_and_wait("ann-1", b"v")
            assert 0 == sent.offset
            with pytest.raises(aiokafka.errors.TopicAuthorizationFailedError):
                await producer.send_and_wait("others", b"v")
        client = aiokafka.admin.AIOKafkaAdminClient(**known)
        await client.start()
        try:
            gone = await client.delete_topics(["others"])
            assert [("others", 29)] == [tuple(each[:2]) for each in gone.topic_error_codes]
        finally:
            await client.close()

    asyncio.run(main())


@pytest.mark.parametrize("mechanism", ["PLAIN", *SCRAM])
def test_aiokafka_is_told_that_its_password_is_wrong(house: House, mechanism: str) -> None:
    async def main() -> None:
        producer = aiokafka.AIOKafkaProducer(**house.python(mechanism, "ann", "wrong"), request_timeout_ms=2_000)
        try:
            with pytest.raises(aiokafka.errors.KafkaError):
                await producer.start()
        finally:
            await producer.stop()

    asyncio.run(main())


def test_a_revoked_key_stops_working_on_the_next_connection(house: House) -> None:
    async def revoke() -> None:
        await Service(await house.running.gateway.namespace("default")).revoke_key(house.key)

    async def main() -> None:
        async with aiokafka.AIOKafkaProducer(**house.python("PLAIN", house.key, house.token)) as producer:
            await producer.send_and_wait("ann-1", b"v")
        await asyncio.to_thread(house.running.run, revoke())
        late = aiokafka.AIOKafkaProducer(**house.python("PLAIN", house.key, house.token), request_timeout_ms=2_000)
        try:
            with pytest.raises(aiokafka.errors.KafkaError):
                await late.start()
        finally:
            await late.stop()

    asyncio.run(main())


# -- clients of before SaslAuthenticate --------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize("is_right", [True, False])
def test_bare_tokens_open_the_door_or_end_the_connection(house: House, mechanism: str, is_right: bool) -> None:
    secret = house.secret(mechanism) if is_right else "wrong"
    host, _, port = house.running.address(0).rpartition(":")
    with socket.create_connection((host, int(port)), WAIT_S) as client:
        stream = client.makefile("rwb")
        shaken = talk(stream, struct.pack(">hhihh", 17, 0, 1, -1, len(mechanism)) + mechanism.encode())
        assert (1, 0) == struct.unpack_from(">ih", shaken or b"")
        if mechanism == "PLAIN":
            answer = talk(stream, f"\0ann\0{secret}".encode())
        else:
            scram = Scram(mechanism, "ann", secret)
            answer = talk(stream, scram.final(talk(stream, scram.first()) or b""))
        if not is_right:
            assert answer is None
            return
        assert (b"" if mechanism == "PLAIN" else scram.verifier) == answer
        versions = talk(stream, struct.pack(">hhih", 18, 0, 7, -1))  # from here on as ever
        assert (7, 0) == struct.unpack_from(">ih", versions or b"")
        described = talk(stream, struct.pack(">hhihi", 3, 1, 8, -1, -1))
        assert described is not None and b"ann-1" in described and b"others" not in described


def talk(stream: Any, frame: bytes) -> bytes | None:
    """The answer to a frame, without its length; None if the connection ends."""
    stream.write(struct.pack(">i", len(frame)) + frame)
    stream.flush()
    size = stream.read(4)
    return stream.read(int.from_bytes(size, "big")) if size else None
