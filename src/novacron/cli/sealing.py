"""From the settings to what seals and opens what is kept. The library of ciphers is imported only
where a master key is configured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from novacron.config.folders import (
    database_url,
    has_database,
    keeps_streams,
    kv_folder,
    prompt_folder,
)
from novacron.config.load import Settings
from novacron.config.response_cache import sqlite_path

if TYPE_CHECKING:
    from novacron.encryption.key_places import KeyPlace
    from novacron.encryption.key_ring import KeyRing
    from novacron.encryption.sealing import Sealing

KEYS: Final = "keys"  # folder of data keys beside what they encrypt
RESPONSE_PREFIX: Final = "novacron:response"
REDIS_DEADLINE_S: Final = 0.25
_PATIENCE_S: Final = 5.0  # of commands


def sealing_at(place: KeyPlace, source: str, *, is_open: bool = False) -> Sealing:
    """`source` is encryption_key. Raises ConfigError if the key cannot be had; or is wrong, where
    the place is a folder: other machines are not asked yet. One that `is_open` is, and keys are
    there when this returns."""
    from novacron.encryption.key_places import FolderPlace
    from novacron.encryption.sealing import Sealing
    from novacron.encryption.start_checks import (
        require_data_key,
        require_key,
        require_right_key,
    )

    ring = ring_of(place, source)
    require_key(ring.masters)
    if is_open or isinstance(place, FolderPlace):
        require_right_key(ring)
    if is_open:
        require_data_key(ring)
    return Sealing(ring)


def ring_of(place: KeyPlace, source: str) -> KeyRing:
    """Raises ConfigError."""
    from novacron.encryption.key_ring import KeyRing
    from novacron.encryption.key_sources import open_master_keys

    return KeyRing(place, open_master_keys(source, os.environ))


def answers_place(url: str) -> KeyPlace:
    """Of the response cache at `url`, which is no memory."""
    from novacron.encryption.key_places import FolderPlace

    if path := sqlite_path(url):
        return FolderPlace(Path(f"{path}.{KEYS}"))
    from novacron.encryption.redis_place import RedisPlace

    return RedisPlace(url, RESPONSE_PREFIX, REDIS_DEADLINE_S)


def all_places(settings: Settings) -> Iterator[KeyPlace]:
    """Wherever servers with these settings keep data keys."""
    from novacron.encryption.key_places import FolderPlace

    cache, server = settings.engine.cache, settings.server
    yield FolderPlace(kv_folder(settings.engine.model, cache) / KEYS)
    yield FolderPlace(prompt_folder(server) / KEYS)
    if server.response_cache_url:
        yield answers_place(server.response_cache_url)
    if cache.kv_redis_url:
        from novacron.encryption.redis_place import RedisPlace

        yield RedisPlace(cache.kv_redis_url, cache.kv_redis_prefix, _PATIENCE_S)
    if cache.kv_object_url:
        from novacron.encryption.object_place import ObjectPlace

        yield ObjectPlace(cache.kv_object_url, _PATIENCE_S)
    if has_database(server) and keeps_streams(settings.cluster, server):
        from novacron.accounts.database.store import Store

        yield Store(database_url(server)).data_keys()
