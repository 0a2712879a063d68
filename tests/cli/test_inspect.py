from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import headwater
from headwater.log.batch import batch_of_records
from headwater.log.options import Options
from tests.cli.conftest import Headwater


@pytest.fixture
def filled(hw: Headwater, store: Path) -> Headwater:
    """A namespace with every kind of object: 40 commits, snapshots every 8, one staged segment."""

    async def fill() -> None:
        options = Options(snapshot_every=8, inline_bytes_max=4_096)
        async with await headwater.connect(f"file://{store}", options=options) as log:
            await log.create_topic("t", partitions=2)
            for i in range(40):
                value = b"%d " % i * (3_000 if i == 20 else 1)
                batch = headwater.batch([headwater.Record(key=b"k", value=value)])
                await log.append("t", i % 2, batch)
                if i == 20:
                    records = [headwater.Record(value=bytes(range(256)) * 40 + b"%d" % j) for j in range(10)]
                    big = batch_of_records(records, default_timestamp=5, compression=None)
                    await log.append("t", 0, big)
            await log.commit_offsets("g", {("t", 0): 3})

    asyncio.run(fill())
    return hw


def keys(store: Path, kind: str) -> list[str]:
    root = store / "default"
    return sorted(str(path.relative_to(root)) for path in (root / kind).rglob("*") if path.is_file())


def every_key(store: Path) -> list[str]:
    root = store / "default"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def some_keys(store: Path) -> list[str]:
    """All but the manifests, and some of those: the first, the last, those with staged bytes, and others between."""
    chosen = [*keys(store, "manifest")[::9], keys(store, "manifest")[-1]]
    return [key for key in every_key(store) if not key.startswith("manifest/") or key in chosen]


def flip(store: Path, key: str, at: int) -> None:
    path = store / "default" / key
    data = bytearray(path.read_bytes())
    data[at] ^= 0x01
    path.write_bytes(data)


def test_without_a_key_kinds_are_counted(filled: Headwater, store: Path) -> None:
    kinds = {kind["kind"]: kind["objects"] for kind in filled("inspect", "--json").json}
    assert kinds == {
        "index": len(keys(store, "index")),
        "latest": 1,
        "manifest": 43,
        "segment": 1,
        "snapshot": len(keys(store, "snapshot")),
    }
    assert "manifest" in filled("inspect").text
    assert "nothing in namespace" in filled("inspect", "--namespace", "empty").text


def test_every_object_can_be_shown_both_ways(filled: Headwater, store: Path) -> None:
    for key in every_key(store):
        ran = filled("inspect", key, "--payload", "--json")
        assert (ran.code, ran.json["key"], ran.json["problems"]) == (0, key, [])
        shown = filled("inspect", key, "--payload")
        assert (shown.code, shown.err) == (0, "")
        assert key in shown.text


def test_numbers_may_be_short_and_keys_may_be_whole(filled: Headwater) -> None:
    long = filled("inspect", "manifest/00000000000000000002", "--json").json
    assert filled("inspect", "manifest/2", "--json").json == long
    assert filled("inspect", "default/manifest/00000000000000000002", "--json").json == long


def test_payload_shows_records(filled: Headwater) -> None:
    found = filled("inspect", "manifest/2", "--payload", "--json").json
    (chunk,) = found["intents"][0]["appends"]
    assert [(r["key"], r["value"]) for r in chunk["records"]] == [("k", "0 ")]
    assert "records" not in filled("inspect", "manifest/2", "--json").json["intents"][0]["appends"][0]


def test_a_staged_segment_is_read_by_the_manifest_that_names_it(filled: Headwater, store: Path) -> None:
    (key,) = keys(store, "segment")
    found = filled("inspect", key, "--payload", "-n", "2", "--json").json
    (seq,) = found["named_by"]
    (chunk,) = found["intents"][0]["appends"]
    assert (chunk["intact"], chunk["count"], len(chunk["records"])) == (True, 10, 2)
    assert f"named by manifest {seq}" in filled("inspect", key).text


