"""Presigned URLs: the same as botocore's, bit for bit; and a server that checks them opens these bytes only, once."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from headwater.api.presign import Presigner, presigner
from headwater.api.sigv4 import Secret
from headwater.errors import InvalidRequest
from headwater.limits import PRESIGN_S
from headwater.store import ObjectStore, open_store
from headwater.store.metered import MeteredStore
from headwater.store.prefixed import PrefixedStore
from tests.contract.servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server, Servers, servers

NOW_MS = 1_795_612_041_000
KEY = "segment/00000000000000000007-abc0-1"


class Noon:
    """A clock that stands still."""

    def wall_ms(self) -> int:
        return NOW_MS

    def elapsed_s(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError


def made(store: ObjectStore) -> Presigner:
    signer = presigner(store)
    assert signer is not None
    return signer


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)


PLACES = {
    "s3://bucket?region=eu-central-1": f"https://bucket.s3.eu-central-1.amazonaws.com/ns/{KEY}",
    "s3://bucket/some/prefix?region=eu-central-1": f"https://bucket.s3.eu-central-1.amazonaws.com/some/prefix/ns/{KEY}",
    "s3://dotted.bucket/p": f"https://s3.us-east-1.amazonaws.com/dotted.bucket/p/ns/{KEY}",
    "s3://bucket/p?endpoint_url=http://127.0.0.1:9000": f"http://127.0.0.1:9000/bucket/p/ns/{KEY}",
    "s3://bucket/p?endpoint_url=https://s3.example.org:443": f"https://s3.example.org:443/bucket/p/ns/{KEY}",
    "s3://bucket/p?endpoint_url=http://host:80/base&addressing=virtual": f"http://bucket.host:80/base/p/ns/{KEY}",
    "s3://bucket/a~b c+d?region=eu-central-1": f"https://bucket.s3.eu-central-1.amazonaws.com/a~b%20c%2Bd/ns/{KEY}",
}


@pytest.mark.parametrize("token", ["", "a/session+token=="])
@pytest.mark.parametrize("client", ["obstore", "aioboto3"])
@pytest.mark.parametrize("url", PLACES)
def test_urls_are_those_of_botocore(monkeypatch: pytest.MonkeyPatch, url: str, client: str, token: str) -> None:
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    monkeypatch.setattr(
        botocore.auth, "get_current_datetime", lambda: datetime.fromtimestamp(NOW_MS / 1_000, UTC), raising=True
    )
    store = PrefixedStore(open_store(url, clock=Noon(), client=client), "ns/")
    region = "eu-central-1" if "eu-central-1" in url else "us-east-1"
    get, put = made(store).get(KEY, 10, 20, 60), made(store).put(KEY, 77)
    assert {"range": "bytes=10-19"} == get[1]
    assert {"content-length": "77", "if-none-match": "*"} == put[1]
    for (mine, headers), method, expires_s in ((get, "GET", 60), (put, "PUT", PRESIGN_S)):
        assert _botocore(method, PLACES[url], headers, region, token, expires_s) == mine


def _botocore(method: str, url: str, headers: Mapping[str, str], region: str, token: str, expires_s: int) -> str:
    request = AWSRequest(method=method, url=url, headers=dict(headers))
    secret = Credentials(ACCESS_KEY, SECRET_KEY, token or None)
    botocore.auth.S3SigV4QueryAuth(secret, "s3", region, expires=expires_s).add_auth(request)
    return str(request.url)


def test_stores_that_cannot_presign_have_no_presigner(tmp_path: Path) -> None:
    assert presigner(PrefixedStore(open_store("memory://none"), "ns/")) is None
    assert presigner(open_store(f"file://{tmp_path}")) is None
    assert presigner(open_store("s3://express--use1-az4--x-s3")) is None


def test_a_presigner_is_found_below_other_stores_and_made_once() -> None:
    store = PrefixedStore(MeteredStore(open_store("s3://bucket/p")), "ns/")
    assert made(store) is made(store)
    assert urlsplit(made(store).get("k", 0, 1)[0]).path == "/p/ns/k"


def test_the_region_may_come_from_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, secrets = tmp_path / "config", tmp_path / "credentials"
    config.write_text("[profile far]\nregion = ap-south-1\n")
    secrets.write_text("[far]\naws_access_key_id = AKFAR\naws_secret_access_key = s\n")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(secrets))
    url, _ = made(open_store("s3://bucket?profile=far", clock=Noon())).get("k", 0, 1)
    credential = parse_qs(urlsplit(url).query)["X-Amz-Credential"][0]
    assert ("bucket.s3.ap-south-1.amazonaws.com", "AKFAR/20261125/ap-south-1/s3/aws4_request") == (
        urlsplit(url).netloc,
        credential,
    )


def test_urls_may_name_the_service_as_clients_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_PRESIGN_ENDPOINT", "https://s3.example.org")
    for store in ("s3://bucket/p?endpoint_url=http://10.0.0.1:9000", "s3://bucket/p?addressing=path"):
        url, _ = made(open_store(store)).get("k", 0, 1)
        assert url.startswith("https://s3.example.org/bucket/p/k?")
    for bad in ("s3.example.org", "ftp://host", "https://user:secret@host", "https://host?x=1"):
        monkeypatch.setenv("HEADWATER_PRESIGN_ENDPOINT", bad)
        with pytest.raises(InvalidRequest, match="endpoint_url is") as caught:
            presigner(open_store("s3://bucket/p"))
        assert "secret" not in str(caught.value)


def test_bounds_are_kept() -> None:
    signer = made(open_store("s3://bucket"))
    for start, end in ((0, 0), (5, 4), (-1, 3)):
        with pytest.raises(InvalidRequest):
            signer.get("k", start, end)
    for expires_s in (0, PRESIGN_S + 1):
        with pytest.raises(InvalidRequest):
            signer.get("k", 0, 1, expires_s)
    for key in ("", "a/../b", "/a", "a\nb"):
        with pytest.raises(InvalidRequest):
            signer.put(key, 1)


def test_a_secret_does_not_show() -> None:
    assert "Secret(access_key='AK')" == repr(Secret(access_key="AK", secret_key="hidden", token="hidden too"))


# -- a server that checks signatures --------------------------------------------------------------------


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with servers(tmp_path_factory.mktemp("s3")) as started:
        started_here: Servers = started
        yield started_here.get("seaweedfs")


@pytest.mark.servers
def test_a_url_opens_its_range_and_no_other(seaweedfs: S3Server) -> None:
    store = open_store(seaweedfs.url("presign", "obstore"))
    asyncio.run(_put(store, "a/key", bytes(range(100))))
    url, headers = made(store).get("a/key", 10, 20)
    assert (206, bytes(range(10, 20))) == _send("GET", url, headers)
    for range_ in ({}, {"range": "bytes=10-20"}, {"range": "bytes=0-19"}, {"range": "bytes=0-"}):
        assert 403 == _send("GET", url, range_)[0]
    assert 403 == _send("GET", url.replace("a/key", "a/other"), headers)[0]
    assert 403 == _send("GET", url.replace("X-Amz-Expires=900", "X-Amz-Expires=901"), headers)[0]
    assert 403 == _send("PUT", url, headers, b"x")[0]
    assert 403 == _send("DELETE", url, headers)[0]


@pytest.mark.servers
def test_a_url_writes_one_object_of_its_size_once(seaweedfs: S3Server) -> None:
    store = open_store(seaweedfs.url("presign", "obstore"))
    url, headers = made(store).put("new/key", 5)
    assert 403 == _send("PUT", url, {**headers, "content-length": "6"}, b"longer")[0]
    assert 403 == _send("PUT", url, {"content-length": "5"}, b"plain")[0]
    assert 403 == _send("GET", url, {})[0]
    assert 200 == _send("PUT", url, headers, b"first")[0]
    assert 412 == _send("PUT", url, headers, b"again")[0]
    assert b"first" == asyncio.run(_get(store, "new/key"))
    assert BUCKET in url


async def _put(store: ObjectStore, key: str, data: bytes) -> None:
    await store.put(key, data)


async def _get(store: ObjectStore, key: str) -> bytes:
    return (await store.get(key)).data


def _send(method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, method=method, headers=dict(headers), data=body)
    request.add_unredirected_header("Content-type", "application/octet-stream")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: Any = answer.status
            return int(found), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
