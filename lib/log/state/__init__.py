"""The pure fold: what manifests 0..N add up to. No I/O, no clock, no randomness in here.

Read ``model`` for what the state holds, then ``fold`` for how a manifest changes it; ``appends``,
``producers``, ``topics`` and ``groups`` decide one kind of operation each.
"""

from headwater.log.state.fold import apply
from headwater.log.state.model import (
    Committed,
    Entry,
    Group,
    Held,
    Outcome,
    PageRef,
    Partition,
    Producer,
    State,
    Topic,
)

__all__ = [
    "Committed",
    "Entry",
    "Group",
    "Held",
    "Outcome",
    "PageRef",
    "Partition",
    "Producer",
    "State",
    "Topic",
    "apply",
]
