"""Frames as bytes: Arrow IPC streams, compressed with lz4, which costs less than what it saves."""

from __future__ import annotations

import io
from typing import Any

import polars as pl

from headwater.errors import Corrupt
from headwater.limits import STREAMS_FRAME_BYTES


def pack(frame: pl.DataFrame) -> list[bytes]:
    """The frame as one IPC stream, or as several of about ``STREAMS_FRAME_BYTES`` each before compression."""
    size = frame.estimated_size()
    rows = max(1, frame.height * STREAMS_FRAME_BYTES // max(int(size), 1))
    parts = [frame] if frame.height <= rows else list(frame.iter_slices(rows))
    return [_packed(part) for part in parts]


def unpack(data: Any) -> pl.DataFrame:
    """The frame again. ``data`` is bytes or a buffer of them. Raises ``Corrupt``."""
    try:
        return pl.read_ipc_stream(io.BytesIO(bytes(data)), use_pyarrow=False)
    except Exception as error:  # what Polars raises for damaged bytes is not one kind of error
        raise Corrupt(f"A record does not hold a frame: {error}") from error


def _packed(frame: pl.DataFrame) -> bytes:
    target = io.BytesIO()
    frame.write_ipc_stream(target, compression="lz4")
    return target.getvalue()
