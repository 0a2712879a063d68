"""HTTP without a server: a function URL's event (payload format 2.0) into a request, a response into its answer.

    event ──► incoming ──► request_of: path, query, headers, body ──► App.serve ──► Response ──► answer

Everything that a client controls is bounded and checked here, before a route sees it: a path that tries tricks, a
body that is not what it says it is, a body that grows a thousandfold when decompressed. The development server makes
an ``Incoming`` of its own requests and so goes the same way.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_to_bytes

from headwater import lines
from headwater.api.messages import SLASH, HttpError, Request, Response
from headwater.errors import HeadwaterError, InvalidRequest
from headwater.limits import (
    HTTP_BODY_BYTES_MAX,
    HTTP_COMPRESS_BYTES_MIN,
    HTTP_PATH_BYTES_MAX,
    HTTP_QUERY_FIELDS_MAX,
)

if TYPE_CHECKING:
    from headwater.api.app import App

NAMESPACES = "/namespaces/"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+\Z")  # RFC 9110, field names, in lower case
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")  # also halves of characters, which are no UTF-8
_HOST = re.compile(r"[A-Za-z0-9.:_\[\]-]{0,300}\Z")
_GUARDS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_PIECE_BYTES = 1 << 20
_TEXT_BYTES_MAX = 1 << 20
_TEXT = ("application/json", "application/problem+json", "text/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A request as it came: nothing decoded, nothing believed. Header names are lower-case."""

    method: str
    raw_path: str
    raw_query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    principal: str = ""
    client: str = ""
    host: str = ""
    scheme: str = "https"


async def handle(event: object, app: App, *, budget_s: float | None = None, request_id: str = "") -> dict[str, object]:
    """Serve one function URL event and answer as Lambda wants it. Never raises: whatever is wrong is an answer.

    ``budget_s`` is how long it may take; after that a read is broken off, and a write is ``Indeterminate``.
    ``request_id`` is what the platform calls the request.
    """
    try:
        incoming = incoming_of(event)
    except HeadwaterError as error:
        return answer(app.refused(error, "", lines.request_id(request_id)), "")
    response = await serve(incoming, app, budget_s=budget_s, request_id=request_id)
    return answer(response, incoming.method)


async def serve(incoming: Incoming, app: App, *, budget_s: float | None = None, request_id: str = "") -> Response:
    """The response to a request as it came. Never raises.

    It is called as the platform calls it, else as the client does (``x-request-id``), else by an id made for it.
    """
    name = lines.request_id(request_id) or lines.request_id(incoming.headers.get("x-request-id", "")) or app.fresh_id()
    try:
        request = replace(request_of(incoming, app.namespace), id=name)
    except HeadwaterError as error:
        return app.refused(error, incoming.method, name)
    except Exception as error:
        return app.mistake(error, incoming.method, name=name)
    response = await app.serve(request, budget_s=budget_s)
    return compressed(response, incoming.headers.get("accept-encoding", ""))


# -- in ------------------------------------------------------------------------------------------------


def incoming_of(event: object) -> Incoming:
    """The request in an event of payload format 2.0. Raises ``InvalidRequest`` for anything else."""
    if not isinstance(event, dict):
        raise InvalidRequest("The event is no function URL request of payload format 2.0.")
    context = _dict(event.get("requestContext"))
    http = _dict(context.get("http"))
    method, path = http.get("method"), event.get("rawPath")
    if not isinstance(method, str) or not isinstance(path, str):
        raise InvalidRequest("The event is no function URL request of payload format 2.0.")
    headers = {str(name).lower(): str(value) for name, value in _dict(event.get("headers")).items()}
    cookies = event.get("cookies")
    if isinstance(cookies, list) and cookies:  # the format has them apart from the headers
        headers["cookie"] = "; ".join(str(cookie) for cookie in cookies)
    iam = _dict(_dict(context.get("authorizer")).get("iam"))
    return Incoming(
        method=method.upper(),
        raw_path=path,
        raw_query=str(event.get("rawQueryString") or ""),
        headers=headers,
        body=_event_body(event),
        principal=str(iam.get("userArn") or ""),
        client=str(http.get("sourceIp") or "")[:64],
        host=str(context.get("domainName") or headers.get("host", "")),
        scheme=headers.get("x-forwarded-proto", "https"),
    )


