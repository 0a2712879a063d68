"""Who a client is: SASL's messages, and the handlers that take them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kio.schema.errors import ErrorCode as E

from headwater.api.service import Service
from headwater.errors import InvalidRequest, Unauthorized
from headwater.kafka import sasl
from headwater.kafka.gateway import Settings
from headwater.kafka.handlers import access
from headwater.kafka.model import Fields, Peer
from headwater.limits import KAFKA_SASL_BYTES_MAX, KAFKA_SASL_TRIES_MAX, SCRAM_ITERATIONS_MAX, SCRAM_ITERATIONS_MIN
from headwater.log.operations import AclRule
from headwater.sim.faults import Faults
from tests.kafka.helpers_peer import ask, peer
from tests.log.helpers import memory, network, opened, simulate

HANDSHAKE, AUTHENTICATE, DESCRIBE_SCRAM, ALTER_SCRAM = 17, 36, 50, 51
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
MECHANISMS = list(sasl.SCRAM)


def users_of(tmp_path: Path, **passwords: str) -> sasl.Users:
    """The users in a file, with one password each for both mechanisms."""
    entries = {
        user: {mechanism: sasl.scram_entry(mechanism, password, salt=SALT) for mechanism in MECHANISMS}
        for user, password in passwords.items()
    }
    path = tmp_path / "users.json"
    path.write_text(json.dumps(entries))
    return sasl.read_users(str(path))


class Client:
    """The client's side of SCRAM, by RFC 5802."""

    def __init__(self, mechanism: str, user: str, password: str, *, nonce: str = "abc", header: str = "n,,") -> None:
        self.hash = sasl.SCRAM[mechanism]
        self.user, self.password, self.nonce, self.header = user, password, nonce, header
        self.bare = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={nonce}"
        self.verifier = b""

    def first(self) -> bytes:
        return (self.header + self.bare).encode()

    def final(self, challenge: bytes) -> bytes:
        parts = dict(part.split("=", 1) for part in challenge.decode().split(","))
        assert parts["r"].startswith(self.nonce) and len(parts["r"]) > len(self.nonce)
        salted = hashlib.pbkdf2_hmac(self.hash, self.password.encode(), base64.b64decode(parts["s"]), int(parts["i"]))
        bare = f"c={base64.b64encode(self.header.encode()).decode()},r={parts['r']}"
        signed = f"{self.bare},{challenge.decode()},{bare}".encode()
        key = hmac.digest(salted, b"Client Key", self.hash)
        signature = hmac.digest(hashlib.new(self.hash, key).digest(), signed, self.hash)
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        verified = hmac.digest(hmac.digest(salted, b"Server Key", self.hash), signed, self.hash)
        self.verifier = b"v=" + base64.b64encode(verified)
        return f"{bare},p={proof}".encode()


# -- messages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (b"\0ann\0secret", ("ann", "secret")),
        (b"ann\0ann\0secret", ("ann", "secret")),
        ("\0änn\0sécret".encode(), ("änn", "sécret")),
        (b"bob\0ann\0secret", None),
        (b"\0ann\0", None),
        (b"\0\0secret", None),
        (b"\0ann", None),
        (b"\0ann\0secret\0more", None),
        (b"", None),
        (b"\0ann\0\xff", None),
        (b"\0ann\0" + b"x" * KAFKA_SASL_BYTES_MAX, None),
    ],
)
def test_plain_is_a_name_and_a_password(message: bytes, found: tuple[str, str] | None) -> None:
    if found is None:
        with pytest.raises(Unauthorized):
            sasl.plain(message)
    else:
        assert found == sasl.plain(message)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (b"n,,\x01auth=Bearer tok\x01\x01", ("", "tok")),
        (b"n,a=ann,\x01auth=bearer tok\x01\x01", ("ann", "tok")),
        (b"n,a=a=2Cnn,\x01auth=Bearer tok\x01more=ext\x01\x01", ("a,nn", "tok")),
        (b"n,,\x01more=ext\x01auth=Bearer tok\x01\x01", ("", "tok")),
        (b"n,,\x01auth=Basic tok\x01\x01", None),
        (b"n,,\x01auth=Bearer \x01\x01", None),
        (b"n,,\x01auth=Bearer a\x01auth=Bearer b\x01\x01", None),
        (b"y,,\x01auth=Bearer tok\x01\x01", None),
        (b"n,,\x01\x01", None),
        (b"\x01", None),
        (b"", None),
    ],
)
def test_oauthbearer_is_a_token(message: bytes, found: tuple[str, str] | None) -> None:
    if found is None:
        with pytest.raises(Unauthorized):
            sasl.bearer(message)
    else:
        assert found == sasl.bearer(message)


