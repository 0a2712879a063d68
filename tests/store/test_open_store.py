from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.errors import InvalidRequest
from headwater.store import ObjectStore, open_store
from headwater.store.local import LocalStore
from headwater.store.memory import MemoryStore
from headwater.store.prefixed import PrefixedStore
from headwater.store.s3_aioboto3 import Aioboto3S3Store
from headwater.store.s3_obstore import ObstoreS3Store
from headwater.store.s3_url import parse_s3_url


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory://name", MemoryStore),
        ("file:///data/somewhere", LocalStore),
        ("file://./somewhere", LocalStore),
        ("s3://bucket", ObstoreS3Store),
        ("s3://bucket/a/b?region=eu-west-1&client=obstore", ObstoreS3Store),
        ("s3://bucket/a/b/?endpoint_url=http://127.0.0.1:1&client=aioboto3", Aioboto3S3Store),
    ],
)
def test_a_url_opens_its_store_and_sends_nothing(url: str, kind: type) -> None:
    store = open_store(url)
    assert kind is type(store)
    assert isinstance(store, ObjectStore)
    asyncio.run(store.aclose())
    asyncio.run(store.aclose())


def test_memory_is_shared_by_name_only() -> None:
    async def work() -> None:
        await open_store("memory://shared").put("k", b"x")
        assert b"x" == (await open_store("memory://shared").get("k")).data
        assert [] == [stat async for stat in open_store("memory://other").list("")]
        assert [] == [stat async for stat in MemoryStore().list("")]

    asyncio.run(work())


def test_a_relative_directory_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"file://{tmp_path}/a%20b" == open_store("file://./a b").url
    assert open_store("file://./a%20b").url == open_store("file://./a b").url


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "memory://name"),
        ("bucket/prefix", "s3://bucket"),
        ("gs://bucket", "s3://bucket"),
        ("https://bucket", "'https'"),
        ("memory://", "memory://name"),
        ("memory://a/b", "memory://name"),
        ("file://somewhere", "file:///absolute"),
        ("file:///a?b=c", "%3F"),
        ("s3://", "no valid bucket"),
        ("s3:///prefix", "no valid bucket"),
        ("s3://bu cket/p", "no valid bucket"),
        ("s3://bucket/a//b", "'..' part"),
        ("s3://bucket/../b", "'..' part"),
        ("s3://bucket/p#x", "'#'"),
        ("s3://bucket/p?region", "name=value"),
        ("s3://bucket/p?regoin=x", "no option 'regoin'; known are endpoint_url, region, profile, client"),
        ("s3://bucket/p?region=a&region=b", "twice"),
        ("s3://bucket/p?client=boto3", "obstore or aioboto3"),
        ("s3://bucket/p?addressing=dns", "path or virtual"),
        ("s3://bucket/p?lists=maybe", "sorted or unsorted"),
        ("s3://bucket/p?timeout_s=soon", "number of seconds"),
        ("s3://bucket/p?timeout_s=0", "number of seconds"),
        ("s3://bucket/p?connect_timeout_s=nan", "number of seconds"),
        ("s3://bucket/p?endpoint_url=localhost:9000", "http://host:port"),
        ("s3://bucket/p?endpoint_url=http://h:99999", "http://host:port"),
        ("s3://[bucket/p", "cannot be read"),
    ],
)
def test_a_malformed_url_says_which_form_is_right(url: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        open_store(url)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAKEY:hunter2@bucket/p",
        "s3://bucket/p?secret_access_key=hunter2",
        "s3://bucket/p?endpoint_url=http://user:hunter2@host:1",
        "s3://bucket/p?timeout_s=hunter2",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        open_store(url)
    assert "hunter2" not in str(error.value)


def test_the_environment_fills_in_what_the_url_leaves_out() -> None:
    env = {"AWS_ENDPOINT_URL": "http://h:1/", "AWS_DEFAULT_REGION": "eu-west-1"}
    target = parse_s3_url("s3://bucket", env)
    assert ("http://h:1", "eu-west-1", "path", "") == (
        target.endpoint_url,
        target.region,
        target.addressing,
        target.prefix,
    )
    env |= {"AWS_REGION": "eu-west-2", "AWS_ENDPOINT_URL_S3": "https://s3:2"}
    target = parse_s3_url("s3://bucket", env)
    assert ("https://s3:2", "eu-west-2") == (target.endpoint_url, target.region)
    target = parse_s3_url("s3://bucket?region=x-1&endpoint_url=http://own:3", env)
    assert ("http://own:3", "x-1") == (target.endpoint_url, target.region)
    assert parse_s3_url("s3://bucket", env | {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}).endpoint_url is None


def test_aws_buckets_are_hosts_unless_their_name_has_a_dot() -> None:
    assert "virtual" == parse_s3_url("s3://bucket", {}).addressing
    assert "path" == parse_s3_url("s3://my.bucket", {}).addressing
    assert "path" == parse_s3_url("s3://bucket?addressing=path", {}).addressing


def test_directory_buckets_list_unsorted() -> None:
    assert "sorted" == parse_s3_url("s3://bucket", {}).lists
    assert "unsorted" == parse_s3_url("s3://b--use1-az4--x-s3", {}).lists


def test_the_canonical_url_opens_the_same_store() -> None:
    url = "s3://bucket/a/b?endpoint_url=http://127.0.0.1:1&region=eu-west-1&client=aioboto3"
    assert url == open_store(url).url
    assert (
        url == open_store("s3://bucket/a/b/?client=aioboto3&endpoint_url=http%3A%2F%2F127.0.0.1:1&region=eu-west-1").url
    )


@pytest.mark.parametrize(
    ("argument", "option", "env", "kind"),
    [
        (None, "", None, ObstoreS3Store),
        (None, "", "aioboto3", Aioboto3S3Store),
        (None, "?client=obstore", "aioboto3", ObstoreS3Store),
        ("aioboto3", "?client=obstore", "obstore", Aioboto3S3Store),
    ],
)
def test_the_nearest_word_chooses_the_client(
    argument: str | None, option: str, env: str | None, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    if env:
        monkeypatch.setenv("HEADWATER_S3_CLIENT", env)
    assert kind is type(open_store(f"s3://bucket/p{option}", client=argument))


def test_an_unknown_client_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="obstore or aioboto3"):
        open_store("s3://bucket", client="curl")


def test_importing_the_package_imports_no_s3_client() -> None:
    program = "import sys, headwater.store; print(*{'boto3', 'botocore', 'aiohttp', 'obstore'} & set(sys.modules))"
    assert "\n" == subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_a_prefixed_view_has_a_url_that_opens_the_same_objects() -> None:
    inner = open_store("s3://bucket/a?client=obstore&region=eu-west-1")
    assert "s3://bucket/a/ns?region=eu-west-1&client=obstore" == PrefixedStore(inner, "ns").url
    assert "s3://bucket/ns" == PrefixedStore(open_store("s3://bucket"), "ns").url
    with pytest.raises(InvalidRequest):
        PrefixedStore(inner, "a//b")
