"""Which index pages may go, and what is done about a snapshot that names one which has gone.

Pages are made by whoever writes a snapshot, before it, and named by that snapshot and by those of processes that took
them over from it. So a page goes when no snapshot from the horizon on names it, ours or a branch's. Three things might
bring it back to life, and are ruled out:

- Its maker is about to name it. A page's name holds the number of the state that it was made from or pruned by; if that
  lies above the horizon, it is left alone, and so is one that was stored within a day.
- Somebody merges the same pages once more, finds the page that we are about to delete, and names it. But a merge takes
  in the newest page, and that was sealed above the horizon. If nothing was committed since, then the snapshot at the
  horizon is taken over, and whoever wrote it has merged all that was due.
- Its maker has slept for days. Then it finds the boundary above the snapshot from which it has its pages (see
  ``House``), and does not rely on what it stores. Should it die before that, a snapshot remains that names what is
  gone. No collector takes it for its horizon, and it is written anew: from the horizon and the manifests behind it.
  Only that very version is replaced (put-if-match), so a collector that sleeps over this does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from headwater.errors import Conflict, Indeterminate, NotFound
from headwater.limits import MANIFEST_KEEP_S
from headwater.log import keys, snapshot
from headwater.log.chain import Chain, owner_of, read_manifest
from headwater.log.state import PageRef, State, apply
from headwater.log.together import together
from headwater.store.base import Stat
from headwater.upkeep import horizon

READS: Final = 16  # lines of snapshots read at once
DAY_MS: Final = int(MANIFEST_KEEP_S * 1_000)


class Pages:
    """The index pages of one namespace, for one sweep: ``look`` first, then ``may_go`` for each, then ``mend``."""

    def __init__(self, chain: Chain, base: State, now_ms: int) -> None:
        self.chain = chain
        self.base = base
        self.now_ms = now_ms
        self.again_ms = 0  # by the store's clock, when pages that are too young today may go; 0 without any
        self._named: set[str] = set()
        self._lines: dict[int, list[PageRef]] = {}  # what each snapshot of ours names
        self._there: set[str] = set()

    async def look(self, chains: Sequence[tuple[Chain, int]], check_time: Callable[[], None]) -> None:
        """Read which pages the snapshots of ``chains`` name, each from its horizon on.

        They are listed now, after the boundary was moved, so that whoever stores one later finds that. Cost: 1 GET a
        snapshot.
        """
        for chain, lowest in chains:
            seqs = [seen.seq for seen in (await horizon.survey(chain)).snapshots if seen.seq >= lowest]
            for at in range(0, len(seqs), READS):
                part = seqs[at : at + READS]
                for seq, refs in zip(part, await together(*(_line(chain, seq) for seq in part)), strict=True):
                    self._named.update(map(_key, refs or ()))
                    if chain is self.chain and refs is not None:
                        self._lines[seq] = refs
                check_time()

    def may_go(self, stat: Stat) -> bool:
        """Whether nobody can come to need this page. Call it for every page that is there."""
        self._there.add(stat.key)
        if stat.key in self._named or not keys.is_index_key(stat.key):
            return False
        if keys.age_of(stat.key) > self.base.seq:
            return False
        if stat.modified_ms + DAY_MS <= self.now_ms:
            return True
        self.again_ms = max(self.again_ms, stat.modified_ms + DAY_MS)
        return False

    async def mend(self) -> int:
        """Write those snapshots anew that name pages which are gone. How many."""
        mended = 0
        for seq, refs in self._lines.items():
            whole = all(key in self._there or owner_of(key, self.base) for key in map(_key, refs))
            if seq > self.base.seq and not whole:
                mended += await self._mended(seq)
        return mended

    async def _mended(self, seq: int) -> bool:
        """Store ``snapshot/<seq>`` with the pages of the horizon, and all later entries in its tails."""
        chain, key = self.chain, keys.snapshot_key(seq)
        try:
            etag = (await chain.retry(lambda: chain.store.head(key))).etag
            state = self.base.copied()
            while state.seq < seq:
                data = await chain.read_slot(state.seq + 1)
                if data is None:
                    return False  # another collector has moved on: this snapshot is below its horizon
                apply(state, read_manifest(data, state.seq + 1))
            await chain.store.put_if_match(key, snapshot.encode(state), etag)
        except (Conflict, NotFound, Indeterminate):
            return False  # somebody else was faster, or the next run sees
        return True


def _key(ref: PageRef) -> str:
    return keys.index_key(ref.first, ref.last, ref.pruned)


async def _line(chain: Chain, seq: int) -> list[PageRef] | None:
    """The pages of a snapshot; None if it is gone: then it lay below another collector's horizon."""
    try:
        return await horizon.pages_of(chain, seq)
    except NotFound:
        return None
