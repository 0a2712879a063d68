"""Configs of groups through Kafka's admin APIs, and changes of groups that leave a record in ``__audit``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headwater.api.audit import append_of
from headwater.groups.configs import CONFIGS, GroupConfig, check_group_configs
from headwater.kafka.configs import FROM_GROUP, INT, STRING, Config, described
from headwater.kafka.model import Fields, Peer
from headwater.log import operations as ops
from headwater.log import operations_shares as share_ops
from headwater.log.surely import commit_surely


def listed(peer: Peer, group: str) -> list[Fields]:
    """All configs of a group, whether it exists or not."""
    own = peer.namespace.state.group_configs.get(group, {})
    return [described(_as_kafkas(config), own.get(name), source=FROM_GROUP) for name, config in CONFIGS.items()]


def _as_kafkas(config: GroupConfig) -> Config:
    kind = STRING if config.choices else INT
    return Config(name=config.name, type=kind, default=config.default, doc=config.doc, broker=config.broker)


async def alter(
    peer: Peer, group: str, wanted: Callable[[Mapping[str, str]], dict[str, str | None]], *, check_only: bool
) -> None:
    """Change what a group has. Raises ``InvalidRequest``, ``Forbidden``. Cost: 1 commit."""
    peer.service.check("alter", "group", group)
    kept = wanted(peer.namespace.state.group_configs.get(group, {}))
    check_group_configs(kept)
    if kept and not check_only:
        await audited(peer, share_ops.AlterGroup(group=group, config=kept), "alter_group", group, config=kept)


async def audited(peer: Peer, op: ops.AnyOp, action: str, group: str, **details: object) -> None:
    """Commit a change of a group together with its audit record. Cost: 1 commit."""
    record = await append_of(
        peer.namespace,
        principal=peer.principal,
        host=peer.host,
        action=action,
        resource="group",
        name=group,
        details=details,
    )
    await commit_surely(peer.namespace, [op], [record])