@pytest.mark.parametrize("kind", ["manifest", "snapshot", "index", "segment", "latest"])
def test_a_damaged_object_says_so_and_shows_the_rest(filled: Headwater, store: Path, kind: str) -> None:
    key = (["latest"] if kind == "latest" else keys(store, kind))[-1 if kind == "snapshot" else 0]
    flip(store, key, 70)
    ran = filled("inspect", key)
    assert ran.code == 1
    assert "damaged: " in ran.err
    assert key in ran.text
    assert filled("inspect", key, "--json").json["problems"]


def test_a_cut_segment_shows_what_is_left(filled: Headwater, store: Path) -> None:
    (key,) = keys(store, "segment")
    path = store / "default" / key
    path.write_bytes(path.read_bytes()[:-1])
    ran = filled("inspect", key, "--json")
    assert ran.code == 1
    assert ran.json["intents"][0]["appends"][0]["intact"] is False
    assert any("1 bytes too early" in problem for problem in ran.json["problems"])


def test_an_object_that_is_not_there_is_not_found(filled: Headwater) -> None:
    ran = filled("inspect", "manifest/999")
    assert ran.code == 1
    assert "manifest/00000000000000000999" in ran.err


@pytest.mark.parametrize("key", ["../default/latest", "a//b", "segment/nonsense"])
def test_an_impossible_key_is_an_error_and_no_traceback(filled: Headwater, key: str) -> None:
    ran = filled("inspect", key)
    assert ran.code == 1
    assert "Traceback" not in ran.err


# -- verify ---------------------------------------------------------------------------------------------------


def test_verify_finds_nothing_wrong(filled: Headwater, store: Path) -> None:
    ran = filled("verify", "--json")
    assert ran.code == 0
    assert (ran.json["clean"], ran.json["problems"]) == (True, [])
    assert (ran.json["first_manifest"], ran.json["last_manifest"], ran.json["records"]) == (1, 43, 50)
    assert (ran.json["orphans"], ran.json["pages"]) == (0, len(keys(store, "index")))
    assert "Every invariant holds." in filled("verify").text


@pytest.mark.parametrize("at", [0, 70, -1])
def test_verify_names_every_object_with_a_flipped_byte(filled: Headwater, store: Path, at: int) -> None:
    for key in some_keys(store):
        flip(store, key, at)
        ran = filled("verify", "--json")
        flip(store, key, at)
        assert ran.code == 1
        assert key in {problem["key"] for problem in ran.json["problems"]}
    assert filled("verify").code == 0


def test_verify_names_every_object_that_was_cut(filled: Headwater, store: Path) -> None:
    for key in some_keys(store):
        path = store / "default" / key
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        ran = filled("verify")
        path.write_bytes(data)
        assert ran.code == 1
        assert key in ran.text


def test_verify_names_what_is_missing_and_needed(filled: Headwater, store: Path) -> None:
    newest = filled("inspect", "latest", "--json").json["snapshot"]
    pages = filled("inspect", f"snapshot/{newest}", "--json").json["state"]["pages"]
    needed = [f"manifest/{seq:020d}" for seq in range(1, newest + 1, 9)] + keys(store, "segment")
    needed += [f"index/{first:020d}-{last:020d}" for first, last, *_ in pages]
    for key in needed:
        path = store / "default" / key
        data = path.read_bytes()
        path.unlink()
        ran = filled("verify", "--json")
        path.write_bytes(data)
        assert ran.code == 1
        assert key in {problem["key"] for problem in ran.json["problems"]}


def test_verify_names_a_hint_that_is_ahead(filled: Headwater, store: Path) -> None:
    newest = keys(store, "snapshot")[-1]
    (store / "default" / newest).unlink()
    ran = filled("verify", "--json")
    assert [(p["kind"], p["key"]) for p in ran.json["problems"]] == [("latest", "latest")]


def test_verify_of_nothing_says_so(hw: Headwater) -> None:
    ran = hw("verify")
    assert ran.code == 0
    assert "nothing in namespace" in ran.text


def test_orphans_are_told_and_are_no_error(filled: Headwater, store: Path) -> None:
    (key,) = keys(store, "segment")
    copy = store / "default" / key.replace("-", "-z", 1)
    copy.write_bytes((store / "default" / key).read_bytes())
    ran = filled("verify", "--json")
    assert (ran.code, ran.json["orphans"], ran.json["orphan_bytes"]) == (0, 1, copy.stat().st_size)
