"""Ranks that hold a part of the inputs each: their sums, added as a tree, are the whole's bits."""

from __future__ import annotations

import pytest
import torch

from novacron.kernels.linear import Quantization
from novacron.kernels.native.library import NativeContext
from novacron.kernels.native.linear import SEGMENTS, NativeLinear

HELD_AS = [
    pytest.param(torch.float32, None, id="float32"),
    pytest.param(torch.bfloat16, None, id="bfloat16"),
    pytest.param(torch.bfloat16, Quantization(8, 32), id="int8"),
    pytest.param(torch.bfloat16, Quantization(4, 32), id="int4"),
]


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize(("dtype", "quantization"), HELD_AS)
def test_sums_of_ranks_add_up_to_the_whole(
    context: NativeContext, dtype: torch.dtype, quantization: Quantization | None, ranks: int
) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(70, 384).to(dtype), torch.randn(9, 384).to(dtype)
    whole = NativeLinear(context, weight, quantization)(x, out_dtype=torch.float32)
    sums = [
        NativeLinear(context, part, quantization, segments=SEGMENTS // ranks)(
            inputs.contiguous(), out_dtype=torch.float32
        )
        for part, inputs in zip(weight.chunk(ranks, 1), x.chunk(ranks, 1), strict=True)
    ]
    while len(sums) > 1:
        sums = [left + right for left, right in zip(sums[::2], sums[1::2], strict=True)]
    assert torch.equal(sums[0], whole)
