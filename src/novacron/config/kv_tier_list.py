"""`kv_tiers` in a configuration file: the tiers below the device as a list, fastest first.

    kv_tiers:
      - {kind: ram, size: 4Gi}
      - {kind: disk, path: /var/cache/kv, size: 20Gi}
      - {kind: redis, url: redis://cache:6379/0, ttl: 24h}
      - {kind: object, url: s3://bucket/prefix}

says the same as kv_ram_size, kv_disk_path and so on, with kv_tier_order. A kind that is not in it
is off. The policy, weights and ttl that stand at RAM are kv_eviction_policy and so on, which are
those of the disk as well; RAM and disk may have a compression and a max_error, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from novacron.errors import ConfigError

_KEYS: Final = {
    "ram": {
        "size": "kv_ram_size",
        "policy": "kv_eviction_policy",
        "weights": "kv_eviction_weights",
        "ttl": "kv_eviction_ttl",
        "compression": "kv_ram_compression",
        "max_error": "kv_ram_max_error",
    },
    "disk": {
        "size": "kv_disk_size",
        "path": "kv_disk_path",
        "compression": "kv_disk_compression",
        "max_error": "kv_disk_max_error",
    },
    "redis": {
        "url": "kv_redis_url",
        "region": "kv_redis_region",
        "size": "kv_redis_size",
        "ttl": "kv_redis_ttl",
        "compression": "kv_redis_compression",
        "prefix": "kv_redis_prefix",
        "deadline": "kv_redis_deadline",
    },
    "object": {
        "url": "kv_object_url",
        "region": "kv_object_region",
        "size": "kv_object_size",
        "compression": "kv_object_compression",
        "deadline": "kv_object_deadline",
        "refresh": "kv_object_refresh",
    },
}
_OFF: Final = {"ram": ("kv_ram_size", 0), "disk": ("kv_disk_size", 0)}  # the others are by default


def read_tier_list(value: object) -> Iterator[tuple[str, object]]:
    """The settings that the list stands for. Raises ConfigError, whose message has no values of
    tiers: there may be passwords among them."""
    if not isinstance(value, list) or not all(isinstance(tier, dict) for tier in value):
        raise ConfigError("expected a list such as [{kind: ram, size: 4Gi}, {kind: disk}]")
    kinds = [str(tier.get("kind")) for tier in value]
    for kind in kinds:
        if kind not in _KEYS:
            raise ConfigError(f"there is no kind '{kind}' of tier; there are {', '.join(_KEYS)}")
    if len(set(kinds)) < len(kinds):
        raise ConfigError("each kind of tier may stand there once")
    yield "kv_tier_order", kinds
    for kind, off in _OFF.items():
        if kind not in kinds:
            yield off
    for kind, tier in zip(kinds, value, strict=True):
        for name, inner in tier.items():
            if name == "kind":
                continue
            if name not in _KEYS[kind]:
                allowed = ", ".join(("kind", *_KEYS[kind]))
                raise ConfigError(f"a tier of kind {kind} has no '{name}'; it has {allowed}")
            yield _KEYS[kind][name], inner
        if "url" in _KEYS[kind] and not tier.get("url"):
            raise ConfigError(f"a tier of kind {kind} needs a url")
