"""Events into requests and responses into answers: what a client may do to them."""

from __future__ import annotations

import base64
import gzip
import zlib
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.api import http
from headwater.api.messages import HttpError, Response
from headwater.errors import HeadwaterError, InvalidRequest
from headwater.limits import HTTP_BODY_BYTES_MAX, HTTP_PATH_BYTES_MAX
from tests.api.helpers_http import event


def request(path: str = "/", **how: Any) -> Any:
    return http.request_of(http.incoming_of({**event("GET", path), **how}), "default")


# -- paths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "segments"),
    [
        ("/", [""]),
        ("/topics", ["topics"]),
        ("/topics/", ["topics"]),
        ("/groups/my%20group", ["groups", "my group"]),
        ("/groups/gr%C3%BCn", ["groups", "grün"]),
        ("/groups/grün", ["groups", "grün"]),
        ("/groups/100%", ["groups", "100%"]),
        ("/groups/a%2520b", ["groups", "a%20b"]),
    ],
)
def test_each_part_of_a_path_is_decoded_once(raw: str, segments: list[str]) -> None:
    assert segments == http.segments_of(raw)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "topics",
        "//",
        "/topics//x",
        "/topics/..",
        "/topics/../x",
        "/topics/%2e%2e/x",
        "/topics/.",
        "/topics/a%2Fb",
        "/topics/a%5cb",
        "/topics/a\\b",
        "/topics/a%00b",
        "/topics/a%0d%0ab",
        "/topics/a\r\nb",
        "/topics/%ff",
        "/topics/%C3%28",
        "/topics/\ud800",
        "/topics/%7f",
        "/topics/a%09b",
    ],
)
def test_a_path_with_tricks_is_refused(raw: str) -> None:
    with pytest.raises(InvalidRequest):
        http.segments_of(raw)


def test_a_path_has_a_longest_length() -> None:
    assert [["x" * (HTTP_PATH_BYTES_MAX - 1)]] == [http.segments_of("/" + "x" * (HTTP_PATH_BYTES_MAX - 1))]
    with pytest.raises(HttpError) as caught:
        http.segments_of("/" + "x" * HTTP_PATH_BYTES_MAX)
    assert 414 == caught.value.status


@given(st.text(max_size=40))
def test_any_path_is_taken_apart_or_refused(raw: str) -> None:
    for path in (raw, "/" + raw):
        try:
            segments = http.segments_of(path)
        except HeadwaterError:
            continue
        assert not {".", ".."} & set(segments)
        assert not any("/" in part or "\n" in part or "\x00" in part for part in segments)


def test_a_path_may_name_its_namespace() -> None:
    found = request("/namespaces/tenant-a/topics/t")
    assert ("tenant-a", "/topics/t") == (found.namespace, found.path)
    assert "/namespaces/tenant-a/topics/t" == found.raw_path
    assert "default" == request("/topics/t").namespace


@pytest.mark.parametrize("path", ["/namespaces", "/namespaces/", "/namespaces/x", "/namespaces/x/"])
def test_a_namespace_alone_is_nothing(path: str) -> None:
    with pytest.raises(HttpError) as caught:
        request(path)
    assert 404 == caught.value.status


# -- queries and headers ---------------------------------------------------------------------------------


def test_a_query_is_decoded() -> None:
    assert {"a": "1", "b": "x y", "c": ""} == http.query_of("a=1&b=x+y&c=")


@pytest.mark.parametrize("raw", ["a=1&a=2", "a=%ff", "a=\ud800", "a=\n", "&".join(f"a{n}=1" for n in range(40))])
def test_a_query_with_tricks_is_refused(raw: str) -> None:
    with pytest.raises(InvalidRequest):
        http.query_of(raw)


@pytest.mark.parametrize("value", ["x\r\ny", "\x00", "\ud800"])
def test_control_characters_in_headers_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequest):
        request(headers={"a": value})


@pytest.mark.parametrize("host", ["evil/", "a b", "x'y", "x" * 400])
def test_a_host_with_tricks_is_refused(host: str) -> None:
    with pytest.raises(InvalidRequest):
        request(headers={"host": host})


def test_the_principal_is_what_the_platform_says() -> None:
    made = event("GET", "/")
    made["requestContext"]["authorizer"] = {"iam": {"userArn": "arn:aws:iam::1:user/a"}}
    made["headers"] = {"x-principal": "root"}
    assert "arn:aws:iam::1:user/a" == http.incoming_of(made).principal


@pytest.mark.parametrize(
    "made",
    [
        None,
        [],
        "x",
        {},
        {"requestContext": None},
        {"requestContext": {"http": {"method": 1}}, "rawPath": "/"},
        {"requestContext": {"http": {"method": "GET"}}, "rawPath": None},
        {**event("POST", "/"), "body": 5},
        {**event("POST", "/"), "body": "%%%", "isBase64Encoded": True},
        {**event("POST", "/"), "body": "YQ", "isBase64Encoded": True},
    ],
)
def test_what_is_no_event_is_refused(made: object) -> None:
    with pytest.raises(InvalidRequest):
        http.incoming_of(made)


