"""What lies in the bucket below a namespace, counted by kind: one LIST for each thousand objects."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from headwater.errors import InvalidRequest
from headwater.limits import CONSOLE_ORPHANS_MAX
from headwater.log.namespace import Namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRow:
    """Objects of one kind: the first part of their keys."""

    kind: str
    objects: int
    bytes: int


async def kinds_of(namespace: Namespace) -> list[KindRow]:
    """Objects by kind. Raises ``InvalidRequest`` if there are too many to count while a browser waits."""
    counted: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    total = 0
    async for stat in namespace.store.list(""):
        kind = stat.key.partition("/")[0]
        counted[kind][0] += 1
        counted[kind][1] += stat.size
        total += 1
        if total > CONSOLE_ORPHANS_MAX:
            raise InvalidRequest(f"There are more than {CONSOLE_ORPHANS_MAX:,} objects: use `headwater verify`.")
    return [KindRow(kind=kind, objects=count, bytes=size) for kind, (count, size) in sorted(counted.items())]
