"""The second fold's groups, keys and rules: as simple as can be, and written from the design.

Only the assignors are shared with the real fold: they are pure, and have tests of their own.
"""

from __future__ import annotations

import random
from typing import Any

from headwater.log import operations as ops
from headwater.log.intents import Intent
from headwater.log.state import Group, Member, State, assignors
from tests.log.helpers_refusal import No

ONCE_MS = 3_600_000
WINDOW = 512


def new_group(time: int) -> dict[str, Any]:
    return {
        "kind": "",
        "generation": 0,
        "members": {},
        "offsets": {},
        "pending": [],
        "emptied": time,
        "phase": "empty",
        "type": "",
        "protocol": "",
        "leader": "",
        "delayed": False,
        "deadline": 0,
    }


class GroupModel:
    """The half of the naive fold that the log's other half does not need."""

    seq: int
    time: int
    topics: dict[int, dict[str, Any]]
    groups: dict[str, dict[str, Any]]

    def __init__(self) -> None:
        self.groups = {}
        self.touched_groups: dict[str, bool] = {}
        self.touched_topics: set[str] = set()
        self.rules: set[ops.AclRule] = set()
        self.keys: dict[str, tuple[str, str, int]] = {}
        self.quotas: dict[str, tuple[int, int, int]] = {}
        self.scram: dict[tuple[str, str], tuple[str, int, str, str]] = {}
        self.once: dict[str, tuple[str, int, tuple[Any, ...]]] = {}
        self.departures: list[tuple[int, str, str]] = []  # (manifest, group, member)

    # -- at the end of a manifest -----------------------------------------------------------------

    def settle(self) -> None:
        for name, group in self.groups.items():
            if any(self.touched_topics & set(m["topics"]) for m in group["members"].values()):
                self.touched_groups[name] = True
        for name, anew in self.touched_groups.items():
            group = self.groups.get(name)
            if group is None:
                continue
            if group["kind"] == "classic":
                here = [m["joined"] for m in group["members"].values()]
                if group["phase"] == "preparing" and not group["delayed"] and here and all(here):
                    self._complete(group)
            elif group["phase"] == "preparing" and any(is_awaited(m) for m in group["members"].values()):
                for m in group["members"].values():
                    m["epoch"] = m["epoch"] if m["revoking"] else group["generation"]
            else:
                if anew or group["phase"] == "preparing":
                    group["generation"] += 1
                    group["target"] = self._target(group)
                begun = anew or group["phase"] == "preparing"
                group.update(phase="empty", deadline=0)
                self._reconcile(group, begun)
                for m in group["members"].values():
                    if m.get("spoken", 0) < 0:
                        m.update(spoken=group["generation"], told=set(m["owned"]), told_seq=self.seq)
        self.touched_groups, self.touched_topics = {}, set()
        self.departures = [left for left in self.departures if left[0] >= self.seq - WINDOW]
        self.once = {k: d for k, d in self.once.items() if d[1] + ONCE_MS >= self.time or d[2][0] + WINDOW >= self.seq}

    def _target(self, group: dict[str, Any]) -> dict[str, set[tuple[int, int]]]:
        members = [
            Member(
                id=name,
                instance=m["instance"],
                topics=m["topics"],
                assignor=m.get("assignor", ""),
                owned=nested(m["owned"]),
                protocols=m.get("protocols", []),
            )
            for name, m in group["members"].items()
        ]
        if not members:
            return {}
        wanted = {name for m in members for name in m.topics}
        topics = {t["name"]: (id_, len(t["parts"])) for id_, t in self.topics.items() if t["name"] in wanted}
        before = {name: nested(dict.fromkeys(places, 0)) for name, places in group.get("target", {}).items()}
        return {n: set(p) for n, p in assignors.assign(assignors.chosen(members), members, topics, before).items()}

    def _reconcile(self, group: dict[str, Any], begun: bool) -> None:
        targets = group.get("target", {})
        for name, m in group["members"].items():
            target = targets.get(name, set())
            for side in ("owned", "revoking"):
                m[side] = {place: since for place, since in m[side].items() if place[0] in self.topics}
            for place in [place for place in m["owned"] if place not in target]:
                m["revoking"][place] = m["owned"].pop(place)
            if not m["revoking"]:
                m["revoking_ms"] = 0
            elif not m["revoking_ms"]:
                m["revoking_ms"] = self.time
        taken = {p for m in group["members"].values() for side in ("owned", "revoking") for p in m[side]}
        ready = {name: m for name, m in group["members"].items() if not m["revoking"]}
        granted = [(m, place) for name, m in ready.items() for place in sorted(targets.get(name, set()) - taken)]
        group["generation"] += bool(granted) and not begun
        for m in ready.values():
            m["epoch"] = group["generation"]
        for m, place in granted:
            m["owned"][place] = group["generation"]

    # -- offsets ----------------------------------------------------------------------------------

    def _group(self, name: str) -> dict[str, Any]:
        if name not in self.groups:
            raise No("no_group")
        return self.groups[name]

    def _made(self, name: str, kind: str = "") -> dict[str, Any]:
        group = self.groups.setdefault(name, new_group(self.time))
        if kind and group["kind"] != kind:
            if group["members"]:
                raise No("group_kind")
            group["kind"] = kind
        return group

    def _member(self, group: str, member: str, kind: str = "") -> dict[str, Any]:
        if member not in self.groups.get(group, {"members": {}})["members"]:
            raise No("unknown_member")
        if kind and self.groups[group]["kind"] != kind:
            raise No("group_kind")
        return self.groups[group]["members"][member]

    def _comes_late(self, op: ops.JoinGroup | ops.JoinClassic) -> None:
        left = [seq for seq, group, member in self.departures if (group, member) == (op.group, op.member)]
        if op.as_of >= 0 and (op.as_of < self.seq - WINDOW or any(seq > op.as_of for seq in left)):
            raise No("unknown_member")

    def _put(self, group: str, old: str, new: str, member: dict[str, Any]) -> None:
        if old != new and old in self.groups[group]["members"]:
            self.departures.append((self.seq, group, old))
        _put(self.groups[group], old, new, member)

    def _part(self, topic: int, partition: int) -> dict[str, Any]:
        raise NotImplementedError

    def _CommitOffsets(self, op: ops.CommitOffsets) -> None:  # noqa: N802
        group = self._movable(op)
        for entry in op.offsets:
            self._move(group, (entry.topic, entry.partition), entry.offset, entry.metadata, self.seq)

    def _move(self, group: dict[str, Any], place: tuple[int, int], offset: int, metadata: str, said: int) -> None:
        """The group's place moves, and whoever had said something else before is too late."""
        group["offsets"][place] = (offset, metadata, self.time)
        group["pending"] = [p for p in group["pending"] if p["place"] != place or p["seq"] > said]

    def reserve_offsets(self, op: ops.CommitOffsets, pid: int) -> None:
        group = self._made(op.group) if op.generation < 0 and not op.member else self._movable(op, transactional=True)
        for entry in op.offsets:
            self._part(entry.topic, entry.partition)
        for entry in op.offsets:
            place = (entry.topic, entry.partition)
            group["pending"] = [p for p in group["pending"] if (p["pid"], p["place"]) != (pid, place)]
            new = {"pid": pid, "place": place, "offset": entry.offset, "metadata": entry.metadata, "seq": self.seq}
            group["pending"].append(new)

    def end_offsets(self, pid: int, commit: bool) -> None:
        for group in self.groups.values():
            mine = [p for p in group["pending"] if p["pid"] == pid]
            group["pending"] = [p for p in group["pending"] if p["pid"] != pid]
            for p in mine:
                if commit and self._exists(*p["place"]):
                    self._move(group, p["place"], p["offset"], p["metadata"], p["seq"])

    def _exists(self, topic: int, partition: int) -> bool:
        return topic in self.topics and partition < len(self.topics[topic]["parts"])

    def _movable(self, op: ops.CommitOffsets, transactional: bool = False) -> dict[str, Any]:
        group = self._made(op.group)
        if not group["members"]:
            if op.generation >= 0:
                raise No("fenced")
        elif op.member not in group["members"] or not 0 <= op.generation <= group["generation"]:
            raise No("fenced")
        elif trusts(group, group["members"][op.member]):
            spoken = group["members"][op.member].get("spoken", 0)
            if op.generation != (group["generation"] if group["kind"] == "classic" else spoken):
                raise No("fenced")
            if group["phase"] == "completing" and not transactional:
                raise No("rebalancing")
        else:
            mine = group["members"][op.member]
            held = {**mine["owned"], **mine["revoking"]}
            if any(held.get((e.topic, e.partition), 2**62) > op.generation for e in op.offsets):
                raise No("fenced")
        for entry in op.offsets:
            self._part(entry.topic, entry.partition)
        return group

    def _DeleteOffsets(self, op: ops.DeleteOffsets) -> None:  # noqa: N802
        group = self._group(op.group)
        names = {self.topics[topic]["name"] for topic, _ in op.partitions if topic in self.topics}
        for m in group["members"].values():
            if names and ((m.get("protocols") and not m["portable"]) or names & set(m["topics"])):
                raise No("group_busy")
        for place in op.partitions:
            group["offsets"].pop(tuple(place), None)
            group["pending"] = [p for p in group["pending"] if p["place"] != tuple(place)]

    def _ExpireOffsets(self, op: ops.ExpireOffsets) -> None:  # noqa: N802
        group = self._group(op.group)
        since = self.time - op.idle_ms
        idle = not group["members"] and group["emptied"] <= since
        kept = {
            place: known
            for place, known in group["offsets"].items()
            if place[0] in self.topics and not (idle and known[2] <= since)
        }
        if idle and not kept and not group["pending"]:
            del self.groups[op.group]
        elif len(kept) == len(group["offsets"]):
            raise No("not_expired")
        else:
            group["offsets"] = kept

    def _DeleteGroup(self, op: ops.DeleteGroup) -> None:  # noqa: N802
        if self._group(op.group)["members"]:
            raise No("group_busy")
        del self.groups[op.group]

    # -- members, KIP-848 -------------------------------------------------------------------------

    def _JoinGroup(self, op: ops.JoinGroup) -> None:  # noqa: N802
        self._comes_late(op)
        former = self.groups.get(op.group)
        if former is not None and former["kind"] == "classic" and former["members"] and op.epoch < 0:
            self._promote(former)
        group = self._made(op.group, "consumer")
        if op.epoch >= 0 and self._member(op.group, op.member).get("protocols"):
            raise No("group_kind")
        if op.assignor and op.assignor not in assignors.NAMES:
            raise No("invalid")
        old, known = _place_of(group, op.member, op.instance)
        made = {
            "instance": op.instance,
            "topics": sorted(set(op.topics)),
            "assignor": op.assignor,
            "owned": known["owned"] if known else {},
            "revoking": known["revoking"] if known else {},
            "revoking_ms": known["revoking_ms"] if known else 0,
            "epoch": known["epoch"] if known else 0,
        }
        if old in group.get("target", {}) and old != op.member:
            group["target"][op.member] = group["target"].pop(old)
        self._put(op.group, old, op.member, made)
        same = known is not None and all(known.get(name, "") == made[name] for name in ("topics", "assignor"))
        self.touched_groups[op.group] = self.touched_groups.get(op.group, False) or not same

    def _ReleasePartitions(self, op: ops.ReleasePartitions) -> None:  # noqa: N802
        member = self._member(op.group, op.member, "consumer")
        for place in map(tuple, op.partitions):
            if op.epoch < 0 or member["revoking"].get(place, 0) <= op.epoch:
                member["revoking"].pop(place, None)
        if not member["revoking"]:
            member["revoking_ms"] = 0  # what it is told to revoke later has a time of its own
        self.touched_groups.setdefault(op.group, False)

    def _LeaveGroup(self, op: ops.LeaveGroup) -> None:  # noqa: N802
        self._member(op.group, op.member)
        group = self.groups[op.group]
        del group["members"][op.member]
        self.departures.append((self.seq, op.group, op.member))
        group["emptied"] = self.time
        if group["kind"] == "classic":
            self._classic_left(group)
        elif group["kind"] == "consumer":
            self._demote(group)
        self.touched_groups[op.group] = True

    # -- members of both protocols in one group ------------------------------------------------------

    def _promote(self, group: dict[str, Any]) -> None:
        if group["type"] != "consumer" or not all(m["portable"] for m in group["members"].values()):
            raise No("group_kind")
        for m in group["members"].values():
            m.update(spoken=m.get("spoken", 0) or group["generation"], owned={}, revoking={}, revoking_ms=0)
            m.update(epoch=m.get("epoch", 0))
        group.update(kind="consumer", generation=group["generation"] + 1, leader="", protocol="")
        self._prepare(group, 0)

    def _demote(self, group: dict[str, Any]) -> None:
        if not group["members"]:
            group["phase"] = "empty"
        elif all(m.get("protocols") for m in group["members"].values()):
            for m in group["members"].values():
                m["spoken"] = max(0, m["spoken"])
            group.update(kind="classic", target={})
            self._prepare(group, 0)

    def _join_mixed(self, op: ops.JoinClassic, group: dict[str, Any]) -> None:
        if op.protocol_type != "consumer" or op.topics is None:
            raise No("group_kind")
        old, known = _place_of(group, op.member, op.instance)
        others = [m for name, m in group["members"].items() if name not in (op.member, old) and m.get("protocols")]
        names = [{name for name, _ in m["protocols"]} for m in others]
        if others and group["type"] != "consumer":
            raise No("inconsistent_protocol")
        if not {name for name, _ in op.protocols}.intersection(*names):
            raise No("inconsistent_protocol")
        made = classic_member(op, owned={}, revoking={}, revoking_ms=0, epoch=0, spoken=-1)
        claims = set(map(tuple, op.claims))
        if known is not None and is_awaited(known):
            taken = {place for m in group["members"].values() for place in m["owned"]}
            made["owned"] = {p: group["generation"] for p in sorted(claims - taken) if self._exists(*p)}
            made["epoch"] = group["generation"]
        elif known is not None:
            made["owned"], made["epoch"] = known["owned"], known["epoch"]
            stays = set(known["revoking"]) if 0 <= op.as_of < known.get("told_seq", 0) else claims
            made["revoking"] = {place: since for place, since in known["revoking"].items() if place in stays}
            made["revoking_ms"] = known["revoking_ms"] if made["revoking"] else 0
        if old in group.get("target", {}) and old != op.member:
            group["target"][op.member] = group["target"].pop(old)
        group["type"] = "consumer"
        same = known is not None and known["topics"] == made["topics"] and not is_awaited(known)
        self._put(op.group, old, op.member, made)
        self._demote(group)
        self.touched_groups[op.group] = self.touched_groups.get(op.group, False) or not same

    # -- members, classic -------------------------------------------------------------------------

    def _JoinClassic(self, op: ops.JoinClassic) -> None:  # noqa: N802
        self._comes_late(op)
        mixed = self.groups.get(op.group)
        if mixed is not None and mixed["kind"] == "consumer" and mixed["members"]:
            self._join_mixed(op, mixed)
            return
        group = self._made(op.group, "classic")
        old, known = _place_of(group, op.member, op.instance)
        others = [m for name, m in group["members"].items() if name not in (op.member, old)]
        names = [{name for name, _ in m["protocols"]} for m in others]
        if others and group["type"] != op.protocol_type:
            raise No("inconsistent_protocol")
        if not {name for name, _ in op.protocols}.intersection(*names):
            raise No("inconsistent_protocol")
        group["type"] = op.protocol_type
        first = not group["members"]
        again = op.member in group["members"]
        if known is not None and group["leader"] == old:
            group["leader"] = op.member
        made = classic_member(op, assignment=known["assignment"] if known else "")
        self._put(op.group, old, op.member, made)
        self.touched_groups[op.group] = True
        if group["phase"] == "preparing":
            return
        kept = again if group["phase"] == "completing" else not again or group["leader"] != op.member
        if known is not None and known["protocols"] == made["protocols"] and kept:
            return
        self._prepare(group, op.delay_ms if first else 0)
        made["joined"] = True

    def _prepare(self, group: dict[str, Any], delay: int) -> None:
        classic = [m for m in group["members"].values() if m.get("protocols")]
        wait = delay or max(m["rebalance"] for m in classic)
        group.update(phase="preparing", delayed=delay > 0, deadline=self.time + wait)
        for m in classic:
            m["joined"] = False

    def _complete(self, group: dict[str, Any]) -> None:
        members = group["members"]
        common = set.intersection(*({name for name, _ in m["protocols"]} for m in members.values()))
        votes = [next(name for name, _ in m["protocols"] if name in common) for m in members.values()]
        group["protocol"] = min(set(votes), key=lambda name: (-votes.count(name), name))
        if not members.get(group["leader"], {"joined": False})["joined"]:
            group["leader"] = [*[n for n, m in members.items() if m["joined"]], *members][0]
        deadline = self.time + max(m["rebalance"] for m in members.values())
        group.update(generation=group["generation"] + 1, phase="completing", delayed=False, deadline=deadline)
        for m in members.values():
            m.update(assignment="", owned={}, revoking={}, revoking_ms=0, epoch=0, spoken=0, told=set())

    def _classic_left(self, group: dict[str, Any]) -> None:
        if not group["members"]:
            group.update(phase="empty", leader="", protocol="", delayed=False, deadline=0)
            group["generation"] += 1
        elif group["phase"] != "preparing":
            self._prepare(group, 0)

    def _EndJoin(self, op: ops.EndJoin) -> None:  # noqa: N802
        group = self._group(op.group)
        if group["phase"] not in ("preparing", "completing") or group["generation"] != op.generation:
            raise No("stale")
        if self.time < group["deadline"]:
            raise No("not_expired")
        if group["phase"] == "completing":
            del group["members"][group["leader"]]
            group["emptied"] = self.time
            self._classic_left(group)
            self.touched_groups[op.group] = True
            return
        if group["kind"] == "consumer":
            group["members"] = {n: m for n, m in group["members"].items() if not is_awaited(m)}
            group["emptied"] = group["emptied"] if group["members"] else self.time
            self._demote(group)
            self.touched_groups[op.group] = True
            return
        group["members"] = {n: m for n, m in group["members"].items() if m["joined"] or m["instance"]}
        if group["members"]:
            self._complete(group)
        else:
            group["emptied"] = self.time
            self._classic_left(group)

    def _SyncClassic(self, op: ops.SyncClassic) -> None:  # noqa: N802
        self._member(op.group, op.member, "classic")
        group = self.groups[op.group]
        if group["generation"] != op.generation:
            raise No("fenced")
        if group["phase"] == "preparing":
            raise No("rebalancing")
        if group["leader"] != op.member:
            raise No("invalid")
        if group["phase"] == "completing":
            group.update(phase="stable", deadline=0)
            for name, m in group["members"].items():
                m["assignment"] = op.assignments.get(name, "")

    # -- rules, keys, quotas, once ----------------------------------------------------------------

    def _ChangeAcls(self, op: ops.ChangeAcls) -> None:  # noqa: N802
        self.rules = (self.rules | set(op.add)) - set(op.remove)

    def _SetKey(self, op: ops.SetKey) -> None:  # noqa: N802
        if op.key in self.keys:
            raise No("exists")
        self.keys[op.key] = (op.hash, op.principal, self.time)

    def _RevokeKey(self, op: ops.RevokeKey) -> None:  # noqa: N802
        if op.key not in self.keys:
            raise No("no_key")
        del self.keys[op.key]

    def _SetQuota(self, op: ops.SetQuota) -> None:  # noqa: N802
        self.quotas.pop(op.principal, None)
        wish = (op.produce_bytes_per_s, op.fetch_bytes_per_s, op.requests_per_s)
        if wish != (-1, -1, -1):
            self.quotas[op.principal] = wish

    def _SetScram(self, op: ops.SetScram) -> None:  # noqa: N802
        self.scram[op.user, op.mechanism] = (op.salt, op.iterations, op.stored_key, op.server_key)

    def _DropScram(self, op: ops.DropScram) -> None:  # noqa: N802
        if (op.user, op.mechanism) not in self.scram:
            raise No("no_user")
        del self.scram[op.user, op.mechanism]

    def _Once(self, op: ops.Once) -> None:  # noqa: N802
        """Looked at before and after all others."""

    def done_once(self, intent: Intent) -> tuple[list[int], dict[str, int]] | None:
        wish = next((op for op in intent.ops if isinstance(op, ops.Once)), None)
        if wish is None or wish.key not in self.once:
            return None
        request, _, (first, bases, values) = self.once[wish.key]
        if request != wish.request:
            raise No("key_reused")
        return bases, {**values, "first": first}

    def note_once(self, intent: Intent, bases: list[int], values: dict[str, int]) -> None:
        for wish in intent.ops:
            if isinstance(wish, ops.Once):
                self.once[wish.key] = (wish.request, self.time, (self.seq, bases, values))
                return

    def seen_groups(self) -> dict[str, Any]:
        shown = ("kind", "generation", "emptied", "phase", "type", "protocol", "leader", "delayed", "deadline")
        empty = {"instance": "", "topics": [], "owned": {}, "revoking": {}, "revoking_ms": 0, "epoch": 0}
        empty |= {"protocols": [], "joined": False, "assignment": "", "spoken": 0, "told": set()}
        return {
            name: {
                **{field: g[field] for field in shown},
                "offsets": g["offsets"],
                "pending": sorted((p["pid"], p["place"], p["offset"], p["metadata"], p["seq"]) for p in g["pending"]),
                "members": [
                    (n, {side: m.get(side, what) for side, what in empty.items()}) for n, m in g["members"].items()
                ],
            }
            for name, g in self.groups.items()
        }

    def seen_rules(self) -> list[Any]:
        departed = {f"{len(group)}:{group}{member}": seq for seq, group, member in self.departures}
        return [sorted(self.rules), self.keys, self.quotas, self.scram, list(self.once), departed]


