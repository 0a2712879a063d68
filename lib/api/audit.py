"""Records of administration: who changed what, when, and from where.

They are ordinary records of the topic ``__audit``, one for each change, and part of the very intent that makes the
change: there is no change without its record, and no record of a change that did not happen. Whoever may describe the
cluster can read them; nobody can write, trim or delete them through the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from headwater.errors import AlreadyExists
from headwater.limits import AUDIT_RETENTION_MS
from headwater.log.namespace import Namespace
from headwater.log.operations import CreateTopic
from headwater.log.writer import Append
from headwater.types import Record

TOPIC: Final = "__audit"
_CONFIG: Final = {"retention.ms": str(AUDIT_RETENTION_MS)}
_encoder = msgspec.json.Encoder(order="deterministic")


async def append_of(
    namespace: Namespace,
    *,
    principal: str,
    host: str,
    action: str,
    resource: str,
    name: str,
    details: Mapping[str, object],
) -> Append:
    """The record of a change, to be committed with it. ``details`` must hold no secret.

    The value is JSON: ``time`` (ms, this process's clock), ``principal``, ``host``, ``action``, ``resource``, ``name``
    and ``details``; the key is the principal. Cost: nothing, or once in a namespace's life the commit that makes the
    topic.
    """
    from headwater.log.small import batch_of

    topic = await _topic(namespace)
    time_ms = max(namespace.state.time_ms, namespace.chain.clock.wall_ms())
    value = {
        "time": time_ms,
        "principal": principal,
        "host": host,
        "action": action,
        "resource": resource,
        "name": name,
        "details": dict(details),
    }
    record = Record(key=principal.encode(), value=_encoder.encode(value), timestamp=time_ms)
    return Append(topic=topic, partition=0, batch=batch_of([record]))


async def _topic(namespace: Namespace) -> int:
    """The id of the topic, which is made on first use."""
    known = namespace.state.named(TOPIC)
    if known is None:
        known = (await namespace.refresh()).named(TOPIC)
    if known is None:
        try:
            await namespace.writer.commit(ops=[CreateTopic(name=TOPIC, partitions=1, config=_CONFIG)])
        except AlreadyExists:
            await namespace.refresh()
        known = namespace.topic(TOPIC)
    return known.id
