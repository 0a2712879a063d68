"""Spark for tests: whether this machine has it, how a session is made, and topics to read."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headwater.log.batch import encode_arrow
from headwater.log.namespace import Namespace
from headwater.store import open_store

ROOT = Path(__file__).resolve().parents[2]


def skip_without_spark() -> None:
    """Skip the calling module, and say why, where Spark cannot run."""
    pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'headwater[spark]'")
    if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
        pytest.skip("there is no Java, which Spark runs on", allow_module_level=True)


def spark_session(scratch: Path) -> Any:
    """A local session with two cores that leaves nothing behind."""
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    builder: Any = SparkSession.builder
    spark = (
        builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.warehouse.dir", str(scratch / "warehouse"))
        .config("spark.local.dir", str(scratch))
        .config("spark.sql.python.filterPushdown.enabled", "true")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("FATAL")
    return spark


def records(start: int, count: int, *, partition: int = 0, step_ms: int = 1_000) -> pa.Table:
    """Rows with a key, a value that names them, and a second between them."""
    numbers = range(start, start + count)
    return pa.table(
        {
            "timestamp": pa.array([step_ms * n for n in numbers], pa.timestamp("ms", "UTC")),
            "key": [f"k{n % 7}".encode() for n in numbers],
            "value": [f"{partition}-{n}".encode() for n in numbers],
        }
    )


def in_namespace(url: str, work: Any) -> Any:
    """What ``work(namespace)`` gives, with a namespace of its own."""

    async def opened() -> Any:
        async with await Namespace.open(open_store(url), owns_store=True) as namespace:
            return await work(namespace)

    return asyncio.run(opened())


def fill(url: str, topic: str, tables: Mapping[int, Sequence[pa.Table]]) -> None:
    """Make the topic if need be, and append the tables to its partitions, one commit for each."""

    async def work(namespace: Namespace) -> None:
        if namespace.state.named(topic) is None:
            await namespace.create_topic(topic, max(tables) + 1)
        for partition, parts in tables.items():
            for part in parts:
                await namespace.append(topic, partition, encode_arrow(part))

    in_namespace(url, work)


def values(url: str, topic: str) -> list[str]:
    """All values of the topic, sorted."""
    from headwater.replay import replay

    found: Any = replay(url, topic, columns=["value"]).read_all()["value"].to_pylist()
    return sorted(value.decode() for value in found)


def run_program(program: str, arguments: Sequence[str], scratch: Path) -> tuple[int, str]:
    """Run a program that uses Spark in a process of its own, until it ends or is killed: its code, what it said last.

    What it says goes to a file: a worker that outlives it for a moment would keep a pipe open.
    """
    path = scratch / "program.py"
    path.write_text(program)
    python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    environment = {**os.environ, **python, "PYTHONPATH": str(ROOT)}
    said = scratch / "said.txt"
    with said.open("wb") as out:
        done = subprocess.run(
            [sys.executable, str(path), *arguments],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            timeout=200,
            check=False,
            cwd=scratch,
        )
    return done.returncode, said.read_text()[-4_000:]
