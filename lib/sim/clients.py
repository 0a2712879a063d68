"""Clients of functions: what they send over HTTP, how they repeat it, and what they report to the history.

Each client repeats in one of the ways that the API offers, and never without: under the token of an
``Indeterminate``, under an Idempotency-Key, under a producer's sequence number, or not at all, where nothing else
was agreed. A lost answer tells as little as a 504 does.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

import orjson

from headwater.sim.checker import Violation
from headwater.sim.history import TP, Append, Beat, Got, OffsetCommit, Read, Told, Transaction
from headwater.sim.platform import url_event

if TYPE_CHECKING:
    from headwater.sim.handlers import Fleet

Act: TypeAlias = Callable[["Fleet", str], Awaitable[None]]

JSON = "application/vnd.kafka.json.v2+json"
TRIES = 8  # of one request; the time that they take stays far below that of an Idempotency-Key
CALM_TRIES = 12  # when nothing goes wrong any more, one of so many must succeed
SESSION_MS = 6_000
GROUP = "web-club"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status 0 if nothing did."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether the request may have taken effect although it does not say so."""
        return self.status == 0 or (self.status >= 400 and self.body.get("applied") != "no")

    @property
    def again(self) -> bool:
        """Whether to try again: nothing is known, or the other side cannot serve now."""
        return self.open or self.status in (429, 503)


def cast(fleet: Fleet) -> list[tuple[str, Act]]:
    """Who plays in this world."""
    kinds: list[Act] = [tokens, idempotency_keys, sequences, transactions, long_transactions]
    found: list[tuple[str, Act]] = [(f"client{i}", fleet.rng.choice(kinds)) for i in range(fleet.fleet.clients)]
    found += [(f"reader{i}", reader) for i in range(fleet.fleet.readers)]
    found += [(f"member{i}", member) for i in range(fleet.fleet.members)]
    return found + [(f"janitor{i}", janitor) for i in range(fleet.fleet.janitors)]


async def ask(fleet: Fleet, method: str, path: str, body: object = None, *, query: str = "", **headers: str) -> Answer:
    """One request, as often as it goes through; underscores in names of headers stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    data = b"" if body is None else orjson.dumps(body)
    if body is not None:
        named.setdefault("content-type", "application/json")
    got = await fleet.platform.call(url_event(method, path, query=query, headers=named, body=data))
    if got is None:
        return Answer(0)
    text = got["body"]
    return Answer(got["statusCode"], orjson.loads(text) if text else None, got["headers"])


# -- who appends ---------------------------------------------------------------------------------------------


async def tokens(fleet: Fleet, name: str) -> None:
    """Appends under no identity; an ``Indeterminate``'s token asks what became of it."""
    rng, names = _rng(fleet, name), _names(name)
    while not fleet.over():
        tp, uids = fleet.place(rng), names(rng.randint(1, 3))
        call = fleet.history.append(name, uids[0], tp, uids)  # no order is promised among requests in doubt

        async def send(token: str, tp: TP = tp, uids: list[str] = uids) -> Answer:
            return await _post_records(fleet, tp, uids, **({"headwater_token": token} if token else {}))

        await _settle(fleet, call, send)
        await fleet.rest(rng)


async def idempotency_keys(fleet: Fleet, name: str) -> None:
    """Appends under an Idempotency-Key, sent again until there is an answer, and sometimes after it."""
    rng, names = _rng(fleet, name), _names(name)
    while not fleet.over():
        tp, uids = fleet.place(rng), names(rng.randint(1, 3))
        call = fleet.history.append(name, uids[0], tp, uids)

        async def send(_: str, tp: TP = tp, uids: list[str] = uids) -> Answer:
            return await _post_records(fleet, tp, uids, idempotency_key=uids[0])

        first = await _settle(fleet, call, send, always=True)
        if first is not None and rng.random() < 0.2:
            again = await send("")
            if again.status == 200 and again.body["appended"] != first.body["appended"]:
                fleet.broken.append(Violation("another-answer", f"{uids}: {again.body}, first {first.body}"))
        await fleet.rest(rng)


async def sequences(fleet: Fleet, name: str) -> None:
    """Appends under sequence numbers. After a doubt that stays, it goes on under a new identity."""
    rng, names = _rng(fleet, name), _names(name)
    producer: Mapping[str, int] | None = None
    numbers: dict[TP, int] = {}
    while not fleet.over():
        if producer is None:
            producer, numbers = (await ask(fleet, "POST", "/producers", {})).body, {}
            if producer is None or "epoch" not in producer:
                producer = None
                await fleet.rest(rng)
                continue
        tp, uids = fleet.place(rng), names(rng.randint(1, 3))
        number = numbers.get(tp, 0)
        call = fleet.history.append(name, f"pid{producer['id']}", tp, uids, epoch=producer["epoch"])
        identity = {"id": producer["id"], "epoch": producer["epoch"], "sequence": number}
        headers = {f"headwater_producer_{part}": str(value) for part, value in identity.items()}

        async def send(_: str, tp: TP = tp, uids: list[str] = uids, headers: dict[str, str] = headers) -> Answer:
            return await _post_records(fleet, tp, uids, **headers)

        if await _settle(fleet, call, send, always=True) is None:
            producer = None
        else:
            numbers[tp] = number + len(uids)
        await fleet.rest(rng)


