"""Who is asking: one request, one principal, by one of four modes.

    iam     the platform has checked the signature and says who it was (function URLs with AuthType AWS_IAM)
    token   Authorization: Bearer hw_<key>_<secret>, an API key of the namespace, stored as a hash; or Basic, with that
            as the password of the key or of its principal, as clients of a schema registry send it
    sigv4   Authorization: AWS4-HMAC-SHA256 …, checked here, with keys from a file; for local servers
    none    everybody is root; for local servers

Whoever does not hold valid credentials learns nothing: an unknown namespace, an unknown key, a wrong secret, a key that
expired or was revoked, and no credentials at all are one and the same 401, after the same work. What a principal may do
is not decided here (``headwater.api.access``).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from headwater.api.access import ROOT
from headwater.clock import Clock, SystemClock
from headwater.errors import HeadwaterError, InvalidRequest, Throttled, Unauthorized, Unavailable
from headwater.limits import (
    AUTH_FRESH_S,
    AUTH_HEADER_BYTES_MAX,
    AUTH_RETRY_S,
    SIGV4_SEEN_MAX,
    SIGV4_SKEW_S,
)

if TYPE_CHECKING:
    from headwater.api.messages import Request
    from headwater.log.namespace import Namespace
    from headwater.log.operations import AclRule
    from headwater.log.state import ApiKey

MODES: Final = ("iam", "token", "sigv4", "none")
UNKNOWN: Final = "The credentials are not known here."  # whatever is wrong with them
TOKEN_PREFIX: Final = "hw_"
SERVICE: Final = "lambda"  # what requests to function URLs are signed for
KEYS_FILE: Final = "HEADWATER_SIGV4_KEYS"

_ASSUMED = re.compile(r"arn:(aws[a-z-]*):sts::([0-9]{12}):assumed-role/([^/]+)/.+")
_NO_HASH = "0" * 64  # no secret has it
_NO_SECRET = "no key has this secret, and checking it takes as long"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who asks. With ``scopes`` only what these rules *and* those of the principal allow."""

    principal: str
    scopes: Sequence[AclRule] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """One access key of ``sigv4`` mode. The secret never shows in a log or a traceback."""

    secret: str = field(repr=False)
    principal: str


class Authenticator:
    """Finds out who asks. One per process: it remembers signatures, and how fresh its knowledge of keys is."""

    def __init__(
        self, mode: str, clock: Clock | None = None, *, sigv4_keys: Mapping[str, SigningKey] | None = None
    ) -> None:
        """``sigv4_keys`` are by access key; without them ``sigv4`` reads the file that HEADWATER_SIGV4_KEYS names.

        Raises ``InvalidRequest`` for an unknown mode, or keys that are missing or malformed.
        """
        if mode not in MODES:
            raise InvalidRequest(f"HEADWATER_AUTH is one of {', '.join(MODES)}, not {mode[:40]!r}.")
        self.mode = mode
        self._clock = clock or SystemClock()
        self._looked: WeakKeyDictionary[Namespace, float] = WeakKeyDictionary()
        self._signatures: Signatures | None = None
        if mode == "sigv4":
            keys = read_signing_keys(os.environ.get(KEYS_FILE, "")) if sigv4_keys is None else sigv4_keys
            self._signatures = Signatures(keys, self._clock)

    async def authenticate(self, request: Request, namespace: Namespace | None) -> Identity:
        """Who sent ``request`` to ``namespace`` (None: there is none of that name, and nobody may learn so).

        Raises:
            Unauthorized: the credentials are missing, wrong, too old or used up. Nothing was done.
            Unavailable: the keys cannot be read now. Throttled: too many signed changes at once.

        Cost: nothing but some hashing; in ``token`` mode 1 GET if this process has not looked for 5 s, and after
        refused credentials 1 GET at most every 2 s.
        """
        if self.mode == "none":
            return Identity(principal=ROOT)
        if self.mode == "iam":
            return Identity(principal=_platform_principal(request))
        if self._signatures is not None:
            return self._signatures.identity(request)
        return await self._by_token(request, namespace)

    def may_be_known(self, request: Request) -> bool:
        """Whether the request bears what looks like an API key: without one no namespace need be opened for it."""
        return bool(_shown(request)[0])

    # -- API keys ------------------------------------------------------------------------------------

    async def _by_token(self, request: Request, namespace: Namespace | None) -> Identity:
        key, digest, user = _shown(request)
        found = self._match(namespace, key, digest)
        if namespace is not None and self._must_look(namespace, known=found is not None):
            try:
                await namespace.refresh()
            except HeadwaterError as error:
                raise Unavailable("The credentials cannot be checked now.") from error
            found = self._match(namespace, key, digest)
        if found is None or not may_show(user, key, found.principal):
            raise Unauthorized(UNKNOWN)
        return Identity(principal=found.principal, scopes=list(found.scopes) or None)

    def _match(self, namespace: Namespace | None, key: str, digest: str) -> ApiKey | None:
        """The API key, if it is one, the secret is its own, and its time is not up."""
        known = namespace.state.keys.get(key) if namespace is not None else None
        right = hmac.compare_digest(known.hash if known is not None else _NO_HASH, digest)
        if known is None or namespace is None or not right:
            return None
        # A clock that is ahead ends a key too early; one that is behind is set right by the log's own time (R7).
        now_ms = max(self._clock.wall_ms(), namespace.state.time_ms)
        return known if not known.expires_ms or now_ms < known.expires_ms else None

    def _must_look(self, namespace: Namespace, *, known: bool) -> bool:
        """Whether the namespace's keys are too old to judge by: for a known key, and for one that may be new."""
        if known:
            return namespace.chain.age_s() > AUTH_FRESH_S
        now_s = self._clock.elapsed_s()
        if now_s - self._looked.get(namespace, float("-inf")) < AUTH_RETRY_S:
            return False
        self._looked[namespace] = now_s
        return True


