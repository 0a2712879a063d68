"""Documents: small JSON objects of one namespace that any process reads and changes, one change after another.

What lasts longer than a request and is no record of the log lives in one: a transaction of several requests, an
upload. So any function instance can serve any request of it, and none has to stay alive.

A change is put-if-match, decided anew from what is stored until it is in. Each carries a fresh id, so no two bodies
and no two ETags are equal, and a decision that finds its own mark in the document knows that an earlier sending of
it, whose answer was lost, has been applied.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct, structs

from headwater.errors import (
    Conflict,
    HeadwaterError,
    Indeterminate,
    InvalidRequest,
    NotFound,
    Throttled,
    Unavailable,
)
from headwater.limits import (
    DOCUMENT_BYTES_MAX,
    DOCUMENT_KEEP_MS,
    SWEEP_MAX,
)
from headwater.log.chain import Chain, naming
from headwater.log.intents import decode_header, new_id
from headwater.log.keys import fresh_name
from headwater.store.base import Stat
from headwater.store.retry import Backoff

ID_BITS = 160  # whoever does not hold the id cannot guess it
_ID = re.compile(r"[a-z2-7]{32}")
LOOK_AGAIN_MAX = 5  # a document that changes between a GET and a HEAD is read again so often
UNKNOWN_MS = -1


class Document(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What all documents hold. ``begun_ms`` is the store's clock at the creation, known from the first change on."""

    v: int = 1
    change: str = ""
    principal: str = ""
    begun_ms: int = UNKNOWN_MS