async def transactions(fleet: Fleet, name: str) -> None:
    """Transactions of one request: records of several partitions and a group's offsets, all or nothing."""
    rng, names = _rng(fleet, name), _names(name)
    tid = rng.choice(["shared", name])
    while not fleet.over():
        producer = (await ask(fleet, "POST", "/producers", {"transactional_id": tid})).body
        while producer is not None and "epoch" in producer and not fleet.over():
            sends = tuple((tp, tuple(names(rng.randint(1, 2)))) for tp in fleet.places(rng))
            marks = ((sends[0][0], rng.randint(0, 9)),)
            group = f"marks-{tid}"
            what = Transaction(
                producer=f"pid{producer['id']}", sends=sends, epoch=producer["epoch"], group=group, offsets=marks
            )
            call = fleet.history.invoke(name, what)
            body = {
                "producer": producer,
                "records": [{"topic": tp[0], "partition": tp[1], "value": uid} for tp, uids in sends for uid in uids],
                "offsets": [{"group": group, "offsets": [_place(tp, offset) for tp, offset in marks]}],
            }

            async def send(token: str, body: dict[str, Any] = body) -> Answer:
                return await ask(fleet, "POST", "/transactions", body | ({"token": token} if token else {}))

            done = await _settle(fleet, call, send)
            producer = done.body["producer"] if done is not None else None
            await fleet.rest(rng)
        await fleet.rest(rng)


async def long_transactions(fleet: Fleet, name: str) -> None:
    """Transactions of several requests, each served by whatever environment is there; some are given up half-way."""
    rng, names = _rng(fleet, name), _names(name)
    tid = rng.choice(["shared-long", name])
    while not fleet.over():
        await fleet.rest(rng)
        producer = (await ask(fleet, "POST", "/producers", {"transactional_id": tid})).body
        if producer is None or "epoch" not in producer:
            continue
        begun = await ask(fleet, "POST", "/transactions/begin", {"producer": producer, "timeout_ms": 60_000})
        if begun.status != 201:
            continue
        path = f"/transactions/{begun.body['transaction']}"
        sends = tuple((tp, tuple(names(rng.randint(1, 2)))) for tp in fleet.places(rng))
        marks = ((sends[0][0], rng.randint(0, 9)),)
        group = f"marks-{tid}"
        what = Transaction(
            producer=f"pid{producer['id']}", sends=sends, epoch=producer["epoch"], group=group, offsets=marks
        )
        call = fleet.history.invoke(name, what)
        added = True
        for tp, uids in sends:
            body: dict[str, Any] = {"records": [_record(tp, uid) for uid in uids]}
            if tp == sends[-1][0]:
                body["offsets"] = [{"group": group, "offsets": [_place(place, offset) for place, offset in marks]}]
            added = added and (await ask(fleet, "POST", f"{path}/records", body)).status == 204
            await fleet.rest(rng)
        if not added or rng.random() < 0.2:
            await ask(fleet, "POST", f"{path}/abort")
            fleet.history.fail(call, "Aborted")  # whatever became of that: nobody has asked for a commit
            continue

        async def send(_: str, path: str = path) -> Answer:
            return await ask(fleet, "POST", f"{path}/commit")

        await _settle(fleet, call, send, always=True, final=True)


async def _post_records(fleet: Fleet, tp: TP, uids: list[str], **headers: str) -> Answer:
    body = {"records": [{"value": uid} for uid in uids]}
    path = f"/topics/{tp[0]}/partitions/{tp[1]}/records"
    return await ask(fleet, "POST", path, body, content_type=JSON, **headers)


async def _settle(
    fleet: Fleet,
    call: int,
    send: Callable[[str], Awaitable[Answer]],
    *,
    always: bool = False,
    final: bool = False,
) -> Answer | None:
    """Send, and send again while nobody knows: under the token, or ``always`` if the request has a name of its own.

    With ``final`` a refusal says of all sendings that they did nothing. Answers what came back if it was done.
    """
    doubt, token, calm_tries = False, "", 0
    what = fleet.history.events[call].what
    assert isinstance(what, Append)
    for tries in range(TRIES + CALM_TRIES):
        answer = await send(token)
        if answer.status == 200:
            bases = {(row["topic"], row["partition"]): row["base_offset"] for row in answer.body["appended"]}
            fleet.history.ok(call, tuple(bases[tp] for tp, _ in what.sends))
            return answer
        doubt = answer.open or (doubt and (answer.again or not final))
        if token and answer.status == 504 and "nobody remembers" in answer.body["message"]:
            break  # R4: so many commits later there is no answer any more
        token = str((answer.body or {}).get("token") or token)
        calm_tries += fleet.calm
        if calm_tries == CALM_TRIES:
            fleet.broken.append(Violation("stuck", f"{what} does not succeed in the calm: {answer}"))
        patient = fleet.calm or tries < TRIES
        if not answer.again or not patient or (answer.open and not token and not always):
            break
        await fleet.loop.sleep(0.5)
    if doubt:
        fleet.history.unknown(call, str(answer.status))
    else:
        fleet.history.fail(call, str(answer.body.get("error")))
    return None


