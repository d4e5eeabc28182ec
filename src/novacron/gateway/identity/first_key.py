"""The key of a server that others can reach and for which nobody has configured one.

Made at the first start, told once, and kept as a hash in a file that only its user can read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from novacron.errors import ConfigError
from novacron.gateway.identity.key_directory import StoredKey
from novacron.gateway.identity.key_format import NewKey, new_key

FILE_NAME: Final = "first-key.json"
_OTHER_TENANT: Final = "tenant:first-key"


class FirstKey(msgspec.Struct, frozen=True, kw_only=True):
    """An administrator's key that never expires. `tenant_id` is set by who reads the file."""

    prefix: str
    hash: str
    created_at: int
    tenant_id: str = ""
    id: str = "first-key"
    user_id: str | None = None
    roles: tuple[str, ...] = ("admin",)
    scopes: tuple[str, ...] = ()

    def is_valid(self, now: float) -> bool:
        return True


class FirstKeyDirectory:
    """A KeyDirectory of one key."""

    def __init__(self, key: FirstKey, *, alone: bool) -> None:
        """`alone`: nobody has another way in, so that there is one tenant."""
        self._key = key if alone else msgspec.structs.replace(key, tenant_id=_OTHER_TENANT)

    async def find(self, prefix: str) -> FirstKey | None:
        return self._key if prefix == self._key.prefix else None

    def note_use(self, key: StoredKey) -> None:
        """Its file is written once."""

    async def custom_roles(self) -> Mapping[str, tuple[str, ...]]:
        return {}


def first_key(folder: Path, hash_key: Callable[[str], str]) -> tuple[FirstKey, NewKey | None]:
    """The key of this folder, and if it was made just now, its text. Raises ConfigError."""
    path = folder / FILE_NAME
    made = new_key()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            key = FirstKey(
                prefix=made.prefix, hash=hash_key(made.text), created_at=int(time.time())
            )
            if _write(path, folder / f"{made.prefix}.draft", msgspec.json.encode(key)):
                return key, made
        return _read(path), None
    except OSError as error:
        raise ConfigError(
            f"state_dir: the file {path} with the hash of this server's first key cannot be used: "
            f"{error.strerror}. Let its user write there, name another --state-dir, or set "
            "--api-key."
        ) from error


def _write(path: Path, draft: Path, data: bytes) -> bool:
    """False if another server, started at the same time, was first. The file is whole or absent."""
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def _read(path: Path) -> FirstKey:
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path} can be read or written by others. Run: chmod 600 {path}")
    try:
        return msgspec.json.decode(path.read_bytes(), type=FirstKey)
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"{path} is damaged: {error}. Delete it, and the next start makes another key."
        ) from error
