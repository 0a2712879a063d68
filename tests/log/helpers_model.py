"""A second fold, as simple as can be: it copies everything, tries, and keeps the copy or throws it away.

Written from the design, not from the code, so that the two can disagree.
"""

from __future__ import annotations

import copy
import random
from typing import Any

from headwater.limits import INTENT_OPS_MAX, WINDOW
from headwater.log import operations as ops
from headwater.log.intents import Intent, Manifest
from headwater.log.state import State
from tests.log.helpers_groups import GroupModel, group_ops, seen_group, seen_rules
from tests.log.helpers_refusal import No

SEQUENCES = 2**31
EPOCH_LAST = 2**15 - 2
IDLE_MS = 7 * 86_400_000


class Model(GroupModel):
    """Everything is a plain dict or list. A partition is a list of ranges ``[base, count, kind, pid]``."""

    def __init__(self) -> None:
        super().__init__()
        self.seq = 0
        self.time = 0
        self.floor = 0
        self.next_topic = 1
        self.next_pid = 1
        self.topics: dict[int, dict[str, Any]] = {}
        self.producers: dict[int, dict[str, Any]] = {}
        self.used: list[int] = []  # producer ids, the one used longest ago first
        self.answers: dict[str, tuple[int, tuple[Any, ...]]] = {}

    def apply(self, manifest: Manifest) -> list[tuple[Any, ...]]:
        self.seq, self.time = manifest.seq, max(self.time, manifest.time)
        found = [self._decide(intent) for intent in manifest.intents]
        self.settle()
        while self.used:
            oldest = self.producers[self.used[0]]
            if self._busy(self.used[0]) or oldest["last"] + IDLE_MS >= self.time:
                break
            self._forget(self.used[0])
        return found

    def _decide(self, intent: Intent) -> tuple[Any, ...]:
        seq, answer = self.answers.get(intent.id, (-WINDOW, ()))
        if seq > self.seq - WINDOW:
            return answer
        if not intent.tip < self.seq <= intent.tip + WINDOW:
            return (self.seq, "late", [], {})
        if intent.after and self.answers.get(intent.after, (-WINDOW, ()))[0] <= self.seq - WINDOW:
            return (self.seq, "early", [], {})
        before = copy.deepcopy({k: v for k, v in self.__dict__.items() if k != "answers"})
        try:
            answer = (self.seq, "", *self._attempt(intent))
        except No as refused:
            self.__dict__.update(before)
            answer = (self.seq, str(refused), [], {})
        self.answers[intent.id] = (self.seq, answer)
        return answer

    def _attempt(self, intent: Intent) -> tuple[list[int], dict[str, int]]:
        done = self.done_once(intent)
        if done is not None:
            return done
        self.values: dict[str, int] = {}
        self.reserve: ops.Reserve | None = None
        self.ending = -1
        self.ending_how: tuple[int, int, str] | None = None
        self.touched: list[int] = []
        for op in intent.ops:
            getattr(self, f"_{type(op).__name__}")(op)
        bases = [self._append(chunk) for chunk in intent.appends]
        if self.ending >= 0:
            if self.ending not in self.producers:
                raise No("invalid")
            self._bump(self.ending, self.ending_how)
        for pid in self.touched:
            if pid in self.producers:
                self.producers[pid]["last"] = self.time
                self.used.remove(pid)
                self.used.append(pid)
        self.note_once(intent, bases, self.values)
        return bases, self.values

    # -- appends ----------------------------------------------------------------------------------

    def _part(self, topic: int, partition: int) -> dict[str, Any]:
        if topic not in self.topics:
            raise No("no_topic")
        if partition >= len(self.topics[topic]["parts"]):
            raise No("no_partition")
        return self.topics[topic]["parts"][partition]

    def _append(self, chunk: ops.Chunk) -> int:
        part = self._part(chunk.topic, chunk.partition)
        if chunk.obj and int(chunk.obj.split("/")[1].split("-")[0]) < self.floor:
            raise No("gone")
        if self.reserve is not None and chunk.pid != self.reserve.pid:
            raise No("invalid")
        base = sum(r[1] for r in part["ranges"])
        if chunk.pid >= 0:
            known = self.producers.get(chunk.pid, {"again": False, "epoch": 0})
            older = known["again"] and self.reserve is None and chunk.seq >= 0 and chunk.epoch < known["epoch"]
            producer = known if older else self._fence(chunk.pid, chunk.epoch)
            self.touched.append(chunk.pid)
            if chunk.seq >= 0:
                first = self._sequence(producer, chunk, base)
                if first is not None:
                    return first
        if self.reserve is not None:
            part["ranges"].append([base, chunk.count, "held", chunk.pid])
            self.producers[chunk.pid]["open"].add((chunk.topic, chunk.partition))
            self.producers[chunk.pid]["ended"] = None
        else:
            part["ranges"].append([base, chunk.count, "open", -1])
        return base

    def _sequence(self, producer: dict[str, Any], chunk: ops.Chunk, base: int) -> int | None:
        place = (chunk.topic, chunk.partition)
        epoch, batches = producer["sequences"].get(place, (-1, []))
        if epoch > chunk.epoch:
            raise No("fenced")
        if epoch < chunk.epoch:
            gone = any(t not in self.topics and p == chunk.partition for t, p in producer["sequences"])
            if chunk.seq and (batches or not (gone or producer["again"])):
                raise No("out_of_order")
            producer["sequences"][place] = (chunk.epoch, [(chunk.seq, chunk.count, base)])
            return None
        for first, count, placed in batches[-5:]:
            if (first, count) == (chunk.seq, chunk.count):
                return placed
        if chunk.seq != (batches[-1][0] + batches[-1][1]) % SEQUENCES:
            raise No("out_of_order")
        batches.append((chunk.seq, chunk.count, base))
        return None

    # -- producers ----------------------------------------------------------------------------------

    def _fence(self, pid: int, epoch: int) -> dict[str, Any]:
        if pid not in self.producers:
            raise No("unknown_producer")
        current = self.producers[pid]["epoch"]
        if epoch != current:
            raise No("fenced" if epoch < current else "invalid")
        return self.producers[pid]

    def _busy(self, pid: int) -> bool:
        """Whether it holds anything. A group that was deleted under a transaction leaves it as busy as it was."""
        return bool(self.producers[pid]["open"] or self.producers[pid]["groups"])

    def _new(self, tid: str, timeout: int = 0) -> int:
        pid = self.next_pid
        self.next_pid += 1
        self.producers[pid] = {
            "epoch": 0, "tid": tid, "sequences": {}, "open": set(), "deadline": 0, "last": self.time,
            "groups": [], "timeout": timeout, "ended": None, "steps": 0, "again": False,
        }  # fmt: skip
        self.used.append(pid)
        return pid

    def _forget(self, pid: int) -> None:
        del self.producers[pid]
        self.used.remove(pid)

    def _bump(self, pid: int, ended: tuple[int, int, str] | None = None) -> None:
        producer = self.producers[pid]
        if self._busy(pid):
            raise No("invalid")
        if producer["epoch"] < EPOCH_LAST:
            producer["epoch"] += 1
        else:
            self._forget(pid)
            pid = self._new(producer["tid"], producer["timeout"])
        self.producers[pid]["ended"] = ended
        self._answer(pid)

    def _answer(self, pid: int) -> None:
        self.touched.append(pid)
        self.values.update(pid=pid, epoch=self.producers[pid]["epoch"])

    def _close(self, pid: int, kind: str) -> None:
        for topic in self.topics.values():
            for part in topic["parts"]:
                for found in part["ranges"]:
                    if found[2:] == ["held", pid]:
                        found[2:] = [kind, -1]
        self.producers[pid].update(open=set(), groups=[], deadline=0)
        self.end_offsets(pid, kind == "open")

    def _owner(self, tid: str) -> int:
        return next((pid for pid, p in self.producers.items() if tid and p["tid"] == tid), -1)

    def _InitProducer(self, op: ops.InitProducer) -> None:  # noqa: N802 - named after its operation
        if op.again:
            self._init_again(op)
            return
        owner = self._owner(op.tid) if op.tid else op.pid
        if owner < 0 and op.pid >= 0:
            raise No("unknown_producer")
        if owner < 0:
            pid = self._new(op.tid, op.timeout_ms)
            self.values.update(pid=pid, epoch=0)
            return
        if op.pid >= 0:
            if op.pid != owner:
                raise No("fenced")
            self._fence(owner, op.epoch)
        self._close(owner, "gap")
        self.producers[owner]["timeout"] = op.timeout_ms
        self._bump(owner, (op.pid, op.epoch, "renew") if op.pid >= 0 else None)

    def _init_again(self, op: ops.InitProducer) -> None:
        if not 0 <= op.epoch <= EPOCH_LAST:
            raise No("invalid")
        if op.pid in self.producers and self.producers[op.pid]["tid"]:
            self._fence(op.pid, op.epoch)
        elif op.pid in self.producers:
            self.producers[op.pid].update(epoch=max(op.epoch, self.producers[op.pid]["epoch"]), again=True)
        elif op.tid or not 0 <= op.pid < self.next_pid:
            raise No("unknown_producer")
        else:
            following, self.next_pid = self.next_pid, op.pid
            self.producers[self._new("")].update(epoch=op.epoch, again=True)
            self.next_pid = following
        self._answer(op.pid)

    def _EndTransaction(self, op: ops.EndTransaction) -> None:  # noqa: N802
        self._fence(op.pid, op.epoch)
        self._end_with(op.pid, None)

    def _end_with(self, pid: int, how: tuple[int, int, str] | None) -> None:
        if self.ending not in (-1, pid):
            raise No("invalid")
        self.ending, self.ending_how = pid, how

    def _Reserve(self, op: ops.Reserve) -> None:  # noqa: N802
        producer = self._fence(op.pid, op.epoch)
        self.reserve = op
        if not self._busy(op.pid):
            producer["deadline"] = self.time + self._bound(producer, op.timeout_ms)

    def _bound(self, producer: dict[str, Any], timeout: int) -> int:
        return timeout if not producer["timeout"] or producer["timeout"] > timeout else int(producer["timeout"])

    def _ReserveOffsets(self, op: ops.ReserveOffsets) -> None:  # noqa: N802
        producer = self._fence(op.pid, op.epoch)
        if op.after >= 0 and op.after != producer["steps"]:
            raise No("stale")
        if not self._busy(op.pid):
            producer["deadline"] = self.time + self._bound(producer, op.timeout_ms)
        self.reserve_offsets(op.offsets, op.pid)
        if op.offsets.group not in producer["groups"]:
            producer["groups"].append(op.offsets.group)
        producer["ended"] = None
        producer["steps"] += 1
        self.touched.append(op.pid)

    def _EndReserve(self, op: ops.EndReserve) -> None:  # noqa: N802
        producer = self._fence(op.pid, op.epoch)
        how = "commit" if op.commit else "abort"
        before = self.ending_how if self.ending == op.pid else producer["ended"]
        begun = op.brings or self._busy(op.pid) or (self.reserve is not None and self.reserve.pid == op.pid)
        if not begun and before is not None and before[:2] == (op.pid, op.epoch):
            if before[2] != how:
                raise No("ended")
            self._answer(op.pid)
            return
        if op.after >= 0 and op.after != producer["steps"]:
            raise No("stale")
        producer["steps"] += 1
        self._close(op.pid, "open" if op.commit else "gap")
        if op.bump:
            self._end_with(op.pid, (op.pid, op.epoch, how))
        else:
            producer["ended"] = (op.pid, op.epoch, how)
            self._answer(op.pid)

    def _ExpireReserve(self, op: ops.ExpireReserve) -> None:  # noqa: N802
        producer = self.producers.get(op.pid)
        if producer is None or not self._busy(op.pid) or self.time < producer["deadline"]:
            raise No("not_expired")
        self._close(op.pid, "gap")
        self._bump(op.pid)

    # -- topics -------------------------------------------------------------------------------------

    def _topic(self, topic: int) -> dict[str, Any]:
        if topic not in self.topics:
            raise No("no_topic")
        return self.topics[topic]

    def _CreateTopic(self, op: ops.CreateTopic) -> None:  # noqa: N802
        if any(topic["name"] == op.name for topic in self.topics.values()):
            raise No("exists")
        parts = [{"start": 0, "ranges": []} for _ in range(op.partitions)]
        self.topics[self.next_topic] = {"name": op.name, "config": dict(op.config), "parts": parts}
        self.values["topic"] = self.next_topic
        self.touched_topics.add(op.name)
        self.next_topic += 1

    def _DeleteTopic(self, op: ops.DeleteTopic) -> None:  # noqa: N802
        self.touched_topics.add(self._topic(op.topic)["name"])
        del self.topics[op.topic]

    def _AddPartitions(self, op: ops.AddPartitions) -> None:  # noqa: N802
        parts = self._topic(op.topic)["parts"]
        if op.total <= len(parts):
            raise No("invalid")
        self.touched_topics.add(self.topics[op.topic]["name"])
        parts.extend({"start": 0, "ranges": []} for _ in range(op.total - len(parts)))

    def _AlterTopic(self, op: ops.AlterTopic) -> None:  # noqa: N802
        config = self._topic(op.topic)["config"]
        config.update(op.config)
        for name in [name for name, value in config.items() if value is None]:
            del config[name]

    def _TrimLog(self, op: ops.TrimLog) -> None:  # noqa: N802
        part = self._part(op.topic, op.partition)
        if op.before > stable_end(part):
            raise No("out_of_range")
        part["start"] = max(part["start"], op.before)

    def _RaiseFloor(self, op: ops.RaiseFloor) -> None:  # noqa: N802
        if op.floor > self.seq:
            raise No("invalid")
        self.floor = max(self.floor, op.floor)

    # -- as plain data, to be compared -----------------------------------------------------------------

    def seen(self) -> dict[str, Any]:
        return {
            "topics": {
                topic: {
                    "name": found["name"],
                    "config": found["config"],
                    "parts": [
                        {
                            "start": part["start"],
                            "next": sum(r[1] for r in part["ranges"]),
                            "stable": stable_end(part),
                            "ranges": [tuple(r[:3]) for r in part["ranges"] if r[2] != "held"],
                            "held": [(r[0], r[1], r[3]) for r in part["ranges"] if r[2] == "held"],
                        }
                        for part in found["parts"]
                    ],
                }
                for topic, found in self.topics.items()
            },
            "producers": [
                (
                    pid,
                    self.producers[pid]["epoch"],
                    self.producers[pid]["tid"],
                    self.producers[pid]["last"],
                    sorted(self.producers[pid]["open"]),
                    *(
                        self.producers[pid][name]
                        for name in ("groups", "deadline", "timeout", "ended", "steps", "again")
                    ),
                    {place: (e, b[-5:]) for place, (e, b) in self.producers[pid]["sequences"].items()},
                )
                for pid in self.used
            ],
            "groups": self.seen_groups(),
            "rules": self.seen_rules(),
            "floor": self.floor,
        }


