"""Ciphers of KV tiers, where a master key is configured. Its library is imported only then.

Data keys lie where the blocks lie: servers that share blocks share them, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from novacron.config.cache import CacheConfig
from novacron.kv_tiers.encrypted_tier import BlockCipher

OpenCipher = Callable[[str], BlockCipher | None]  # of a kind of tier; None: it stays in the open

_KEYS: Final = "keys"  # folder beside the segments


def no_cipher(kind: str) -> BlockCipher | None:
    """Implements OpenCipher: nothing is encrypted."""
    return None


def ciphers_of(cache: CacheConfig, folder: Path) -> OpenCipher:
    """`folder` is the disk tier's. Opening one raises ConfigError if the master key is wrong or is
    not there; other machines are not asked yet."""
    if not cache.encryption_key:
        return no_cipher

    from novacron.encryption.key_places import FolderPlace, KeyPlace
    from novacron.encryption.key_ring import KeyRing
    from novacron.encryption.key_sources import open_master_keys
    from novacron.encryption.sealing import Sealing
    from novacron.encryption.start_checks import require_key, require_right_key

    masters = open_master_keys(cache.encryption_key, os.environ)
    require_key(masters)

    def place_of(kind: str) -> KeyPlace:
        if kind == "redis":
            from novacron.encryption.redis_place import RedisPlace

            return RedisPlace(cache.kv_redis_url, cache.kv_redis_prefix, cache.kv_redis_deadline)
        if kind == "object":
            from novacron.encryption.object_place import ObjectPlace

            return ObjectPlace(cache.kv_object_url, cache.kv_object_deadline)
        return FolderPlace(folder / _KEYS)

    def open_cipher(kind: str) -> BlockCipher:
        ring = KeyRing(place_of(kind), masters)
        if kind == "disk":
            require_right_key(ring)
        return Sealing(ring)

    return open_cipher
