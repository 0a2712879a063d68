"""Replay straight from object storage with Arrow: any range of any topic, without a Headwater process.

    from headwater.replay import replay, as_of

    for batch in replay("s3://bucket/log", "flights", start=datetime(2013, 7, 4), columns=["offset", "value"]):
        ...
    past = as_of("s3://bucket/log", datetime(2013, 7, 5))   # all topics and group offsets, one consistent cut

These functions block, for notebooks and scripts. With an open namespace and ``await`` it is ``replay_batches``.
"""

from headwater.replay.dataset import ArchiveFile
from headwater.replay.face import Cut, as_of, duckdb, files, polars, replay, to_dataset
from headwater.replay.ranges import Commit
from headwater.replay.stream import Progress, Replay, open_replay, replay_batches

__all__ = [
    "ArchiveFile",
    "Commit",
    "Cut",
    "Progress",
    "Replay",
    "as_of",
    "duckdb",
    "files",
    "open_replay",
    "polars",
    "replay",
    "replay_batches",
    "to_dataset",
]
