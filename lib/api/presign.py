"""Presigned URLs: stored bytes that a client reads or writes without us, bound to exact ranges and to minutes.

``Range``, ``Content-Length`` and ``If-None-Match`` are signed headers, so that a URL opens these bytes and no others,
and writes an object of this size, once. We sign ourselves (``headwater.api.sigv4``): it takes 50 µs, and importing
botocore takes a function longer than all its other work. Only credentials that the environment does not hold (a
profile, single sign-on, an instance's role) are botocore's to find.

Clients may know the bucket's service under another name than we do, behind a proxy or outside a container network:
``HEADWATER_PRESIGN_ENDPOINT`` is then the ``http(s)://host[:port]`` that URLs name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit
from weakref import WeakKeyDictionary

from headwater.api.sigv4 import Secret, presigned
from headwater.clock import Clock
from headwater.errors import InvalidRequest, Unauthorized
from headwater.limits import PRESIGN_S
from headwater.store.base import ObjectStore, check_key
from headwater.store.s3_url import S3Target, configured_region, parse_s3_url

PUBLIC_ENDPOINT: Final = "HEADWATER_PRESIGN_ENDPOINT"


class Presigner:
    """Presigns requests for one bucket, below one prefix. Keys are those of the store that it was made for."""

    def __init__(self, target: S3Target, *, prefix: str, key_bytes_max: int, clock: Clock) -> None:
        self._target = target
        self._prefix = prefix
        self._key_bytes_max = key_bytes_max
        self._clock = clock
        self._found: Any = None  # botocore's credentials, which renew themselves
        self._region = target.region or configured_region(target.profile, os.environ) or "us-east-1"
        self._base, self._host, self._folder = _place(target, self._region)

    def get(self, key: str, start: int, end: int, expires_s: int = PRESIGN_S) -> tuple[str, Mapping[str, str]]:
        """A URL for a GET of the bytes ``[start, end)``, and the headers that must go with it. Sends nothing."""
        if not 0 <= start < end:
            raise InvalidRequest(f"A range has at least one byte; [{start}, {end}) has none.")
        return self._signed("GET", key, {"range": f"bytes={start}-{end - 1}"}, expires_s)

    def put(self, key: str, length: int, expires_s: int = PRESIGN_S) -> tuple[str, Mapping[str, str]]:
        """A URL for one PUT of an object of ``length`` bytes, and the headers that must go with it. Sends nothing.

        A second PUT is answered with 412: what was checked and committed can never be exchanged.
        """
        return self._signed("PUT", key, {"content-length": str(length), "if-none-match": "*"}, expires_s)

    def _signed(
        self, method: str, key: str, headers: dict[str, str], expires_s: int
    ) -> tuple[str, Mapping[str, str]]:  # fmt: skip
        check_key(key, self._key_bytes_max)
        if not 1 <= expires_s <= PRESIGN_S:
            raise InvalidRequest(f"A presigned URL is good for 1 to {PRESIGN_S} seconds, not {expires_s}.")
        path = self._folder + quote(self._target.prefix + self._prefix + key, safe="/-_.~")
        url = presigned(
            self._secret(),
            method=method,
            url=self._base + path,
            host=self._host,
            path=path,
            headers=headers,
            region=self._region,
            wall_ms=self._clock.wall_ms(),
            expires_s=expires_s,
        )
        return url, headers

    def _secret(self) -> Secret:
        """The credentials of now, by AWS's usual search. They bound a URL's life too, if they end earlier."""
        env = os.environ
        if not self._target.profile and env.get("AWS_ACCESS_KEY_ID") and env.get("AWS_SECRET_ACCESS_KEY"):
            return Secret(
                access_key=env["AWS_ACCESS_KEY_ID"],
                secret_key=env["AWS_SECRET_ACCESS_KEY"],
                token=env.get("AWS_SESSION_TOKEN", ""),
            )
        if self._found is None:
            from botocore.session import Session  # most processes never need it

            self._found = Session(profile=self._target.profile).get_credentials()
        if self._found is None:
            raise Unauthorized("There are no AWS credentials in the environment, in a profile or from a role.")
        frozen = self._found.get_frozen_credentials()
        return Secret(access_key=frozen.access_key, secret_key=frozen.secret_key, token=frozen.token or "")


_presigners: WeakKeyDictionary[ObjectStore, Presigner] = WeakKeyDictionary()


def presigner(store: ObjectStore) -> Presigner | None:
    """The presigner of a store in S3, below whatever prefixes it is seen; None for every other store.

    Directory buckets (S3 Express) have none: their URLs need a session each.
    """
    known = _presigners.get(store)
    if known is None:
        known = _made(store)
        if known is not None:
            _presigners[store] = known
    return known


def _made(store: ObjectStore) -> Presigner | None:
    from headwater.store.prefixed import PrefixedStore
    from headwater.store.s3_base import S3Base

    inner: Any = store
    prefix = ""
    while not isinstance(inner, S3Base):
        if isinstance(inner, PrefixedStore):
            prefix = inner.prefix + prefix
        inner = getattr(inner, "inner", None)
        if inner is None:
            return None
    if inner.target.is_express:
        return None
    return Presigner(
        _as_seen_by_clients(inner.target, os.environ),
        prefix=prefix,
        key_bytes_max=store.key_bytes_max,
        clock=inner._clock,
    )


def _as_seen_by_clients(target: S3Target, env: Mapping[str, str]) -> S3Target:
    """The bucket at the endpoint that clients know it by. Raises ``InvalidRequest`` if that is no endpoint."""
    endpoint_url = env.get(PUBLIC_ENDPOINT)
    if not endpoint_url:
        return target
    query = urlencode({"endpoint_url": endpoint_url})
    return replace(target, endpoint_url=parse_s3_url(f"s3://{target.bucket}?{query}", {}).endpoint_url)


def _place(target: S3Target, region: str) -> tuple[str, str, str]:
    """Scheme and host of the bucket's URLs, the host as it is signed, and the path before every key."""
    parts = urlsplit(target.endpoint_url or f"https://s3.{region}.amazonaws.com")
    virtual = target.addressing == "virtual"
    host = f"{target.bucket}.{parts.netloc}" if virtual else parts.netloc
    folder = parts.path.rstrip("/") + ("/" if virtual else f"/{target.bucket}/")
    return f"{parts.scheme}://{host}", _without_port(parts.scheme, host), folder


def _without_port(scheme: str, host: str) -> str:
    """What a client sends as ``Host``: the port only where it is not the scheme's own."""
    return host.removesuffix({"http": ":80", "https": ":443"}[scheme])
