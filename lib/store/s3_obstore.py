"""S3 through obstore (Rust's object_store): the cheapest client, and quick to import.

What it does not tell: the Date of an answer, so ``head`` and ``list`` take it from ``ServiceClock``; and the
Last-Modified of a write. Its error classes hide the status (409 is "already exists"), so that is read from the text.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import obstore
from obstore.exceptions import BaseError, UnauthenticatedError
from obstore.store import S3Store

from headwater.clock import Clock
from headwater.errors import Indeterminate, Unauthorized
from headwater.store.base import Blob, Body, Stat, joined, parts_of, size_of
from headwater.store.s3_base import IDLE_S_MAX, PAGE_KEYS_MAX, S3Base
from headwater.store.s3_clock import UNKNOWN, ServiceClock
from headwater.store.s3_errors import Failure, Verb
from headwater.store.s3_url import S3Target, configured_region

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode
    from obstore.store import S3Credential

JOIN_BYTES_MAX = 64 * 1_024  # parts up to this are joined here, which costs less than handing them over singly
OWN_CREDENTIALS = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
CREDENTIALS_S = 900  # obstore asks for credentials again five minutes before this; botocore keeps ten in reserve
EXIT_S = 0.02  # obstore's threads let go of Python's objects in microseconds, once they get to run
SHORT_PATH = 40  # characters; the text that _STATUS looks for is longer
_LAST = "\U0010fffd"  # sorts after whatever a key goes on with
_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})[^:]*: ?(.*)", re.DOTALL)
_CODE = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_CONNECT = re.compile(r"kind: Connect|legacy::Error\(\s*Connect")


# Having answered, a thread of obstore's still needs the interpreter to drop what it held. If that comes while the
# interpreter ends, the process is aborted (SIGABRT, in one of about thirty short processes). So let them run first.
atexit.register(threading.Event().wait, EXIT_S)


class ObstoreS3Store(S3Base):
    """An ``s3://`` store on obstore. Retries are off (C4); ``aclose`` has nothing to close."""

    def __init__(self, target: S3Target, *, clock: Clock | None = None) -> None:
        super().__init__(target, clock=clock)
        self._store = _open(target, os.environ, self._clock)
        self._service_clock = ServiceClock(target.request_url, self._clock, target.timeout_s)

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        path = self._inner_key(key)
        if end is not None and end <= start:
            return Blob(data=b"", stat=await self.head(key))
        try:
            answer = await obstore.get_async(self._store, path, options=_range(start, end))
            data = await answer.bytes_async()
        except Exception as error:
            failure = _failure(error, path)
            if failure.status == 416:
                return Blob(data=b"", stat=await self.head(key))
            raise self._error(failure, "get", key) from None
        return Blob(data=data.to_bytes(), stat=self._stat(answer.meta, self._service_clock.known_ms()))

    async def head(self, key: str) -> Stat:
        path = self._inner_key(key)
        try:
            meta = await obstore.head_async(self._store, path)
        except Exception as error:
            raise self._error(_failure(error, path), "head", key) from None
        return self._stat(meta, await self._service_clock.now_ms())

    async def put(self, key: str, body: Body) -> Stat:
        return await self._put("put", key, body, "overwrite")

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        return await self._put("put_if_absent", key, body, "create")

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        return await self._put("put_if_match", key, body, {"e_tag": etag})

    async def delete(self, keys: Sequence[str]) -> None:
        paths = [self._inner_key(key) for key in keys]
        if not paths:
            return
        try:
            await obstore.delete_async(self._store, paths)
        except Exception as error:
            raise self._error(_failure(error, paths[0]), "delete", keys[0]) from None

    async def aclose(self) -> None:
        """The connections belong to obstore, which drops them with the store."""

    async def _put(self, verb: Verb, key: str, body: Body, mode: PutMode) -> Stat:
        path = self._inner_key(key)
        try:
            answer = await obstore.put_async(self._store, path, _payload(body), mode=mode, use_multipart=False)
        except Exception as error:
            raise self._error(_failure(error, path), verb, key) from None
        if not answer["e_tag"]:
            raise Indeterminate(f"The answer to the {verb} of {key!r} in {self.url} has no ETag.", token=key)
        date_ms = self._service_clock.known_ms()
        return Stat(key=key, size=size_of(body), etag=answer["e_tag"], modified_ms=UNKNOWN, date_ms=date_ms)

    async def _pages(self, prefix: str, start_after: str, limit: int | None) -> AsyncGenerator[Sequence[Stat], None]:
        # obstore lists whole folders; what lies before the wanted keys in the folder is passed over by the service.
        folder, slash, _ = (self.target.prefix + prefix).rpartition("/")
        after = ""
        if self.target.lists == "sorted":
            started = self.target.prefix + start_after if start_after else ""
            after = max(started, _just_before(self.target.prefix + prefix))
        try:
            pages = self._store.list(folder + slash or None, offset=_offset(after), chunk_size=PAGE_KEYS_MAX)
            async for page in pages:
                now_ms = await self._service_clock.now_ms()
                yield [self._stat(meta, now_ms) for meta in page]
        except Exception as error:
            raise self._error(_failure(error, prefix), "list", prefix) from None

    def _stat(self, meta: ObjectMeta, date_ms: int) -> Stat:
        return Stat(
            key=self._outer_key(meta["path"]),
            size=meta["size"],
            etag=meta["e_tag"] or "",
            modified_ms=int(meta["last_modified"].timestamp() * 1_000),
            date_ms=date_ms,
        )


