"""The state as it was at an earlier commit, for reads "as of commit N".

The state after manifest N comes from the nearest snapshot at or below N and the manifests behind it. It has an index of
its own, and the collector keeps what that names for as long as history is promised: so a read as of N shows every topic
and group as they were at N (P5).

R5 holds here too: an object in a slot is a commit only if the slot was never collected. So the boundary is read
after the manifests, and if it lies above the first of them, what was read proves nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from headwater.errors import Corrupt, InvalidRequest, NotFound
from headwater.limits import HISTORY_FOLD_MAX, HISTORY_STATES_MAX, SNAPSHOT_EVERY
from headwater.log import keys, snapshot
from headwater.log.chain import Chain, naming, read_manifest
from headwater.log.state import State, apply

NEAR = 4 * SNAPSHOT_EVERY  # manifests below the wanted one among which a snapshot is looked for first


async def state_at(chain: Chain, seq: int) -> State:
    """The state after manifest ``seq``. Shared by all who ask: change nothing in it.

    Its index (tails, pages and files) is its own: what has been trimmed or compacted since is still there to be read,
    as far back as ``history.retention.ms`` reaches. Hand the state to ``Reader.fetch`` or ``Lookup``.

    Raises:
        InvalidRequest: ``seq`` is negative.
        NotFound: commit ``seq`` has not been made yet, or the manifests that led to it were collected. Not applied;
            ask for a commit that ``Fetched.commit`` or ``Appended.commit`` has named lately.

    Cost: nothing for the last few that were asked for. Else 2 LISTs, 1 GET, and 1 GET for each manifest behind the
    snapshot, 256 of them at most as long as snapshots are written on time, up to 16 at once.
    """
    if seq < 0:
        raise InvalidRequest(f"A commit's number is 0 or more, not {seq}.")
    if seq > chain.state.seq:
        await chain.refresh()
    if chain.state.origins and seq < chain.state.origins[-1].seq:
        origin = chain.state.origins[-1]
        raise NotFound(f"This branch begins with commit {origin.seq} of {origin.namespace!r}: look there for {seq}.")
    if seq > chain.state.seq:
        raise NotFound(f"Commit {seq} has not been made yet: the log is at commit {chain.state.seq}.")
    past = _PASTS.setdefault(chain, _Past())
    async with past.loading:  # those who ask for one state at once share the work, and memory stays bounded
        known = past.states.get(seq)
        if known is None:
            known = past.states[seq] = _copied(chain, seq) or await _load(chain, seq)
        past.states.move_to_end(seq)
        while len(past.states) > HISTORY_STATES_MAX:
            past.states.popitem(last=False)
        return known


@dataclass(slots=True)
class _Past:
    """Earlier states of one chain, the one asked for longest ago first."""

    states: OrderedDict[int, State] = field(default_factory=OrderedDict)
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)


_PASTS: WeakKeyDictionary[Chain, _Past] = WeakKeyDictionary()


def _copied(chain: Chain, seq: int) -> State | None:
    """The present state if it is the one that is wanted, as a copy, since the fold changes it in place."""
    return chain.state.copied() if chain.state.seq == seq else None


async def _load(chain: Chain, seq: int) -> State:
    state = await _snapshot_below(chain, seq)
    first = state.seq + 1
    if seq - state.seq > HISTORY_FOLD_MAX:
        raise NotFound(
            f"Commit {seq} can no longer be read: the nearest snapshot is that of commit {state.seq}, and at most "
            f"{HISTORY_FOLD_MAX} commits are gone through again."
        )
    while state.seq < seq:
        for number, data in enumerate(await chain.read_slots(state.seq + 1, seq - state.seq), state.seq + 1):
            if data is None:
                raise await _gone(chain, seq, number)
            apply(state, read_manifest(data, number))
    if first <= seq and await chain.read_boundary() > first:
        raise _collected(seq, first)
    return state


async def _snapshot_below(chain: Chain, seq: int) -> State:
    """The newest state at or below ``seq`` that is stored, else the empty one."""
    for above in (max(seq - NEAR, 0), 0):
        for number in reversed(await _snapshots(chain, above, seq)):
            found = await _stored(chain, number)
            if found is not None:
                return found
        if not above:
            break
    return State()


async def _stored(chain: Chain, seq: int) -> State | None:
    """The snapshot of ``seq``; None if it was collected between the LIST and the GET."""
    key = keys.snapshot_key(seq)
    try:
        blob = await chain.retry(lambda: chain.store.get(key))
    except NotFound:
        return None
    with naming(key):
        return snapshot.decode(blob.data, seq)


async def _snapshots(chain: Chain, above: int, seq: int) -> list[int]:
    """The numbers of the snapshots in ``(above, seq]``, ascending."""

    async def listed() -> list[int]:
        found = []
        async for stat in chain.store.list(keys.SNAPSHOTS, start_after=keys.snapshot_key(above)):
            number = keys.parse_numbered_key(stat.key)
            if number > seq:
                break
            found.append(number)
        return found

    return await chain.retry(listed)


async def _gone(chain: Chain, seq: int, missing: int) -> NotFound | Corrupt:
    if await chain.read_boundary() > missing:
        return _collected(seq, missing)
    return Corrupt(f"Manifest {missing} is missing, and it was never collected. Run `headwater verify`.")


def _collected(seq: int, first: int) -> NotFound:
    return NotFound(f"Commit {seq} can no longer be read: manifest {first}, which leads to it, was collected.")
