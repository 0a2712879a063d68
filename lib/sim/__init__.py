"""The deterministic simulation: virtual time, a bucket that misbehaves, a history and its checker.

``loop`` runs any asyncio program in virtual time. ``faults`` is the bucket, and a store for each
simulated process that loses, delays and refuses requests by a seed. ``history`` is what the clients
saw, and ``checker`` judges it without knowing how the engine works. One seed gives one history.
"""