def classic_member(op: ops.JoinClassic, **more: Any) -> dict[str, Any]:
    return {
        "instance": op.instance,
        "topics": sorted(set(op.topics or ())),
        "protocols": list(op.protocols),
        "rebalance": op.rebalance_ms,
        "joined": True,
        "assignment": "",
        "portable": op.topics is not None,
        **more,
    }


def is_awaited(member: dict[str, Any]) -> bool:
    """Whether a classic member is still to join again."""
    return bool(member.get("protocols")) and not member["joined"]


def trusts(group: dict[str, Any], member: dict[str, Any]) -> bool:
    """Whether only the members know what is whose."""
    if group["kind"] == "classic":
        return member["joined"] or not member.get("spoken", 0)
    return is_awaited(member)


def _place_of(group: dict[str, Any], member: str, instance: str) -> tuple[str, dict[str, Any] | None]:
    """Whose place a joining member takes: its own, its instance's, or a new one."""
    if member in group["members"]:
        return member, group["members"][member]
    for name, known in group["members"].items():
        if instance and known["instance"] == instance:
            return name, known
    return member, None


def _put(group: dict[str, Any], old: str, new: str, member: dict[str, Any]) -> None:
    names = [*group["members"]] if old in group["members"] else [*group["members"], old]
    known = {**group["members"], old: member}
    group["members"] = {(new if name == old else name): known[name] for name in names}


