"""Kafka Streams applications in processes of their own.

HEADWATER_STREAMS_CLASSPATH has kafka-streams and kafka-clients 3.6 or newer and what they need (slf4j, a compressor or
none, and RocksDB's classes, though the jobs keep their state in memory).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CLASSPATH = os.environ.get("HEADWATER_STREAMS_CLASSPATH", "")
WAIT_S = 150.0  # for the next result, with sessions and transactions of killed instances that have to end

needs_streams = pytest.mark.skipif(not CLASSPATH, reason="HEADWATER_STREAMS_CLASSPATH names no Kafka Streams")


class Application:
    """A job whose source lies here, and its instances."""

    def __init__(self, name: str, bootstrap: str, folder: Path) -> None:
        self._name, self._bootstrap, self._folder = name, bootstrap, folder
        sources = [str(Path(__file__).with_name(f"{each}.java")) for each in (name, "StreamsRun")]
        words = ["javac", "-cp", CLASSPATH, "-d", str(folder / "classes"), *sources]
        subprocess.run(words, check=True, timeout=120)

    @contextmanager
    def instance(self, number: int) -> Iterator[subprocess.Popen[bytes]]:
        """One that is killed at the end without a word."""
        folder = self._folder / "states"
        folder.mkdir(exist_ok=True)
        classpath = f"{self._folder / 'classes'}:{CLASSPATH}"
        words = ["java", "-cp", classpath, self._name, self._bootstrap, str(folder / f"{number}")]
        with (folder / f"{number}.log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
            try:
                yield process
            finally:
                process.kill()
