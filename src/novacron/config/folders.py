"""Where things lie that can be made again."""

from __future__ import annotations

from pathlib import Path

from novacron.config.engine import CacheConfig, ModelConfig

_DEFAULT_CACHE = Path("~/.cache")


def cache_folder(model: ModelConfig) -> Path:
    """What can be made again is kept below this."""
    base = Path(model.cache_dir) if model.cache_dir else _DEFAULT_CACHE.expanduser()
    return base / "novacron"


def kv_folder(model: ModelConfig, cache: CacheConfig) -> Path:
    """KV blocks on disk."""
    if cache.kv_disk_path:
        return Path(cache.kv_disk_path).expanduser()
    return cache_folder(model) / "kv"
