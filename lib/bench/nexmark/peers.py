"""Per-record Python peers: Quix Streams and Bytewax, each in an interpreter of its own that has them.

They pin other versions than we do, so they have an environment of their own:

    python -m venv .peers && .peers/bin/pip install quixstreams==3.28.0 bytewax==0.21.1

They get the first events of the same stream as Python dicts, parsed before the clock starts, and run without a broker:
q0 to q2 whole; of q5 only the count in each window, of q7 only the maximum; q11 and q12 whole. Bytewax joins q3, q4 and
q8 with its own operators; Quix with a stateful function over events that lie by the key already, and of q4 only the
best bid of each auction, since another key would need a topic. All of it favours them.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import polars as pl

from headwater.bench.nexmark.generator import Generator

PEERS: Final = {"quixstreams": "peer_quix.py", "bytewax": "peer_bytewax.py"}
VERSIONS: Final = {"quixstreams": "3.28.0", "bytewax": "0.21.1"}
STATELESS: Final = {"q0": 200_000, "q1": 200_000, "q2": 200_000}  # events
JOINED: Final = {"q3": 100_000, "q4": 20_000, "q8": 100_000}
WINDOWED: Final = {"q5": 20_000, "q7": 20_000, "q11": 20_000, "q12": 20_000}
RUN_S_MAX: Final = 120  # of one query
PLACE: Final = ".peers"
NO_EQUIVALENT: Final = "no peer came to the end of this query"


def found(given: str) -> str:
    """The interpreter of the peers: ``given``, or that of ``.peers`` in the working directory. Empty if none."""
    if given:
        return given
    own = Path(PLACE) / "bin" / "python"
    return str(own) if own.exists() else ""


def missing(python: str) -> str:
    """Why there are no peers; empty if there are."""
    if not python:
        install = " ".join(f"{name}=={version}" for name, version in VERSIONS.items())
        return f"no peer is installed: python -m venv {PLACE} && {PLACE}/bin/pip install {install}"
    if not os.access(python, os.X_OK):
        return f"{python} is no program"
    return ""


def measure(python: str, generator: Generator, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Events a second of CPU time by query and peer. A peer that is not installed, or fails, is not in it."""
    sizes = {name: size for name, size in (STATELESS | WINDOWED | JOINED).items() if name in names}
    rates: dict[str, dict[str, float]] = {name: {} for name in names}
    with tempfile.TemporaryDirectory(prefix="headwater-peers-") as folder:
        paths = {name: _written(generator, size, name in JOINED, Path(folder)) for name, size in sizes.items()}
        for peer, script in PEERS.items():
            for name, size in sizes.items():
                seconds = _run(python, script, name, paths[name], folder)
                if seconds is not None:
                    rates[name][peer] = min(size, generator.events) / seconds
    return rates


def best(rates: Mapping[str, float]) -> tuple[str, float] | None:
    """The fastest peer of a query."""
    return max(rates.items(), key=lambda item: item[1]) if rates else None


def _written(generator: Generator, size: int, whole: bool, folder: Path) -> Path:
    """The first events as lines of JSON: of all kinds ``whole``, else what a bid needs."""
    path = folder / f"{size}-{whole}.jsonl"
    if path.exists():
        return path
    few = replace(generator, events=min(size, generator.events))
    events = pl.concat(list(few.blocks())).with_columns(pl.col("ts", "arrived", "expires").cast(pl.Int64))
    more = ["person_id", "name", "city", "state", "auction_id", "seller", "category", "expires"] if whole else []
    columns = ["ts", "arrived", "auction", "bidder", "price", "channel", "url", *more]
    events.select(pl.col("event_type").alias("type"), *columns).write_ndjson(path)
    return path


def _run(python: str, script: str, query: str, events: Path, folder: str) -> float | None:
    command = [python, "-W", "ignore", str(Path(__file__).parent / script), query, str(events)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=RUN_S_MAX, check=True, cwd=folder)
    except (subprocess.SubprocessError, OSError):
        return None
    said: Any = json.loads(done.stdout.splitlines()[-1])
    return float(said["seconds"])
