"""What only the directory store promises: durability, many processes, full disks, large folders."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater.errors import (
    AlreadyExists,
    Forbidden,
    HeadwaterError,
    Indeterminate,
    InvalidRequest,
    NotFound,
    Unavailable,
)
from headwater.store import local, local_files
from headwater.store.local import LocalStore


async def keys(store: LocalStore, prefix: str = "", start_after: str = "", limit: int | None = None) -> list[str]:
    return [stat.key async for stat in store.list(prefix, start_after=start_after, limit=limit)]


@pytest.mark.parametrize(
    ("number", "expected", "says"),
    [
        (errno.ENOSPC, Unavailable, "disk is full"),
        (errno.EDQUOT, Unavailable, "disk is full"),
        (errno.EIO, Unavailable, "not applied"),
        (errno.EACCES, Forbidden, "owner and mode"),
        (errno.EROFS, Forbidden, "read-only"),
    ],
)
def test_a_write_that_fails_is_not_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[HeadwaterError], says: str
) -> None:
    write = os.writev

    def fail_halfway(fd: int, parts: list[memoryview]) -> int:
        write(fd, [parts[0][: len(parts[0]) // 2]])
        raise OSError(number, os.strerror(number))

    async def work() -> None:
        store = LocalStore(tmp_path)
        await store.put("k", b"old")
        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", fail_halfway)
            for call in (store.put_if_absent("new", b"12345678"), store.put("k", b"12345678")):
                with pytest.raises(expected, match=says):
                    await call
        assert ["k"] == await keys(store)
        assert b"old" == (await store.get("k")).data
        assert ["lock"] == os.listdir(tmp_path / ".tmp")
        await store.aclose()

    asyncio.run(work())


def test_a_file_system_without_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(InvalidRequest, match="hard links"):
        asyncio.run(LocalStore(tmp_path, fsync=False).put_if_absent("k", b""))


def test_a_folder_that_cannot_be_synced_leaves_the_outcome_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        store = LocalStore(tmp_path)
        await store.put("d/first", b"")

        def fail(folder: bytes) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr(local, "fsync_folder", fail)
            with pytest.raises(Indeterminate) as error:
                await store.put_if_absent("d/k", b"x")
        assert "d/k" == error.value.token
        with pytest.raises(AlreadyExists):
            await store.put_if_absent("d/k", b"x")
        await store.aclose()

    asyncio.run(work())


def test_the_file_and_every_new_folder_are_synced_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = _counted(monkeypatch, os, "fsync")
    folders = _counted(monkeypatch, local, "fsync_folder")

    async def work(root: Path, fsync: bool) -> None:
        store = LocalStore(root, fsync=fsync)
        await store.put_if_absent("warm", b"")
        synced.clear()
        folders.clear()
        await store.put_if_absent("a/b/c", b"x")
        await store.aclose()

    asyncio.run(work(tmp_path / "on", True))
    assert {tmp_path / "on", tmp_path / "on/a", tmp_path / "on/a/b"} == {Path(os.fsdecode(path)) for path in folders}
    assert 1 + len(folders) == len(synced)
    asyncio.run(work(tmp_path / "off", False))
    assert 0 == len(synced)


def test_unfinished_files_are_never_listed_and_go_after_an_hour(tmp_path: Path) -> None:
    (tmp_path / ".tmp").mkdir()
    old, new = tmp_path / ".tmp" / "1-1", tmp_path / ".tmp" / "1-2"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 3_700, time.time() - 3_700))

    async def work() -> None:
        store = LocalStore(tmp_path, fsync=False)
        assert [] == await keys(store)
        await store.put("k", b"")
        assert ["k"] == await keys(store)
        assert [] == await keys(store, ".tmp/")
        assert not old.exists()
        assert new.exists()
        for key in (".tmp", ".tmp/1-2", ".tmp/lock"):
            with pytest.raises(InvalidRequest, match="unfinished"):
                await store.get(key)

    asyncio.run(work())


def test_a_dead_process_of_our_id_left_a_second_name_of_its_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        store = LocalStore(tmp_path, fsync=False, clock=StillClock())
        await store.put("precious", b"acknowledged")
        for number in range(7, 12):
            os.link(tmp_path / "precious", tmp_path / ".tmp" / f"{os.getpid()}-{StillClock().wall_ms()}-{number}")
        monkeypatch.setattr(local, "_serial", itertools.count(7))
        await store.put("next", b"x")
        assert b"acknowledged" == (await store.get("precious")).data
        assert b"x" == (await store.get("next")).data

    asyncio.run(work())


def test_reading_makes_no_directory(tmp_path: Path) -> None:
    async def work() -> None:
        store = LocalStore(tmp_path / "none")
        assert [] == await keys(store)
        with pytest.raises(NotFound):
            await store.get("k")
        await store.aclose()

    asyncio.run(work())
    assert [] == os.listdir(tmp_path)


def test_object_and_folder_of_one_name_are_refused(tmp_path: Path) -> None:
    async def work() -> None:
        store = LocalStore(tmp_path, fsync=False)
        await store.put("a/b", b"x")
        for call in (store.put("a", b""), store.put_if_absent("a", b""), store.put("a/b/c", b"")):
            with pytest.raises(InvalidRequest, match="object and folder"):
                await call
        await store.delete(["a"])
        assert ["a/b"] == await keys(store)
        await store.delete(["a/b"])
        await store.put("a", b"now it is free")
        assert ["a"] == await keys(store)

    asyncio.run(work())


def test_a_long_part_lists_in_its_place(tmp_path: Path) -> None:
    head = "h" * 240
    names = [f"p/{head}", f"p/{head}!", f"p/{head}-x/y", f"p/{head}/in", f"p/{head}0", f"p/{head}{'z' * 600}/w", "p/h~"]
    names.remove(f"p/{head}")  # it would be object and folder of one name
    shuffled = random.Random(5).sample(names, len(names))

    async def work() -> None:
        store = LocalStore(tmp_path, fsync=False)
        for name in shuffled:
            await store.put_if_absent(name, name.encode())
        ordered = sorted(names)
        assert ordered == await keys(store)
        for name in names:
            assert name.encode() == (await store.get(name)).data
            assert [each for each in ordered if each > name] == await keys(store, "p/", name)
            assert [each for each in ordered if each.startswith(name[:-1])] == await keys(store, name[:-1])
        await store.delete(names)
        assert [".tmp"] == os.listdir(tmp_path)

    asyncio.run(work())


def test_a_list_near_the_end_of_a_large_folder_looks_at_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("manifest", "segment", "other"):
        (tmp_path / folder).mkdir()
    for number in range(20_000):
        (tmp_path / "manifest" / f"{number:020d}").touch()
    looked = _counted(monkeypatch, local_files.os, "lstat")
    opened = _counted(monkeypatch, local_files.os, "scandir")

    async def work() -> None:
        store = LocalStore(tmp_path, fsync=False)
        tail = await keys(store, "manifest/", f"manifest/{19_997:020d}")
        assert [f"manifest/{number:020d}" for number in (19_998, 19_999)] == tail
        assert (2, 1) == (len(looked), len(opened))
        assert 5 == len(await keys(store, "manifest/", limit=5))
        assert 7 == len(looked)
        opened.clear()
        assert [] == await keys(store, "", "manifest0")  # only the folders after it are opened
        assert [tmp_path.name, "other", "segment"] == [Path(os.fsdecode(path)).name for path in opened]
        await store.aclose()

    asyncio.run(work())


def _counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    calls: list[Any] = []
    real: Callable[..., Any] = getattr(module, name)

    def counting(path: Any, *rest: Any, **named: Any) -> Any:
        calls.append(path)
        return real(path, *rest, **named)

    monkeypatch.setattr(module, name, counting)
    return calls


class StillClock:
    def wall_ms(self) -> int:
        return 1_700_000_000_123

    def elapsed_s(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a store does not wait")


def test_the_clock_stamps_and_etags_differ_within_one_tick(tmp_path: Path) -> None:
    async def work() -> None:
        store = LocalStore(tmp_path, fsync=False, clock=StillClock())
        etags = set()
        for _ in range(300):
            stat = await store.put("k", b"same")
            assert (1_700_000_000_123, 1_700_000_000_123) == (stat.modified_ms, stat.date_ms)
            etags.add(stat.etag)
        assert 300 == len(etags)
        assert stat == await store.head("k")

    asyncio.run(work())


def test_many_parts_and_short_writes_make_one_whole_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev
    rng = random.Random(11)

    def short(fd: int, parts: list[memoryview]) -> int:
        flat = b"".join(parts)
        return os.write(fd, flat[: rng.randint(1, len(flat))]) if flat else real(fd, parts)

    monkeypatch.setattr(os, "writev", short)
    parts = [rng.randbytes(rng.choice([0, 1, 50])) for _ in range(2_500)]

    async def work() -> None:
        store = LocalStore(tmp_path, fsync=False)
        await store.put("k", parts)
        assert b"".join(parts) == (await store.get("k")).data

    asyncio.run(work())


def test_a_folder_that_a_deleter_removes_while_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = os.mkdir, []

    def late(folder: bytes, *mode: int) -> None:
        seen.append(folder)
        if len(seen) == 1:
            raise FileExistsError(errno.EEXIST, "there a moment ago")
        real(folder, *mode)

    folder = os.fsencode(tmp_path / "a")
    monkeypatch.setattr(os, "mkdir", late)
    assert [folder] == local_files.make_folder(folder)
    assert [folder, folder] == seen
    (tmp_path / "object").touch()
    with pytest.raises(NotADirectoryError):
        local_files.make_folder(os.fsencode(tmp_path / "object"))


def test_writers_and_deleters_of_one_folder_do_not_trip_over_each_other(tmp_path: Path) -> None:
    async def work() -> None:
        store = LocalStore(tmp_path)

        async def churn(name: str) -> None:
            for number in range(25):
                await store.put_if_absent(f"deep/er/{name}{number}", b"x")
                await store.delete([f"deep/er/{name}{number}"])

        await asyncio.gather(*(churn(name) for name in "abcdefgh"))
        assert [] == await keys(store)
        await store.aclose()

    asyncio.run(work())
