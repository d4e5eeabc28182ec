"""Settings of KV tiers on other machines: whether they can be meant so. Nothing is opened here."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Final, Protocol

from novacron.config.url_secrets import mask_url
from novacron.errors import ConfigError

TIER_KINDS: Final = ("ram", "disk", "redis", "object")

_REDIS_URL: Final = re.compile(r"(redis|rediss)://[^/]|unix:///?[^/]")
_OBJECT_URL: Final = re.compile(r"(s3|s3a|gs|az|abfs|abfss)://[^/]|file:///.")
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class RemoteTiers(Protocol):
    """The part of CacheConfig that is checked here."""

    @property
    def kv_redis_url(self) -> str: ...
    @property
    def kv_redis_compression(self) -> str: ...
    @property
    def kv_object_compression(self) -> str: ...
    @property
    def kv_redis_size(self) -> int | None: ...
    @property
    def kv_redis_ttl(self) -> float: ...
    @property
    def kv_redis_prefix(self) -> str: ...
    @property
    def kv_redis_deadline(self) -> float: ...
    @property
    def kv_object_url(self) -> str: ...
    @property
    def kv_object_size(self) -> int | None: ...
    @property
    def kv_object_deadline(self) -> float: ...
    @property
    def kv_object_refresh(self) -> float: ...
    @property
    def kv_tier_order(self) -> tuple[str, ...]: ...


def check_remote_tiers(cache: RemoteTiers) -> None:
    """Raises ConfigError, whose message starts with the key and holds no password."""
    if cache.kv_redis_url and not _REDIS_URL.match(cache.kv_redis_url):
        raise ConfigError(
            f"kv_redis_url is '{mask_url(cache.kv_redis_url)}': give redis://host:6379/0, "
            "rediss:// for TLS, or unix:///path/of/socket."
        )
    if cache.kv_object_url and not _OBJECT_URL.match(cache.kv_object_url):
        raise ConfigError(
            f"kv_object_url is '{mask_url(cache.kv_object_url)}': give s3://bucket/prefix, gs://, "
            "az:// or file:///folder."
        )
    for key in ("kv_redis_deadline", "kv_object_deadline", "kv_object_refresh"):
        if not getattr(cache, key) > 0:
            raise ConfigError(f"{key} is {getattr(cache, key)!r}: give a duration such as 500ms.")
    if not cache.kv_redis_ttl >= 0:
        raise ConfigError(f"kv_redis_ttl is {cache.kv_redis_ttl!r}: give a duration such as 24h.")
    if not _NAMESPACE.fullmatch(cache.kv_redis_prefix):
        raise ConfigError(
            f"kv_redis_prefix is '{cache.kv_redis_prefix}': give up to 64 letters, digits and "
            "any of . _ : -"
        )
    order = cache.kv_tier_order
    if len(set(order)) < len(order) or not set(order) <= set(TIER_KINDS):
        raise ConfigError(
            f"kv_tier_order is '{','.join(order)}': name each of {', '.join(TIER_KINDS)} at most "
            "once; those that are left out come last."
        )


def require_extras(cache: RemoteTiers) -> None:
    """Whether what the tiers need is installed. Raises ConfigError with how to install it."""
    needed = [("kv_redis_url", "redis", "redis"), ("kv_object_url", "obstore", "s3")]
    for key, extra in (("kv_redis_compression", "redis"), ("kv_object_compression", "s3")):
        if getattr(cache, key) == "zstd":
            needed.append((key, "zstandard", extra))
    for key, module, extra in needed:
        if getattr(cache, key) and find_spec(module) is None:
            raise ConfigError(
                f"{key} is set, but the Python package {module} is not installed. Install it with "
                f"pip install 'novacron[{extra}]', or remove {key}."
            )


def tier_order(cache: RemoteTiers) -> tuple[str, ...]:
    """All kinds, fastest first."""
    rest = (kind for kind in TIER_KINDS if kind not in cache.kv_tier_order)
    return (*cache.kv_tier_order, *rest)
