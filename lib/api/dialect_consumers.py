"""Consumer instances of the Kafka REST Proxy v2 in HTTP."""

from __future__ import annotations

from headwater.api.messages import Route

ROUTES: tuple[Route, ...] = ()
