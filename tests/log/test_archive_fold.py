"""Which files hold a partition's old offsets: what ``SwapFiles`` changes, and what it refuses."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from headwater.errors import Corrupt, Unavailable
from headwater.limits import FILES_MAX
from headwater.log import files, keys
from headwater.log.operations import (
    AlterNamespace,
    BranchedFrom,
    Column,
    File,
    FilePage,
    RaiseFloor,
    SetSchema,
    SwapFiles,
    TrimLog,
)
from tests.log.helpers import Fold, chunk


def file(base: int, end: int, *, tip: int = 0, nonce: str = "aaaa", **fields: Any) -> File:
    """A file of the topic ``t``, partition 0."""
    known: dict[str, Any] = {"count": end - base, "bytes": 100, "crc": 1, "footer": 10, "min": base, "max": end}
    return File(base=base, end=end, key=keys.archive_key("t", 0, base, end, tip, nonce), **{**known, **fields})


def page(*listed: File, tip: int = 0) -> FilePage:
    return files.encode(list(listed), keys.file_page_key(tip, 1, 0, "aaaa"))[0]


def swap(base: int, end: int, *new: File | FilePage, was: list[str] | None = None, **fields: Any) -> SwapFiles:
    return SwapFiles(
        topic=1,
        partition=0,
        base=base,
        end=end,
        was=was or [],
        pages=[each for each in new if isinstance(each, FilePage)],
        files=[each for each in new if isinstance(each, File)],
        **fields,
    )


@pytest.fixture
def fold() -> Fold:
    """A topic with the offsets [0, 100)."""
    made = Fold()
    made.topic()
    made.done(chunk(count=60))
    made.done(chunk(count=40))
    return made


def refused(fold: Fold, op: SwapFiles) -> str:
    """The refusal's code; the state is as it was, but for the outcome that it remembers."""
    before = msgspec.json.encode(fold.state.topics)
    (outcome,) = fold.commit(fold.intent(op))
    assert before == msgspec.json.encode(fold.state.topics)
    return outcome.error


def held(fold: Fold) -> list[tuple[int, int]]:
    archive = fold.state.topics[1].partitions[0].archive
    assert archive is not None
    return [(item.base, item.end) for item in [*archive.pages, *archive.files]]


def test_archived_offsets_are_read_from_files_and_their_chunks_are_dead(fold: Fold) -> None:
    fold.done(swap(0, 60, file(0, 60)))
    place = fold.state.topics[1].partitions[0]
    assert (60, 60, 100) == (place.archived, place.hot, place.next)
    fold.done(swap(60, 100, file(60, 80), file(80, 100)))
    assert [(0, 60), (60, 80), (80, 100)] == held(fold)
    assert 100 == fold.state.topics[1].partitions[0].archived


def test_of_two_that_archive_the_same_offsets_the_second_is_refused(fold: Fold) -> None:
    first, second = fold.intent(swap(0, 60, file(0, 60))), fold.intent(swap(0, 60, file(0, 60, nonce="bbbb")))
    assert ["", "stale"] == [outcome.error for outcome in fold.commit(first, second)]
    assert "stale" == refused(fold, swap(30, 100, file(30, 100)))
    assert "stale" == refused(fold, swap(80, 100, file(80, 100)))  # it would leave a hole


def test_files_are_replaced_by_those_who_know_them_all(fold: Fold) -> None:
    old = [file(0, 20), file(20, 40), file(40, 60)]
    fold.done(swap(0, 60, *old))
    merged = file(0, 40, tip=1, count=7, cleaned_ms=5)
    assert "stale" == refused(fold, swap(0, 40, merged, was=[old[0].key]))
    assert "stale" == refused(fold, swap(0, 30, file(0, 30), was=[old[0].key, old[1].key]))
    assert "stale" == refused(fold, swap(0, 40, merged, was=[old[1].key, old[0].key]))
    fold.done(swap(0, 40, merged, was=[old[0].key, old[1].key], clean=40))
    assert [(0, 40), (40, 60)] == held(fold)
    archive = fold.state.topics[1].partitions[0].archive
    assert archive is not None
    assert (40, 60, merged) == (archive.clean, archive.end, archive.files[0])
    fold.done(swap(40, 60, file(40, 60, tip=2), was=[old[2].key]))
    assert 40 == archive.clean


