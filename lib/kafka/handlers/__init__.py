"""The APIs by number: which versions are served, and who answers.

A handler is called in the order of the connection's requests; what must not happen out of order (an append) it does
before it returns, and what takes long it returns as ``Later``. One that is a plain function costs no task; it may
return a coroutine instead of an answer, for which the requests behind it wait, as for a handler that is one. Errors of
one topic, partition or group go into the answer; a ``HeadwaterError`` that escapes becomes the answer's own error code
if it has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Final

from headwater.kafka.model import Handler

FAMILIES: Final = (
    "basics",
    "produce",
    "fetch",
    "offsets",
    "groups",
    "group_offsets",
    "group_admin",
    "consumer_groups",
    "share_groups",
    "share_fetch",
    "share_offsets",
    "transactions",
    "transaction_views",
    "admin",
    "admin_configs",
    "admin_replicas",
    "acls",
    "client_quotas",
    "access",
    "scram_users",
)


@dataclass(frozen=True, slots=True)
class Api:
    """Versions ``[first, last]`` of one API, and its handler. ``open`` ones are answered before a client has proved
    who it is.
    """

    first: int
    last: int
    handler: Handler
    open: bool = False


@cache
def table() -> Mapping[int, Api]:
    """All APIs by number: those of each family's ``APIS``."""
    found: dict[int, Api] = {}
    for family in FAMILIES:
        for number, api in import_module(f"{__name__}.{family}").APIS.items():
            assert number not in found, f"API {number} is served twice"
            found[number] = api
    return found
