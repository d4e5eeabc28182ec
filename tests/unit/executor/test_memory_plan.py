from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from novacron.config.cache import CacheConfig
from novacron.config.engine import SpeculativeConfig
from novacron.config.kv_layers import KVPrecision
from novacron.config.scheduler import SchedulerConfig
from novacron.errors import ConfigError, ModelLoadError, NovaCronError
from novacron.executor.memory_plan import (
    DeviceMemory,
    MemoryPlan,
    ModelShape,
    Neighbour,
    block_bytes,
    logit_rows,
    plan_memory,
    step_bytes,
)

MIB = 2**20
SHAPE = ModelShape(  # a Llama of 1.1 B parameters in bfloat16
    name="/models/llama",
    precision="bfloat16",
    weight_bytes=2_200_000_000,
    num_layers=22,
    num_heads=32,
    num_kv_heads=4,
    head_dim=64,
    hidden_size=2048,
    ffn_width=3 * 5632,
    vocab_size=32_000,
    kv_precision=KVPrecision("bfloat16", "bfloat16"),
    value_bytes=2,
    context_length=8192,
    longest_context=8192,
)
SCHEDULER = SchedulerConfig(max_num_seqs=16)
NGRAM = SpeculativeConfig(speculative_method="ngram", num_speculative_tokens=8)


def cpu(free_mib: float, share: float = 0.5) -> DeviceMemory:
    return DeviceMemory("cpu", int(free_mib * MIB), 64 * 1024 * MIB, share, is_own=False)


def gpu(free_mib: int, total_mib: int = 16_000) -> DeviceMemory:
    return DeviceMemory("cuda:0", free_mib * MIB, total_mib * MIB, 0.9, is_own=True)


def plan(
    device: DeviceMemory,
    *,
    scheduler: SchedulerConfig = SCHEDULER,
    speculative: SpeculativeConfig = SpeculativeConfig(),  # noqa: B008
    max_model_len: int | None = None,
    **cache: Any,
) -> MemoryPlan:
    return plan_memory(
        SHAPE, device, CacheConfig(**cache), scheduler, speculative, max_model_len=max_model_len
    )


@pytest.mark.parametrize(
    ("parameters", "num_bytes"), [(405e9, 810e9), (70e9, 140e9)], ids=["405B", "70B"]
)
def test_known_weights_are_refused_where_they_cannot_fit(
    parameters: float, num_bytes: float
) -> None:
    shape = replace(SHAPE, weight_bytes=int(parameters * 2))
    with pytest.raises(
        ModelLoadError, match=r"take .* GiB in bfloat16, but cpu has 64\.0 GiB"
    ) as e:
        plan_memory(
            shape, cpu(65_536), CacheConfig(), SCHEDULER, SpeculativeConfig(), max_model_len=None
        )
    assert f"{num_bytes / 2**30:.1f} GiB" in str(e.value)


def test_kv_of_a_token_is_that_of_all_layers_heads_keys_and_values() -> None:
    def of(kv_dtype: str, *layers: str) -> float:
        cache = CacheConfig(kv_cache_dtype=kv_dtype, kv_cache_dtype_layers=layers)
        return block_bytes(SHAPE, cache) / 16

    assert of("auto") == 2 * 22 * 4 * 64 * 2
    assert of("int8") == 2 * 22 * 4 * (64 + 4)  # scales of 2 bytes, aligned
    assert of("int4") == 2 * 22 * 4 * 36
    assert of("int8", ":2=bf16") == 2 * 4 * (2 * 128 + 20 * 68)
    assert of("int8/int4") == of("int4/int8") == 22 * 4 * (68 + 36)
    assert of("int8/int4", ":2=bf16/int8") == 4 * (2 * (128 + 68) + 20 * (68 + 36))


def test_guessed_tokens_have_rows_of_logits_of_their_own() -> None:
    assert logit_rows(SchedulerConfig(max_num_seqs=200), SpeculativeConfig()) == 200
    assert logit_rows(SchedulerConfig(max_num_seqs=200), NGRAM) == 200 * 9
    assert logit_rows(SchedulerConfig(max_num_seqs=400), NGRAM) == 2048, "no more than tokens"
    more = step_bytes(SHAPE, SchedulerConfig(max_num_seqs=200), NGRAM)
    less = step_bytes(SHAPE, SchedulerConfig(max_num_seqs=200), SpeculativeConfig())
    assert more - less == 200 * 8 * 32_000 * 4 * 6


def test_a_draft_model_has_weights_steps_and_blocks_of_its_own() -> None:
    draft = replace(SHAPE, weight_bytes=100 * MIB, num_layers=2)
    alone, both = (
        plan_memory(
            SHAPE, cpu(5000), CacheConfig(), SCHEDULER, NGRAM, max_model_len=None, draft=one
        )
        for one in (None, draft)
    )
    assert both.weight_bytes - alone.weight_bytes == 100 * MIB
    assert both.step_bytes > alone.step_bytes
    assert both.kv_cache_bytes == both.num_blocks * 24 * 16 * 1024
    assert both.num_blocks < alone.num_blocks


