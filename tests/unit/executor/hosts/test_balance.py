"""What each host gets of a model, before a weight is read."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from novacron.config.cache import CacheConfig
from novacron.config.engine import SpeculativeConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.errors import ConfigError, ModelLoadError
from novacron.executor.blueprint import Blueprint, draw_blueprint
from novacron.executor.hosts.balance import (
    HostFacts,
    HostsPlan,
    plan_pipeline,
    plan_rows,
    plan_slices,
    rounded_speeds,
)
from novacron.executor.memory_plan import DeviceMemory, block_bytes, plan_memory
from novacron.parallel.dims import ParallelDims
from novacron.testing.tiny_models import make_tiny_model

MEMORY = DeviceMemory("cpu", 2**28, 2**28, 0.5, is_own=False)
CACHE = CacheConfig(block_size=8)
SCHEDULER = SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Blueprint:
    folder = make_tiny_model("llama", tmp_path_factory.mktemp("llama"), num_hidden_layers=8)
    return draw_blueprint(ModelConfig(kernels="torch", device="cpu"), folder, 1)


def host(name: str, speed: float = 1e9, free_bytes: int = MEMORY.free_bytes) -> HostFacts:
    return HostFacts(name, replace(MEMORY, free_bytes=free_bytes), speed)


def planned(
    whole: Blueprint,
    *hosts: HostFacts,
    cache: CacheConfig = CACHE,
    slices: int = 1,
    former: tuple[int, ...] = (),
) -> HostsPlan:
    return plan_pipeline(
        whole,
        hosts,
        cache,
        SCHEDULER,
        SpeculativeConfig(),
        dims=ParallelDims(slices, len(hosts)),
        max_model_len=None,
        former=former,
    )


def test_noise_of_a_measurement_moves_no_layer(whole: Blueprint) -> None:
    assert rounded_speeds([1.0e10, 1.06e10, 0.97e10]) == (1.0, 1.0, 1.0)
    assert rounded_speeds([4e10, 2e10, 1e10]) == pytest.approx((1, 0.512, 0.262), rel=1e-2)
    even = planned(whole, host("a"), host("b"))
    assert planned(whole, host("a", 1.05e9), host("b", 0.98e9)).stages == even.stages


def test_quicker_hosts_get_more_layers(whole: Blueprint) -> None:
    plan = planned(whole, host("slow"), host("quick", 3e9))
    first, second = (len(stage.layers) for stage in plan.stages)
    assert second > first
    assert first + second == 8


def test_layers_stay_where_they_were_as_long_as_that_is_sensible(whole: Blueprint) -> None:
    def stops(*hosts: HostFacts, former: tuple[int, ...]) -> list[int]:
        plan = planned(whole, *hosts, former=former)
        return [stage.layers.stop for stage in plan.stages]

    even = [stage.layers.stop for stage in planned(whole, host("a"), host("b")).stages]
    one_more = (even[0] + 1, 8)
    assert stops(host("a"), host("b"), former=one_more) in (even, list(one_more))
    assert stops(host("a"), host("b", 1.2e9), former=tuple(even)) == even
    assert stops(host("a"), host("b", 9e9), former=tuple(even)) != even
    assert stops(host("a"), host("b"), former=(3,)) == even


def test_all_hosts_have_as_many_blocks_as_the_one_with_least_room(whole: Blueprint) -> None:
    one = planned(whole, host("a"), host("b"), cache=CACHE)
    alone = plan_memory(
        whole.shape(), MEMORY, CACHE, SCHEDULER, SpeculativeConfig(), max_model_len=None
    )
    assert one.num_blocks == alone.num_blocks  # as many as requests can use
    weights = one.hosts[1].weight_bytes
    small = planned(whole, host("a"), host("b", free_bytes=weights + 2**20))
    assert small.num_blocks < one.num_blocks
    assert small.max_model_len <= one.max_model_len
    assert small.kv_cache_bytes == small.num_blocks * block_bytes(whole.shape(), CACHE)


def test_memory_asked_for_is_that_of_all_hosts(whole: Blueprint) -> None:
    cache = replace(CACHE, kv_cache_memory=2**20)
    alone = plan_memory(
        whole.shape(), MEMORY, cache, SCHEDULER, SpeculativeConfig(), max_model_len=None
    )
    assert planned(whole, host("a"), host("b"), host("c"), cache=cache).num_blocks == (
        alone.num_blocks
    )


def test_weights_of_all_hosts_are_those_of_one(whole: Blueprint) -> None:
    plan = planned(whole, host("a"), host("b", 2e9), host("c"))
    extra = sum(one.weight_bytes for one in plan.hosts) - whole.shape().weight_bytes
    assert extra == 0


def test_a_model_that_fits_nowhere_is_refused_with_numbers(whole: Blueprint) -> None:
    with pytest.raises(ModelLoadError, match=r"no cut of the layers fits .*: a .*, b "):
        planned(whole, host("a", free_bytes=2**14), host("b", free_bytes=2**14))


def test_a_host_without_room_for_blocks_is_named(whole: Blueprint) -> None:
    weights = planned(whole, host("a"), host("b")).hosts[1].weight_bytes
    with pytest.raises((ConfigError, ModelLoadError), match="On the host b: "):
        planned(whole, host("a"), host("b", free_bytes=int(weights / 0.8) + 2**12))


def test_more_hosts_than_layers_are_refused(whole: Blueprint, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the model has 8"):
        planned(whole, *(host(str(number)) for number in range(9)))


def sliced(whole: Blueprint, *hosts: HostFacts) -> HostsPlan:
    return plan_slices(
        whole,
        hosts,
        CACHE,
        SCHEDULER,
        SpeculativeConfig(),
        dims=ParallelDims(len(hosts)),
        max_model_len=None,
    )


def test_a_host_has_all_slices_of_its_stage(whole: Blueprint) -> None:
    """They take what one rank takes, but for norms, which each has."""
    alone, pairs = (planned(whole, host("a"), host("b"), slices=count) for count in (1, 2))
    assert pairs.stages == alone.stages
    assert pairs.kv_cache_bytes // pairs.num_blocks == alone.kv_cache_bytes // alone.num_blocks
    for one, pair in zip(alone.hosts, pairs.hosts, strict=True):
        assert one.weight_bytes < pair.weight_bytes < 1.02 * one.weight_bytes


def test_slices_are_equal_and_share_the_cache(whole: Blueprint) -> None:
    plan = sliced(whole, host("a"), host("b"))
    one, other = plan.hosts
    assert one.weight_bytes == other.weight_bytes < whole.shape().weight_bytes
    assert plan.stages == ()
    assert plan.kv_cache_bytes == plan.num_blocks * block_bytes(whole.shape(), CACHE)
    small = sliced(whole, host("a"), host("b", free_bytes=one.weight_bytes + 2**22))
    assert small.num_blocks < plan.num_blocks


def test_slices_on_a_much_slower_host_are_told_of(
    whole: Blueprint, caplog: pytest.LogCaptureFixture
) -> None:
    sliced(whole, host("a"), host("b", 0.9e9))
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
    sliced(whole, host("a"), host("b", 0.3e9))
    assert "the host b reads weights at 33%" in caplog.text


def test_rows_take_the_whole_model_and_all_blocks_on_every_host(whole: Blueprint) -> None:
    native = draw_blueprint(ModelConfig(device="cpu", kernels="native"), whole.path, 1)
    cache = replace(CACHE, kv_cache_memory=2**20)
    plan = plan_rows(
        native, [host("a"), host("b")], cache, SCHEDULER, SpeculativeConfig(),
        dims=ParallelDims(context=2), max_model_len=None,
    )  # fmt: skip
    alone = plan_memory(
        native.shape(), MEMORY, cache, SCHEDULER, SpeculativeConfig(), max_model_len=None
    )
    assert [one.weight_bytes for one in plan.hosts] == [alone.weight_bytes] * 2
    assert (plan.num_blocks, plan.kv_cache_bytes) == (alone.num_blocks, alone.kv_cache_bytes)
    with pytest.raises(ConfigError, match="context_parallel_size is 2, but PyTorch computes here"):
        plan_rows(
            whole, [host("a"), host("b")], CACHE, SCHEDULER, SpeculativeConfig(),
            dims=ParallelDims(context=2), max_model_len=None,
        )  # fmt: skip
