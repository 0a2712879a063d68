"""Whose turn is it? The policy of cooperative group commit, without any I/O.

Many writers share one chain, and one round trip fits one winner. The policy keeps everyone's latency
near three round trips, however many there are, with roles that nobody assigns:

**Alone.** Nobody else was seen lately: PUT the next manifest at once.

**Leading.** I wrote the newest manifest and am not alone. While my PUT is on its way I look for what others
have published, and my next manifest names all of it beside my own batch. So the chain never pauses, and
each of its manifests carries everyone's work.

**Following.** Somebody else leads: publish my intents as segments and poll the chain for manifests that
name them. If the chain rests for longer than a leader would take, or passes me over, I take a turn: LIST,
then PUT a manifest that names all pending intents, not just mine. Turns are drawn at random over a
time that grows with the number of writers whose intents recent manifests carried, so that about one
of them steps forward: how many intents each of them has, as a gateway with a thousand clients, says
nothing of that. Who wins a turn leads.

**Taking turns.** Few are here and all are busy: nobody leads, and each PUTs manifests of its own when its turn
comes (``rotation``), or when who comes before has been silent for longer than a slow PUT.

Nothing here bears on safety: any choice at any time gives a correct log (R1, R2). All times are in
seconds of ``Clock.elapsed_s``; durations adapt to what the store was measured to take.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Flag, auto

from headwater.log.rotation import Rotation

COMPANY_S = 5.0  # others seen within this time count as present, for a leader …
ALONE_AFTER = 8  # … unless this many LISTs in a row found nobody
BUSY_S = 1.0  # the span over which others' manifests are counted
BUSY_MANIFESTS = 3  # … and how many of them make a direct PUT a bad bet
CROWD = 3  # intents in a manifest, on average, from which on a leader waits for its LIST
STREAK = 32  # own manifests in a row after which a lone writer looks around once
STREAK_S = 10.0  # … if they came within this time
LONE_S = 1.0  # … and if it has not looked for as long: a store in memory takes a streak in some hundredths of a second
LISTENED_S = 0.1  # how often a lone writer that others cannot outrun hears whether one of them has rung the bell
ANNOUNCED_MAX = 8  # writers whose next segments are asked for by their keys; of more, a LIST tells for less
LISTED_S = 0.25  # for so long after a LIST that has found no news, announced keys are all that is asked for
LOSSES_MAX = 1  # races lost in one commit before it is published
ROTATING_LOSSES_MAX = 3  # … where we take turns: who was slow comes again soon
ROTATING_LISTED_S = 1.0  # how often who takes turns LISTs; who comes rings, and is heard at each turn
SILENCE_PUTS = 5.0  # PUTs, of average length, that who has a turn may be silent before the next one writes
PASSED_OVER = 7  # manifests since publishing that did not name us: we were overlooked
UNAWARE = 3  # … if none of the last ``RECENT`` carried any but its writer's: it does not know that anybody waits
RECENT = 8  # manifests that tell how many write, and how much


@dataclass(slots=True)
class Durations:
    """How long the store takes, as moving averages in seconds; the first guess is S3 Standard's."""

    put: float = 0.060
    get: float = 0.030
    list: float = 0.045

    def note(self, kind: str, seconds: float) -> None:
        """Take a measurement in. A single slow request moves the average little."""
        old: float = getattr(self, kind)
        setattr(self, kind, old + 0.2 * (min(seconds, 4 * old + 0.005) - old))


