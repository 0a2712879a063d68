"""The clients of a fault run: producers, transactional workers, and groups of readers of both protocols.

Each goes on as an application would: it repeats what may be repeated for as long as ``PATIENCE_S``, aborts what must be
aborted, and begins a new life (which fences the old one) where the client says that it cannot go on, or says nothing.

The latter is librdkafka's (2.16.0): a TxnOffsetCommit that waits at a coordinator which the client gives up, because it
is gone from the metadata or because the client begins anew from ``bootstrap.servers``, ends unheard, and no timer ends
``send_offsets_to_transaction`` (librdkafka's issues 5511 and 5456). No gateway can; who supervises an application does.

Readers store the offsets of what they have been given, and leave none of that to librdkafka: as one closes it commits
past records that it has fetched and given to nobody, if a control batch lies behind them (CONFORMANCE.md).
"""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from headwater.clock import stopwatch_s
from tests.kafka.helpers_checker import History, Owned, Place, Polled, Sent, Told
from tests.kafka.helpers_fault_diary import Diary

PARTITIONS = 2
WORKED = 1_000_000  # transaction t turns n into n + t * WORKED, so that each attempt has values of its own
TRANSACTION_S = 20.0  # of the workers' transactions, and their messages
SESSION_S = 10.0  # of members of the classic protocol
CALL_S = 20.0  # how long a transactional call may take, if the client keeps to it
HUNG_S = 2 * CALL_S  # one that has not come back after so long never will
PATIENCE_S = 60.0  # a call that may be repeated is repeated for so long
BACKLOG_MAX = 2_000  # orders that are not worked yet: producers wait for the workers, so that a long run ends, too
# While gateways die, a transaction may move its offsets at the end of patience, be refused its commit at the end of
# patience, and be aborted at the end of patience: each is patience and one last call. Its member lives meanwhile, so
# the group waits for it with the other worker's partition as well, and orders wait for the workers (BACKLOG_MAX).
STALLED_S = 3 * (PATIENCE_S + CALL_S)
# When one message times out librdkafka gives itself a new epoch, and sends under it what may have arrived under the old
# one, too (rd_kafka_idemp_drain_epoch_bump): duplicates that no broker can tell. So none is to time out in a run that
# is not at a standstill for longer than it may be.
MESSAGE_MS = int(2 * STALLED_S * 1_000)
# While none dies: a call that hangs, then the transaction that it leaves open and the member that it leaves behind,
# each up to its time-out, and as much again as those two on a machine that runs other tests.
STILL_S = HUNG_S + 2 * (TRANSACTION_S + SESSION_S)
DRAIN_S = 300.0  # the bound of a drain that does go on
CLASSIC, NEXT = "readers", "readers-next"  # groups: the classic protocol, and that of KIP-848
MIXED = "readers-mixed"  # … and one whose members change from one to the other, life by life
FAULT_S = float(os.environ.get("HEADWATER_FAULT_S", "20"))
READERS = (CLASSIC, NEXT, MIXED) if FAULT_S >= 600 else (CLASSIC, NEXT)  # a short run changes a protocol once or twice
KINDS = ("ordered", "worked", *(f"read by {group}" for group in READERS))
_SESSION: dict[str, Any] = {"session.timeout.ms": int(SESSION_S * 1_000)}
_CLASSIC = {CLASSIC: _SESSION, MIXED: {**_SESSION, "partition.assignment.strategy": "cooperative-sticky"}}
_NEXT: dict[str, Any] = {"group.protocol": "consumer"}


class Hung(Exception):
    """A call of a client has not come back long after its time."""


