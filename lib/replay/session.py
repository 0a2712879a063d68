"""An open namespace in a thread of its own, for callers that do not wait with ``await``.

The thread has an event loop, so it works wherever another one is running already, as in a notebook, and reads ahead
while the caller computes. Whoever needs the namespace holds the session; it ends when nobody does.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from headwater.errors import InvalidRequest
from headwater.log.namespace import Namespace
from headwater.store import open_store

T = TypeVar("T")


class Session:
    """A namespace that is open until the last reference to this is gone, or ``close``."""

    def __init__(self, url: str, namespace: str = "default") -> None:
        self.url = url
        self._loop = _Loop()
        try:
            self.namespace: Namespace = self._loop.call(_open(url, namespace))
        except BaseException:
            self._loop.close()
            raise
        # Not joined there: the last reference may go wherever garbage is collected, under any lock.
        self._end = weakref.finalize(self, self._loop.end, self.namespace)
        self._end.atexit = False  # a reader leaves nothing undone, and at exit no thread starts any more

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``, done in the session's thread; cancelled if the caller is interrupted.

        Raises:
            InvalidRequest: the session is closed, or the call comes from its own thread.
        """
        return self._loop.call(work)

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """What ``source`` yields; it goes on in the background as far as it reads ahead by itself."""
        try:
            while True:
                found = self.call(_following(source))
                if not found:
                    return
                yield found[0]
        finally:
            self._loop.finish(source)

    def close(self) -> None:
        """Let go of the store and end the thread. A second call does nothing."""
        self._end()
        self._loop.join()


async def _open(url: str, namespace: str) -> Namespace:
    store = open_store(url)
    try:
        return await Namespace.open(store, namespace, owns_store=True, probe=False)
    except BaseException:
        await store.aclose()
        raise


async def _following(source: AsyncIterator[T]) -> list[T]:
    async for item in source:
        return [item]
    return []


class _Loop:
    """A thread with an event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.ending: list[asyncio.Task[None]] = []
        self._door = threading.Lock()
        self._over = False  # nobody comes in any more
        self.thread = threading.Thread(target=self._run, name="headwater-replay", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            with self._door:
                self._over = True
            self.loop.run_until_complete(self._turn_out())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            self.loop.close()

    async def _turn_out(self) -> None:
        """Cancel what is still under way, so that nobody waits for ever. Who came in before the end has a task by now:
        this one was made behind theirs.
        """
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        with self._door:
            if self._over or threading.current_thread() is self.thread:
                work.close()
                raise InvalidRequest("This replay is closed, or was called from its own thread (a progress callback).")
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise InvalidRequest("This replay was closed while it was read.") from None
        except BaseException:
            if not future.done():
                future.cancel()
                concurrent.futures.wait([future])
            raise

    def finish(self, source: Any) -> None:
        """Close an asynchronous generator soon, whoever lets go of it. Waits for nothing."""
        self._soon(source.aclose)

    def end(self, namespace: Namespace) -> None:
        """Close the namespace soon, and then end the thread. Waits for nothing."""

        async def closed() -> None:
            try:
                await asyncio.gather(*self.ending[:-1], return_exceptions=True)
                with contextlib.suppress(RuntimeError):  # at exit no thread starts any more, and nothing is left undone
                    await namespace.close()
            finally:
                self.loop.stop()

        self._soon(closed)

    def close(self) -> None:
        """End the thread, which has nothing to do."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.join()

    def join(self) -> None:
        """Wait for its end."""
        if threading.current_thread() is not self.thread:
            self.thread.join()

    def _soon(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        def begin() -> None:
            self.ending.append(self.loop.create_task(work()))

        with contextlib.suppress(RuntimeError):  # the loop is closed: then there is nothing left to be done
            self.loop.call_soon_threadsafe(begin)
