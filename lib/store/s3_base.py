"""What both S3 stores share: keys below a prefix, and sorted lists out of whatever pages the service sends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing

from headwater.clock import Clock, SystemClock
from headwater.errors import HeadwaterError, InvalidRequest
from headwater.store.base import Stat, check_key
from headwater.store.s3_errors import Failure, Verb, translated
from headwater.store.s3_url import KEY_BYTES_MAX, S3Target

PAGE_KEYS_MAX = 1_000  # keys of one LIST answer, and of one DeleteObjects
CONNECTIONS_MAX = 64  # at once; more requests than this wait for a connection
IDLE_S_MAX = 10  # a connection idle for longer is not used again: the service may just be closing it


class S3Base(ABC):
    """A bucket and a prefix. A subclass brings the requests."""

    def __init__(self, target: S3Target, *, clock: Clock | None = None) -> None:
        self.target = target
        self.url = target.url
        self.key_bytes_max = KEY_BYTES_MAX - len(target.prefix.encode())
        self._clock = clock or SystemClock()

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        left = limit if limit is not None else -1
        async with aclosing(self._all(prefix, start_after, limit)) as found:
            while left != 0 and (stat := await anext(found, None)) is not None:
                left -= 1
                yield stat

    async def _all(self, prefix: str, start_after: str, limit: int | None) -> AsyncGenerator[Stat, None]:
        if self.target.lists == "unsorted":
            # C6: nothing may come out before everything has been seen.
            folder = prefix[: prefix.rfind("/") + 1]
            async with aclosing(self._pages(folder, "", None)) as pages:
                whole = [stat async for page in pages for stat in _wanted(page, prefix, start_after)]
            for stat in sorted(whole, key=lambda stat: stat.key):
                yield stat
            return
        last = ""
        async with aclosing(self._pages(prefix, start_after, limit)) as pages:
            async for page in pages:
                for stat in page:
                    if stat.key < last:
                        raise self._disorder(last, stat.key)
                    last = stat.key
                    if last > start_after and last.startswith(prefix):
                        yield stat
                if last > prefix and not last.startswith(prefix):
                    return

    def _disorder(self, first: str, second: str) -> InvalidRequest:
        return InvalidRequest(
            f"The store {self.url} lists {second!r} after {first!r}, which is not the order of their bytes. "
            "Add the option lists=unsorted to the URL: lists are then read to their end and sorted."
        )

    @abstractmethod
    def _pages(self, prefix: str, start_after: str, limit: int | None) -> AsyncGenerator[Sequence[Stat], None]:
        """Pages of at least the wanted objects, in the service's order; ``limit`` is a hint for their size."""

    def _inner_key(self, key: str) -> str:
        check_key(key, self.key_bytes_max)
        return self.target.prefix + key

    def _outer_key(self, key: str) -> str:
        return key[len(self.target.prefix) :]

    def _error(self, failure: Failure, verb: Verb, key: str) -> HeadwaterError:
        return translated(failure, verb, key, self.url, self.target.bucket)


def _wanted(page: Iterable[Stat], prefix: str, start_after: str) -> Iterator[Stat]:
    """The objects that were asked for; a page may hold some before and some after them."""
    return (stat for stat in page if stat.key > start_after and stat.key.startswith(prefix))
