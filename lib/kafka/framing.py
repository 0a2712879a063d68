"""Frames out of a stream of bytes: 4 bytes of length, then the request. Pure.

The socket reads straight into the buffer that ``space`` gives, and a frame is a slice of it, so bytes are never copied
unless a frame began in a buffer that was too small for it. A frame's buffer grows with what arrives of it: who claims
100 MB and sends nothing costs nothing.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from headwater.errors import InvalidRequest
from headwater.limits import KAFKA_FRAME_BYTES_MAX, KAFKA_READ_BYTES, MIB

_LENGTH: Final = 4
_GROWTH: Final = 8  # a buffer that is full is followed by one this many times as large, at most its frame's size
_FIRST: Final = 2 * MIB  # … but a frame up to this gets all of its room at once


def _pool() -> pa.MemoryPool:
    """Where frames lie: memory that is given back warm, and in pages of 4 KiB where it is new.

    Measured with requests of 1 MB: mimalloc, Arrow's own choice, asks for huge pages, and a virtual machine whose free
    memory belongs to its host clears those at 0.4 GB/s; malloc finds no room for a request where the last one has lain.
    """
    try:
        return pa.jemalloc_memory_pool()
    except NotImplementedError:  # not in every build of Arrow
        return pa.default_memory_pool()


_POOL: Final = _pool()


class Frames:
    """Collects bytes and gives out whole frames. ``held`` is what it keeps in memory of an unfinished one, in bytes.

    ``bytes_max`` may change: it holds for frames that begin from then on.
    """

    def __init__(self, bytes_max: int = KAFKA_FRAME_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self._buffer: memoryview | None = None
        self._start = self._end = 0  # what has arrived and is in no frame yet
        self._need = _LENGTH  # of the frame at ``_start``, its length included
        self.held = 0

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._end > self._start

    def space(self) -> memoryview:
        """Where the next bytes go. At least 1 byte."""
        if self._buffer is None:
            self._buffer = _memory(KAFKA_READ_BYTES)
            self.held = KAFKA_READ_BYTES
            self._start = self._end = 0
        elif self._end == self.held or self._start + self._need > self.held:
            self._move()
        return self._buffer[self._end :]

    def filled(self, count: int) -> list[memoryview]:
        """``count`` bytes lie in what ``space`` gave: the frames that are complete now, without their lengths.

        Raises ``InvalidRequest`` for a length that is no request's; the stream cannot be read any further then.
        """
        assert self._buffer is not None
        self._end += count
        view = self._buffer
        found: list[memoryview] = []
        while self._end - self._start >= _LENGTH:
            size = int.from_bytes(view[self._start : self._start + _LENGTH], "big", signed=True)
            if not 0 < size <= self.bytes_max:
                raise InvalidRequest(f"A request claims {size} bytes; 1 to {self.bytes_max} are allowed.")
            self._need = _LENGTH + size
            if self._end - self._start < self._need:
                return found
            found.append(view[self._start + _LENGTH : self._start + self._need])
            self._start += self._need
            self._need = _LENGTH
        if self._start == self._end:
            self._buffer = None  # frames may still be slices of it
            self.held = 0
        return found

    def _move(self) -> None:
        """Go on in a buffer with room for the frame, or for a good part of it if little of it has arrived."""
        assert self._buffer is not None
        arrived = self._end - self._start
        size = max(KAFKA_READ_BYTES, min(self._need, max(_FIRST, _GROWTH * arrived)))
        buffer = _memory(size)
        buffer[:arrived] = self._buffer[self._start : self._end]
        self._buffer, self._start, self._end, self.held = buffer, 0, arrived, size


def _memory(nbytes: int) -> memoryview:
    """Memory that nobody has set to zero, as a bytearray is."""
    return memoryview(pa.allocate_buffer(nbytes, memory_pool=_POOL)).cast("B")
