"""Group offsets as the verbs name them, as the log keeps them."""

from __future__ import annotations

from headwater.api.verbs import GroupOffsets
from headwater.log.namespace import Namespace
from headwater.log.operations import CommitOffsets


async def offsets_op(namespace: Namespace, commit: GroupOffsets) -> CommitOffsets:
    """The operation that commits ``commit``, each offset with its own metadata. Raises as ``Namespace.offsets_op``."""
    return await namespace.offsets_op(
        commit.group,
        {tp: place.offset for tp, place in commit.offsets.items()},
        commit.generation,
        commit.member,
        {tp: place.metadata for tp, place in commit.offsets.items()},
    )
