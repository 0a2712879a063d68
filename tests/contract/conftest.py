"""The stores that the contract is held to: each test runs once on each of them, below a prefix of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headwater.store import ObjectStore, open_store
from tests.contract.servers import ACCESS_KEY, SECRET_KEY, S3Server, Servers, servers

_number = itertools.count()


@dataclass(frozen=True)
class Place:
    """Where a test's objects are; every ``open`` is another client of the same objects."""

    kind: str
    url: str
    server: S3Server | None = None

    @property
    def client(self) -> str:
        return self.kind.partition("-")[2]

    def open(self) -> ObjectStore:
        return open_store(self.url)


@pytest.fixture(scope="session", autouse=True)
def aws_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Known credentials, and nothing from the machine's own AWS files or metadata service."""
    nowhere = str(tmp_path_factory.mktemp("aws") / "none")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", nowhere)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        patch.delenv("HEADWATER_S3_CLIENT", raising=False)
        yield


@pytest.fixture(scope="session")
def started(aws_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with servers(tmp_path_factory.mktemp("servers")) as pool:
        yield pool


REAL = [
    pytest.param(f"{server}-{client}", marks=pytest.mark.servers)
    for server in ("ministack", "seaweedfs")
    for client in ("obstore", "aioboto3")
]
S3 = ["moto-obstore", "moto-aioboto3", *REAL]


def place_of(kind: str, started: Servers, tmp_path: Path) -> Place:
    number = next(_number)
    if kind == "memory":
        return Place(kind, f"memory://test-{number}")
    if kind == "local":
        return Place(kind, f"file://{tmp_path}/bucket")
    name, _, client = kind.partition("-")
    server = started.get(name)
    return Place(kind, server.url(f"t{number}/p", client), server)


@pytest.fixture(params=["memory", "local", *S3])
def place(request: pytest.FixtureRequest, started: Servers, tmp_path: Path) -> Place:
    return place_of(request.param, started, tmp_path)


@pytest.fixture(params=["memory", "local", *REAL])
def large_place(request: pytest.FixtureRequest, started: Servers, tmp_path: Path) -> Place:
    return place_of(request.param, started, tmp_path)


# SeaweedFS makes a bucket that is written to.
@pytest.fixture(params=["moto-obstore", "moto-aioboto3", *REAL[:2]])
def strict_place(request: pytest.FixtureRequest, started: Servers, tmp_path: Path) -> Place:
    return place_of(request.param, started, tmp_path)