def test_scram_is_the_exchange_of_rfc_7677() -> None:
    entry = sasl.scram_entry("SCRAM-SHA-256", "pencil", salt=SALT)
    keys = sasl.ScramKeys(
        salt=SALT,
        iterations=4_096,
        stored_key=base64.b64decode(str(entry["stored_key"])),
        server_key=base64.b64decode(str(entry["server_key"])),
    )
    users = {"user": {"SCRAM-SHA-256": keys}}
    server = sasl.ScramServer("SCRAM-SHA-256", users, nonce="%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    challenge = server.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    assert f"r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096" == challenge.decode()
    proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    assert b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=" == server.final(f"c=biws,r={nonce},p={proof}".encode())


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("user", ["ann", "a,n=n", "änn"])
def test_both_sides_of_scram_prove_that_they_know_the_password(tmp_path: Path, mechanism: str, user: str) -> None:
    server = sasl.ScramServer(mechanism, users_of(tmp_path, **{user: "pencil"}), nonce="xyz")
    client = Client(mechanism, user, "pencil")
    proof = server.final(client.final(server.first(client.first())))
    assert (user, client.verifier) == (server.user, proof)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("user", "password"), [("ann", "pencils"), ("eve", "pencil"), ("ann", "")])
def test_wrong_passwords_and_unknown_users_end_the_same_way(
    tmp_path: Path, mechanism: str, user: str, password: str
) -> None:
    server = sasl.ScramServer(mechanism, users_of(tmp_path, ann="pencil"), nonce="xyz")
    client = Client(mechanism, user, password)
    final = client.final(server.first(client.first()))
    with pytest.raises(Unauthorized, match="The user is not known, or the password is not the user's"):
        server.final(final)


def test_an_unknown_user_has_the_same_salt_at_every_gateway(tmp_path: Path) -> None:
    users = users_of(tmp_path, ann="pencil")
    salts = [
        sasl.ScramServer("SCRAM-SHA-256", users, nonce=nonce).first(f"n,,n={user},r=abc".encode()).split(b",", 1)[1]
        for nonce in ("one", "two")
        for user in ("eve", "mallory")
    ]
    assert salts[0] == salts[2] != salts[1]
    assert salts[0].endswith(b",i=4096")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n,,",
        b"n,,n=,r=abc",
        b"n,,n=ann,r=",
        b"n,,n=ann",
        b"n,,n=a=n,r=abc",
        b"n,,n=ann,r=a\x7fc",
        b"p=tls-unique,,n=ann,r=abc",
        b"y,,n=ann,r=abc",
        b"n,a=bob,n=ann,r=abc",
        b"n,,m=x,n=ann,r=abc",
        b"\xff",
    ],
)
def test_a_first_message_that_is_none_is_refused(tmp_path: Path, message: bytes) -> None:
    server = sasl.ScramServer("SCRAM-SHA-256", users_of(tmp_path, ann="pencil"), nonce="xyz")
    with pytest.raises(Unauthorized):
        server.first(message)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("c=biws", "c=eSws"),
        ("c=biws", "c=!"),
        ("r=abcxyz", "r=abcxyy"),
        ("r=abcxyz", "r=abc"),
        (",p=", ",p=A"),
        (",p=", ",q="),
    ],
)
def test_a_final_message_that_is_changed_is_refused(tmp_path: Path, old: str, new: str) -> None:
    server = sasl.ScramServer("SCRAM-SHA-256", users_of(tmp_path, ann="pencil"), nonce="xyz")
    client = Client("SCRAM-SHA-256", "ann", "pencil")
    final = client.final(server.first(client.first())).decode()
    assert old in final
    with pytest.raises(Unauthorized):
        server.final(final.replace(old, new).encode())


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_random_bytes_prove_nothing(first: bytes, final: bytes) -> None:
    keys = sasl.ScramKeys(salt=SALT, iterations=4_096, stored_key=bytes(32), server_key=bytes(32))
    server = sasl.ScramServer("SCRAM-SHA-256", {"ann": {"SCRAM-SHA-256": keys}}, nonce="xyz")
    for parse in (sasl.plain, sasl.bearer):
        try:
            parse(first)
        except Unauthorized:
            continue
    for call, message in ((server.first, first), (server.final, final)):
        try:
            answer = call(message)
        except Unauthorized:
            return
        assert answer.startswith(b"r=")


