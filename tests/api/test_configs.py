"""Configs of topics and of the namespace: what is taken, what is refused, at every edge, and what it leaves behind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headwater.api.service import Service
from headwater.client.admin import Admin
from headwater.errors import InvalidRequest
from headwater.log.config import DAY_MS, NamespaceConfig, TopicConfig
from tests.api.helpers_http import Client, Log, app_over
from tests.log.helpers import memory, opened, simulate

HISTORY = "history.retention.ms"
BAD = [
    ("retention.ms", "soon"),
    ("retention.ms", "-2"),
    ("retention.bytes", "1.5"),
    ("cleanup.policy", "compress"),
    ("cleanup.policy", ","),
    ("min.compaction.lag.ms", "-1"),
    ("max.compaction.lag.ms", ""),
    ("delete.retention.ms", "-1"),
    ("min.cleanable.dirty.ratio", "1.1"),
    ("min.cleanable.dirty.ratio", "nan"),
    ("archive.enable", "yes"),
    ("archive.bytes", str(2**70)),
    ("archive.ms", "٣"),
]
GOOD = {
    "retention.ms": "-1",
    "retention.bytes": "0",
    "cleanup.policy": "compact, delete",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "9223372036854775807",
    "min.cleanable.dirty.ratio": "0.01",
    "archive.enable": "false",
    "x.of.somebody.else": "anything",
}


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_senseless_topic_config_is_refused_when_it_is_set(name: str, value: str) -> None:
    async def main() -> None:
        space = await opened(memory())
        service = Service(space)
        await space.create_topic("t")
        for call in (
            lambda: space.create_topic("u", 1, {name: value}),
            lambda: space.alter_topic("t", {name: value}),
            lambda: service.create_topic("u", 1, {name: value}),
            lambda: service.alter_topic("t", {name: value}),
        ):
            with pytest.raises(InvalidRequest, match=name.replace(".", r"\.")):
                await call()
        assert ({"t"}, {}) == (set(space.state.names), space.topic("t").config)

    simulate(main())


def test_good_configs_and_those_of_others_are_kept_as_they_are() -> None:
    async def main() -> None:
        space = await opened(memory())
        await Service(space).create_topic("t", 1, GOOD)
        assert space.topic("t").config == GOOD
        config = TopicConfig.of(GOOD)
        assert (True, True, False, 0) == (config.compact, config.delete, config.archive, config.retention_bytes)
        await Service(space).alter_topic("t", dict.fromkeys(GOOD))
        assert {} == space.topic("t").config

    simulate(main())


@pytest.mark.parametrize(
    "config", [{HISTORY: "1"}, {HISTORY: str(DAY_MS - 1)}, {HISTORY: "x"}, {"retention.ms": "-1"}, {"x": None}, {}]
)
def test_what_a_namespace_has_no_use_for_is_refused(config: dict[str, str | None]) -> None:
    async def main() -> None:
        space = await opened(memory())
        with pytest.raises(InvalidRequest):
            await Service(space).alter_namespace(config)
        if config:
            with pytest.raises(InvalidRequest):
                await space.alter_namespace(config)
        assert (0, {}) == (space.state.seq, space.state.config)

    simulate(main())


def test_a_namespace_is_altered_with_a_record_of_it_and_altered_back() -> None:
    async def main() -> None:
        space = await opened(memory())
        async with Admin(Service(space, principal="ann")) as admin:
            await admin.alter_namespace({HISTORY: str(3 * DAY_MS)})
            info = await admin.describe_namespace()
            assert (3 * DAY_MS, "ns") == (NamespaceConfig.of(info.config).history_retention_ms, info.name)
            assert (space.state.seq, space.state.time_ms) == (info.commit, info.time_ms)
            await admin.alter_namespace({HISTORY: None})
            assert {} == (await admin.describe_namespace()).config
        found = await Service(space).fetch("__audit", 0, 0)
        values = [json.loads(v) for chunk in found.chunks for v in chunk.decode().column("value").to_pylist()]
        seen = [(v["principal"], v["action"], v["resource"], v["details"]) for v in values]
        assert [
            ("ann", "alter_namespace", "cluster", {"config": {HISTORY: str(3 * DAY_MS)}}),
            ("ann", "alter_namespace", "cluster", {"config": {HISTORY: None}}),
        ] == seen

    simulate(main())


def test_configs_over_http() -> None:
    async def main() -> None:
        log = Log()
        app = app_over(memory(), log=log)
        client = Client(app)
        changed = await client("PATCH", "/admin/namespace", {"config": {HISTORY: "-1"}})
        assert 204 == changed.status
        found: Any = (await client.done("GET", "/admin/namespace")).json
        assert {HISTORY: "-1"} == found["config"]
        for body in ({"config": {HISTORY: "5"}}, {"config": {}}, {"config": {"a": "b"}}, {"config": {HISTORY: 5}}, {}):
            assert (await client("PATCH", "/admin/namespace", body)).status in (400, 422), body
        refused = await client("POST", "/admin/topics", {"name": "t", "config": {"cleanup.policy": "x"}})
        assert (400, "InvalidRequest") == (refused.status, refused.json["error"])
        assert "cleanup.policy" in refused.json["message"]
        assert {HISTORY: "-1"} == (await client.done("GET", "/admin/namespace")).json["config"]
        await app.close()

    simulate(main())
