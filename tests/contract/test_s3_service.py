"""What only a service has: buckets that are missing, credentials that are wrong, an order of its own."""

from __future__ import annotations

import asyncio

import pytest

from headwater.errors import Forbidden, InvalidRequest, NotFound, Unauthorized
from headwater.store import open_store
from tests.contract.conftest import Place
from tests.contract.servers import Servers
from tests.contract.test_object_store import keys


def test_a_missing_bucket_is_named(strict_place: Place) -> None:
    assert strict_place.server is not None
    url = strict_place.server.url("p", strict_place.client, bucket="no-such-bucket")

    async def work() -> None:
        store = open_store(url)
        for call in (store.put("k", b""), store.put_if_absent("k", b""), store.get("k"), store.delete(["k"])):
            with pytest.raises(NotFound, match="no-such-bucket"):
                await call
        with pytest.raises(NotFound, match="no-such-bucket"):
            await keys(store, "")
        await store.aclose()

    asyncio.run(work())


@pytest.mark.servers
@pytest.mark.parametrize("client", ["obstore", "aioboto3"])
@pytest.mark.parametrize(
    ("name", "value"), [("AWS_SECRET_ACCESS_KEY", "not-the-secret"), ("AWS_ACCESS_KEY_ID", "nobody")]
)
def test_wrong_credentials_are_unauthorized_and_not_shown(
    started: Servers, monkeypatch: pytest.MonkeyPatch, client: str, name: str, value: str
) -> None:
    server = started.get("seaweedfs")
    assert server.checks_credentials
    monkeypatch.setenv(name, value)

    async def work() -> None:
        store = open_store(server.url("p", client))
        for call in (store.put("k", b""), store.put_if_absent("k", b""), store.get("k")):
            with pytest.raises(Unauthorized) as error:
                await call
            assert "not-the-secret" not in str(error.value)
        with pytest.raises(Unauthorized):
            await keys(store, "")
        with pytest.raises((Unauthorized, Forbidden)):  # the answer to a HEAD has no body that would say why
            await store.head("k")
        await store.aclose()

    asyncio.run(work())


@pytest.mark.servers
@pytest.mark.parametrize("client", ["obstore", "aioboto3"])
def test_a_service_that_breaks_the_order_is_caught(started: Servers, client: str) -> None:
    url = started.get("seaweedfs").url(f"disorder-{client}", client).replace("unsorted", "sorted")

    async def work() -> None:
        store = open_store(url)
        await store.put("d/a-b", b"")
        await store.put("d/a/x", b"")
        with pytest.raises(InvalidRequest, match="lists=unsorted"):
            await keys(store, "d/")
        assert ["d/a/x"] == await keys(store, "d/a/")
        await store.aclose()

    asyncio.run(work())
