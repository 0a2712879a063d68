"""What changes something: a form, a page that says what will happen, and only then the verb, which checks the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from headwater import words
from headwater.api.messages import Call, Response
from headwater.api.verbs import GroupOffset, GroupOffsets
from headwater.console import views
from headwater.console.pages import Look
from headwater.console.records import time_of
from headwater.console.render import base_of, past_of, redirect
from headwater.console.routing import form_at, whole
from headwater.console.signing import check_guard, form_of
from headwater.errors import Conflict, InvalidRequest, NotFound
from headwater.groups.describe import lag
from headwater.limits import CONSOLE_TIMED_PARTITIONS
from headwater.log.state import Topic

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is about to happen, in words: ``table`` is (what, now, then)."""

    says: str
    button: str
    table: tuple[tuple[str, str, str], ...] = ()


async def _produce(call: Call) -> Response:
    look, form = await _believed(call)
    topic = look.topic(call.parts["topic"])
    partition = whole("partition", form.get("partition", ""))
    key = form["key"].encode() if form.get("key") else None
    value = None if form.get("tombstone") == "1" else form.get("value", "").encode()
    from headwater.log.batch import encode_arrow

    rows = _record(key, value, look.now_ms)
    (done,) = await look.service.produce([(topic.name, partition, encode_arrow(rows))])
    where = f"topics/{quote(topic.name, safe='')}/messages?partition={partition}&from={done.base_offset}"
    return redirect(f"{base_of(call.request)}/{where}")


def _record(key: bytes | None, value: bytes | None, now_ms: int) -> pa.Table:
    import pyarrow as pa

    return pa.table(
        {
            "timestamp": pa.array([now_ms], pa.int64()).cast(pa.timestamp("ms", tz="UTC")),
            "key": pa.array([key], pa.binary()),
            "value": pa.array([value], pa.binary()),
        }
    )


async def _delete_topic(call: Call) -> Response:
    look, form = await _believed(call)
    topic = look.topic(call.parts["topic"])
    look.service.check("delete", "topic", topic.name)
    readers = sum(topic.id in group.offsets for group in look.state.groups.values())
    records = sum(part.stable_end - part.start for part in topic.partitions)
    plan = Plan(
        says=f"Topic {topic.name} and its {records:,} records in {len(topic.partitions):,} partitions will be gone for "
        f"every reader at once; {readers:,} groups have offsets in it. Its bytes go when their grace is over, and "
        "until then `as of` an earlier commit still shows it.",
        button="Delete the topic",
    )
    if form.get("confirm") != "yes":
        return _ask(look, plan, f"Delete topic {topic.name}?", form, f"topics/{quote(topic.name, safe='')}")
    await look.service.delete_topic(topic.name)
    return redirect(f"{base_of(call.request)}/topics")


async def _delete_group(call: Call) -> Response:
    look, form = await _believed(call)
    name = call.parts["group"]
    look.service.check("delete", "group", name)
    rows = lag(look.state, name)
    plan = Plan(
        says=f"Group {name} and its {len(rows):,} committed offsets will be gone. A consumer that comes back under "
        "this name begins where its auto.offset.reset says.",
        button="Delete the group",
    )
    if form.get("confirm") != "yes":
        return _ask(look, plan, f"Delete group {name}?", form, f"groups/{quote(name, safe='')}")
    await look.service.delete_group(name)
    return redirect(f"{base_of(call.request)}/groups")


async def _reset(call: Call) -> Response:
    look, form = await _believed(call)
    name, wanted = call.parts["group"], form.get("topic", "")
    topic = look.topic(wanted)
    look.service.check("read", "group", name)
    rows = {row.partition: row.committed for row in lag(look.state, name) if row.topic == topic.name}
    targets = await _targets(look, topic, form)
    plan = _reset_plan(name, topic, rows, targets)
    if form.get("confirm") != "yes":
        return _ask(look, plan, f"Reset group {name} in topic {topic.name}?", form, f"groups/{quote(name, safe='')}")
    places = {(topic.name, number): GroupOffset(offset=target) for number, target in enumerate(targets)}
    await look.service.commit_offsets(GroupOffsets(group=name, offsets=places))
    return redirect(f"{base_of(call.request)}/groups/{quote(name, safe='')}")


