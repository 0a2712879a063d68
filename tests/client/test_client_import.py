"""Importing the client is cheap: what is slow comes when it is used."""

from __future__ import annotations

import subprocess
import sys

import headwater.client


def loaded(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(result.stdout.split())


def test_the_package_brings_nothing_slow() -> None:
    assert not {"pyarrow", "aiohttp", "botocore", "msgspec", "obstore"} & loaded("import headwater.client")


def test_http_and_its_signatures_come_when_they_are_used() -> None:
    assert not {"aiohttp", "botocore"} & loaded("from headwater.client import Producer, Consumer, Admin, connect")


def test_every_public_name_is_there() -> None:
    for name in headwater.client.__all__:
        assert getattr(headwater.client, name).__name__ == name
