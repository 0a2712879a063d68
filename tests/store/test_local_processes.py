"""The directory store among processes: killed writers, races, and a disk that is really full."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path

from headwater.store.local import LocalStore

KILLED = """
import asyncio, sys
from headwater.store.local import LocalStore

async def main(root, first):
    store = LocalStore(root)
    number = first
    while True:
        key = f"log/{number:08d}"
        await store.put_if_absent(key, [number.to_bytes(8, "big") * 20_000, b"end"])
        print(key, flush=True)
        await store.put("latest", number.to_bytes(8, "big") * 10_000)
        number += 1

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""
RACER = """
import asyncio, sys
from headwater.errors import AlreadyExists
from headwater.store.local import LocalStore

async def main(root, name):
    store = LocalStore(root, fsync=False)
    sys.stdin.readline()
    for number in range(150):
        try:
            await store.put_if_absent(f"race/{number:04d}", name.encode() * 1_000)
            print(number)
        except AlreadyExists:
            pass
    await store.aclose()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""
COUNTER = """
import asyncio, sys
from headwater.errors import Conflict
from headwater.store.local import LocalStore

async def main(root):
    store = LocalStore(root, fsync=False)
    sys.stdin.readline()
    done = 0
    while done < 40:
        blob = await store.get("counter")
        try:
            await store.put_if_match("counter", f"{int(blob.data) + 1:06d}".encode(), blob.stat.etag)
            done += 1
        except Conflict:
            pass
    await store.aclose()

asyncio.run(main(sys.argv[1]))
"""
TOO_LARGE = """
import asyncio, resource, sys
from headwater.errors import Unavailable
from headwater.store.local import LocalStore

async def main(root):
    store = LocalStore(root)
    await store.put_if_absent("small", bytes(1_000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    for call in (store.put_if_absent, store.put):
        try:
            await call("large", bytes(100_000))
        except Unavailable as error:
            assert "disk is full" in str(error) and "not applied" in str(error), error
        else:
            raise SystemExit("a full disk took a whole object")
    await store.put_if_absent("large", bytes(2_000))
    await store.aclose()

asyncio.run(main(sys.argv[1]))
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def keys(store: LocalStore, prefix: str = "", start_after: str = "", limit: int | None = None) -> list[str]:
    return [stat.key async for stat in store.list(prefix, start_after=start_after, limit=limit)]


def test_a_killed_writer_leaves_whole_objects_only(tmp_path: Path) -> None:
    rng = random.Random(7)
    acked: list[str] = []
    for life in range(5):
        child = start(KILLED, tmp_path, life * 1_000_000)
        assert child.stdout is not None
        acked.append(child.stdout.readline().strip())
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(rng.uniform(0.0, 0.08))  # a real process, killed at a real moment
        child.kill()
        acked += child.communicate()[0].split()

    async def check() -> None:
        store = LocalStore(tmp_path)
        found = [key for key in await keys(store) if key.startswith("log/")]
        assert set(acked) <= set(found)
        for key in found:
            number = int(key.removeprefix("log/"))
            assert number.to_bytes(8, "big") * 20_000 + b"end" == (await store.get(key)).data
        latest = (await store.get("latest")).data
        assert latest[:8] * 10_000 == latest
        assert [] == [key for key in await keys(store) if not key.startswith("log/") and key != "latest"]
        await store.put_if_absent("after", b"works")
        await store.aclose()

    asyncio.run(check())


def test_one_of_racing_processes_wins_each_key(tmp_path: Path) -> None:
    children = {name: start(RACER, tmp_path, name) for name in "abcd"}
    outputs = {name: child.communicate("go\n")[0].split() for name, child in _released(children).items()}
    assert [0] * 4 == [child.returncode for child in children.values()]
    won = sorted(int(number) for numbers in outputs.values() for number in numbers)
    assert list(range(150)) == won

    async def check() -> None:
        store = LocalStore(tmp_path)
        for name, numbers in outputs.items():
            for number in numbers:
                assert name.encode() * 1_000 == (await store.get(f"race/{int(number):04d}")).data

    asyncio.run(check())


def _released(children: dict[str, subprocess.Popen[str]]) -> dict[str, subprocess.Popen[str]]:
    """Let all start at once; ``communicate`` would wake one after another."""
    for child in children.values():
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    return children


def test_processes_that_count_with_put_if_match_lose_no_step(tmp_path: Path) -> None:
    asyncio.run(LocalStore(tmp_path, fsync=False).put("counter", b"000000"))
    children = _released({name: start(COUNTER, tmp_path) for name in "abc"})
    for child in children.values():
        child.communicate()
        assert 0 == child.returncode
    assert b"000120" == asyncio.run(LocalStore(tmp_path).get("counter")).data


def test_a_real_full_disk_is_unavailable_and_nothing_is_applied(tmp_path: Path) -> None:
    child = start(TOO_LARGE, tmp_path)
    assert ("", 0) == (child.communicate()[0], child.returncode)
    assert ["large", "small"] == asyncio.run(keys(LocalStore(tmp_path)))
    assert [] == os.listdir(tmp_path / ".tmp")
