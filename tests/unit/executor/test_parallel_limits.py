from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig, RanksApart, SpeculativeConfig, WatchConfig
from novacron.config.model import ModelConfig
from novacron.errors import ConfigError
from novacron.executor.parallel_limits import refuse_with_ranks

DRAFT = SpeculativeConfig(speculative_method="draft")
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


def test_the_sizes_that_were_given_are_named() -> None:
    model = ModelConfig(pipeline_parallel_size=4, device="cuda")
    with pytest.raises(ConfigError, match="pipeline_parallel_size is 4, which does"):
        refuse_with_ranks(EngineConfig(model=model))
    both = replace(model, tensor_parallel_size=2)
    with pytest.raises(ConfigError, match="_size is 2 and pipeline_parallel_size is 4, which"):
        refuse_with_ranks(EngineConfig(model=both))


def test_stages_have_draft_models_variants_and_tiers() -> None:
    staged = EngineConfig(
        model=ModelConfig(pipeline_parallel_size=2, variants=("int8",)),
        speculative=DRAFT,
        cache=CacheConfig(kv_ram_size=2**30),
    )
    refuse_with_ranks(staged)


TIERS = [
    CacheConfig(kv_ram_size=2**30, kv_disk_size=2**30),
    CacheConfig(kv_redis_url="redis://host", kv_object_url="s3://bucket"),
    CacheConfig(kv_disk_compression="int8", kv_redis_compression="zstd"),
]


@pytest.mark.parametrize("cache", TIERS)
def test_tiers_take_several_steps_at_a_time_on_one_host_and_on_several(cache: CacheConfig) -> None:
    model = ModelConfig(pipeline_parallel_size=2, pipeline_steps_in_flight=2)
    refuse_with_ranks(EngineConfig(model=model, cache=cache))
    refuse_with_ranks(EngineConfig(model=model, cache=cache, apart=RanksApart(hosts=("a",))))


@pytest.mark.parametrize("parallel", ["pipeline_parallel_size", "tensor_parallel_size"])
def test_hosts_have_draft_models_and_replicas_but_no_variants(parallel: str) -> None:
    parts = ModelConfig(**{parallel: 2, "data_parallel_size": 2})
    apart = EngineConfig(model=parts, speculative=DRAFT, apart=RanksApart(hosts=("a",)))
    refuse_with_ranks(replace(apart, cache=CacheConfig(kv_ram_size=2**30, kv_disk_size=2**30)))
    model = replace(parts, variants=("int8",))
    with pytest.raises(ConfigError, match=r"hosts of its ranks is 2, .* with .*variants"):
        refuse_with_ranks(replace(apart, model=model))


@pytest.mark.parametrize(
    ("stages", "slices", "rows"), [(1, 1, 1), (3, 1, 1), (1, 4, 1), (4, 2, 1), (1, 1, 3)]
)
def test_hosts_and_parts_are_counted_alike(stages: int, slices: int, rows: int) -> None:
    model = ModelConfig(
        pipeline_parallel_size=stages, tensor_parallel_size=slices, context_parallel_size=rows
    )
    with pytest.raises(ConfigError, match=r"name .*, or set pipeline_parallel_size to 2"):
        refuse_with_ranks(EngineConfig(model=model, apart=RanksApart(hosts=("a",))))


def test_hosts_may_have_several_slices_of_their_stage() -> None:
    model = ModelConfig(pipeline_parallel_size=2, tensor_parallel_size=2)
    refuse_with_ranks(EngineConfig(model=model, apart=RanksApart(hosts=("a",))))


def test_hosts_that_share_rows_leave_tiers_to_the_first() -> None:
    rows = ModelConfig(context_parallel_size=2)
    apart = EngineConfig(model=rows, apart=RanksApart(hosts=("a",)))
    refuse_with_ranks(replace(apart, cache=CacheConfig(kv_redis_url="redis://host")))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("activation_compression", {"apart": RanksApart(hosts=("a",), compression="int8")}),
        ("speculative_method draft", {"speculative": DRAFT}),
        (
            "data_parallel_size",
            {"model": ModelConfig(context_parallel_size=2, data_parallel_size=2)},
        ),
    ],
)
def test_what_hosts_that_share_rows_cannot_do_is_refused(
    name: str, changes: dict[str, Any]
) -> None:
    apart = EngineConfig(model=ModelConfig(context_parallel_size=2), apart=RanksApart(hosts=("a",)))
    with pytest.raises(ConfigError, match=f"not go together with {name} yet"):
        refuse_with_ranks(replace(apart, **changes))


@pytest.mark.parametrize("other", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_rows_go_with_no_other_ranks(other: str) -> None:
    refuse_with_ranks(EngineConfig(model=ModelConfig(context_parallel_size=2)))
    both = ModelConfig(context_parallel_size=2, **{other: 2})
    with pytest.raises(ConfigError, match="its ranks have the whole model each"):
        refuse_with_ranks(EngineConfig(model=both))


def test_what_ranks_can_do_passes() -> None:
    refuse_with_ranks(PAIR)
    guessing = SpeculativeConfig(speculative_method="draft")
    precisions = ModelConfig(tensor_parallel_size=2, variants=("int8",))
    tiers = CacheConfig(kv_ram_size=2**30, kv_redis_url="redis://host")
    refuse_with_ranks(replace(PAIR, model=precisions, speculative=guessing, cache=tiers))
