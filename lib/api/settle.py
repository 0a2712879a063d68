"""Commit what a document wishes for, once, whoever comes to finish it and however often.

The document fixes the intent's id and tip before anything is sent, so everyone who takes it up sends the very same
intent. Within the window the fold answers a repetition with the first outcome (R3). Past the window the intent is
void for ever (R4), and whether it was committed before stands in the past: the state as of ``tip + WINDOW`` remembers
exactly the outcomes of the manifests that could have carried it. If it is in none of them, it never was and never
will be, and only then does the document get a new id and tip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from msgspec import field, structs

from headwater.api.documents import Document, Documents, Held
from headwater.errors import HeadwaterError, Indeterminate, NotFound
from headwater.limits import WINDOW
from headwater.log.history import state_at
from headwater.log.intents import new_id
from headwater.log.namespace import Namespace
from headwater.log.operations import AnyOp, Chunk
from headwater.log.state import Outcome

RENEW_MAX = 8  # a wish that falls out of the window so often in one call is left to the next call


class Wish(Document, frozen=True, kw_only=True):
    """A document that becomes one intent. ``outcome`` is what the fold made of it, once it is known."""

    state: Literal["open", "committing", "done", "aborted"] = "open"
    intent: str = ""
    tip: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    outcome: Outcome | None = None


W = TypeVar("W", bound=Wish)


def committing(namespace: Namespace, wish: W) -> W:
    """The wish with the identity under which it will be committed, made at the tip as this process knows it.

    The window begins at that tip, so refresh first.
    """
    chain = namespace.chain
    return structs.replace(wish, state="committing", intent=new_id(chain.rng), tip=chain.state.seq)


async def settle(
    namespace: Namespace, documents: Documents[W], held: Held[W], ops: Sequence[AnyOp]
) -> tuple[Held[W], Outcome]:
    """Commit the wish of ``held``, which is committing, or learn what became of it. A refusal is an outcome, too.

    Raises:
        Indeterminate: the store fell silent, or what would tell has been collected. Call again to learn the outcome.

    Cost: that of a commit, and 1 GET. Long after a crash that of a past state.
    """
    for _ in range(RENEW_MAX):
        wish = held.doc
        if wish.outcome is not None:
            return held, wish.outcome
        outcome = await _attempt(namespace, wish, ops)
        if outcome is not None:
            return held, outcome

        def renewed(now: Held[W], void: str = wish.intent) -> W | None:
            return committing(namespace, now.doc) if now.doc.intent == void and now.doc.outcome is None else None

        held = await documents.change(held, renewed)
    raise Indeterminate(f"The {documents.what} fell out of the window of {WINDOW} commits again and again.")


async def record(documents: Documents[W], held: Held[W], done: W) -> Held[W]:
    """Note the outcome in the document. If that fails it is known all the same, and the next call finds it again."""

    def noted(now: Held[W]) -> W | None:
        return done if now.doc.state == "committing" and now.doc.intent == done.intent else None

    try:
        return await documents.change(held, noted)
    except HeadwaterError:
        return Held(id=held.id, doc=done, etag=held.etag, begun_ms=held.begun_ms, now_ms=held.now_ms)


async def _attempt(namespace: Namespace, wish: Wish, ops: Sequence[AnyOp]) -> Outcome | None:
    """The outcome of the wish's intent; None if it was never committed and never can be."""
    chain, token = namespace.chain, f"{wish.intent}@{wish.tip}"
    try:
        return await namespace.writer.commit_staged(wish.chunks, [], ops, token=token, intent_id=wish.intent)
    except HeadwaterError:
        known = chain.state.recent.get(wish.intent)
        if known is not None:
            return known
        if chain.state.seq < wish.tip + WINDOW:
            raise
    try:
        past = await state_at(chain, wish.tip + WINDOW)
    except NotFound as error:
        raise Indeterminate(f"What became of the commit is no longer known: {error.message}", token=token) from error
    return past.recent.get(wish.intent)
