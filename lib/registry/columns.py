"""Typed columns for topics whose values have a registered schema.

The subject ``<topic>-value`` describes the values of a topic. Where columns can express its newest schema, it becomes
the next version of the topic's own, bound to its id (``headwater.schemas.framing``), so that the archive has columns
of what Confluent's serializers write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headwater.errors import HeadwaterError
from headwater.schemas import framing
from headwater.schemas.change import set_schema

if TYPE_CHECKING:
    from headwater.log.namespace import Namespace
    from headwater.registry.records import Version

_VALUE: Final = "-value"
_FORMATS: Final = {"AVRO": "avro", "JSON": "json"}


async def give_columns(namespace: Namespace, version: Version) -> bool:
    """Make a registered schema that of its topic; False if there is no such topic, or it cannot be expressed.

    A topic that was given a schema by other means keeps it. Nothing that goes wrong here undoes a registration: the
    topic goes on without new columns, and the next registration of the schema tries again.

    Cost: nothing if the topic has the schema; else 1 GET and 1 commit.
    """
    topic = version.subject.removesuffix(_VALUE)
    found = namespace.state.named(topic)
    if topic == version.subject or found is None or version.schema_type not in _FORMATS or version.references:
        return False
    if found.schemas and not framing.bound(found.schemas):
        return False
    if any(framing.id_of(each) == version.id for each in found.schemas):
        return True
    try:
        bound = framing.bind(version.schema, version.id)
        await set_schema(namespace, topic, _FORMATS[version.schema_type], bound)
    except HeadwaterError:
        return False
    return True
