"""One moment of a namespace, as far as a replay of one topic needs it.

The state of a running process changes in place with every commit. A replay takes it once, so that all its partitions
are those of one commit, and looks again only when an object has vanished under it (R6).
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import structs

from headwater.errors import NotFound
from headwater.log.history import state_at
from headwater.log.namespace import Namespace
from headwater.log.state import Partition, State, Topic


@dataclass(frozen=True, slots=True)
class View:
    """The topic as of commit ``state.seq``. ``fixed``: by the caller's wish, so there is no newer one to look at."""

    namespace: Namespace
    state: State
    topic: Topic
    fixed: bool

    def place(self, partition: int) -> Partition:
        """The partition. Raises ``NotFound``."""
        return self.namespace.reader.place(self.topic.name, partition, self.state)[1]


async def view_of(namespace: Namespace, topic: str, commit: int | None = None) -> View:
    """The topic as it is now, or as it was at ``commit``.

    Raises:
        NotFound: there is, or was, no such topic; or ``commit`` can no longer be read.

    Cost: 1 GET; of an earlier commit what ``state_at`` costs.
    """
    if commit is None:
        state = await namespace.refresh()
        found = state.named(topic)
    else:
        state = await state_at(namespace.chain, commit)
        found = state.named(topic)
    if found is None:
        when = "" if commit is None else f" at commit {commit}"
        known = ", ".join(sorted(state.names)[:8]) or "none"
        raise NotFound(f"There is no topic {topic!r} in namespace {namespace.name!r}{when}; there are: {known}.")
    if commit is None:
        state, found = _copied(state, found)
    return View(namespace, state, found, commit is not None)


async def again(view: View) -> View:
    """The same topic as it is now, after an object of ``view`` has vanished. Raises ``NotFound`` if it is gone."""
    chain = view.namespace.chain
    await chain.refresh()
    await chain.adopt_pages()
    found = chain.state.topics.get(view.topic.id)
    if found is None:
        raise NotFound(f"Topic {view.topic.name!r} was deleted while it was replayed.", topic=view.topic.name)
    return View(view.namespace, *_copied(chain.state, found), False)


def _copied(state: State, topic: Topic) -> tuple[State, Topic]:
    """The state as it is, with this topic alone: a fold that goes on changes none of it."""
    partitions = [structs.replace(p, held=list(p.held), tail=list(p.tail)) for p in topic.partitions]
    mine = structs.replace(topic, partitions=partitions, schemas=list(topic.schemas), config=dict(topic.config))
    kept = State(
        seq=state.seq,
        time_ms=state.time_ms,
        format=state.format,
        floor=state.floor,
        origins=list(state.origins),
        topics={topic.id: mine},
        names={topic.name: topic.id},
        pages=list(state.pages),
        paged=state.paged,
    )
    return kept, mine
