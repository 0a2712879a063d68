"""Whatever a request says, an admin or access handler answers it in Kafka's terms, and nothing else breaks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.api.service import Service
from headwater.kafka import schema
from headwater.kafka.handlers import table
from headwater.kafka.model import Fields
from headwater.log.operations import AclRule
from tests.kafka.helpers_peer import ask, peer
from tests.log.helpers import memory, opened, simulate

OURS = [17, 19, 20, 21, 29, 30, 31, 32, 33, 34, 35, 36, 37, 43, 44, 45, 46, 48, 49, 50, 51, 74]
WIDTHS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
NAMES = ["t", "u", "ann", "retention.ms", "cleanup.policy", "min.insync.replicas", "compact", "1", "", "PLAIN", "user"]


def values(kind: str) -> st.SearchStrategy[Any]:
    """Values of a primitive: those that mean something, and any others."""
    if kind in WIDTHS:
        half = 2 ** (WIDTHS[kind] - 1)
        return st.integers(-2, 5) | st.integers(-half, half - 1)
    return {
        "string": st.sampled_from(NAMES) | st.text(max_size=8),
        "bool": st.booleans(),
        "uuid": st.binary(min_size=16, max_size=16) | st.just(bytes(16)),
        "bytes": st.binary(max_size=30),
        "float64": st.floats(),
    }[kind]


def messages(struct: schema.Struct) -> st.SearchStrategy[Fields]:
    """Messages of that form."""
    return st.fixed_dictionaries({field.name: fields(field) for field in struct.fields})


def fields(field: schema.Field) -> st.SearchStrategy[Any]:
    one = messages(field.struct) if field.struct is not None else values(field.kind)
    many: st.SearchStrategy[Any] = st.lists(one, max_size=3) if field.is_array else one
    return st.none() | many if field.is_nullable else many


@pytest.mark.parametrize("api", OURS)
@pytest.mark.parametrize("principal", ["root", "ann"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_any_request_gets_an_answer(api: int, principal: str, data: st.DataObject) -> None:
    version = data.draw(st.integers(table()[api].first, table()[api].last))
    asked = data.draw(messages(schema.message(api, version, "request")))

    async def main() -> None:
        namespace = await opened(memory())
        await namespace.create_topic("t", 2)
        await Service(namespace).change_acls([AclRule("ann", "alter", "topic", "t")])
        known = peer(namespace, "" if api in (17, 36) else principal)
        if api == 36:
            await ask(known, 17, mechanism=data.draw(st.sampled_from(["PLAIN", "OAUTHBEARER", "GSSAPI"])))
        await ask(known, api, version, **asked)

    simulate(main())
