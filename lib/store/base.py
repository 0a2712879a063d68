"""The object store that everything stands on: one protocol, and its contract.

Keys are ``/``-separated UTF-8 of at most ``key_bytes_max`` bytes, without backslashes, control characters and
empty, ``.`` or ``..`` parts; no key may be a folder of another (``a`` beside ``a/b``), since a directory cannot
hold both. A key that breaks this is refused with ``InvalidRequest`` before anything is sent.

The contract (``tests/contract/`` holds every store to it):

C1. **Whole objects.** A GET or LIST never shows part of a write. A write that failed shows nothing
    or, if it was ``Indeterminate``, all of itself, perhaps later.
C2. **Strong reads.** After ``put*`` or ``delete`` has answered, every later ``get`` and ``list``
    in any process reflects it.
C3. **Put-if-absent is atomic** between all processes: of any number of racing ``put_if_absent`` on a
    free key exactly one answers, the others raise ``AlreadyExists`` (or ``Raced``: the store gave up
    on a race and the key may still be free).
C4. **A conditional write is sent once.** The store never re-sends it, neither itself nor through the
    library below it, because the answer to a second sending says nothing about the first.
C5. **Durable when answered.** A write that has answered survives the death of the process, and
    (``file://``) of the machine.
C6. **Sorted lists.** ``list`` yields keys in UTF-8 byte order, whatever order the service uses.
C7. **Honest failures.** ``Unavailable`` and ``Throttled`` only when the write was certainly not
    applied or is safe to send again under the journal's rule R2; ``Indeterminate`` when it was sent
    and no answer came. No store retries by itself: the caller knows what is safe to repeat.
C8. **The store's own clock.** ``Stat.modified_ms`` is stamped by the store; ``Stat.date_ms`` is the
    store's clock at the answer. Leases compare the two and never look at a local clock (R7). ``head``
    and ``list`` always say both; in other answers -1 means that the service did not say.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct

from headwater.errors import InvalidRequest
from headwater.types import Body, Buffer

__all__ = ["Blob", "Body", "Buffer", "ObjectStore", "Stat", "check_key", "joined", "parts_of", "size_of"]


class Stat(Struct, frozen=True, kw_only=True):
    """What a store says about an object: size in bytes, both clocks in ms since 1970 (C8)."""

    key: str
    size: int
    etag: str
    modified_ms: int
    date_ms: int


class Blob(Struct, frozen=True, kw_only=True):
    """Bytes of an object, or of the range of it that was asked for; ``stat.size`` is the whole object's."""

    data: bytes
    stat: Stat


@runtime_checkable
class ObjectStore(Protocol):
    """A bucket with a prefix, a directory, or memory. The contract is this module's docstring."""

    url: str
    key_bytes_max: int

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        """The bytes ``[start, end)`` of an object; to its end without ``end``. A range past the end is cut.

        Raises:
            NotFound: no such object.
        """
        ...

    async def head(self, key: str) -> Stat:
        """The object's ``Stat`` without its bytes. Raises ``NotFound``."""
        ...

    async def put(self, key: str, body: Body) -> Stat:
        """Write the object whether or not it exists. The last writer wins."""
        ...

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        """Write the object if no object has this key (C3, C4).

        Raises:
            AlreadyExists: the key is taken, perhaps by an earlier sending of this very write: read it.
            Raced: the store gave up on a race; the key may be free.
            Indeterminate: sent, and no answer came.
        """
        ...

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        """Replace the object if its ETag is still ``etag`` (C4).

        Raises:
            Conflict: the object has changed or is gone, perhaps by an earlier sending of this very write: read it.
            Raced, Indeterminate: as in ``put_if_absent``.
        """
        ...

    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        """At most ``limit`` objects whose key starts with ``prefix`` and sorts after ``start_after``, in order (C6)."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete the objects. A key that does not exist is no error. Not atomic over several keys."""
        ...

    async def aclose(self) -> None:
        """Release connections. A second call does nothing."""
        ...


# An empty, "." or ".." part; a backslash, which some services take for a slash; or a control character.
_BAD_KEY = re.compile(r"(?:\A|/)\.{0,2}(?:/|\Z)|[\x00-\x1f\x7f\\]")


def check_key(key: str, key_bytes_max: int) -> None:
    """Refuse a key that some store could not hold."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"The key {key[:80]!r} is no valid Unicode, so it has no UTF-8 form.") from error
    if not 0 < size <= key_bytes_max:
        raise InvalidRequest(f"The key {key[:80]!r} has {size} bytes; a key has 1 to {key_bytes_max}.")
    if _BAD_KEY.search(key):
        raise InvalidRequest(
            f"The key {key[:80]!r} has an empty, '.' or '..' part, a backslash or a control character."
        )


def parts_of(body: Body) -> list[Buffer]:
    """The body as a list of buffers, without copying."""
    return [body] if isinstance(body, bytes | bytearray | memoryview) else list(body)


def size_of(body: Body) -> int:
    """Bytes in the body."""
    return sum(memoryview(part).nbytes for part in parts_of(body))


def joined(body: Body) -> bytes:
    """The body as one ``bytes``; a body that is ``bytes`` already is not copied."""
    if isinstance(body, bytes):
        return body
    return b"".join(parts_of(body))
