"""Native routes of groups: members, offsets and lag."""

from __future__ import annotations

from collections.abc import Mapping

from headwater.api import asking, media, wire
from headwater.api.messages import Call, Response, Route
from headwater.api.routes import GROUPS, body_schema
from headwater.api.verbs import TP, GroupInfo, GroupOffset, Heartbeat, Lag


async def list_groups(call: Call) -> Response:
    """All groups."""
    return asking.ok({"groups": await call.verbs.groups()})


async def describe_group(call: Call) -> Response:
    """A group and its members."""
    return asking.ok(await call.verbs.group(call.parts["group"]))


async def delete_group(call: Call) -> Response:
    """Delete a group that has no members."""
    await call.verbs.delete_group(call.parts["group"])
    return asking.done()


async def lag_of_group(call: Call) -> Response:
    """The lag of one group."""
    return asking.ok({"lag": await call.verbs.lag(call.parts["group"])})


async def lag_of_all(call: Call) -> Response:
    """The lag of all groups."""
    return asking.ok({"lag": await call.verbs.lag()})


async def committed(call: Call) -> Response:
    """What a group has committed."""
    found = await call.verbs.committed(call.parts["group"])
    return asking.ok({"offsets": found or []})


async def commit_offsets(call: Call) -> Response:
    """Commit offsets for a group."""
    body = wire.request(call.request.body, wire.CommitOffsets)
    await call.verbs.commit_offsets(wire.group_offsets(call.parts["group"], body.offsets, body.member, body.generation))
    return asking.done()


async def delete_offsets(call: Call) -> Response:
    """Forget a group's offsets of some partitions."""
    body = wire.request(call.request.body, wire.DropOffsets)
    await call.verbs.delete_offsets(call.parts["group"], [(each.topic, each.partition) for each in body.partitions])
    return asking.done()


async def heartbeat(call: Call) -> Response:
    """Join a group, stay in it, and hear what the member owns."""
    body = wire.request(call.request.body or b"{}", wire.Beat)
    beat = await call.verbs.heartbeat(
        call.parts["group"],
        call.parts["member"],
        topics=body.topics,
        released=[(each.topic, each.partition) for each in body.released],
        instance=body.instance,
        assignor=body.assignor,
        session_ms=body.session_ms,
        rebalance_ms=body.rebalance_ms,
        client=body.client,
        joining=body.joining,
        renew=body.renew,
    )
    answer = wire.plain(beat)
    return asking.ok({**answer, "owned": answer["owned"] or []})


async def leave(call: Call) -> Response:
    """Leave a group."""
    await call.verbs.leave(call.parts["group"], call.parts["member"])
    return asking.done()


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        pattern="/groups",
        handler=list_groups,
        functions=GROUPS,
        summary="All groups",
        answer={"groups": list[GroupInfo]},
    ),
    Route(
        method="GET",
        pattern="/lag",
        handler=lag_of_all,
        functions=GROUPS,
        summary="The lag of all groups",
        answer={"lag": list[Lag]},
    ),
    Route(
        method="GET",
        pattern="/groups/{group}",
        handler=describe_group,
        functions=GROUPS,
        summary="A group and its members",
        answer=GroupInfo,
    ),
    Route(
        method="DELETE",
        pattern="/groups/{group}",
        handler=delete_group,
        functions=GROUPS,
        summary="Delete a group that has no members",
        codes=(204,),
    ),
    Route(
        method="GET",
        pattern="/groups/{group}/lag",
        handler=lag_of_group,
        functions=GROUPS,
        summary="A group's lag",
        answer={"lag": list[Lag]},
    ),
    Route(
        method="GET",
        pattern="/groups/{group}/offsets",
        handler=committed,
        functions=GROUPS,
        summary="What a group has committed",
        answer={"offsets": Mapping[TP, GroupOffset]},
    ),
    Route(
        method="POST",
        pattern="/groups/{group}/offsets",
        handler=commit_offsets,
        functions=GROUPS,
        summary="Commit offsets for a group; with members, in the name of one that owns the partitions",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.CommitOffsets),
        codes=(204,),
    ),
    Route(
        method="DELETE",
        pattern="/groups/{group}/offsets",
        handler=delete_offsets,
        functions=GROUPS,
        summary="Forget a group's offsets of some partitions",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.DropOffsets),
        codes=(204,),
    ),
    Route(
        method="POST",
        pattern="/groups/{group}/members/{member}/heartbeat",
        handler=heartbeat,
        functions=GROUPS,
        summary="Join a group, stay in it, and hear what the member owns",
        consumes=media.JSON_TYPES,
        schema=body_schema(wire.Beat),
        answer=Heartbeat,
    ),
    Route(
        method="DELETE",
        pattern="/groups/{group}/members/{member}",
        handler=leave,
        functions=GROUPS,
        summary="Leave a group",
        codes=(204,),
    ),
)
