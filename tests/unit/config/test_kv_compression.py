from __future__ import annotations

from typing import Any, get_args

import pytest

from novacron.config.cache import CacheConfig
from novacron.config.kv_compression import (
    MOST_ERROR,
    KVLevel,
    TierCompression,
    levels_from,
    loss_identity,
    tier_compressions,
)

LEVELS: tuple[KVLevel, ...] = get_args(KVLevel)


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_falls_back_to_raw_at_last(level: KVLevel) -> None:
    chain = levels_from(level)
    assert (chain[0], chain[-1]) == (level, "raw")
    assert len(set(chain)) == len(chain)
    errors = [MOST_ERROR[one] for one in chain]
    assert errors == sorted(errors, reverse=True), "each is finer than the one before"


def test_nothing_is_lost_by_default() -> None:
    assert set(tier_compressions(CacheConfig()).values()) == {
        TierCompression(is_by_profile=True),
    }
    assert loss_identity(CacheConfig()) == ""


def test_a_profile_has_a_level_for_each_tier() -> None:
    found = tier_compressions(CacheConfig(kv_tier_profile="ladder"))
    assert found == {
        "ram": TierCompression("int8", 0.02, is_by_profile=True),
        "disk": TierCompression("int8/int4", 0.25, is_by_profile=True),
    }


def test_what_is_said_of_a_tier_counts_more() -> None:
    cache = CacheConfig(
        kv_tier_profile="ladder", kv_ram_compression="raw", kv_disk_compression="fp8",
        kv_disk_max_error=0.5,
    )  # fmt: skip
    assert tier_compressions(cache) == {
        "ram": TierCompression("raw", 0.0),
        "disk": TierCompression("fp8", 0.5),
    }


@pytest.mark.parametrize(
    "change",
    [
        {"kv_ram_compression": "int4"},
        {"kv_disk_compression": "int8"},
        {"kv_ram_max_error": 0.01},
        {"kv_tier_profile": "ladder", "kv_ram_compression": "raw"},
        {"kv_redis_compression": "int8"},
        {"kv_object_compression": "int4"},
    ],
)
def test_blocks_of_other_losses_are_others(change: dict[str, Any]) -> None:
    """So none of them is found as if it were exact, or had lost less."""
    first = CacheConfig(kv_ram_compression="int8")
    other = CacheConfig(**{"kv_ram_compression": "int8", **change})
    assert "" != loss_identity(first) != loss_identity(other) != ""


def test_zstd_loses_nothing() -> None:
    assert loss_identity(CacheConfig(kv_redis_compression="zstd")) == ""


def test_limits_of_tiers_that_lose_nothing_do_not_matter() -> None:
    assert loss_identity(CacheConfig(kv_ram_max_error=0.1)) == ""
