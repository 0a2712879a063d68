"""A run that ends: it processes what was there when it began, and leaves. For schedules and notifications.

What was there is the end of each source then. Once the group has committed that far, whoever did it, everything that
this led to lies in the job's first repartition topic, whose end is the next goal, and so on down the stages.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from headwater.client.backoff import poked
from headwater.errors import Indeterminate, Throttled, Unavailable
from headwater.log.state import State
from headwater.streams.runner.job import Job, committed, is_paused
from headwater.streams.runner.worker import Worker

LOOK_S = 1.0  # how long a run that waits for others lets pass between looks; its own commits wake it at once

Goals = dict[tuple[str, int], int]


def source_goals(state: State, job: Job) -> Goals:
    """Where every source ends now."""
    return _ends(state, job, sorted(job.sources))


def reached(state: State, job: Job, goals: Mapping[tuple[str, int], int]) -> bool:
    """Whether the group has committed so far, in all partitions. Of a topic that was deleted nobody reaches the end."""
    for (topic, partition), goal in goals.items():
        found = state.topics.get(job.topics[topic].id)
        if found is None:
            return False  # the worker says so, with its next look at its topics
        place = found.partitions[partition]
        known = committed(state, job.name, topic, partition)
        if goal > place.start and (known is None or known.offset < goal):
            return False
    return True


def is_idle(state: State, job: Job, goals: Mapping[tuple[str, int], int], now_ms: int) -> bool:
    """Whether there is nothing to do at all: all is read, and time alone makes nothing due. Then nobody has to join."""
    for number in range(job.tasks):
        known = committed(state, job.name, job.changelog, number)
        if known is None or not known.metadata.lstrip("-").isdigit() or -1 < int(known.metadata) <= now_ms:
            return False
    return reached(state, job, goals) and reached(state, job, _ends(state, job, list(job.repartitions)))


async def work_off(worker: Worker, goals: Goals) -> None:
    """Let ``worker`` run until ``goals``, the ends of its sources, and all that follows from them are committed.

    Of a job that is paused nothing is processed.

    Raises what ``Worker.run`` raises.
    """
    wake = asyncio.Event()
    worker.listeners.append(wake.set)
    running = asyncio.get_running_loop().create_task(worker.run(), name=f"streams-worker-{worker.job.name}")
    running.add_done_callback(lambda done: wake.set())
    try:
        stages = [[topic] for topic in _in_order(worker.job)]
        while not running.done() and not is_paused(worker.namespace.state, worker.job.changelog):
            if await _has_reached(worker, goals):
                if not stages:
                    break
                goals = _ends(worker.namespace.state, worker.job, stages.pop(0))
                continue
            await poked(wake, LOOK_S)
        worker.stop()
        await running
    except (asyncio.CancelledError, Exception):
        if running.cancel():
            await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # who breaks off hears no other reason
        raise


async def _has_reached(worker: Worker, goals: Goals) -> bool:
    if any(not task.looked for task in worker.tasks.values()):
        return False
    if not reached(worker.namespace.state, worker.job, goals):
        # Our own commits are in the state as we know it. Others' are found with the next look.
        with contextlib.suppress(Throttled, Unavailable, Indeterminate):
            if worker.namespace.chain.age_s() >= LOOK_S:
                await worker.namespace.refresh()
    return reached(worker.namespace.state, worker.job, goals) and _is_seated(worker)


def _is_seated(worker: Worker) -> bool:
    """Whether the worker has had its tasks: only then has time passed in them."""
    return worker.seat.membership.latest is not None and set(worker.seat.fences()) == set(worker.tasks)


def _in_order(job: Job) -> list[str]:
    """The repartition topics, those upstream first: nodes are in that order."""
    order = {name: at for at, name in enumerate(job.nodes)}
    return sorted(job.repartitions, key=lambda topic: order[job.repartitions[topic]])


def _ends(state: State, job: Job, topics: list[str]) -> Goals:
    ends: Goals = {}
    for topic in topics:
        found = state.topics.get(job.topics[topic].id)
        places = found.partitions if found is not None else ()
        ends |= {(topic, number): place.stable_end for number, place in enumerate(places)} or {(topic, 0): 0}
    return ends