def _open(target: S3Target, env: Mapping[str, str], clock: Clock) -> S3Store:
    config: dict[str, Any] = {"virtual_hosted_style_request": target.addressing == "virtual"}
    if target.endpoint_url:
        scheme, _, host = target.endpoint_url.partition("://")
        host = f"{target.bucket}.{host}" if target.addressing == "virtual" else host
        config["endpoint"] = f"{scheme}://{host}"
    if region := target.region or configured_region(target.profile, env):
        config["region"] = region
    if target.is_express:
        config["s3_express"] = True
    # Over TLS nobody can change the body on the way, and signing its hash would cost as much again as sending it.
    config["unsigned_payload"] = not (target.endpoint_url or "https").startswith("http:")
    return S3Store(
        target.bucket,
        config=cast("Any", config),
        client_options={
            "allow_http": (target.endpoint_url or "").startswith("http:"),
            "connect_timeout": timedelta(seconds=target.connect_timeout_s),
            "timeout": timedelta(seconds=target.timeout_s),
            "pool_idle_timeout": timedelta(seconds=IDLE_S_MAX),
        },
        retry_config={"max_retries": 0},
        credential_provider=None if _has_own_credentials(target, env) else _BotoCredentials(target.profile, clock),
    )


def _has_own_credentials(target: S3Target, env: Mapping[str, str]) -> bool:
    """Whether the environment names credentials that obstore fetches itself; importing botocore costs 0.3 s."""
    if target.profile:
        return False
    if env.get("AWS_ACCESS_KEY_ID"):
        return True
    return not env.get("AWS_PROFILE") and any(env.get(name) for name in OWN_CREDENTIALS)


class _BotoCredentials:
    """Credentials of a profile, of single sign-on or of an instance role, by way of a boto3 session."""

    def __init__(self, profile: str | None, clock: Clock) -> None:
        self._profile = profile
        self._clock = clock
        self._credentials: Any = None

    async def __call__(self) -> S3Credential:
        return await asyncio.to_thread(self._fetch)

    def _fetch(self) -> S3Credential:
        if self._credentials is None:
            import boto3  # most processes never need it

            self._credentials = boto3.Session(profile_name=self._profile).get_credentials()
        if self._credentials is None:
            raise Unauthorized("There are no AWS credentials in the environment, in a profile or from a role.")
        frozen = self._credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.fromtimestamp(self._clock.wall_ms() / 1_000 + CREDENTIALS_S, UTC),
        }


def _range(start: int, end: int | None) -> GetOptions:
    if end is not None:
        return {"range": (start, end)}
    return {"range": {"offset": start}} if start else {}


def _payload(body: Body) -> Any:
    """The body in a form that obstore takes: bytes, or a list of flat buffers of bytes."""
    if size_of(body) <= JOIN_BYTES_MAX:
        return joined(body)
    flat = [part if isinstance(part, bytes) else memoryview(part).cast("B") for part in parts_of(body)]
    return flat[0] if len(flat) == 1 else flat


def _just_before(prefix: str) -> str:
    """A text that sorts before every key with this prefix, and after nearly every key before them."""
    last = prefix[-1:]
    if last in ("", "/", "\ue000") or last <= " ":
        return ""
    before = chr(ord(last) - 1)
    if before == "/" and prefix[-2:-1] in ("", "/"):
        before = "."  # no key has an empty part, so nothing lies between
    return prefix[:-1] + before + _LAST


def _offset(after: str) -> str | None:
    """``after``, cut before the first part that no key has: the service's client would refuse it."""
    parts = after.split("/")
    for number, part in enumerate(parts):
        if part in ("", ".", ".."):
            return "/".join(parts[:number]) or None
    return after or None


def _failure(error: Exception, path: str) -> Failure:
    """What an exception of obstore says."""
    text = str(error)
    if len(path) > SHORT_PATH:
        text = text.replace(path, "…")  # a long one could look like a status
    if found := _STATUS.search(text):
        code, message = _CODE.search(found[2]), _MESSAGE.search(found[2])
        return Failure(
            kind="answer",
            status=int(found[1]),
            code=code[1] if code else "",
            message=message[1] if message else "",
        )
    if "Received redirect without LOCATION" in text:
        return Failure(kind="answer", status=301)
    if not isinstance(error, BaseError | OSError):
        raise error
    short = text.partition("\n")[0][:200]
    if isinstance(error, UnauthenticatedError):
        return Failure(kind="credentials", message=short)
    if _CONNECT.search(text):
        return Failure(kind="not_sent", message=short)
    return Failure(kind="lost", message=short)
