"""The gateways that live. Each has a card in the bucket that says where it is reached; none talks to another.

    _gateways/<node>-<nonce>     written every few seconds: its age by the store's clock says who lives (R7, C8)

A card's bytes stay the same as long as its gateway lives, so they are read once, and a LIST tells the rest. Who stops
takes its card away; who dies is forgotten when it is too old. A card is never a promise: clients that go to a gateway
that has just died ask another one. No commit is made and no namespace is touched.

    alone            1 LIST a minute
    with others      1 PUT every 5 s, and 1 LIST every 5 s at most while clients ask for metadata, else 1 a minute
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from headwater.clock import Clock
from headwater.errors import HeadwaterError, NotFound
from headwater.kafka.placing import Node, Places
from headwater.limits import (
    KAFKA_CARD_BYTES_MAX,
    KAFKA_CARD_DEAD_MS,
    KAFKA_CARD_KEEP_MS,
    KAFKA_CARD_LOOK_S,
    KAFKA_CARD_RENEW_S,
    KAFKA_GATEWAYS_MAX,
    KAFKA_LONELY_LOOK_S,
)
from headwater.log.keys import fresh_name
from headwater.store.base import ObjectStore, Stat
from headwater.store.retry import retrying

FOLDER: Final = "_gateways/"  # no namespace can be called so
NONCE_BITS: Final = 80
_LOOPBACK = re.compile(r"(localhost|127\..*|::1|0\.0\.0\.0|::)\Z", re.IGNORECASE)
PATIENCE_S: Final = 2.0  # a request for a card is tried so long; clients wait for some of them


class Door(Struct, frozen=True):
    """One listener: what it tells its clients to connect to, and the namespaces that it leads to."""

    name: str
    host: str
    port: int
    namespaces: list[str]


class Card(Struct, frozen=True):
    """Who a gateway is. Fields that are not known are left alone: gateways of two versions serve together.

    ``machine`` tells gateways at loopback addresses apart, which mean another machine to everybody else.
    """

    node: int
    zone: str = ""
    doors: list[Door] = []
    machine: str = ""


class Fleet:
    """What one gateway knows of the others."""

    def __init__(
        self, store: ObjectStore, clock: Clock, rng: random.Random, log: Callable[[str], object] = lambda _: None
    ) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._log = log
        self._card: Card | None = None
        self._key = ""
        self._read: dict[str, Card | None] = {}  # by key; None: no card of ours
        self._others: tuple[Card, ...] = ()
        self._places: dict[tuple[str, str, Node], Places] = {}
        self._renewed_s = self._looked_s = self._alert_until_s = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._is_troubled = False

    @property
    def others(self) -> Sequence[Card]:
        """The cards of the others that lived at the last look."""
        return self._others

    async def enter(self, card: Card) -> None:
        """Show the card, and look who is there. A store that cannot be reached is tried again later."""
        self._card = card
        self._key = f"{FOLDER}{card.node}-{fresh_name(self._rng, NONCE_BITS)}"
        self._be_alert()
        await self._trying(self._renew)
        await self.look()

    async def leave(self) -> None:
        """Take the card away, so that clients are sent elsewhere at once. A second call does nothing."""
        if self._card is not None:
            self._card = None
            if self._looking is not None:
                await asyncio.wait([self._looking], timeout=PATIENCE_S)
            await self._trying(lambda: self._store.delete([self._key]))

    async def keep(self) -> None:
        """Renew the card as long as somebody may read it, until the task is cancelled.

        A gateway that is alone renews nothing, so those who look rarely would not meet: who has just come, or has seen
        others come or go, shows itself and looks around until every other one has looked, too.
        """
        while True:
            await self._clock.sleep(KAFKA_CARD_RENEW_S)
            now_s = self._clock.elapsed_s()
            is_alert = now_s < self._alert_until_s
            if self._others or is_alert:
                await self._trying(self._renew)
            if is_alert or now_s - self._looked_s >= KAFKA_LONELY_LOOK_S:
                await self.look()

    async def look(self) -> None:
        """Know who lives, as of a few seconds ago. Never fails: what cannot be read now stays as it was.

        While gateways come and go it is half a second: clients ask several, and librdkafka lets go of a broker that one
        of them names and the next does not, with the requests that are on their way to it.
        """
        now_s = self._clock.elapsed_s()
        fresh_s = KAFKA_CARD_LOOK_S if now_s < self._alert_until_s else KAFKA_CARD_RENEW_S
        if self._card is None or now_s - self._looked_s < fresh_s:
            return
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._trying(self._look))
            self._looking.add_done_callback(self._looked)
        await asyncio.shield(self._looking)

    def places(self, listener: str, namespace: str, myself: Node) -> Places:
        """The gateways that serve ``namespace`` through a listener of that name; this one is always among them."""
        key = (listener, namespace, myself)
        if key not in self._places:
            found = {
                card.node: Node(card.node, door.host, door.port, card.zone)
                for card in self._others
                for door in card.doors
                if door.name == listener and namespace in door.namespaces and self._reaches(card, door)
            }
            found[myself.id] = myself
            self._places[key] = Places(sorted(found.values()))
        return self._places[key]

    # -- the parts -----------------------------------------------------------------------------------------

    def _reaches(self, card: Card, door: Door) -> bool:
        """Whether our clients can go there: an address of the machine itself is one for those on it."""
        mine = self._card
        return not _LOOPBACK.match(door.host) or (mine is not None and mine.machine == card.machine)

    async def _trying(self, work: Callable[[], object]) -> None:
        try:
            await retrying(work, clock=self._clock, rng=self._rng, deadline_s=PATIENCE_S)  # type: ignore[arg-type]
            self._is_troubled = False
        except HeadwaterError as error:
            if not self._is_troubled:
                self._log(f"The other gateways are out of sight for now: {error.message}")
            self._is_troubled = True

    async def _renew(self) -> None:
        if self._card is not None:
            begun_s = self._clock.elapsed_s()
            await self._store.put(self._key, msgspec.json.encode(self._card))
            self._renewed_s = begun_s

    async def _look(self) -> None:
        stats = [stat async for stat in self._store.list(FOLDER, limit=KAFKA_GATEWAYS_MAX)]
        ages = {stat.key: stat.date_ms - stat.modified_ms for stat in stats if stat.key != self._key}
        fresh = [stat for stat in stats if stat.key in ages and ages[stat.key] <= KAFKA_CARD_DEAD_MS]
        unread = [stat for stat in fresh if stat.key not in self._read]
        for stat, card in zip(unread, await asyncio.gather(*map(self._card_of, unread)), strict=True):
            self._read[stat.key] = card
        self._read = {key: card for key, card in self._read.items() if key in ages}
        self._know([card for stat in fresh if (card := self._read.get(stat.key)) is not None])
        if self._others and self._clock.elapsed_s() - self._renewed_s >= KAFKA_CARD_RENEW_S:
            await self._renew()  # somebody is there to read it
        if dead := [key for key, age_ms in ages.items() if age_ms > KAFKA_CARD_KEEP_MS]:
            await self._store.delete(dead)

    async def _card_of(self, stat: Stat) -> Card | None:
        if stat.size > KAFKA_CARD_BYTES_MAX:
            return None
        try:
            return msgspec.json.decode((await self._store.get(stat.key)).data, type=Card)
        except (NotFound, msgspec.MsgspecError):
            return None  # it has just left; or it is none of ours

    def _know(self, cards: list[Card]) -> None:
        others = tuple(sorted(cards, key=msgspec.json.encode))
        if others == self._others:
            return
        mine = self._card
        for card in others:
            if mine is not None and card.node == mine.node and card.doors != mine.doors and card not in self._others:
                self._log(
                    f"Another gateway calls itself {card.node}, too, at other addresses. Unless it has just stopped, "
                    "give each its own --node-id."
                )
        self._others = others
        self._places.clear()
        self._be_alert()

    def _be_alert(self) -> None:
        self._alert_until_s = self._clock.elapsed_s() + KAFKA_LONELY_LOOK_S + 2 * KAFKA_CARD_RENEW_S

    def _looked(self, _: object) -> None:
        self._looking = None
        self._looked_s = self._clock.elapsed_s()