D = TypeVar("D", bound=Document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held(Generic[D]):
    """A document as it was read, with its age by the store's clock (R7); ``now_ms`` is -1 if the store has none."""

    id: str
    doc: D
    etag: str
    begun_ms: int
    now_ms: int

    def older_than(self, ms: int) -> bool:
        """Whether more than ``ms`` have passed since the creation. When in doubt it is young."""
        return self.now_ms >= 0 and self.begun_ms >= 0 and self.now_ms - self.begun_ms > ms


class Documents(Generic[D]):
    """The documents of one kind, below ``<folder>/`` of a namespace. ``what`` names one in messages."""

    def __init__(self, chain: Chain, kind: type[D], *, folder: str, what: str) -> None:
        self.chain = chain
        self.folder = folder
        self.what = what
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(kind)

    async def create(self, doc: D) -> str:
        """Store a new document and say its id. Cost: 1 PUT."""
        fresh = fresh_name(self.chain.rng, ID_BITS)
        # Nobody else knows this id: if it is there, that was an earlier sending.
        await self.chain.put_once(self._key(fresh), self._encoded(structs.replace(doc, change=new_id(self.chain.rng))))
        return fresh

    async def create_named(self, name: str, doc: D) -> bool:
        """Store a document under an id that its users can work out. False if there is one. Cost: 1 PUT."""
        return await self.chain.put_once(
            self._key(name), self._encoded(structs.replace(doc, change=new_id(self.chain.rng)))
        )

    async def load(self, name: str, principal: str) -> Held[D]:
        """The document as it is now.

        Raises:
            NotFound: there is none of this id, or somebody else's; the two look the same.

        Cost: 1 GET, and 1 HEAD where the store's answers do not tell its clock.
        """
        if not _ID.fullmatch(name):
            raise self._unknown(name)
        for _ in range(LOOK_AGAIN_MAX):
            doc, stat = await self._read(name)
            if doc.principal != principal:
                raise self._unknown(name)
            begun_ms = doc.begun_ms if doc.begun_ms >= 0 else stat.modified_ms
            if stat.date_ms >= 0 and begun_ms >= 0:
                break
            look = await self._head(name)
            if look.etag == stat.etag:
                stat, begun_ms = look, doc.begun_ms if doc.begun_ms >= 0 else look.modified_ms
                break
        return Held(id=name, doc=doc, etag=stat.etag, begun_ms=begun_ms, now_ms=stat.date_ms)

    async def change(self, held: Held[D], decide: Callable[[Held[D]], D | None]) -> Held[D]:
        """Replace the document by what ``decide`` makes of it, and answer it as it is then.

        ``decide`` may be called several times, each time with what is stored; it answers ``None`` if nothing is
        left to do, its own earlier sending included, and refuses by raising.

        Raises:
            Unavailable: nothing was changed. Indeterminate: perhaps it was; ask again.

        Cost: 1 PUT; with others at the same document 1 GET and 1 PUT a round.
        """
        clock, silent = self.chain.clock, False
        deadline_s = clock.elapsed_s() + self.chain.options.store_retry_s
        backoff = Backoff(clock, self.chain.rng)
        while True:
            doc = decide(held)
            if doc is None:
                return held
            doc = structs.replace(doc, change=new_id(self.chain.rng), begun_ms=held.begun_ms)
            body = self._encoded(doc)
            try:
                stat = await self.chain.store.put_if_match(self._key(held.id), body, held.etag)
                return replace(held, doc=doc, etag=stat.etag)
            except (Conflict, Throttled, Unavailable, Indeterminate) as error:
                silent |= isinstance(error, Indeterminate)
                if clock.elapsed_s() > deadline_s:
                    raise self._undecided(held.id, silent) from error
            await clock.sleep(backoff.next_s())
            held = await self._reload(held, silent)

    async def sweep(self) -> int:
        """Delete documents that nobody has touched for a day, ``SWEEP_MAX`` at most, and say how many those were.

        Any process may do it at any time. Cost: 1 LIST for each 1,000 documents, 1 DELETE.
        """
        return await delete_older(self.chain, f"{self.folder}/", DOCUMENT_KEEP_MS)

    async def _reload(self, held: Held[D], silent: bool) -> Held[D]:
        try:
            return await self.load(held.id, held.doc.principal)
        except HeadwaterError as error:
            if silent:
                raise self._undecided(held.id, silent) from error
            raise

    async def _read(self, name: str) -> tuple[D, Stat]:
        key = self._key(name)
        try:
            blob = await self.chain.retry(lambda: self.chain.store.get(key, end=DOCUMENT_BYTES_MAX + 1))
        except NotFound:
            raise self._unknown(name) from None
        with naming(key):
            return decode_header(self._decoder, blob.data, self.what), blob.stat

    async def _head(self, name: str) -> Stat:
        try:
            return await self.chain.retry(lambda: self.chain.store.head(self._key(name)))
        except NotFound:
            raise self._unknown(name) from None

    def _encoded(self, doc: D) -> bytes:
        body = self._encoder.encode(doc)
        if len(body) > DOCUMENT_BYTES_MAX:
            raise InvalidRequest(
                f"The {self.what} would need {len(body)} bytes beside its records; at most {DOCUMENT_BYTES_MAX} fit."
            )
        return body

    def _key(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def _unknown(self, name: str) -> NotFound:
        return NotFound(f"There is no {self.what} {name[:40]!r}.")

    def _undecided(self, name: str, silent: bool) -> HeadwaterError:
        if silent:
            return Indeterminate(f"The change to {self.what} {name!r} was sent and no answer came.", token=name)
        return Unavailable(f"The {self.what} {name!r} could not be changed before the deadline; nothing was changed.")


async def delete_older(chain: Chain, folder: str, keep_ms: int) -> int:
    """Delete objects of ``folder`` that were last written more than ``keep_ms`` ago, and say how many those were.

    By the store's clock (R7), and ``SWEEP_MAX`` at most. Cost: 1 LIST for each 1,000 objects, 1 DELETE.
    """

    async def listed() -> list[str]:
        old: list[str] = []
        async for stat in chain.store.list(folder):
            if stat.date_ms >= 0 and stat.date_ms - stat.modified_ms > keep_ms and len(old) < SWEEP_MAX:
                old.append(stat.key)
        return old

    old = await chain.retry(listed)
    if old:
        await chain.retry(lambda: chain.store.delete(old))
    return len(old)
