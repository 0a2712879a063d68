"""Lines: what a process tells those who run it, one JSON object a line, on the standard error stream.

    {"time":"2026-11-26T10:00:00.123Z","level":"info","event":"request","request":"5f0c…","namespace":"default",
     "principal":"root","method":"POST","route":"/topics/{topic}","status":200,"ms":41.2,
     "intents":[{"id":"h3…","commit":1042}]}

``request`` is the id that the answer carries as ``x-request-id``, so what a user reports is found by one search.
``intents`` are what the request has committed and where: ``headwater inspect`` shows that manifest, and who finds an
intent in the chain finds the request that made it.

    off     nothing
    error   what failed through no fault of the client
    info    … and requests that changed the log, or were refused
    debug   … and all others

A line never holds a secret or a record. What a client chose is cut to a bound and escaped to ASCII, so it neither ends
a line nor speaks to a terminal.

Who writes a line about a request listens for what happens below it (``listening``); the writer of the log tells what
it has committed (``committed``). That goes by a context variable, as the two are strangers. Nobody listening costs one
look at it, 0.05 us.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from headwater.clock import Clock
from headwater.errors import HeadwaterError
from headwater.limits import LINE_BYTES_MAX, LINE_INTENTS_MAX, LINE_TEXT_MAX, REQUEST_ID_MAX

LEVELS: Final = ("off", "error", "info", "debug")
VARIABLE: Final = "HEADWATER_LOG"

_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:=/+-]{{0,{REQUEST_ID_MAX - 1}}}\Z")


class Lines:
    """Writes lines up to a level. ``always`` is in each of them: which process speaks, for one."""

    __slots__ = ("_always", "_clock", "_rank", "_write")

    def __init__(
        self,
        clock: Clock,
        *,
        level: str = "error",
        write: Callable[[str], object] | None = None,
        always: Mapping[str, object] | None = None,
    ) -> None:
        assert level in LEVELS, level
        self._clock = clock
        self._rank = LEVELS.index(level)
        self._write = write
        self._always = dict(always or {})

    def wants(self, level: str) -> bool:
        """Whether a line of that level is written."""
        return LEVELS.index(level) <= self._rank

    def say(self, level: str, event: str, **fields: object) -> None:
        """Write one line, if the level is wanted. Never raises: what is told is worth more than the telling.

        Fields that are None or empty are left out. Cost: 10 to 20 us.
        """
        if not self.wants(level):
            return
        try:
            head: dict[str, object] = {"time": rfc3339(self._clock.wall_ms()), "level": level, "event": event}
            told = {name: value for name, value in fields.items() if value not in (None, "", [], ())}
            (self._write or sys.stderr.write)(encoded({**head, **self._always, **told}) + "\n")
        except Exception:
            return  # a full disk, a closed stream


def level_of(environment: Mapping[str, str], default: str) -> str:
    """The level that ``HEADWATER_LOG`` names; ``default`` if it names none, or one that there is not."""
    named = environment.get(VARIABLE, "").strip().lower()
    return named if named in LEVELS else default


def rfc3339(ms: int) -> str:
    """A time in ms since 1970 as RFC 3339 writes it, in UTC."""
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encoded(fields: Mapping[str, object]) -> str:
    """One object, of at most ``LINE_BYTES_MAX`` bytes of ASCII: if it were longer, only its short fields."""
    text = json.dumps(_bounded(fields, 0), separators=(",", ":"), default=_text)
    if len(text) <= LINE_BYTES_MAX:
        return text
    short = {name: value for name, value in fields.items() if not isinstance(value, list | tuple | dict)}
    return json.dumps(_bounded({**short, "cut": True}, 0), separators=(",", ":"), default=_text)


def error_of(error: BaseException) -> dict[str, object]:
    """An error as a line has it: what, did it happen, what now. Of others than ours the message stays away.

    It may quote what a client sent.
    """
    if isinstance(error, HeadwaterError):
        return {**error.as_dict(), "error": type(error).__name__}
    return {"error": type(error).__name__, "applied": "unknown"}


def request_id(named: str) -> str:
    """``named`` if a client or a platform may call a request so, else nothing.

    One to 128 letters, digits and ``._:=/+-``.
    """
    return named if _ID.match(named) else ""


# -- listening ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Heard:
    """What became known below while a request was served. ``refused`` are names of errors of parts of it."""

    intents: list[dict[str, object]] = field(default_factory=list)
    more: int = 0  # intents beyond the bound
    refused: dict[str, int] = field(default_factory=dict)
    principal: str = ""
    error: BaseException | None = None

    def fields(self) -> dict[str, object]:
        """What a line says of it."""
        told: dict[str, object] = {"principal": self.principal, "intents": self.intents}
        if self.more:
            told["intents_more"] = self.more
        if self.refused:
            told["refused"] = [f"{name} x {count}" for name, count in list(self.refused.items())[:LINE_INTENTS_MAX]]
        return told


_heard: ContextVar[Heard | None] = ContextVar("headwater-heard", default=None)


@contextmanager
def listening() -> Iterator[Heard]:
    """Hear what is committed in here, by this task and by those that it starts."""
    heard = Heard()
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)


def listen() -> None:
    """As ``listening``, from now on and until the task ends or listens anew: for one that serves many requests."""
    _heard.set(Heard())


def heard() -> Heard | None:
    """What listens here."""
    return _heard.get()


def committed(intent: str, commit: int | None, error: str = "") -> None:
    """An intent was decided: by which manifest, and with which refusal. ``commit`` None: nobody knows (yet)."""
    listener = _heard.get()
    if listener is None:
        return
    if len(listener.intents) >= LINE_INTENTS_MAX:
        listener.more += 1
        return
    told: dict[str, object] = {"id": intent, "commit": commit}
    listener.intents.append({**told, "refused": error} if error else told)


def refused(name: str) -> None:
    """A part of the request has an error, while the request as a whole has an answer."""
    listener = _heard.get()
    if listener is not None:
        listener.refused[name] = listener.refused.get(name, 0) + 1


# -- bounds ---------------------------------------------------------------------------------------------


def _bounded(value: object, depth: int) -> object:
    if isinstance(value, str):
        return value if len(value) <= LINE_TEXT_MAX else f"{value[: LINE_TEXT_MAX - 1]}…"
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, Mapping) and depth < 4:
        return {str(name)[:64]: _bounded(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple) and depth < 4:
        return [_bounded(each, depth + 1) for each in value[:LINE_INTENTS_MAX]]
    return value if value is None or isinstance(value, bool | int) else _text(value)


def _text(value: object) -> str:
    return str(value)[:LINE_TEXT_MAX]
