"""A tiny S3 stand-in that misbehaves on order: it counts what arrives and then breaks off, stalls or lies."""

from __future__ import annotations

import asyncio
import email.utils
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import unquote

ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'


@dataclass(slots=True)
class FaultyS3:
    """``fault`` rules the requests whose method is ``on``; everything else is served properly.

    Faults: ``drop`` (apply, close without an answer), ``drop_early`` (close before the body is read, nothing
    applied), ``half`` (apply, half a status line, close), ``hang`` (apply, never answer), ``trickle`` (answer a
    byte at a time, without an end), ``error_in_200`` (200 with an error inside), ``hang_up`` (a proper answer,
    then close), ``blind`` (conditions are not looked at),
    ``short_body`` (half of a GET's body, then close), or ``"<status> <Code>"``.
    """

    fault: str = ""
    on: str = "PUT"
    times: int = 1_000
    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests of one connection, until somebody hangs up."""
        try:
            while line := await reader.readline():
                if not await self._request(line.decode().split(), reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _request(self, line: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        method, path = line[0], unquote(line[1])
        headers: dict[str, str] = {}
        while (raw := (await reader.readline()).decode().strip()) != "":
            name, _, value = raw.partition(":")
            headers[name.lower()] = value.strip()
        self.seen[method] += 1
        self.headers.append(headers)
        fault = self.fault if method == self.on and self.times > 0 else ""
        self.times -= bool(fault)
        if fault == "drop_early":
            return False
        if headers.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if fault[:1].isdigit():
            status, _, code = fault.partition(" ")
            return await self._answer(writer, int(status), ERROR.format(code=code, message="as told").encode(), method)
        if method == "PUT" and fault != "blind" and "if-none-match" in headers and path in self.objects:
            return await self._answer(writer, 412, ERROR.format(code="PreconditionFailed", message="").encode(), method)
        if method == "PUT":
            self.objects[path] = body
        if method == "POST" and not fault:
            self.objects.clear()
            return await self._answer(writer, 200, b"<DeleteResult></DeleteResult>", method)
        if fault == "hang_up":
            await self._answer(writer, 200, b"", method)
            return False
        if fault and fault != "blind":
            return await self._misbehave(fault, writer)
        if method == "PUT":
            return await self._answer(writer, 200, b"", method)
        if path not in self.objects:
            return await self._answer(writer, 404, ERROR.format(code="NoSuchKey", message="").encode(), method)
        return await self._answer(writer, 200, self.objects[path], method)

    async def _misbehave(self, fault: str, writer: asyncio.StreamWriter) -> bool:
        if fault == "short_body":
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\nETag: "e"\r\n')
            writer.write(b"Last-Modified: Thu, 01 Oct 2026 00:00:00 GMT\r\n\r\nhalf")
        elif fault == "half":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
        elif fault == "error_in_200":
            body = ERROR.format(code="InternalError", message="We lied.").encode()
            return await self._answer(writer, 200, body, "PUT", etag=False)
        elif fault == "hang":
            await asyncio.sleep(3_600)
        elif fault == "trickle":
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                writer.write(b"x-slow: 1\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        await writer.drain()
        return False

    async def _answer(
        self, writer: asyncio.StreamWriter, status: int, body: bytes, method: str, *, etag: bool = True
    ) -> bool:
        now = email.utils.formatdate(usegmt=True)
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", f"Date: {now}", f"Last-Modified: {now}"]
        lines += ['ETag: "e"'] if etag else []
        lines += ["Content-Type: application/xml"] if status != 200 or not etag else []
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (body if method != "HEAD" else b""))
        await writer.drain()
        return True


@asynccontextmanager
async def faulty_s3(fault: str = "", *, on: str = "PUT", times: int = 1_000) -> AsyncIterator[FaultyS3]:
    """The server on a free loopback port, for as long as the block lasts."""
    fake = FaultyS3(fault=fault, on=on, times=times)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(fake.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield fake
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
