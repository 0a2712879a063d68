"""Who asks: right credentials name a principal, wrong ones learn nothing, and no signature is good twice."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from headwater.api import auth, sigv4
from headwater.api.auth import UNKNOWN, Authenticator, Identity, SigningKey, principal_of, read_signing_keys
from headwater.api.messages import Request
from headwater.api.service import Service
from headwater.errors import HeadwaterError, InvalidRequest, Throttled, Unauthorized, Unavailable
from headwater.limits import AUTH_FRESH_S, AUTH_HEADER_BYTES_MAX, AUTH_RETRY_S, SIGV4_SKEW_S
from headwater.log.namespace import Namespace
from headwater.log.operations import AclRule, RevokeKey, SetKey
from headwater.sim.loop import SimClock, sim_loop
from headwater.store.base import ObjectStore
from tests.log.helpers import memory, opened, simulate
from tests.log.helpers_store import Scripted, away

SECRET = "s3cr-t_with_all-signs"


def bearer(token: str) -> Request:
    return Request(method="GET", path="/topics", headers={"authorization": f"Bearer {token}"})


def authenticator(mode: str = "token") -> Authenticator:
    return Authenticator(mode, SimClock(sim_loop()))


async def keyed(store: ObjectStore, *, expires_ms: int = 0, scopes: tuple[AclRule, ...] = ()) -> Namespace:
    """A namespace with the key ``abcd`` of ann."""
    namespace = await opened(store)
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    op = SetKey(key="abcd", hash=digest, principal="ann", expires_ms=expires_ms, scopes=list(scopes))
    await namespace.writer.commit(ops=[op])
    return namespace


async def refused(mode: Authenticator, request: Request, namespace: Namespace | None) -> str:
    with pytest.raises(Unauthorized) as caught:
        await mode.authenticate(request, namespace)
    assert ("no", 401) == (caught.value.applied, caught.value.status)
    return caught.value.message


# -- modes ----------------------------------------------------------------------------------------------


def test_an_unknown_mode_is_refused() -> None:
    for mode in ("", "IAM", "tokens"):
        with pytest.raises(InvalidRequest, match="iam, token, sigv4, none"):
            Authenticator(mode)


def test_without_authentication_everybody_is_root() -> None:
    async def main() -> None:
        request = Request(method="GET", path="/", principal="arn:aws:iam::123456789012:user/ann")
        assert Identity(principal="root") == await authenticator("none").authenticate(request, None)

    simulate(main())


@pytest.mark.parametrize(
    ("arn", "principal"),
    [
        ("arn:aws:iam::123456789012:user/ann", "arn:aws:iam::123456789012:user/ann"),
        ("arn:aws:iam::123456789012:root", "arn:aws:iam::123456789012:root"),
        ("arn:aws:sts::123456789012:assumed-role/Writer/session-1", "arn:aws:iam::123456789012:role/Writer"),
        ("arn:aws:sts::123456789012:assumed-role/Writer/a@b.c/d", "arn:aws:iam::123456789012:role/Writer"),
        ("arn:aws-cn:sts::123456789012:assumed-role/W/i-0abc", "arn:aws-cn:iam::123456789012:role/W"),
        ("arn:aws:sts::123456789012:assumed-role/Writer", "arn:aws:sts::123456789012:assumed-role/Writer"),
        ("arn:aws:sts::123456789012:federated-user/ann", "arn:aws:sts::123456789012:federated-user/ann"),
    ],
)
def test_sessions_of_a_role_are_the_role(arn: str, principal: str) -> None:
    async def main() -> None:
        request = Request(method="GET", path="/", principal=arn)
        assert Identity(principal=principal) == await authenticator("iam").authenticate(request, None)
        assert principal == principal_of(arn)

    simulate(main())


def test_iam_without_a_principal_is_refused_whatever_the_headers_say() -> None:
    async def main() -> None:
        namespace = await keyed(memory())
        assert "AWS_IAM" in await refused(authenticator("iam"), bearer(f"hw_abcd_{SECRET}"), namespace)

    simulate(main())


# -- API keys -------------------------------------------------------------------------------------------


def test_a_key_names_its_principal_and_its_scopes() -> None:
    async def main() -> None:
        rule = AclRule("ann", "read", "topic", "t")
        namespace = await keyed(memory(), scopes=(rule,))
        expected = Identity(principal="ann", scopes=[rule])
        for scheme in ("Bearer", "bearer", "BEARER"):
            request = Request(method="GET", path="/", headers={"authorization": f"{scheme} hw_abcd_{SECRET}"})
            assert expected == await authenticator().authenticate(request, namespace)

    simulate(main())


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("user", ["abcd", "ann"])
def test_a_key_is_the_password_of_itself_and_of_its_principal(user: str) -> None:
    """As clients of a schema registry show it (``basic.auth.user.info``)."""

    async def main() -> None:
        namespace = await keyed(memory())
        request = Request(method="GET", path="/", headers={"authorization": basic(user, f"hw_abcd_{SECRET}")})
        assert Identity(principal="ann") == await authenticator().authenticate(request, namespace)
        assert authenticator().may_be_known(request)

    simulate(main())


def test_a_key_that_the_service_made_is_good_until_it_is_revoked() -> None:
    async def main() -> None:
        namespace = await opened(memory())
        service = Service(namespace)
        info, token = await service.create_key("ann")
        assert Identity(principal="ann") == await authenticator().authenticate(bearer(token), namespace)
        await service.revoke_key(info.key)
        assert UNKNOWN == await refused(authenticator(), bearer(token), namespace)

    simulate(main())


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer hw_",
        "Bearer hw__",
        "Bearer hw_abcd",
        "Bearer hw_abcd_",
        "Bearer hw_abcd_wrong",
        f"Bearer hw_abcd_{SECRET}x",
        f"Bearer hw_abcd_{SECRET[:-1]}",
        f"Bearer hw_abcd_{SECRET} x",
        f"Bearer hw_ABCD_{SECRET}",
        f"Bearer hw_other_{SECRET}",
        f"Bearer abcd_{SECRET}",
        f"Bearer hw__{SECRET}",
        f"Basic hw_abcd_{SECRET}",
        basic("bob", f"hw_abcd_{SECRET}"),
        basic("", f"hw_abcd_{SECRET}"),
        basic("ann", SECRET),
        basic("ann", f"hw_abcd_{SECRET}x"),
        basic("ann", f"hw_abcd_{SECRET}") + "!",
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        "Basic " + "A" * 1_000_000,
        f"hw_abcd_{SECRET}",
        f"Bearer hw_abcd_{hashlib.sha256(SECRET.encode()).hexdigest()}",
        "Bearer hw_abcd_é☃",
        f"Bearer hw_abcd_{SECRET}" + " " * AUTH_HEADER_BYTES_MAX,
        "Bearer hw_abcd_" + "x" * 1_000_000,
    ],
)
def test_whatever_is_wrong_is_the_same_401(header: str | None) -> None:
    async def main() -> None:
        namespace = await keyed(memory())
        request = Request(method="GET", path="/", headers={} if header is None else {"authorization": header})
        assert UNKNOWN == await refused(authenticator(), request, namespace)
        assert UNKNOWN == await refused(authenticator(), request, None)

    simulate(main())


def test_a_right_token_for_no_namespace_is_the_same_401() -> None:
    async def main() -> None:
        assert UNKNOWN == await refused(authenticator(), bearer(f"hw_abcd_{SECRET}"), None)

    simulate(main())


@pytest.mark.parametrize("by", ["the clock", "the log's own time"])
def test_a_key_ends_in_the_very_millisecond_of_its_expiry(by: str) -> None:
    async def main() -> None:
        loop = sim_loop()
        clock = SimClock(loop)
        namespace = await keyed(memory(), expires_ms=clock.wall_ms() + 60_000)
        mode = Authenticator("token", clock)
        await loop.sleep(59.999)
        assert "ann" == (await mode.authenticate(bearer(f"hw_abcd_{SECRET}"), namespace)).principal
        if by == "the clock":
            await loop.sleep(0.001)
        else:
            namespace.state.time_ms = clock.wall_ms() + 1
        assert UNKNOWN == await refused(mode, bearer(f"hw_abcd_{SECRET}"), namespace)

    simulate(main())


def test_a_key_revoked_elsewhere_stops_within_seconds() -> None:
    async def main() -> None:
        store = memory()
        first = await keyed(store)
        second = await opened(store, seed=2)
        mode = authenticator()
        await first.writer.commit(ops=[RevokeKey(key="abcd")])
        await sim_loop().sleep(AUTH_FRESH_S)
        assert "ann" == (await mode.authenticate(bearer(f"hw_abcd_{SECRET}"), second)).principal
        await sim_loop().sleep(0.001)
        assert UNKNOWN == await refused(mode, bearer(f"hw_abcd_{SECRET}"), second)

    simulate(main())


def test_a_key_made_elsewhere_is_found_and_guessing_costs_a_get_every_two_seconds() -> None:
    async def main() -> None:
        inner = memory()
        store = Scripted(inner)
        second = await opened(store, seed=2)
        mode = authenticator()
        await keyed(inner)
        assert "ann" == (await mode.authenticate(bearer(f"hw_abcd_{SECRET}"), second)).principal
        before = store.calls["get"]
        for _ in range(50):
            for token in ("hw_abcd_wrong", "hw_nokey_wrong"):
                await refused(mode, bearer(token), second)
        assert 0 == store.calls["get"] - before
        await sim_loop().sleep(AUTH_RETRY_S)
        for token in ("hw_abcd_wrong", "hw_nokey_wrong"):
            await refused(mode, bearer(token), second)
        assert 1 == store.calls["get"] - before

    simulate(main())


def test_a_fresh_process_asks_nobody_for_a_known_key() -> None:
    async def main() -> None:
        inner = memory()
        await keyed(inner)
        store = Scripted(inner)
        namespace = await opened(store, seed=2)
        before = store.calls.copy()
        for _ in range(10):
            await authenticator().authenticate(bearer(f"hw_abcd_{SECRET}"), namespace)
        assert before == store.calls

    simulate(main())


def test_keys_that_cannot_be_read_are_no_reason_to_refuse_or_to_believe() -> None:
    async def main() -> None:
        inner = memory()
        await keyed(inner)
        store = Scripted(inner)
        namespace = await opened(store, seed=2)
        await sim_loop().sleep(AUTH_FRESH_S + 1)
        store.always["get"] = away
        with pytest.raises(Unavailable) as caught:
            await authenticator().authenticate(bearer(f"hw_abcd_{SECRET}"), namespace)
        assert "The credentials cannot be checked now." == caught.value.message

    simulate(main())


# -- signatures -------------------------------------------------------------------------------------------

NOW_MS = 1_795_612_041_000
URL = "http://127.0.0.1:8080/namespaces/ns/topics/t%20x/partitions/0/records?offset=5&from=a%3Ab&as_of="
KEYS = {
    "AKANN": SigningKey(secret="ann's secret", principal="ann"),
    "AKBOB": SigningKey(secret="bob's secret", principal="bob"),
}


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.ms = NOW_MS

    def wall_ms(self) -> int:
        return self.ms

    def elapsed_s(self) -> float:
        return self.ms / 1_000

    async def sleep(self, seconds: float) -> None:
        raise AssertionError


def signed(
    monkeypatch: pytest.MonkeyPatch,
    method: str = "POST",
    url: str = URL,
    body: bytes = b'{"records":[]}',
    *,
    at_ms: int = NOW_MS,
    key: str = "AKANN",
    secret: str = "ann's secret",
    service: str = "lambda",
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Request:
    """A request as botocore signs it."""
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: datetime.fromtimestamp(at_ms / 1_000, UTC))
    sent = {"content-type": "application/json", "X-Spaced": "  a   b ", **(headers or {})}
    request = AWSRequest(method=method, url=url, data=body, headers=sent)
    botocore.auth.SigV4Auth(Credentials(key, secret, token), service, "eu-central-1").add_auth(request)
    path, _, query = url.removeprefix("http://127.0.0.1:8080").partition("?")
    return Request(
        method=method,
        path="/topics/t x/partitions/0/records",
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body,
        raw_body=body,
        host="127.0.0.1:8080",
        raw_path=path,
        raw_query=query,
    )


def checker(clock: Hand | None = None) -> Authenticator:
    return Authenticator("sigv4", clock or Hand(), sigv4_keys=KEYS)


def ask(mode: Authenticator, request: Request) -> Identity:
    coroutine = mode.authenticate(request, None)
    try:
        coroutine.send(None)
    except StopIteration as answer:
        found: Any = answer.value
        assert isinstance(found, Identity)
        return found
    raise AssertionError


def denied(mode: Authenticator, request: Request) -> HeadwaterError:
    with pytest.raises(HeadwaterError) as caught:
        ask(mode, request)
    return caught.value


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "http://127.0.0.1:8080/",
        "http://127.0.0.1:8080/topics",
        "http://127.0.0.1:8080/topics?b=2&a=1&a=0&c",
        "http://127.0.0.1:8080/topics?q=a+b%2Bc",
        "http://127.0.0.1:8080/topics?q=a:b,c/d",
        "http://127.0.0.1:8080/t%C3%A4~x-y_z.1",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_what_botocore_signed_is_believed(monkeypatch: pytest.MonkeyPatch, method: str, url: str) -> None:
    assert Identity(principal="ann") == ask(checker(), signed(monkeypatch, method, url))
    bob = signed(monkeypatch, method, url, b"", key="AKBOB", secret="bob's secret", token="a/session=")
    assert Identity(principal="bob") == ask(checker(), bob)


@pytest.mark.parametrize("token", [None, "a/session="])
def test_we_sign_as_botocore_does(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    theirs = signed(monkeypatch, "PUT", token=token)
    added = ("authorization", "x-amz-date", "x-amz-security-token")
    plain = {name: value for name, value in theirs.headers.items() if name not in added}
    ours = sigv4.signed_headers(
        sigv4.Secret(access_key="AKANN", secret_key="ann's secret", token=token or ""),
        method="PUT",
        path=theirs.raw_path,
        query=theirs.raw_query,
        headers={"host": theirs.host, **plain},
        body=theirs.body,
        region="eu-central-1",
        service="lambda",
        wall_ms=NOW_MS,
    )
    assert {"host": theirs.host, **theirs.headers} == ours
    assert Identity(principal="ann") == ask(checker(), replace(theirs, headers=ours))


def test_a_query_that_the_client_left_bare_may_be_signed_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = signed(monkeypatch, url="http://127.0.0.1:8080/topics?q=a%3Ab")
    assert "ann" == ask(checker(), replace(encoded, raw_query="q=a:b")).principal
    assert UNKNOWN == denied(checker(), replace(encoded, raw_query="q=a%2Bb")).message
    plus = signed(monkeypatch, url="http://127.0.0.1:8080/topics?q=a%2Bb")
    assert UNKNOWN == denied(checker(), replace(plus, raw_query="q=a+b")).message


def _with(request: Request, **headers: str | None) -> Request:
    changed = {**request.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return replace(request, headers={name: value for name, value in changed.items() if value is not None})


def test_a_request_that_was_changed_on_its_way_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    good = signed(monkeypatch)
    hashed = hashlib.sha256(good.body).hexdigest()
    bad = {
        "body": replace(good, raw_body=b'{"records":[1]}', body=b'{"records":[1]}'),
        "no body": replace(good, raw_body=b"", body=b""),
        "method": replace(good, method="DELETE"),
        "path": replace(good, raw_path="/namespaces/other/topics/t%20x/partitions/0/records"),
        "dots": replace(good, raw_path="/x/.." + good.raw_path),
        "slashes": replace(good, raw_path="/" + good.raw_path),
        "decoded path": replace(good, raw_path=good.raw_path.replace("%20", " ")),
        "query": replace(good, raw_query=good.raw_query.replace("offset=5", "offset=6")),
        "more query": replace(good, raw_query=good.raw_query + "&x=1"),
        "no query": replace(good, raw_query=""),
        "host": _with(good, host="evil.example"),
        "signed header": _with(good, content_type="text/plain"),
        "signed header gone": _with(good, content_type=None),
        "date": _with(good, x_amz_date="20261125T124722Z"),
        "no date": _with(good, x_amz_date=None),
        "bad date": _with(good, x_amz_date="20261399T999999Z"),
        "an unsigned x-amz-": _with(good, x_amz_target="x"),
        "an unsigned hash": _with(good, x_amz_content_sha256=hashed),
    }
    assert dict.fromkeys(bad, UNKNOWN) == {what: denied(checker(), request).message for what, request in bad.items()}
    assert "ann" == ask(checker(), good).principal


def test_the_hash_that_a_header_claims_must_be_the_bodys(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"body"
    right = {"X-Amz-Content-SHA256": hashlib.sha256(body).hexdigest()}
    assert "ann" == ask(checker(), signed(monkeypatch, body=body, headers=right)).principal
    for wrong in ("UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", hashlib.sha256(b"").hexdigest(), ""):
        request = signed(monkeypatch, body=body, headers={"X-Amz-Content-SHA256": wrong})
        assert UNKNOWN == denied(checker(), request).message


def test_the_body_that_counts_is_the_one_that_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    compressed = signed(monkeypatch, body=b"\x1f\x8b...")
    assert "ann" == ask(checker(), replace(compressed, body=b"inflated")).principal


def test_wrong_keys_and_wrong_scopes_are_the_same_401(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [
        signed(monkeypatch, secret="not ann's secret"),
        signed(monkeypatch, key="AKNOBODY"),
        signed(monkeypatch, key="AKBOB"),
        signed(monkeypatch, service="s3"),
        signed(monkeypatch, secret=""),
        signed(monkeypatch, key="AKNOBODY", secret=auth._NO_SECRET),
    ]
    assert [UNKNOWN] * len(bad) == [denied(checker(), request).message for request in bad]


@pytest.mark.parametrize(
    "change",
    [
        lambda header: "",
        lambda header: "Bearer x",
        lambda header: header.replace("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"),
        lambda header: header.replace("eu-central-1", "us-east-1"),
        lambda header: header.replace("aws4_request", "aws5_request"),
        lambda header: header.replace("/20261125/", "/20261124/"),
        lambda header: header.replace("host;", ""),
        lambda header: header.replace("content-type;host", "host;content-type"),
        lambda header: header.replace("host;", "host;host;"),
        lambda header: header.replace("host;", "host;nothing;"),
        lambda header: header[:-1],
        lambda header: header + "0",
        lambda header: header + ", X=1",
        lambda header: header + "\n",
        lambda header: header[:-64] + header[-64:].upper(),
        lambda header: header + "é",
        lambda header: " " * AUTH_HEADER_BYTES_MAX + header,
        lambda header: header * 1_000,
    ],
)
def test_a_header_that_was_tampered_with_is_the_same_401(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    good = signed(monkeypatch)
    assert UNKNOWN == denied(checker(), _with(good, authorization=change(good.headers["authorization"]))).message


@pytest.mark.parametrize("skew_s", [-SIGV4_SKEW_S, SIGV4_SKEW_S])
def test_clocks_may_differ_by_five_minutes(monkeypatch: pytest.MonkeyPatch, skew_s: float) -> None:
    clock = Hand()
    request = signed(monkeypatch, at_ms=NOW_MS + int(skew_s * 1_000))
    assert "ann" == ask(checker(clock), request).principal
    further = signed(monkeypatch, at_ms=NOW_MS + int(skew_s * 1_000) + (1_000 if skew_s > 0 else -1_000))
    assert "301 s" in denied(checker(clock), further).message
    stranger = signed(monkeypatch, at_ms=NOW_MS + 10**7, secret="guessed")
    assert UNKNOWN == denied(checker(clock), stranger).message


def test_a_signature_changes_something_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Hand()
    mode = checker(clock)
    request = signed(monkeypatch)
    ask(mode, request)
    for later_ms in (0, 1, int(SIGV4_SKEW_S * 1_000)):
        clock.ms = NOW_MS + later_ms
        assert "used before" in denied(mode, request).message
    clock.ms = NOW_MS + int(SIGV4_SKEW_S * 1_000) + 1
    assert "before the time" in denied(mode, request).message
    clock.ms = NOW_MS
    ask(mode, signed(monkeypatch, headers={"headwater-nonce": "1"}))
    ask(mode, signed(monkeypatch, at_ms=NOW_MS + 1_000))


def test_a_read_may_be_signed_twice_in_one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    mode = checker()
    for method in ("GET", "HEAD"):
        request = signed(monkeypatch, method, body=b"")
        assert ask(mode, request) == ask(mode, request)


def test_a_refused_signature_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    mode = checker()
    good = signed(monkeypatch)
    denied(mode, replace(good, raw_body=b"changed", body=b"changed"))
    assert "ann" == ask(mode, good).principal


def test_the_memory_of_signatures_is_bounded_and_empties_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "SIGV4_SEEN_MAX", 3)
    clock = Hand()
    mode = checker(clock)
    for number in range(3):
        ask(mode, signed(monkeypatch, body=b"%d" % number))
    fourth = signed(monkeypatch, body=b"4")
    error = denied(mode, fourth)
    assert (Throttled, "no") == (type(error), error.applied)
    clock.ms += int(SIGV4_SKEW_S * 1_000) + 1
    ask(mode, signed(monkeypatch, at_ms=clock.ms))
    assert mode._signatures is not None
    assert 1 == len(mode._signatures._seen)


def test_keys_come_from_a_file_and_never_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"AKANN": "ann's secret", "AKBOB": {"secret": "bob's secret", "principal": "bob"}}))
    monkeypatch.setenv(auth.KEYS_FILE, str(path))
    keys = read_signing_keys(str(path))
    assert {"AKANN": ("ann's secret", "AKANN"), "AKBOB": ("bob's secret", "bob")} == {
        name: (key.secret, key.principal) for name, key in keys.items()
    }
    assert "secret'" not in repr(keys)
    mode = Authenticator("sigv4", Hand())
    assert Identity(principal="AKANN") == ask(mode, signed(monkeypatch))


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"A": 1}', '{"A": ""}', '{"A": {}}', '{"A": {"secret": 5}}', '{"A": hidden', "\xff"]
)
def test_a_file_of_another_form_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InvalidRequest, match="no JSON of the form") as caught:
        read_signing_keys(str(path))
    assert "hidden" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_sigv4_without_a_file_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(auth.KEYS_FILE, raising=False)
    with pytest.raises(InvalidRequest, match="HEADWATER_SIGV4_KEYS"):
        Authenticator("sigv4")


# -- whatever comes ---------------------------------------------------------------------------------------

ANY = st.text(st.characters(exclude_categories=()), max_size=100)
HEADERS = st.one_of(
    ANY,
    st.text(max_size=300),
    st.builds("Bearer {}".format, st.text(max_size=100)),
    st.builds("Bearer hw_{}_{}".format, st.text(max_size=20), st.text(max_size=60)),
    st.builds(
        "AWS4-HMAC-SHA256 Credential={}/{}/eu/lambda/aws4_request, SignedHeaders={}, Signature={}".format,
        st.sampled_from(["AKANN", "AKX", ""]),
        st.sampled_from(["20261125", "00000000", "2026112"]),
        st.sampled_from(["host;x-amz-date", "x-amz-date;host", "", ";", "host"]),
        st.sampled_from(["0" * 64, "f" * 63, "é" * 64]),
    ),
)


@given(header=HEADERS, date=st.one_of(ANY, st.just("20261125T133721Z")), query=ANY)
def test_no_header_is_believed_or_does_harm(header: str, date: str, query: str) -> None:
    headers = {"authorization": header, "x-amz-date": date}
    request = Request(method="POST", path="/é", headers=headers, body=b"x", raw_query=query, raw_path="/é")
    for mode in ("token", "sigv4"):
        chosen = Authenticator(mode, Hand(), sigv4_keys=KEYS)
        error = denied(chosen, request)
        assert (Unauthorized, UNKNOWN) == (type(error), error.message)
