"""What infra/build refuses, and that light functions import nothing that they do not ship."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from headwater.api.service import Service
from headwater.log.namespace import Namespace
from headwater.store.local import LocalStore
from tests.deploy.helpers_template import ROOT

NOT_SHIPPED = ("aioboto3", "aiohttp", "boto3", "botocore", "click", "numpy", "rich")
SERVE_ALL = """
import json, runpy, sys
for name in json.loads(sys.argv[2]):
    sys.modules[name] = None
handler = runpy.run_path(sys.argv[1])["handler"]
print(json.dumps([handler(event, None) for event in json.loads(sys.argv[3])]))
"""


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(("moon",), {}), (("fetch",), {"ARCHITECTURE": "riscv"})],
    ids=["unknown function", "unknown architecture"],
)
def test_the_build_refuses_what_it_does_not_know(
    arguments: tuple[str, ...], environment: dict[str, str], tmp_path: Path
) -> None:
    target = tmp_path / "artifact"
    done = subprocess.run(
        [ROOT / "infra/build", *arguments, target],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert 1 == done.returncode
    assert done.stderr.startswith("headwater: ")
    assert not target.exists()


def app_of(function: str) -> str:
    return str(ROOT / "functions" / function / "app.py")


@pytest.mark.parametrize(
    ("function", "path", "absent"),
    [
        ("maintain", "", NOT_SHIPPED),
        ("maintain", "/maintain", NOT_SHIPPED),
        ("admin", "/admin/topics", (*NOT_SHIPPED, "aiokafka", "pyarrow")),
        ("admin", "/admin/keys", (*NOT_SHIPPED, "aiokafka", "pyarrow")),
        ("fetch", "/topics", NOT_SHIPPED),
        ("groups", "/groups", NOT_SHIPPED),
    ],
)
def test_a_function_works_with_what_it_ships(function: str, path: str, absent: tuple[str, ...], tmp_path: Path) -> None:
    method = "POST" if path == "/maintain" else "GET"
    event = {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": "application/json"},
        "requestContext": {"http": {"method": method, "path": path, "sourceIp": "192.0.2.1"}, "domainName": "x.test"},
        "isBase64Encoded": False,
    }
    scheduled = {"source": "aws.events"}
    asked = json.dumps([event if path else scheduled])
    done = subprocess.run(
        [sys.executable, "-c", SERVE_ALL, app_of(function), json.dumps(absent), asked],
        capture_output=True,
        text=True,
        env={**os.environ, "HEADWATER_STORE": f"file://{tmp_path}/log", "HEADWATER_AUTH": "none"},
        check=True,
    )
    (answer,) = json.loads(done.stdout.splitlines()[-1])
    if path:
        assert 200 == answer["statusCode"], answer
    else:
        assert ([], 1) == (answer["failed"], len(answer["reports"]))
        assert [] == answer["reports"][0]["failed"]


def test_the_console_draws_its_pages_with_what_it_ships(tmp_path: Path) -> None:
    async def fill() -> str:
        async with await Namespace.open(LocalStore(tmp_path / "log")) as space:
            await space.create_topic("t", 1)
            return (await Service(space).create_key("ops"))[1]

    # What infra/build leaves out is not there, be it somebody else's or our own.
    build = (ROOT / "infra/build").read_text()
    (parts,) = re.findall(r"^parts=\((.*)\)$", build, re.MULTILINE)
    (more,) = re.findall(r"parts\+=\((console.*?)\)", build)
    shipped = {*parts.split(), *more.split()}
    own = [f"headwater.{each.name}" for each in (ROOT / "lib").iterdir() if each.is_dir() and each.name not in shipped]
    assert {"headwater.kafka", "headwater.sim"} <= set(own)
    cookies = [f"headwater_token={asyncio.run(fill())}"]
    events = [
        {
            "version": "2.0",
            "rawPath": path,
            "rawQueryString": query,
            "cookies": cookies,
            "requestContext": {"http": {"method": "GET", "path": path}, "domainName": "x.test"},
        }
        for path, query in (
            ("/console", ""),
            ("/console/topics/t/messages", "where=offset+%3E+0"),
            ("/console/groups", ""),
            ("/console/streams", ""),
            ("/console/commits/1", ""),
            ("/console/storage", "count=1"),
        )
    ]
    kept = re.findall(r"(_\w+)\.\*", build)
    arrow = {path.name.partition(".")[0] for path in Path(pa.__file__).parent.glob("_*.so")}
    assert {"_compute", "_dataset", "_parquet"} <= arrow & set(kept)
    cut = [f"pyarrow.{name}" for name in sorted(arrow - set(kept))]
    absent = json.dumps([*NOT_SHIPPED, "polars", *own, *cut])
    done = subprocess.run(
        [sys.executable, "-c", SERVE_ALL, app_of("console"), absent, json.dumps(events)],
        capture_output=True,
        text=True,
        env={**os.environ, "HEADWATER_STORE": f"file://{tmp_path}/log"},
        check=True,
    )
    answers = json.loads(done.stdout.splitlines()[-1])
    assert [200] * len(events) == [answer["statusCode"] for answer in answers]
    assert {"text/html; charset=utf-8"} == {answer["headers"]["content-type"] for answer in answers}
