"""Object stores: one protocol (see ``base``), and memory, a directory and S3 behind it.

``open_store`` is the door. Importing this package imports no client of S3.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from headwater.clock import Clock
from headwater.errors import InvalidRequest
from headwater.store.base import Blob, Body, ObjectStore, Stat

__all__ = ["Blob", "Body", "ObjectStore", "Stat", "open_store"]

S3_CLIENT = "obstore"  # a third of aioboto3's CPU, a fifteenth of its import: scripts/bench_s3_clients.py
FORMS = "memory://name, file:///absolute/dir, file://./relative/dir, s3://bucket/prefix"


def open_store(url: str, *, clock: Clock | None = None, client: str | None = None) -> ObjectStore:
    """The store at ``url``. Nothing is sent; whether the bucket is there shows at the first request.

    ``memory://name`` is shared by name within the process. For ``s3://``, ``client`` (``obstore`` or ``aioboto3``)
    goes before the URL's own option and before ``HEADWATER_S3_CLIENT``; ``s3_url`` lists the options. Call
    ``aclose`` at the end.

    Raises:
        InvalidRequest: the URL is malformed; the message says which forms are right.
    """
    scheme, mark, rest = url.partition("://")
    if mark and scheme == "memory":
        return _memory(rest, clock)
    if mark and scheme == "file":
        return _local(rest, clock)
    if mark and scheme == "s3":
        return _s3(url, clock, client)
    raise InvalidRequest(f"A store's URL is one of {FORMS}; this one starts with {scheme[:20]!r}.")


def _memory(name: str, clock: Clock | None) -> ObjectStore:
    from headwater.store.memory import MemoryStore

    if not name or any(char in name for char in "?#/"):
        raise InvalidRequest("The URL of a store in memory is memory://name, with a name of letters, digits, - or _.")
    return MemoryStore(name, clock=clock)


def _local(rest: str, clock: Clock | None) -> ObjectStore:
    from headwater.store.local import LocalStore

    if not rest.startswith(("/", "./", "../")) or "?" in rest or "#" in rest:
        raise InvalidRequest(
            "The URL of a store in a directory is file:///absolute/dir or file://./relative/dir, "
            "with '?' and '#' written as %3F and %23."
        )
    return LocalStore(Path(unquote(rest)), clock=clock)


def _s3(url: str, clock: Clock | None, client: str | None) -> ObjectStore:
    from headwater.store.s3_url import CLIENTS, parse_s3_url

    target = parse_s3_url(url, os.environ)
    chosen = client or target.client or os.environ.get("HEADWATER_S3_CLIENT") or S3_CLIENT
    if chosen == "obstore":
        from headwater.store.s3_obstore import ObstoreS3Store

        return ObstoreS3Store(target, clock=clock)
    if chosen == "aioboto3":
        from headwater.store.s3_aioboto3 import Aioboto3S3Store

        return Aioboto3S3Store(target, clock=clock)
    raise InvalidRequest(f"The S3 client is {' or '.join(CLIENTS)}, not {chosen[:80]!r}.")
