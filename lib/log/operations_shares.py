"""Operations of share groups (KIP-932), and configs of groups. ``log.state.shares`` decides them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from headwater.limits import INTENT_OPS_MAX, SHARE_DELIVERIES_MAX, SUBSCRIBED_MAX
from headwater.log.operations_base import Count, MemberId, Name, Op, OrNone, Positive, TopicName


class JoinShare(Op, frozen=True):
    """Join a ``share`` group, or change what its member subscribes to (KIP-932). ``as_of``: as in ``JoinGroup``."""

    group: Name
    member: MemberId
    topics: Annotated[list[TopicName], Meta(max_length=SUBSCRIBED_MAX)]
    session_ms: Count = 45_000
    client: Name = ""
    as_of: OrNone = -1


class ClaimShare(Op, frozen=True):
    """``holder`` alone hands out the next ``records`` offsets of a share-partition, until it settles or loses them.

    The free ones below those that nobody has claimed come first; the claim's number is the outcome's ``claim``, and
    its ``records`` how many offsets it got, which may be none. No more than ``locks`` offsets of the share-partition
    are claimed or free again at any time. With ``start`` a share-partition that does not exist begins there.
    """

    group: Name
    topic: Count
    partition: Count
    holder: MemberId
    records: Positive
    locks: Positive
    start: OrNone = -1


class ShareMark(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What became of the offsets ``[base, end)`` that ``claim`` holds.

    ``count`` is how often they were delivered so far; -1 is never again, since they were accepted, rejected or are no
    records. With ``free`` the holder gives them back.
    """

    base: Count
    end: Positive
    claim: Positive
    count: Annotated[int, Meta(ge=-1, le=SHARE_DELIVERIES_MAX)]
    free: bool = False


class SettleShare(Op, frozen=True):
    """Say what became of offsets that ``holder`` has claimed. Refused as ``fenced`` unless it holds all of them."""

    group: Name
    topic: Count
    partition: Count
    holder: MemberId
    marks: Annotated[list[ShareMark], Meta(min_length=1, max_length=INTENT_OPS_MAX)]


class FreeShare(Op, frozen=True):
    """Others may claim what ``holder`` still holds under these claims: it is gone, or has lost count of them.

    Anybody may commit this who knows that the holder's lease is over. What it does not hold any more stays as it is.
    """

    group: Name
    topic: Count
    partition: Count
    holder: MemberId
    claims: Annotated[list[Positive], Meta(min_length=1, max_length=INTENT_OPS_MAX)]


class ResetShares(Op, frozen=True):
    """Begin share-partitions anew: (topic, partition, start offset) each. Refused while the group has members.

    A group that does not exist is made, so that it can be told where to begin before anybody joins.
    """

    group: Name
    starts: Annotated[list[tuple[Count, Count, Count]], Meta(max_length=INTENT_OPS_MAX)]


class ForgetShares(Op, frozen=True):
    """Forget all share-partitions of these topics. Refused while the group has members."""

    group: Name
    topics: Annotated[list[Count], Meta(max_length=INTENT_OPS_MAX)]


class AlterGroup(Op, frozen=True):
    """Set configs of a group, which need not exist yet; a ``None`` value takes one back to its default."""

    group: Name
    config: dict[str, str | None]
