"""A bucket in this process, spoken to over HTTP as S3 is: enough of it for a benchmark's fresh processes.

GET (whole and ranges), HEAD, PUT with ``If-None-Match: *``, DeleteObjects, and ListObjectsV2, over a ``MemoryStore``.
Signatures are not looked at. What it costs is not part of what is measured: it runs in another process than the one
measured.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from xml.sax.saxutils import escape, unescape

from aiohttp import web

from headwater.errors import AlreadyExists, NotFound
from headwater.store.base import ObjectStore, Stat

BODY_BYTES_MAX = 128 << 20


@contextmanager
def serving(store: ObjectStore, bucket: str = "bench") -> Iterator[str]:
    """Serve ``store`` on a free port of this machine; the ``s3://`` URL of it."""
    loop = asyncio.new_event_loop()
    ready: list[int] = []
    up, stop = threading.Event(), asyncio.Event()

    async def main() -> None:
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_route("*", "/{bucket}{tail:/?}", _List(store).answer)
        app.router.add_route("*", "/{bucket}/{key:.+}", _Objects(store).answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ready.append(runner.addresses[0][1])
        up.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    up.wait()
    try:
        yield f"s3://{bucket}/hw?endpoint_url=http://127.0.0.1:{ready[0]}&region=us-east-1"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


class _Objects:
    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    async def answer(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        try:
            if request.method == "PUT":
                body = await request.read()
                absent = request.headers.get("If-None-Match") == "*"
                stat = await (self.store.put_if_absent if absent else self.store.put)(key, body)
                return web.Response(headers={"ETag": f'"{stat.etag}"'})
            if request.method == "HEAD":
                stat = await self.store.head(key)
                return web.Response(headers={**_headers(stat), "Content-Length": str(stat.size)})
            if request.method == "DELETE":
                await self.store.delete([key])
                return web.Response(status=204)
            blob = await self.store.get(key)
        except NotFound:
            return _error(404, "NoSuchKey")
        except AlreadyExists:
            return _error(412, "PreconditionFailed")
        data, headers, status = blob.data, _headers(blob.stat), 200
        if "Range" in request.headers:
            asked = request.http_range
            start, end, _ = asked.indices(len(data))
            headers["Content-Range"], status = f"bytes {start}-{end - 1}/{len(data)}", 206
            data = data[start:end]
        return web.Response(status=status, body=data, headers=headers)


class _List:
    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    async def answer(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if request.method == "POST":
            return await self._deleted(request)
        limit = int(query.get("max-keys", "1000"))
        after = query.get("continuation-token") or query.get("start-after", "")
        found = [s async for s in self.store.list(query.get("prefix", ""), start_after=after, limit=limit + 1)]
        more, found = len(found) > limit, found[:limit]
        rows = "".join(
            f"<Contents><Key>{escape(s.key)}</Key><LastModified>{_iso(s.modified_ms)}</LastModified>"
            f"<ETag>&quot;{s.etag}&quot;</ETag><Size>{s.size}</Size></Contents>"
            for s in found
        )
        token = f"<NextContinuationToken>{escape(found[-1].key)}</NextContinuationToken>" if more else ""
        text = (
            f'<?xml version="1.0"?><ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>'
            f"<KeyCount>{len(found)}</KeyCount>{token}{rows}</ListBucketResult>"
        )
        return web.Response(body=text.encode(), content_type="application/xml")

    async def _deleted(self, request: web.Request) -> web.Response:
        """DeleteObjects."""
        names = [unescape(name) for name in re.findall("<Key>(.*?)</Key>", await request.text())]
        await self.store.delete(names)
        rows = "".join(f"<Deleted><Key>{escape(name)}</Key></Deleted>" for name in names)
        text = f'<?xml version="1.0"?><DeleteResult>{rows}</DeleteResult>'
        return web.Response(body=text.encode(), content_type="application/xml")


def _headers(stat: Stat) -> dict[str, str]:
    modified = datetime.fromtimestamp(stat.modified_ms / 1_000, UTC)
    return {"ETag": f'"{stat.etag}"', "Last-Modified": format_datetime(modified, usegmt=True)}


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _error(status: int, code: str) -> web.Response:
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return web.Response(status=status, body=text.encode(), content_type="application/xml")
