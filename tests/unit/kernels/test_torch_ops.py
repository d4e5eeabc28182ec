from __future__ import annotations

import math

import pytest
import torch

from novacron.kernels.torch_ops import (
    gelu_and_mul,
    gelu_tanh_and_mul,
    plan_rotation,
    rms_norm,
    silu_and_mul,
)


def test_rms_norm_divides_by_the_root_mean_square() -> None:
    x, weight = torch.tensor([[3.0, 4.0, 0.0, 0.0]]), torch.tensor([1.0, 2.0, 1.0, 1.0])
    expected = torch.tensor([[3.0, 8.0, 0.0, 0.0]]) / math.sqrt(25 / 4 + 1e-3)
    torch.testing.assert_close(rms_norm(x, weight, 1e-3), expected)


def test_rms_norm_with_a_float32_weight_rounds_once() -> None:
    """Gemma multiplies by 1 + weight, which bfloat16 would round before the product."""
    torch.manual_seed(0)
    x, weight = torch.randn(5, 64).bfloat16(), 1 + 0.01 * torch.randn(64)
    exact = rms_norm(x.double(), weight.double(), 1e-6)
    found = rms_norm(x, weight, 1e-6)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.bfloat16())


@pytest.mark.parametrize("rotary_dim", [8, 6])
def test_rotate_turns_pairs_as_complex_numbers(rotary_dim: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, 8)
    half = rotary_dim // 2
    angles_P = torch.randn(9, half)
    positions = torch.tensor([8, 0, 3, 3, 5])
    angles = angles_P[positions].unsqueeze(1)
    pairs = torch.complex(x[..., :half], x[..., half:rotary_dim]) * torch.polar(
        torch.ones_like(angles), angles
    )
    expected = torch.cat((pairs.real, pairs.imag, x[..., rotary_dim:]), -1)
    rotate = plan_rotation(positions, angles_P.cos(), angles_P.sin())
    torch.testing.assert_close(rotate(x), expected)


def test_gated_activations() -> None:
    torch.manual_seed(0)
    gate, up = torch.randn(4, 6), torch.randn(4, 6)
    both = torch.cat((gate, up), -1)
    normal = 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    torch.testing.assert_close(silu_and_mul(both), gate * torch.sigmoid(gate) * up)
    torch.testing.assert_close(gelu_and_mul(both), gate * normal * up)
    assert (gelu_tanh_and_mul(both) - gate * normal * up).abs().max() < 2e-3
    assert torch.equal(both, torch.cat((gate, up), -1)), "the input was changed"
