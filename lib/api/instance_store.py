"""What a REST consumer instance knows between two requests: a document, ``consumer/<group>/<instance>``.

No process owns an instance. Whoever serves a request reads the document, and changes it with put-if-match; of two
requests that change it at the same time one begins anew. Its age is the store's (R7): each change, and an empty poll
now and then, stamps it, and a document that nobody stamped for ``CONSUMER_IDLE_MS`` stands for no instance any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct, structs

from headwater.api.documents import delete_older
from headwater.api.messages import HttpError
from headwater.errors import Conflict, Indeterminate, InvalidRequest, NotFound, Throttled, Unavailable
from headwater.limits import (
    CONSUMER_CHANGES_KEPT,
    CONSUMER_IDLE_MS,
    CONSUMER_WAIT_MS,
    DOCUMENT_BYTES_MAX,
)
from headwater.log import frame, keys
from headwater.log.chain import Chain, naming
from headwater.log.intents import decode_known, new_id
from headwater.store.base import Stat
from headwater.store.retry import Backoff

INSTANCE_NOT_FOUND = 40403
INSTANCE_EXISTS = 40902

Mode: TypeAlias = Literal["", "topics", "pattern", "assigned"]
_Whole: TypeAlias = Annotated[int, Meta(ge=-1, le=2**62)]


class Settings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the creator of an instance has chosen."""

    format: Literal["json", "binary"] = "binary"
    reset: Literal["earliest", "latest", "none"] = "latest"
    auto_commit: bool = True
    bytes_min: int = 1
    wait_ms: int = CONSUMER_WAIT_MS
    session_ms: int = 0


class Place(Struct, frozen=True, array_like=True):
    """A partition that the instance reads: ``position`` is next; ``committed`` is what it last committed, or -1.

    ``since`` is the generation since which its member owns the partition, -1 where it was assigned by hand.
    ``before`` is where the last poll began, for its repetition; -1 where there was none.
    """

    topic: str
    partition: int
    since: _Whole
    position: _Whole
    committed: _Whole = -1
    before: _Whole = -1

    @property
    def tp(self) -> tuple[str, int]:
        """Topic and partition."""
        return self.topic, self.partition


