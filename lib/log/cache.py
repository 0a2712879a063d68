"""A bounded cache of immutable objects' bytes, least recently used first out."""

from __future__ import annotations

from collections import OrderedDict


class ByteCache:
    """Holds at most ``bytes_max`` bytes. Objects never change, so nothing is ever invalidated."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.size = 0
        self._held: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        """The bytes, if they are held."""
        data = self._held.get(key)
        if data is not None:
            self._held.move_to_end(key)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Hold the bytes, and let go of others to make room. Larger than everything: not held."""
        if len(data) > self.bytes_max or key in self._held:
            return
        self._held[key] = data
        self.size += len(data)
        while self.size > self.bytes_max:
            self.size -= len(self._held.popitem(last=False)[1])
