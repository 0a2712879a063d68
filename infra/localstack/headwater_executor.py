"""Lambda functions as processes of this machine: a runtime executor for a LocalStack that has no Docker.

LocalStack makes one executor for each execution environment. This one starts `python -m awslambdaric HANDLER` on the
unzipped package and is the Lambda service to it: it serves the Runtime API (version 2018-06-01) on a loopback port.

    LocalStack ── invoke(payload) ──► queue ──► GET  …/runtime/invocation/next            ──► the handler
        ▲                                                                                        │
        └──────────── result ◄───────────────── POST …/runtime/invocation/<id>/{response,error} ◄┘

As in Lambda: a time-out kills the process and the next invocation starts another; so does a crash, whose exit status
the caller hears; an answer above 6 MB is an error; environment variables, credentials and limits come from LocalStack.

    LAMBDA_RUNTIME_EXECUTOR=process   chooses this executor
    FUNCTION_PYTHON                   the interpreter, a real one of the functions' version
    FUNCTION_RUNTIME                  a folder with awslambdaric, as /var/runtime is on the platform
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from localstack import config
from localstack.services.lambda_.invocation.executor_endpoint import StatusErrorException
from localstack.services.lambda_.invocation.lambda_models import InvocationResult
from localstack.services.lambda_.invocation.plugins import RuntimeExecutorPlugin
from localstack.services.lambda_.invocation.runtime_executor import RuntimeExecutor

ANSWER_BYTES_MAX = 6 * 1024 * 1024 + 100  # what Lambda lets through, its own envelope included
LOG_LINES_MAX = 10_000  # of one invocation; a handler that prints without end must not fill the memory
STOP_S = 2.0  # a process that was told to end gets this long, as on the platform
PATHS = re.compile(r"/2018-06-01/runtime/(?:init/(?P<init>error)|invocation/(?P<id>[^/]+)/(?P<end>response|error))\Z")
NEXT = "/2018-06-01/runtime/invocation/next"
LOG = logging.getLogger(__name__)


def failure(kind: str, message: str) -> bytes:
    """What the platform itself says when a function could not answer."""
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


class RuntimeApi(BaseHTTPRequestHandler):
    """The Runtime API towards one process. ``server.process`` is the ``Process`` that it belongs to."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any

    def do_GET(self) -> None:
        """Hold the request until there is an invocation, and hand it out."""
        if self.path != NEXT:
            self._reply(404)
            return
        work = self.server.process.next()
        if work is None:
            self.close_connection = True
            return
        self._reply(
            200,
            work["payload"].encode(),
            {
                "Content-Type": "application/json",
                "Lambda-Runtime-Aws-Request-Id": work["invoke-id"],
                "Lambda-Runtime-Invoked-Function-Arn": work["invoked-function-arn"],
                "Lambda-Runtime-Trace-Id": work["trace-id"],
                "Lambda-Runtime-Deadline-Ms": str(work["deadline_ms"]),
            },
        )

    def do_POST(self) -> None:
        """Take an answer, or the news that there is none."""
        body, path = self._body(), PATHS.match(self.path)
        if path is None:
            self._reply(404)
            return
        self._reply(202, b'{"status":"OK"}', {"Content-Type": "application/json"})
        if path["init"]:
            self.server.process.init_failed(body)
        else:
            self.server.process.finish(path["id"], body, is_error=path["end"] == "error")

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(parts)

    def _reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the function's own lines are what counts."""


