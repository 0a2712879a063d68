"""A bounded cache of immutable objects' bytes, least recently used first out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from headwater.limits import KIB
from headwater.types import Buffer

LAZY_BYTES_MIN: Final = 64 * KIB  # of a part, on average: smaller ones would keep larger buffers alive than they are


class ByteCache:
    """Holds at most ``bytes_max`` bytes. Objects never change, so nothing is ever invalidated.

    An object in few large parts is joined by whoever first asks for it: most are never asked for.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.size = 0
        self._held: OrderedDict[str, bytes | tuple[Buffer, ...]] = OrderedDict()
        self._sizes: dict[str, int] = {}

    def get(self, key: str) -> bytes | None:
        """The bytes, if they are held."""
        held = self._held.get(key)
        if held is None:
            return None
        if isinstance(held, tuple):
            held = self._held[key] = b"".join(held)
        self._held.move_to_end(key)
        return held

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Hold the bytes, and let go of others to make room. Larger than everything: not held."""
        size = sum(map(len, parts))
        if size > self.bytes_max or key in self._held:
            return
        self._held[key] = tuple(parts) if size >= LAZY_BYTES_MIN * len(parts) else b"".join(parts)
        self._sizes[key] = size
        self.size += size
        while self.size > self.bytes_max:
            dropped, _ = self._held.popitem(last=False)
            self.size -= self._sizes.pop(dropped)