def stable_end(part: dict[str, Any]) -> int:
    return next((r[0] for r in part["ranges"] if r[2] == "held"), sum(r[1] for r in part["ranges"]))


def seen(state: State) -> dict[str, Any]:
    """The real state in the same form. Its tails hold everything, since nothing was sealed."""
    return {
        "topics": {
            topic.id: {
                "name": topic.name,
                "config": topic.config,
                "parts": [
                    {
                        "start": part.start,
                        "next": part.next,
                        "stable": part.stable_end,
                        "ranges": [(e.base, e.count, "gap" if e.codec == "gap" else "open") for e in part.tail],
                        "held": sorted((h.entry.base, h.entry.count, h.pid) for h in part.held),
                    }
                    for part in topic.partitions
                ],
            }
            for topic in state.topics.values()
        },
        "producers": [
            (
                pid,
                producer.epoch,
                producer.tid,
                producer.last_ms,
                sorted(producer.open),
                producer.groups,
                producer.deadline_ms,
                producer.timeout_ms,
                (producer.ended.pid, producer.ended.epoch, producer.ended.how) if producer.ended else None,
                producer.steps,
                producer.again,
                {
                    (topic, partition): (known.epoch, known.batches)
                    for topic, places in producer.sequences.items()
                    for partition, known in places.items()
                },
            )
            for pid, producer in state.producers.items()
        ],
        "groups": {name: seen_group(group) for name, group in state.groups.items()},
        "rules": seen_rules(state),
        "floor": state.floor,
    }


