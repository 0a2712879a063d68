"""Configs of groups through Kafka's admin APIs, and changes of groups that leave a record in ``__audit``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from headwater.api.audit import append_of
from headwater.groups.share_configs import CONFIGS, GroupConfig, check_group_configs
from headwater.kafka.configs import FROM_DEFAULT, INT, STRING
from headwater.kafka.model import Fields, Peer
from headwater.log import operations as ops
from headwater.log import operations_shares as share_ops
from headwater.log.surely import commit_surely

FROM_GROUP: Final = 8  # the source of a group's own config, as DescribeConfigs has it


def listed(peer: Peer, group: str) -> list[Fields]:
    """All configs of a group, whether it exists or not."""
    own = peer.namespace.state.group_configs.get(group, {})
    return [_described(config, own.get(name)) for name, config in CONFIGS.items()]


def _described(config: GroupConfig, value: str | None) -> Fields:
    chain = [{"name": config.broker or config.name, "value": config.default, "source": FROM_DEFAULT}]
    if value is not None:
        chain.insert(0, {"name": config.name, "value": value, "source": FROM_GROUP})
    return {
        "name": config.name,
        "value": config.default if value is None else value,
        "read_only": False,
        "is_default": value is None,
        "config_source": chain[0]["source"],
        "is_sensitive": False,
        "synonyms": chain,
        "config_type": STRING if config.choices else INT,
        "documentation": config.doc,
    }


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
