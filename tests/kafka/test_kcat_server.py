"""kcat, Debian's package, writes and reads through a gateway unchanged."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

KCAT = shutil.which("kcat")


def kcat(running: Any, *words: str, stdin: str = "") -> str:
    """What kcat prints; it fails the test where kcat fails."""
    assert KCAT is not None
    command = [KCAT, "-b", running.bootstrap, *words]
    done = subprocess.run(command, input=stdin, check=False, capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode, done.stderr
    return done.stdout


@pytest.mark.skipif(KCAT is None, reason="there is no kcat here (Debian: apt-get install kcat)")
def test_kcat_writes_reads_and_lists(kafka: Any) -> None:
    kafka.create_topic("events", 2)
    lines = "".join(f"k{n}:v{n}\n" for n in range(40))
    for codec, partition in (("none", "0"), ("zstd", "1")):
        kcat(kafka, "-P", "-t", "events", "-p", partition, "-K", ":", "-z", codec, stdin=lines)
    for partition in ("0", "1"):
        read = kcat(kafka, "-C", "-q", "-e", "-o", "beginning", "-t", "events", "-p", partition, "-f", "%k:%s\n")
        assert lines == read
    assert "v38\nv39\n" == kcat(kafka, "-C", "-q", "-e", "-o", "-2", "-t", "events", "-p", "0")
    assert "events [0] offset 40" in kcat(kafka, "-Q", "-t", "events:0:-1")
    topics = {topic["topic"]: len(topic["partitions"]) for topic in json.loads(kcat(kafka, "-L", "-J"))["topics"]}
    assert 2 == topics["events"]
