"""From settings to a response cache. Stores other than memory are imported where one is wanted."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

from novacron.cli.sealing import REDIS_DEADLINE_S, RESPONSE_PREFIX
from novacron.config.response_cache import parse_thresholds, sqlite_path
from novacron.config.server import ServerConfig
from novacron.config.url_secrets import mask_url
from novacron.errors import ConfigError
from novacron.gateway.response_caching import OpenedCache
from novacron.gateway.semantic_caching import SemanticSettings
from novacron.response_cache.cache import ResponseCache
from novacron.response_cache.memory_store import MemoryStore
from novacron.response_cache.store import AnswerStore


def open_response_cache(config: ServerConfig, encryption_key: str = "") -> OpenedCache | None:
    """None if it is off. Asks no server, so that one that is down is no reason not to start.

    Raises ConfigError if what the store needs is not installed, or the key is wrong.
    """
    if config.response_cache == "off":
        return None
    return OpenedCache(
        answers=ResponseCache(_kept(config, encryption_key), config.response_cache_ttl),
        store_name=mask_url(config.response_cache_url) or "memory",
        semantic=_semantic(config) if config.response_cache == "semantic" else None,
    )


def _semantic(config: ServerConfig) -> SemanticSettings:
    from novacron.response_cache.hash_embedding import hash_embedding
    from novacron.response_cache.vector_index import VectorIndex

    return SemanticSettings(
        index=VectorIndex(),
        threshold=config.response_cache_threshold,
        by_path=parse_thresholds(config.response_cache_thresholds),
        embed=hash_embedding if config.response_cache_embedding == "hash" else None,
    )


def _kept(config: ServerConfig, encryption_key: str) -> AnswerStore:
    """Memory is not encrypted: whoever reads that has the key, too."""
    store = _store(config)
    if not (encryption_key and config.response_cache_url):
        return store

    from novacron.cli.sealing import answers_place, sealing_at
    from novacron.response_cache.encrypted_store import EncryptedStore

    place = answers_place(config.response_cache_url)
    return EncryptedStore(store, sealing_at(place, encryption_key))


def _store(config: ServerConfig) -> AnswerStore:
    url, max_bytes = config.response_cache_url, config.response_cache_size
    if not url:
        return MemoryStore(max_bytes, time.monotonic)
    if path := sqlite_path(url):
        from novacron.response_cache.sqlite_store import SqliteStore

        return SqliteStore(Path(path), max_bytes, time.time)
    if find_spec("redis") is None:
        raise ConfigError(
            "response_cache_url is a Redis server, but the Python package redis is not "
            "installed. Install it with pip install 'novacron[redis]', or leave it out."
        )
    from novacron.response_cache.redis_store import RedisStore

    return RedisStore(url, RESPONSE_PREFIX, REDIS_DEADLINE_S)
