"""What a job tells of itself in its own state, for whoever has neither its code nor a worker to ask."""

from __future__ import annotations

import random

import msgspec

from headwater.limits import STREAMS_FIGURES_BYTES, STREAMS_PICTURE_BYTES, STREAMS_TOLD_MS
from headwater.log.history import state_at
from headwater.log.namespace import Namespace
from headwater.sim.loop import sim_loop
from headwater.streams import Topology
from headwater.streams.cards import Card
from headwater.streams.describe import cards
from headwater.streams.frames import ENDED, NEVER
from headwater.streams.operator import Size
from headwater.streams.runner import control
from headwater.streams.runner.account import PICTURE, Account, Told, figures_of, picture, picture_of, summed
from headwater.streams.runner.app import App, run_once
from headwater.streams.runner.job import prepare
from headwater.streams.runner.remains import figures, remains
from headwater.streams.task import Flow
from tests.log.helpers import simulate
from tests.streams import helpers_runner as h

TOLD_S = STREAMS_TOLD_MS / 1_000


def operators(namespace: Namespace) -> dict[str, Told]:
    return summed(figures(remains(namespace.state, "job")))


async def fed(namespace: Namespace, count: int, seed: int = 0) -> int:
    """How many of the events the job's filter lets pass."""
    rows = h.events(random.Random(seed), count)
    await h.put(namespace, 0, rows)
    return sum(row["v"] >= 0 for row in rows)


def test_what_a_worker_has_computed_is_known_when_it_is_gone() -> None:
    async def work() -> None:
        namespace = await h.bucket()
        good = await fed(namespace, 40)
        app = await App.start(h.job(), namespace, h.OPTIONS)
        await sim_loop().sleep(2)
        good += await fed(namespace, 30, seed=1)
        await sim_loop().sleep(2)
        await app.stop()
        await namespace.refresh()
        told = operators(namespace)
        assert (70, 70) == (told["in"].rows_in, told["in"].rows_out)
        assert good == told["to-1"].rows_in
        assert told["forever"].state_rows > 0
        assert told["forever"].state_bytes > 0
        drawn = picture_of(remains(namespace.state, "job").changelog.config[PICTURE])
        assert set(told) <= {card.name for card in drawn}
        assert {"in"} == {card.name for card in drawn if card.is_source}

    simulate(work(), limit_s=3_600)


def test_a_new_life_counts_on_and_a_reset_begins_anew() -> None:
    async def work() -> None:
        namespace = await h.bucket()
        for seed in range(3):
            await fed(namespace, 20, seed)
            await run_once(h.job(), namespace, options=h.OPTIONS)
        await namespace.refresh()
        assert 60 == operators(namespace)["in"].rows_in
        await control.reset(namespace, "job", {("in", number): 0 for number in range(3)})
        assert {} == operators(namespace)
        await run_once(h.job(), namespace, options=h.OPTIONS)
        await namespace.refresh()
        assert 60 == operators(namespace)["in"].rows_in

    simulate(work(), limit_s=3_600)


def test_while_rows_flow_it_is_told_with_their_commits_and_afterwards_once() -> None:
    async def work() -> None:
        namespace = await h.bucket(1)
        app = await App.start(h.job(), namespace, h.OPTIONS)
        for second in range(25):
            await h.put(namespace, 0, [{"k": "a", "at": second, "v": 1}])
            await sim_loop().sleep(1)
        (told,) = figures(remains(namespace.state, "job"))
        assert 25 - TOLD_S <= told.operators["in"].rows_in < 25
        steps = app.metrics()["tasks"]["0"]["commits"]
        before = namespace.state.seq
        await sim_loop().sleep(3 * TOLD_S)
        (told,) = figures(remains(namespace.state, "job"))
        assert 25 == told.operators["in"].rows_in
        assert steps == app.metrics()["tasks"]["0"]["commits"]
        assert 1 == namespace.state.seq - before
        # As of an earlier commit there is what was told by then.
        past = await state_at(namespace.chain, before)
        assert 25 > summed(figures(remains(past, "job")))["in"].rows_in
        await app.stop()

    simulate(work(), limit_s=3_600)


def test_a_topology_is_told_anew_when_it_has_changed_and_only_then() -> None:
    def passing(*, twice: bool) -> Topology:
        topology = Topology("job")
        rows = topology.stream("in", schema=h.SCHEMA)
        rows.to("copy")
        if twice:
            rows.to("latest")
        return topology

    async def work() -> None:
        namespace = await h.bucket(1)
        told = []
        for twice in (False, False, True, True):
            await prepare(namespace, passing(twice=twice))
            drawn = picture_of(remains(namespace.state, "job").changelog.config[PICTURE])
            told.append((namespace.state.seq, [card.note for card in drawn]))
        first, second, third, fourth = told
        assert first == second
        assert (1, 3) == (third[0] - second[0], len(third[1]))
        assert third == fourth

    simulate(work(), limit_s=3_600)


def test_watermarks_before_and_behind_all_time_are_none_and_the_lowest_of_tasks_counts() -> None:
    flows = {"a": Flow(3, 2, 1, 500), "b": Flow(watermark=NEVER), "c": Flow(watermark=ENDED)}
    account = Account("", 7)
    first = figures_of(account.told(flows, {"a": Size(rows=2, bytes=10, spilled=5)}, 0.0, 100))
    assert first is not None
    assert (7, 100) == (first.since_ms, first.at_ms)
    assert Told(rows_in=3, rows_out=2, rows_late=1, watermark=500, state_rows=2, state_bytes=15) == first.operators["a"]
    assert [None, None] == [first.operators[name].watermark for name in "bc"]
    later = figures_of(Account(msgspec.json.encode(first).decode(), 900).told(flows, {}, 0.0, 1_000))
    assert later is not None
    assert (7, 6) == (later.since_ms, later.operators["a"].rows_in)
    both = summed([first, msgspec.structs.replace(later, operators={"a": Told(watermark=400, rows_in=1)})])
    assert (4, 400) == (both["a"].rows_in, both["a"].watermark)


def test_what_this_version_cannot_read_is_nothing() -> None:
    for text in ("", "{}", "[1]", '{"at_ms": 1}', "\x00"):
        assert figures_of(text) is None
    loop = picture([Card(name="a", kind="Map", parents=("b",)), Card(name="b", kind="Map", parents=("a",))])
    for text in ("", "{}", "[[1]]", loop):
        assert [] == picture_of(text)


def test_what_is_told_has_bounds() -> None:
    many = {f"operator-{n}": Flow(n, n, n, n) for n in range(1_000)}
    told = Account("", 0).told(many, {}, 0.0, 0)
    found = figures_of(told)
    assert len(told) <= STREAMS_FIGURES_BYTES
    assert found is not None
    assert len(found.operators) > 50
    nodes = cards(h.job().build().nodes)
    assert nodes == picture_of(picture(nodes))
    wide = [Card(name=str(n), kind="Map", columns=(("c" * 100, "Int64"),) * 10) for n in range(100)]
    assert [replaced.columns for replaced in picture_of(picture(wide))] == [()] * 100
    assert "" == picture([Card(name=str(n), kind="Map", note="x" * 100) for n in range(STREAMS_PICTURE_BYTES // 100)])