class Process:
    """One process of a function with its Runtime API. It serves one invocation at a time, until it ends."""

    def __init__(self, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
        self.ready: Future[bool] = Future()
        self._work: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._current: tuple[str, Future[tuple[bytes, bool]]] | None = None
        self._lines: list[str] = []
        self._lock = threading.Lock()
        self._api = ThreadingHTTPServer(("127.0.0.1", 0), RuntimeApi)
        self._api.daemon_threads = True
        self._api.process = self  # type: ignore[attr-defined]
        threading.Thread(target=self._api.serve_forever, args=(0.05,), daemon=True).start()
        self._process = subprocess.Popen(
            arguments,
            cwd=folder,
            env={**environment, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.server_port}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def invoke(self, work: dict[str, Any], timeout_s: float) -> tuple[bytes, bool]:
        """Raises ``TimeoutError``; the caller then ends the process."""
        done: Future[tuple[bytes, bool]] = Future()
        with self._lock:
            self._current = (work["invoke-id"], done)
        self._work.put(work)
        if not self.alive:
            self._ended()
        return done.result(timeout_s)

    def next(self) -> dict[str, Any] | None:
        """The next invocation, as soon as there is one; None when the process is to end."""
        if not self.ready.done():
            self.ready.set_result(True)
        return self._work.get()

    def finish(self, invocation: str, body: bytes, *, is_error: bool) -> None:
        """The first answer counts, and only to the question that was asked."""
        with self._lock:
            if self._current is None or self._current[0] != invocation:
                return
            done, self._current = self._current[1], None
        if len(body) > ANSWER_BYTES_MAX:
            told = f"Response payload size exceeded maximum allowed payload size ({ANSWER_BYTES_MAX} bytes)."
            body, is_error = failure("Function.ResponseSizeTooLarge", told), True
        done.set_result((body, is_error))

    def init_failed(self, body: bytes) -> None:
        if not self.ready.done():
            self.ready.set_exception(StatusErrorException("The function failed while it was imported.", payload=body))

    def take_lines(self) -> list[str]:
        """What it has printed since the last call."""
        with self._lock:
            lines, self._lines = self._lines, []
        return lines

    def end(self) -> None:
        """End it, with all that it may have started. A second call does nothing."""
        for kill, patience_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, None)):
            if not self.alive:
                break
            try:
                os.killpg(self._process.pid, kill)
                self._process.wait(patience_s)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self._work.put(None)
        self._api.shutdown()
        self._api.server_close()

    def _watch(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._lock:
                if len(self._lines) < LOG_LINES_MAX:
                    self._lines.append(line.decode(errors="replace"))
        self._process.wait()
        self._ended()

    def _ended(self) -> None:
        told = f"Runtime exited with error: exit status {self._process.returncode}"
        self.init_failed(failure("Runtime.ExitError", told))
        current = self._current
        if current is not None:
            answer = failure("Runtime.ExitError", f"RequestId: {current[0]} Error: {told}")
            self.finish(current[0], answer, is_error=True)


class ProcessExecutor(RuntimeExecutor):
    """An execution environment: a process, and another one when it has died."""

    def __init__(self, id: str, function_version: Any) -> None:  # noqa: A002 (LocalStack's name)
        super().__init__(id, function_version)
        self._process: Process | None = None
        self._environment: dict[str, str] = {}
        self._scratch = ""
        self._init_lines: list[str] = []

    def start(self, env_vars: dict[str, Any]) -> None:
        self._environment = {name: str(value) for name, value in env_vars.items()}
        self._scratch = tempfile.mkdtemp(prefix=f"function-{self.function_version.id.function_name}-")
        self._spawn()

    def stop(self) -> None:
        if self._process is not None:
            self._process.end()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def invoke(self, payload: dict[str, str]) -> InvocationResult:
        if self._process is None or not self._process.alive:
            self._spawn()
        assert self._process is not None
        timeout_s = self.function_version.config.timeout
        start_s, invocation = time.time(), payload["invoke-id"]
        deadline_ms = int((start_s + timeout_s) * 1_000)
        try:
            body, is_error = self._process.invoke({**payload, "deadline_ms": deadline_ms}, timeout_s)
        except TimeoutError:
            self._process.end()
            told = f"RequestId: {invocation} Error: Task timed out after {timeout_s:.2f} seconds"
            body, is_error = failure("Sandbox.Timedout", told), True
        lines = [
            f"START RequestId: {invocation} Version: {self.function_version.id.qualifier}\n",
            *self._process.take_lines(),
            f"END RequestId: {invocation}\n",
            f"REPORT RequestId: {invocation}\tDuration: {(time.time() - start_s) * 1_000:.2f} ms\n",
        ]
        return InvocationResult(invocation, body, is_error=is_error, logs="".join(lines))

    def get_address(self) -> str:
        return "127.0.0.1"

    def get_endpoint_from_executor(self) -> str:
        return "127.0.0.1"

    def get_runtime_endpoint(self) -> str:
        return f"http://127.0.0.1:{config.GATEWAY_LISTEN[0].port}/_localstack_lambda/{self.id}"

    def get_logs(self) -> str:
        return "".join(self._process.take_lines()) if self._process is not None else ""

    @classmethod
    def prepare_version(cls, function_version: Any) -> None:
        for code in _codes(function_version.config):
            code.prepare_for_execution()

    @classmethod
    def cleanup_version(cls, function_version: Any) -> None:
        """Nothing was made that outlives the environments."""

    def _spawn(self) -> None:
        if self._process is not None:
            self._process.end()
        wanted = self.function_version.config
        python, runtime = os.environ["FUNCTION_PYTHON"], os.environ["FUNCTION_RUNTIME"]
        if wanted.package_type != "Zip" or not wanted.runtime.startswith("python"):
            raise NotImplementedError(f"Only zipped Python functions run as processes, not {wanted.runtime}.")
        task, *layers = [str(code.get_unzipped_code_location()) for code in _codes(wanted)]
        path = [task, *(f"{layer}/python" for layer in layers), runtime, self._environment.get("PYTHONPATH", "")]
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "en_US.UTF-8",
            "HOME": self._scratch,
            "TMPDIR": self._scratch,
            **self._environment,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "LAMBDA_TASK_ROOT": task,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{wanted.runtime}",
        }
        # -s and -S: nothing of this machine's own packages, only what the function ships and the platform brings.
        self._process = Process([python, "-s", "-S", "-m", "awslambdaric", wanted.handler], task, environment)
        self._process.ready.result(config.LAMBDA_RUNTIME_ENVIRONMENT_TIMEOUT)


def _codes(wanted: Any) -> list[Any]:
    """The package and its layers."""
    return [code for code in (wanted.code, *(layer.code for layer in wanted.layers)) if code]


class ProcessPlugin(RuntimeExecutorPlugin):
    """What LocalStack loads when LAMBDA_RUNTIME_EXECUTOR is ``process``."""

    name = "process"

    def load(self, *_: object, **__: object) -> type[RuntimeExecutor]:
        return ProcessExecutor
