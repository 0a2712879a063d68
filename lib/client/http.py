"""``Verbs`` over HTTP: every verb is a request to a service, and cannot be told from the same verb on a bucket.

Batches travel as frames of their stored bytes. A write that got no answer is repeated only under an identity: the
producer's sequences, an Idempotency-Key of the call, or a token made here from an id and a commit number that the
service has named. What is too large for a request goes by presigned URLs, past the service.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from headwater.api import frames, wire
from headwater.api.verbs import (
    AclRule,
    Appended,
    Batch,
    Fetched,
    GroupInfo,
    GroupOffset,
    GroupOffsets,
    Heartbeat,
    KeyInfo,
    Lag,
    NamespaceInfo,
    OffsetAt,
    ProducerId,
    QuotaInfo,
    Ranges,
    SchemaInfo,
    TopicInfo,
    Upload,
    Where,
    Written,
)
from headwater.client.signing import Signer
from headwater.client.transport import Transport, checked_url, segment
from headwater.clock import Clock
from headwater.errors import Corrupt, Indeterminate, InvalidRequest
from headwater.limits import CLIENT_REQUEST_BYTES_MAX, HTTP_WAIT_MS_MAX, REBALANCE_MS, SESSION_MS
from headwater.log import frame
from headwater.log.chunk import Chunk, first_of_file

if TYPE_CHECKING:
    from headwater.api.frames import Placed

T = TypeVar("T")
TP = tuple[str, int]
TIMEOUT_S = 60.0  # of one request, long polls apart
_UPLOADED = "upload/"  # in a token of ours: the batch lies there already
FRESH_S = 1.0  # a commit number heard this long ago still makes a token


class HttpVerbs:
    """The verbs of a namespace behind a service's URL. Any number of tasks may use one at once."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "default",
        token: str | None = None,
        auth: Literal["iam", "token", "none"] | None = None,
        admin_url: str | None = None,
        region: str | None = None,
        timeout_s: float = TIMEOUT_S,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        if (auth == "token") != (token is not None) and auth is not None:
            raise InvalidRequest("auth='token' goes with a token, and a token with nothing else.")
        self.namespace = namespace
        self.request_bytes_max = CLIENT_REQUEST_BYTES_MAX  # producers ask for it
        self.clock = clock
        self.rng = rng
        signer = Signer(url, region=region, rng=rng) if auth == "iam" else None
        self._http = Transport(url, token=token, signer=signer, timeout_s=timeout_s, clock=clock, rng=rng)
        self._prefix = "" if namespace == "default" else f"/namespaces/{segment(namespace)}"
        self._admin = checked_url(admin_url) if admin_url else ""
        self._commit, self._heard_s = 0, -1e9  # the newest commit number that an answer named, and when

    def __repr__(self) -> str:
        return f"HttpVerbs({self._http.url!r}, namespace={self.namespace!r})"

    async def aclose(self) -> None:
        await self._http.close()

    # -- topics -----------------------------------------------------------------------------------------------

    async def topics(self) -> Sequence[TopicInfo]:
        return wire.read((await self._get("/admin/topics", admin=True))["topics"], list[TopicInfo])

    async def topic(self, name: str) -> TopicInfo:
        info: TopicInfo = wire.read(await self._get(f"/admin/topics/{segment(name)}", admin=True), TopicInfo)
        self._note(info.commit)
        return info

    async def offset_of(self, topic: str, partition: int, where: Where = "latest") -> OffsetAt:
        return wire.read(await self._get(f"{_place(topic, partition)}/offsets", {"at": where}), OffsetAt)

    async def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> TopicInfo:
        body = {"name": name, "partitions": partitions, "config": dict(config or {})}
        return wire.read(await self._post("/admin/topics", body, repeatable=False, admin=True), TopicInfo)

    async def delete_topic(self, name: str) -> None:
        await self._send("DELETE", f"/admin/topics/{segment(name)}", repeatable=False, admin=True)

    async def add_partitions(self, name: str, total: int) -> None:
        path = f"/admin/topics/{segment(name)}/partitions"
        await self._post(path, {"total": total}, repeatable=False, admin=True)

    async def schemas(self, topic: str) -> Sequence[SchemaInfo]:
        found = await self._get(f"/admin/topics/{segment(topic)}/schema", admin=True)
        return wire.read(found["schemas"], list[SchemaInfo])

    async def set_schema(self, topic: str, format: str, definition: str, *, version: int = 0) -> SchemaInfo:  # noqa: A002
        path, body = f"/admin/topics/{segment(topic)}/schema", {"format": format, "definition": definition}
        answer = await self._post(path, {**body, "version": version}, method="PUT", repeatable=True, admin=True)
        return wire.read(answer, SchemaInfo)

    async def alter_topic(self, name: str, config: Mapping[str, str | None]) -> None:
        body = {"config": dict(config)}
        await self._post(f"/admin/topics/{segment(name)}", body, method="PATCH", repeatable=True, admin=True)

    async def delete_records(self, name: str, partition: int, before: int) -> int:
        path = f"/admin{_place(name, partition)}/trim"
        return int((await self._post(path, {"before": before}, repeatable=True, admin=True))["log_start"])

    # -- writing ----------------------------------------------------------------------------------------------

    async def produce(
        self, batches: Sequence[Placed], *, token: str = "", once: str = "", request: str = ""
    ) -> Sequence[Appended]:
        # A token of ours carries the key of the first call, so that the second one is the same request.
        token, _, known = token.partition("#")
        numbered = all(batch.producer_id >= 0 and batch.sequence >= 0 for _, _, batch in batches)
        is_large = len(batches) == 1 and len(batches[0][2].data) > CLIENT_REQUEST_BYTES_MAX
        if known.startswith(_UPLOADED) or (is_large and not (once or known)):
            uploaded = await self._upload(*batches[0], token=token, known=known.removeprefix(_UPLOADED))
            if uploaded is not None:
                return [uploaded]
        once = once or known or ("" if numbered else f"{self.rng.getrandbits(128):032x}")
        headers = {"headwater-token": token} if token else {}
        if once:
            headers["idempotency-key"] = once
        try:
            answer = await self._frame("/batches", frames.pack(batches), headers=headers, repeatable=True)
        except Indeterminate as error:
            if once:
                error.token = f"{error.token}#{once}"
            raise
        appended: list[Appended] = wire.read(answer["appended"], list[Appended])
        self._note(max((each.commit for each in appended), default=0))
        return appended

    async def init_producer(self, transactional_id: str = "", *, current: ProducerId | None = None) -> ProducerId:
        body = {"transactional_id": transactional_id, "current": _producer(current)}
        # With `current` a second call would find itself fenced by the first one.
        return wire.read(await self._post("/producers", body, repeatable=current is None), ProducerId)

    async def transact(
        self, producer: ProducerId, batches: Sequence[Placed], offsets: Sequence[GroupOffsets] = (), *, token: str = ""
    ) -> Written:
        token = token or await self._own_token(batches, offsets)
        header = {"producer": _producer(producer), "offsets": [_commit(each) for each in offsets], "token": token}
        try:
            answer = await self._frame("/transactions", frames.pack(batches, header), repeatable=bool(token))
        except Indeterminate as error:
            error.token = error.token or token
            raise
        written: Written = wire.read(answer, Written)
        self._note(written.commit)
        return written

    async def begin(self, producer: ProducerId, *, timeout_ms: int = 60_000) -> str:
        body = {"producer": _producer(producer), "timeout_ms": timeout_ms}
        # Begun twice, one of the two is never heard of again.
        return str((await self._post("/transactions/begin", body, repeatable=True))["transaction"])

    async def add(self, transaction: str, batches: Sequence[Placed], offsets: Sequence[GroupOffsets] = ()) -> None:
        body = frames.pack(batches, {"offsets": [_commit(each) for each in offsets]})
        await self._frame(f"/transactions/{segment(transaction)}/records", body, repeatable=False)

    async def commit(self, transaction: str) -> Written:
        return wire.read(await self._post(f"/transactions/{segment(transaction)}/commit", repeatable=True), Written)

    async def abort(self, transaction: str) -> None:
        await self._post(f"/transactions/{segment(transaction)}/abort", repeatable=True)

    async def upload(self, topic: str, partition: int, length: int) -> Upload:
        path = f"{_place(topic, partition)}/uploads"
        return wire.read(await self._post(path, {"length": length}, repeatable=True), Upload)

    async def append_upload(
        self, upload: str, *, token: str = "", producer: ProducerId | None = None, sequence: int = -1
    ) -> Appended:
        body = {"token": token, "producer": _producer(producer), "sequence": sequence}
        # What was uploaded is appended once, however often that is asked for.
        answer = await self._post(f"/uploads/{segment(upload)}", body, repeatable=True)
        return wire.read(answer["appended"], list[Appended])[0]

    async def _upload(self, topic: str, partition: int, batch: Batch, *, token: str, known: str) -> Appended | None:
        """A large batch past the service; None where that cannot be, since the store has no presigned URLs.

        ``known`` is the upload of an earlier call that ended in ``Indeterminate``.
        """
        if batch.codec != "arrow":
            return None
        if not known:
            try:
                upload = await self.upload(topic, partition, len(batch.data))
            except InvalidRequest:
                return None
            await self._http.outside("PUT", upload.url, upload.headers, upload.prefix + batch.data)
            known = upload.id
        producer = ProducerId(id=batch.producer_id, epoch=batch.producer_epoch) if batch.producer_id >= 0 else None
        try:
            return await self.append_upload(known, token=token, producer=producer, sequence=batch.sequence)
        except Indeterminate as error:
            error.token = f"{error.token}#{_UPLOADED}{known}"
            raise

    # -- reading ----------------------------------------------------------------------------------------------

    async def fetch(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        bytes_max: int = 8 << 20,
        wait_ms: float = 0,
        as_of: int | None = None,
    ) -> Fetched:
        wait_ms = min(wait_ms, HTTP_WAIT_MS_MAX)
        query: dict[str, object] = {"offset": offset, "max_bytes": bytes_max, "wait_ms": int(wait_ms)}
        if as_of is not None:
            query["as_of"] = as_of
        path = f"{self._prefix}{_place(topic, partition)}/records"
        try:
            answer = await self._http.call(
                "GET", path, query=query, accept=frames.MEDIA_TYPE, repeatable=True, wait_s=wait_ms / 1_000
            )
        except InvalidRequest as error:
            if error.data.get("status") != 413:
                raise
            return await self._fetch_outside(topic, partition, offset)
        fetched = frames.unpack_fetched(answer.body)
        self._note(fetched.commit)
        return fetched

    async def _fetch_outside(self, topic: str, partition: int, offset: int) -> Fetched:
        """What no answer can hold, from the store itself."""
        found = await self.ranges(topic, partition, offset, bytes_max=1)
        chunks = []
        next_offset = found.next_offset
        for each in found.ranges:
            data = await self._http.outside("GET", each.url, each.headers)
            if len(data) != each.length or frame.checksum(data) != each.crc32c:
                raise Corrupt(f"The bytes of topic {topic!r}, partition {partition}, offset {each.base} are damaged.")
            if each.codec == "parquet":
                chunk = first_of_file(topic, partition, data, offset, CLIENT_REQUEST_BYTES_MAX)
                next_offset = min(next_offset, chunk.end) if chunk else next_offset
                chunks += [chunk] if chunk else []
                continue
            codec: Any = each.codec
            chunks.append(
                Chunk(topic=topic, partition=partition, base=each.base, count=each.count, codec=codec, data=data,
                      timestamp_min=-1, timestamp_max=-1)
            )  # fmt: skip
        return Fetched(
            chunks=chunks,
            next_offset=next_offset,
            log_start=found.log_start,
            high_watermark=found.high_watermark,
            stable_end=found.high_watermark,
            commit=found.commit,
        )

    async def ranges(self, topic: str, partition: int, offset: int, *, bytes_max: int = 64 << 20) -> Ranges:
        query: dict[str, object] = {"offset": offset, "max_bytes": bytes_max}
        return wire.read(await self._get(f"{_place(topic, partition)}/ranges", query), Ranges)

    # -- groups -----------------------------------------------------------------------------------------------

    async def heartbeat(
        self,
        group: str,
        member: str,
        *,
        topics: Sequence[str] | None = None,
        released: Sequence[TP] = (),
        instance: str = "",
        assignor: str = "",
        session_ms: int = SESSION_MS,
        rebalance_ms: int = REBALANCE_MS,
        client: str = "",
        joining: bool = False,
        renew: bool = True,
    ) -> Heartbeat:
        body = {
            "topics": None if topics is None else list(topics),
            "released": [{"topic": name, "partition": partition} for name, partition in released],
            "instance": instance,
            "assignor": assignor,
            "session_ms": session_ms,
            "rebalance_ms": rebalance_ms,
            "client": client,
            "joining": joining,
            "renew": renew,
        }
        path = f"/groups/{segment(group)}/members/{segment(member)}/heartbeat"
        return wire.read(await self._post(path, body, repeatable=True), Heartbeat)

    async def leave(self, group: str, member: str) -> None:
        await self._send("DELETE", f"/groups/{segment(group)}/members/{segment(member)}", repeatable=True)

    async def commit_offsets(self, offsets: GroupOffsets) -> None:
        body = _commit(offsets)
        del body["group"]
        await self._post(f"/groups/{segment(offsets.group)}/offsets", body, repeatable=True)

    async def committed(self, group: str) -> Mapping[TP, GroupOffset]:
        found = await self._get(f"/groups/{segment(group)}/offsets")
        return wire.read(found["offsets"], dict[TP, GroupOffset])

    async def groups(self) -> Sequence[GroupInfo]:
        return wire.read((await self._get("/groups"))["groups"], list[GroupInfo])

    async def group(self, name: str) -> GroupInfo:
        return wire.read(await self._get(f"/groups/{segment(name)}"), GroupInfo)

    async def lag(self, group: str | None = None) -> Sequence[Lag]:
        path = "/lag" if group is None else f"/groups/{segment(group)}/lag"
        return wire.read((await self._get(path))["lag"], list[Lag])

    async def delete_group(self, name: str) -> None:
        await self._send("DELETE", f"/groups/{segment(name)}", repeatable=False)

    async def delete_offsets(self, group: str, partitions: Sequence[TP]) -> None:
        body = {"partitions": [{"topic": topic, "partition": partition} for topic, partition in partitions]}
        await self._post(f"/groups/{segment(group)}/offsets", body, method="DELETE", repeatable=True)

    # -- access -----------------------------------------------------------------------------------------------

    async def acls(self) -> Sequence[AclRule]:
        return wire.read((await self._get("/admin/acls", admin=True))["acls"], list[AclRule])

    async def change_acls(self, add: Sequence[AclRule] = (), remove: Sequence[AclRule] = ()) -> None:
        body = {"add": wire.plain(list(add)), "remove": wire.plain(list(remove))}
        await self._post("/admin/acls", body, repeatable=True, admin=True)

    async def create_key(
        self, principal: str, *, scopes: Sequence[AclRule] = (), expires_ms: int = 0
    ) -> tuple[KeyInfo, str]:
        body = {"principal": principal, "scopes": wire.plain(list(scopes)), "expires_ms": expires_ms}
        made = await self._post("/admin/keys", body, repeatable=False, admin=True)
        return wire.read(made["key"], KeyInfo), str(made["token"])

    async def keys(self) -> Sequence[KeyInfo]:
        return wire.read((await self._get("/admin/keys", admin=True))["keys"], list[KeyInfo])

    async def revoke_key(self, key: str) -> None:
        await self._send("DELETE", f"/admin/keys/{segment(key)}", repeatable=False, admin=True)

    async def quotas(self) -> Sequence[QuotaInfo]:
        return wire.read((await self._get("/admin/quotas", admin=True))["quotas"], list[QuotaInfo])

    async def set_quota(
        self, principal: str, *, produce_bytes_per_s: int = -1, fetch_bytes_per_s: int = -1, requests_per_s: int = -1
    ) -> None:
        body = {
            "produce_bytes_per_s": produce_bytes_per_s,
            "fetch_bytes_per_s": fetch_bytes_per_s,
            "requests_per_s": requests_per_s,
        }
        await self._post(f"/admin/quotas/{segment(principal)}", body, method="PUT", repeatable=True, admin=True)

    async def abort_producer(self, producer: int, epoch: int) -> None:
        await self._post(f"/admin/producers/{producer}/abort", {"epoch": epoch}, repeatable=False, admin=True)

    async def describe_namespace(self) -> NamespaceInfo:
        return wire.read(await self._get("/admin/namespace", admin=True), NamespaceInfo)

    async def alter_namespace(self, config: Mapping[str, str | None]) -> None:
        body = {"config": dict(config)}
        await self._post("/admin/namespace", body, method="PATCH", repeatable=True, admin=True)

    # -- requests ---------------------------------------------------------------------------------------------

    async def _get(self, path: str, query: Mapping[str, object] | None = None, *, admin: bool = False) -> Any:
        answer = await self._http.call(
            "GET", self._prefix + path, query=query, repeatable=True, base=self._admin if admin else ""
        )
        return _decoded(answer.body)

    async def _post(
        self, path: str, body: object = None, *, method: str = "POST", repeatable: bool, admin: bool = False
    ) -> Any:
        data = b"" if body is None else msgspec.json.encode(body)
        return await self._send(method, path, data, repeatable=repeatable, admin=admin)

    async def _send(self, method: str, path: str, body: bytes = b"", *, repeatable: bool, admin: bool = False) -> Any:
        answer = await self._http.call(
            method, self._prefix + path, body=body, repeatable=repeatable, base=self._admin if admin else ""
        )
        return _decoded(answer.body) if answer.body else None

    async def _frame(
        self, path: str, body: bytes, *, headers: Mapping[str, str] | None = None, repeatable: bool
    ) -> Any:
        answer = await self._http.call(
            "POST", self._prefix + path, body=body, kind=frames.MEDIA_TYPE, headers=headers, repeatable=repeatable
        )
        return _decoded(answer.body) if answer.body else None

    # -- identities -------------------------------------------------------------------------------------------

    def _note(self, commit: int) -> None:
        if commit >= self._commit:
            self._commit, self._heard_s = commit, self.clock.elapsed_s()

    async def _own_token(self, batches: Sequence[Placed], offsets: Sequence[GroupOffsets]) -> str:
        """A token for a call that has no other identity: an intent's id, and a tip that is no more than a moment old.

        It is good for ``WINDOW`` commits, as every intent is (R4); behind that the answer is an honest "unknown".
        """
        if self.clock.elapsed_s() - self._heard_s > FRESH_S:
            topics = [topic for topic, _, _ in batches] + [topic for each in offsets for topic, _ in each.offsets]
            if not topics:
                return ""
            await self.topic(topics[0])
        return f"{self.rng.getrandbits(120):030x}@{self._commit}"


def _place(topic: str, partition: int) -> str:
    return f"/topics/{segment(topic)}/partitions/{partition}"


def _producer(producer: ProducerId | None) -> Any:
    return None if producer is None else wire.plain(producer)


def _commit(offsets: GroupOffsets) -> dict[str, Any]:
    return {
        "group": offsets.group,
        "offsets": [
            {"topic": topic, "partition": partition, "offset": place.offset, "metadata": place.metadata}
            for (topic, partition), place in offsets.offsets.items()
        ],
        "member": offsets.member,
        "generation": offsets.generation,
    }


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"The service answered something that is no JSON: {error}.") from error
