"""What the tests of groups share: gateways over one bucket, and members of the classic protocol that speak by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kio.schema.errors import ErrorCode as E

from headwater.kafka.model import Fields, Peer
from headwater.log.options import Options
from headwater.sim.faults import SimBucket
from headwater.sim.latency import ZERO, Profile
from headwater.sim.loop import sim_loop
from headwater.store.metered import MeteredStore
from tests.kafka.helpers_peer import ask, peer
from tests.log.helpers import network, opened

FIND, JOIN, HEARTBEAT, LEAVE, SYNC = 10, 11, 12, 13, 14
COMMIT, FETCH, DELETE_OFFSETS = 8, 9, 47
DESCRIBE, LIST, DELETE = 15, 16, 42
CONSUMER, CONSUMER_DESCRIBE = 68, 69
OFFER = [{"name": "range", "metadata": b"of range"}, {"name": "sticky", "metadata": b"of sticky"}]


class Place:
    """A bucket, and as many gateways as a test needs."""

    def __init__(self, profile: Profile = ZERO) -> None:
        self.bucket = SimBucket(sim_loop())
        self.profile = profile
        self.meters: list[MeteredStore] = []

    async def gateway(self, principal: str = "root", **topics: int) -> Peer:
        """A connection to a gateway of its own, which has made these topics."""
        seed = len(self.meters) + 1
        meter = MeteredStore(network(self.bucket, profile=self.profile, seed=seed))
        self.meters.append(meter)
        namespace = await opened(meter, seed=seed, options=Options(threads=False))
        for name, count in topics.items():
            await namespace.create_topic(name, count)
        return peer(namespace, principal)

    @property
    def manifests(self) -> int:
        return sum("/manifest/" in key for key in self.bucket.keys)

    async def check_beats(self, beat: Callable[[], Awaitable[E]], *, put_max: int) -> None:
        """300 heartbeats in 30 s by way of the first gateway commit nothing, and ask the store little."""
        manifests, counts = self.manifests, self.meters[0].counts.copy()
        for _ in range(300):
            assert E.none is await beat()
            await sim_loop().sleep(0.1)
        asked = self.meters[0].counts - counts
        assert manifests == self.manifests
        assert asked.get <= 62, "30 s at 2 GETs a second"
        assert asked.put <= put_max


@dataclass(slots=True)
class Classic:
    """A member of group ``g`` that joins and syncs by hand. ``instance`` makes it a static one."""

    peer: Peer
    client: str = "c"
    instance: str | None = None
    member: str = ""
    generation: int = -1
    joined: Fields | None = None

    async def ask(self, api: int, version: int = -1, **more: Any) -> Fields:
        return await ask(self.peer, api, version, client=self.client, **{"group_id": "g", **more})

    async def join(self, version: int = -1, **more: Any) -> E:
        """Join, under the id that the gateway gives out."""
        asked: dict[str, Any] = {
            "session_timeout": 10_000,
            "rebalance_timeout": 60_000,
            "protocol_type": "consumer",
            "protocols": OFFER,
            "member_id": self.member,
            "group_instance_id": self.instance,
            **more,
        }
        answer = await self.ask(JOIN, version, **asked)
        if answer["error_code"] == E.member_id_required:
            answer = await self.ask(JOIN, version, **{**asked, "member_id": answer["member_id"]})
        code = E(answer["error_code"])
        if code is E.none:
            self.member, self.generation, self.joined = answer["member_id"], answer["generation_id"], answer
        return code

    async def sync(self, version: int = -1, given: dict[str, bytes] | None = None, **more: Any) -> Fields:
        rows = [{"member_id": name, "assignment": data} for name, data in (given or {}).items()]
        return await self.ask(SYNC, version, **{**self.who, "assignments": rows, **more})

    async def beat(self, version: int = -1, **more: Any) -> E:
        return E((await self.ask(HEARTBEAT, version, **{**self.who, **more}))["error_code"])

    @property
    def who(self) -> dict[str, Any]:
        return {"member_id": self.member, "generation_id": self.generation, "group_instance_id": self.instance}

    async def lead_alone(self) -> Classic:
        """Join an empty group and give itself everything."""
        assert E.none is await self.join()
        assert b"all" == (await self.sync(given={self.member: b"all"}))["assignment"]
        return self