def test_old_files_move_to_a_page_together_with_what_is_new(fold: Fold) -> None:
    old = [file(0, 20), file(20, 60)]
    fold.done(swap(0, 60, *old))
    fold.done(swap(0, 100, page(*old), file(60, 100), was=[each.key for each in old]))
    assert [(0, 60), (60, 100)] == held(fold)
    assert "invalid" == refused(fold, swap(60, 100, page(file(60, 100)), file(60, 100), was=[file(60, 100).key]))


def test_a_page_never_lies_behind_a_file_that_the_state_lists(fold: Fold) -> None:
    fold.done(swap(0, 60, file(0, 60)))
    assert "invalid" == refused(fold, swap(60, 100, page(file(60, 100))))


@pytest.mark.parametrize(
    "op",
    [
        swap(0, 60, file(0, 50)),
        swap(0, 60, file(0, 30), file(40, 60)),
        swap(0, 60, file(0, 60, count=61)),
        swap(0, 60, file(10, 60)),
        swap(0, 60),
        swap(0, 60, file(0, 60), clean=61),
        swap(0, 60, msgspec.structs.replace(file(0, 60), key="segment/x")),
        swap(0, 60, msgspec.structs.replace(file(0, 60), key="archive/x.parquet")),
    ],
)
def test_files_that_do_not_hold_the_range_are_refused(fold: Fold, op: SwapFiles) -> None:
    assert "invalid" == refused(fold, op)


def test_nothing_is_archived_that_readers_may_not_see_yet(fold: Fold) -> None:
    assert "out_of_range" == refused(fold, swap(0, 101, file(0, 101)))


def test_a_file_below_the_floor_may_be_collected_already(fold: Fold) -> None:
    old = file(0, 60, tip=2)
    fold.done(swap(0, 60, old))
    fold.done(RaiseFloor(floor=3))
    assert "gone" == refused(fold, swap(60, 100, file(60, 100, tip=2)))
    fold.done(swap(0, 100, old, file(60, 100, tip=3), was=[old.key]))  # what is in use stays good


def test_the_log_start_takes_whole_files_with_it(fold: Fold) -> None:
    fold.done(swap(0, 60, file(0, 20), file(20, 40), file(40, 60)))
    fold.done(TrimLog(topic=1, partition=0, before=30))
    assert [(20, 40), (40, 60)] == held(fold)
    fold.done(TrimLog(topic=1, partition=0, before=70))
    assert [] == held(fold)
    assert 70 == fold.state.topics[1].partitions[0].hot
    fold.done(swap(60, 100, file(60, 100)))  # whole chunks are archived, also where the log starts inside of one
    assert [(60, 100)] == held(fold)


def test_an_archiver_goes_on_behind_offsets_that_nobody_can_read(fold: Fold) -> None:
    fold.done(TrimLog(topic=1, partition=0, before=60))
    assert "stale" == refused(fold, swap(61, 100, file(61, 100)))
    fold.done(swap(60, 100, file(60, 100)))
    assert [(60, 100)] == held(fold)


def test_files_that_come_after_the_log_was_trimmed_are_listed_no_more(fold: Fold) -> None:
    # Seed 109 of the archive's world: the next file began at the log start, and the list had a hole.
    fold.done(swap(0, 20, file(0, 20)))
    fold.done(TrimLog(topic=1, partition=0, before=60))
    fold.done(swap(20, 40, file(20, 40)))
    assert ([], 40) == (held(fold), fold.state.topics[1].partitions[0].archived)
    fold.done(swap(60, 80, file(60, 80)))
    fold.done(swap(80, 100, file(80, 100)))
    assert [(60, 80), (80, 100)] == held(fold)


