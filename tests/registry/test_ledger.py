"""The registry over a bucket: processes that write at once, lose their epoch, sleep, and read what others wrote."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from headwater.errors import HeadwaterError, Indeterminate, Unavailable
from headwater.log.namespace import Namespace
from headwater.log.small import batch_of
from headwater.registry import decide
from headwater.registry.decide import Wanted
from headwater.registry.fold import plain
from headwater.registry.ledger import TOPIC, Ledger
from headwater.registry.refusal import Refusal
from headwater.sim.faults import Faults, SimBucket
from headwater.sim.loop import sim_loop
from headwater.types import Record
from tests.log.helpers import FIXED, memory, network, opened, simulate
from tests.registry.helpers_registry import BROKEN, GROWN, USER, record


async def register(ledger: Ledger, subject: str, schema: object) -> tuple[int, int]:
    """Version and id."""
    wanted = Wanted(text=json.dumps(schema))
    made = await ledger.change(lambda registry: decide.register(registry, subject, wanted))
    return made.version, made.id


async def ledgers(count: int, *, faults: Faults | None = None) -> list[Ledger]:
    """Processes over one bucket, each behind a network of its own, which is faulty once they are open."""
    bucket, found = SimBucket(sim_loop()), []
    for seed in range(1, count + 1):
        store = network(bucket, seed=seed, profile=FIXED)
        found.append(Ledger(await opened(store, seed=seed)))
        if faults is not None:
            store.set_faults(faults)
    return found


def test_processes_that_register_at_once_get_ids_of_their_own() -> None:
    async def main() -> None:
        processes = await ledgers(4)
        made = await asyncio.gather(
            *(
                register(ledger, f"s{process}-{number}", record((f"f{process}_{number}", "int")))
                for process, ledger in enumerate(processes)
                for number in range(3)
            )
        )
        assert list(range(1, 13)) == sorted(number for _, number in made)
        seen = [plain(await ledger.refresh()) for ledger in processes]
        assert all(each == seen[0] for each in seen)

    simulate(main())


def test_processes_that_register_the_same_at_once_get_one_id_and_one_version() -> None:
    async def main() -> None:
        processes = await ledgers(3)
        made = await asyncio.gather(*(register(ledger, "s", USER) for ledger in processes))
        assert [(1, 1)] * 3 == made
        assert 1 == (await processes[0].refresh()).count

    simulate(main())


def test_of_two_schemas_that_exclude_each_other_one_is_refused() -> None:
    async def main() -> None:
        a, b = await ledgers(2)
        await register(a, "s", record(("a", "int")))
        first = record(("a", "int"), {"name": "b", "type": "int", "default": 0})
        second = record(("a", "int"), {"name": "b", "type": "string", "default": ""})
        done = await asyncio.gather(register(a, "s", first), register(b, "s", second), return_exceptions=True)
        refused = [each for each in done if isinstance(each, Refusal)]
        assert [409] == [each.error_code for each in refused]
        assert 2 == (await b.refresh()).count

    simulate(main())


def test_a_write_after_a_write_keeps_its_epoch_and_costs_one_commit() -> None:
    async def main() -> None:
        (ledger,) = await ledgers(1)
        await register(ledger, "s", USER)
        before = ledger.namespace.state.seq
        await register(ledger, "s", GROWN)
        assert before + 1 == ledger.namespace.state.seq
        await register(ledger, "s", GROWN)
        assert before + 1 == ledger.namespace.state.seq

    simulate(main())


def test_a_process_whose_epoch_was_taken_reads_and_decides_again() -> None:
    async def main() -> None:
        a, b = await ledgers(2)
        assert (1, 1) == await register(a, "s", USER)
        assert (2, 2) == await register(b, "s", GROWN)
        with pytest.raises(Refusal, match="incompatible"):
            await register(a, "s", BROKEN)
        assert (1, 3) == await register(a, "t", BROKEN)

    simulate(main())


def test_a_fresh_process_reads_what_others_wrote_in_many_batches() -> None:
    async def main() -> None:
        store = memory()
        writer = Ledger(await opened(store))
        for number in range(100):
            await register(writer, f"s{number}", record((f"f{number}", "int")))
        await writer.change(lambda registry: decide.delete_subject(registry, "s3", permanent=False))
        fresh = Ledger(await opened(store, seed=2))
        assert plain(writer.registry) == plain(await fresh.refresh())
        assert 100 == fresh.registry.count

    simulate(main())


def test_what_is_no_registrys_record_is_passed_over() -> None:
    async def main() -> None:
        namespace = await opened(memory())
        ledger = Ledger(namespace)
        await register(ledger, "s", USER)
        junk = [b"", b"null", b"[]", b'{"keytype":"SCHEMA"}', b'{"keytype":7}', b"\xff\xfe", b'{"keytype":"NEW"}']
        junk += [b'{"keytype":"SCHEMA","subject":"s","version":-1}', b'{"keytype":"CONFIG"}', b"[" * 10_000]
        records = [Record(key=key, value=value, timestamp=1) for key in junk for value in (b"{", b"[]", b"{}")]
        await namespace.append(TOPIC, 0, batch_of(records))
        assert [1] == [each.version for each in (await ledger.refresh()).versions("s")]
        assert (2, 2) == await register(ledger, "s", GROWN)

    simulate(main())


def test_a_topic_that_was_deleted_leaves_an_empty_registry() -> None:
    async def main() -> None:
        ledger = Ledger(await opened(memory()))
        await register(ledger, "s", USER)
        await ledger.namespace.delete_topic(TOPIC)
        assert {} == (await ledger.refresh()).subjects
        assert (1, 1) == await register(ledger, "s", GROWN)

    simulate(main())


@pytest.mark.parametrize("seed", range(6))
def test_with_answers_lost_ids_stay_unique_and_what_was_answered_is_there(seed: int) -> None:
    async def main() -> None:
        faults = Faults(lost_answer=0.05, late=0.02, refused=0.1, raced=0.1, own_412=0.1, until_s=3_600.0)
        processes = await ledgers(3, faults=faults)
        rng, known = random.Random(seed), {}

        async def work(ledger: Ledger) -> None:
            for _ in range(6):
                name = f"f{rng.randrange(8)}"
                try:
                    known[name] = (await register(ledger, name, record((name, "int"))))[1]
                except (Unavailable, Indeterminate):
                    continue

        await asyncio.gather(*(work(ledger) for ledger in processes))
        found = await _patient(processes[0])
        ids = {name: found.versions(name)[0].id for name in found.subjects}
        assert len(set(ids.values())) == len(ids)
        assert known == {name: ids[name] for name in known}

    async def _patient(ledger: Ledger) -> Any:
        for _ in range(20):
            try:
                return await ledger.refresh()
            except HeadwaterError:
                continue
        raise AssertionError("the store never answered")

    simulate(main(), rng=random.Random(seed))


def test_a_namespace_keeps_one_ledger() -> None:
    async def main() -> None:
        namespace: Namespace = await opened(memory())
        assert namespace.shared(Ledger) is namespace.shared(Ledger)

    simulate(main())