class Clients:
    """Clients that write down what they did and saw."""

    def __init__(self, history: History, bootstrap: str) -> None:
        self.history = history
        self.bootstrap = bootstrap
        self.diary = Diary()
        self.errors: list[str] = []
        self._producing, self._running = threading.Event(), threading.Event()
        self._numbers = iter(range(WORKED))
        self._lock = threading.Lock()
        self._ordered, self._begun = [0] * PARTITIONS, [0] * PARTITIONS  # offsets: acknowledged, come to workers
        self._assignments = iter(range(1, 1 << 30))
        self._attempts = iter(range(1, 1 << 30))
        self._zones = itertools.cycle((1, 2, 3))  # of the two gateways', and one that has none
        jobs: dict[str, Callable[[str], None]] = {
            **dict.fromkeys(("p1", "p2"), self._produce),
            **dict.fromkeys(("w1", "w2"), self._work),
            **dict.fromkeys(("c1", "c2", "c3"), lambda name: self._consume(name, CLASSIC)),
            **dict.fromkeys(("n1", "n2", "n3"), lambda name: self._consume(name, NEXT)),
            **(dict.fromkeys(("m1", "m2"), lambda name: self._consume(name, MIXED)) if MIXED in READERS else {}),
        }
        self.threads = [
            threading.Thread(target=self._guarded, args=(job, name), name=name, daemon=True)
            for name, job in jobs.items()
        ]

    def start(self) -> None:
        """All of them begin."""
        self._producing.set()
        self._running.set()
        self.diary.start(KINDS)
        for thread in self.threads:
            thread.start()

    def stop_producing(self) -> None:
        """No more orders."""
        self._producing.clear()

    def stop(self) -> None:
        """All of them end; who does not stays in ``threads``, alive."""
        self._producing.clear()
        self._running.clear()
        end_s = stopwatch_s() + PATIENCE_S
        for thread in self.threads:
            thread.join(max(0.0, end_s - stopwatch_s()))

    def _guarded(self, job: Callable[[str], None], name: str) -> None:
        """Run a client; what breaks it breaks the test."""
        try:
            job(name)
            self.diary.step(name, "has ended")
        except Exception as error:
            self.diary.step(name, "is broken")
            self.errors.append(f"{name}: {error!r}")

    def _config(self, **more: Any) -> dict[str, Any]:
        return {
            "bootstrap.servers": self.bootstrap,
            "socket.timeout.ms": 5_000,
            "log_level": 0,
            "reconnect.backoff.max.ms": 500,
            "topic.metadata.refresh.interval.ms": 1_000,
            "client.id": f"zone=zone-{next(self._zones)}",
            **more,
        }

    # -- producers ---------------------------------------------------------------------------------------

    def _produce(self, name: str) -> None:
        """An idempotent producer of numbers; a new one where it says that it cannot go on."""
        life = 0
        while self._producing.is_set():
            life += 1
            self._order(name, life)

    def _order(self, name: str, life: int) -> None:
        fatal = threading.Event()
        producer = Producer(
            self._config(**{"enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": MESSAGE_MS}),
        )
        self.diary.step(name, f"produces, life {life}")
        while self._producing.is_set() and not fatal.is_set():
            if sum(self._ordered) - sum(self._begun) > BACKLOG_MAX:
                producer.poll(0.1)
                continue
            with self._lock:
                number = next(self._numbers)
            place = ("orders", number % PARTITIONS)
            sent = Sent(f"{name}.{life}", place, number)

            def told(error: Any, message: Any, sent: Sent = sent) -> None:
                if error is None:
                    sent.offset = self._ordered[sent.place[1]] = message.offset()
                    self.diary.did("ordered", 1)
                    return
                self.diary.met(name, error)
                if error.fatal():
                    fatal.set()

            self.history.sent.append(sent)
            producer.produce(place[0], str(number).encode(), partition=place[1], on_delivery=told)
            producer.poll(0.01)
        self.diary.step(name, "flushes")
        if left := producer.flush(PATIENCE_S * 1.5):
            self.diary.met(name, f"{left} orders were neither delivered nor given up")

    # -- consume, process, produce -----------------------------------------------------------------------

    def _work(self, name: str) -> None:
        """A transactional worker: exactly once from orders to done, whatever happens to it."""
        life = 0
        while self._running.is_set():
            life += 1
            consumer = Consumer(
                self._config(
                    **{
                        "group.id": "workers",
                        "enable.auto.commit": False,
                        "auto.offset.reset": "earliest",
                        "isolation.level": "read_committed",
                        "session.timeout.ms": int(SESSION_S * 1_000),
                    }
                )
            )
            timeout_ms = int(TRANSACTION_S * 1_000)
            producer = Producer(self._config(**{"transactional.id": name, "transaction.timeout.ms": timeout_ms}))
            try:
                self._live_to_work(name, life, consumer, producer)
            except (KafkaException, Hung) as error:
                self.diary.met(name, error)  # begin again, with a new life that fences this one
            finally:
                self.diary.step(name, f"closes, life {life}")
                consumer.close()

    def _live_to_work(self, name: str, life: int, consumer: Consumer, producer: Producer) -> None:
        self._repeated(name, f"init_transactions, life {life}", lambda: producer.init_transactions(CALL_S))
        consumer.subscribe(["orders"])
        while self._running.is_set():
            self._transaction(name, f"{name}.{life}", consumer, producer)

    def _transaction(self, worker: str, name: str, consumer: Consumer, producer: Producer) -> None:
        self.diary.step(worker, f"consumes as {name}")
        messages = [each for each in consumer.consume(50, timeout=0.3) if each.error() is None]
        if not messages:
            return
        for message in messages:
            self._begun[message.partition()] = message.offset()
        attempt = next(self._attempts)
        transaction = f"{name}@{messages[0].partition()}:{messages[0].offset()}/{attempt}"
        self.history.ends[transaction] = ""
        producer.begin_transaction()
        for message in messages:
            number = int(message.value() or b"") + attempt * WORKED
            sent = Sent(name, ("done", message.partition()), number, transaction=transaction)
            self.history.sent.append(sent)
            producer.produce("done", str(number).encode(), partition=message.partition())
        places = {each.partition(): each.offset() + 1 for each in messages}
        offsets = [TopicPartition("orders", partition, offset) for partition, offset in places.items()]
        try:
            member = consumer.consumer_group_metadata()
            move = f"send_offsets of {transaction}"
            self._repeated(worker, move, lambda: producer.send_offsets_to_transaction(offsets, member, CALL_S))
            self._repeated(worker, f"commit of {transaction}", lambda: producer.commit_transaction(CALL_S))
            self.history.ends[transaction] = "commit"
            self.diary.did("worked", len(messages))
        except KafkaException as error:
            if not error.args[0].txn_requires_abort():
                raise
            self.diary.met(worker, error)
            self._repeated(worker, f"abort of {transaction}", lambda: producer.abort_transaction(CALL_S))
            self.history.ends[transaction] = "abort"
            raise  # what was read is read again, from the committed offsets

    def _repeated(self, worker: str, what: str, call: Callable[[], Any]) -> None:
        """Call, and again for as long as the client says that this may help and patience lasts."""
        self.diary.step(worker, what)
        end_s = stopwatch_s() + PATIENCE_S
        while True:
            try:
                _done_in_time(what, call)
                return
            except KafkaException as error:
                if not error.args[0].retriable() or stopwatch_s() > end_s:
                    raise
                self.diary.met(worker, f"{what.split()[0]}, repeated: {error}")

    # -- groups that only read ---------------------------------------------------------------------------

    def _consume(self, name: str, group: str) -> None:
        """A member of a group that reads along; from time to time it leaves and comes back."""
        life = 0
        rng = random.Random(name)
        while self._running.is_set():
            life += 1
            until_s = stopwatch_s() + rng.uniform(8, 20)
            is_classic = group == CLASSIC or (group == MIXED and rng.random() < 0.5)
            self._live(name, f"{name}.{life}", group, until_s, _CLASSIC[group] if is_classic else _NEXT)

    def _live(self, reader: str, name: str, group: str, until_s: float, protocol: dict[str, Any]) -> None:
        mine: dict[Place, tuple[int, float]] = {}
        closed_s: list[float] = []

        def told(what: str, partitions: list[TopicPartition]) -> None:
            places = [(each.topic, each.partition) for each in partitions]
            self.history.told.append(Told(stopwatch_s(), group, name, what, places))

        def assigned(_: Any, partitions: list[TopicPartition]) -> None:
            told("assigned", partitions)
            for each in partitions:
                mine[each.topic, each.partition] = (next(self._assignments), stopwatch_s())

        def revoked(_: Any, partitions: list[TopicPartition]) -> None:
            told("revoked", partitions)
            for each in partitions:
                held = mine.pop((each.topic, each.partition), None)
                if held is not None:
                    place = (each.topic, each.partition)
                    end_s = closed_s[0] if closed_s else stopwatch_s()
                    how = "closed" if closed_s else "revoked"
                    self.history.owned.append(Owned(group, name, place, held[1], end_s, how))

        def lost(_: Any, partitions: list[TopicPartition]) -> None:
            told("lost", partitions)
            # The session ended without it; when, only the group knows, so nothing is claimed of this span.
            for each in partitions:
                mine.pop((each.topic, each.partition), None)

        consumer = Consumer(
            self._config(
                **{
                    "group.id": group,
                    "auto.offset.reset": "earliest",
                    "enable.auto.offset.store": False,
                    "isolation.level": "read_committed",
                    **protocol,
                }
            )
        )
        consumer.subscribe(["orders", "done"], on_assign=assigned, on_revoke=revoked, on_lost=lost)
        while self._running.is_set() and stopwatch_s() < until_s:
            self.diary.step(reader, f"polls as {name}, owns {sorted(mine)}")
            asked_s = stopwatch_s()
            found = [each for each in consumer.consume(100, timeout=0.2) if self._is_record(reader, each)]
            given_s = stopwatch_s()
            for message in found:
                place = (message.topic() or "", message.partition() or 0)
                record = (message.offset() or 0, int(message.value() or b""))
                assignment = mine[place][0] if place in mine else 0
                self.history.polled.append(Polled(name, assignment, place, [record], group, asked_s, given_s))
            if found:
                self.diary.did(f"read by {group}", len(found))
                _store(consumer, found)
        self.diary.step(reader, f"closes {name}")
        closed_s.append(stopwatch_s())  # its group confirms what is claimed after this; it may end any time later
        is_member = _is_member(consumer)
        self.history.told.append(Told(closed_s[0], group, name, f"closes, a member: {is_member}, with", sorted(mine)))
        if not is_member:
            mine.clear()  # as if they were lost
        consumer.close()

    def _is_record(self, name: str, message: Any) -> bool:
        if message.error() is not None:
            self.diary.met(name, message.error())
        return message.error() is None

    # -- the end -----------------------------------------------------------------------------------------

    def wait_until_worked(self) -> str:
        """Until the workers' offsets are the ends of the orders; "", or why it was given up."""
        consumer = Consumer(self._config(**{"group.id": "workers", "isolation.level": "read_committed"}))
        places = [TopicPartition("orders", number) for number in range(PARTITIONS)]

        def left() -> int:
            try:
                committed = {each.partition: max(each.offset, 0) for each in consumer.committed(places, 10)}
                ends = {each.partition: consumer.get_watermark_offsets(each, 10)[1] for each in places}
            except KafkaException as error:
                self.diary.met("drain", error)
                return -1
            return sum(ends.values()) - sum(committed.values())

        self.diary.step("drain", "waits for the workers")
        try:
            return _drained("orders to work", left)
        finally:
            consumer.close()

    def wait_until_read(self, log: dict[Place, list[tuple[int, int]]]) -> str:
        """Until each group of readers has seen the whole log; "", or why it was given up."""
        wanted = {value for records in log.values() for _, value in records}

        def left() -> int:
            seen: dict[str, set[int]] = {group: set() for group in READERS}
            for poll in list(self.history.polled):
                seen[poll.group].update(value for _, value in poll.records)
            return sum(len(wanted - each) for each in seen.values())

        self.diary.step("drain", "waits for the readers")
        return _drained("records to read", left)


