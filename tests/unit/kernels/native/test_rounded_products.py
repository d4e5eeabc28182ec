from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from novacron.kernels.linear import FLOAT8, Quantization
from novacron.kernels.native.library import NativeContext
from novacron.kernels.native.linear import NativeLinear
from novacron.kernels.torch_linear import torch_linear

INT8, INT4 = Quantization(8, 32), Quantization(4, 32)
ALL = [FLOAT8, *(Quantization(bits, size) for bits in (8, 4) for size in (32, 64, 128))]
DTYPES = [torch.float32, torch.bfloat16]
# Outputs and inputs: whole panels and groups, parts of either, less than a vector.
SIZES = [(64, 256), (70, 33), (129, 420), (3, 1)]
# Groups that share the scale of their inputs: whole spans of them in each quarter of the inputs.
SHARED = [
    (Quantization(4, 32, sharing=4), 70, 512),
    (Quantization(4, 32, sharing=4), 3, 1536),
    (Quantization(4, 32, sharing=2), 129, 768),
    (Quantization(4, 64, sharing=2), 70, 1536),
]
# One tile of rows and parts of it, several tiles, more than a block.
ROWS = [1, 2, 3, 4, 5, 6, 7, 13, 48, 100]


def make(outputs: int, inputs: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(outputs * 1000 + inputs)
    return torch.randn(outputs, inputs).to(dtype), torch.randn(max(ROWS), inputs).to(dtype)


@pytest.mark.parametrize(
    ("quantization", "outputs", "inputs"), [(q, *s) for q in ALL for s in SIZES] + SHARED
)
def test_products_are_those_of_torch(
    context: NativeContext, quantization: Quantization, outputs: int, inputs: int
) -> None:
    for dtype in DTYPES:
        weight, x = make(outputs, inputs, dtype)
        expected = torch_linear(weight, quantization)(x, out_dtype=torch.float32)
        linear = NativeLinear(context, weight, quantization)
        for rows in ROWS:
            found = linear(x[:rows], out_dtype=torch.float32)
            torch.testing.assert_close(found, expected[:rows], atol=1e-4, rtol=1e-5)
            rounded = linear(x[:rows])
            assert torch.equal(rounded, found.to(dtype))


@pytest.mark.parametrize("quantization", ALL)
@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
def test_weights_are_rounded_as_by_torch(
    context: NativeContext, outputs: int, inputs: int, quantization: Quantization
) -> None:
    indices = torch.randint(outputs, (9,))
    for dtype in DTYPES:
        weight, _ = make(outputs, inputs, dtype)
        expected = torch_linear(weight, quantization).rows(indices)
        assert torch.equal(NativeLinear(context, weight, quantization).rows(indices), expected)


@pytest.mark.parametrize(
    ("quantization", "outputs", "inputs"),
    [(q, *s) for q in (INT8, INT4, FLOAT8) for s in SIZES] + SHARED,
)
def test_a_row_does_not_depend_on_the_others(
    contexts: Callable[..., NativeContext],
    level: str,
    quantization: Quantization,
    outputs: int,
    inputs: int,
) -> None:
    weight, x = make(outputs, inputs, torch.bfloat16)
    linear = NativeLinear(contexts(level), weight, quantization)
    alone = torch.cat([linear(row[None]) for row in x])
    for num_threads in (1, 3):
        linear = NativeLinear(contexts(level, num_threads), weight, quantization)
        for rows in ROWS:
            assert torch.equal(linear(x[:rows]), alone[:rows])
            assert torch.equal(linear(x[-rows:]), alone[-rows:])


@pytest.mark.parametrize("quantization", [INT8, INT4, FLOAT8])
def test_bias_and_sum_in_place(context: NativeContext, quantization: Quantization) -> None:
    for dtype in DTYPES:
        weight, x = make(70, 33, dtype)
        x, bias = x[:5], torch.randn(70).to(dtype)
        linear = NativeLinear(context, weight, quantization)
        plain = linear(x, out_dtype=torch.float32)
        torch.testing.assert_close(linear(x, bias), (plain + bias.float()).to(dtype))
        wide = torch.randn(5, 80).to(dtype)
        before = wide.clone()
        target = wide[:, 4:74]
        assert linear(x, bias, add_to=target) is target
        expected = plain + bias.float() + before[:, 4:74].float()
        torch.testing.assert_close(target, expected.to(dtype))
        assert torch.equal(wide[:, :4], before[:, :4])
        assert torch.equal(wide[:, 74:], before[:, 74:])


@pytest.mark.parametrize("quantization", [INT8, INT4, FLOAT8])
def test_inputs_with_gaps(context: NativeContext, quantization: Quantization) -> None:
    for dtype in DTYPES:
        weight, wide = torch.randn(64, 40).to(dtype), torch.randn(7, 67).to(dtype)
        linear = NativeLinear(context, weight, quantization)
        x = wide[::2, 1:41]
        assert torch.equal(linear(x), linear(x.contiguous()))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("quantization", [INT8, INT4, FLOAT8])
def test_a_row_that_is_not_finite_stays_alone(
    context: NativeContext, quantization: Quantization, value: float
) -> None:
    weight, x = make(70, 33, torch.bfloat16)
    linear = NativeLinear(context, weight, quantization)
    clean = linear(x[:9])
    x[4, 7] = value
    found = linear(x[:9])
    assert not found[4].isfinite().any()
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(found[others], clean[others])


@pytest.mark.parametrize("quantization", [INT8, INT4])
def test_zeros_and_numbers_near_zero(context: NativeContext, quantization: Quantization) -> None:
    weight = torch.randn(64, 64)
    weight[:, :32] = 0
    x = torch.stack((torch.zeros(64), torch.full((64,), 1e-35)))
    assert not NativeLinear(context, weight, quantization)(x).any()
