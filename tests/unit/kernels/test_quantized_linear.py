from __future__ import annotations

import pytest
import torch

from novacron.kernels.linear import Quantization
from novacron.kernels.quantized_linear import TorchQuantizedLinear, round_inputs, round_weights

INT8, INT4 = Quantization(8, 32), Quantization(4, 32)


@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_int8_is_within_half_a_step(group_size: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(20, 100)
    values, scales = round_weights(weight, Quantization(8, group_size))
    assert values.shape == (20, -(-100 // group_size), group_size)
    assert values.abs().max() == 127
    restored = TorchQuantizedLinear(weight, Quantization(8, group_size)).rows(torch.arange(20))
    steps = scales.float().repeat_interleave(group_size, 1)[:, :100]
    assert ((restored - weight).abs() <= steps * 0.5001).all()


def test_int4_is_within_half_a_step_but_for_the_far_end() -> None:
    """The largest weight is met exactly up to its scale's rounding; one of the same size and the
    other sign lies at 8 steps, where 7 are the most."""
    torch.manual_seed(0)
    weight = torch.randn(20, 64)
    values, scales = round_weights(weight, INT4)
    assert (values.min(), values.max()) == (-8, 7)
    restored = TorchQuantizedLinear(weight, INT4).rows(torch.arange(20))
    steps = scales.float().abs().repeat_interleave(32, 1)
    is_clipped = (values == 7).flatten(1)
    error = (restored - weight).abs()
    assert (error <= steps * 0.5001)[~is_clipped].all()
    assert (error <= steps).all()


def test_scales_are_rounded_away_from_zero() -> None:
    weight = torch.tensor([[127.0 + 2**-12] + [0.0] * 31])
    _, scales = round_weights(weight, INT8)
    assert scales.item() == 1 + 2**-7


@pytest.mark.parametrize("quantization", [INT8, INT4])
def test_zeros_stay_zeros(quantization: Quantization) -> None:
    linear = TorchQuantizedLinear(torch.zeros(3, 40), quantization)
    assert torch.equal(linear.rows(torch.arange(3)), torch.zeros(3, 40))
    assert torch.equal(linear(torch.randn(2, 40)), torch.zeros(2, 3))


@pytest.mark.parametrize(("quantization", "error"), [(INT8, 0.01), (INT4, 0.12)])
def test_products_are_near_those_of_the_weights(quantization: Quantization, error: float) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(64, 512), torch.randn(9, 512)
    exact = x @ weight.T
    found = TorchQuantizedLinear(weight, quantization)(x)
    assert (found - exact).norm() / exact.norm() < error


def test_inputs_of_no_size_count_as_zero() -> None:
    values, scales = round_inputs(torch.tensor([[1e-38, -1e-38]]), 32)
    assert not values.any()
    assert not scales.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bias_and_sum_in_place(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, x, bias = torch.randn(8, 32), torch.randn(3, 32).to(dtype), torch.randn(8).to(dtype)
    linear = TorchQuantizedLinear(weight, INT8)
    plain = linear(x, out_dtype=torch.float32)
    target = torch.randn(3, 8).to(dtype)
    before = target.clone()
    assert linear(x, bias, add_to=target) is target
    torch.testing.assert_close(target, (plain + bias.float() + before.float()).to(dtype))