@pytest.mark.parametrize("iterations", [SCRAM_ITERATIONS_MIN, SCRAM_ITERATIONS_MAX])
def test_an_entry_has_so_many_iterations(iterations: int) -> None:
    assert iterations == sasl.scram_entry(MECHANISMS[0], "p", salt=SALT, iterations=iterations)["iterations"]


@pytest.mark.parametrize(
    ("mechanism", "password", "salt", "iterations"),
    [
        ("PLAIN", "p", SALT, SCRAM_ITERATIONS_MIN),
        (MECHANISMS[0], "", SALT, SCRAM_ITERATIONS_MIN),
        (MECHANISMS[0], "p", b"", SCRAM_ITERATIONS_MIN),
        (MECHANISMS[0], "p", SALT, SCRAM_ITERATIONS_MIN - 1),
        (MECHANISMS[0], "p", SALT, SCRAM_ITERATIONS_MAX + 1),
    ],
)
def test_no_entry_is_made_of_nothing(mechanism: str, password: str, salt: bytes, iterations: int) -> None:
    with pytest.raises(InvalidRequest):
        sasl.scram_entry(mechanism, password, salt=salt, iterations=iterations)


@pytest.mark.parametrize(
    "changed",
    [
        {"salt": "!"},
        {"salt": ""},
        {"iterations": 1},
        {"iterations": "4096"},
        {"iterations": True},
        {"stored_key": "c2VjcmV0"},
        {"server_key": None},
    ],
)
def test_a_file_with_senseless_keys_is_refused_and_shows_nothing_of_them(tmp_path: Path, changed: Fields) -> None:
    entry = sasl.scram_entry(MECHANISMS[0], "pencil", salt=SALT) | changed
    path = tmp_path / "users.json"
    path.write_text(json.dumps({"ann": {MECHANISMS[0]: entry}}))
    with pytest.raises(InvalidRequest) as refused:
        sasl.read_users(str(path))
    assert "c2VjcmV0" not in str(refused.value)
    for text in ("", "[]", '{"ann": 1}', '{"ann": {"PLAIN": {}}}'):
        path.write_text(text)
        with pytest.raises(InvalidRequest):
            sasl.read_users(str(path))
    with pytest.raises(InvalidRequest):
        sasl.read_users(str(tmp_path / "missing"))


# -- handlers --------------------------------------------------------------------------------------------


async def say(known: Peer, mechanism: str, *messages: bytes, version: int = -1) -> Fields:
    """The answer to the last message, of a client that names a mechanism and then sends messages."""
    shaken = await ask(known, HANDSHAKE, mechanism=mechanism)
    assert E.none == shaken["error_code"]
    answer: Fields = {}
    for message in messages:
        answer = await ask(known, AUTHENTICATE, version, auth_bytes=message)
    return answer


