"""Numbers as people read them. Pure, and below everything: commands, pages and findings say them alike."""

from __future__ import annotations


def amount(count: int, word: str) -> str:
    """``1 record``, ``2,000 records``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def size(nbytes: float) -> str:
    """Bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(nbytes) < 1_024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1_024
    return f"{nbytes:,.1f} TiB"


def span(seconds: float) -> str:
    """``12 s``, ``3 min``, ``5 h``, ``2 d``: a span of time in one unit."""
    for limit, unit_s, unit in ((100, 1, "s"), (6_000, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds / 86_400:,.0f} d"
