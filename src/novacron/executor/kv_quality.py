"""What a model loses when its KV blocks go through a tier that compresses: measured once, kept in
the cache folder, and asked for before a profile may compress.

A measurement belongs to weights, their precision, that of the cache and its block size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import blake3
import msgspec

from novacron.config.cache import CacheConfig
from novacron.config.kv_compression import tier_compressions
from novacron.errors import ConfigError
from novacron.kernels.kv_format import LayerFormat, describe_kv_formats

LEAST_AGREEMENT: Final = 0.99  # of the likeliest tokens, with those after exact blocks
LEAST_TOKENS: Final = 500  # judged; fewer show nothing
_FOLDER: Final = "kv_quality"


class LevelQuality(msgspec.Struct, frozen=True, kw_only=True):
    """Over judged tokens that follow blocks which went through the level."""

    top1_agreement: float
    kl: float  # nats a token
    num_tokens: int

    @property
    def is_enough(self) -> bool:
        return self.num_tokens >= LEAST_TOKENS and self.top1_agreement >= LEAST_AGREEMENT


def measurement_path(
    cache_folder: Path, weights: str, formats: tuple[LayerFormat, ...], block_size: int
) -> Path:
    """Where a model's measurement is. `weights` is the digest of them as they compute, `formats`
    those of all layers."""
    text = "\x00".join((weights, describe_kv_formats(formats), str(block_size)))
    return cache_folder / _FOLDER / f"{blake3.blake3(text.encode()).hexdigest(16)}.json"


def keep_measurement(path: Path, levels: Mapping[str, LevelQuality]) -> None:
    """Levels that were measured before and not again stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_bytes(msgspec.json.encode({**read_measurement(path), **levels}))
    unfinished.rename(path)


def read_measurement(path: Path) -> dict[str, LevelQuality]:
    """By level; empty if there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, LevelQuality])
    except (OSError, msgspec.MsgspecError):
        return {}


def check_profile(cache: CacheConfig, path: Path) -> None:
    """Raises ConfigError if the profile asks for a level that the model has not been shown to bear.
    Levels that are asked for by name are the user's own choice."""
    wanted = {
        one.level
        for one in tier_compressions(cache).values()
        if one.is_by_profile and one.level != "raw"
    }
    measured = read_measurement(path)
    missing = sorted(wanted - measured.keys())
    if missing:
        raise ConfigError(
            f"kv_tier_profile is {cache.kv_tier_profile!r}, but what KV blocks lose in "
            f"{', '.join(missing)} has not been measured for this model in this precision. Run "
            "`novacron bench kv-codecs` with the same model and settings, or name the levels: "
            "kv_ram_compression, kv_disk_compression."
        )
    bad = {level: measured[level] for level in sorted(wanted) if not measured[level].is_enough}
    if bad:
        found = ", ".join(
            f"{level} {one.top1_agreement:.2%} of {one.num_tokens} tokens"
            for level, one in bad.items()
        )
        raise ConfigError(
            f"kv_tier_profile is {cache.kv_tier_profile!r}, but this model does not bear it: the "
            f"likeliest token stays the same for {found}, where {LEAST_AGREEMENT:.0%} of at least "
            f"{LEAST_TOKENS} are needed. Name finer levels: kv_ram_compression, "
            "kv_disk_compression."
        )
