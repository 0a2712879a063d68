"""Old snapshots of an Iceberg table: those that name files which the log's collector may have deleted.

A table that is synced every five minutes gains 100,000 snapshots a year, and its metadata names all of them. So a sync
drops those that are older than the history of the log, when there are enough of them, and what Iceberg alone kept for
them: lists of manifests and manifests, never a data file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.limits import ICEBERG_EXPIRED_MIN
from headwater.replay.iceberg_table import translated

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot


def expire(table: Table, before_ms: int) -> int:
    """Drop the snapshots made before ``before_ms``, if there are many; how many. Branches, tags and the newest stay.

    Raises:
        Lost: somebody else changed the table first. Nothing was dropped; the next sync does it.

    Cost: nothing as a rule; once for each ICEBERG_EXPIRED_MIN snapshots a commit, and 1 GET and 1 DELETE for each list.
    """
    with translated():
        kept_ids = {ref.snapshot_id for ref in table.refs().values()}
        old = [s for s in table.snapshots() if s.timestamp_ms < before_ms and s.snapshot_id not in kept_ids]
        if len(old) < ICEBERG_EXPIRED_MIN:
            return 0
        gone = {snapshot.snapshot_id for snapshot in old}
        kept = [snapshot for snapshot in table.snapshots() if snapshot.snapshot_id not in gone]
        doomed = _metadata(table, old) - _metadata(table, kept)
        table.maintenance.expire_snapshots().by_ids(sorted(gone)).commit()
        for path in sorted(doomed):
            _delete(table, path)
        return len(old)


def _metadata(table: Table, snapshots: list[Snapshot]) -> set[str]:
    """What Iceberg keeps for these snapshots. A list that cannot be read was deleted by an earlier try."""
    found: set[str] = set()
    for snapshot in snapshots:
        found.add(snapshot.manifest_list)
        try:
            found |= {manifest.manifest_path for manifest in snapshot.manifests(table.io)}
        except FileNotFoundError:
            continue
    return found


def _delete(table: Table, path: str) -> None:
    """Delete an object that nothing names any more. If that fails, it is left: it harms nobody."""
    try:
        table.io.delete(path)
    except OSError:
        return
