"""Where to begin reading: what ``--offset`` may say, and the offset that it means in each partition."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from headwater.log.namespace import Namespace


@dataclass(frozen=True, slots=True)
class Start:
    """``offset``: that one. ``last``: so many before the end. ``time``: the first at or after so many ms."""

    kind: Literal["beginning", "end", "offset", "last", "time"]
    value: int = 0


class StartType(click.ParamType[Start]):
    """``beginning``, ``end``, ``N``, ``-N``, ``@ms``, ``@ISO`` or ISO 8601."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Start:
        if isinstance(value, Start):
            return value
        text = str(value).strip()
        if text in ("beginning", "earliest"):
            return Start("beginning")
        if text in ("end", "latest"):
            return Start("end")
        if re.fullmatch(r"[0-9]{1,18}", text):
            return Start("offset", int(text))
        if re.fullmatch(r"-[0-9]{1,18}", text):
            return Start("last", int(text[1:]))
        found = self._time(text)
        if found is None:
            self.fail(
                f"{value!r} is no place: write beginning, end, an offset, -N for the last N, or a time as "
                "@1357034400000 (ms), @2013-01-01T10:00:00Z or 2013-01-01.",
                param,
                ctx,
            )
        return Start("time", found)

    def _time(self, text: str) -> int | None:
        from headwater.cli.times import parse_time

        bare = text.removeprefix("@")
        return None if bare == text and bare.lstrip("-").isdecimal() else parse_time(bare)


async def resolve(namespace: Namespace, topic: str, partition: int, start: Start) -> int:
    """The offset that ``start`` means here and now. A time after the last record means the end."""
    _, place = namespace.reader.place(topic, partition)
    if start.kind == "beginning":
        return place.start
    if start.kind == "end":
        return place.stable_end
    if start.kind == "last":
        return max(place.start, place.stable_end - start.value)
    if start.kind == "time":
        found = await namespace.reader.offset_at(topic, partition, start.value)
        return place.stable_end if found is None else found[0]
    from headwater.log.reader import check_range

    check_range(topic, partition, place, start.value)
    return start.value


async def resolve_all(
    namespace: Namespace, topics: Iterable[str], start: Start, partitions: Sequence[int] = ()
) -> dict[tuple[str, int], int]:
    """What ``start`` means in these topics: in all of their partitions, or in the named ones."""
    return {
        (name, partition): await resolve(namespace, name, partition, start)
        for name in sorted(set(topics))
        for partition in sorted(set(partitions)) or range(len(namespace.topic(name).partitions))
    }