class Signatures:
    """Checks SigV4 signatures, and takes each at most once where it changes something.

    A signature that was seen is refused for as long as it would be fresh. GET and HEAD are taken again: two equal
    reads in one second have equal signatures, and who replays one has seen its answer anyway. A client that changes
    the same thing twice in one second signs one more header, such as a nonce. The memory is this process's own.
    """

    def __init__(self, keys: Mapping[str, SigningKey], clock: Clock) -> None:
        self._keys = dict(keys)
        self._clock = clock
        self._seen: OrderedDict[str, int] = OrderedDict()  # signature → when it stops being fresh, in ms

    def identity(self, request: Request) -> Identity:
        """Whose signature it is. Raises ``Unauthorized``, or ``Throttled`` when too many must be remembered."""
        from headwater.api import sigv4

        header = request.headers.get("authorization", "")
        signed = sigv4.parse_authorization(header) if len(header) <= AUTH_HEADER_BYTES_MAX else None
        if signed is None:
            raise Unauthorized(UNKNOWN)
        headers = {"host": request.host, **request.headers}
        key = self._keys.get(signed.access_key)
        body_hash = hashlib.sha256(request.raw_body or request.body).hexdigest()
        right = sigv4.matches(
            signed,
            key.secret if key is not None else _NO_SECRET,
            method=request.method,
            path=request.raw_path or request.path,
            query=request.raw_query,
            headers=headers,
            body_hash=body_hash,
        )
        time = headers.get("x-amz-date", "")
        at_ms = sigv4.time_ms(time)
        right &= sigv4.covers(signed, headers) and time[:8] == signed.day and signed.service == SERVICE
        right &= headers.get("x-amz-content-sha256", body_hash) == body_hash
        if key is None or at_ms is None or not right:
            raise Unauthorized(UNKNOWN)
        self._check_fresh(at_ms)
        if request.method not in ("GET", "HEAD"):
            self._use(signed.signature, at_ms)
        return Identity(principal=key.principal)

    def _check_fresh(self, at_ms: int) -> None:
        """Only who holds the secret hears of clocks."""
        skew_ms = self._clock.wall_ms() - at_ms
        if abs(skew_ms) > SIGV4_SKEW_S * 1_000:
            raise Unauthorized(
                f"The request was signed {abs(skew_ms) // 1_000} s {'before' if skew_ms > 0 else 'after'} the time of "
                f"this server; at most {SIGV4_SKEW_S:.0f} s are allowed. Set the clock, and sign it anew."
            )

    def _use(self, signature: str, at_ms: int) -> None:
        now_ms = self._clock.wall_ms()
        while self._seen and next(iter(self._seen.values())) < now_ms:
            self._seen.popitem(last=False)
        if signature in self._seen:
            raise Unauthorized("This signature was used before. Sign the request anew.")
        if len(self._seen) >= SIGV4_SEEN_MAX:
            raise Throttled(f"More than {SIGV4_SEEN_MAX} signed changes in {2 * SIGV4_SKEW_S:.0f} s.")
        self._seen[signature] = at_ms + int(SIGV4_SKEW_S * 1_000)