async def stranger(principal: str = "ann", **settings: Any) -> tuple[Peer, str, str]:
    """A client that has not said who it is, and the id and token of an API key of ``principal``."""
    namespace = await opened(memory())
    key, token = await Service(namespace).create_key(principal)
    return peer(namespace, "", settings=Settings(**settings)), key.key, token


@pytest.mark.parametrize("version", range(3))
def test_a_key_opens_the_door_by_its_id_and_by_its_principal(version: int) -> None:
    async def main() -> None:
        known, key, token = await stranger()
        for user in (key, "ann"):
            answer = await say(known, "PLAIN", f"\0{user}\0{token}".encode(), version=version)
            assert (E.none, b"", 0) == (answer["error_code"], answer["auth_bytes"], answer.get("session_lifetime", 0))
            assert ("ann", "ann") == (known.principal, known.service.principal)

    simulate(main())


def test_a_token_opens_the_door_by_itself() -> None:
    async def main() -> None:
        for given_name, code in (("", E.none), ("a=ann", E.none), ("a=bob", E.sasl_authentication_failed)):
            known, _, token = await stranger()
            answer = await say(known, "OAUTHBEARER", f"n,{given_name},\x01auth=Bearer {token}\x01\x01".encode())
            assert code == answer["error_code"]
            assert ("ann" if code == E.none else "") == known.principal

    simulate(main())


def test_every_wrong_secret_looks_alike_and_the_connection_stays_closed_to_more_tries() -> None:
    async def main() -> None:
        known, key, token = await stranger()
        tries = [f"\0{key}\0{token}x", f"\0bob\0{token}", "\0ann\0hw_none_none"]
        answers = [await say(known, "PLAIN", each.encode()) for each in tries]
        assert {E.sasl_authentication_failed} == {each["error_code"] for each in answers}
        assert 1 == len({each["error_message"] for each in answers})
        assert KAFKA_SASL_TRIES_MAX == len(tries)
        late = await say(known, "PLAIN", f"\0{key}\0{token}".encode())
        assert (E.sasl_authentication_failed, "") == (late["error_code"], known.principal)
        assert "Too many" in late["error_message"]

    simulate(main())


def test_a_revoked_key_opens_nothing() -> None:
    async def main() -> None:
        known, key, token = await stranger()
        await Service(known.namespace).revoke_key(key)
        answer = await say(known, "PLAIN", f"\0{key}\0{token}".encode())
        assert E.sasl_authentication_failed == answer["error_code"]

    simulate(main())


def test_the_scopes_of_a_key_hold() -> None:
    async def main() -> None:
        namespace = await opened(memory())
        await namespace.create_topic("t")
        _, token = await Service(namespace).create_key("ann", scopes=[AclRule("*", "read", "topic", "t")])
        known = peer(namespace, "")
        await say(known, "PLAIN", f"\0ann\0{token}".encode())
        assert (True, False) == (known.service.may("read", "topic", "t"), known.service.may("write", "topic", "t"))

    simulate(main())


def test_a_client_that_has_a_name_keeps_it() -> None:
    async def main() -> None:
        known, _, token = await stranger()
        _, other = await Service(known.namespace).create_key("bob")
        await say(known, "PLAIN", f"\0ann\0{token}".encode())
        answer = await say(known, "PLAIN", f"\0bob\0{other}".encode())
        assert (E.sasl_authentication_failed, "ann") == (answer["error_code"], known.principal)
        assert E.none == (await say(known, "PLAIN", f"\0ann\0{token}".encode()))["error_code"]

    simulate(main())


