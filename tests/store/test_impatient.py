"""A store that may not be waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headwater.errors import Indeterminate, NotFound, Unavailable
from headwater.store.impatient import ImpatientStore
from headwater.store.memory import MemoryStore
from tests.log.helpers import memory, simulate


class Silent(MemoryStore):
    """Never answers."""

    async def _nothing(self, *what: Any, **how: Any) -> Any:
        await asyncio.Event().wait()

    get = head = put = put_if_absent = put_if_match = delete = _nothing

    async def list(self, *what: Any, **how: Any) -> Any:
        await asyncio.Event().wait()
        yield None


def test_what_answers_in_time_is_left_alone() -> None:
    async def main() -> None:
        store = ImpatientStore(memory(), 1.0)
        await store.put("a", b"1")
        await store.put_if_absent("b", b"2")
        await store.put_if_match("b", b"3", (await store.head("b")).etag)
        assert b"3" == (await store.get("b")).data
        assert ["a", "b"] == [stat.key async for stat in store.list("")]
        await store.delete(["a"])
        with pytest.raises(NotFound):
            await store.get("a")

    simulate(main())


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda store: store.get("a"), Unavailable),
        (lambda store: store.head("a"), Unavailable),
        (lambda store: anext(store.list("")), Unavailable),
        (lambda store: store.put("a", b""), Indeterminate),
        (lambda store: store.put_if_absent("a", b""), Indeterminate),
        (lambda store: store.put_if_match("a", b"", "e"), Indeterminate),
        (lambda store: store.delete(["a"]), Indeterminate),
    ],
)
def test_a_read_that_takes_too_long_is_away_and_a_write_is_open(call: Any, error: type[Exception]) -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop()
        with pytest.raises(error):
            await call(ImpatientStore(Silent(), 2.0))
        assert 2.0 == pytest.approx(clock.time(), abs=0.1)

    simulate(main())