def request_of(incoming: Incoming, namespace: str) -> Request:
    """The request, checked and decoded; ``namespace`` unless its path names another one.

    Raises:
        InvalidRequest: the path, the query or the body is malformed.
        HttpError: 413, 414 or 415.
    """
    segments = segments_of(incoming.raw_path)
    prefix = ""
    if segments[0] == "namespaces":
        if len(segments) < 3:
            raise HttpError(404, "There is nothing at this path.")
        namespace, segments = segments[1], segments[2:]
        prefix = f"{NAMESPACES}{namespace}"
    for name, value in incoming.headers.items():
        if _UNSAFE.search(name) or _UNSAFE.search(value):
            raise InvalidRequest("A header holds control characters.")
    host = incoming.headers.get("host") or incoming.host
    if not _HOST.match(host):
        raise InvalidRequest("The host is malformed.")
    return Request(
        method=incoming.method,
        path="/" + "/".join(segments),
        query=query_of(incoming.raw_query),
        headers=incoming.headers,
        body=decoded(incoming.body, incoming.headers.get("content-encoding", "")),
        namespace=namespace,
        principal=incoming.principal,
        client=incoming.client,
        host=host,
        base_url=f"{'http' if incoming.scheme == 'http' else 'https'}://{host}{prefix}",
        raw_path=incoming.raw_path,
        raw_query=incoming.raw_query,
        raw_body=incoming.body,
    )


def segments_of(raw_path: str) -> list[str]:
    """The parts of a path, each percent-decoded once; at least one. One slash at the end is passed over.

    A slash that was encoded is ``SLASH`` in its part, and allowed in what is asked of the registry alone: files that
    a .proto imports are subjects there.

    Raises:
        InvalidRequest: a part is empty, ``.`` or ``..``, is no UTF-8, or holds a backslash or a control character.
        HttpError: 414, it is too long.
    """
    if len(raw_path) > HTTP_PATH_BYTES_MAX:
        raise HttpError(414, f"A path has at most {HTTP_PATH_BYTES_MAX} bytes.")
    if not raw_path.startswith("/"):
        raise InvalidRequest("A path begins with a slash.")
    trimmed = raw_path[1:-1] if len(raw_path) > 2 and raw_path.endswith("/") else raw_path[1:]
    if not trimmed:
        return [""]
    found = [_segment(part) for part in trimmed.split("/")]
    at = 2 if found[0] == "namespaces" else 0
    beyond = at + 1 if found[at : at + 1] == ["registry"] else len(found)
    if any(SLASH in part for part in found[:beyond]):
        raise InvalidRequest("A part of the path holds a slash.")
    return found


def query_of(raw: str) -> dict[str, str]:
    """The query's fields by name. Raises ``InvalidRequest`` for one that comes twice or is no UTF-8."""
    if len(raw) > HTTP_PATH_BYTES_MAX:
        raise HttpError(414, f"A query has at most {HTTP_PATH_BYTES_MAX} bytes.")
    if _UNSAFE.search(raw):
        raise InvalidRequest("The query holds control characters.")
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, max_num_fields=HTTP_QUERY_FIELDS_MAX, errors="strict")
    except ValueError as error:
        raise InvalidRequest("The query is malformed, or has too many fields.") from error
    query: dict[str, str] = {}
    for name, value in pairs:
        if name in query:
            raise InvalidRequest(f"The query has {name[:40]!r} more than once.")
        query[name] = value
    return query


def decoded(body: bytes, encoding: str) -> bytes:
    """A body without its content encoding, at most ``HTTP_BODY_BYTES_MAX`` bytes of it.

    Raises:
        HttpError: 413, it is too large, whatever it claims; 415, the encoding is not known.
        InvalidRequest: the bytes are not of that encoding.
    """
    kind = encoding.strip().lower()
    if kind not in ("", "identity"):
        if not body:
            raise InvalidRequest("There is no compressed body.")
        body = _decompressed(body, kind)
    if len(body) > HTTP_BODY_BYTES_MAX:
        raise _too_large()
    return body


def _segment(part: str) -> str:
    if "%" in part or not part.isascii():
        try:
            part = unquote_to_bytes(part).decode()
        except UnicodeError as error:
            raise InvalidRequest("The path is no UTF-8.") from error
    if part in ("", ".", ".."):
        raise InvalidRequest("The path has an empty part, or one of dots alone.")
    if "\\" in part or _UNSAFE.search(part) or "\t" in part:
        raise InvalidRequest("A part of the path holds a backslash or a control character.")
    return part.replace("/", SLASH)


def _event_body(event: Mapping[str, Any]) -> bytes:
    body = event.get("body") or ""
    if not isinstance(body, str):
        raise InvalidRequest("The event's body is no text.")
    if not event.get("isBase64Encoded"):
        return body.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("The event's body is no base64.") from error


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


# -- content encodings ---------------------------------------------------------------------------------


