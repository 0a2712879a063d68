"""What one request costs in CPU with each S3 client, and what its import costs a cold start.

    python scripts/bench_s3_clients.py [--json] [--requests 500]

Each client runs in a process of its own against a stub server in another process, so that only the client is
measured: µs of CPU for each request of 1 KB, one after another and 16 in flight (a list answers with 10 keys), and
milliseconds from `import` to a store that has had its first answer.

Measured in November 2026 on 2 shared cores (Python 3.11, obstore 0.12.1, aioboto3 15.5.0; ±30 %):

                         obstore    aioboto3
    import ms                 46         802
    import CPU ms             40         765
    put_if_absent x1         270         869
    put_if_absent x16        167         685
    get x1                   351         926
    get x16                  237         902
    list x1                  490        1536
    list x16                 350        1416

So obstore is the default everywhere. aioboto3 knows a few more sources of credentials: choose it with
HEADWATER_S3_CLIENT=aioboto3 or the URL's option client=aioboto3.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable

from headwater.clock import cpu_s, stopwatch_s

CLIENTS = ("obstore", "aioboto3")
KINDS = ("put_if_absent", "get", "list")
IN_FLIGHT = 16
BODY = bytes(1_024)
DATE = "Sun, 01 Nov 2026 00:00:00 GMT"
ENTRY = (
    "<Contents><Key>p/k/{0:020d}</Key><LastModified>2026-11-01T00:00:00.000Z</LastModified>"
    '<ETag>"e"</ETag><Size>1024</Size><StorageClass>STANDARD</StorageClass></Contents>'
)
LISTING = (
    '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>bucket</Name><Prefix>p/k/</Prefix><KeyCount>10</KeyCount><MaxKeys>1000</MaxKeys>"
    f"<IsTruncated>false</IsTruncated>{''.join(ENTRY.format(number) for number in range(10))}</ListBucketResult>"
).encode()


async def serve() -> None:
    """The stub: it answers at once and stores nothing."""

    def answer(body: bytes) -> bytes:
        lines = [
            "HTTP/1.1 200 OK",
            f"Date: {DATE}",
            f"Last-Modified: {DATE}",
            'ETag: "e"',
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body

    put, get, listing = answer(b""), answer(BODY), answer(LISTING)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if b"content-length: " in head:
                    await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
                writer.write(put if head.startswith(b"put") else listing if b"list-type" in head else get)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def measure(client: str, url: str, requests: int) -> dict[str, float]:
    """The figures of one client, in this process."""
    start_wall, start_cpu = stopwatch_s(), cpu_s()
    from headwater.store import open_store

    store = open_store(url, client=client)
    await store.get("k/first")
    figures = {"import ms": (stopwatch_s() - start_wall) * 1e3, "import CPU ms": (cpu_s() - start_cpu) * 1e3}

    async def listed() -> None:
        assert len([stat async for stat in store.list("k/")]) == 10

    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "put_if_absent": lambda: store.put_if_absent("k/1", BODY),
        "get": lambda: store.get("k/1"),
        "list": listed,
    }
    for kind, call in calls.items():
        await asyncio.gather(*(call() for _ in range(IN_FLIGHT)))
        for width in (1, IN_FLIGHT):
            start_cpu = cpu_s()
            for _ in range(requests // width):
                await asyncio.gather(*(call() for _ in range(width)))
            figures[f"{kind} x{width}"] = (cpu_s() - start_cpu) / (requests // width * width) * 1e6
    await store.aclose()
    return figures


def child(*arguments: str) -> subprocess.Popen[str]:
    """This script once more, in a process of its own."""
    env = {**os.environ, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "NO_PROXY": "127.0.0.1"}
    return subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, env=env)


def compare(requests: int) -> dict[str, dict[str, float]]:
    """The figures of every client."""
    stub = child("--serve")
    assert stub.stdout is not None
    try:
        url = f"s3://bucket/p?region=us-east-1&endpoint_url=http://127.0.0.1:{stub.stdout.readline().strip()}"
        found = {}
        for client in CLIENTS:
            measured = child("--measure", client, "--url", url, "--requests", str(requests))
            found[client] = json.loads(measured.communicate()[0])
        return found
    finally:
        stub.terminate()
        stub.communicate()


def table(found: dict[str, dict[str, float]]) -> str:
    """The figures side by side."""
    rows = list(next(iter(found.values())))
    lines = [f"{'':18}" + "".join(f"{client:>12}" for client in found)]
    lines += [f"{row:18}" + "".join(f"{figures[row]:12.0f}" for figures in found.values()) for row in rows]
    return "\n".join(lines)


def main() -> None:
    """Read the arguments and do what they ask."""
    parser = argparse.ArgumentParser(description="CPU of the S3 clients, in µs for each request.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--requests", type=int, default=500, help="requests of each kind")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        asyncio.run(serve())
    elif asked.measure:
        print(json.dumps(asyncio.run(measure(asked.measure, asked.url, asked.requests))))
    else:
        found = compare(asked.requests)
        print(json.dumps(found) if asked.json else table(found))


if __name__ == "__main__":
    main()
