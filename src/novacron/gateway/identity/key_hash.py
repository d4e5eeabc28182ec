"""What is kept of an API key: an argon2id hash. The only file that imports argon2.

A key has 256 random bits, which nobody finds by trying, whatever a try costs. So the cost is small:
milliseconds, and memory that a server has for every one of its cores.
"""

from __future__ import annotations

from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

_HASHER: Final = PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1)


def hash_key(key: str) -> str:
    """For StoredKey.hash, with its own salt and parameters in it."""
    return _HASHER.hash(key)


def is_key_of(hash: str, token: bytes) -> bool:
    """Whether `token` is the key behind `hash`. Milliseconds; lets other threads run."""
    try:
        return _HASHER.verify(hash, token)
    except (Argon2Error, InvalidHashError):
        return False
