"""Windows of event time, as users write them.

Source: Kafka Streams' time, sliding and session windows; ``grace`` as in KIP-328.
"""

from __future__ import annotations

from headwater.errors import InvalidRequest
from headwater.streams.duration import Duration, millis
from headwater.streams.model import Window


def tumbling(size: Duration, *, grace: Duration = 0, offset: Duration = 0) -> Window:
    """Windows of ``size`` side by side, aligned to 1970-01-01 UTC plus ``offset``. Each row is in exactly one."""
    length = _positive(size, "The size of a window")
    return Window(
        kind="tumbling",
        size=length,
        advance=length,
        grace=millis(grace, "The grace of a window"),
        offset=millis(offset, "The offset of windows") % length,
    )


def hopping(size: Duration, advance: Duration, *, grace: Duration = 0, offset: Duration = 0) -> Window:
    """Windows of ``size`` that begin every ``advance``: each row is in ``size / advance`` of them.

    Raises ``InvalidRequest`` if ``advance`` does not divide ``size``: rows are summed up once for each advance.
    """
    length, step = _positive(size, "The size of a window"), _positive(advance, "The advance of windows")
    if length % step:
        raise InvalidRequest(
            f"The advance of hopping windows divides their size; {advance!r} does not divide {size!r}."
        )
    return Window(
        kind="hopping",
        size=length,
        advance=step,
        grace=millis(grace, "The grace of a window"),
        offset=millis(offset, "The offset of windows") % step,
    )


def sliding(size: Duration, *, grace: Duration = 0) -> Window:
    """For each row a window: the rows of its group in the ``size`` that ends with it, both ends included."""
    return Window(
        kind="sliding",
        size=_positive(size, "The size of a window"),
        grace=millis(grace, "The grace of a window"),
    )


def session(gap: Duration, *, grace: Duration = 0) -> Window:
    """Runs of a group's rows with at most ``gap`` between neighbours; a row in between joins two of them."""
    return Window(
        kind="session", gap=_positive(gap, "The gap of sessions"), grace=millis(grace, "The grace of a window")
    )


def _positive(given: Duration, what: str) -> int:
    found = millis(given, what)
    if not found:
        raise InvalidRequest(f"{what} is positive.")
    return found
