"""SASL for Kafka's clients: bytes in, bytes out, and in the end who it is. Pure: secrets are looked up by the caller.

    PLAIN                       one message: user name and password (RFC 4616)
    OAUTHBEARER                 one message: a bearer token (RFC 7628 as KIP-255 frames it)
    SCRAM-SHA-256, -SHA-512     two messages and a proof on each side (RFC 5802, RFC 7677), without channel binding

In PLAIN the password, and in OAUTHBEARER the token, is the token of an API key (``hw_…``), whose SHA-256 the namespace
keeps. SCRAM proves that both sides know a password, which none of them sends, so it needs keys that were derived from
the password with a salt: a SHA-256 of a token does not give them. They come from the log (``handlers.scram_users``), or
from a file (``read_users``), whose entries ``scram_entry`` makes; the server can check a proof with them and cannot
pose as the user.

A user name that nobody has takes as long as a wrong password, with a salt that stays the same, and ends the same way.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from headwater.errors import InvalidRequest, Unauthorized
from headwater.limits import KAFKA_SASL_BYTES_MAX, SCRAM_ITERATIONS_MAX, SCRAM_ITERATIONS_MIN

PLAIN: Final = "PLAIN"
OAUTHBEARER: Final = "OAUTHBEARER"
SCRAM: Final[Mapping[str, str]] = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}

_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 24
_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]+\Z")  # printable, without the comma
_FIRST = re.compile(r"n,(?:a=([^,]+))?,(n=([^,]+),r=([^,]+)(?:,.*)?)\Z", re.DOTALL)
_FINAL = re.compile(r"(c=([^,]+),r=([^,]+)(?:,.+)?),p=([^,]+)\Z", re.DOTALL)
_BEARER = re.compile(r"n,(?:a=([^,]+))?,\x01(.*)\x01\x01\Z", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScramKeys:
    """What is kept of one password for one mechanism. The keys never show in a log or a traceback."""

    salt: bytes = field(repr=False)
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


Users: TypeAlias = Mapping[str, Mapping[str, ScramKeys]]
"""By user and mechanism."""

Entries: TypeAlias = Mapping[str, Mapping[str, object]]
"""What a file has of one user: by mechanism, as ``scram_entry`` gives it."""


# -- messages --------------------------------------------------------------------------------------------


def plain(message: bytes) -> tuple[str, str]:
    """User name and password. Raises ``Unauthorized`` for a malformed message."""
    parts = _text(message).split("\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise Unauthorized("A PLAIN message is an optional identity, a user name and a password, by NULs.")
    if parts[0] not in ("", parts[1]):
        raise Unauthorized("Nobody acts for others here: leave the authorization id away.")
    return parts[1], parts[2]


def bearer(message: bytes) -> tuple[str, str]:
    """The authorization id, "" if there is none, and the token. Raises ``Unauthorized`` for a malformed message."""
    found = _BEARER.match(_text(message))
    pairs = [pair.partition("=") for pair in found[2].split("\x01")] if found else []
    tokens = [value for name, _, value in pairs if name == "auth"]
    scheme, _, token = tokens[0].partition(" ") if len(tokens) == 1 else ("", "", "")
    if found is None or scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("An OAUTHBEARER message has one 'auth=Bearer …' (RFC 7628).")
    return _name(found[1] or ""), token.strip()


def scram_user(message: bytes) -> str:
    """Whom the first message of SCRAM is of. Raises ``Unauthorized`` for a malformed one."""
    found = _FIRST.match(_text(message))
    if found is None:
        raise Unauthorized("The first message of SCRAM is malformed, or asks for channel binding or extensions.")
    return _name(found[3])


class ScramServer:
    """The server's side of one SCRAM exchange: ``first`` and then ``final``, each once.

    ``nonce`` is fresh random text. Somebody of ``users`` has keys for the mechanism: from those come the salts of
    names that nobody has, so that they are the same at every gateway with the same users.
    """

    def __init__(self, mechanism: str, users: Users, *, nonce: str) -> None:
        self._hash = SCRAM[mechanism]
        self._mechanism = mechanism
        self._users = users
        self._nonce = nonce
        self._example = next(entries[mechanism] for entries in users.values() if mechanism in entries)
        self._keys: ScramKeys | None = None
        self._header = ""
        self._challenge = ""
        self.user = ""

    def first(self, message: bytes) -> bytes:
        """The challenge to the client's first message. Raises ``Unauthorized`` for a malformed one."""
        found = _FIRST.match(_text(message))
        if found is None or not _NONCE.match(found[4]):
            raise Unauthorized("The first message of SCRAM is malformed, or asks for channel binding or extensions.")
        user = _name(found[3])
        if found[1] is not None and _name(found[1]) != user:
            raise Unauthorized("Nobody acts for others here: leave the authorization id away.")
        self.user = user
        self._keys = self._users.get(user, {}).get(self._mechanism)
        keys = self._keys or self._made_up(user)
        self._nonce = found[4] + self._nonce
        answer = f"r={self._nonce},s={_encoded(keys.salt)},i={keys.iterations}"
        self._header = message.decode()[: found.start(2)]
        self._challenge = f"{found[2]},{answer}"
        return answer.encode()

    def final(self, message: bytes) -> bytes:
        """The server's own proof. Raises ``Unauthorized`` for a wrong one of the client's, or an unknown user."""
        found = _FINAL.match(_text(message))
        if found is None:
            raise Unauthorized("The final message of SCRAM is malformed.")
        keys = self._keys or self._made_up(self.user)
        signed = f"{self._challenge},{found[1]}".encode()
        signature = hmac.digest(keys.stored_key, signed, self._hash)
        right = hmac.compare_digest(_decoded(found[2]), self._header.encode())
        right &= hmac.compare_digest(found[3].encode(), self._nonce.encode())
        right &= _proves(_decoded(found[4]), signature, keys.stored_key, self._hash)
        if self._keys is None or not right:
            raise Unauthorized("The user is not known, or the password is not the user's.")
        return b"v=" + _encoded(hmac.digest(keys.server_key, signed, self._hash)).encode()

    def _made_up(self, user: str) -> ScramKeys:
        """Keys that nobody knows, always the same for one name, and looking like those of others."""
        like = self._example
        seed = hmac.digest(like.server_key, f"no such user\0{user}".encode(), self._hash)
        salt = (seed * (len(like.salt) // len(seed) + 1))[: len(like.salt)]
        return ScramKeys(salt=salt, iterations=like.iterations, stored_key=seed, server_key=seed)


def _proves(proof: bytes, signature: bytes, stored_key: bytes, name: str) -> bool:
    if len(proof) != len(signature):
        return False
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    return hmac.compare_digest(hashlib.new(name, client_key).digest(), stored_key)


def fresh_nonce(random: Callable[[int], int]) -> str:
    """A nonce from ``random``, which gives that many random bits."""
    return base64.urlsafe_b64encode(random(_NONCE_BYTES * 8).to_bytes(_NONCE_BYTES, "big")).decode()


# -- users of SCRAM --------------------------------------------------------------------------------------


def scram_entry(
    mechanism: str, password: str, *, salt: bytes, iterations: int = SCRAM_ITERATIONS_MIN
) -> dict[str, object]:
    """The entry of a file of users for one mechanism. Cost: ``iterations`` hashes, about 5 ms.

    The password is taken as UTF-8 and not normalized further, as Kafka's own tools do. Raises ``InvalidRequest``.
    """
    if mechanism not in SCRAM:
        raise InvalidRequest(f"The mechanisms are {' and '.join(SCRAM)}; {mechanism[:40]!r} is none.")
    if not password or not salt or not SCRAM_ITERATIONS_MIN <= iterations <= SCRAM_ITERATIONS_MAX:
        bounds = f"{SCRAM_ITERATIONS_MIN} to {SCRAM_ITERATIONS_MAX}"
        raise InvalidRequest(f"An entry has a password, a salt, and {bounds} iterations.")
    salted = hashlib.pbkdf2_hmac(SCRAM[mechanism], password.encode(), salt, iterations)
    return {"salt": _encoded(salt), "iterations": iterations, **kept_of(mechanism, salted)}


def kept_of(mechanism: str, salted: bytes) -> dict[str, str]:
    """What may be kept of a salted password, in base64: enough to check a proof, too little to make one."""
    name = SCRAM[mechanism]
    client_key = hmac.digest(salted, b"Client Key", name)
    return {
        "stored_key": _encoded(hashlib.new(name, client_key).digest()),
        "server_key": _encoded(hmac.digest(salted, b"Server Key", name)),
    }


def digest_bytes(mechanism: str) -> int:
    """How long keys and salted passwords are."""
    return hashlib.new(SCRAM[mechanism]).digest_size


def fresh_salt(random: Callable[[int], int]) -> bytes:
    """A salt from ``random``, which gives that many random bits."""
    return random(_SALT_BYTES * 8).to_bytes(_SALT_BYTES, "big")


def read_users(path: str) -> Users:
    """The users in a JSON file: user → mechanism → what ``scram_entry`` gives; binary values are base64.

    Raises ``InvalidRequest``; its text never shows what is in the file.
    """
    return _users(read_entries(path))


def read_entries(path: str) -> dict[str, Entries]:
    """The same file as it is written, once it is known to make sense. Raises ``InvalidRequest``."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        _users(found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, Unauthorized):
        form = '{"user": {"SCRAM-SHA-256": {"salt": …, "iterations": …, "stored_key": …, "server_key": …}}}'
        raise InvalidRequest(f"The file of SCRAM users is no JSON of the form {form}.") from None
    return dict(found)


def _users(entries: Mapping[str, Entries]) -> Users:
    return {
        user: {mechanism: scram_keys(mechanism, entry) for mechanism, entry in known.items()}
        for user, known in entries.items()
    }


def scram_keys(mechanism: str, entry: Mapping[str, object]) -> ScramKeys:
    """The keys in an entry. Raises ``Unauthorized``, ``ValueError`` or ``KeyError`` for one that makes no sense."""
    salt, stored, server = (_decoded(str(entry[name])) for name in ("salt", "stored_key", "server_key"))
    size, iterations = digest_bytes(mechanism), entry["iterations"]
    if len(stored) != size or len(server) != size or not salt or not isinstance(iterations, int):
        raise ValueError
    if not SCRAM_ITERATIONS_MIN <= iterations <= SCRAM_ITERATIONS_MAX:
        raise ValueError
    return ScramKeys(salt=salt, iterations=iterations, stored_key=stored, server_key=server)


# -- text ------------------------------------------------------------------------------------------------


def _text(message: bytes) -> str:
    if len(message) > KAFKA_SASL_BYTES_MAX:
        raise Unauthorized(f"A message of SASL has at most {KAFKA_SASL_BYTES_MAX} bytes; this one has {len(message)}.")
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise Unauthorized("A message of SASL is UTF-8 text.") from None


def _name(text: str) -> str:
    """A name with its commas and equals signs back (RFC 5802: saslname)."""
    rest = text.replace("=2C", "").replace("=3D", "")
    if "=" in rest or "\0" in rest:
        raise Unauthorized("A user name writes ',' as '=2C' and '=' as '=3D'.")
    return text.replace("=2C", ",").replace("=3D", "=")


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Unauthorized("A message of SCRAM has base64 that is none.") from None
