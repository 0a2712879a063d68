"""LocalStack for a test: started on a free port with folders of its own, and gone at the end, whatever happens."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".localstack"
SERVICES = "s3,lambda,cloudformation,iam,sts,logs,events,scheduler"
START_S = 90.0
STOP_S = 10.0  # LocalStack may wait for a loop that has stopped already


def resolve_localhost() -> None:
    """Let names below ``localhost`` mean this machine in this process, as RFC 6761 and curl have it."""
    resolve = socket.getaddrinfo

    def resolve_here(host: Any, *rest: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return resolve("127.0.0.1" if name and name.endswith(".localhost") else host, *rest, **more)

    socket.getaddrinfo = resolve_here


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Emulator:
    """LocalStack in host mode, with functions as processes of ``python``. Use it as a context manager."""

    def __init__(self, python: str) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.version = ""
        self.scratch = Path(tempfile.mkdtemp(prefix="headwater-localstack-")).resolve()
        self.log = self.scratch / "localstack.log"
        self._process: subprocess.Popen[bytes] | None = None
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.environment = {
            **clean,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
        }
        self._own = {
            **{name: value for name, value in self.environment.items() if name != "AWS_ENDPOINT_URL"},
            "GATEWAY_LISTEN": f"127.0.0.1:{self.port}",
            "GATEWAY_SERVER": "hypercorn",  # the default server binds every address
            "LOCALSTACK_HOST": f"localhost:{self.port}",
            "SERVICES": SERVICES,
            "STRICT_SERVICE_LOADING": "1",
            "LAMBDA_RUNTIME_EXECUTOR": "process",
            "LAMBDA_RUNTIME_ENVIRONMENT_TIMEOUT": "60",
            "FUNCTION_PYTHON": python,
            "FUNCTION_RUNTIME": str(TOOLS / "runtime"),
            "DISABLE_EVENTS": "1",  # sends nothing about its use
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "DNS_ADDRESS": "0",
            "DISABLE_CORS_CHECKS": "1",
            "TMPDIR": str(self.scratch),
            "FILESYSTEM_ROOT": str(self.scratch / "filesystem"),
            "PYTHONUNBUFFERED": "1",
        }

    def __enter__(self) -> Emulator:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [TOOLS / "localstack/bin/python", ROOT / "infra/localstack/launch.py"],
                env=self._own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and every process of a function; remove its folders. A second call does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pid in self.functions():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shutil.rmtree(self.scratch, ignore_errors=True)

    def functions(self) -> list[int]:
        """Processes that run below the scratch folder: the functions. Empty where there is no /proc."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if (entry / "cwd").resolve().is_relative_to(self.scratch):
                    found.append(int(entry.name))
            except OSError:
                continue  # ended meanwhile, or not ours to look at
        return found

    def client(self, service: str) -> Any:
        """A boto3 client of the emulator's service."""
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def tail(self, lines: int = 30) -> str:
        """The end of its log, without the lines about each request."""
        text = self.log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in text if " INFO " not in line][-lines:])

    def _wait(self) -> None:
        assert self._process is not None
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            if self._process.poll() is not None:
                sys.exit(f"LocalStack ended at once:\n{self.tail()}")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/_localstack/health")
                self.version = json.loads(connection.getresponse().read())["version"]
            except (OSError, ValueError):
                time.sleep(0.2)
            else:
                return
        sys.exit(f"LocalStack did not start within {START_S:.0f} s:\n{self.tail()}")
