"""Groups: members, committed offsets, and how far behind they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headwater.api.names import check_name, check_places, check_topic
from headwater.api.offsets import offsets_op
from headwater.api.service_base import verb
from headwater.api.service_write import WriteVerbs, check_offsets
from headwater.api.verbs import TP, GroupInfo, GroupOffset, GroupOffsets, Heartbeat, Lag
from headwater.errors import InvalidRequest
from headwater.groups import describe
from headwater.limits import REBALANCE_MS, SESSION_MS, SUBSCRIBED_MAX
from headwater.log import operations as ops


class GroupVerbs(WriteVerbs):
    """The verbs of groups."""

    @verb
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
        from headwater.groups.coordinator import Coordinator

        _check_member(group, member)
        check_places(released)
        if len(topics or ()) > SUBSCRIBED_MAX:
            raise InvalidRequest(f"A member subscribes to at most {SUBSCRIBED_MAX} topics, not {len(topics or ())}.")
        for topic in topics or ():
            check_topic(topic)
        await self.enter()
        self.check("read", "group", group)
        for topic in topics or ():
            self.check("read", "topic", topic)
        return await self._space.shared(Coordinator).heartbeat(
            group,
            member,
            topics=topics,
            released=released,
            instance=instance,
            assignor=assignor,
            session_ms=session_ms,
            rebalance_ms=rebalance_ms,
            client=client,
            joining=joining,
            renew=renew,
        )

    @verb
    async def leave(self, group: str, member: str) -> None:
        from headwater.groups.coordinator import Coordinator

        _check_member(group, member)
        await self.enter()
        self.check("read", "group", group)
        await self._space.shared(Coordinator).leave(group, member)

    @verb
    async def commit_offsets(self, offsets: GroupOffsets) -> None:
        check_offsets([offsets])
        await self.enter()
        self._check_writes((), [offsets])
        if offsets.offsets:
            await self._space.writer.commit(ops=[await offsets_op(self._space, offsets)])

    @verb
    async def committed(self, group: str) -> Mapping[TP, GroupOffset]:
        check_name("group's name", group)
        await self.enter()
        self.check("describe", "group", group)
        return {
            place: GroupOffset(offset=known.offset, metadata=known.metadata, committed_ms=known.time_ms)
            for place, known in (await self._space.committed(group)).items()
            if self.may("describe", "topic", place[0])
        }

    @verb
    async def groups(self) -> Sequence[GroupInfo]:
        await self.enter()
        state = await self._space.refresh()
        return [
            describe.group_info(state, name) for name in sorted(state.groups) if self.may("describe", "group", name)
        ]

    @verb
    async def group(self, name: str) -> GroupInfo:
        check_name("group's name", name)
        await self.enter(fresh=True)
        self.check("describe", "group", name)
        return describe.group_info(self._state, name)

    @verb
    async def lag(self, group: str | None = None) -> Sequence[Lag]:
        if group is not None:
            check_name("group's name", group)
        await self.enter(fresh=True)
        if group is not None:
            self.check("describe", "group", group)
        return [
            row
            for row in describe.lag(self._state, group)
            if self.may("describe", "group", row.group) and self.may("describe", "topic", row.topic)
        ]

    @verb
    async def delete_group(self, name: str) -> None:
        check_name("group's name", name)
        await self.enter()
        self.check("delete", "group", name)
        await self._change(ops.DeleteGroup(group=name), "delete", "group", name)

    @verb
    async def delete_offsets(self, group: str, partitions: Sequence[TP]) -> None:
        check_name("group's name", group)
        check_places(partitions)
        if not partitions:
            raise InvalidRequest("There is nothing to delete: name at least one partition.")
        await self.enter()
        self.check("delete", "group", group)
        for topic in {topic for topic, _ in partitions}:
            self.check("read", "topic", topic)
        places = sorted({((await self._space.find_topic(topic)).id, partition) for topic, partition in partitions})
        op = ops.DeleteOffsets(group=group, partitions=places)
        await self._change(op, "delete_offsets", "group", group, partitions=sorted(set(partitions)))


def _check_member(group: str, member: str) -> None:
    check_name("group's name", group)
    check_name("member id", member)