class Look(Flag):
    """What to have beside the PUT of a manifest, to see who else has published."""

    LIST = auto()
    ANNOUNCED = auto()  # GETs of the keys at which others have said that their next segments will be
    BELL = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a manifest tells of who writes."""

    writer: str  # whose it is
    shares: Mapping[str, int] = field(default_factory=dict)  # whose intents it carries (``rotation.shares``)
    intents: int = 1
    others: int = 0  # of these, not ours
    age_s: float = 0.0


class Turns:
    """One writer's view of who else writes, and what to do next."""

    def __init__(self, writer: str, rng: random.Random, *, cooperative: bool = True) -> None:
        self.took = Durations()
        self._writer = writer
        self._rng = rng
        self._cooperative = cooperative
        self._leading = False
        self._others_at = float("-inf")
        self._others: deque[float] = deque(maxlen=BUSY_MANIFESTS)
        self._intents: deque[int] = deque([1], maxlen=RECENT)
        self._writers: deque[int] = deque([1], maxlen=RECENT)
        self._own: deque[float] = deque(maxlen=STREAK)
        self._empty = 0
        self._looked_at = float("-inf")
        self._listed_at = float("-inf")
        self._is_news = True  # whether the last LIST found what nobody had announced
        self._listened_at = float("-inf")
        self._leading_since = float("inf")
        self._progress_at = float("-inf")
        self._wait_s = 0.0
        self._rotation = Rotation()
        self._saw_at = float("-inf")
        self._written_at = float("-inf")
        self._asked_at = float("-inf")

    # -- what was seen -----------------------------------------------------------------------------

    def saw_manifest(self, seen: Seen, now: float) -> None:
        """A manifest was folded."""
        self._saw_at = now
        self._written_at = now - seen.age_s
        if self._cooperative:
            self._rotation.saw(seen.writer, seen.shares)
        self._leading = seen.writer == self._writer
        self._leading_since = min(self._leading_since, now) if self._leading else float("inf")
        self._intents.append(seen.intents)
        self._writers.append(max(1, len(seen.shares)))
        self._progress_at = now
        if self._leading:
            self._own.append(now)
        else:
            self._own.clear()
            self._others.append(now - seen.age_s)
        if seen.others:
            self._others_at = max(self._others_at, now - seen.age_s)
        self._draw()

    def saw_pending(self, found: int, now: float) -> None:
        """A look found ``found`` intents of others."""
        self._own.clear()
        self._looked_at = now
        self._empty = 0 if found else self._empty + 1
        if found:
            self._others_at = now
        elif self._empty >= ALONE_AFTER:
            self._others_at = float("-inf")

    def listed(self, now: float, *, is_news: bool) -> None:
        """A LIST has been answered; ``is_news`` says whether with a segment that nobody had announced."""
        self._listed_at, self._is_news = now, is_news

    def listened(self, now: float) -> None:
        """We have heard whether somebody rings."""
        self._listened_at = now

    def published(self, now: float) -> None:
        """Our intent is out; from here on we wait for someone to name it."""
        self._progress_at = max(self._progress_at, now)
        self._draw()

    @property
    def leads(self) -> bool:
        """Whether the newest manifest is ours."""
        return self._leading

    # -- what to do --------------------------------------------------------------------------------

    def looks_first(self, age_s: float) -> bool:
        """Whether to see what the chain has come to since: another wrote last, or all but the last, and may go on."""
        if not self._cooperative or not self._others or age_s <= BUSY_S:
            return False
        return not self._leading or self._busy(self._progress_at)

    def is_outrun(self, ahead: int, age_s: float) -> bool:
        """Whether others have written so fast that they win the next slot too, if ``ahead`` manifests have come."""
        return self._cooperative and ahead >= BUSY_MANIFESTS * age_s / BUSY_S

    @property
    def rotates(self) -> bool:
        """Whether we take turns with others."""
        return self._rotation.place(self._writer) is not None

    @property
    def is_next(self) -> bool:
        """Whether the others wait for a manifest of ours."""
        return self._rotation.place(self._writer) == 0

    def turn_in_s(self, now: float) -> float:
        """How long to let others write before we do: until the chain has rested so long for each that comes before."""
        silence_s = SILENCE_PUTS * self.took.put + self.took.get
        return _left_s(self._saw_at + (self._rotation.place(self._writer) or 0) * silence_s, now)

    def ask_in_s(self, now: float) -> float:
        """How long to wait until it is worth a GET to see whether the manifest is there that comes before ours.

        From when it can have been written: twice while a GET takes, so that they overlap, if ours is the next one, and
        once if it is not.
        """
        first = min(self._saw_at + 0.3 * self.took.put, self._written_at + 1.5 * self.took.put)
        pace_s = (0.5 if self._rotation.place(self._writer) == 1 else 1.0) * self.took.get
        again = self._asked_at + pace_s if self._asked_at >= self._saw_at else first
        return _left_s(max(first, again), now)

    def asked(self, now: float) -> None:
        """A GET of the next manifest was sent."""
        self._asked_at = now

    def direct(self, losses: int, now: float) -> bool:
        """Whether to PUT the next manifest ourselves, at once."""
        if not self._cooperative:
            return True
        if self.rotates and losses <= ROTATING_LOSSES_MAX:
            return True
        if losses > LOSSES_MAX:
            return False
        return self._leading or not self._busy(now)

    def look(self, now: float, announced: int) -> Look:
        """What a manifest PUT should have beside it; ``announced`` writers have said where their next segments will be.

        In company announced keys tell all there is, but for who is new: for those a LIST, four times a second. Who is
        alone LISTs after a streak of manifests, and listens for the bell if others cannot outrun it.
        """
        is_told = 0 < announced <= ANNOUNCED_MAX
        if self.rotates:
            must_list = now - self._listed_at >= ROTATING_LISTED_S
            return Look.LIST if must_list else Look.BELL | (Look.ANNOUNCED if is_told else Look(0))
        if self._cooperative and self.is_company(now):
            must_list = self._is_news or now - self._listed_at >= LISTED_S
            return Look.LIST if must_list or not is_told else Look.ANNOUNCED
        found = (Look.ANNOUNCED if is_told else Look(0)) | (Look.BELL if self._listens(now) else Look(0))
        if (self._has_streak(now) and not is_told) or (announced and not found):
            return Look.LIST
        return found

    def _has_streak(self, now: float) -> bool:
        """Whether we have written alone for so long that somebody may have come."""
        is_streak = len(self._own) == STREAK and now - self._own[0] < STREAK_S
        return self._cooperative and is_streak and now - self._looked_at >= LONE_S

    def _listens(self, now: float) -> bool:
        """Whether we are alone and too quick for others, so that they have to ring."""
        if not self._cooperative or now - self._leading_since < LONE_S or now - self._listened_at < LISTENED_S:
            return False
        return len(self._own) >= BUSY_MANIFESTS and now - self._own[-BUSY_MANIFESTS] < BUSY_S

    def is_company(self, now: float) -> bool:
        """Whether others have been here lately."""
        return now - self._others_at < COMPANY_S

    def delay_s(self, look_s: float) -> float:
        """Start a look that takes so long so that it ends about when a PUT does, and so sees the most."""
        return max(0.0, self.took.put - 1.2 * look_s)

    def patience_s(self, now: float) -> float:
        """How long a leader waits for its look before it goes on without: worth it only where many would miss out."""
        is_crowd = sum(self._intents) > CROWD * len(self._intents)
        return self.took.list if is_crowd and self.is_company(now) else 0.0

    def first_poll_s(self) -> float:
        """How long after publishing the first look at the chain is worth a GET."""
        return 0.8 * self.took.put

    def poll_s(self) -> float:
        """How long to wait after a GET that found nothing."""
        return 0.4 * self.took.put

    def my_turn(self, missed: int, now: float) -> bool:
        """Whether to step forward: the chain rests, or has passed us over ``missed`` times."""
        if self.passed_over(missed) and self._rng.random() < 1.0 / max(self._writers):
            return True
        return now >= self._progress_at + self._wait_s

    def passed_over(self, missed: int) -> bool:
        """Whether those who write do not seem to see that we wait."""
        return missed >= PASSED_OVER or (missed >= UNAWARE and self.unaware())

    def unaware(self) -> bool:
        """Whether recent manifests carried nothing but their writer's own. It learns of us when we win a slot."""
        return max(self._writers) == 1

    def _busy(self, now: float) -> bool:
        return len(self._others) == BUSY_MANIFESTS and now - self._others[0] < BUSY_S

    def _draw(self) -> None:
        """Draw the time that the chain must rest before we take a turn."""
        grace = 2.2 * self.took.put + self.took.get
        spread = 0.6 * (self.took.put + self.took.list) * max(self._writers)
        self._wait_s = grace + self._rng.random() * spread


def _left_s(until: float, now: float) -> float:
    """How long it is until then. Less than a millisecond is none: in simulation, what rounding leaves never passes."""
    return until - now if until - now > 0.001 else 0.0