def nested(places: dict[tuple[int, int], int]) -> dict[int, dict[int, int]]:
    made: dict[int, dict[int, int]] = {}
    for (topic, partition), since in places.items():
        made.setdefault(topic, {})[partition] = since
    return made


def flat(places: dict[int, dict[int, int]]) -> dict[tuple[int, int], int]:
    return {(topic, partition): since for topic, found in places.items() for partition, since in found.items()}


def seen_group(group: Group) -> dict[str, Any]:
    """The real group in the model's form."""
    return {
        "kind": group.kind,
        "generation": group.generation,
        "emptied": group.emptied_ms,
        "phase": group.phase,
        "type": group.protocol_type,
        "protocol": group.protocol,
        "leader": group.leader,
        "delayed": group.delayed,
        "deadline": group.deadline_ms,
        "offsets": {
            (topic, partition): (c.offset, c.metadata, c.time_ms)
            for topic, places in group.offsets.items()
            for partition, c in places.items()
        },
        "pending": sorted(
            (pid, (topic, partition), p.offset, p.metadata, p.seq)
            for pid, topics in group.pending.items()
            for topic, places in topics.items()
            for partition, p in places.items()
        ),
        "members": [
            (
                name,
                {
                    "instance": m.instance,
                    "topics": m.topics,
                    "owned": flat(m.owned),
                    "revoking": flat(m.revoking),
                    "revoking_ms": m.revoking_ms,
                    "epoch": m.epoch,
                    "protocols": m.protocols,
                    "joined": m.joined,
                    "assignment": m.assignment,
                    "spoken": m.generation,
                    "told": {(topic, partition) for topic, places in m.told.items() for partition in places},
                },
            )
            for name, m in group.members.items()
        ],
    }


