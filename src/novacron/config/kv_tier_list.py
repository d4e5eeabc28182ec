"""`kv_tiers` in a configuration file: the tiers below the device as a list, fastest first.

    kv_tiers: [{kind: ram, size: 4Gi}, {kind: disk, path: /var/cache/kv, size: 20Gi}]

says the same as kv_ram_size, kv_disk_path and kv_disk_size. A kind that is not in it is off. The
policy and weights of RAM are kv_eviction_policy and kv_eviction_weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from novacron.errors import ConfigError

_ORDER: Final = ("ram", "disk")
_KEYS: Final = {
    "ram": {
        "size": "kv_ram_size",
        "policy": "kv_eviction_policy",
        "weights": "kv_eviction_weights",
    },
    "disk": {"size": "kv_disk_size", "path": "kv_disk_path"},
}


def read_tier_list(value: object) -> Iterator[tuple[str, object]]:
    """The settings that the list stands for. Raises ConfigError."""
    if not isinstance(value, list) or not all(isinstance(tier, dict) for tier in value):
        raise ConfigError("expected a list such as [{kind: ram, size: 4Gi}, {kind: disk}]")
    kinds = [str(tier.get("kind")) for tier in value]
    for kind in kinds:
        if kind not in _KEYS:
            raise ConfigError(f"there is no kind '{kind}' of tier; there are {', '.join(_KEYS)}")
    if kinds != [kind for kind in _ORDER if kind in kinds]:
        raise ConfigError("each kind may stand there once, ram before disk")
    for kind in _ORDER:
        if kind not in kinds:
            yield _KEYS[kind]["size"], 0
    for kind, tier in zip(kinds, value, strict=True):
        for name, inner in tier.items():
            if name == "kind":
                continue
            if name not in _KEYS[kind]:
                allowed = ", ".join(("kind", *_KEYS[kind]))
                raise ConfigError(f"a tier of kind {kind} has no '{name}'; it has {allowed}")
            yield _KEYS[kind][name], inner