class Instance(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The document. ``member`` is its id in the group, which is a member only once it has ``joined``.

    ``changes`` are the ids of the last changes, the newest first: whoever lost the answer to one finds it here, even
    if others have changed the document since. ``poll`` is the key of the last poll, if that had one.
    """

    v: int = 1
    kind: Literal["consumer"] = "consumer"
    changes: tuple[str, ...] = ()
    principal: str = ""
    group: str
    name: str
    settings: Settings = Settings()
    mode: Mode = ""
    topics: tuple[str, ...] = ()
    pattern: str = ""
    member: str = ""
    joined: bool = False
    epoch: int = -1
    places: tuple[Place, ...] = ()
    turn: int = 0
    poll: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An instance as it was read, and how long ago somebody stamped it."""

    doc: Instance
    etag: str
    idle_ms: int


class InstanceStore:
    """The documents of instances. ``principal`` sees its own; those of others look as if they were not there."""

    def __init__(self, chain: Chain, principal: str) -> None:
        self.chain = chain
        self.principal = principal

    async def create(self, doc: Instance) -> None:
        """Store a new instance, in the place of an expired one if there is one of its name.

        Raises:
            HttpError: 40902, there is one of this name.

        Cost: 1 PUT.
        """
        doc = structs.replace(doc, changes=(new_id(self.chain.rng),), principal=self.principal)
        key, body = keys.consumer_key(doc.group, doc.name), _encoded(doc)

        async def put() -> None:
            try:
                await self.chain.store.put_if_absent(key, body)
            except Conflict as error:
                await self._replace_expired(doc, body, error)

        await self.chain.retry(put)

    async def load(self, group: str, name: str) -> Held:
        """The instance as it is now.

        Raises:
            HttpError: 40403, there is none, or nobody has asked for it for too long.

        Cost: 1 GET, and 1 HEAD where the store's answers do not tell both its clocks.
        """
        held = await self._read(group, name)
        if held is None or held.doc.principal != self.principal or held.idle_ms > CONSUMER_IDLE_MS:
            raise _unknown(group, name)
        return held

    async def save(self, held: Held, doc: Instance) -> Held | None:
        """Put ``doc`` in the place of what was read; None, and nothing done, if that has changed meanwhile.

        What is answered may be a later document, if others have changed it before the loss of an answer was noticed.

        Raises:
            HttpError: 40403, the instance is gone.
            Indeterminate, Unavailable: the store fell silent; ask again.

        Cost: 1 PUT.
        """
        chain = self.chain
        ours = new_id(chain.rng)
        doc = structs.replace(doc, changes=(ours, *held.doc.changes[: CONSUMER_CHANGES_KEPT - 1]))
        key, body = keys.consumer_key(doc.group, doc.name), _encoded(doc)
        deadline_s = chain.clock.elapsed_s() + chain.options.store_retry_s
        backoff = Backoff(chain.clock, chain.rng)
        while True:
            try:
                stat = await chain.store.put_if_match(key, body, held.etag)
                return Held(doc=doc, etag=stat.etag, idle_ms=0)
            except (Conflict, Throttled, Unavailable, Indeterminate) as error:
                last = error
            found = await self.load(doc.group, doc.name)
            if ours in found.doc.changes:  # an earlier sending has landed
                return found
            if found.etag != held.etag:
                return None
            if chain.clock.elapsed_s() > deadline_s:
                raise last
            await chain.clock.sleep(backoff.next_s())

    async def change(self, group: str, name: str, decide: Callable[[Instance], Instance]) -> Instance:
        """Replace the instance by what ``decide`` makes of it, which may be asked several times; it has no effects.

        Raises:
            HttpError: 40403.

        Cost: 1 GET and 1 PUT; another GET and PUT for each change that was faster.
        """
        while True:
            held = await self.load(group, name)
            saved = await self.save(held, decide(held.doc))
            if saved is not None:
                return saved.doc

    async def drop(self, group: str, name: str) -> None:
        """Delete the document. Cost: 1 DELETE."""
        await self.chain.retry(lambda: self.chain.store.delete([keys.consumer_key(group, name)]))

    async def _read(self, group: str, name: str) -> Held | None:
        key = keys.consumer_key(group, name)
        try:
            blob = await self.chain.retry(lambda: self.chain.store.get(key, end=DOCUMENT_BYTES_MAX + 1))
            stat = blob.stat
            if stat.date_ms < 0 or stat.modified_ms < 0:
                # The HEAD may tell of a later change; then the document is younger than it looks, which harms nobody.
                look = await self.chain.retry(lambda: self.chain.store.head(key))
                idle_ms = _age_ms(look)
            else:
                idle_ms = _age_ms(stat)
        except NotFound:
            return None
        with naming(key):
            header, _ = frame.decode(blob.data)
            doc = decode_known(_decoder, header, "consumer instance")
        return Held(doc=doc, etag=stat.etag, idle_ms=idle_ms)

    async def _replace_expired(self, doc: Instance, body: bytes, taken: Conflict) -> None:
        found = await self._read(doc.group, doc.name)
        if found is None:
            raise Indeterminate(str(taken)) from taken  # a race; the key is free (again)
        if doc.changes[0] in found.doc.changes:
            return
        if found.idle_ms <= CONSUMER_IDLE_MS:
            raise HttpError(
                409,
                f"There is a consumer instance {doc.name[:80]!r} in this group; name another one, or delete it.",
                error_code=INSTANCE_EXISTS,
            )
        try:
            await self.chain.store.put_if_match(keys.consumer_key(doc.group, doc.name), body, found.etag)
        except Conflict as error:
            raise Indeterminate(str(error)) from error


async def sweep(chain: Chain) -> int:
    """Delete documents of instances that expired, ``SWEEP_MAX`` at most, and say how many those were.

    One that is created anew at that very moment may go with them; its client is told so and creates it again.
    Cost: 1 LIST for each 1,000 instances, 1 DELETE.
    """
    return await delete_older(chain, keys.CONSUMERS, 2 * CONSUMER_IDLE_MS)


_decoder = msgspec.json.Decoder(Instance)


def _encoded(doc: Instance) -> bytes:
    body = frame.encode(msgspec.json.encode(doc), 0)
    if len(body) > DOCUMENT_BYTES_MAX:
        raise InvalidRequest(f"The consumer instance needs {len(body)} bytes; at most {DOCUMENT_BYTES_MAX} fit.")
    return body


def _age_ms(stat: Stat) -> int:
    return stat.date_ms - stat.modified_ms


def _unknown(group: str, name: str) -> HttpError:
    return HttpError(
        404,
        f"There is no consumer instance {name[:80]!r} in group {group[:80]!r}: it was not created, was deleted, or was "
        f"idle for more than {CONSUMER_IDLE_MS // 1_000} s.",
        error_code=INSTANCE_NOT_FOUND,
    )
