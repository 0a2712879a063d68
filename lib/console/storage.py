"""What lies in the bucket below a namespace: by kind, how far history and collection reach, and what nothing names."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from headwater.errors import InvalidRequest
from headwater.limits import CONSOLE_ORPHANS_MAX, CONSOLE_VERIFY_BYTES, CONSOLE_VERIFY_OBJECTS
from headwater.log.namespace import Namespace
from headwater.log.verify import verify
from headwater.upkeep.horizon import read_collected, survey


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far back this goes. ``first`` is the oldest commit as of which can be read, and ``first_ms`` its time.

    ``swept_ms`` is when a collector last came to the end of its work (0: never), and up to which boundary.
    """

    boundary: int
    snapshots: int
    newest: int
    first: int
    first_ms: int
    swept_ms: int
    swept: int
    again_ms: int


async def reach(namespace: Namespace) -> Reach:
    """Cost: 2 LISTs and 1 GET."""
    chain = namespace.chain
    found, hint = await survey(chain), await read_collected(chain)
    usable = sorted((seen for seen in found.snapshots if seen.seq + 1 >= found.boundary), key=lambda seen: seen.seq)
    whole = found.boundary <= 1 or not usable  # every manifest is still there
    swept = hint[0] if hint else None
    return Reach(
        boundary=found.boundary,
        snapshots=len(found.snapshots),
        newest=found.newest.seq if found.newest else 0,
        first=1 if whole else usable[0].seq,
        first_ms=0 if whole else usable[0].modified_ms,
        swept_ms=hint[1] if hint else 0,
        swept=swept.boundary if swept else 0,
        again_ms=swept.again_ms if swept else 0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What ``headwater verify`` found: orphans by kind, and broken invariants in words."""

    orphans: list[KindRow]
    history: int  # objects that only reads as of earlier commits need
    problems: list[str]


async def checked(namespace: Namespace) -> Checked:
    """Look for what nothing names as ``headwater verify`` does, which reads every object.

    Raises ``InvalidRequest``: there is too much of it to read while a browser waits.
    """
    kinds = await kinds_of(namespace)
    objects, size = sum(row.objects for row in kinds), sum(row.bytes for row in kinds)
    if objects > CONSOLE_VERIFY_OBJECTS or size > CONSOLE_VERIFY_BYTES:
        raise InvalidRequest(
            "Which objects nothing names is found by reading all of them, and this namespace has more than "
            f"{CONSOLE_VERIFY_OBJECTS:,} objects or {CONSOLE_VERIFY_BYTES >> 20} MiB: use `headwater verify`."
        )
    report = await verify(namespace.store, clock=namespace.chain.clock, rng=namespace.chain.rng)
    return Checked(
        orphans=[KindRow(kind=kind, objects=n, bytes=size) for kind, (n, size) in sorted(report.orphans.items())],
        history=report.counts.get("history", 0),
        problems=[f"{each.key}: {each.message}" for each in report.problems],
    )
