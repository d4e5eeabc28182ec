"""Weights in e4m3 mean what torch's own type means. What all rounded weights have in common is in
test_rounded_products.py."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from novacron.kernels.float8_linear import TorchFloat8Linear
from novacron.kernels.linear import FLOAT8, Rounded
from novacron.kernels.native.library import NativeContext
from novacron.kernels.native.linear import NativeLinear
from novacron.kernels.native.rounded_packing import pack_rounded

DTYPES = [torch.float32, torch.bfloat16]
FINITE = [code for code in range(256) if code & 0x7F != 0x7F]


def native(context: NativeContext, rounded: Rounded, inputs: int, dtype: torch.dtype) -> Tensor:
    """The weight as products with unit vectors give it, one by one and all at once."""
    weight = torch.empty(len(rounded.scales_OG), inputs, dtype=dtype)
    linear = NativeLinear(context, weight, FLOAT8, packed=pack_rounded(rounded, FLOAT8))
    units = torch.eye(inputs, dtype=dtype)
    together = linear(units, out_dtype=torch.float32)
    alone = torch.cat([linear(unit[None], out_dtype=torch.float32) for unit in units[:9]])
    assert torch.equal(together[:9], alone)
    indices = torch.arange(len(weight))
    assert torch.equal(linear.rows(indices), together.T.to(dtype))
    return together.T


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_is_that_of_torch(context: NativeContext, dtype: torch.dtype) -> None:
    """Small ones, which have no leading one, among large ones and alone."""
    codes = torch.tensor(FINITE, dtype=torch.uint8)
    mixed = codes[torch.randperm(254 * 3, generator=torch.manual_seed(0)) % 254][: 70 * 8]
    small = torch.tensor(FINITE[:8] * 70, dtype=torch.uint8)
    rows_OI = torch.cat((codes.repeat(3)[: 70 * 8].view(70, 8), mixed.view(70, 8),
                         small.view(70, 8), codes[8:88].repeat(7).view(70, 8)), 1)  # fmt: skip
    values_OGS = torch.zeros(70, 1, 128, dtype=torch.uint8)
    values_OGS[:, 0, :32] = rows_OI
    values = values_OGS.view(torch.float8_e4m3fn)
    found = native(context, Rounded(values, torch.ones(70, 1)), 32, dtype)
    assert torch.equal(found, rows_OI.view(torch.float8_e4m3fn).float())


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_group_has_its_scale(context: NativeContext, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = (100 * torch.randn(65, 3, 128)).to(torch.float8_e4m3fn)
    scales = torch.randn(65, 3)
    found = native(context, Rounded(values, scales), 300, dtype)
    expected = (values.float() * scales.unsqueeze(-1)).flatten(1)[:, :300]
    assert torch.equal(found, expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 200), st.integers(1, 300), st.integers(-30, 30))
def test_rounding_is_that_of_torch(seed: int, outputs: int, inputs: int, power: int) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(outputs, inputs) * 2.0**power
    scale = weight.abs().amax(1, keepdim=True) / 448
    expected = (weight / scale).to(torch.float8_e4m3fn).float() * scale
    found = TorchFloat8Linear(weight).rows(torch.arange(outputs))
    assert torch.equal(found, expected)
    assert ((found - weight).abs() <= weight.abs() / 16 + scale * 2.0**-10).all()


def test_zeros_stay_zeros(context: NativeContext) -> None:
    weight = torch.zeros(5, 40)
    x = torch.randn(3, 40, generator=torch.manual_seed(0))
    assert not NativeLinear(context, weight, FLOAT8)(x).any()
    assert not TorchFloat8Linear(weight)(x).any()


def test_inputs_are_not_rounded(context: NativeContext) -> None:
    """As they are for weights of whole numbers: 1 + 2^-20 would become 1."""
    x = torch.tensor([[1.0 + 2.0**-20, 448.0]])
    weight = torch.tensor([[448.0, 0.0]])
    found = NativeLinear(context, weight, FLOAT8)(x)
    assert found.item() == 448.0 * (1.0 + 2.0**-20)
    assert TorchFloat8Linear(weight)(x).item() == found.item()