# -- what to try --------------------------------------------------------------------------------------


class Maker:
    """Makes intents that are mostly, but by no means always, what a well-behaved client would send."""

    def __init__(self, rng: random.Random, model: Model) -> None:
        self.rng = rng
        self.model = model
        self.made: list[Intent] = []

    def intent(self) -> Intent:
        rng, seq = self.rng, self.model.seq
        if len(self.made) < 3:
            acts = [ops.CreateTopic(name="abc"[len(self.made)], partitions=3), ops.InitProducer(tid="x")]
            self.made.append(Intent(id=f"id-{len(self.made)}", tip=seq, ops=acts))
            return self.made[-1]
        if rng.random() < 0.06:
            return rng.choice(self.made[-40:])  # a repetition, perhaps a late one
        tip = seq if rng.random() < 0.95 else rng.choice([max(seq - WINDOW, 0), max(seq + 1 - WINDOW, 0), seq + 1, 0])
        acts = [self._op() for _ in range(rng.choice([0, 0, 0, 1, 1, 1, 1, 1, 2, 3]))]
        appends = [self._chunk() for _ in range(rng.choice([0, 1, 1, 2, 3]))]
        late = [*self.made[-40:], Intent(id="nobody", tip=0)] if len(self.made) % 8 == 0 else []
        after = rng.choice(late).id if late else ""
        made = Intent(id=f"id-{len(self.made)}", tip=tip, appends=appends, ops=acts, after=after)
        self.made.append(made)
        return made

    def _topic(self) -> int:
        known = sorted(self.model.topics)
        return self.rng.choice(known if known and self.rng.random() < 0.96 else [1, 2, 9])

    def _producer(self) -> tuple[int, int]:
        rng = self.rng
        known = sorted(self.model.producers)[-4:]
        pid = rng.choice(known if known and rng.random() < 0.96 else [1, 7])
        epoch = self.model.producers.get(pid, {"epoch": 0})["epoch"]
        return pid, min(max(0, epoch + rng.choice([0] * 30 + [-1, -1, 1])), 2**15 - 1)

    def _chunk(self) -> ops.Chunk:
        rng = self.rng
        topic, partition, count = self._topic(), rng.choice([0, 0, 0, 0, 0, 1, 2]), rng.choice([1, 1, 2, 5])
        fields: dict[str, Any] = {}
        if rng.random() < 0.6:
            fields["pid"], fields["epoch"] = self._producer()
            if rng.random() < 0.7:
                known = self.model.producers.get(fields["pid"], {"sequences": {}})["sequences"]
                epoch, batches = known.get((topic, partition), (-1, []))
                fields["seq"] = rng.choice([0, 0, 0, 0, 0, 7])
                if epoch == fields["epoch"]:
                    first, count = batches[-1][:2]
                    fields["seq"] = (first + count) % SEQUENCES
                    if rng.random() < 0.3:  # one sent before: of the last five, or older, or nonsense
                        fields["seq"], count = rng.choice([*batches[-6:], (rng.randrange(9), 1, 0)])[:2]
        tip = rng.choice([self.model.floor, *[self.model.seq] * 8, 0])
        return ops.Chunk(
            topic=topic,
            partition=partition,
            count=count,
            codec="arrow",
            pos=50_000,
            len=10,
            crc=1,
            min=0,
            max=9,
            obj=rng.choice(["", f"segment/{tip:020d}-w-1"]),
            **fields,
        )

    def _reserve_offsets(self, pid: int, epoch: int, topic: int, partition: int) -> ops.AnyOp:
        """Offsets of a transaction, mostly by somebody who may move them."""
        made = group_ops(self.rng, self.model, topic, partition)
        commits = [op for op in made if isinstance(op, ops.CommitOffsets)]
        return ops.ReserveOffsets(
            pid=pid,
            epoch=epoch,
            timeout_ms=self.rng.choice([0, 5, 1_000]),
            offsets=self.rng.choice(commits),
            after=self._after(pid),
        )

    def _after(self, pid: int) -> int:
        steps = self.model.producers.get(pid, {"steps": 0})["steps"]
        return self.rng.choice([-1, steps, steps, steps, max(0, steps - 1)])

    def _op(self) -> ops.AnyOp:
        rng = self.rng
        pid, epoch = self._producer()
        topic, partition = self._topic(), rng.choice([0, 0, 0, 0, 1, 2])
        bare = rng.random() < 0.5
        return rng.choice(
            [
                ops.CreateTopic(name=rng.choice("abcd"), partitions=rng.choice([1, 2, 3]), config={"k": "1"}),
                ops.CreateTopic(name=rng.choice("abcd"), partitions=rng.choice([1, 2, 3])),
                ops.DeleteTopic(topic=topic),
                ops.AddPartitions(topic=topic, total=rng.choice([1, 2, 3, 4])),
                ops.AlterTopic(topic=topic, config={"k": rng.choice([None, "2"]), "l": rng.choice([None, "3"])}),
                ops.TrimLog(topic=topic, partition=partition, before=rng.choice([0, 1, 2, 5, 50])),
                *[
                    ops.InitProducer(tid=rng.choice(["", "", "x", "y"]), timeout_ms=rng.choice([0, 0, 7]))
                    for _ in range(3)
                ],
                ops.InitProducer(
                    tid=self.model.producers.get(pid, {"tid": "x"})["tid"],
                    pid=-1 if bare else pid,
                    epoch=-1 if bare else epoch,
                ),
                ops.InitProducer(
                    tid=rng.choice(["", "", "", "", "x"]),
                    pid=rng.randrange(-1, self.model.next_pid + 1),
                    epoch=rng.choice([-1, 0, 0, epoch, *[min(epoch + 1, 2**15 - 1)] * 2]),
                    again=True,
                ),
                *[ops.EndTransaction(pid=pid, epoch=epoch)] * 2,
                *[ops.Reserve(pid=pid, epoch=epoch, timeout_ms=rng.choice([0, 5, 1_000]))] * 3,
                *[
                    ops.EndReserve(
                        pid=pid,
                        epoch=epoch,
                        commit=rng.random() < 0.6,
                        bump=rng.random() < 0.5,
                        after=self._after(pid),
                        brings=rng.random() < 0.2,
                    )
                    for _ in range(3)
                ],
                *[self._reserve_offsets(pid, epoch, topic, partition) for _ in range(3)],
                *[ops.ExpireReserve(pid=pid)] * 2,
                ops.RaiseFloor(floor=rng.choice([self.model.seq, self.model.seq // 2, self.model.seq + 9])),
                *group_ops(rng, self.model, topic, partition),
            ]
        )


assert INTENT_OPS_MAX > 3
