"""Keys that the service makes, shown at the door: the two must mean the same."""

from __future__ import annotations

import pytest

from headwater.api.auth import Authenticator
from headwater.api.messages import Request
from headwater.api.service import Service
from headwater.api.verbs import AclRule
from headwater.errors import Forbidden, Unauthorized
from tests.log.helpers import memory, opened, simulate


def test_a_fresh_key_opens_the_door_for_its_principal_within_its_scopes_until_it_is_revoked() -> None:
    async def main() -> None:
        space = await opened(memory())
        root = Service(space)
        await root.create_topic("t")
        info, token = await root.create_key("ann", scopes=[AclRule("ann", "read", "topic", "t")])
        door = Authenticator("token", space.chain.clock)
        request = Request(method="GET", path="/", headers={"authorization": f"Bearer {token}"})
        identity = await door.authenticate(request, space)
        assert "ann" == identity.principal
        ann = Service(space, principal=identity.principal, scopes=identity.scopes)
        await ann.fetch("t", 0, 0)
        with pytest.raises(Forbidden):
            await ann.create_topic("u")
        await root.revoke_key(info.key)
        with pytest.raises(Unauthorized):
            await door.authenticate(request, space)

    simulate(main())


def test_a_key_of_root_without_scopes_may_do_everything() -> None:
    async def main() -> None:
        space = await opened(memory())
        _, token = await Service(space).create_key("root")
        request = Request(method="GET", path="/", headers={"authorization": f"Bearer {token}"})
        identity = await Authenticator("token", space.chain.clock).authenticate(request, space)
        await Service(space, principal=identity.principal, scopes=identity.scopes).create_topic("t")

    simulate(main())
