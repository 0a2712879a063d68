"""Who may still come to a commit that gathers.

A commit waits for company because one request to the store then serves many. It need not wait for those who are waiting
themselves: a client that has sent a batch and hears nothing sends no other one, or few. So whoever appends for others
names its callers, and a commit waits only as long as somebody is away who had an outcome just now. A single client,
however fast, then never waits for nobody.
"""

from __future__ import annotations

import math
from collections.abc import Hashable


class Company:
    """The callers of one process. Those who never say who they are may come at any time."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._waiting: dict[Hashable, int] = {}  # caller → its appends that are not answered
        self._away: dict[Hashable, float] = {}  # caller → when it got its last answer, in that order
        self._known = False

    def begin(self, caller: Hashable) -> None:
        """``caller`` waits for one more outcome."""
        self._known = True
        self._waiting[caller] = self._waiting.get(caller, 0) + 1
        self._away.pop(caller, None)

    def end(self, caller: Hashable, now_s: float) -> None:
        """``caller`` has one of its outcomes; with the last of them it may come back at once."""
        left = self._waiting.pop(caller, 0) - 1
        if left > 0:
            self._waiting[caller] = left
        elif left == 0:
            self._away.pop(caller, None)
            self._away[caller] = now_s

    def leave(self, caller: Hashable) -> None:
        """``caller`` does not come back."""
        self._waiting.pop(caller, None)
        self._away.pop(caller, None)

    def awaited_s(self, now_s: float) -> float:
        """For how long somebody may still come: 0.0 if all are here, infinite while nobody has said who they are."""
        if not self._known:
            return math.inf
        if not self._away:
            return 0.0
        left_s = next(reversed(self._away.values())) + self._patience_s - now_s
        if left_s <= 0:
            self._away.clear()  # the others have been away for longer
        return max(0.0, left_s)
