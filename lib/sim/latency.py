"""How long a store takes to answer: lognormal latencies, given by their median and 99th percentile.

``s3-standard`` and ``s3-express`` are the profiles of DESIGN section 4, calibrated to a public
measurement of conditional writes (about 15 a second on one key on Standard, 70 to 78 on Express).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["put", "get", "list", "delete"]

Z99 = 2.3263478740408408  # the standard normal distribution's 99th percentile


@dataclass(frozen=True, slots=True)
class Profile:
    """Latencies of a store: for each kind of request ``(p50_ms, p99_ms)``. A delete takes as long as a put."""

    name: str
    put: tuple[float, float]
    get: tuple[float, float]
    list: tuple[float, float]
    _curves: dict[str, tuple[float, float] | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        curves = {kind: _curve(*ms) for kind, ms in (("put", self.put), ("get", self.get), ("list", self.list))}
        object.__setattr__(self, "_curves", curves | {"delete": curves["put"]})

    def sample(self, kind: Kind, rng: random.Random) -> float:
        """Seconds that one request of this kind takes. The ``zero`` profile draws nothing from ``rng``."""
        curve = self._curves[kind]
        return 0.0 if curve is None else math.exp(curve[0] + curve[1] * rng.gauss(0.0, 1.0))


def _curve(p50_ms: float, p99_ms: float) -> tuple[float, float] | None:
    """Mean and deviation of the logarithm of the seconds; ``None`` for no latency at all."""
    assert 0 <= p50_ms <= p99_ms, "the 99th percentile is not below the median"
    return (math.log(p50_ms / 1_000), math.log(p99_ms / p50_ms) / Z99) if p50_ms else None


ZERO = Profile("zero", put=(0, 0), get=(0, 0), list=(0, 0))
S3_STANDARD = Profile("s3-standard", put=(60, 220), get=(30, 150), list=(45, 200))
S3_EXPRESS = Profile("s3-express", put=(12, 30), get=(6, 18), list=(15, 40))

PROFILES: Mapping[str, Profile] = MappingProxyType({p.name: p for p in (ZERO, S3_STANDARD, S3_EXPRESS)})
