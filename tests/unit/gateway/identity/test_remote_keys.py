from __future__ import annotations

import asyncio

import pytest

from novacron.errors import IdentityUnavailable
from novacron.gateway.identity.remote_keys import RemoteKeys


class Issuer:
    def __init__(self) -> None:
        self.keys = {"a": 1}
        self.is_down = False
        self.num_fetched = 0
        self.now = 0.0
        self.remote = RemoteKeys(
            self.fetch, max_age_s=600, refetch_s=10, stale_s=3600, clock=lambda: self.now
        )

    async def fetch(self) -> dict[str, int]:
        self.num_fetched += 1
        await asyncio.sleep(0)
        if self.is_down:
            raise IdentityUnavailable("It is down.")
        return dict(self.keys)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_a_new_key_is_found_and_an_old_one_goes() -> None:
    issuer = Issuer()
    assert await issuer.remote.find("a") == 1
    issuer.keys = {"b": 2}
    issuer.now = 10
    assert await issuer.remote.find("b") == 2
    assert await issuer.remote.find("a") is None
    assert issuer.num_fetched == 2


async def test_unknown_keys_make_us_fetch_only_now_and_then() -> None:
    issuer = Issuer()
    for second in range(100):
        issuer.now = second / 10
        found = await asyncio.gather(*(issuer.remote.find(f"x{n}") for n in range(20)))
        assert found == [None] * 20
    assert issuer.num_fetched == 1
    issuer.now = 10
    assert await issuer.remote.find("x") is None
    assert issuer.num_fetched == 2


async def test_a_known_key_is_renewed_beside_its_use() -> None:
    issuer = Issuer()
    await issuer.remote.find("a")
    issuer.now, issuer.keys = 600, {"a": 7}
    assert await issuer.remote.find("a") == 1
    await issuer.settle()
    assert await issuer.remote.find("a") == 7
    assert issuer.num_fetched == 2


async def test_an_issuer_that_is_down_is_asked_now_and_then_and_trusted_for_an_hour() -> None:
    issuer = Issuer()
    await issuer.remote.find("a")
    issuer.is_down = True
    for issuer.now in (600, 605, 1000, 3599):
        assert await issuer.remote.find("a") == 1
        await issuer.settle()
    assert issuer.num_fetched == 1 + 3
    issuer.now = 3615
    for _ in range(3):
        with pytest.raises(IdentityUnavailable):
            await issuer.remote.find("a")
    assert issuer.num_fetched == 1 + 4
    issuer.is_down, issuer.now = False, 3625
    assert await issuer.remote.find("a") == 1


async def test_who_leaves_does_not_end_the_fetch_for_others() -> None:
    issuer = Issuer()
    first = asyncio.create_task(issuer.remote.find("a"))
    second = asyncio.create_task(issuer.remote.find("a"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 1
    assert issuer.num_fetched == 1
