"""Whatever a client sends, it gets an answer that the document knows, and no mistake of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.api import frames, http, media, openapi, routes
from headwater.log import batch, small
from headwater.types import Record
from tests.api.helpers_http import Log, app_over, event
from tests.log.helpers import memory, simulate

TABLE = routes.table(routes.EVERYTHING)
RECORDS = [Record(value=b"1", key=b"k", timestamp=5)]
BODIES = (
    batch.batch_of_records(RECORDS, default_timestamp=5).data,
    small.batch_of(RECORDS).data,
    frames.pack([("t", 0, small.batch_of(RECORDS)), ("u", 1, small.batch_of(RECORDS))]),
    frames.pack([("t", 0, small.batch_of(RECORDS))], {"producer": {"id": 1, "epoch": 0}, "offsets": []}),
    b'{"records":[{"value":1}]}',
    b'{"topics":["t"],"joining":true}',
    b'{"name":"u","partitions":2}',
    b'{"offsets":[{"topic":"t","partition":0,"offset":0}]}',
    b'{"transactional_id":"x","records":[{"topic":"t","value":1}]}',
    b"",
)
WORDS = ("t", "0", "g", "m1", "..", "%2e", "ü", "-1", "99999999999", "a b", "__audit", "x" * 300, "{}", "%00", "begin")
KINDS = (media.ARROW, media.KAFKA2, media.FRAME, media.JSON, media.KAFKA_JSON, media.KAFKA_BINARY, media.KAFKA_V2, "x")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def paths(draw: Any) -> str:
    if draw(st.integers(0, 9)) == 0:
        return "/" + draw(st.text(max_size=30))
    pattern = draw(st.sampled_from(TABLE)).pattern
    parts = [draw(st.sampled_from(WORDS)) if part.startswith("{") else part for part in pattern.split("/")]
    return draw(st.sampled_from(["", "", "", "/namespaces/default", "/namespaces/x"])) + "/".join(parts)


@st.composite
def bodies(draw: Any) -> bytes:
    data = bytearray(
        draw(st.sampled_from(BODIES) | st.binary(max_size=40) | JSON.map(lambda v: json.dumps(v).encode()))
    )
    for _ in range(draw(st.integers(0, 2))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.just(len(data)) | st.integers(0, len(data)))])


HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(KINDS) | st.text(max_size=20),
        "accept": st.sampled_from([*KINDS, "*/*", "application/*;q=0.5, text/html", "q=x;;,"]) | st.text(max_size=20),
        "content-encoding": st.sampled_from(["gzip", "deflate", "zstd", "br", ""]),
        "accept-encoding": st.sampled_from(["gzip", "gzip;q=0", "*", ";"]),
        "idempotency-key": st.text(max_size=10),
        "headwater-token": st.sampled_from(["abcdefgh@1", "@", "abcdefgh@99"]),
        "headwater-producer-id": st.sampled_from(["1", "x"]),
        "headwater-producer-epoch": st.sampled_from(["0", "-1"]),
        "headwater-producer-sequence": st.sampled_from(["0", "1"]),
        "host": st.text(max_size=10),
    },
)
QUERIES = st.lists(
    st.tuples(
        st.sampled_from(
            ["offset", "from", "timestamp", "max_bytes", "wait_ms", "as_of", "at", "timeout", "count", "x"]
        ),
        st.sampled_from(["0", "1", "earliest", "latest", "-1", "", "%ff", "99999999999999999999", "1e3"]),
    ),
    max_size=3,
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))


@pytest.mark.slow
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(
    asked=st.lists(
        st.tuples(
            st.sampled_from(["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "get"]),
            paths(),
            bodies(),
            QUERIES,
            HEADERS,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_request_gets_an_answer_that_the_document_knows(asked: list[tuple[Any, ...]]) -> None:
    async def main() -> None:
        log = Log()
        app = app_over(memory(), routes=TABLE, log=log, wait_ms_max=50)
        await http.handle(event("POST", "/admin/topics", {"name": "t"}), app)
        for method, path, body, query, headers in asked:
            answer = await http.handle(event(method, path, body, query=query, headers=headers), app)
            json.dumps(answer)
            assert answer["statusCode"] in openapi.REASONS
            assert answer["statusCode"] != 500, answer
            assert [] == log.lines
        await app.close()

    simulate(main())
