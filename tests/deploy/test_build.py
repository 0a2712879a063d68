"""What infra/build refuses, and that light functions import nothing that they do not ship."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.helpers_template import ROOT

NOT_SHIPPED = ("aioboto3", "aiohttp", "boto3", "botocore", "click", "numpy", "rich")
SERVE_ONE = """
import json, sys
for name in json.loads(sys.argv[2]):
    sys.modules[name] = None
from headwater.api.runtime import function
answer = function(sys.argv[1])(json.loads(sys.argv[3]), None)
print(json.dumps(answer))
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
    done = subprocess.run(
        [sys.executable, "-c", SERVE_ONE, function, json.dumps(absent), json.dumps(event if path else scheduled)],
        capture_output=True,
        text=True,
        env={**os.environ, "HEADWATER_STORE": f"file://{tmp_path}/log", "HEADWATER_AUTH": "none"},
        check=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    if path:
        assert 200 == answer["statusCode"], answer
    else:
        assert ([], 1) == (answer["failed"], len(answer["reports"]))
        assert [] == answer["reports"][0]["failed"]
