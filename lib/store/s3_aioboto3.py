"""S3 through aioboto3: AWS's own credentials, endpoints and signatures, at three times obstore's CPU.

The client is opened at the first request, inside the running event loop, and opened anew if the store is used in
another loop later. Nothing below sends a request twice (C4): botocore's retries are off, and so is aiohttp's own
re-sending of a PUT on a connection that dropped.
"""

from __future__ import annotations

import asyncio
import email.utils
import io
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeVar

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from botocore import exceptions as boto
from botocore.handlers import add_expect_header

from headwater.clock import Clock
from headwater.errors import HeadwaterError, Indeterminate
from headwater.store.base import Blob, Body, Stat, joined
from headwater.store.s3_base import CONNECTIONS_MAX, IDLE_S_MAX, PAGE_KEYS_MAX, S3Base
from headwater.store.s3_errors import RETRY_AFTER_MS, Failure, Verb
from headwater.store.s3_url import S3Target

T = TypeVar("T")
UNKNOWN = -1
STREAM_BYTES_MIN = 1 << 20  # aiohttp sends a longer ``bytes`` in one piece, which stalls the loop, and warns
_NO_CREDENTIALS = (
    boto.CredentialRetrievalError,
    boto.NoAuthTokenError,
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
    boto.SSOError,
    boto.TokenRetrievalError,
)
_NOT_SENT = (
    aiohttp.ClientConnectorError,  # refused, no such host, no TLS
    aiohttp.ConnectionTimeoutError,
    boto.ConnectTimeoutError,
    boto.ProxyConnectionError,
    boto.SSLError,
)


class _OnceSession(AIOHTTPSession):
    """HTTP that sends a request once. aiohttp takes PUT for repeatable, and a conditional one is not."""

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = await super()._get_session(proxy_url)  # type: ignore[misc]
        session._retry_connection = False
        return session


