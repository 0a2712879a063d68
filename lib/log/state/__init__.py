"""The pure fold: what manifests 0..N add up to. No I/O, no clock, no randomness in here.

Read ``model`` for what the state holds, then ``fold`` for how a manifest changes it; ``appends``,
``transactions``, ``topics``, ``archive`` and ``groups`` decide one kind of operation each.
"""

from headwater.log.state.fold import apply
from headwater.log.state.model import (
    ApiKey,
    Archive,
    Committed,
    Ended,
    Entry,
    Group,
    Held,
    Member,
    Origin,
    Outcome,
    PageRef,
    Partition,
    Producer,
    Quota,
    Schema,
    Share,
    Span,
    State,
    Topic,
)

__all__ = [
    "ApiKey",
    "Archive",
    "Committed",
    "Ended",
    "Entry",
    "Group",
    "Held",
    "Member",
    "Origin",
    "Outcome",
    "PageRef",
    "Partition",
    "Producer",
    "Quota",
    "Schema",
    "Share",
    "Span",
    "State",
    "Topic",
    "apply",
]
