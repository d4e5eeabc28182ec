from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from novacron.kernels.linear import Quantization, Rounded
from novacron.kernels.torch_linear import round_in_parts
from novacron.models.rewriting.gptq import round_by_second_moments


def drawn(seed: int, outputs: int, inputs: int, rank: int) -> tuple[Tensor, Tensor]:
    """A weight, and the second moments of inputs that depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator)
    mixing = torch.randn(rank, inputs, generator=generator)
    x = torch.randn(400, rank, generator=generator) @ mixing
    x += 0.1 * torch.randn(400, inputs, generator=generator)
    return weight, x.T @ x / 400


def meant(rounded: Rounded) -> Tensor:
    return (rounded.values_OGS * rounded.scales_OG.float().unsqueeze(-1)).flatten(1)


def cost(weight: Tensor, rounded: Rounded, moments: Tensor) -> float:
    """The mean square of what products are off by."""
    error = weight - meant(rounded)
    return float(((error @ moments) * error).sum() / len(weight))


@pytest.mark.parametrize("bits", [4, 8])
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), size=st.sampled_from([32, 64]), rank=st.integers(4, 60))
def test_products_are_nearer_than_with_the_nearest_numbers(
    bits: int, seed: int, size: int, rank: int
) -> None:
    quantization = Quantization(bits, size)  # type: ignore[arg-type]
    weight, moments = drawn(seed, 16, 128, rank)
    nearest = cost(weight, round_in_parts(weight, quantization), moments)
    found = round_by_second_moments(weight, quantization, moments)
    assert cost(weight, found, moments) < nearest
    assert found.values_OGS.dtype == torch.int8
    assert found.values_OGS.shape == (16, 128 // size, size)
    assert found.scales_OG.dtype == torch.bfloat16
    low, high = (-8, 7) if bits == 4 else (-127, 127)
    assert low <= found.values_OGS.min() <= found.values_OGS.max() <= high


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31))
def test_inputs_that_have_nothing_to_do_with_each_other_leave_the_nearest(seed: int) -> None:
    """Then no weight can make good what another one lost."""
    quantization = Quantization(4, 32)
    weight, _ = drawn(seed, 8, 64, 4)
    moments = torch.eye(64) * torch.rand(64, generator=torch.manual_seed(seed)).add_(0.5)
    found = round_by_second_moments(weight, quantization, moments)
    nearest = round_in_parts(weight, quantization)
    assert torch.equal(found.values_OGS, nearest.values_OGS)
    assert torch.equal(found.scales_OG, nearest.scales_OG)


def test_inputs_that_never_came_are_rounded_to_nearest() -> None:
    weight, moments = drawn(0, 8, 64, 4)
    found = round_by_second_moments(weight, Quantization(4, 32), torch.zeros_like(moments))
    assert torch.equal(meant(found), meant(round_in_parts(weight, Quantization(4, 32))))


def brute_force(weight: Tensor, quantization: Quantization, moments: Tensor) -> Tensor:
    """The definition, one weight at a time: after each rounding, the weights that are left become
    those that are best given what is fixed, by least squares."""
    count = weight.shape[1]
    damped = moments.double() + 0.01 * moments.double().diagonal().mean() * torch.eye(count)
    original, current = weight.double(), weight.double().clone()
    fixed = torch.zeros_like(current)
    size = quantization.group_size
    for i in range(count):
        if i % size == 0:
            rounded = round_in_parts(current[:, i : i + size].float(), quantization)
            scale = rounded.scales_OG[:, 0].double()
        fixed[:, i] = (current[:, i] / scale).round().clamp(-8, 7) * scale
        left = slice(i + 1, count)
        if i + 1 < count:
            error = (original - fixed)[:, : i + 1]
            change = torch.linalg.solve(damped[left, left], damped[left, : i + 1] @ error.T).T
            current[:, left] = original[:, left] + change
    return fixed


def test_is_the_best_that_the_weights_to_come_can_do() -> None:
    weight, moments = drawn(3, 6, 64, 12)
    found = round_by_second_moments(weight, Quantization(4, 32), moments)
    expected = brute_force(weight, Quantization(4, 32), moments)
    agree = (meant(found).double() == expected).float().mean()
    assert agree > 0.98  # a number right between two may go either way
