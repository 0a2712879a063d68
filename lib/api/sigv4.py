"""AWS Signature Version 4: verifying signed requests, and presigning URLs of S3. Pure.

A signature binds the method, the path, the query, the headers that it names and the hash of the body to one secret,
one day, one region and one service:

    key        = HMAC(HMAC(HMAC(HMAC("AWS4" + secret, day), region), service), "aws4_request")
    signature  = HMAC(key, algorithm ⏎ time ⏎ day/region/service/aws4_request ⏎ SHA256(canonical request))

Source: "Signing AWS API requests", "Create a signed AWS API request" and "Authenticating Requests: Using Query
Parameters (AWS Signature Version 4)" in the manuals of IAM and S3.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

ALGORITHM: Final = "AWS4-HMAC-SHA256"
UNSIGNED: Final = "UNSIGNED-PAYLOAD"
_UNRESERVED: Final = "-_.~"
_ANY: Final = "surrogatepass"  # what a stranger sent may be no Unicode; it is to be refused, not to be stumbled over
_HEADER = re.compile(
    rf"{ALGORITHM} +Credential=(?P<key>[A-Za-z0-9_-]{{1,128}})/(?P<day>[0-9]{{8}})/(?P<region>[a-z0-9-]{{1,64}})"
    r"/(?P<service>[a-z0-9-]{1,64})/aws4_request, *SignedHeaders=(?P<signed>[a-z0-9;_.-]{1,2048}),"
    r" *Signature=(?P<signature>[0-9a-f]{64})"
)
_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What an ``Authorization`` header claims."""

    access_key: str
    day: str
    region: str
    service: str
    headers: tuple[str, ...]
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Credentials of AWS. The secret never shows in a log or a traceback."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


def parse_authorization(header: str) -> Signed | None:
    """The parts of an ``Authorization`` header; None if it is not one of this scheme, word for word."""
    match = _HEADER.fullmatch(header)
    if match is None:
        return None
    return Signed(
        access_key=match["key"],
        day=match["day"],
        region=match["region"],
        service=match["service"],
        headers=tuple(match["signed"].split(";")),
        signature=match["signature"],
    )


def time_ms(text: str) -> int | None:
    """``20261125T124721Z`` in ms since 1970; None if it is no such time."""
    if not _TIME.fullmatch(text):
        return None
    try:
        return int(datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp() * 1_000)
    except ValueError:
        return None


