"""Iceberg and SQL over a bucket of S3: places, credentials and range reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater.log.namespace import Namespace
from headwater.replay import as_of
from headwater.replay.iceberg import sync
from headwater.store import open_store
from tests.contract.servers import ACCESS_KEY, SECRET_KEY, S3Server, servers
from tests.replay.archives import archive_all, fill

pytest.importorskip("pyiceberg")


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with servers(tmp_path_factory.mktemp("s3")) as started:
        yield started.get("moto")


@pytest.fixture
def url(moto: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A prefix of the bucket; the folder for the embedded catalog is a fresh one."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return f"{moto.url('lake/p', 'obstore')}&region=us-east-1"


def table_of(moto: S3Server, name: str) -> Any:
    from pyiceberg.catalog import load_catalog

    options = {"uri": "sqlite:///.headwater/_iceberg/catalog.db", "s3.endpoint": moto.endpoint_url}
    return load_catalog("headwater", **options, **{"s3.region": "us-east-1"}).load_table(name)


def test_a_table_over_a_bucket(moto: S3Server, url: str) -> None:
    async def main() -> None:
        async with await Namespace.open(open_store(url), "ns", owns_store=True) as log:
            await log.create_topic("t")
            await fill(log, "t", 0, 30)
            for base in (0, 10):
                await archive_all(log, "t", 0, base, base + 10)
            done = await sync(log, "t")
            assert (2, 20) == (done.added, done.records)
            assert done.metadata.startswith("s3://headwater-test/lake/p/_iceberg/ns/t/metadata/")
            assert 0 == (await sync(log, "t")).added
            await archive_all(log, "t", 0, 20, 30)
            assert 1 == (await sync(log, "t", create=False)).added

    asyncio.run(main())
    table = table_of(moto, "ns.t")
    paths = [task.file.file_path for task in table.scan(row_filter="offset >= 25").plan_files()]
    assert [True] == [path.startswith("s3://headwater-test/lake/p/ns/archive/topic=t/partition=0/") for path in paths]
    assert list(range(30)) == sorted(table.scan().to_arrow().column("offset").to_pylist())


def test_sql_over_a_bucket(url: str) -> None:
    pytest.importorskip("duckdb")

    async def main() -> None:
        async with await Namespace.open(open_store(url), "sql", owns_store=True) as log:
            await log.create_topic("t")
            await fill(log, "t", 0, 30)
            await archive_all(log, "t", 0, 0, 20)

    asyncio.run(main())
    cut = as_of(url, 3, namespace="sql")
    try:
        found = cut.sql('SELECT count(*) AS n, max(decode(value)) AS top FROM t WHERE "offset" < 25').read_all()
        assert [{"n": 25, "top": "v9"}] == found.to_pylist()
    finally:
        cut.close()
