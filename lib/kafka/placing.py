"""Which gateway a client is told to go to. Pure: gateways with the same knowledge give the same answer.

Every gateway serves every partition and group, so a place is advice: it keeps the readers of a partition at one
gateway, whose cache has it then, and clients in their own zone. Places are drawn by rendezvous hashing: each gateway
has a number for each place, and the highest has it. A gateway that goes leaves only its own places to the others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_ZONE = re.compile(r"(?:\A|[\s,;&/])(?:headwater_)?zone=([^\s,;&/]+)")


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """A gateway as clients see it through one of its listeners. ``zone`` is "" if nobody has said it."""

    id: int
    host: str
    port: int
    zone: str = ""


def zone_in(client: str) -> str:
    """The zone that a client id names, as in ``billing,headwater_zone=eu-1a`` or ``zone=eu-1a``; "" if none."""
    found = _ZONE.search(client)
    return found[1] if found else ""


@dataclass(slots=True)
class Places:
    """The gateways that serve one namespace through one listener, by id; places are drawn once and remembered."""

    nodes: Sequence[Node]
    _drawn: dict[tuple[str, str], tuple[Node, ...]] = field(default_factory=dict, repr=False)

    def near(self, zone: str) -> Sequence[Node]:
        """The gateways of a zone; all of them if it has none, or if nobody knows the zone."""
        return [node for node in self.nodes if zone and node.zone == zone] or self.nodes

    def replicas(self, place: str, zone: str) -> tuple[Node, ...]:
        """Who leads a place for clients of ``zone``, and then one gateway of each other zone.

        So a client that looks for a replica in its zone finds one (KIP-392, KIP-881). Cost: a hash for each gateway,
        once.
        """
        found = self._drawn.get((place, zone))
        if found is None:
            leader = _highest(self.near(zone), place)
            others = sorted({node.zone for node in self.nodes} - {leader.zone})
            found = (leader, *(_highest([n for n in self.nodes if n.zone == each], place) for each in others))
            self._drawn[place, zone] = found
        return found

    def leader(self, place: str, zone: str) -> Node:
        """Who leads a place for clients of ``zone``."""
        return self.replicas(place, zone)[0]


def _highest(nodes: Sequence[Node], place: str) -> Node:
    if len(nodes) == 1:
        return nodes[0]
    return max(nodes, key=lambda node: (_number(node.id, place), node.id))


def _number(node: int, place: str) -> bytes:
    return hashlib.blake2b(f"{node}\0{place}".encode(), digest_size=8).digest()
