"""SigV4 for function URLs (service ``lambda``), by botocore: its credentials, its signature, nothing of our own.

botocore is imported when the first request is signed, since it takes a quarter of a second.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from headwater.errors import InvalidRequest, Unauthorized

_FUNCTION_URL = re.compile(r"\.lambda-url\.([a-z0-9-]+)\.")  # AWS's own, and those of emulators


class Signer:
    """Signs requests with the AWS credentials of this process: environment, profile, role."""

    def __init__(self, url: str, *, rng: random.Random, region: str | None = None) -> None:
        self._region = region or region_of(url)
        self._rng = rng
        self._credentials: Any = None
        self._finding = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Signer(region={self._region!r})"

    async def sign(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """The headers with the signature among them. Raises ``Unauthorized`` if there are no credentials."""
        if self._credentials is None:
            async with self._finding:
                if self._credentials is None:
                    self._credentials = await asyncio.to_thread(_find)
        # Two like requests of one second would have one signature, and the second would pass for a replay.
        headers = {**headers, "amz-sdk-invocation-id": f"{self._rng.getrandbits(128):032x}"}
        # In a thread: credentials of a role are fetched anew before they expire, and hashing takes its time.
        return await asyncio.to_thread(self._signed, method, url, headers, body)

    def _signed(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest(method=method, url=url, data=body, headers=dict(headers))
        SigV4Auth(self._credentials, "lambda", self._region).add_auth(request)
        return {name: str(value) for name, value in request.headers.items()}


def region_of(url: str) -> str:
    """The region in a function URL, else that of the environment. Raises ``InvalidRequest``."""
    found = _FUNCTION_URL.search(urlsplit(url).hostname or "")
    region = found.group(1) if found else os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise InvalidRequest("auth='iam' needs a region: name it, or set AWS_REGION.")
    return region


def _find() -> Any:
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    try:
        credentials = Session().get_credentials()
    except BotoCoreError as error:
        raise Unauthorized(f"AWS credentials could not be loaded: {error}") from error
    if credentials is None:
        raise Unauthorized("There are no AWS credentials: set AWS_ACCESS_KEY_ID and its secret, or name a profile.")
    return credentials
