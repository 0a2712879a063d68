"""Where a client is told to go: gateways in its zone, as this one knows them."""

from __future__ import annotations

from headwater.kafka.model import Fields, Peer, Request
from headwater.kafka.placing import Node, Places, zone_in
from headwater.log.state import Topic


def places_of(peer: Peer) -> Places:
    """The gateways that serve the client's namespace through its listener."""
    gateway = peer.gateway
    myself = Node(gateway.node_id, peer.address.host, peer.address.port, gateway.settings.zone)
    return gateway.fleet.places(peer.name, peer.namespace.name, myself)


def zone_of(peer: Peer, request: Request) -> str:
    """The client's zone: what its client id says, else its listener; "" if neither does."""
    return zone_in(request.client) or peer.zone


def partition_place(peer: Peer, topic: int, partition: int) -> str:
    """The place of a partition among all of the bucket's."""
    return f"{peer.namespace.name}/{topic}/{partition}"


def coordinator(peer: Peer, request: Request, key: str) -> Node:
    """Who coordinates a group or a transaction: this gateway, which lives, unless the client's zone is elsewhere."""
    places, zone = places_of(peer), zone_of(peer, request)
    near = [node for node in places.near(zone) if node.id == peer.gateway.node_id]
    return near[0] if near else places.leader(key, zone)


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
            preferred_read_replica=places.leader(partition_place(peer, topic.id, number), zone).id,
            records=b"",  # librdkafka takes null for a broken answer
        )
