"""Native routes of administration: topics, access rules, API keys, quotas and the namespace itself."""

from __future__ import annotations

from headwater.api import asking, media, wire
from headwater.api.messages import Call, Response, Route
from headwater.api.routes import ADMIN, TOPICS, body_schema
from headwater.api.verbs import AclRule, KeyInfo, NamespaceInfo, QuotaInfo, SchemaInfo, TopicInfo

# -- topics ----------------------------------------------------------------------------------------------


async def list_topics(call: Call) -> Response:
    """All topics."""
    return asking.ok({"topics": await call.verbs.topics()})


async def describe_topic(call: Call) -> Response:
    """A topic with its configs and partitions."""
    return asking.ok(await call.verbs.topic(call.parts["topic"]))


async def create_topic(call: Call) -> Response:
    """Create a topic."""
    body = wire.request(call.request.body, wire.CreateTopic)
    return asking.ok(await call.verbs.create_topic(body.name, body.partitions, body.config), 201)


async def alter_topic(call: Call) -> Response:
    """Change a topic's configs."""
    body = wire.request(call.request.body, wire.AlterTopic)
    await call.verbs.alter_topic(call.parts["topic"], body.config)
    return asking.done()


async def delete_topic(call: Call) -> Response:
    """Delete a topic with all its records."""
    await call.verbs.delete_topic(call.parts["topic"])
    return asking.done()


async def add_partitions(call: Call) -> Response:
    """Grow a topic."""
    body = wire.request(call.request.body, wire.AddPartitions)
    await call.verbs.add_partitions(call.parts["topic"], body.total)
    return asking.done()


async def trim(call: Call) -> Response:
    """Move the log start of a partition forward."""
    body = wire.request(call.request.body, wire.Trim)
    start = await call.verbs.delete_records(call.parts["topic"], asking.partition_of(call), body.before)
    return asking.ok({"log_start": start})


async def list_schemas(call: Call) -> Response:
    """All versions of a topic's schema."""
    return asking.ok({"schemas": await call.verbs.schemas(call.parts["topic"])})


async def set_schema(call: Call) -> Response:
    """Give a topic a schema, or the next version of it."""
    body = wire.request(call.request.body, wire.SetSchema)
    text = body.definition if isinstance(body.definition, str) else wire.encode(body.definition).decode()
    return asking.ok(await call.verbs.set_schema(call.parts["topic"], body.format, text, version=body.version))


# -- access ----------------------------------------------------------------------------------------------


async def list_acls(call: Call) -> Response:
    """All access rules."""
    return asking.ok({"acls": await call.verbs.acls()})


async def change_acls(call: Call) -> Response:
    """Add and remove access rules, at once."""
    body = wire.request(call.request.body, wire.ChangeAcls)
    await call.verbs.change_acls(wire.rules(body.add), wire.rules(body.remove))
    return asking.done()


async def list_keys(call: Call) -> Response:
    """All API keys, without their secrets."""
    return asking.ok({"keys": await call.verbs.keys()})


async def create_key(call: Call) -> Response:
    """A new API key and its token, which is shown this once."""
    body = wire.request(call.request.body, wire.CreateKey)
    key, token = await call.verbs.create_key(body.principal, scopes=wire.rules(body.scopes), expires_ms=body.expires_ms)
    return asking.ok({"key": key, "token": token}, 201)


async def revoke_key(call: Call) -> Response:
    """Revoke an API key."""
    await call.verbs.revoke_key(call.parts["key"])
    return asking.done()


async def list_quotas(call: Call) -> Response:
    """All quotas."""
    return asking.ok({"quotas": await call.verbs.quotas()})


async def set_quota(call: Call) -> Response:
    """Set what a principal may use a second."""
    body = wire.request(call.request.body, wire.SetQuota)
    await call.verbs.set_quota(
        call.parts["principal"],
        produce_bytes_per_s=body.produce_bytes_per_s,
        fetch_bytes_per_s=body.fetch_bytes_per_s,
        requests_per_s=body.requests_per_s,
    )
    return asking.done()


async def abort_producer(call: Call) -> Response:
    """Abort what a producer has open, and fence it."""
    body = wire.request(call.request.body, wire.AbortProducer)
    await call.verbs.abort_producer(asking.producer_id_of(call), body.epoch)
    return asking.done()


# -- the namespace ---------------------------------------------------------------------------------------


async def describe_namespace(call: Call) -> Response:
    """The namespace with its configs."""
    return asking.ok(await call.verbs.describe_namespace())