def read_signing_keys(path: str) -> dict[str, SigningKey]:
    """The keys in a JSON file: ``{"ACCESS": "secret"}`` or ``{"ACCESS": {"secret": …, "principal": …}}``.

    Without a ``principal`` it is the access key. Raises ``InvalidRequest``; its text never shows what is in the file.
    """
    if not path:
        raise InvalidRequest(f"HEADWATER_AUTH=sigv4 needs {KEYS_FILE}: the path of a JSON file of access keys.")
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        return {str(name): _signing_key(str(name), value) for name, value in found.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        form = '{"ACCESS": "secret"} or {"ACCESS": {"secret": "…", "principal": "…"}}'
        raise InvalidRequest(f"The file that {KEYS_FILE} names is no JSON of the form {form}.") from None


def _signing_key(name: str, value: object) -> SigningKey:
    if isinstance(value, str) and value:
        return SigningKey(secret=value, principal=name)
    if isinstance(value, dict) and isinstance(value["secret"], str) and value["secret"]:
        return SigningKey(secret=value["secret"], principal=str(value.get("principal") or name))
    raise TypeError


def principal_of(arn: str) -> str:
    """The principal of access rules for an ARN: of an assumed role the role, whatever its session is called.

    ``arn:aws:sts::1…2:assumed-role/Name/session`` becomes ``arn:aws:iam::1…2:role/Name``. The path of a role is not
    in the ARN of its sessions, so a rule names the role without it.
    """
    assumed = _ASSUMED.fullmatch(arn)
    return f"arn:{assumed[1]}:iam::{assumed[2]}:role/{assumed[3]}" if assumed else arn


def _platform_principal(request: Request) -> str:
    if not request.principal:
        raise Unauthorized(
            "The request carries no AWS principal. Sign it for the service 'lambda', and give the function's URL the "
            "AuthType AWS_IAM."
        )
    return principal_of(request.principal)


def token_of(key: str, secret: str) -> str:
    """The token that the bearer of an API key shows."""
    return f"{TOKEN_PREFIX}{key}_{secret}"


def digest_of(secret: str) -> str:
    """What is kept of a secret: its SHA-256 in hex."""
    return hashlib.sha256(secret.encode(errors="backslashreplace")).hexdigest()


def may_show(user: str, key: str, principal: str) -> bool:
    """Whether an API key may be shown for ``user``: nobody in particular (""), the key itself, or its principal."""
    return user in ("", key, principal)


def _shown(request: Request) -> tuple[str, str, str]:
    """The key's id, the secret's SHA-256 in hex, and the user that it is shown for ("": for whoever it is).

    Of a malformed header an id that no key has.
    """
    header = request.headers.get("authorization", "")[: AUTH_HEADER_BYTES_MAX + 1]
    scheme, _, token = header.partition(" ")
    token, user = token.strip(), ""
    well_formed = scheme.lower() in ("bearer", "basic") and len(header) <= AUTH_HEADER_BYTES_MAX
    if scheme.lower() == "basic":
        try:
            user, _, token = base64.b64decode(token, validate=True).decode().partition(":")
        except ValueError:
            token = ""
        well_formed &= bool(user)
    key, mark, secret = token.removeprefix(TOKEN_PREFIX).partition("_")
    well_formed &= token.startswith(TOKEN_PREFIX) and bool(mark and secret)
    digest = digest_of(secret)
    return (key, digest, user) if well_formed else ("", digest, "")