def _store(consumer: Consumer, given: list[Any]) -> None:
    """Have what was given committed with the next round; where its partition is not ours any more, another reads it."""
    ends = {(each.topic(), each.partition()): each.offset() + 1 for each in given}
    for (topic, partition), offset in ends.items():
        with suppress(KafkaException):
            consumer.store_offsets(offsets=[TopicPartition(topic, partition, offset)])


def _is_member(consumer: Consumer) -> bool:
    """Whether the group takes the consumer's word still: its session may have ended unheard while no gateway served."""
    places = [each for each in consumer.position(consumer.assignment()) if each.offset >= 0]
    try:
        done = consumer.commit(offsets=places, asynchronous=False) if places else []
        return bool(done) and all(each.error is None for each in done)
    except KafkaException:
        return False


def _done_in_time(what: str, call: Callable[[], Any]) -> None:
    """What ``call`` does; it is left behind if it does not come back. Raises ``Hung``, or what it raises."""
    ended: Future[None] = Future()

    def run() -> None:
        try:
            call()
            ended.set_result(None)
        except Exception as error:
            ended.set_exception(error)

    threading.Thread(target=run, name=what, daemon=True).start()
    try:
        ended.result(HUNG_S)
    except TimeoutError:
        raise Hung(
            f"{what.split()[0]} has not come back after {HUNG_S:.0f} s, though it was given {CALL_S:.0f}"
        ) from None


def _drained(what: str, left: Callable[[], int]) -> str:
    """Wait until nothing is left of ``what``, for as long as it gets less (-1: not known)."""
    pause = threading.Event()
    start_s = moved_s = stopwatch_s()
    least = left()
    while least != 0:
        pause.wait(1.0)
        now_s = stopwatch_s()
        rest = left()
        if 0 <= rest < least or least < 0 <= rest:
            least, moved_s = rest, now_s
        if now_s - moved_s > STILL_S:
            return f"{least} {what} are left, and none was done for {now_s - moved_s:.0f} s"
        if now_s - start_s > DRAIN_S:
            return f"{least} {what} are left after {now_s - start_s:.0f} s"
    return ""
