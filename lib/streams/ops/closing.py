"""How far an operator has closed what it holds, as the changelog hears of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from headwater.streams.frames import NEVER
from headwater.streams.operator import Delta

CLOSED: Final = "closed"  # the tag


@dataclass(slots=True)
class Closed:
    """``at`` is the watermark up to which everything was given out; ``is_news`` until a delta has said so."""

    at: int = NEVER
    is_news: bool = False

    def move(self, watermark: int) -> None:
        """Everything up to ``watermark`` is closed, and the changelog must know."""
        self.at, self.is_news = max(self.at, watermark), True

    def delta(self) -> Delta:
        """The mark itself."""
        return Delta(CLOSED, pl.DataFrame({CLOSED: [self.at]}, schema={CLOSED: pl.Int64}))

    def deltas(self) -> list[Delta]:
        """The mark if it is news."""
        is_news, self.is_news = self.is_news, False
        return [self.delta()] if is_news else []

    def restores(self, delta: Delta) -> bool:
        """Whether the delta is a mark; then it is taken back."""
        if delta.tag != CLOSED:
            return False
        self.at = max(self.at, delta.frame.item())
        return True
