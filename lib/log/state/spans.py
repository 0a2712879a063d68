"""Runs of offsets that share one fate: cut, changed and joined, as a share-partition needs them.

A list of spans is sorted and meets end to end. Nothing here changes a list in place, since an outcome or a reader may
still hold the old one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable

from headwater.log.state.model import Span

Becomes = Callable[[Span], Span]


def over(spans: list[Span], base: int, end: int) -> tuple[int, int]:
    """Which of the spans overlap the offsets ``[base, end)``, as a slice."""
    first = max(bisect_right(spans, base, key=_base) - 1, 0)
    while first < len(spans) and spans[first].end <= base:
        first += 1
    last = first
    while last < len(spans) and spans[last].base < end:
        last += 1
    return first, last


def changed(spans: list[Span], base: int, end: int, becomes: Becomes) -> list[Span]:
    """The spans, of which the part in ``[base, end)`` is what ``becomes`` says. Cost: a copy."""
    first, last = over(spans, base, end)
    middle: list[Span] = []
    for span in spans[first:last]:
        if span.base < base:
            middle.append(Span(span.base, base, span.count, span.claim))
        middle.append(becomes(Span(max(span.base, base), min(span.end, end), span.count, span.claim)))
        if span.end > end:
            middle.append(Span(end, span.end, span.count, span.claim))
    return joined([*spans[:first], *middle, *spans[last:]])


def joined(spans: Iterable[Span]) -> list[Span]:
    """The spans, with neighbours of one fate made one, and empty ones left out."""
    found: list[Span] = []
    for span in spans:
        if span.base >= span.end:
            continue
        if found and (found[-1].count, found[-1].claim, found[-1].end) == (span.count, span.claim, span.base):
            found[-1] = Span(found[-1].base, span.end, span.count, span.claim)
        else:
            found.append(span)
    return found


def _base(span: Span) -> int:
    return span.base
