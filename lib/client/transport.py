"""One HTTP request of the client: signed, bounded, repeated where that is safe, its errors made our own again.

What became of a request that got no answer is unknown. If it may be sent twice (``repeatable``) it is; if not, that is
said: a read is ``Unavailable``, a write ``Indeterminate``. A refusal that names itself (429, 503 with our body) was not
applied and may always be tried again. Redirects are not followed, since a token is meant for one host.
"""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from headwater import tracing
from headwater.api.messages import HttpError
from headwater.client.backoff import Backoff
from headwater.clock import Clock
from headwater.errors import (
    Corrupt,
    Forbidden,
    HeadwaterError,
    Indeterminate,
    InvalidRequest,
    NotFound,
    OffsetOutOfRange,
    StorageFull,
    Throttled,
    Unauthorized,
    Unavailable,
)
from headwater.limits import CLIENT_ANSWER_BYTES_MAX, CLIENT_TRIES_MAX
from headwater.log import outcomes

if TYPE_CHECKING:
    import aiohttp

    from headwater.client.signing import Signer

JSON = "application/json"
CONNECT_S = 10.0  # to be connected
STREAM_BYTES = 1 << 19  # a larger body is sent in pieces
_PLAIN_FIELDS = frozenset({"error", "message", "applied", "what_now", "error_code"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that is no error. Header names are lower-case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Transport:
    """A way to one service, and the only holder of its secrets."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        signer: Signer | None,
        timeout_s: float,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.url = checked_url(url)
        self.clock = clock
        self.rng = rng
        self._timeout_s = timeout_s
        self._token = token
        self._signer = signer
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"Transport({self.url!r})"

    async def close(self) -> None:
        """Let go of connections. A second call does nothing."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: bytes = b"",
        kind: str = JSON,
        accept: str = JSON,
        headers: Mapping[str, str] | None = None,
        repeatable: bool,
        wait_s: float = 0.0,
        base: str = "",
    ) -> Answer:
        """Send a request and return its answer.

        ``path`` is percent-encoded already; ``base`` is another service's URL in place of ours. ``wait_s`` is how
        long the service may take on top, for long polls.

        Raises:
            HeadwaterError: what the service said, as the class that it named.
            Unavailable: nobody could be reached, or a read got no answer.
            Indeterminate: a write got no answer and may not be repeated.
        """
        url = f"{base or self.url}{path}" + (f"?{urlencode(query)}" if query else "")
        sent = {"accept": accept, **(headers or {}), **tracing.carried()}
        if body:
            sent["content-type"] = kind
        reads = method == "GET"
        backoff, unknown = Backoff(self.clock, self.rng), False
        for tries in range(1, CLIENT_TRIES_MAX + 1):
            try:
                return await self._once(method, url, sent, body, wait_s)
            except (_Silence, HeadwaterError) as caught:
                unknown = unknown or isinstance(caught, _Silence)
                again = repeatable if isinstance(caught, _Silence) else _is_turned_away(caught)
                if tries == CLIENT_TRIES_MAX or not again:
                    self._give_up(caught, reads=reads, unknown=unknown)
                pause_s = backoff.next_s(caught)
            await self.clock.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    async def outside(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
        """A presigned GET or PUT, which carries its rights in itself: nothing of ours goes with it.

        Raises ``Unavailable``: not done, or done without a word; either way nothing is committed by it.
        """
        backoff = Backoff(self.clock, self.rng)
        for tries in range(1, CLIENT_TRIES_MAX + 1):
            try:
                return await self._once_outside(method, url, headers, body)
            except Unavailable as error:
                if tries == CLIENT_TRIES_MAX:
                    raise
                pause_s = backoff.next_s(error)
            await self.clock.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    async def _once_outside(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> bytes:
        import aiohttp

        try:
            async with self._sessions().request(
                method, _encoded(url), data=_payload(body), headers=dict(headers), allow_redirects=False
            ) as response:
                data = await _read(response)
                status = response.status
        except (_Silence, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"A presigned {method} was not answered: {type(error).__name__}.") from error
        if method == "PUT" and status == 412:
            return data  # an earlier try has written it, and nobody can write it anew
        if status >= 500 or status == 429:
            raise Unavailable(f"The store answered {status} to a presigned {method}.")
        if status >= 300:
            raise Forbidden(f"The store answered {status} to a presigned {method}: it is over, or was not for this.")
        return data

    # -- one try --------------------------------------------------------------------------------------------

    async def _once(self, method: str, url: str, headers: Mapping[str, str], body: bytes, wait_s: float) -> Answer:
        import aiohttp

        signed = await self._signed(method, url, headers, body)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s + wait_s, sock_connect=CONNECT_S)
        try:
            async with self._sessions().request(
                method, _encoded(url), data=_payload(body), headers=signed, timeout=timeout, allow_redirects=False
            ) as response:
                data = await _read(response)
                found = {name.lower(): value for name, value in response.headers.items()}
                if response.status < 300:
                    return Answer(status=response.status, headers=found, body=data)
                refusal = error_of(response.status, found, data)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unavailable(f"{self.url} cannot be reached: {_reason(error)}.") from error
        except aiohttp.InvalidURL as error:
            raise InvalidRequest(f"{self.url} is no URL.") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _Silence(f"{self.url} did not answer: {_reason(error)}.") from error
        raise refusal

    async def _signed(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        if self._signer is not None:
            return await self._signer.sign(method, url, headers, body)
        if self._token is not None:
            return {**headers, "authorization": f"Bearer {self._token}"}
        return dict(headers)

    def _sessions(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    def _give_up(self, caught: _Silence | HeadwaterError, *, reads: bool, unknown: bool) -> NoReturn:
        if isinstance(caught, HeadwaterError) and not (unknown and _is_turned_away(caught)):
            raise caught
        if reads:
            raise Unavailable(str(caught)) from caught
        # An earlier try got no answer, and a later refusal says nothing about it.
        raise Indeterminate(f"{caught} The request may or may not have taken effect.") from caught


class _Silence(Exception):
    """No answer came, or one that does not say what was done."""


def checked_url(url: str) -> str:
    """A base URL without a slash at its end. Raises ``InvalidRequest``."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidRequest("A service's URL is http://host or https://host, without query and fragment.")
    if parts.username or parts.password:
        raise InvalidRequest("A service's URL holds no credentials; give them as `token`, or use auth='iam'.")
    return url.rstrip("/")


def segment(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


# -- errors ------------------------------------------------------------------------------------------------


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> HeadwaterError | _Silence:
    """The error in an answer: the class that it names, else the one of its status."""
    plain = _plain(body)
    message = plain.get("message")
    if not isinstance(message, str):
        return _foreign(status, headers, body)
    data = {name: value for name, value in plain.items() if name not in _PLAIN_FIELDS}
    name = str(plain.get("error", ""))
    if name == "InternalError":
        return _Silence(message) if plain.get("applied") == "unknown" else Unavailable(message)
    kind = _kinds().get(name)
    if kind is None or issubclass(kind, HttpError):
        return _by_status(status, headers, message)
    return _made(kind, message, data)


def _made(kind: type[HeadwaterError], message: str, data: dict[str, Any]) -> HeadwaterError:
    if issubclass(kind, OffsetOutOfRange):
        return kind(message, log_start=int(data["log_start"]), high_watermark=int(data["high_watermark"]))
    if issubclass(kind, Throttled):
        return kind(message, retry_after_ms=int(data.get("retry_after_ms", 1_000)))
    if issubclass(kind, Indeterminate):
        made = kind(message, token=str(data.pop("token", "")))
        made.data |= data
        return made
    return kind(message, **data)


def _foreign(status: int, headers: Mapping[str, str], body: bytes) -> HeadwaterError | _Silence:
    """An error that is not ours: of the platform in front of the function, of a proxy, of something else."""
    text = body[:200].decode("utf-8", "replace")
    message = f"The answer was {status}: {text}" if text else f"The answer was {status}."
    return _Silence(message) if status >= 500 else _by_status(status, headers, message)


def _by_status(status: int, headers: Mapping[str, str], message: str) -> HeadwaterError:
    if status == Throttled.status:
        after = headers.get("retry-after", "")
        return Throttled(message, retry_after_ms=int(after) * 1_000 if after.isdigit() else 1_000)
    kinds = {401: Unauthorized, 403: Forbidden, 404: NotFound, 408: Unavailable, 503: Unavailable, 504: Unavailable}
    if status in kinds:
        return kinds[status](message)
    return InvalidRequest(message, status=status) if status < 500 else Corrupt(message)


def _kinds() -> dict[str, type[HeadwaterError]]:
    """Every error by its name, with those of ``outcomes``, which exist once it is imported."""
    found: dict[str, type[HeadwaterError]] = {}
    left: list[type[HeadwaterError]] = [HeadwaterError, outcomes.OutOfOrder]
    while left:
        kind = left.pop()
        found.setdefault(kind.__name__, kind)
        left += kind.__subclasses__()
    return found


def _plain(body: bytes) -> dict[str, Any]:
    try:
        plain = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}


def _is_turned_away(error: HeadwaterError) -> bool:
    return isinstance(error, Throttled | Unavailable) and not isinstance(error, StorageFull)


def _reason(error: BaseException) -> str:
    """What happened, in few words; never a header or a whole URL."""
    inner = getattr(error, "os_error", None)
    return str(inner or type(error).__name__)


def _encoded(url: str) -> Any:
    """The URL as it is: it was signed so, and nobody may encode it anew."""
    from yarl import URL

    return URL(url, encoded=True)


def _payload(body: bytes) -> Any:
    """The body as aiohttp wants it: a large one as a stream, so that sending it does not hold up the event loop."""
    return io.BytesIO(body) if len(body) > STREAM_BYTES else body or None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body, bounded. Raises ``_Silence`` if there is more."""
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > CLIENT_ANSWER_BYTES_MAX:
            raise _Silence(f"The answer has more than {CLIENT_ANSWER_BYTES_MAX} bytes.")
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
