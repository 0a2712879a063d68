"""The Kafka gateway: Kafka's wire protocol over the log, by a process that keeps nothing.

    socket ──► framing ──► wire (decode) ──► session ──► handlers ──► api.Service, log, groups ──► the bucket
    socket ◄── framing ◄── wire (encode) ◄── session ◄──┘

``framing`` and ``wire`` are pure: bytes in, messages out. ``session`` keeps the order of one connection's answers,
``handlers`` has one module for each family of APIs, ``gateway`` opens namespaces and listens. Needs the extra
``kafka``.
"""