def test_a_partition_lists_a_bounded_number_of_files(fold: Fold) -> None:
    fold.done(chunk(count=FILES_MAX))
    many = [file(base, base + 1) for base in range(FILES_MAX)]
    fold.done(swap(0, FILES_MAX, *many))
    assert "too_many" == refused(fold, swap(FILES_MAX, FILES_MAX + 1, file(FILES_MAX, FILES_MAX + 1)))


def test_an_intent_that_fails_later_leaves_the_archive_as_it_was(fold: Fold) -> None:
    fold.done(swap(0, 60, file(0, 60)))
    before = msgspec.json.encode(fold.state.topics)
    both = fold.intent(
        TrimLog(topic=1, partition=0, before=60), swap(60, 100, file(60, 100)), TrimLog(topic=1, partition=9, before=0)
    )
    assert ["no_partition"] == [outcome.error for outcome in fold.commit(both)]
    assert before == msgspec.json.encode(fold.state.topics)


def test_a_page_of_files_comes_back_and_damage_is_noticed() -> None:
    rng = random.Random(3)
    listed = [file(10 * i, 10 * i + 10, count=rng.randrange(10)) for i in range(50)]
    made, data = files.encode(listed, keys.file_page_key(7, 1, 0, "aaaa"))
    assert listed == files.decode(made, data)
    assert (0, 500, 50, len(data)) == (made.base, made.end, made.files, made.size)
    for at in rng.sample(range(len(data)), 40):
        flipped = bytearray(data)
        flipped[at] ^= 1 << rng.randrange(8)
        with pytest.raises(Corrupt, match="files/"):
            files.decode(made, bytes(flipped))


# -- what came with the archive ---------------------------------------------------------------------------


def test_configs_of_the_namespace_are_set_and_taken_back(fold: Fold) -> None:
    fold.done(AlterNamespace(config={"history.retention.ms": "-1", "x": "1"}))
    fold.done(AlterNamespace(config={"x": None}))
    assert {"history.retention.ms": "-1"} == fold.state.config


def test_a_schema_grows_by_nullable_columns_and_wider_types(fold: Fold) -> None:
    def schema(version: int, *columns: Column) -> SetSchema:
        return SetSchema(topic=1, version=version, format="json", definition="{}", columns=list(columns))

    fold.done(schema(1, Column("a", "int32", False)))
    (twice,) = fold.commit(fold.intent(schema(1, Column("a", "int32"))))
    (narrow,) = fold.commit(fold.intent(schema(2, Column("a", "int16", False))))
    (needed,) = fold.commit(fold.intent(schema(2, Column("a", "int32", False), Column("b", "string", False))))
    assert ["stale", "incompatible", "incompatible"] == [twice.error, narrow.error, needed.error]
    fold.done(schema(2, Column("a", "int64"), Column("b", "string")))
    found = fold.state.topics[1]
    assert [1, 2] == [each.version for each in found.schemas]
    assert found.schema == found.schemas[-1]
    assert fold.state.seq == found.schemas[-1].seq


def test_who_opened_a_name_before_it_became_a_branch_stops() -> None:
    fold = Fold()
    with pytest.raises(Unavailable, match="branch of 'main'"):
        fold.commit(fold.intent(BranchedFrom(namespace="main", seq=7)))


def test_what_is_compacted_for_the_first_time_is_so_from_its_manifest_on(fold: Fold) -> None:
    old = [file(0, 20), file(20, 40)]
    fold.done(swap(0, 40, *old))
    first = swap(0, 20, file(0, 20, tip=1, cleaned_ms=5_000), was=[old[0].key], clean=20)
    fold.done(first, time=9_000)
    again = swap(0, 40, file(0, 20, tip=2, cleaned_ms=9_000), file(20, 40, tip=2, cleaned_ms=50_000),
                 was=[first.files[0].key, old[1].key], clean=40)  # fmt: skip
    fold.done(again, time=20_000)
    archive = fold.state.topics[1].partitions[0].archive
    assert archive is not None
    assert [9_000, 50_000] == [found.cleaned_ms for found in archive.files]
