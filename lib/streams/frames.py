"""Frames: what flows between operators. A Polars data frame of user columns and system columns.

- ``_time`` (Int64): event time in ms; never null.
- ``_wm`` (Int64): the watermark of the row's own source partition just before the row, which is the newest event time
  of the rows before it, less the allowed disorder. A row is late for a window iff the window's end and grace are at or
  below it. So lateness is decided by the log alone: the same in every run, whatever the sizes of micro-batches, the
  number of workers, and the speed of other partitions.
- ``_key`` (Binary): the record's key as it was written; only straight from a source.
- ``_offset`` (Int64): the record's offset; only straight from a source.
- ``_weight`` (Int8): of changes of a table; +1 a row that is there now, -1 one that was there before.
"""

from __future__ import annotations

from typing import Final

TIME: Final = "_time"
WM: Final = "_wm"
KEY: Final = "_key"
OFFSET: Final = "_offset"
WEIGHT: Final = "_weight"
SYSTEM: Final = (TIME, WM, KEY, OFFSET, WEIGHT)
MAIN: Final = ""  # an operator's main output
LATE: Final = "late"
FAILED: Final = "failed"  # rows on which a Python function raised, with the column `_error`
ERROR: Final = "_error"
WINDOW_START: Final = "window_start"
WINDOW_END: Final = "window_end"

NEVER: Final = -(2**62)  # a watermark before all time: nothing was seen yet
ENDED: Final = 2**62  # a watermark behind all time: this input holds nothing back
