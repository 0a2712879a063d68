"""Quotas: how much a principal may ask of one serving process a second, by token buckets.

A bucket holds what its owner has saved up, at most ``QUOTA_BURST_S`` of its rate. A request and the bytes that it
brings are paid for before anything is done; what is larger than a bucket needs a full one and leaves it in debt, so
large batches pass and the rate still holds. Bytes that a fetch found are charged afterwards, since nobody knows them
before; the next request waits until they are paid. As in Kafka, each process counts for itself.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal, TypeAlias

from headwater.clock import Clock
from headwater.errors import Throttled
from headwater.limits import QUOTA_BUCKETS_MAX, QUOTA_BURST_S, QUOTA_WAIT_MS_MAX
from headwater.log.state.model import Quota

Kind: TypeAlias = Literal["requests", "produce", "fetch"]

_ROUNDING = 1e-6  # of a token or a millisecond: an error of floating point is no debt
_UNITS = {"requests": "requests", "produce": "bytes produced", "fetch": "bytes fetched"}


class _Bucket:
    """``tokens`` as of ``at_s``; below 0 it is a debt."""

    __slots__ = ("at_s", "rate", "tokens")

    def __init__(self, rate: int, at_s: float) -> None:
        self.rate = rate
        self.tokens = rate * QUOTA_BURST_S
        self.at_s = at_s

    def fill(self, rate: int, now_s: float) -> None:
        """Bring the bucket to now. A new rate holds from now on, and cuts what was saved up under the old one."""
        saved = self.tokens + self.rate * max(0.0, now_s - self.at_s)
        self.tokens = min(saved, self.rate * QUOTA_BURST_S, rate * QUOTA_BURST_S)
        self.rate, self.at_s = rate, now_s

    def full(self, now_s: float) -> bool:
        return self.tokens + self.rate * (now_s - self.at_s) >= self.rate * QUOTA_BURST_S


class Quotas:
    """The buckets of one process, for all its namespaces. Memory: at most ``QUOTA_BUCKETS_MAX`` buckets."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._buckets: OrderedDict[tuple[str, str, Kind], _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, quotas: Mapping[str, Quota], namespace: str, principal: str, kind: Kind, amount: float = 1) -> None:
        """Pay ``amount`` now, or pay nothing.

        Raises:
            Throttled: there is not enough; it says when there will be. Nothing was taken.
        """
        rate = rate_of(quotas, principal, kind)
        if rate < 0:
            return
        bucket = self._bucket(namespace, principal, kind, rate)
        missing = min(amount, rate * QUOTA_BURST_S) - bucket.tokens
        if rate == 0 or missing > _ROUNDING:
            raise _throttled(principal, kind, rate, missing)
        bucket.tokens -= amount

    def charge(self, quotas: Mapping[str, Quota], namespace: str, principal: str, kind: Kind, amount: float) -> None:
        """Pay for what has happened already, into debt if need be."""
        rate = rate_of(quotas, principal, kind)
        if rate >= 0:
            self._bucket(namespace, principal, kind, rate).tokens -= amount

    def check(self, quotas: Mapping[str, Quota], namespace: str, principal: str, kind: Kind) -> None:
        """Raise ``Throttled`` while the principal is in debt."""
        rate = rate_of(quotas, principal, kind)
        if rate < 0:
            return
        bucket = self._bucket(namespace, principal, kind, rate)
        if rate == 0 or bucket.tokens < 0:
            raise _throttled(principal, kind, rate, -bucket.tokens)

    def _bucket(self, namespace: str, principal: str, kind: Kind, rate: int) -> _Bucket:
        key, now_s = (namespace, principal, kind), self.clock.elapsed_s()
        bucket = self._buckets.get(key)
        if bucket is None:
            self._make_room(now_s)
            bucket = self._buckets[key] = _Bucket(rate, now_s)
        else:
            bucket.fill(rate, now_s)
            self._buckets.move_to_end(key)
        return bucket

    def _make_room(self, now_s: float) -> None:
        """A full bucket is as good as none, so those go; then the one that was idle longest."""
        if len(self._buckets) < QUOTA_BUCKETS_MAX:
            return
        for key in [key for key, bucket in self._buckets.items() if bucket.full(now_s)]:
            del self._buckets[key]
        if len(self._buckets) >= QUOTA_BUCKETS_MAX:
            self._buckets.popitem(last=False)


def rate_of(quotas: Mapping[str, Quota], principal: str, kind: Kind) -> int:
    """The principal's bound a second, by its own quota or else by that of ``*``; -1 for none."""
    quota = (quotas.get(principal) or quotas.get("*")) if quotas else None
    if quota is None:
        return -1
    if kind == "requests":
        return quota.requests_per_s
    return quota.produce_bytes_per_s if kind == "produce" else quota.fetch_bytes_per_s


def _throttled(principal: str, kind: Kind, rate: int, missing: float) -> Throttled:
    needed_ms = math.ceil(missing * 1_000 / rate - _ROUNDING) if rate else QUOTA_WAIT_MS_MAX
    wait_ms = min(max(1, needed_ms), QUOTA_WAIT_MS_MAX)
    return Throttled(
        f"Principal {principal!r} has used up its quota of {rate} {_UNITS[kind]} a second; "
        f"the next request is welcome in {wait_ms} ms.",
        retry_after_ms=wait_ms,
    )