def test_messages_come_in_their_order() -> None:
    async def main() -> None:
        known, _, token = await stranger()
        early = await ask(known, AUTHENTICATE, auth_bytes=f"\0ann\0{token}".encode())
        assert (E.illegal_sasl_state, "") == (early["error_code"], known.principal)
        for mechanism in ("GSSAPI", "SCRAM-SHA-256", ""):  # nobody has a password for SCRAM here
            shaken = await ask(known, HANDSHAKE, mechanism=mechanism)
            assert (E.unsupported_sasl_mechanism, ["PLAIN", "OAUTHBEARER"]) == (
                shaken["error_code"],
                shaken["mechanisms"],
            )
        assert E.none == (await ask(known, HANDSHAKE, 0, mechanism="PLAIN"))["error_code"]
        named = peer(known.namespace, "root")
        assert E.illegal_sasl_state == (await ask(named, HANDSHAKE, mechanism="PLAIN"))["error_code"]

    simulate(main())


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_scram_user_comes_in_by_its_password(tmp_path: Path, mechanism: str) -> None:
    async def main() -> None:
        known, _, _ = await stranger(scram=users_of(tmp_path, ann="pencil"))
        for password, code in (("crayon", E.sasl_authentication_failed), ("pencil", E.none)):
            client = Client(mechanism, "ann", password)
            challenge = await say(known, mechanism, client.first())
            answer = await ask(known, AUTHENTICATE, auth_bytes=client.final(bytes(challenge["auth_bytes"])))
            assert code == answer["error_code"]
        assert ("ann", "ann", client.verifier) == (known.principal, known.service.principal, answer["auth_bytes"])

    simulate(main())


def test_a_proof_is_good_for_one_exchange(tmp_path: Path) -> None:
    async def main() -> None:
        known, _, _ = await stranger(scram=users_of(tmp_path, ann="pencil"))
        client = Client("SCRAM-SHA-256", "ann", "pencil")
        challenge = await say(known, "SCRAM-SHA-256", client.first())
        final = client.final(bytes(challenge["auth_bytes"]))
        again = await say(known, "SCRAM-SHA-256", client.first(), final)
        assert (E.sasl_authentication_failed, "") == (again["error_code"], known.principal)

    simulate(main())


def test_keys_that_cannot_be_read_are_no_wrong_password() -> None:
    async def main() -> None:
        store = network()
        namespace = await opened(store)
        known = peer(namespace, "")
        store.set_faults(Faults(unavailable=1.0))
        answer = await say(known, "PLAIN", b"\0ann\0hw_key_secret")
        assert E.request_timed_out == answer["error_code"]

    simulate(main())


# -- bare tokens (SaslHandshake 0) ---------------------------------------------------------------------------


def test_after_the_old_handshake_bare_tokens_prove_who_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        known, _, token = await stranger(scram=users_of(tmp_path, bob="pencil"))
        assert E.none == (await ask(known, HANDSHAKE, 0, mechanism="PLAIN"))["error_code"]
        assert known.sends_tokens
        assert (b"", "ann", False) == (
            await access.token(known, f"\0ann\0{token}".encode()),
            known.principal,
            known.sends_tokens,
        )
        other, _, _ = await stranger(scram=users_of(tmp_path, bob="pencil"))
        await ask(other, HANDSHAKE, 0, mechanism="SCRAM-SHA-256")
        client = Client("SCRAM-SHA-256", "bob", "pencil")
        challenge = await access.token(other, client.first())
        assert ("", True) == (other.principal, other.sends_tokens)
        assert client.final(challenge) and client.verifier == await access.token(other, client.final(challenge))
        assert ("bob", False) == (other.principal, other.sends_tokens)

    simulate(main())


def test_a_wrong_bare_token_has_no_answer() -> None:
    async def main() -> None:
        known, _, token = await stranger()
        await ask(known, HANDSHAKE, 0, mechanism="PLAIN")
        with pytest.raises(Unauthorized):
            await access.token(known, f"\0ann\0{token}x".encode())
        assert "" == known.principal

    simulate(main())
