"""Stores to measure on: memory, a directory, or a bucket of S3 that a server in another process of this machine has."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

from headwater.store.memory import MemoryStore

CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def bucket(store: str) -> Iterator[str]:
    """The URL of a fresh store, which is gone afterwards: ``memory``, ``file`` or ``s3``."""
    if store == "memory":
        yield "memory://bench"
    elif store == "file":
        with tempfile.TemporaryDirectory() as folder:
            yield f"file://{os.path.realpath(folder)}"
    else:
        with environment(CREDENTIALS), _server() as url:
            yield url


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """These variables for this process, and for those that it starts meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _server() -> Iterator[str]:
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    server = spawn.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    try:
        yield mine.recv()
    finally:
        mine.send("stop")
        server.join(10)
        server.kill()


def _serve(pipe: Connection[Any, Any]) -> None:
    from headwater.bench.s3_stub import serving

    with serving(MemoryStore()) as url:
        pipe.send(url)
        pipe.recv()