def _decompressed(body: bytes, kind: str) -> bytes:
    if kind in ("gzip", "x-gzip"):
        return _inflated(body, 16 + zlib.MAX_WBITS)
    if kind == "deflate":  # RFC 9110 means zlib; some send the bare stream
        bare = len(body) < 2 or body[0] & 0x0F != 8 or int.from_bytes(body[:2], "big") % 31 != 0
        return _inflated(body, -zlib.MAX_WBITS if bare else zlib.MAX_WBITS)
    if kind == "zstd":
        return _unzstd(body)
    raise HttpError(415, f"The content encoding {kind[:40]!r} is not known; use gzip, deflate or zstd.")


def _inflated(body: bytes, window: int) -> bytes:
    """One gzip or zlib stream; never more than the bound of it, and one piece more, in memory."""
    stream = zlib.decompressobj(window)
    pieces: list[bytes] = []
    size = 0
    rest = body
    try:
        while not stream.eof:
            piece = stream.decompress(rest, _PIECE_BYTES)
            rest = stream.unconsumed_tail
            size += len(piece)
            if size > HTTP_BODY_BYTES_MAX:
                raise _too_large()
            if not piece and not rest and not stream.eof:
                raise InvalidRequest("The compressed body is cut off.")
            pieces.append(piece)
    except zlib.error as error:
        raise InvalidRequest("The body is not of its content encoding.") from error
    if stream.unused_data:
        raise InvalidRequest("Something follows the compressed body.")
    return b"".join(pieces)


def _unzstd(body: bytes) -> bytes:
    import pyarrow as pa

    pieces: list[bytes] = []
    size = 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), "zstd") as stream:
            while piece := stream.read(_PIECE_BYTES):
                size += len(piece)
                if size > HTTP_BODY_BYTES_MAX:
                    raise _too_large()
                pieces.append(piece)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidRequest("The body is not of its content encoding.") from error
    return b"".join(pieces)


def _too_large() -> HttpError:
    return HttpError(
        413, f"A body has at most {HTTP_BODY_BYTES_MAX} bytes, also once decompressed; send less, or use uploads."
    )


# -- out -----------------------------------------------------------------------------------------------


def compressed(response: Response, accept: str) -> Response:
    """The response as gzip, if the client takes that and its body is text and long enough to gain by it."""
    kind = response.headers.get("content-type", "")
    text = kind.startswith(_TEXT) or kind.endswith("+json")
    if not text or len(response.body) < HTTP_COMPRESS_BYTES_MIN or not _takes_gzip(accept):
        return response
    stream = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    body = stream.compress(response.body) + stream.flush()
    headers = {**response.headers, "content-encoding": "gzip", "vary": "accept-encoding"}
    return Response(status=response.status, headers=headers, body=body)


def safe_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers that are one line each, whatever was put into them: no name or value brings a header of its own.

    Unless a route says otherwise, nobody on the way may keep an answer, and no browser may guess at its type.
    """
    return _GUARDS | {
        name: _UNSAFE.sub(" ", value).encode("latin-1", "replace").decode("latin-1")
        for name, value in headers.items()
        if _TOKEN.match(name)
    }


def answer(response: Response, method: str) -> dict[str, object]:
    """A response as a function answers it: text as it is, anything else as base64, a cookie apart from the headers."""
    headers = safe_headers(response.headers)
    cookie = headers.pop("set-cookie", None)
    answered = _answered(response, headers, method)
    return answered if cookie is None else {**answered, "cookies": [cookie]}


def _answered(response: Response, headers: Mapping[str, str], method: str) -> dict[str, object]:
    if method == "HEAD" or response.status in (204, 304):
        return {"statusCode": response.status, "headers": headers, "body": "", "isBase64Encoded": False}
    kind = headers.get("content-type", "")
    text = "content-encoding" not in headers and (kind.startswith(_TEXT) or kind.endswith("+json"))
    # The platform puts text into a string of JSON, where each quotation mark takes two bytes: long text is safer so.
    if not response.body or (text and len(response.body) <= _TEXT_BYTES_MAX):
        return {
            "statusCode": response.status,
            "headers": headers,
            "body": response.body.decode("utf-8", "replace"),
            "isBase64Encoded": False,
        }
    return {
        "statusCode": response.status,
        "headers": headers,
        "body": base64.b64encode(response.body).decode("ascii"),
        "isBase64Encoded": True,
    }


def _takes_gzip(accept: str) -> bool:
    for offer in accept.lower().split(","):
        name, _, parameters = offer.partition(";")
        if name.strip() in ("gzip", "*") and parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            return True
    return False
