"""Where a client is told to go: gateways in its zone, as this one knows them."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.kafka.model import Fields, Peer, Request
from headwater.kafka.placing import Node, Places, zone_in
from headwater.limits import KAFKA_CARD_DEAD_MS, KAFKA_LED_MAX
from headwater.log.state import Topic


def places_of(peer: Peer) -> Places:
    """The gateways that serve the client's namespace through its listener."""
    return peer.gateway.fleet.places(peer.name, peer.namespace.name, _myself(peer))


def _myself(peer: Peer) -> Node:
    gateway = peer.gateway
    return Node(gateway.node_id, peer.address.host, peer.address.port, gateway.settings.zone)


def zone_of(peer: Peer, request: Request) -> str:
    """The client's zone: what its client id says, else its listener; "" if neither does."""
    return zone_in(request.client) or peer.zone


def replicas_of(peer: Peer, places: Places, topic: Topic, zone: str) -> Sequence[tuple[Node, ...]]:
    """For each partition of a topic its leader for clients of ``zone``, and a gateway of each other zone."""
    return places.replicas(f"{peer.namespace.name}/{topic.id}", len(topic.partitions), zone)


def coordinator(peer: Peer, request: Request, key: str) -> Node:
    """Who coordinates a group or a transaction: this gateway, which lives, unless the client's zone is elsewhere.

    A client that asks again before a dead gateway would be forgotten has not reached the one that it was led to. It
    stays here: any gateway coordinates everything, and its session would end before the card does.
    """
    places, zone = places_of(peer), zone_of(peer, request)
    if any(node.id == peer.gateway.node_id for node in places.near(zone)) or _was_led(peer, key):
        return _myself(peer)
    return places.leader(key, zone)


def _was_led(peer: Peer, key: str) -> bool:
    """Whether this connection was led elsewhere for ``key`` a moment ago; if not, it is now."""
    now_s = peer.gateway.now_s()
    if now_s - peer.led.get(key, float("-inf")) < KAFKA_CARD_DEAD_MS / 1_000:
        return True
    peer.led.pop(key, None)  # the oldest comes first
    peer.led[key] = now_s
    if len(peer.led) > KAFKA_LED_MAX:
        del peer.led[next(iter(peer.led))]
    return False


def lists(peer: Peer, name: str) -> bool:
    """Whether this gateway lists a group or a transaction: tools ask every one, and put the answers together."""
    places = places_of(peer)
    return len(places.nodes) == 1 or places.leader(name, "").id == peer.gateway.node_id


def preferred(peer: Peer, asked: Fields) -> Places | None:
    """The gateways in a consumer's own zone, if this one is in another (KIP-392)."""
    zone = asked["rack_id"]
    if not zone or zone == peer.gateway.settings.zone:
        return None
    places = places_of(peer)
    return places if any(node.zone == zone for node in places.nodes) else None


def point(peer: Peer, places: Places, zone: str, topic: Topic, answer: Fields) -> None:
    """Send a consumer of a partition to a gateway of its zone."""
    number = answer["partition_index"]
    if 0 <= number < len(topic.partitions):
        place = topic.partitions[number]
        answer.update(
            high_watermark=place.stable_end,
            last_stable_offset=place.stable_end,
            log_start_offset=place.start,
            preferred_read_replica=replicas_of(peer, places, topic, zone)[number][0].id,
        )
