"""Keys of accounts, as those see them who check keys at the front door."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from novacron.accounts.administration import Administration
from novacron.accounts.records import StoredKey
from novacron.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)

_NOTE_USE_EVERY_S: Final = 60


class KnownKey(Protocol):
    """As much of a key as it takes to name it."""

    @property
    def id(self) -> str: ...


class AccountKeys:
    """Finds keys by their public part. Each question is a few queries in a thread, so whoever asks
    remembers answers for a while."""

    def __init__(self, accounts: Administration) -> None:
        self._accounts = accounts
        self._noted_at: dict[str, int] = {}  # by id; as many as there are keys

    async def find(self, prefix: str) -> StoredKey | None:
        """The key, valid or not, with the roles that count: its own, or else those of its user.
        None if there is none, or if its user or tenant is disabled. Raises DatabaseUnavailable."""
        return await asyncio.to_thread(self._find, prefix)

    def note_use(self, key: KnownKey) -> None:
        """Somebody has come with it. Returns at once: no call waits for this to be written, nor
        fails because it cannot be."""
        now = int(time.time())
        if now - self._noted_at.get(key.id, 0) < _NOTE_USE_EVERY_S:
            return
        self._noted_at[key.id] = now
        asyncio.get_running_loop().run_in_executor(None, self._write_use, key.id, now)

    async def custom_roles(self) -> Mapping[str, tuple[str, ...]]:
        """Permissions of the roles that are not built in. Raises DatabaseUnavailable."""
        roles = await asyncio.to_thread(self._accounts.roles.list)
        return {role.name: role.permissions for role in roles}

    def _write_use(self, id: str, at: int) -> None:
        try:
            self._accounts.keys.note_use({id: at})
        except DatabaseUnavailable as error:
            logger.warning("the last use of the key %s could not be noted: %s", id, error)

    def _find(self, prefix: str) -> StoredKey | None:
        key = self._accounts.keys.find_prefix(prefix)
        if key is None or self._accounts.tenants.get(key.tenant_id).disabled:
            return None
        user = None if key.user_id is None else self._accounts.users.get(key.user_id)
        if user is not None and user.disabled:
            return None
        if key.roles or user is None:
            return key
        return msgspec.structs.replace(key, roles=user.roles)