# -- content encodings -----------------------------------------------------------------------------------


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


def bare(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


ENCODINGS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd}


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("data", [b"", b"x", b"hello" * 1_000, bytes(3 << 20)], ids=len)
def test_a_compressed_body_is_decompressed(name: str, data: bytes) -> None:
    assert data == http.decoded(ENCODINGS[name](data), name)


def test_deflate_without_its_frame_is_taken_too() -> None:
    assert b"hello" * 99 == http.decoded(bare(b"hello" * 99), "Deflate")


def test_no_encoding_changes_nothing() -> None:
    assert b"x" == http.decoded(b"x", "") == http.decoded(b"x", " identity ")


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_bomb_is_refused_before_it_fills_the_memory(name: str) -> None:
    import tracemalloc

    bomb = ENCODINGS[name](bytes(256 << 20))
    tracemalloc.start()
    with pytest.raises(HttpError) as caught:
        http.decoded(bomb, name)
    assert 413 == caught.value.status
    assert tracemalloc.get_traced_memory()[1] < 2 * HTTP_BODY_BYTES_MAX
    tracemalloc.stop()


def test_a_body_may_be_as_large_as_the_bound_and_no_larger() -> None:
    assert HTTP_BODY_BYTES_MAX == len(http.decoded(gzip.compress(bytes(HTTP_BODY_BYTES_MAX)), "gzip"))
    with pytest.raises(HttpError):
        http.decoded(gzip.compress(bytes(HTTP_BODY_BYTES_MAX + 1)), "gzip")
    with pytest.raises(HttpError):
        http.decoded(bytes(HTTP_BODY_BYTES_MAX + 1), "")


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("spoil", [lambda d: d[:-5], lambda d: b"junk" + d, lambda d: b""], ids=["cut", "junk", "none"])
def test_a_body_that_is_not_of_its_encoding_is_refused(name: str, spoil: Any) -> None:
    with pytest.raises(InvalidRequest):
        http.decoded(spoil(ENCODINGS[name](b"hello" * 1_000)), name)


def test_something_behind_the_compressed_body_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        http.decoded(gzip.compress(b"a") + gzip.compress(b"b"), "gzip")


@pytest.mark.parametrize("name", ["br", "gzip, gzip", "gzip,identity", "x" * 1_000])
def test_an_encoding_that_is_not_known_is_a_415(name: str) -> None:
    with pytest.raises(HttpError) as caught:
        http.decoded(b"x", name)
    assert 415 == caught.value.status


# -- answers ---------------------------------------------------------------------------------------------

LONG = Response(headers={"content-type": "application/json"}, body=b'"' + b"x" * 2_000 + b'"')


def test_long_text_is_compressed_for_those_who_take_it() -> None:
    made = http.compressed(LONG, "br, gzip;q=0.5")
    assert LONG.body == gzip.decompress(made.body)
    assert ("gzip", "accept-encoding") == (made.headers["content-encoding"], made.headers["vary"])
    said = http.answer(made, "GET")
    assert (True, made.body) == (said["isBase64Encoded"], base64.b64decode(str(said["body"])))


@pytest.mark.parametrize("accept", ["", "br", "gzip;q=0", "gzip; q=0.0", "identity"])
def test_it_is_not_compressed_for_others(accept: str) -> None:
    assert LONG == http.compressed(LONG, accept)


def test_what_is_short_or_binary_is_not_compressed() -> None:
    short = Response(headers={"content-type": "application/json"}, body=b"{}")
    arrow = Response(headers={"content-type": "application/vnd.apache.arrow.stream"}, body=bytes(5_000))
    assert short == http.compressed(short, "gzip")
    assert arrow == http.compressed(arrow, "gzip")


def test_a_header_is_one_line_whatever_was_put_into_it() -> None:
    made = http.safe_headers({"location": "/a\r\nset-cookie: x", "x\r\ny": "z", "x-ü": "1", "x-ok": "grün €"})
    assert {"location": "/a  set-cookie: x", "x-ok": "grün ?"}.items() <= made.items()
    assert {"location", "x-ok", "cache-control", "x-content-type-options"} == set(made)


def test_an_answer_to_head_has_no_body() -> None:
    assert "" == http.answer(LONG, "HEAD")["body"]


def test_long_text_goes_as_base64_since_quotes_would_grow() -> None:
    text = Response(headers={"content-type": "application/json"}, body=b'"' * (2 << 20))
    said = http.answer(text, "GET")
    assert (True, text.body) == (said["isBase64Encoded"], base64.b64decode(str(said["body"])))
