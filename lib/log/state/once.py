"""Idempotency keys: what was done once under a key is not done again for it.

An intent's own id already makes a retry harmless for ``WINDOW`` manifests, but only to a caller that still holds the
id. A key is chosen by the client, and so outlives a lost answer, a function that died, and a client that restarted.
"""

from __future__ import annotations

from typing import Any

from msgspec import structs

from headwater.limits import ONCE_KEEP_MS, ONCE_MAX
from headwater.log.intents import Intent
from headwater.log.operations import Once
from headwater.log.operations_base import Op
from headwater.log.state.change import Change, Refused
from headwater.log.state.model import Done, Outcome, State


def known(state: State, intent: Intent) -> Outcome | None:
    """What was done under the intent's key, with the manifest that did it as ``values["first"]``.

    Raises:
        Refused: the key came with another request (``key_reused``).
    """
    wish = _wish(intent)
    done = state.once.get(wish.key) if wish else None
    if wish is None or done is None:
        return None
    if done.request != wish.request:
        raise Refused("key_reused", f"Idempotency key {wish.key!r} was used for another request less than an hour ago.")
    return structs.replace(done.outcome, seq=state.seq, values={**done.outcome.values, "first": done.outcome.seq})


def remember(state: State, intent: Intent, outcome: Outcome) -> None:
    """Note what was done. Refusals are not noted: nothing happened, and the next attempt may succeed."""
    wish = _wish(intent)
    if wish is not None:
        state.once[wish.key] = Done(wish.request, state.time_ms, outcome)


def forget_old(state: State, window: int) -> None:
    """Forget keys older than ``ONCE_KEEP_MS`` of manifest time, and the oldest beyond ``ONCE_MAX``.

    But none within ``window`` manifests (R4). A repetition that was published before its key was decided may still be
    committed by anybody until then, however much later that is.
    """
    while state.once:
        key, oldest = next(iter(state.once.items()))
        young = len(state.once) <= ONCE_MAX and oldest.time_ms + ONCE_KEEP_MS >= state.time_ms
        if young or oldest.outcome.seq + window >= state.seq:
            return
        del state.once[key]


def answered(state: State, intent: Intent) -> Outcome | None:
    """What the fold would make of the intent now, if its key is known: whoever asks before writing need not write.

    A repetition that is written although its key is known could be committed when the key is forgotten.
    """
    try:
        return known(state, intent) if intent.ops and state.once else None
    except Refused as refused:
        return Outcome(state.seq, refused.code, refused.message)


def _wish(intent: Intent) -> Once | None:
    return next((op for op in intent.ops if isinstance(op, Once)), None)


def _check(change: Change, op: Once) -> None:
    """The operation itself changes nothing: the fold asks ``known`` before, and calls ``remember`` after."""


OPERATIONS: dict[type[Op], Any] = {Once: _check}
