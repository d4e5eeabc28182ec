"""Where API keys are kept, as this package sees it. Implemented by the database of accounts and by
the file of the first key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class StoredKey(Protocol):
    """An API key as it is kept. See novacron.accounts.records for the one of the database.

    `roles` are those that count: the key's own, or else those of its user. `scopes` narrow them.
    """

    @property
    def id(self) -> str: ...

    @property
    def hash(self) -> str: ...

    @property
    def tenant_id(self) -> str: ...

    @property
    def user_id(self) -> str | None: ...

    @property
    def roles(self) -> tuple[str, ...]: ...

    @property
    def scopes(self) -> tuple[str, ...]: ...

    def is_valid(self, now: float) -> bool:
        """Not expired, not revoked, and not replaced longer ago than its overlap, at Unix time
        `now`."""
        ...


class KeyDirectory(Protocol):
    """Finds keys. Asked a few times a minute for each key that is in use."""

    async def find(self, prefix: str) -> StoredKey | None:
        """The key of this prefix, whether valid or not. None if there is none, or if its user or
        tenant is disabled.

        Raises a NovaCronError that is retryable when it cannot tell.
        """
        ...

    def note_use(self, key: StoredKey) -> None:
        """Somebody who has the key has come with it: not only with its public part. Returns at
        once, whatever becomes of the note."""
        ...

    async def custom_roles(self) -> Mapping[str, tuple[str, ...]]:
        """Permissions (patterns) of the roles that are not built in, by name."""
        ...


class Directories:
    """Several directories as one, the quickest first. A key of any is remembered in one place."""

    def __init__(self, directories: tuple[KeyDirectory, ...]) -> None:
        self._directories = directories

    async def find(self, prefix: str) -> StoredKey | None:
        for directory in self._directories:
            key = await directory.find(prefix)
            if key is not None:
                return key
        return None

    def note_use(self, key: StoredKey) -> None:
        for directory in self._directories:
            directory.note_use(key)

    async def custom_roles(self) -> Mapping[str, tuple[str, ...]]:
        roles: dict[str, tuple[str, ...]] = {}
        for directory in self._directories:
            roles = {**await directory.custom_roles(), **roles}
        return roles
