"""Whose manifest is next, where a few busy processes take turns. Pure. DESIGN section 6.

Where one leads, what the others write waits until it is stored, found, named and heard of: four requests, and a segment
each. Where there are few and each always has something to send, it is quicker, fairer and takes fewer PUTs that each
writes a manifest of its own in turn: two requests for each who comes before, and its own.

Nobody is told. Whose turn it is follows from the last manifests, so all who have folded the same ones agree, and who
has not loses a race that harms nobody (R1, R2). Who lets two turns pass, or sends too little, is no longer waited for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headwater.log import keys
from headwater.log.intents import Manifest

ROTATING_MAX: Final = 8  # who take turns; more are served sooner by one who leads
BUSY_INTENTS: Final = 3  # in a writer's share of a manifest, by which it has something to send at its next turn, too
PASSED_MAX: Final = 2  # turns that a writer lets pass before it is out
RECENT: Final = 16  # manifests that tell who is about: a second's, where one leads


def shares(manifest: Manifest) -> dict[str, int]:
    """Whose intents a manifest has, and how many of each; of several writers' those without bytes tell nothing.

    Where there are more than can take turns they are not counted.
    """
    if not manifest.merged:
        return {manifest.writer: len(manifest.intents)}
    found = dict.fromkeys([manifest.writer, *map(keys.segment_writer, manifest.merged)], 0)
    for intent in manifest.intents if len(found) <= ROTATING_MAX else ():
        if intent.appends:
            obj = intent.appends[0].obj
            writer = keys.segment_writer(obj).removesuffix(keys.STAGED) if obj else manifest.writer
            if writer in found:
                found[writer] += 1
    return found


@dataclass(frozen=True, slots=True)
class _Entry:
    writer: str
    shares: Mapping[str, int]


class Rotation:
    """The order in which writers take turns, as the last manifests have it."""

    def __init__(self) -> None:
        self._recent: deque[_Entry] = deque(maxlen=RECENT)
        self.order: Sequence[str] = ()  # the next one first; empty if nobody takes turns

    def saw(self, writer: str, shares: Mapping[str, int]) -> None:
        """A manifest of ``writer`` was folded, with so many intents of each. Cost: 2 µs, 50 if several write."""
        self._recent.append(_Entry(writer, shares))
        is_alone = all(each.writer == writer and len(each.shares) == 1 for each in self._recent)
        is_crowd = any(len(each.shares) > ROTATING_MAX for each in self._recent)
        self.order = () if is_alone or is_crowd else self._drawn_up()

    def place(self, writer: str) -> int | None:
        """How many come before ``writer``; None if it does not take turns, as nobody does alone."""
        return self.order.index(writer) if writer in self.order else None

    def _drawn_up(self) -> Sequence[str]:
        wrote: dict[str, int] = {}  # the last manifest of each, by its number in ``_recent``
        since: dict[str, dict[str, int]] = {}  # writer → what others have written since it was here last
        busy: dict[str, bool] = {}
        for number, each in enumerate(self._recent):
            wrote[each.writer] = number
            for writer, counts in since.items():
                if writer != each.writer:
                    counts[each.writer] = counts.get(each.writer, 0) + 1
            for writer, share in each.shares.items():
                since[writer], busy[writer] = {}, share >= BUSY_INTENTS
        if not 2 <= len(busy) <= ROTATING_MAX:
            return ()
        here = [
            writer
            for writer, is_busy in busy.items()
            if is_busy and max(since[writer].values(), default=0) <= PASSED_MAX
        ]
        return sorted(here, key=lambda writer: (wrote.get(writer, -1), writer)) if len(here) > 1 else ()