# -- who reads ------------------------------------------------------------------------------------------------


async def reader(fleet: Fleet, name: str) -> None:
    """Polls every partition from the start to wherever the log goes; sometimes seeks."""
    rng = _rng(fleet, name)
    places: dict[TP, int] = {}
    while not fleet.over():
        tp = fleet.place(rng)
        seek = rng.random() < 0.1
        start = rng.randint(0, places.get(tp, 0)) if seek else places.get(tp, 0)
        call = fleet.history.invoke(name, Read(reader=name, tp=tp, start=start, seek=seek))
        query = f"offset={start}&max_bytes={rng.choice([1, 300, 1 << 20])}&wait_ms={rng.choice([0, 200])}"
        path = f"/topics/{tp[0]}/partitions/{tp[1]}/records"
        answer = await ask(fleet, "GET", path, query=query, accept=JSON)
        if answer.status == 200:
            following = int(answer.headers["headwater-next-offset"])
            records = tuple((row["offset"], row["value"]) for row in answer.body)
            to_end = following == int(answer.headers["headwater-high-watermark"])
            fleet.history.ok(call, Got(records=records, next=following, to_end=to_end))
            places[tp] = following
        else:
            fleet.history.fail(call, str(answer.status))
        await fleet.rest(rng)


# -- who belongs to a group -----------------------------------------------------------------------------------


async def member(fleet: Fleet, name: str) -> None:
    """Joins, sends heartbeats and commits offsets; now and then it falls silent and goes on as a zombie."""
    rng, lives = _rng(fleet, name), 0
    while not fleet.over():
        lives += 1
        await _live(fleet, f"{name}-{lives}", rng)
        await fleet.rest(rng)


async def janitor(fleet: Fleet, name: str) -> None:
    """Asks for upkeep now and then, as the schedule does; it must harm nobody who is still at work."""
    rng = _rng(fleet, name)
    while not fleet.over():
        await ask(fleet, "POST", "/maintain")
        await fleet.rest(rng, 3.0)


async def _live(fleet: Fleet, me: str, rng: random.Random) -> None:
    """One life of a member, until its group has let go of it."""
    joining, released = True, tuple[TP, ...]()
    offset = rng.randint(0, 5)
    while not fleet.over():
        call = fleet.history.invoke(me, Beat(group=GROUP, member=me, owner=me, joining=joining, released=released))
        body = {"topics": [fleet.topic], "session_ms": SESSION_MS, "rebalance_ms": 20_000, "joining": joining}
        body["released"] = [{"topic": t, "partition": p} for t, p in released]
        answer = await ask(fleet, "POST", f"/groups/{GROUP}/members/{quote(me)}/heartbeat", body)
        if answer.status != 200:
            fleet.history.unknown(call, str(answer.status))
            if answer.status == 409:
                return
            await fleet.loop.sleep(0.5)
            continue
        joining = False
        owned = {(row["topic"], row["partition"]): row["generation"] for row in answer.body["owned"]}
        revoke = tuple((row["topic"], row["partition"]) for row in answer.body["revoke"])
        told = Told(generation=answer.body["generation"], owned=tuple(owned.items()))
        fleet.history.ok(call, told)
        fleet.told[me] = (fleet.loop.time(), tuple(owned))
        released = revoke
        for tp, since in owned.items():
            offset += rng.randint(1, 5)
            if not await _commit(fleet, me, tp, since, answer.body["epoch"], offset):
                break
        silent = not fleet.calm and rng.random() < 0.1
        await fleet.rest(rng, rng.uniform(1.0, 3.0) * SESSION_MS / 1_000 if silent else 1.0)


async def _commit(fleet: Fleet, me: str, tp: TP, since: int, epoch: int, offset: int) -> bool:
    what = OffsetCommit(group=GROUP, offsets=((tp, offset),), owner=me, generation=since, each=True)
    call = fleet.history.invoke(me, what)
    body = {"offsets": [_place(tp, offset)], "member": me, "generation": epoch}
    answer = await ask(fleet, "POST", f"/groups/{GROUP}/offsets", body)
    if answer.status in (200, 204):
        fleet.history.ok(call)
        return True
    if answer.open:
        fleet.history.unknown(call, str(answer.status))
    else:
        fleet.history.fail(call, str(answer.body.get("error")))
    return False


def _record(tp: TP, uid: str) -> dict[str, object]:
    return {"topic": tp[0], "partition": tp[1], "value": uid}


def _place(tp: TP, offset: int) -> dict[str, object]:
    return {"topic": tp[0], "partition": tp[1], "offset": offset}


def _rng(fleet: Fleet, name: str) -> random.Random:
    return random.Random(f"{fleet.plan.seed}-{name}")


def _names(name: str) -> Callable[[int], list[str]]:
    """Uids that nobody else gives out."""
    count = 0

    def take(n: int) -> list[str]:
        nonlocal count
        count += n
        return [f"{name}/{i}" for i in range(count - n, count)]

    return take