def time_text(wall_ms: int) -> str:
    """A time in ms since 1970 as ``20261125T124721Z``."""
    return datetime.fromtimestamp(wall_ms // 1_000, UTC).strftime("%Y%m%dT%H%M%SZ")


def covers(signed: Signed, headers: Mapping[str, str]) -> bool:
    """Whether the signature names what it must: the host, all ``x-amz-`` headers, in order and each once."""
    must = {"host", "x-amz-date", *(name for name in headers if name.startswith("x-amz-"))}
    names = signed.headers
    return must <= set(names) and list(names) == sorted(set(names)) and all(name in headers for name in names)


def queries(raw: str) -> set[str]:
    """The canonical forms of a query that a signer may have meant: as it was sent, and with what it left bare encoded.

    Each holds on to every byte: nothing is decoded, so no other query has the same form and another meaning.
    """
    as_sent = _pairs(raw)
    safe = _UNRESERVED + "%+"
    encoded = sorted(
        (quote(name, safe=safe, errors=_ANY), quote(value, safe=safe, errors=_ANY)) for name, value in as_sent
    )
    return {"&".join(f"{name}={value}" for name, value in each) for each in (as_sent, encoded)}


def _pairs(raw: str) -> list[tuple[str, str]]:
    """Names and values of a query as they are, sorted."""
    pairs = [pair.partition("=") for pair in raw.split("&")] if raw else []
    return sorted((name, value) for name, _, value in pairs)


def canonical_path(raw_path: str) -> str:
    """The path of any service but S3: what was sent is encoded once more. Dots and double slashes stay as they are."""
    return quote(raw_path or "/", safe="/~", errors=_ANY)


def canonical_request(
    method: str, path: str, query: str, headers: Sequence[tuple[str, str]], body_hash: str
) -> str:  # fmt: skip
    """What is hashed and signed. ``headers`` are sorted, in lower case; runs of blanks in a value count as one."""
    lines = "".join(f"{name}:{' '.join(value.split())}\n" for name, value in headers)
    return "\n".join((method, path, query, lines, ";".join(name for name, _ in headers), body_hash))


def signature(secret_key: str, time: str, region: str, service: str, canonical: str) -> str:
    """The signature of a canonical request, in hex. ``time`` is ``time_text``'s."""
    scope = f"{time[:8]}/{region}/{service}/aws4_request"
    to_sign = "\n".join((ALGORITHM, time, scope, hashlib.sha256(canonical.encode(errors=_ANY)).hexdigest()))
    key = f"AWS4{secret_key}".encode()
    for part in (time[:8], region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(errors=_ANY), "sha256")
    return hmac.new(key, to_sign.encode(errors=_ANY), "sha256").hexdigest()


def matches(
    signed: Signed, secret_key: str, *, method: str, path: str, query: str, headers: Mapping[str, str], body_hash: str
) -> bool:
    """Whether the signature is that of this request, by this secret. Takes the same time wherever it differs.

    ``path`` and ``query`` are as they were sent; ``headers`` has the names in lower case.
    """
    chosen = [(name, headers.get(name, "")) for name in signed.headers]
    time = headers.get("x-amz-date", "")
    right = False
    for form in sorted(queries(query)):
        canonical = canonical_request(method, canonical_path(path), form, chosen, body_hash)
        made = signature(secret_key, time, signed.region, signed.service, canonical)
        right |= hmac.compare_digest(made, signed.signature)
    return right


def signed_headers(
    secret: Secret, *, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes, region: str,
    service: str, wall_ms: int,
) -> dict[str, str]:  # fmt: skip
    """``headers`` and those that sign the request: the date, the session's token and ``authorization``.

    ``headers`` have their names in lower case and the ``host`` among them; ``path`` and ``query`` are as they will be
    sent, percent-encoded. Whoever changes the same thing twice in one second adds a header that differs, such as
    ``headwater-nonce``: a local server takes no signature twice.
    """
    time = time_text(wall_ms)
    sent = {**headers, "x-amz-date": time}
    if secret.token:
        sent["x-amz-security-token"] = secret.token
    form = "&".join(f"{name}={value}" for name, value in _pairs(query))
    canonical = canonical_request(
        method, canonical_path(path), form, sorted(sent.items()), hashlib.sha256(body).hexdigest()
    )
    made = signature(secret.secret_key, time, region, service, canonical)
    scope = f"{secret.access_key}/{time[:8]}/{region}/{service}/aws4_request"
    sent["authorization"] = (
        f"{ALGORITHM} Credential={scope}, SignedHeaders={';'.join(sorted(sent))}, Signature={made}"
    )  # fmt: skip
    return sent


def presigned(
    secret: Secret, *, method: str, url: str, host: str, path: str, headers: Mapping[str, str], region: str,
    wall_ms: int, expires_s: int,
) -> str:  # fmt: skip
    """A URL of S3 that lets whoever holds it do exactly this until ``expires_s`` from now.

    ``url`` ends with ``path``, which is encoded already; ``headers``, in lower case, must be sent as they are here.
    """
    time = time_text(wall_ms)
    signed = sorted({**headers, "host": host}.items())
    query = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{secret.access_key}/{time[:8]}/{region}/s3/aws4_request",
        "X-Amz-Date": time,
        "X-Amz-Expires": str(expires_s),
        "X-Amz-SignedHeaders": ";".join(name for name, _ in signed),
    }
    if secret.token:
        query["X-Amz-Security-Token"] = secret.token
    pairs = [f"{name}={quote(value, safe=_UNRESERVED)}" for name, value in query.items()]
    canonical = canonical_request(method, path, "&".join(sorted(pairs)), signed, UNSIGNED)
    made = signature(secret.secret_key, time, region, "s3", canonical)
    return f"{url}?{'&'.join(pairs)}&X-Amz-Signature={made}"
