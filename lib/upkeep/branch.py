"""Branches: a copy of a namespace, or of one topic, as of a commit, that shares every object and costs a few PUTs.

A branch is a namespace like any other, whose chain begins with a snapshot of its origin instead of nothing. What
commits up to that one made readable stays where it is, in the origin's folder (``State.origins`` says up to which
number); what the branch commits lies in its own. Neither can write into the other.

    1. PUT   origin/branch/<N>-<new>      the pin: the origin's collector marks what the branch may need
    2. LIST  origin/boundary/             above N + 1: too late, the past has been collected
    3. PUT   new/manifest/1               put-if-absent: takes the name, says ``BranchedFrom``
    4. PUT   new/snapshot/<N>, new/boundary/<N+1>, new/latest

The collector writes its boundary and then lists the pins; a branch writes its pin and then lists the boundary. So one
of the two sees the other, and nothing is deleted that a branch needs. Whoever dies on the way leaves a pin, perhaps a
taken name; the same call finishes the work. No failure takes a pin away, since another call may rely on it: a pin
without a branch keeps some objects for too long, and ``drop_branch`` ends it. A process that opened the name while it
was empty meets ``BranchedFrom`` in the fold, stops, and starts again from the snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec
from msgspec import Struct, structs

from headwater.errors import AlreadyExists, Conflict, InvalidRequest, NotFound
from headwater.log import keys, snapshot
from headwater.log.history import state_at
from headwater.log.intents import (
    FORMAT,
    Intent,
    Manifest,
    branched_from,
    decode_hint,
    encode_hint,
    encode_manifest,
    new_id,
)
from headwater.log.namespace import Namespace
from headwater.log.operations import BranchedFrom
from headwater.log.state import Group, Origin, State
from headwater.store.base import ObjectStore

DELETED_AT_ONCE: Final = 1_000


class Pin(Struct, frozen=True, forbid_unknown_fields=True):
    """The line of ``branch/<seq>-<namespace>``."""

    v: int
    kind: str
    namespace: str
    seq: int
    topic: str = ""
    dropping: bool = False  # its objects are being deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """``namespace`` begins as ``origin`` was at ``commit``; with ``topic`` it has that topic alone."""

    namespace: str
    origin: str
    commit: int
    topic: str = ""


_pins = msgspec.json.Decoder(Pin)


async def branch(origin: Namespace, new: str, *, at: int | None = None, topic: str | None = None) -> Branch:
    """Make the namespace ``new`` a copy of ``origin`` as of commit ``at`` (now), or of one of its topics.

    Topics, configs, records, committed offsets, access rules and keys are those of that commit; groups have no members.
    A second call with the same arguments finishes what the first one could not, and does no harm otherwise.

    Raises:
        AlreadyExists: there is a namespace ``new`` that is not this branch. Not applied; choose another name.
        NotFound: commit ``at`` does not exist, or can no longer be read; or there was no such topic. Not applied.
        InvalidRequest: ``new`` is no name for a namespace, or the origin's own.

    Cost: 8 PUTs, 6 GETs and 5 LISTs at most, whatever the namespace holds.
    """
    keys.check_namespace(new)
    if new == origin.name:
        raise InvalidRequest(f"{new!r} is the namespace itself; a branch needs a name of its own.")
    await origin.refresh()
    target = origin.chain.other(new)
    begun = await _begun(origin, target, topic or "")
    if at is None:
        at = begun if begun is not None else await origin.house.snapshot()
    _check_commit(origin, at)
    made = Branch(namespace=new, origin=origin.name, commit=at, topic=topic or "")
    if at == begun and await _some(origin, target, keys.LATEST, 1):
        return made  # it has been made, and perhaps used since
    state = _copied(await state_at(origin.chain, at), made)
    await _pin(origin, made)
    await _take_name(origin, target, made, state)
    await origin.chain.put_once(keys.snapshot_key(at), snapshot.encode(state), target)
    await origin.chain.put_once(keys.boundary_key(at + 1), b"{}\n", target)
    await origin.chain.retry(partial(target.put, keys.LATEST, snapshot.encode_latest(at)))
    return made


async def branches(origin: Namespace) -> list[Branch]:
    """The branches of a namespace, by commit. Those of branches are theirs. Cost: 1 LIST, and 1 GET for each."""
    pins = [await _read_pin(origin, key) for key in await _pinned(origin, origin.store)]
    return [
        Branch(namespace=pin.namespace, origin=origin.name, commit=pin.seq, topic=pin.topic)
        for pin in pins
        if not pin.dropping
    ]


async def drop_branch(origin: Namespace, name: str) -> int:
    """Delete the branch ``name`` and all that it alone holds; how many objects that were.

    Whoever still uses it gets errors: stop them first. Called again after an interruption it goes on.

    Raises:
        NotFound: the namespace has no such branch.
        Conflict: the branch has branches itself. Not applied; drop those first.

    Cost: 1 LIST for each 1,000 objects.
    """
    pinned = [key for key in await _pinned(origin, origin.store) if keys.parse_branch_key(key)[1] == name]
    if not pinned:
        raise NotFound(f"Namespace {origin.name!r} has no branch {name!r}.")
    target = origin.chain.other(name)
    dropped = 0
    for key in pinned:
        pin = await _read_pin(origin, key)
        if await _is_branch(origin, target, pin):
            if own := await _pinned(origin, target):
                others = ", ".join(keys.parse_branch_key(each)[1] for each in own)
                raise Conflict(f"{name!r} has branches of its own, which share its objects: {others}. Drop them first.")
            await _put_pin(origin, structs.replace(pin, dropping=True))
            dropped += await _empty(origin, target)
        await origin.chain.retry(partial(origin.store.delete, [key]))
    return dropped


async def _empty(origin: Namespace, target: ObjectStore) -> int:
    dropped = 0
    while doomed := await _some(origin, target):
        await origin.chain.retry(partial(target.delete, doomed))
        dropped += len(doomed)
    return dropped


async def _is_branch(origin: Namespace, target: ObjectStore, pin: Pin) -> bool:
    """Whether the namespace of that name is what the pin is for, and not another that took the name first."""
    if await _some(origin, target, keys.manifest_key(1), 1):
        return await _branched(origin, target) == BranchedFrom(namespace=origin.name, seq=pin.seq, topic=pin.topic)
    if pin.dropping:
        return True
    try:  # the branch may have collected its first manifest
        latest = snapshot.decode_latest((await origin.chain.retry(partial(target.get, keys.LATEST))).data)
        blob = await origin.chain.retry(partial(target.get, keys.snapshot_key(latest)))
    except NotFound:
        return False
    return Origin(origin.name, pin.seq) in snapshot.decode(blob.data, latest).origins


def _check_commit(origin: Namespace, at: int) -> None:
    beginning = origin.state.origins[-1] if origin.state.origins else None
    if at < 1:
        raise InvalidRequest(f"The first commit is number 1, not {at}; there is nothing to branch before it.")
    if beginning is not None and at < beginning.seq:
        raise NotFound(
            f"{origin.name!r} is itself a branch, of {beginning.namespace!r} as of commit {beginning.seq}: "
            f"branch that namespace at commit {at}."
        )


async def _begun(origin: Namespace, target: ObjectStore, topic: str) -> int | None:
    """The commit at which an earlier call began to make this very branch; None if the name is free."""
    taken = await _branched(origin, target)
    if taken is not None and (taken.namespace, taken.topic) == (origin.name, topic):
        return taken.seq
    for prefix in (keys.MANIFESTS, keys.BOUNDARIES):
        if taken is not None or await _some(origin, target, prefix, 1):
            raise AlreadyExists(f"There is a namespace at {target.url} already. Choose another name.")
    return None


async def _branched(origin: Namespace, target: ObjectStore) -> BranchedFrom | None:
    """What manifest 1 says the namespace is a branch of."""
    try:
        blob = await origin.chain.retry(partial(target.get, keys.manifest_key(1)))
    except NotFound:
        return None
    return branched_from(blob.data)


async def _pin(origin: Namespace, made: Branch) -> None:
    """Steps 1 and 2: what the branch needs stays, or is known to be gone."""
    for first in (True, False):
        boundary = await origin.chain.read_boundary()
        if boundary > made.commit + 1:
            raise NotFound(
                f"Commit {made.commit} can no longer be branched: what it alone needed is collected. The oldest commit "
                f"that can is {boundary - 1}; a longer history.retention.ms keeps more."
            )
        if first:
            await _put_pin(origin, Pin(FORMAT, "branch", made.namespace, made.commit, made.topic))


async def _put_pin(origin: Namespace, pin: Pin) -> None:
    await origin.chain.retry(partial(origin.store.put, keys.branch_key(pin.seq, pin.namespace), encode_hint(pin)))


async def _read_pin(origin: Namespace, key: str) -> Pin:
    return decode_hint(_pins, (await origin.chain.retry(partial(origin.store.get, key))).data, "pin of a branch")


def _copied(state: State, made: Branch) -> State:
    """The state with which the branch begins."""
    copied = state.copied()
    if made.topic:
        chosen = copied.named(made.topic)
        if chosen is None:
            raise NotFound(f"As of commit {made.commit} there was no topic {made.topic!r} in {made.origin!r}.")
        copied.tail_entries = sum(len(place.tail) for place in chosen.partitions)
        copied.topics, copied.names = {chosen.id: chosen}, {chosen.name: chosen.id}
    copied.origins = [*copied.origins, Origin(made.origin, made.commit)]
    copied.groups = {
        group.name: Group(name=group.name, generation=group.generation, offsets=offsets)
        for group in copied.groups.values()
        if (offsets := {topic: places for topic, places in group.offsets.items() if topic in copied.topics})
    }
    return copied


async def _take_name(origin: Namespace, target: ObjectStore, made: Branch, state: State) -> None:
    """Step 3, decided by one conditional write. Raises ``AlreadyExists``."""
    op = BranchedFrom(namespace=made.origin, seq=made.commit, topic=made.topic)
    rng = origin.chain.rng
    intents = [Intent(id=new_id(rng), tip=0, ops=[op])]
    manifest = Manifest(
        v=FORMAT, kind="manifest", seq=1, id=new_id(rng), writer="branch", time=state.time_ms, intents=intents
    )
    await origin.chain.put_once(keys.manifest_key(1), encode_manifest(manifest, 0), target)
    if await _branched(origin, target) != op:
        raise AlreadyExists(f"There is a namespace at {target.url} already. Choose another name.")


async def _pinned(origin: Namespace, store: ObjectStore) -> list[str]:
    return await _some(origin, store, keys.BRANCHES, None)


async def _some(
    origin: Namespace, store: ObjectStore, prefix: str = "", limit: int | None = DELETED_AT_ONCE
) -> list[str]:
    return [stat.key for stat in await origin.chain.listed(prefix, limit=limit, store=store)]
