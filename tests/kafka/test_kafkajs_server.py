"""kafkajs, from its own registry, writes and reads through a gateway unchanged; Kafka's Java client where its jars are.

HEADWATER_KAFKA_JARS names a folder with kafka-clients and what it needs (slf4j, lz4, snappy, zstd).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CLIENTS = Path(__file__).parent / "clients"
INSTALLED = Path(__file__).resolve().parents[2] / ".servers" / "kafkajs"
VERSION = "2.2.4"
JARS = os.environ.get("HEADWATER_KAFKA_JARS", "")


@pytest.mark.servers
@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm to install kafkajs with")
def test_kafkajs_writes_and_reads(kafka: Any) -> None:
    if not (INSTALLED / "node_modules" / "kafkajs").exists():
        INSTALLED.mkdir(parents=True, exist_ok=True)
        words = ["npm", "install", "--silent", "--no-audit", "--no-fund", f"kafkajs@{VERSION}"]
        subprocess.run(words, cwd=INSTALLED, check=True, capture_output=True, timeout=120)
    done = subprocess.run(
        ["node", str(CLIENTS / "kafkajs.js"), kafka.bootstrap],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "NODE_PATH": str(INSTALLED / "node_modules")},
    )
    assert 0 == done.returncode, done.stderr
    values = sorted([*(f"v{n}" for n in range(50)), "commit", "late commit"])
    expected = {"created": True, "values": values, "reset": ["-2", "-2"], "again": "0", "groups": ["js", "lost"]}
    assert expected == json.loads(done.stdout)


@pytest.mark.skipif(not JARS, reason="HEADWATER_KAFKA_JARS names no folder with Kafka's Java client")
def test_the_java_client_is_exactly_once_in_both_group_protocols(kafka: Any) -> None:
    jars = os.pathsep.join(str(path) for path in Path(JARS).rglob("*.jar"))
    words = ["java", "-cp", jars, str(CLIENTS / "JavaClient.java"), kafka.bootstrap]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120)
    assert 0 == done.returncode, done.stderr
    assert "200 records, each once; transactions [CompleteAbort]" in done.stdout
