"""Configs through Kafka's admin APIs: of topics, of brokers (which are all alike), and of the namespace.

TOPIC            the table in ``headwater.kafka.configs``
BROKER "0"       what any gateway says of itself; read only
BROKER ""        the cluster's defaults: the namespace's own configs, which can be altered
GROUP            what groups have (``groups.configs``)
others           CLIENT_METRICS and BROKER_LOGGER exist and have no configs here
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Final

from kio.schema.errors import ErrorCode

from headwater.errors import Forbidden, HeadwaterError, InvalidRequest
from headwater.groups.configs import CONFIGS
from headwater.kafka import configs
from headwater.kafka.configs import Config, described
from headwater.kafka.errors import Refusal, told
from headwater.kafka.handlers import Api, group_configs
from headwater.kafka.handlers.admin import UNDECIDED, for_each, trouble_at_door
from headwater.kafka.model import Fields, Peer, Request
from headwater.log.config import check_namespace_config

TOPIC: Final = 2  # types of resources
BROKER: Final = 4
BROKER_LOGGER: Final = 8
CLIENT_METRICS: Final = 16
GROUP: Final = 32
_EMPTY: Final = (BROKER_LOGGER, CLIENT_METRICS, GROUP)

_SET, _DELETE, _APPEND, _SUBTRACT = range(4)


# -- describing ----------------------------------------------------------------------------------------


async def describe_configs(peer: Peer, request: Request) -> Fields:
    """DescribeConfigs (KIP-133; synonyms KIP-226, types and documentation KIP-569)."""
    trouble = await trouble_at_door(peer)
    synonyms, docs = request.fields["include_synonyms"], request.fields["include_documentation"]

    def answer(resource: Fields) -> Fields:
        kind, name = resource["resource_type"], resource["resource_name"]
        asked = {"resource_type": kind, "resource_name": name}
        try:
            if trouble is not None:
                raise trouble
            listed = _listed(peer, kind, name)
        except HeadwaterError as error:
            return {**asked, "configs": [], **told(error, **_special(kind))}
        keys = set(resource["configuration_keys"] or ())
        chosen = [each for each in listed if not keys or each["name"] in keys]
        return {**asked, "error_code": ErrorCode.none, "configs": [_cut(each, synonyms, docs) for each in chosen]}

    return {"results": [answer(resource) for resource in request.fields["resources"]]}


def _listed(peer: Peer, kind: int, name: str) -> list[Fields]:
    if kind == TOPIC:
        peer.service.check("describe", "topic", name)
        topic = peer.namespace.topic(name)
        return [described(config, topic.config.get(config.name)) for config in configs.TOPIC.values()]
    if kind == GROUP:
        peer.service.check("describe", "group", name)
        return group_configs.listed(peer, name)
    _check_kind(kind)
    peer.service.check("describe", "cluster")
    if kind != BROKER:
        return []
    state = peer.namespace.state
    ours = [
        described(config, state.config.get(config.name), source=configs.FROM_CLUSTER)
        for config in configs.CLUSTER.values()
    ]
    if not name:
        return [each for each in ours if each["config_source"] == configs.FROM_CLUSTER]
    _check_broker(name)
    return [_fixed(config) for config in _of_gateway(peer)] + ours


def _of_gateway(peer: Peer) -> list[Config]:
    settings = peer.gateway.settings
    return configs.broker_configs(
        node=peer.gateway.node_id,
        rack=settings.zone,
        listener=f"{peer.name}://{peer.address.host}:{peer.address.port}",
        auto_create=settings.auto_create,
        partitions=settings.partitions_default,
    )


def _fixed(config: Config) -> Fields:
    """What was said when the gateway was started, or cannot be otherwise."""
    synonym = {"name": config.name, "value": config.default, "source": configs.FROM_BROKER}
    found = {"read_only": True, "is_default": False, "config_source": configs.FROM_BROKER, "synonyms": [synonym]}
    return described(config, None) | found


def _cut(config: Fields, synonyms: bool, docs: bool) -> Fields:
    return config | ({} if synonyms else {"synonyms": []}) | ({} if docs else {"documentation": None})


async def list_config_resources(peer: Peer, request: Request) -> Fields:
    """ListConfigResources (KIP-1142): what has configs: topics, this gateway, and groups with some of their own."""
    state = await peer.service.enter(fresh=True)
    if not peer.service.may("describe", "cluster"):
        return {"error_code": ErrorCode.cluster_authorization_failed, "config_resources": []}
    kinds = set(request.fields["resource_types"] or ()) if request.version else {CLIENT_METRICS}
    unknown = kinds - {TOPIC, BROKER, *_EMPTY}
    if unknown:
        return {"error_code": ErrorCode.unsupported_version, "config_resources": []}
    found = []
    if not kinds or TOPIC in kinds:
        found += [
            {"resource_name": name, "resource_type": TOPIC}
            for name in sorted(state.names)
            if peer.service.may("describe", "topic", name)
        ]
    if not kinds or GROUP in kinds:
        found += [
            {"resource_name": name, "resource_type": GROUP}
            for name in sorted(state.group_configs)
            if peer.service.may("describe", "group", name)
        ]
    if not kinds or BROKER in kinds:
        found.append({"resource_name": str(peer.gateway.node_id), "resource_type": BROKER})
    return {"error_code": ErrorCode.none, "config_resources": found}


# -- altering ------------------------------------------------------------------------------------------


async def alter_configs(peer: Peer, request: Request) -> Fields:
    """AlterConfigs (KIP-133): what is not named goes back to its default."""

    def wanted(resource: Fields, present: Mapping[str, str], known: Container[str]) -> dict[str, str | None]:
        named: dict[str, str | None] = {each["name"]: each["value"] for each in resource["configs"]}
        return {name: None for name in present if name in known} | named

    return await _altered(peer, request, wanted)


async def incremental_alter_configs(peer: Peer, request: Request) -> Fields:
    """IncrementalAlterConfigs (KIP-339): set, delete, and for lists append and subtract."""

    def wanted(resource: Fields, present: Mapping[str, str], known: Container[str]) -> dict[str, str | None]:
        return {each["name"]: _stepped(each, present.get(each["name"])) for each in resource["configs"]}

    return await _altered(peer, request, wanted)


def _stepped(each: Fields, present: str | None) -> str | None:
    step, name, value = each["config_operation"], each["name"], each["value"]
    if step == _DELETE:
        return None
    if value is None:
        raise Refusal(ErrorCode.invalid_request, f"Null value not supported for : {name[:80]}")
    if step == _SET:
        return str(value)
    if step not in (_APPEND, _SUBTRACT):
        raise Refusal(ErrorCode.invalid_request, f"Unknown operation {step} on config {name[:80]}.")
    change = configs.added if step == _APPEND else configs.subtracted
    return change(name, present, value)


_Wanted = Callable[[Fields, Mapping[str, str], Container[str]], dict[str, str | None]]


async def _altered(peer: Peer, request: Request, wanted: _Wanted) -> Fields:
    resources, check_only = request.fields["resources"], request.fields["validate_only"]
    places = Counter((each["resource_type"], each["resource_name"]) for each in resources)
    trouble = await trouble_at_door(peer)

    async def alter(resource: Fields) -> Fields:
        kind, name = resource["resource_type"], resource["resource_name"]
        asked = {"resource_type": kind, "resource_name": name}
        try:
            if places[kind, name] > 1:
                raise Refusal(ErrorCode.invalid_request, "Each resource must appear at most once.")
            if trouble is not None:
                raise trouble
            _check_once(resource["configs"])
            await _alter(peer, resource, wanted, check_only=check_only)
            return {**asked, "error_code": ErrorCode.none}
        except HeadwaterError as error:
            return {**asked, **told(error, **_special(kind))}

    return {"responses": await for_each(resources, alter)}


async def _alter(peer: Peer, resource: Fields, wanted: _Wanted, *, check_only: bool) -> None:
    kind, name = resource["resource_type"], resource["resource_name"]
    if kind == TOPIC:
        peer.service.check("alter", "topic", name)
        present = peer.namespace.topic(name).config
        kept = configs.checked(wanted(resource, present, configs.TOPIC))
        if kept and not check_only:
            await peer.service.alter_topic(name, kept)
        return
    if kind == GROUP:
        await group_configs.alter(peer, name, lambda present: wanted(resource, present, CONFIGS), check_only=check_only)
        return
    _check_kind(kind)
    peer.service.check("alter", "cluster")
    if kind != BROKER or name:
        text = "Only topics, groups and the cluster's defaults (the broker without a name) have configs to alter."
        raise Refusal(ErrorCode.invalid_request, text)
    ours = wanted(resource, peer.namespace.state.config, configs.CLUSTER)
    for each, value in ours.items():
        check_namespace_config(each, "-1" if value is None else value)
    if ours and not check_only:
        await peer.service.alter_namespace(ours)


def _check_once(listed: Sequence[Fields]) -> None:
    if len({each["name"] for each in listed}) < len(listed):
        raise Refusal(ErrorCode.invalid_request, "Error due to duplicate config keys")


def _check_kind(kind: int) -> None:
    if kind not in (BROKER, *_EMPTY):
        raise Refusal(ErrorCode.invalid_request, f"Unexpected resource type {kind}.")


def _check_broker(name: str) -> None:
    if not (name.isascii() and name.isdigit()):
        raise Refusal(ErrorCode.invalid_request, f"Broker id must be an integer, but it is: {name[:40]}")


def _special(kind: int) -> dict[str, ErrorCode]:
    """What our errors mean for a resource of that type."""
    denied = {TOPIC: ErrorCode.topic_authorization_failed, GROUP: ErrorCode.group_authorization_failed}
    return {
        **UNDECIDED,
        Forbidden.__name__: denied.get(kind, ErrorCode.cluster_authorization_failed),
        InvalidRequest.__name__: ErrorCode.invalid_config,
    }


APIS: Final = {
    32: Api(1, 4, describe_configs),
    33: Api(0, 2, alter_configs),
    44: Api(0, 1, incremental_alter_configs),
    74: Api(0, 1, list_config_resources),
}
