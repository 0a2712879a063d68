from __future__ import annotations

from headwater.bench import schemas


def test_checks_and_columns_are_measured_for_json_and_avro() -> None:
    report = schemas.bench(rows=500, rounds=1)
    assert ("schemas", 500) == (report["bench"], report["rows"])
    assert ["json", "avro"] == [row["format"] for row in report["results"]]
    for row in report["results"]:
        assert min(value for name, value in row.items() if name.endswith("_rows_s")) > 0
