from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from novacron.errors import IdentityUnavailable, Overloaded, Unauthenticated
from novacron.gateway.identity.key_directory import Directories, StoredKey
from novacron.gateway.identity.key_format import new_key
from novacron.gateway.identity.permissions import BUILT_IN
from novacron.gateway.identity.stored_keys import StoredKeys
from novacron.testing.waiting import until


@dataclass(frozen=True)
class Key:
    id: str = "key-1"
    hash: str = ""
    tenant_id: str = "acme"
    user_id: str | None = "ann"
    roles: tuple[str, ...] = ("user",)
    scopes: tuple[str, ...] = ()
    ends_at: float | None = None

    def is_valid(self, now: float) -> bool:
        return self.ends_at is None or now < self.ends_at


class Directory:
    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.roles: dict[str, tuple[str, ...]] = {}
        self.num_asked = 0
        self.used: list[str] = []
        self.is_down = False
        self.gate = asyncio.Event()
        self.gate.set()

    def note_use(self, key: StoredKey) -> None:
        self.used.append(key.id)

    async def find(self, prefix: str) -> Key | None:
        self.num_asked += 1
        found = self.keys.get(prefix)
        await self.gate.wait()
        if self.is_down:
            raise IdentityUnavailable("The database does not answer.")
        return found

    async def custom_roles(self) -> Mapping[str, tuple[str, ...]]:
        return self.roles


class Setup:
    """The hash of a key is its text: how it is hashed is tested elsewhere."""

    def __init__(self, capacity: int = 100) -> None:
        self.directory = Directory()
        self.now = 1000.0
        self.num_hashed = 0
        self.stored = StoredKeys(
            self.directory,
            self._verify,
            roles=BUILT_IN,
            refresh_s=10.0,
            capacity=capacity,
            clock=lambda: self.now,
        )

    def add(self, key: Key) -> bytes:
        made = new_key()
        self.directory.keys[made.prefix] = replace(key, hash=made.text)
        return made.text.encode()

    def change(self, **fields: object) -> None:
        [prefix] = self.directory.keys
        self.directory.keys[prefix] = replace(self.directory.keys[prefix], **fields)  # type: ignore[arg-type]

    def _verify(self, hash: str, token: bytes) -> bool:
        self.num_hashed += 1
        return hash.encode() == token


async def test_a_key_is_hashed_once_and_looked_up_now_and_then() -> None:
    setup = Setup()
    token = setup.add(Key())
    for _ in range(5):
        principal = await setup.stored.authenticate(token)
        assert principal is not None
        assert (principal.tenant_id, principal.user_id, principal.key_id) == (
            "acme",
            "ann",
            "key-1",
        )
        assert principal.permissions == BUILT_IN.permissions_of(("user",))
    assert (setup.num_hashed, setup.directory.num_asked) == (1, 1)
    setup.now += 10
    assert await setup.stored.authenticate(token) is not None
    assert (setup.num_hashed, setup.directory.num_asked) == (1, 2)
    setup.now -= 5  # the clock was put back
    assert await setup.stored.authenticate(token) is not None
    assert setup.directory.num_asked == 3


async def test_roles_and_scopes_decide_what_a_key_may_do() -> None:
    setup = Setup()
    setup.directory.roles = {"scraper": ("llm:metrics:*", "llm:nowhere:read"), "user": ("llm:*",)}
    roles = ("scraper", "user", "unheard-of")
    token = setup.add(Key(roles=roles, scopes=("llm:metrics:read", "llm:keys:write")))
    principal = await setup.stored.authenticate(token)
    assert principal is not None
    assert principal.permissions == {"llm:metrics:read"}


async def test_a_wrong_secret_is_unknown_and_hashed_once() -> None:
    setup = Setup()
    token = setup.add(Key())
    setup.change(hash="that of another key")
    assert [await setup.stored.authenticate(token) for _ in range(3)] == [None] * 3
    assert setup.num_hashed == 1
    for other in (b"", b"nck_", token[:-1], new_key().text.encode(), b"a.b.c"):
        assert await setup.stored.authenticate(other) is None
    assert setup.num_hashed == 1


