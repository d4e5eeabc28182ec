from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from novacron.errors import ModelLoadError
from novacron.models.weight_files import WeightFiles
from novacron.testing.quantized_models import (
    Packed,
    compressed_bytes,
    compressed_config,
    compressed_fp8,
    compressed_packed,
    compressed_sorted,
    random_weights,
)

Open = Callable[..., WeightFiles]
ALL = (slice(None), slice(None))
INT4 = compressed_config("pack-quantized", num_bits=4, strategy="group", group_size=16)


def check(packed: Packed, config: dict[str, Any], open_packed: Open) -> None:
    checkpoint = open_packed(packed.tensors, config)
    assert checkpoint.names == {"m.weight", "norm.weight"}
    assert torch.equal(checkpoint.read("m.weight", ALL), packed.weight)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.integers(1, 40),
    groups=st.integers(1, 4),
    group_size=st.sampled_from([None, 3, 8, 32]),
    bits=st.sampled_from([2, 4, 8]),
    symmetric=st.booleans(),
    first=st.integers(0, 39),
)
def test_packed_numbers(
    rows: int,
    groups: int,
    group_size: int | None,
    bits: int,
    symmetric: bool,
    first: int,
    open_packed: Open,
) -> None:
    packed = compressed_packed(
        random_weights(rows, groups * (group_size or 7)), bits, group_size, symmetric=symmetric
    )
    strategy = {"strategy": "group", "group_size": group_size} if group_size else {}
    config = compressed_config(
        "pack-quantized", **{"num_bits": bits, "strategy": "channel", "symmetric": symmetric}
        | strategy
    )  # fmt: skip
    check(packed, config, open_packed)
    part = open_packed(packed.tensors, config).read("m.weight", (slice(first, 40), slice(1, 3)))
    assert torch.equal(part, packed.weight[first:, 1:3])


def test_columns_that_were_sorted_into_groups(open_packed: Open) -> None:
    order = torch.randperm(48, generator=torch.manual_seed(1))
    check(compressed_sorted(random_weights(8, 48), 16, order), INT4, open_packed)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("block", "strategy"),
    [
        ((None, None), {"strategy": "tensor"}),
        ((1, None), {"strategy": "channel"}),
        ((1, 8), {"group_size": 8}),
    ],
)
def test_numbers_of_a_byte(
    block: tuple[int | None, int | None],
    strategy: dict[str, Any],
    symmetric: bool,
    open_packed: Open,
) -> None:
    config = compressed_config("int-quantized", symmetric=symmetric, **strategy)
    check(compressed_bytes(random_weights(10, 24), block, symmetric=symmetric), config, open_packed)


@pytest.mark.parametrize("form", ["float-quantized", "naive-quantized"])
@pytest.mark.parametrize(
    ("block", "strategy"),
    [
        ((None, None), {"strategy": "tensor"}),
        ((1, None), {"strategy": "channel"}),
        ((8, 16), {"strategy": "block", "block_structure": [8, 16]}),
    ],
)
def test_fp8(
    block: tuple[int | None, int | None], strategy: dict[str, Any], form: str, open_packed: Open
) -> None:
    config = compressed_config(form, type="float", **strategy)
    check(compressed_fp8(random_weights(20, 24), block), config, open_packed)


def test_a_model_of_two_schemes(open_packed: Open) -> None:
    """They are told apart by the tensors: the names of modules are no guide to be trusted."""
    config = compressed_config("mixed-precision", strategy="channel")
    config["config_groups"]["group_0"]["format"] = "int-quantized"
    for name, symmetric in (("group_1", True), ("group_2", False)):
        config["config_groups"][name] = {
            "targets": ["re:(a+)+$"],
            "format": "pack-quantized",
            "weights": {"num_bits": 4, "group_size": 16, "symmetric": symmetric},
        }
    check(compressed_bytes(random_weights(8, 32), (1, None), symmetric=True), config, open_packed)
    check(compressed_packed(random_weights(8, 32), 4, 16, symmetric=True), config, open_packed)
    check(compressed_packed(random_weights(8, 32), 4, 16, symmetric=False), config, open_packed)


def test_a_module_that_was_left_out_stays_plain(open_packed: Open) -> None:
    weight = random_weights(8, 8).bfloat16()
    assert torch.equal(open_packed({"weight": weight}, INT4).read("m.weight", ALL), weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_scale": None}, "'m.weight_scale' is missing"),
        ({"weight_packed": None}, "'m.weight_packed' is missing"),
        ({"weight_shape": None}, "'m.weight_shape' is missing"),
        ({"weight_zero_point": None}, "'m.weight_zero_point' is missing"),
        ({"weight_shape": torch.tensor([16, 10**15])}, r"'m.weight_packed' has the shape"),
        ({"weight_shape": torch.tensor([-1, 64])}, "-1 x 64, which is no matrix"),
        ({"weight_scale": torch.ones(16, 8)}, r"'m.weight_scale' .* \[16, 8\], not \[16, 4\]"),
        ({"weight_zero_point": torch.ones(16, 4)}, "'m.weight_zero_point' is stored as float32"),
        ({"weight_g_idx": torch.zeros(9, dtype=torch.int32)}, "'m.weight_g_idx' has the shape"),
    ],
)
def test_damaged_parts_are_named(
    change: dict[str, Tensor | None], message: str, open_packed: Open
) -> None:
    parts = {**compressed_packed(random_weights(16, 64), 4, 16, symmetric=False).tensors, **change}
    config = compressed_config("pack-quantized", num_bits=4, group_size=16, symmetric=False)
    with pytest.raises(ModelLoadError, match=message):
        open_packed({name: part for name, part in parts.items() if part is not None}, config)


@pytest.mark.parametrize("group", [-1, 4])
def test_groups_that_are_not_there(group: int, open_packed: Open) -> None:
    packed = compressed_packed(random_weights(8, 64), 4, 16, symmetric=True)
    groups = torch.full((64,), group, dtype=torch.int32)
    checkpoint = open_packed({**packed.tensors, "weight_g_idx": groups}, INT4)
    with pytest.raises(ModelLoadError, match="weight_g_idx' names groups outside of the 4"):
        checkpoint.read("m.weight", ALL)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (compressed_config("nvfp4-pack-quantized"), "the format 'nvfp4-pack-quantized'"),
        (compressed_config("pack-quantized", num_bits=3), "int weights of 3 bits"),
        (compressed_config("float-quantized", type="float", num_bits=4), "float weights of 4"),
        (compressed_config("int-quantized", strategy="tensor_group"), "'tensor_group'"),
        (compressed_config("int-quantized", strategy="group"), "'group_size' is missing"),
        (
            compressed_config("float-quantized", strategy="block", block_structure=[8]),
            "'block_structure' is",
        ),
        ({**INT4, "sparsity_config": {"format": "sparse-24-bitmask"}}, "'sparsity_config' asks"),
        ({**INT4, "transform_config": {"config_groups": {"a": {}}}}, "'transform_config' asks"),
        ({**INT4, "config_groups": {}}, "'m' is quantised, but config.json has no"),
    ],
)
def test_what_is_not_supported(config: dict[str, Any], message: str, open_packed: Open) -> None:
    packed = compressed_packed(random_weights(8, 32), 4, 16, symmetric=True)
    with pytest.raises(ModelLoadError, match=message):
        open_packed(packed.tensors, config)