class Aioboto3S3Store(S3Base):
    """An ``s3://`` store on aioboto3. ``aclose`` closes the client; a later request would open a new one."""

    def __init__(self, target: S3Target, *, clock: Clock | None = None) -> None:
        super().__init__(target, clock=clock)
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        inner = self._inner_key(key)
        if end is not None and end <= start:
            return Blob(data=b"", stat=await self.head(key))
        ranged = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end is not None else {}

        async def call(client: Any) -> tuple[dict[str, Any], bytes]:
            answer = await client.get_object(Bucket=self.target.bucket, Key=inner, **ranged)
            async with answer["Body"] as stream:
                return answer, await stream.read()

        try:
            answer, data = await self._send("get", key, call)
        except _Unsatisfiable:
            return Blob(data=b"", stat=await self.head(key))
        size = int(answer["ContentRange"].rpartition("/")[2]) if "ContentRange" in answer else len(data)
        return Blob(data=data, stat=_stat(key, size, answer))

    async def head(self, key: str) -> Stat:
        inner = self._inner_key(key)
        answer = await self._send("head", key, lambda client: client.head_object(Bucket=self.target.bucket, Key=inner))
        return _stat(key, answer["ContentLength"], answer)

    async def put(self, key: str, body: Body) -> Stat:
        return await self._put("put", key, body)

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        return await self._put("put_if_absent", key, body, IfNoneMatch="*")

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        return await self._put("put_if_match", key, body, IfMatch=etag)

    async def delete(self, keys: Sequence[str]) -> None:
        inner = [{"Key": self._inner_key(key)} for key in keys]
        for first in range(0, len(inner), PAGE_KEYS_MAX):
            await self._delete_page(inner[first : first + PAGE_KEYS_MAX])

    async def aclose(self) -> None:
        self._client = None
        stack, self._stack = self._stack, AsyncExitStack()
        if self._loop is asyncio.get_running_loop():
            await stack.aclose()

    async def _delete_page(self, objects: Sequence[dict[str, str]]) -> None:
        wanted = {"Objects": objects, "Quiet": True}
        bucket, first = self.target.bucket, self._outer_key(objects[0]["Key"])
        answer = await self._send("delete", first, lambda client: client.delete_objects(Bucket=bucket, Delete=wanted))
        # The whole answers 200 even if some of its parts failed.
        for part in answer.get("Errors", ()):
            code = part.get("Code", "")
            if code != "NoSuchKey":
                status = 403 if code == "AccessDenied" else 500
                failure = Failure(kind="answer", status=status, code=code, message=part.get("Message", ""))
                raise self._error(failure, "delete", self._outer_key(part["Key"]))

    async def _put(self, verb: Verb, key: str, body: Body, **condition: str) -> Stat:
        inner, data = self._inner_key(key), joined(body)
        sent = data if len(data) < STREAM_BYTES_MIN else io.BytesIO(data)
        answer = await self._send(
            verb, key, lambda client: client.put_object(Bucket=self.target.bucket, Key=inner, Body=sent, **condition)
        )
        if not answer.get("ETag"):
            raise Indeterminate(f"The answer to the {verb} of {key!r} in {self.url} has no ETag.", token=key)
        return _stat(key, len(data), answer)

    async def _pages(self, prefix: str, start_after: str, limit: int | None) -> AsyncGenerator[Sequence[Stat], None]:
        asked: dict[str, Any] = {"Bucket": self.target.bucket, "Prefix": self.target.prefix + prefix}
        asked["MaxKeys"] = PAGE_KEYS_MAX if limit is None else min(limit, PAGE_KEYS_MAX)
        if start_after and self.target.lists == "sorted":
            asked["StartAfter"] = self.target.prefix + start_after
        while True:
            answer = await self._send("list", prefix, lambda client: client.list_objects_v2(**asked))
            date_ms = _date_ms(answer)
            yield [
                Stat(
                    key=self._outer_key(found["Key"]),
                    size=found["Size"],
                    etag=found.get("ETag", ""),
                    modified_ms=int(found["LastModified"].timestamp() * 1_000),
                    date_ms=date_ms,
                )
                for found in answer.get("Contents", ())
            ]
            if not answer.get("IsTruncated"):
                return
            asked["ContinuationToken"] = answer["NextContinuationToken"]

    async def _send(self, verb: Verb, key: str, call: Callable[[Any], Awaitable[T]]) -> T:
        """One request, its failure translated. Its time is bounded as a whole, however slowly bytes drip in."""
        sending = False
        try:
            client = await self._opened()  # reads botocore's models for some 0.2 s, which is no request's time
            sending = True
            async with asyncio.timeout(self.target.timeout_s):
                return await call(client)
        except HeadwaterError:
            raise
        except Exception as error:
            failure = _failure(error)
            if failure.status == 416:
                raise _Unsatisfiable from None
            if failure.kind == "lost" and not sending:
                failure = Failure(kind="not_sent", message=failure.message)
            raise self._error(failure, verb, key) from None

    async def _opened(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # A client lives and dies with its loop; what is left of the old one cannot be awaited here.
            self._loop, self._client, self._stack = loop, None, AsyncExitStack()
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._client is None:
                self._client = await self._stack.enter_async_context(_client(self.target))
                # Expect: 100-continue would cost every PUT a round trip before its body is sent.
                self._client.meta.events.unregister("before-call.s3", add_expect_header)
        return self._client


class _Unsatisfiable(Exception):
    """A range that starts past the end of its object."""


def _client(target: S3Target) -> Any:
    session = aioboto3.Session(profile_name=target.profile)
    return session.client(
        "s3",
        endpoint_url=target.endpoint_url,
        region_name=target.region or (session.region_name or "us-east-1"),
        config=AioConfig(
            http_session_cls=_OnceSession,
            connector_args={"keepalive_timeout": IDLE_S_MAX},
            max_pool_connections=CONNECTIONS_MAX,
            connect_timeout=target.connect_timeout_s,
            read_timeout=target.timeout_s,
            retries={"total_max_attempts": 1, "mode": "standard"},
            s3={"addressing_style": target.addressing},
            # Our bytes carry their own checksums; other services than AWS stumble over these.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _stat(key: str, size: int, answer: dict[str, Any]) -> Stat:
    modified = answer.get("LastModified")
    modified_ms = int(modified.timestamp() * 1_000) if modified else UNKNOWN
    return Stat(key=key, size=size, etag=answer.get("ETag", ""), modified_ms=modified_ms, date_ms=_date_ms(answer))


def _date_ms(answer: dict[str, Any]) -> int:
    """The Date of the answer: the store's clock (C8)."""
    with suppress(KeyError, TypeError, ValueError):
        date = email.utils.parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return int(date.timestamp() * 1_000)
    return UNKNOWN


def _failure(error: Exception) -> Failure:
    """What an exception of botocore or aiohttp says."""
    if isinstance(error, boto.ClientError):
        return _answer(error)
    if isinstance(error, _NO_CREDENTIALS):
        return Failure(kind="credentials", message=str(error))
    cause = getattr(error, "kwargs", {}).get("error", error)
    short = f"{type(cause).__name__}: {cause}"[:200]
    if isinstance(error, _NOT_SENT) or isinstance(cause, _NOT_SENT):
        return Failure(kind="not_sent", message=short)
    if isinstance(error, boto.HTTPClientError | boto.BotoCoreError | aiohttp.ClientError | OSError):
        return Failure(kind="lost", message=short)
    raise error


def _answer(error: boto.ClientError) -> Failure:
    meta = error.response.get("ResponseMetadata", {})
    told, status = error.response.get("Error", {}), int(meta.get("HTTPStatusCode", 0))
    code = str(told.get("Code", ""))
    retry_after = str(meta.get("HTTPHeaders", {}).get("retry-after", ""))
    return Failure(
        kind="answer",
        status=status,
        code="" if code == str(status) else code,  # an answer without a body has its status for a code
        message=str(told.get("Message", "")),
        retry_after_ms=int(retry_after) * 1_000 if retry_after.isdigit() else RETRY_AFTER_MS,
    )