INT8 = Neighbour(name="int8", weight_bytes=1_170_000_000, step_bytes=300 * MIB)


def test_variants_share_what_all_of_them_leave_in_equal_parts() -> None:
    alone = plan(cpu(8000))
    shape = replace(SHAPE, weight_bytes=SHAPE.weight_bytes + INT8.weight_bytes)
    both = plan_memory(
        SHAPE, cpu(8000), CacheConfig(), SCHEDULER, SpeculativeConfig(), max_model_len=None,
        neighbours=(INT8,),
    )  # fmt: skip
    free = cpu(8000).free_bytes - shape.weight_bytes
    left = int(free * 0.5) - alone.step_bytes - INT8.step_bytes
    assert left // 2 - 2**20 < both.kv_cache_bytes <= left // 2
    assert "beside it int8, 1.1 GiB weights, 300.0 MiB for its largest step" in both.summary


def test_a_cache_that_was_asked_for_is_that_of_all_variants() -> None:
    def of(kv_cache_memory: int) -> MemoryPlan:
        return plan_memory(
            SHAPE, cpu(8000), CacheConfig(kv_cache_memory=kv_cache_memory), SCHEDULER,
            SpeculativeConfig(), max_model_len=None, neighbours=(INT8,),
        )  # fmt: skip

    assert 511 * MIB < of(1024 * MIB).kv_cache_bytes <= 512 * MIB
    with pytest.raises(ConfigError) as error:
        of(5000 * MIB)
    for number in ("kv_cache_memory is 4.9 GiB", "variant int8 1.1 GiB weights", "2 equal parts"):
        assert number in str(error.value)


def test_weights_of_variants_that_do_not_fit_together_are_refused_with_both_numbers() -> None:
    with pytest.raises(ModelLoadError, match=r"2\.0 GiB in bfloat16 and those of the .* int8 1\.1"):
        plan_memory(
            SHAPE, cpu(3000), CacheConfig(), SCHEDULER, SpeculativeConfig(), max_model_len=None,
            neighbours=(INT8,),
        )  # fmt: skip
    assert plan(cpu(3000)).num_blocks > 0, "alone it fits"


def test_replicas_take_everything_as_often_and_share_the_cache() -> None:
    def of(count: int, **cache: Any) -> MemoryPlan:
        return plan_memory(
            SHAPE, cpu(12_000), CacheConfig(**cache), SCHEDULER, SpeculativeConfig(),
            max_model_len=None, neighbours=(INT8,), num_replicas=count,
        )  # fmt: skip

    two = of(2)
    fixed = 2 * (SHAPE.weight_bytes + INT8.weight_bytes)
    left = int((cpu(12_000).free_bytes - fixed) * 0.5) - 2 * (two.step_bytes + INT8.step_bytes)
    assert left // 4 - 2**20 < two.kv_cache_bytes <= left // 4
    assert "the same again for each of 1 more replicas" in two.summary
    assert 255 * MIB < of(2, kv_cache_memory=1024 * MIB).kv_cache_bytes <= 256 * MIB
    with pytest.raises(ConfigError, match=r"2 times \(data_parallel_size\).* 4 equal parts"):
        of(2, kv_cache_memory=9000 * MIB)
    with pytest.raises(ModelLoadError, match=r"4 times \(data_parallel_size\).* fewer replicas"):
        of(4)


