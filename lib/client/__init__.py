"""What Python users hold in their hands: producer, consumer, transaction and admin, over a bucket or over HTTP.

    async with Producer("s3://bucket/prefix") as producer:
        await producer.send_and_wait("greetings", b"hello", key=b"en")

    async with Consumer("https://….lambda-url.eu-central-1.on.aws", "greetings", auth="iam") as consumer:
        async for record in consumer:
            print(record.value)

``headwater.client.blocking`` has the same without ``await``. Names are imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.client.admin import Admin
    from headwater.client.connection import Connection, connect
    from headwater.client.consumer import Consumer
    from headwater.client.fetching import NoOffset
    from headwater.client.producer import Producer
    from headwater.client.records import (
        ConsumerRecord,
        GroupMetadata,
        OffsetAndMetadata,
        OffsetAndTimestamp,
        RecordMetadata,
        TopicPartition,
        Undecodable,
    )
    from headwater.client.schemas import schema_serde
    from headwater.client.serializers import Deserializer, Serde, Serializer
    from headwater.client.subscription import RebalanceListener
    from headwater.client.transaction import Transaction

_PLACES = {
    "Admin": "admin",
    "Connection": "connection",
    "Consumer": "consumer",
    "ConsumerRecord": "records",
    "Deserializer": "serializers",
    "GroupMetadata": "records",
    "NoOffset": "fetching",
    "OffsetAndMetadata": "records",
    "OffsetAndTimestamp": "records",
    "Producer": "producer",
    "RebalanceListener": "subscription",
    "RecordMetadata": "records",
    "Serde": "serializers",
    "Serializer": "serializers",
    "TopicPartition": "records",
    "Transaction": "transaction",
    "Undecodable": "records",
    "connect": "connection",
    "schema_serde": "schemas",
}

__all__ = [
    "Admin",
    "Connection",
    "Consumer",
    "ConsumerRecord",
    "Deserializer",
    "GroupMetadata",
    "NoOffset",
    "OffsetAndMetadata",
    "OffsetAndTimestamp",
    "Producer",
    "RebalanceListener",
    "RecordMetadata",
    "Serde",
    "Serializer",
    "TopicPartition",
    "Transaction",
    "Undecodable",
    "connect",
    "schema_serde",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