async def test_a_key_ends_at_its_time_though_it_is_remembered() -> None:
    setup = Setup()
    token = setup.add(Key(ends_at=1003.0))
    assert await setup.stored.authenticate(token) is not None
    setup.now = 1003.0
    with pytest.raises(Unauthenticated, match="expired"):
        await setup.stored.authenticate(token)
    assert setup.directory.num_asked == 1


async def test_revoked_elsewhere_it_ends_soon_revoked_here_at_once() -> None:
    setup = Setup()
    token = setup.add(Key())
    await setup.stored.authenticate(token)
    setup.change(ends_at=setup.now)
    setup.now += 9
    assert await setup.stored.authenticate(token) is not None
    setup.now += 1
    with pytest.raises(Unauthenticated):
        await setup.stored.authenticate(token)
    setup.change(ends_at=None)
    setup.stored.forget("another")
    with pytest.raises(Unauthenticated):
        await setup.stored.authenticate(token)
    setup.stored.forget("key-1")
    assert await setup.stored.authenticate(token) is not None
    setup.directory.keys.clear()
    setup.stored.forget("key-1")
    assert await setup.stored.authenticate(token) is None


async def test_what_was_found_before_it_was_forgotten_is_not_remembered() -> None:
    setup = Setup()
    token = setup.add(Key())
    setup.directory.gate.clear()
    asking = asyncio.create_task(setup.stored.authenticate(token))
    await until(lambda: setup.directory.num_asked > 0)
    setup.change(ends_at=setup.now)  # revoked while the old row is on its way
    setup.stored.forget("key-1")
    setup.directory.gate.set()
    await asking
    with pytest.raises(Unauthenticated):
        await setup.stored.authenticate(token)


async def test_a_new_hash_under_the_prefix_is_checked_anew() -> None:
    setup = Setup()
    token = setup.add(Key())
    assert await setup.stored.authenticate(token) is not None
    setup.change(hash="another")
    setup.now += 10
    assert await setup.stored.authenticate(token) is None


async def test_requests_with_one_key_wait_for_one_check_and_many_keys_are_refused() -> None:
    setup = Setup()
    token = setup.add(Key())
    setup.directory.gate.clear()
    same = [asyncio.create_task(setup.stored.authenticate(token)) for _ in range(200)]
    others = [
        asyncio.create_task(setup.stored.authenticate(new_key().text.encode())) for _ in range(100)
    ]
    await asyncio.sleep(0)
    setup.directory.gate.set()
    principals = await asyncio.gather(*same)
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert all(principals)
    assert setup.num_hashed == 1
    assert sum(isinstance(outcome, Overloaded) for outcome in outcomes) == 100 - 63
    assert await setup.stored.authenticate(token) is not None


async def test_a_directory_that_does_not_answer_lets_nobody_in_for_longer_than_remembered() -> None:
    setup = Setup()
    token = setup.add(Key())
    await setup.stored.authenticate(token)
    setup.directory.is_down = True
    assert await setup.stored.authenticate(token) is not None
    setup.now += 10
    for _ in range(2):
        with pytest.raises(IdentityUnavailable):
            await setup.stored.authenticate(token)
    setup.directory.is_down = False
    assert await setup.stored.authenticate(token) is not None


async def test_what_is_remembered_is_bounded() -> None:
    setup = Setup(capacity=3)
    tokens = [setup.add(Key(id=f"key-{i}")) for i in range(4)]
    for token in (*tokens[:3], tokens[0], tokens[3]):
        assert await setup.stored.authenticate(token) is not None
    assert setup.directory.num_asked == 4
    assert await setup.stored.authenticate(tokens[0]) is not None  # used later than tokens[1]
    assert setup.directory.num_asked == 4
    assert await setup.stored.authenticate(tokens[1]) is not None
    assert setup.directory.num_asked == 5


async def test_several_directories_are_one() -> None:
    first, second = Directory(), Directory()
    first.keys, second.keys = {"a": Key(id="1")}, {"a": Key(id="2"), "b": Key(id="3")}
    first.roles, second.roles = {"x": ("llm:*",)}, {"x": (), "y": ("llm:keys:*",)}
    both = Directories((first, second))
    found = [await both.find(prefix) for prefix in "abc"]
    assert [key and key.id for key in found] == ["1", "3", None]
    assert await both.custom_roles() == {"x": ("llm:*",), "y": ("llm:keys:*",)}
    first.is_down = True
    with pytest.raises(IdentityUnavailable):
        await both.find("b")
