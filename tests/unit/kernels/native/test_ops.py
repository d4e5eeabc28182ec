from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from novacron.kernels import torch_ops
from novacron.kernels.native.library import NativeContext
from novacron.kernels.native.ops import (
    NativeGated,
    NativeRMSNorm,
    NativeRotation,
    native_scale,
    native_softcap,
)

DTYPES = [torch.float32, torch.bfloat16]
SIZES = [1, 7, 16, 64, 100, 257]


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    """A few units in the last place."""
    return {"atol": 1e-6, "rtol": 2e-6} if dtype == torch.float32 else {"atol": 0, "rtol": 2**-7}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("dtype", "weight_dtype"),
    [(dtype, dtype) for dtype in DTYPES] + [(torch.bfloat16, torch.float32)],
)
def test_rms_norm(
    context: NativeContext, size: int, dtype: torch.dtype, weight_dtype: torch.dtype
) -> None:
    torch.manual_seed(size)
    x, weight = torch.randn(9, 5, size).to(dtype), torch.rand(size).add(0.5).to(weight_dtype)
    norm = NativeRMSNorm(context)
    exact = torch_ops.rms_norm(x.double(), weight.double(), 1e-5).to(dtype)
    whole = norm(x, weight, 1e-5)
    torch.testing.assert_close(whole, exact, **tolerance(dtype))
    assert torch.equal(norm(x[2:3], weight, 1e-5), whole[2:3])
    assert torch.equal(norm(x[:, 1:3], weight, 1e-5), whole[:, 1:3])
    assert torch.equal(norm(x[:, 0], weight, 1e-5), whole[:, 0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_norm_is_added_where_asked(context: NativeContext, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight, before = (torch.randn(9, 100).to(dtype), torch.rand(100), torch.randn(9, 100))
    sums = before.to(dtype)
    wanted = sums.double() + torch_ops.rms_norm(x.double(), weight.double(), 1e-5)
    found = NativeRMSNorm(context)(x, weight.to(dtype), 1e-5, add_to=sums)
    assert found.data_ptr() == sums.data_ptr()
    torch.testing.assert_close(
        found.double(), wanted, atol=2e-2 if dtype == torch.bfloat16 else 1e-5, rtol=0
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_scale_and_softcap(context: NativeContext, dtype: torch.dtype, size: int) -> None:
    torch.manual_seed(size)
    x = (torch.randn(6, size) * 40).to(dtype)
    for found, exact in (
        (native_scale(context)(x.clone(), 11.3125), x.double() * 11.3125),
        (native_softcap(context)(x.clone(), 30.0), 30 * (x.double() / 30).tanh()),
    ):
        torch.testing.assert_close(found, exact.to(dtype), **(tolerance(dtype) | {"atol": 4e-6}))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("head_dim", "rotary_dim"), [(8, 8), (64, 64), (64, 20), (96, 32), (2, 2)])
def test_rotate(context: NativeContext, dtype: torch.dtype, head_dim: int, rotary_dim: int) -> None:
    torch.manual_seed(head_dim)
    wide = torch.randn(7, 5, head_dim).to(dtype)
    x = wide[:, 1:4]
    angles = torch.randn(20, rotary_dim // 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    positions = torch.tensor([3, 19, 0, 7, 8, 9, 3])
    exact = torch_ops.plan_rotation(positions, cos.double(), sin.double())(x.double()).to(dtype)
    found = NativeRotation(context, positions, cos, sin)(x)
    torch.testing.assert_close(found, exact, atol=1e-2 if dtype == torch.bfloat16 else 1e-6, rtol=0)
    assert torch.equal(found[..., rotary_dim:], x[..., rotary_dim:])
    alone = NativeRotation(context, positions[3:4], cos, sin)(x[3:4])
    assert torch.equal(alone, found[3:4])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("silu", torch_ops.silu_and_mul),
        ("gelu_tanh", torch_ops.gelu_tanh_and_mul),
        ("gelu", torch_ops.gelu_and_mul),
    ],
)
def test_gated_activations(
    context: NativeContext,
    dtype: torch.dtype,
    size: int,
    name: str,
    reference: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    torch.manual_seed(size)
    x = (torch.randn(6, 2 * size) * 8).to(dtype)
    x[0, 0], x[1, 0], x[2, 0] = 200.0, -200.0, 0.0
    found = NativeGated(context, name)(x)
    exact = reference(x.double()).to(dtype)
    torch.testing.assert_close(found, exact, **(tolerance(dtype) | {"atol": 4e-6}))
    assert torch.equal(NativeGated(context, name)(x[3:4]), found[3:4])


def test_nan_is_not_hidden(context: NativeContext) -> None:
    x = torch.ones(1, 64)
    x[0, 5] = torch.nan
    assert NativeGated(context, "silu")(x)[0, 5].isnan()
    assert NativeRMSNorm(context)(x, torch.ones(64), 1e-5).isnan().all()
    assert NativeRMSNorm(context)(x.bfloat16(), torch.ones(64), 1e-5).isnan().all()
