from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from novacron.kernels.native.library import NativeContext
from novacron.kernels.native.linear import NativeLinear, NativeTable

DTYPES = [torch.float32, torch.bfloat16]
# Outputs and inputs: whole panels, a part of one, odd numbers of either, less than a vector.
SIZES = [(64, 256), (256, 768), (70, 33), (129, 100), (3, 1), (200, 7)]
ROWS = [1, 2, 3, 4, 5, 6, 7, 8, 13, 48, 49, 101]


def make(outputs: int, inputs: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(outputs * 1000 + inputs)
    return torch.randn(outputs, inputs).to(dtype), torch.randn(max(ROWS), inputs).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
def test_products_are_those_of_torch(
    context: NativeContext, outputs: int, inputs: int, dtype: torch.dtype
) -> None:
    weight, x = make(outputs, inputs, dtype)
    linear = NativeLinear(context, weight)
    exact = x.double() @ weight.double().T
    for rows in ROWS:
        found = linear(x[:rows], out_dtype=torch.float32)
        torch.testing.assert_close(found.double(), exact[:rows], atol=1e-4, rtol=1e-5)
        rounded = linear(x[:rows])
        assert rounded.dtype == dtype
        torch.testing.assert_close(rounded, found.to(dtype), atol=0, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
def test_a_row_does_not_depend_on_the_others(
    contexts: Callable[..., NativeContext],
    level: str,
    outputs: int,
    inputs: int,
    dtype: torch.dtype,
) -> None:
    weight, x = make(outputs, inputs, dtype)
    alone = torch.cat([NativeLinear(contexts(level), weight)(row[None]) for row in x])
    for num_threads in (1, 3):
        linear = NativeLinear(contexts(level, num_threads), weight)
        for rows in ROWS:
            assert torch.equal(linear(x[:rows]), alone[:rows])
            assert torch.equal(linear(x[-rows:]), alone[-rows:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_threads_share_a_large_product(
    contexts: Callable[..., NativeContext], level: str, dtype: torch.dtype
) -> None:
    """More threads than cores, over and over: nothing is lost, done twice or waited for."""
    weight, x = make(1000, 300, dtype)
    expected = NativeLinear(contexts(level), weight)(x)
    linear = NativeLinear(contexts(level, 5), weight)
    for _ in range(50):
        assert torch.equal(linear(x), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_and_sum_in_place(context: NativeContext, dtype: torch.dtype) -> None:
    weight, x = make(70, 33, dtype)
    x, bias = x[:5], torch.randn(70).to(dtype)
    linear = NativeLinear(context, weight)
    plain = linear(x, out_dtype=torch.float32)
    torch.testing.assert_close(linear(x, bias), (plain + bias.float()).to(dtype))
    before = torch.randn(5, 80).to(dtype)
    after = before.clone()
    target = after[:, 4:74]
    assert linear(x, bias, add_to=target) is target
    torch.testing.assert_close(target, (plain + bias.float() + before[:, 4:74].float()).to(dtype))
    assert torch.equal(after[:, :4], before[:, :4])
    assert torch.equal(after[:, 74:], before[:, 74:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0, 1])
def test_inputs_with_gaps(context: NativeContext, dtype: torch.dtype, offset: int) -> None:
    torch.manual_seed(0)
    weight, wide = torch.randn(64, 32).to(dtype), torch.randn(7, 67).to(dtype)
    x = wide[::2, offset : offset + 32]
    linear = NativeLinear(context, weight)
    assert torch.equal(linear(x), linear(x.contiguous()))
    assert torch.equal(linear(wide[:, :64:2]), linear(wide[:, :64:2].contiguous()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
def test_rows_of_the_weight_come_back(
    context: NativeContext, outputs: int, inputs: int, dtype: torch.dtype
) -> None:
    weight, _ = make(outputs, inputs, dtype)
    indices = torch.randint(outputs, (9,))
    assert torch.equal(NativeLinear(context, weight).rows(indices), weight[indices])
    assert torch.equal(NativeTable(context, weight).rows(indices), weight[indices])


def test_the_weight_is_copied(context: NativeContext) -> None:
    weight, x = make(64, 32, torch.float32)
    linear = NativeLinear(context, weight)
    before = linear(x)
    weight.zero_()
    assert torch.equal(linear(x), before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_that_is_not_finite_stays_alone(context: NativeContext, dtype: torch.dtype) -> None:
    weight, x = make(70, 33, dtype)
    linear = NativeLinear(context, weight)
    clean = linear(x[:9])
    x[4, 7] = torch.nan
    found = linear(x[:9])
    assert found[4].isnan().all()
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(found[others], clean[others])


def test_no_rows(context: NativeContext) -> None:
    weight, x = make(64, 32, torch.float32)
    assert NativeLinear(context, weight)(x[:0]).shape == (0, 64)
