"""What changes something: a form, a page that says what will happen, and only then the verb, which checks the right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from headwater.api.messages import Call, Response
from headwater.api.verbs import GroupOffset, GroupOffsets
from headwater.console.pages import Look
from headwater.console.render import base_of, redirect
from headwater.console.routing import form_at, whole
from headwater.console.signing import check_guard, form_of
from headwater.errors import InvalidRequest
from headwater.groups.describe import lag

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
    to = form.get("to", "")
    if to not in ("earliest", "latest", "offset"):
        raise InvalidRequest(f"Offsets are reset to earliest, latest or an offset, not to {to[:20]!r}.")
    rows = {row.partition: row for row in lag(look.state, name) if row.topic == topic.name}
    places, table, again, skipped = {}, [], 0, 0
    for number, part in enumerate(topic.partitions):
        target = {"earliest": part.start, "latest": part.stable_end}.get(to)
        if target is None:
            target = min(max(whole("offset", form.get("offset", "")), part.start), part.stable_end)
        known = rows[number].committed if number in rows else -1
        places[topic.name, number] = GroupOffset(offset=target)
        if known >= 0:
            again, skipped = again + max(0, known - target), skipped + max(0, target - known)
        table.append((f"partition {number}", f"{known:,}" if known >= 0 else "none", f"{target:,}"))
    plan = Plan(
        says=f"{again:,} records of topic {topic.name} will be read again by group {name}, and {skipped:,} will be "
        "passed over.",
        button="Reset the offsets",
        table=tuple(table[:1_000]),
    )
    if form.get("confirm") != "yes":
        return _ask(look, plan, f"Reset group {name} in topic {topic.name}?", form, f"groups/{quote(name, safe='')}")
    await look.service.commit_offsets(GroupOffsets(group=name, offsets=places))
    return redirect(f"{base_of(call.request)}/groups/{quote(name, safe='')}")


async def _believed(call: Call) -> tuple[Look, dict[str, str]]:
    form = form_of(call.request)
    check_guard(call.request, form)
    return await Look.of(call), form


def _ask(look: Look, plan: Plan, title: str, form: dict[str, str], back: str) -> Response:
    hidden = {name: value for name, value in form.items() if name not in ("guard", "confirm")}
    return look.page("confirm.html", here=back.partition("/")[0], title=title, plan=plan, hidden=hidden, back=back)


ROUTES: Final = (
    form_at("/topics/{topic}/produce", _produce, "Append one record"),
    form_at("/topics/{topic}/delete", _delete_topic, "Delete a topic"),
    form_at("/groups/{group}/delete", _delete_group, "Delete a group"),
    form_at("/groups/{group}/reset", _reset, "Reset a group's offsets"),
)
