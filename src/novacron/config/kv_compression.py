"""What KV blocks lose in a tier: levels, their order, and profiles with one for each tier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

KVLevel = Literal["raw", "int8", "fp8", "int8/int4", "int4"]
RemoteCompression = Literal["raw", "zstd", "int8", "fp8", "int8/int4", "int4"]
KVTierProfile = Literal["lossless", "ladder"]
KVCompression = Literal["auto", "raw", "int8", "fp8", "int8/int4", "int4"]

# What a block that would lose too much is stored in instead. fp8 takes the bytes of int8 and loses
# more, so int8 comes after it. "int8/int4" are keys and values, as in kv_cache_dtype.
NEXT_FINER: Final[Mapping[KVLevel, KVLevel]] = {
    "int4": "int8/int4",
    "int8/int4": "int8",
    "fp8": "int8",
    "int8": "raw",
}

# The relative error above which a block falls back, where no other is set: about three times what
# blocks of the bundled model have.
MOST_ERROR: Final[Mapping[KVLevel, float]] = {
    "raw": 0.0,
    "int8": 0.02,
    "fp8": 0.06,
    "int8/int4": 0.25,
    "int4": 0.25,
}

# Finer where a block is needed sooner.
PROFILES: Final[Mapping[KVTierProfile, Mapping[str, KVLevel]]] = {
    "lossless": {},
    "ladder": {"ram": "int8", "disk": "int8/int4"},
}


def levels_from(level: KVLevel) -> tuple[KVLevel, ...]:
    """The level and all that a block may fall back to, the coarsest first and "raw" last."""
    chain = [level]
    while chain[-1] != "raw":
        chain.append(NEXT_FINER[chain[-1]])
    return tuple(chain)


class CompressionSettings(Protocol):
    """The part of CacheConfig that is read here."""

    @property
    def kv_tier_profile(self) -> KVTierProfile: ...
    @property
    def kv_ram_compression(self) -> KVCompression: ...
    @property
    def kv_ram_max_error(self) -> float | None: ...
    @property
    def kv_disk_compression(self) -> KVCompression: ...
    @property
    def kv_disk_max_error(self) -> float | None: ...
    @property
    def kv_redis_compression(self) -> RemoteCompression: ...
    @property
    def kv_object_compression(self) -> RemoteCompression: ...


@dataclass(frozen=True)
class TierCompression:
    """What blocks of a tier are stored in, and the largest error that one may have there."""

    level: KVLevel = "raw"
    max_error: float = 0.0
    is_by_profile: bool = False

    def __str__(self) -> str:
        return self.level if self.level == "raw" else f"{self.level} up to {self.max_error:g}"


def tier_compressions(cache: CompressionSettings) -> dict[str, TierCompression]:
    """Of each kind of tier: its own setting, else that of the profile."""
    own = {
        "ram": (cache.kv_ram_compression, cache.kv_ram_max_error),
        "disk": (cache.kv_disk_compression, cache.kv_disk_max_error),
    }
    profile = PROFILES[cache.kv_tier_profile]
    return {
        kind: _compression(compression, max_error, profile.get(kind, "raw"))
        for kind, (compression, max_error) in own.items()
    }


def lossy_level(compression: RemoteCompression) -> KVLevel:
    """ "raw" where nothing is lost."""
    return "raw" if compression == "zstd" else compression


def loss_identity(cache: CompressionSettings) -> str:
    """What tells blocks that may have lost something apart from exact ones; empty if none may."""
    lossy = {kind: str(one) for kind, one in tier_compressions(cache).items() if one.level != "raw"}
    for kind, compression in (
        ("redis", cache.kv_redis_compression),
        ("object", cache.kv_object_compression),
    ):
        level = lossy_level(compression)
        if level != "raw":
            lossy[kind] = str(TierCompression(level, MOST_ERROR[level]))
    return ", ".join(f"{kind} tier {text}" for kind, text in lossy.items())


def _compression(
    compression: KVCompression, max_error: float | None, of_profile: KVLevel
) -> TierCompression:
    level = of_profile if compression == "auto" else compression
    most = MOST_ERROR[level] if max_error is None else max_error
    return TierCompression(level, most, is_by_profile=compression == "auto")
