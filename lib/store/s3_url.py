"""``s3://bucket/prefix?option=value``: what the URL and the environment say about where a bucket is.

Credentials never stand in the URL; they come in the ordinary AWS ways (environment, profile, role). Options:

    endpoint_url       http(s)://host[:port] of an S3-compatible service; AWS itself without it
    region             the bucket's region; from AWS_REGION, AWS_DEFAULT_REGION or the profile without it
    profile            a profile of ~/.aws, before everything in the environment; without it, AWS's usual search
    client             obstore or aioboto3
    addressing         path (host/bucket/key) or virtual (bucket.host/key)
    lists              sorted or unsorted: whether the service lists in byte order of the whole keys. AWS does, but
                       not in directory buckets (--x-s3); SeaweedFS does not. An unsorted list is read to its end
                       and sorted here. A list that breaks its promise is an error that names this option.
    connect_timeout_s  seconds for making a connection
    timeout_s          seconds for one whole request
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from headwater.errors import InvalidRequest
from headwater.store.base import check_key

OPTIONS = ("endpoint_url", "region", "profile", "client", "addressing", "lists", "connect_timeout_s", "timeout_s")
CLIENTS = ("obstore", "aioboto3")
KEY_BYTES_MAX = 1_024  # S3's own bound, prefix included
PREFIX_BYTES_MAX = 512  # leaves room for what Headwater puts below it
EXPRESS = "--x-s3"  # how the names of directory buckets end
CONNECT_TIMEOUT_S = 5.0
TIMEOUT_S = 30.0  # one request: 64 MiB at 2 MiB/s; a conditional write is resolved by the journal after it
FORM = "s3://bucket/prefix?endpoint_url=http://host:port&region=us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Target:
    """A bucket, the prefix of every key in it ("" or ending in "/"), and how to get there."""

    url: str
    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    client: str | None = None
    addressing: str = "virtual"
    lists: str = "sorted"
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    timeout_s: float = TIMEOUT_S

    @property
    def is_express(self) -> bool:
        """Whether it is a directory bucket (S3 Express One Zone): it lists in no order, and only whole folders."""
        return self.bucket.endswith(EXPRESS)

    @property
    def request_url(self) -> str:
        """Where unsigned requests about nothing in particular go."""
        if self.endpoint_url:
            return self.endpoint_url
        return f"https://s3.{self.region or 'us-east-1'}.amazonaws.com"


def parse_s3_url(url: str, env: Mapping[str, str]) -> S3Target:
    """The target of an ``s3://`` URL.

    Raises:
        InvalidRequest: says what is wrong and which form is right; never repeats what may be a secret.
    """
    parts = _split(url)
    options = _options(parts.query)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", parts.netloc):
        raise InvalidRequest(f"The S3 URL names no valid bucket; the form is {FORM}.")
    prefix = parts.path.strip("/")
    if prefix:
        check_key(prefix, PREFIX_BYTES_MAX)
    endpoint_url = _endpoint(options.get("endpoint_url") or _environment_endpoint(env))
    by_path = endpoint_url is not None or "." in parts.netloc  # a dot in the bucket's name breaks TLS for bucket.host
    shown = {name: options[name] for name in OPTIONS if name in options}
    return S3Target(
        url=f"s3://{parts.netloc}/{prefix}" + (f"?{urlencode(shown, safe=':/')}" if shown else ""),
        bucket=parts.netloc,
        prefix=prefix + "/" if prefix else "",
        endpoint_url=endpoint_url,
        region=options.get("region") or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or None,
        profile=options.get("profile") or None,
        client=_one_of(options, "client", CLIENTS),
        addressing=_one_of(options, "addressing", ("path", "virtual")) or ("path" if by_path else "virtual"),
        lists=_one_of(options, "lists", ("sorted", "unsorted"))
        or ("unsorted" if parts.netloc.endswith(EXPRESS) else "sorted"),
        connect_timeout_s=_seconds(options, "connect_timeout_s", CONNECT_TIMEOUT_S),
        timeout_s=_seconds(options, "timeout_s", TIMEOUT_S),
    )


def configured_region(profile: str | None, env: Mapping[str, str]) -> str | None:
    """The region that ``~/.aws/config`` names for the profile."""
    name = profile or env.get("AWS_PROFILE") or "default"
    path = Path(env.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
    if not path.is_file():
        return None

    import configparser  # a function has no such file

    config = configparser.RawConfigParser(strict=False)
    try:
        config.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return None  # botocore will complain of it, if anybody needs it
    return config.get(name if name == "default" else f"profile {name}", "region", fallback=None)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidRequest(f"The S3 URL cannot be read; the form is {FORM}.") from error
    if parts.scheme != "s3":
        raise InvalidRequest(f"An S3 URL starts with s3://; the form is {FORM}.")
    if "@" in parts.netloc:
        raise InvalidRequest(
            "An S3 URL carries no credentials. Give them in the AWS ways: AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY, a profile, or a role. The form is {FORM}."
        )
    if parts.fragment:
        raise InvalidRequest(f"An S3 URL has no '#' part; the form is {FORM}.")
    return parts


def _options(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise InvalidRequest(f"The options of the S3 URL are not name=value; the form is {FORM}.") from error
    options = dict(pairs)
    if unknown := sorted(options.keys() - set(OPTIONS)):
        raise InvalidRequest(f"S3 URLs know no option {', '.join(unknown)[:80]!r}; known are {', '.join(OPTIONS)}.")
    if len(options) < len(pairs):
        raise InvalidRequest("An option stands twice in the S3 URL.")
    return options


def _environment_endpoint(env: Mapping[str, str]) -> str | None:
    """The endpoint that the AWS tools would take from the environment."""
    if env.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    return env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or None


def _endpoint(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        whole = False
    if not whole or "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidRequest("endpoint_url is http://host:port or https://host:port, without user, query or '#'.")
    return text.rstrip("/")


def _one_of(options: Mapping[str, str], name: str, known: tuple[str, ...]) -> str | None:
    value = options.get(name)
    if value is not None and value not in known:
        raise InvalidRequest(f"The option {name} of an S3 URL is {' or '.join(known)}, not {value[:80]!r}.")
    return value


def _seconds(options: Mapping[str, str], name: str, default: float) -> float:
    try:
        value = float(options.get(name, default))
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= 3_600:
        raise InvalidRequest(f"The option {name} of an S3 URL is a number of seconds from 0.001 to 3600.")
    return value