def seen_rules(state: State) -> list[Any]:
    return [
        state.acls,
        {name: (key.hash, key.principal, key.created_ms) for name, key in state.keys.items()},
        {n: (q.produce_bytes_per_s, q.fetch_bytes_per_s, q.requests_per_s) for n, q in state.quotas.items()},
        {
            (user, mechanism): (known.salt, known.iterations, known.stored_key, known.server_key)
            for user, entries in state.scram.items()
            for mechanism, known in entries.items()
        },
        list(state.once),
        state.departed,
    ]


def group_ops(rng: random.Random, model: GroupModel, topic: int, partition: int) -> list[ops.AnyOp]:
    """Operations on groups, keys and rules that have a fair chance of being applied."""
    group = rng.choice(["g", "h"])
    known = model.groups.get(group, new_group(0))
    member = rng.choice([*known["members"]] * 2 + ["m", "n", "o"])
    instance = rng.choice(["", "", "i"])
    generation = rng.choice([known["generation"] if known["members"] else -1] * 4 + [-1, 0, known["generation"] - 1])
    mine = known["members"].get(member, {})
    places = list(mine.get("revoking") or mine.get("owned") or [(topic, partition)])
    entries = [ops.OffsetEntry(*rng.choice([*places, (topic, partition)]), rng.randrange(9)) for _ in range(2)]
    rule = ops.AclRule(rng.choice("pq"), "read", "topic", rng.choice("ab"))
    joins: list[ops.AnyOp] = [
        ops.JoinGroup(
            group=rng.choice("ggh"),
            member=member,
            topics=rng.sample("abcd", rng.randint(0, 3)),
            epoch=rng.choice([-1, -1, 0]),
            instance=instance,
            assignor=rng.choice(["", "range", "roundrobin", "sticky", "none"]),
            as_of=rng.choice([-1, max(0, model.seq - rng.randrange(9))]),
        )
        for _ in range(3)
    ]
    joins += [
        ops.JoinClassic(
            group=rng.choice("gh"),
            member=member,
            protocol_type=rng.choice(["consumer", "consumer", "connect"]),
            protocols=rng.choice([[("a", "x"), ("b", "y")], [("b", "y")], [("a", "x")]]),
            instance=instance,
            rebalance_ms=rng.choice([1, 1_000]),
            delay_ms=rng.choice([0, 0, 5]),
            as_of=rng.choice([-1, max(0, model.seq - rng.randrange(9))]),
            topics=rng.choice([None, *[rng.sample("abcd", rng.randint(0, 3))] * 5]),
            claims=rng.choice([[], places, places[:1], [(topic, partition)]]),
        )
        for _ in range(3)
    ]
    return [
        *joins,
        *[ops.CommitOffsets(group=group, offsets=entries, generation=generation, member=member)] * 3,
        *[ops.CommitOffsets(group=group, offsets=entries)] * 2,
        ops.ReleasePartitions(group=group, member=member, partitions=places),
        ops.ReleasePartitions(group=group, member=member, partitions=places[:1], epoch=generation),
        ops.LeaveGroup(group=group, member=member),
        ops.EndJoin(group=group, generation=rng.choice([known["generation"]] * 3 + [0])),
        *[
            ops.SyncClassic(
                group=group,
                member=rng.choice([known["leader"] or "m", member]),
                generation=known["generation"],
                assignments={member: "z"},
            )
        ]
        * 2,
        ops.DeleteOffsets(group=group, partitions=[(topic, partition)]),
        ops.ExpireOffsets(group=group, idle_ms=rng.choice([0, 1_000])),
        ops.DeleteGroup(group=group),
        ops.ChangeAcls(add=[rule], remove=rng.choice([[], [rule]])),
        ops.SetKey(key=rng.choice(["key1", "key2"]), hash="0" * 64, principal="p"),
        ops.RevokeKey(key=rng.choice(["key1", "key2"])),
        ops.SetQuota(principal="p", requests_per_s=rng.choice([-1, 5])),
        scram_op(rng.choice("uv"), rng.choice([4_096, 8_192]), rng.choice("AB")),
        ops.DropScram(user=rng.choice("uv"), mechanism="SCRAM-SHA-256"),
        *[ops.Once(key=rng.choice("kl"), request=rng.choice("xxxy"))] * 2,
    ]


def scram_op(user: str = "u", iterations: int = 4_096, letter: str = "A") -> ops.SetScram:
    """A password for SCRAM-SHA-256, as far as the log knows of it."""
    key = letter * 43 + "="
    return ops.SetScram(
        user=user, mechanism="SCRAM-SHA-256", salt="c2FsdA==", iterations=iterations, stored_key=key, server_key=key
    )