async def alter_namespace(call: Call) -> Response:
    """Change the namespace's configs."""
    body = wire.request(call.request.body, wire.AlterNamespace)
    await call.verbs.alter_namespace(body.config)
    return asking.done()


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        pattern="/admin/namespace",
        handler=describe_namespace,
        functions=ADMIN,
        summary="The namespace with its configs",
        answer=NamespaceInfo,
    ),
    Route(
        method="PATCH",
        pattern="/admin/namespace",
        handler=alter_namespace,
        functions=ADMIN,
        summary="Change the namespace's configs",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.AlterNamespace),
        codes=(204,),
    ),
    Route(
        method="GET",
        pattern="/admin/topics",
        handler=list_topics,
        functions=TOPICS,
        summary="All topics",
        answer={"topics": list[TopicInfo]},
    ),
    Route(
        method="POST",
        pattern="/admin/topics",
        handler=create_topic,
        functions=ADMIN,
        summary="Create a topic",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.CreateTopic),
        codes=(201,),
        answer=TopicInfo,
    ),
    Route(
        method="GET",
        pattern="/admin/topics/{topic}",
        handler=describe_topic,
        functions=TOPICS,
        summary="A topic with its configs and partitions",
        answer=TopicInfo,
    ),
    Route(
        method="PATCH",
        pattern="/admin/topics/{topic}",
        handler=alter_topic,
        functions=ADMIN,
        summary="Change a topic's configs",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.AlterTopic),
        codes=(204,),
    ),
    Route(
        method="DELETE",
        pattern="/admin/topics/{topic}",
        handler=delete_topic,
        functions=ADMIN,
        summary="Delete a topic with all its records",
        codes=(204,),
    ),
    Route(
        method="POST",
        pattern="/admin/topics/{topic}/partitions",
        handler=add_partitions,
        functions=ADMIN,
        summary="Grow a topic to so many partitions",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.AddPartitions),
        codes=(204,),
    ),
    Route(
        method="GET",
        pattern="/admin/topics/{topic}/schema",
        handler=list_schemas,
        functions=TOPICS,
        summary="All versions of a topic's schema",
        answer={"schemas": list[SchemaInfo]},
    ),
    Route(
        method="PUT",
        pattern="/admin/topics/{topic}/schema",
        handler=set_schema,
        functions=ADMIN,
        summary="Give a topic a schema, or the next version of it",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.SetSchema),
        answer=SchemaInfo,
    ),
    Route(
        method="POST",
        pattern="/admin/topics/{topic}/partitions/{partition}/trim",
        handler=trim,
        functions=ADMIN,
        summary="Move the log start of a partition forward",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.Trim),
        answer={"log_start": int},
    ),
    Route(
        method="GET",
        pattern="/admin/acls",
        handler=list_acls,
        functions=ADMIN,
        summary="All access rules",
        answer={"acls": list[AclRule]},
    ),
    Route(
        method="POST",
        pattern="/admin/acls",
        handler=change_acls,
        functions=ADMIN,
        summary="Add and remove access rules, at once",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.ChangeAcls),
        codes=(204,),
    ),
    Route(
        method="GET",
        pattern="/admin/keys",
        handler=list_keys,
        functions=ADMIN,
        summary="All API keys",
        answer={"keys": list[KeyInfo]},
    ),
    Route(
        method="POST",
        pattern="/admin/keys",
        handler=create_key,
        functions=ADMIN,
        summary="A new API key and its token, which is shown this once",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.CreateKey),
        codes=(201,),
        answer={"key": KeyInfo, "token": str},
    ),
    Route(
        method="DELETE",
        pattern="/admin/keys/{key}",
        handler=revoke_key,
        functions=ADMIN,
        summary="Revoke an API key",
        codes=(204,),
    ),
    Route(
        method="GET",
        pattern="/admin/quotas",
        handler=list_quotas,
        functions=ADMIN,
        summary="All quotas",
        answer={"quotas": list[QuotaInfo]},
    ),
    Route(
        method="PUT",
        pattern="/admin/quotas/{principal}",
        handler=set_quota,
        functions=ADMIN,
        summary="Set what a principal may use a second; -1 lifts a bound",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.SetQuota),
        codes=(204,),
    ),
    Route(
        method="POST",
        pattern="/admin/producers/{producer}/abort",
        handler=abort_producer,
        functions=ADMIN,
        summary="Abort what a producer has open under an epoch, and fence it",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.AbortProducer),
        codes=(204,),
    ),
)
