"""A small year: what must stay flat does, and only the archive grows."""

from __future__ import annotations

from headwater.bench.year import DAYS, bench


def test_a_year_leaves_the_archive_and_little_else() -> None:
    found = bench(4_000, 400, partitions=2, checkpoints=5)
    points = found["checkpoints"]
    assert 5 == len(points)
    assert (DAYS, found["manifests"]) == (points[-1]["day"], points[-1]["seq"] + 200)
    assert found["archived_records"] >= 10 * found["segments"] - 200
    for point in points[1:]:
        assert point["objects"]["manifest"] < 400  # a few days, and the commits that the last checkpoint made
        assert point["objects"]["segment"] < 20
        assert (1, 2) == (point["objects"]["boundary"], point["cold_start"]["lists"])
        assert point["cold_start"]["gets"] <= 10
    assert found["growth"]["pages"] <= 2
    assert found["growth"]["state_bytes"] < 1.5
    assert found["growth"]["objects_but_files"] < 1.5
