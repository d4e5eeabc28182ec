"""API keys of a directory: found by prefix, checked against their hash, remembered.

A request with a key that was checked lately costs a look into a table. The directory is asked
again after `refresh_s`, so that a key which was revoked elsewhere works no longer than that; one
that was revoked here is forgotten at once.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import blake3

from novacron.errors import Overloaded, Unauthenticated
from novacron.gateway.identity.key_directory import KeyDirectory, StoredKey
from novacron.gateway.identity.key_format import START, prefix_of
from novacron.gateway.identity.permissions import Roles, granted
from novacron.gateway.identity.principal import Principal

REFRESH_S: Final = 10.0
MOST_REMEMBERED: Final = 10_000
_HASHES_AT_ONCE: Final = 2  # threads; each takes milliseconds and 8 MiB
_MOST_WAITING: Final = 64


@dataclass(frozen=True, slots=True)
class _Known:
    """A token that was checked. `principal` is None if it is not the key that has its prefix."""

    prefix: str
    key: StoredKey
    principal: Principal | None
    checked_s: float


class StoredKeys:
    """Authenticates keys of `directory`. `verify(hash, token)` is slow, and runs in a thread.

    At most `capacity` tokens are remembered, right and wrong ones, the latest used.
    """

    def __init__(
        self,
        directory: KeyDirectory,
        verify: Callable[[str, bytes], bool],
        *,
        roles: Roles,
        refresh_s: float = REFRESH_S,
        capacity: int = MOST_REMEMBERED,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._verify = verify
        self._roles = roles
        self._refresh_s = refresh_s
        self._capacity = capacity
        self._clock = clock
        self._digest_key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._checking: dict[bytes, asyncio.Task[_Known | None]] = {}
        self._hashing = asyncio.Semaphore(_HASHES_AT_ONCE)
        self._generation = 0  # of what may be remembered: forgetting outruns checks on their way

    async def authenticate(self, token: bytes) -> Principal | None:
        if not token.startswith(START):
            return None
        digest = blake3.blake3(token, key=self._digest_key).digest()
        now = self._clock()
        known = self._known.get(digest)
        if known is None or not 0 <= now - known.checked_s < self._refresh_s:
            prefix = prefix_of(token)
            known = None if prefix is None else await self._check_once(digest, prefix, token)
        else:
            self._known.move_to_end(digest)
        if known is None or known.principal is None:
            return None
        if not known.key.is_valid(now):
            raise Unauthenticated(
                "The API key has expired, or was revoked or replaced.", was_sent=True
            )
        return known.principal

    def forget(self, key_id: str) -> None:
        self._generation += 1
        for digest in [d for d, known in self._known.items() if known.key.id == key_id]:
            del self._known[digest]

    async def _check_once(self, digest: bytes, prefix: str, token: bytes) -> _Known | None:
        """Many requests may come with a key at once; they wait for one check together."""
        task = self._checking.get(digest)
        if task is None:
            if digest not in self._known and len(self._checking) >= _MOST_WAITING:
                raise Overloaded("Too many API keys are being checked at this moment.")
            task = asyncio.create_task(self._check(digest, prefix, token))
            self._checking[digest] = task
            task.add_done_callback(lambda task: self._end(digest, task))
        return await asyncio.shield(task)

    def _end(self, digest: bytes, task: asyncio.Task[_Known | None]) -> None:
        self._checking.pop(digest, None)
        if not task.cancelled():
            task.exception()  # told to those who wait, of whom there may be none any more

    async def _check(self, digest: bytes, prefix: str, token: bytes) -> _Known | None:
        now = self._clock()
        before, generation = self._known.pop(digest, None), self._generation
        key = await self._directory.find(prefix)
        if key is None:
            return None
        if before is not None and before.key.hash == key.hash:
            is_right = before.principal is not None
        else:
            async with self._hashing:
                is_right = await asyncio.to_thread(self._verify, key.hash, token)
        if is_right:
            self._directory.note_use(key)
        principal = await self._principal(key) if is_right else None
        known = _Known(prefix, key, principal, now)
        if generation == self._generation:
            self._known[digest] = known
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return known

    async def _principal(self, key: StoredKey) -> Principal:
        custom = {**await self._directory.custom_roles(), **self._roles.custom}
        permissions = Roles(custom).permissions_of(key.roles)
        return Principal(
            tenant_id=key.tenant_id,
            user_id=key.user_id or "",
            key_id=key.id,
            roles=key.roles,
            permissions=granted(permissions, key.scopes),
        )
