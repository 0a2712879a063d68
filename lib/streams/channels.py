"""Where event time comes from: channels, and the watermark of what they feed. Pure.

A channel is a source partition, or an upstream task behind a repartition topic. Its watermark is the newest event time
that it brought, less its allowed disorder; a node's is the least of the channels that feed it. (Akidau et al., The
Dataflow Model, VLDB 2015; the minimum over channels as in Flink.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import pyarrow.compute as pc

from headwater.streams.frames import ENDED, NEVER, TIME, WM

_ABSENT = ENDED // 2  # from here on it is ``ENDED`` less what operators are behind: no time that anybody brought


@dataclass(slots=True)
class Channel:
    """One input in time. An idle one holds nothing back until it brings something again."""

    newest: int = NEVER
    watermark: int = NEVER
    idle: bool = False


@dataclass(slots=True)
class Feed:
    """A source of a task: all its channels.

    ``holds`` says that it holds back the watermark of what it feeds, as a stream does; a table only answers.
    """

    out_of_order: int = 0
    holds: bool = True
    expected: int = 1  # channels that there will be; one not heard of holds back as one that brought nothing
    channels: dict[int, Channel] = field(default_factory=dict)
    watermark: int = NEVER  # never goes back

    def stamp(self, channel: int, frame: pl.DataFrame, floor: int, *, exact: bool = True) -> pl.DataFrame:
        """A frame straight from a topic with the column ``_wm``, which is never below ``floor``.

        Unless ``exact`` all rows have that of the first one, for where nothing asks what is late.

        ``floor`` is the watermark that time has reached behind this source; it is above the channel's own only after
        the channel was idle.
        """
        known = self._channel(channel)
        before = known.newest if known.newest == NEVER else known.newest - self.out_of_order
        times = frame.get_column(TIME)
        if exact:
            # Arrow's cumulative maximum takes half the time of Polars'.
            earlier = times.shift(1, fill_value=max(before, floor) + self.out_of_order).to_arrow()
            running = pl.Series(WM, pc.cumulative_max(earlier)) - self.out_of_order
            stamped = frame.with_columns(running) if WM in frame.columns else frame.hstack([running])
        else:
            stamped = frame.with_columns(pl.lit(max(before, floor), pl.Int64).alias(WM))
        newest = times.max()
        assert isinstance(newest, int), "event times are never null"
        known.newest = max(known.newest, newest)
        known.watermark = max(known.watermark, known.newest - self.out_of_order)
        known.idle = False
        return stamped

    def hear(self, channel: int, watermark: int | None, idle: bool) -> None:
        """What a marker says, or the runner who knows that a partition is silent."""
        known = self._channel(channel)
        if watermark is not None:
            known.watermark = max(known.watermark, watermark)
        known.idle = idle

    def advance(self) -> int:
        """The watermark as of now."""
        active = [channel.watermark for channel in self.channels.values() if not channel.idle]
        if len(self.channels) < self.expected:
            active.append(NEVER)
        if active:
            self.watermark = max(self.watermark, min(active))
        elif self.channels:
            # All are idle: what came is complete as far as anybody knows.
            self.watermark = max(self.watermark, *(channel.watermark for channel in self.channels.values()))
        return self.watermark

    @property
    def is_idle(self) -> bool:
        """Whether every channel is there and idle."""
        return len(self.channels) >= self.expected and all(channel.idle for channel in self.channels.values())

    def document(self) -> dict[str, Any]:
        """What a successor needs, as plain data."""
        channels = {str(name): [each.newest, each.watermark, each.idle] for name, each in self.channels.items()}
        return {"channels": channels, "watermark": self.watermark}

    def resume(self, document: dict[str, Any]) -> None:
        """Go on where ``document`` was made."""
        self.channels = {
            int(name): Channel(newest, watermark, idle)
            for name, (newest, watermark, idle) in document["channels"].items()
        }
        self.watermark = document["watermark"]

    def _channel(self, name: int) -> Channel:
        return self.channels.setdefault(name, Channel())


def lowest(feeding: Iterable[tuple[int, bool, bool]]) -> tuple[int, bool, bool]:
    """The watermark of a node, whether it holds back others, and whether it is idle, from those of its parents.

    Tables hold back nothing where a stream is there to say what time it is, nor does an idle stream where another is
    not. If all are idle, what came is complete as far as anybody knows, as among the channels of one source.
    """
    parents = list(feeding)
    held = [(watermark, idle) for watermark, holds, idle in parents if holds]
    if not held:
        return min((watermark for watermark, _, _ in parents), default=ENDED), False, True
    active = [watermark for watermark, idle in held if not idle]
    if active:
        return min(active), True, False
    known = [watermark for watermark, _ in held if watermark < _ABSENT]
    return max(known, default=ENDED), True, True
