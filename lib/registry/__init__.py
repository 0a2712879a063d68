"""The Confluent Schema Registry over a namespace: subjects, versions, compatibility, and no server of its own.

    records of `_schemas` ──► fold ──► Registry ──► decide ──► records, appended by one fenced transaction
                                          │
                                          └──► answers          (HTTP: headwater.api.routes_registry)

``definitions`` parses and compares schemas, ``compatibility`` judges them by ``avro``, ``jsons`` and ``protobuf``; all
of these are pure. ``ledger`` alone touches the store.
"""