async def _targets(look: Look, topic: Topic, form: dict[str, str]) -> list[int]:
    """Where each partition would be read from, within what it has. A time costs a search in each partition."""
    to, parts = form.get("to", ""), topic.partitions
    if to == "earliest":
        return [part.start for part in parts]
    if to == "latest":
        return [part.stable_end for part in parts]
    if to == "offset":
        offset = whole("offset", form.get("offset", ""))
        return [min(max(offset, part.start), part.stable_end) for part in parts]
    if to != "time":
        raise InvalidRequest(f"Offsets are reset to earliest, latest, an offset or a time, not to {to[:20]!r}.")
    if len(parts) > CONSOLE_TIMED_PARTITIONS:
        raise InvalidRequest(
            f"Topic {topic.name} has more than {CONSOLE_TIMED_PARTITIONS} partitions, too many to search while a "
            "browser waits: use `headwater group reset --to TIME`."
        )
    when = time_of(form.get("time", "").strip())
    return [(await look.service.offset_of(topic.name, number, when)).offset for number in range(len(parts))]


def _reset_plan(name: str, topic: Topic, known: dict[int, int], targets: Sequence[int]) -> Plan:
    """Records are counted; bytes are those records at their partition's mean size, as stored."""
    table, again, skipped, size = [], 0, 0, 0.0
    for number, (part, target) in enumerate(zip(topic.partitions, targets, strict=True)):
        at = known.get(number, -1)
        if at >= 0:
            back = max(0, at - max(target, part.start))
            again, skipped = again + back, skipped + max(0, target - at)
            size += back * part.bytes / max(1, part.next)
        table.append((f"partition {number}", f"{at:,}" if at >= 0 else "none", f"{target:,}"))
    return Plan(
        says=f"{again:,} records of topic {topic.name}, about {words.size(round(size))} as stored, will be read again "
        f"by group {name}, and {skipped:,} will be passed over.",
        button="Reset the offsets",
        table=tuple(table[:1_000]),
    )


async def _abort(call: Call) -> Response:
    look, form = await _believed(call)
    pid, epoch = whole("producer", call.parts["producer"]), whole("epoch", form.get("epoch", ""))
    look.service.check("alter", "cluster")
    known = look.state.producers.get(pid)
    if known is None:
        raise NotFound(f"There is no producer {pid}.", producer=pid)
    if known.epoch != epoch or not known.is_busy:
        raise Conflict(f"The transaction of producer {pid}, epoch {epoch}, has ended meanwhile. Nothing was done.")
    name = known.tid or f"producer {pid}"
    held = views.held_by(look.state, pid)
    says = (
        f"{held.records:,} records of {name} in {len(held.places):,} partitions will never be visible; their offsets "
        f"stay empty, and readers that wait there go on. The offsets that it meant to commit for "
        f"{len(known.groups):,} groups stay where they are. {name} is fenced: its next request is refused, and it has "
        "to begin anew."
    )
    table = tuple((place, f"{count:,} records wait", "void") for place, count in held.places[:1_000])
    plan = Plan(says=says, button="Abort the transaction", table=table)
    if form.get("confirm") != "yes":
        return _ask(look, plan, f"Abort the transaction of {name}?", form, "transactions")
    await look.service.abort_producer(pid, epoch)
    return redirect(f"{base_of(call.request)}/transactions")


async def _believed(call: Call) -> tuple[Look, dict[str, str]]:
    past = past_of(call.request)
    if past is not None:
        raise InvalidRequest(f"This page shows commit {past}, and what was then does not change. Nothing was done.")
    form = form_of(call.request)
    check_guard(call.request, form)
    return await Look.of(call), form


def _ask(look: Look, plan: Plan, title: str, form: dict[str, str], back: str) -> Response:
    hidden = {name: value for name, value in form.items() if name not in ("guard", "confirm")}
    return look.page("confirm.html", here=back.partition("/")[0], title=title, plan=plan, hidden=hidden, back=back)


ROUTES: Final = (
    form_at("/topics/{topic}/produce", _produce, "Append one record"),
    form_at("/topics/{topic}/delete", _delete_topic, "Delete a topic"),
    form_at("/transactions/{producer}/abort", _abort, "Abort what a producer has open, and fence it"),
    form_at("/groups/{group}/delete", _delete_group, "Delete a group"),
    form_at("/groups/{group}/reset", _reset, "Reset a group's offsets"),
)
