"""What the HTTP layer passes around: a request, a response, a route, and the call that a handler answers.

Nothing here knows where a request came from (a function URL, the development server) or what a verb does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from headwater.errors import HeadwaterError
from headwater.limits import HTTP_FETCH_BYTES_MAX, HTTP_WAIT_MS_MAX

SLASH: Final = "\x1f"  # in a part of a path: a slash that does not end it; no path that is taken has this character

if TYPE_CHECKING:
    from headwater.api.verbs import AclRule, Verbs
    from headwater.log.namespace import Namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request, with its body decoded from base64 and from its content encoding.

    ``path`` begins with ``/`` and has lost its ``/namespaces/{ns}`` prefix; header names are lower-case. ``raw_path``,
    ``raw_query`` and ``raw_body`` are as they were sent, for signatures. ``principal`` is who the platform says is
    asking, "" if it says nothing; ``client`` is the address that it sees. ``id`` is what the log calls the request, ""
    until somebody has given it one.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    namespace: str = ""
    principal: str = ""
    client: str = ""
    host: str = ""
    base_url: str = ""
    raw_path: str = ""
    raw_query: str = ""
    raw_body: bytes = b""
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One HTTP response. The body is compressed and put into base64 by whoever sends it."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a handler is given: the request, the values of its route's ``{…}`` parts, and what to do it with.

    ``verbs`` acts for the ``principal`` that asked, within ``scopes``. ``namespace`` is for what is no verb:
    documents of consumer instances.
    ``wait_ms_max`` is how long this call may wait for records, ``answer_bytes_max`` how large its body may be.
    """

    request: Request
    parts: Mapping[str, str]
    verbs: Verbs
    namespace: Namespace
    principal: str = "root"
    scopes: Sequence[AclRule] | None = None
    wait_ms_max: float = HTTP_WAIT_MS_MAX
    answer_bytes_max: int = HTTP_FETCH_BYTES_MAX


Handler: TypeAlias = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """``pattern`` is ``/topics/{topic}``; ``functions`` are those that serve it; ``summary`` goes into OpenAPI.

    ``consumes`` are the media types that it takes (none: no body), ``schema`` the JSON Schema of its JSON body,
    ``query`` the query parameters that it knows, by name, with what they mean; others are refused, unless it takes
    ``any_query``.
    """

    method: str
    pattern: str
    handler: Handler
    functions: frozenset[str]
    summary: str
    consumes: tuple[str, ...] = ()
    produces: tuple[str, ...] = ("application/json",)
    query: Mapping[str, str] = field(default_factory=dict)
    any_query: bool = False  # clients of what it stands in for send parameters to paths that have no use for them
    schema: Mapping[str, object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)  # of requests, that mean something here, and what
    sends: Mapping[str, str] = field(default_factory=dict)  # headers of its answers
    dialect: bool = False  # errors are those of the Kafka REST Proxy v2
    open: bool = False  # anybody may ask; the handler gets no verbs and no namespace
    codes: tuple[int, ...] = (200,)  # the statuses of success
    answer: object = None  # the type of its JSON answer, or a dict of types by field; see ``api.schemas``


class HttpError(HeadwaterError):
    """A refusal that has a place in HTTP and none among the errors of the log: 405, 406, 413, 415 and their like.

    ``error_code`` is the REST Proxy's number, by default the status.
    """

    def __init__(self, status: int, message: str, *, error_code: int = 0, **data: object) -> None:
        super().__init__(message, **data)
        self.status = status
        self.error_code = error_code or status
        self.what_now = "Change the request; the same one will fail again."
