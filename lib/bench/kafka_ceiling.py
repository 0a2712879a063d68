"""The ceiling of ``headwater bench kafka``: a server that parses, checks CRCs and keeps the bytes in memory.

It has the gateway's framing and codec, one partition a topic, and answers everything on the spot: no log, no store, no
rights, no back-pressure, no waiting. ``python -m headwater.bench.kafka_ceiling`` serves until it is killed.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, cast

from headwater.kafka import schema, wire
from headwater.kafka.framing import Frames
from headwater.kafka.loop import run
from headwater.kafka.model import Fields, Request
from headwater.log import kafka2
from headwater.types import Buffer

VERSIONS = {0: 10, 1: 16, 2: 7, 3: 12, 10: 2, 18: 3, 19: 5, 22: 4}


class Bare(asyncio.BufferedProtocol):
    """One connection."""

    logs: ClassVar[dict[tuple[str, int], list[tuple[int, int, Buffer]]]] = {}  # base, end, bytes by topic, partition
    port: ClassVar[int] = 0

    def __init__(self) -> None:
        self._frames = Frames()
        self._transport: Any = None
        self._found = 0  # bytes that the last fetch found

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> Buffer:
        """Where bytes go."""
        return self._frames.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come: answer what is whole."""
        for frame in self._frames.filled(nbytes):
            api, version, _ = wire.peek(frame)
            if api == 18 and version > VERSIONS[18]:
                self._transport.writelines(wire.answer(18, 0, wire.peek(frame)[2], {"error_code": 35}))
                continue
            request = wire.request(frame)
            fields = getattr(self, f"_api_{request.api}")(request)
            wait_s = request.fields["max_wait"] / 1_000 if request.api == 1 and not self._found else 0.0
            if wait_s:
                asyncio.get_running_loop().call_later(wait_s, self._answer, request, fields)
            else:
                self._answer(request, fields)

    def _answer(self, request: Request, fields: Fields) -> None:
        for part in wire.answer(request.api, request.version, request.correlation, fields):
            if not self._transport.is_closing():
                self._transport.write(part)

    def _api_18(self, request: Request) -> Fields:
        keys = [
            {"api_key": api, "min_version": schema.versions(api)[0] if api else 0, "max_version": last}
            for api, last in VERSIONS.items()
        ]
        return {"api_keys": keys}

    def _api_3(self, request: Request) -> Fields:
        names = [topic["name"] for topic in request.fields["topics"] or []]
        partition = {"partition_index": 0, "leader_id": 1, "leader_epoch": 0, "replica_nodes": [1], "isr_nodes": [1]}
        return {
            "brokers": [{"node_id": 1, "host": "127.0.0.1", "port": self.port}],
            "controller_id": 1,
            "topics": [{"name": name, "partitions": [partition]} for name in names],
        }

    def _api_10(self, request: Request) -> Fields:
        return {"node_id": 1, "host": "127.0.0.1", "port": self.port}

    def _api_22(self, request: Request) -> Fields:
        return {"producer_id": 1, "producer_epoch": 0}

    def _api_19(self, request: Request) -> Fields:
        return {"topics": [{"name": topic["name"], "num_partitions": 1} for topic in request.fields["topics"]]}

    def _api_0(self, request: Request) -> Fields:
        responses = []
        for topic in request.fields["topic_data"]:
            rows = []
            for part in topic["partition_data"]:
                log = self.logs.setdefault((topic["name"], part["index"]), [])
                base = log[-1][1] if log else 0
                count = sum(header.count for header in kafka2.headers_of(part["records"]))
                log.append((base, base + count, bytes(part["records"])))  # as a store in memory keeps them
                rows.append({"index": part["index"], "base_offset": base})
            responses.append({"name": topic["name"], "partition_responses": rows})
        return {"responses": responses}

    def _api_2(self, request: Request) -> Fields:
        topics = []
        for topic in request.fields["topics"]:
            log = self.logs.get((topic["name"], 0), [])
            rows = [{"partition_index": 0, "offset": 0 if each["timestamp"] == -2 else log[-1][1] if log else 0}
                    for each in topic["partitions"]]  # fmt: skip
            topics.append({"name": topic["name"], "partitions": rows})
        return {"topics": topics}

    def _api_1(self, request: Request) -> Fields:
        self._found = 0
        responses = []
        for topic in request.fields["topics"]:
            rows = []
            for part in topic["partitions"]:
                log = self.logs.get((topic["topic"], part["partition"]), [])
                end = log[-1][1] if log else 0
                records: list[Buffer] = []
                size = 0
                for base, stop, data in log:
                    if stop <= part["fetch_offset"]:
                        continue
                    if size and size + len(data) > part["partition_max_bytes"]:
                        break
                    records += [base.to_bytes(8, "big"), memoryview(data)[8:]]  # right for one batch a request
                    size += len(data)
                    self._found += len(data)
                rows.append({"partition_index": part["partition"], "high_watermark": end, "last_stable_offset": end,
                             "log_start_offset": 0, "records": records})  # fmt: skip
            responses.append({"topic": topic["topic"], "partitions": rows})
        return {"responses": responses}


async def serve() -> None:
    """Serve on any free port until the task is cancelled."""
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0)
    Bare.port = server.sockets[0].getsockname()[1]
    print(f"127.0.0.1:{Bare.port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    run(serve())
