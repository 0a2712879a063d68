"""The fold against a second, naive fold: whatever manifests come, both say the same."""

from __future__ import annotations

import random

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.log import intents, snapshot
from headwater.log.state import State, apply
from tests.log.helpers import manifest, stored
from tests.log.helpers_groups import ONCE_MS, WINDOW
from tests.log.helpers_model import EPOCH_LAST, IDLE_MS, Maker, Model, seen

RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def same(state: State) -> bytes:
    """What a refused or repeated intent must leave as it was."""
    return msgspec.json.encode([getattr(state, name) for name in STABLE])


STABLE = [name for name in State.__struct_fields__ if name not in ("seq", "time_ms", "recent")]


def history(rng: random.Random, steps: int, *, wear: bool = False) -> tuple[State, Model, list[intents.Manifest]]:
    """Fold random manifests with both folds, and compare after each."""
    state, model, made = State(), Model(), []
    maker = Maker(rng, model)
    time = 0
    for _ in range(steps):
        for _ in range(rng.choice([0] * 60 + [1, 100, 511, 512])):
            empty = manifest(state.seq + 1, time=time)
            made.append(empty)
            apply(state, empty)
            model.apply(empty)
        time += rng.choice([0, 1, 5, 1_000] * 12 + [IDLE_MS // 2, IDLE_MS, IDLE_MS + 1])
        if wear and rng.random() < 0.05 and model.producers:
            # Nobody would wait for 32,766 bumps, so both folds are told that they happened.
            worn = rng.choice(sorted(model.producers))
            model.producers[worn]["epoch"] = state.producers[worn].epoch = EPOCH_LAST
        before = same(state)
        one = manifest(state.seq + 1, *(maker.intent() for _ in range(rng.choice([1, 1, 1, 2, 4]))), time=time)
        # The bytes are what other processes see, so the fold gets what they decode.
        one = intents.decode_manifest(stored(one, b"x" * 100_000), one.seq) if rng.random() < 0.3 else one
        made.append(one)
        idle = any(p["last"] + IDLE_MS < time for p in model.producers.values())
        forgotten = any(known[1] + ONCE_MS < time for known in model.once.values())
        forgotten |= any(seq + WINDOW < one.seq for seq in state.departed.values())
        expected = model.apply(one)
        outcomes = apply(state, one)
        assert expected == [(o.seq, o.error, o.bases, o.values) for o in outcomes]
        assert model.seen() == seen(state)
        if all(o.error or o.seq < state.seq for o in outcomes) and not idle and not forgotten:
            assert before == same(state)
        assert sum(len(p.tail) for t in state.topics.values() for p in t.partitions) == state.tail_entries
        assert {t.name: t.id for t in state.topics.values()} == state.names
        assert {p.tid: p.id for p in state.producers.values() if p.tid} == state.transactional
    return state, model, made


@RELAXED
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_the_fold_agrees_with_a_naive_one_and_refusals_change_nothing(seed: int, steps: int) -> None:
    history(random.Random(seed), steps, wear=seed % 2 == 1)


@settings(RELAXED, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_a_snapshot_at_any_point_and_the_tail_equal_the_fold_from_zero(seed: int, steps: int) -> None:
    rng = random.Random(seed)
    _, _, made = history(rng, steps)
    whole, cut = State(), State()
    at = rng.randrange(len(made))
    for one in made:
        apply(whole, one)
        apply(cut, one)
        if one.seq == at:
            cut = snapshot.decode(snapshot.encode(cut), at)
    assert msgspec.json.encode(whole) == msgspec.json.encode(cut)
    assert snapshot.encode(whole) == snapshot.encode(cut)


@settings(RELAXED, max_examples=30)
@given(st.integers(0, 2**32))
def test_two_processes_that_fold_the_same_bytes_hold_the_same_state(seed: int) -> None:
    _, _, made = history(random.Random(seed), 25)
    payload = b"x" * 100_000
    objects = [stored(one, payload) for one in made]
    folds = [State(), State()]
    for state in folds:
        for seq, data in enumerate(objects, 1):
            apply(state, intents.decode_manifest(data, seq))
    assert msgspec.json.encode(folds[0]) == msgspec.json.encode(folds[1])
