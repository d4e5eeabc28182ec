"""Wrapped data keys on the Redis or Valkey server that keeps what they encrypt, in one hash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

from novacron.config.url_secrets import mask_url
from novacron.encryption.key_places import ID


class RedisPlace:
    """Implements KeyPlace. `prefix` is what the names of the server's values begin with."""

    def __init__(self, url: str, prefix: str, timeout_s: float) -> None:
        self._name = f"{prefix}:data-keys"
        self._shown = f"{mask_url(url)} ({self._name})"
        self._client = redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )

    @property
    def shown(self) -> str:
        return self._shown

    def read(self) -> Mapping[str, bytes]:
        try:
            values: Any = self._client.hgetall(self._name)
        except redis.RedisError as error:
            raise OSError(f"Redis: {type(error).__name__}") from None
        found = {name.decode("ascii", "replace"): data for name, data in values.items()}
        return {id: data for id, data in found.items() if ID.fullmatch(id)}

    def write(self, id: str, data: bytes) -> None:
        try:
            self._client.hset(self._name, id, data)
        except redis.RedisError as error:
            raise OSError(f"Redis: {type(error).__name__}") from None
