"""Maintenance of a namespace by schedule: what nobody who serves requests has a reason to do.

Members whose leases ended are expelled, overdue reservations are voided, idle offsets, orphaned leases and the
documents of expired transactions, uploads and REST consumers go, and a snapshot is stored if many manifests were
folded since the last one. Any number of processes may do this at once; a namespace with nothing to do costs a few
GETs and LISTs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Final

from headwater.api import asking
from headwater.api.messages import Call, Response, Route
from headwater.api.routes import MAINTAIN
from headwater.errors import Conflict, HeadwaterError, NotFound
from headwater.log import operations as ops
from headwater.log.namespace import Namespace

SNAPSHOT_PART: Final = 4  # a quarter of the manifests that make a snapshot due make it worth while for upkeep
EXPIRE_MAX: Final = 1_000  # reservations voided in one run; the next run takes the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What upkeep did to one namespace. ``failed`` names the chores that an error broke off, and the error."""

    namespace: str
    commit: int
    members_expelled: int = 0
    groups_expired: int = 0
    joins_ended: int = 0
    leases_dropped: int = 0
    reservations_expired: int = 0
    documents_dropped: int = 0
    snapshot: int = 0
    failed: tuple[str, ...] = ()


async def keep_up(namespace: Namespace) -> Report:
    """Do every chore once. An error of one does not keep the others from being done.

    Raises:
        HeadwaterError: the namespace cannot be read at all.

    Cost: about 5 GETs and 4 LISTs if there is nothing to do; see the chores for what they commit.
    """
    await namespace.refresh()
    done: dict[str, int] = {}
    failed: list[str] = []
    chores: tuple[Callable[[Namespace, dict[str, int]], Awaitable[None]], ...] = (
        _groups,
        _reservations,
        _documents,
        _snapshot,
    )
    for chore in chores:
        try:
            await chore(namespace, done)
        except HeadwaterError as error:
            failed.append(f"{chore.__name__.strip('_')}: {type(error).__name__}")
    await namespace.drain()
    return Report(namespace=namespace.name, commit=namespace.state.seq, failed=tuple(failed), **done)


async def _groups(namespace: Namespace, done: dict[str, int]) -> None:
    from headwater.groups.coordinator import Coordinator

    report = await Coordinator(namespace).sweep()
    done |= {
        "members_expelled": len(report.expelled),
        "groups_expired": len(report.expired),
        "joins_ended": len(report.ended),
        "leases_dropped": report.leases_dropped,
    }


async def _reservations(namespace: Namespace, done: dict[str, int]) -> None:
    """Void what is overdue. The fold has the last word on that, by the time of the manifest (R7)."""
    now_ms = namespace.chain.clock.wall_ms()
    overdue = [
        pid for pid, producer in namespace.state.producers.items() if producer.open and producer.deadline_ms <= now_ms
    ]
    expired = 0
    for pid in overdue[:EXPIRE_MAX]:
        try:
            await namespace.writer.commit(ops=[ops.ExpireReserve(pid=pid)])
            expired += 1
        except (Conflict, NotFound):
            continue  # somebody ended it first
    done["reservations_expired"] = expired


async def _documents(namespace: Namespace, done: dict[str, int]) -> None:
    from headwater.api import instance_store
    from headwater.api.transactions import Transactions
    from headwater.api.uploads import Uploads

    dropped = await Transactions(namespace).sweep() + await Uploads(namespace).sweep()
    done["documents_dropped"] = dropped + await instance_store.sweep(namespace.chain)


async def _snapshot(namespace: Namespace, done: dict[str, int]) -> None:
    """Shorten the next cold start, if the last snapshot is some way back."""
    due = namespace.chain.options.snapshot_every // SNAPSHOT_PART
    if namespace.state.seq - namespace.state.paged < due:
        return
    await namespace.chain.adopt_pages()  # perhaps another process has just done it
    if namespace.state.seq - namespace.state.paged >= due:
        done["snapshot"] = await namespace.house.snapshot()


async def maintain(call: Call) -> Response:
    """Do the chores of the namespace now."""
    from headwater.api import access

    asking.refuse_fields(call)
    scopes = access.Rules(call.scopes, everyone=True) if call.scopes else None
    access.check(call.namespace.state, call.principal, scopes, "cluster_action", "cluster", access.CLUSTER)
    return asking.ok(asdict(await keep_up(call.namespace)))


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        pattern="/maintain",
        handler=maintain,
        functions=MAINTAIN,
        summary="Do the chores that a schedule does otherwise",
        consumes=("application/json",),
        answer=Report,
    ),
)
