from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from novacron.config.engine import (
    CacheConfig,
    EngineConfig,
    ModelConfig,
    SpeculativeConfig,
    WatchConfig,
)
from novacron.errors import ConfigError
from novacron.executor.parallel_limits import refuse_with_ranks

PAIR = EngineConfig(model=ModelConfig(tensor_parallel_size=2))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("device cuda", {"model": ModelConfig(tensor_parallel_size=2, device="cuda")}),
        ("quality_watch", {"watch": WatchConfig(quality_watch=0.1)}),
    ],
)
def test_what_ranks_cannot_do_is_refused_by_name(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"tensor_parallel_size is 2, .* with {name} yet"):
        refuse_with_ranks(replace(PAIR, **changes))


def test_what_ranks_can_do_passes() -> None:
    refuse_with_ranks(PAIR)
    guessing = SpeculativeConfig(speculative_method="draft")
    precisions = ModelConfig(tensor_parallel_size=2, variants=("int8",))
    tiers = CacheConfig(kv_ram_size=2**30, kv_redis_url="redis://host")
    refuse_with_ranks(replace(PAIR, model=precisions, speculative=guessing, cache=tiers))