@given(st.integers(3500, 60_000), st.integers(1, 4))
def test_the_plans_of_all_variants_fit_together(free_mib: int, count: int) -> None:
    """Each engine plans for itself, from the same bytes."""
    shapes = [
        replace(SHAPE, name=f"v{place}", weight_bytes=SHAPE.weight_bytes // (place + 1))
        for place in range(count)
    ]
    step = step_bytes(SHAPE, SCHEDULER, SpeculativeConfig())
    needs = [
        Neighbour(name=shape.name, weight_bytes=shape.weight_bytes, step_bytes=step)
        for shape in shapes
    ]
    device = cpu(free_mib)
    try:
        plans = [
            plan_memory(
                shape, device, CacheConfig(), SCHEDULER, SpeculativeConfig(), max_model_len=None,
                neighbours=tuple(need for need in needs if need.name != shape.name),
            )
            for shape in shapes
        ]  # fmt: skip
    except NovaCronError:
        return
    total = sum(one.weight_bytes + one.step_bytes + one.kv_cache_bytes for one in plans)
    assert total <= device.free_bytes
    assert len({one.num_blocks for one in plans}) == 1


def test_all_fits() -> None:
    found = plan(cpu(20_000))
    assert (found.max_model_len, found.num_blocks) == (8192, 16 * 512)
    assert found.fits == "max_model_len 8,192 at 16 streams, all that max_num_seqs allows"


def test_some_fits_and_what_would() -> None:
    found = plan(cpu(5000))
    assert found.max_model_len == 8192
    assert found.capacity.max_streams == 6
    assert found.capacity.context_of_all == 3520
    assert found.fits == (
        "max_model_len 8,192 at 6 streams, or 3,520 tokens for each of 16; "
        "12 streams of 8,192 with int8; 16 streams of 8,192 with int4"
    )


def test_a_context_that_was_not_asked_for_shrinks() -> None:
    found = plan(cpu(2700))
    assert 1000 < found.max_model_len < 8192
    assert found.num_blocks * 16 == found.max_model_len
    assert found.fits.startswith(f"max_model_len {found.max_model_len:,} at 1 stream, or ")


def test_one_that_was_asked_for_is_refused_with_numbers() -> None:
    with pytest.raises(ConfigError) as refusal:
        plan(cpu(2600), max_model_len=8192)
    text = str(refusal.value)
    for part in (
        "max_model_len is 8192, but the KV cache has room for",
        "22.0 KiB in bfloat16",
        "2.5 GiB free on cpu, 2.0 GiB weights",
        "2048 tokens and 128 rows of logits",
        "utilization setting allows 50%",
        "with kv_cache_dtype int8",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("device", "asked", "message"),
    [
        (cpu(2200), {}, "one block takes 352.0 KiB"),
        (cpu(3000), {"kv_cache_memory": 2**30}, r"kv_cache_memory is 1\.0 GiB, but .* are left"),
        (cpu(9000), {"max_model_len": 8193}, "8193, but the model reaches 8192"),
        (gpu(3600, 16_000), {}, "one block takes"),
    ],
)
def test_other_refusals(device: DeviceMemory, asked: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(device, **asked)


def test_a_gpu_is_shared_by_what_there_is_in_all() -> None:
    alone, beside_others = plan(gpu(16_000)), plan(gpu(6_000))
    left = int(16_000 * MIB * 0.9) - 10_000 * MIB - SHAPE.weight_bytes - beside_others.step_bytes
    assert beside_others.num_blocks == left // (352 * 1024)
    assert alone.num_blocks == 16 * 512


devices = st.builds(
    lambda free, total, share, is_own: DeviceMemory(
        "d", min(free, total) * MIB, total * MIB, share, is_own
    ),
    st.integers(1000, 30_000),
    st.integers(1000, 30_000),
    st.floats(0.1, 1.0),
    st.booleans(),
)
choices = st.fixed_dictionaries(
    {
        "scheduler": st.builds(
            SchedulerConfig,
            max_num_seqs=st.integers(1, 300),
            max_num_batched_tokens=st.integers(300, 4096),
        ),
        "speculative": st.sampled_from([SpeculativeConfig(), NGRAM]),
        "kv_cache_dtype": st.sampled_from(["auto", "float32", "int8/fp8", "fp8", "int8/int4"]),
        "kv_cache_memory": st.none() | st.integers(MIB, 8000 * MIB),
        "block_size": st.sampled_from([8, 16, 128]),
        "max_model_len": st.none() | st.integers(1, 8192),
    }
)


def planned(device: DeviceMemory, chosen: dict[str, Any]) -> MemoryPlan | None:
    try:
        return plan(device, **chosen)
    except NovaCronError:
        return None


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(device=devices, chosen=choices)
def test_never_over_budget(device: DeviceMemory, chosen: dict[str, Any]) -> None:
    found = planned(device, chosen)
    assume(found is not None)
    assert found is not None
    used = found.weight_bytes + found.step_bytes + found.kv_cache_bytes
    assert used <= device.free_bytes
    if chosen["kv_cache_memory"] is not None:
        assert found.kv_cache_bytes <= chosen["kv_cache_memory"]
    elif device.is_own:
        assert device.total_bytes - device.free_bytes + used <= (
            device.total_bytes * device.usable_share
        )
    assert found.num_blocks * found.block_size >= found.max_model_len >= 1
    assert found.capacity.max_streams <= found.max_num_seqs


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(device=devices, chosen=choices, more_mib=st.integers(0, 10_000))
def test_more_memory_never_fits_less(
    device: DeviceMemory, chosen: dict[str, Any], more_mib: int
) -> None:
    larger = replace(
        device,
        free_bytes=device.free_bytes + more_mib * MIB,
        total_bytes=device.total_bytes + more_mib * MIB,
    )
    less, more = planned(device, chosen), planned(larger, chosen)
    if less is None:
        return
    assert more is not None
    assert more.num_blocks >= less.num_blocks
    assert more.max_model_len >= less.max_model_len
    assert more.capacity.max_streams >= less.capacity.max_streams
