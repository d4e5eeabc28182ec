"""Ranks that hold a part of the inputs each: what they exchange gives the bits of one rank."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from novacron.kernels.linear import FLOAT8, Quantization, Rounded
from novacron.kernels.native.communicator import NativeCommunicator
from novacron.kernels.native.experts import NativeExperts
from novacron.kernels.native.library import NativeContext
from novacron.kernels.native.linear import NativeLinear, NativeTable
from novacron.kernels.native.rounded_packing import pack_rounded
from novacron.kernels.torch_linear import round_in_parts
from novacron.testing.native_ranks import on_native_ranks

HELD_AS = [
    pytest.param(torch.float32, None, id="float32"),
    pytest.param(torch.bfloat16, None, id="bfloat16"),
    pytest.param(torch.float32, Quantization(8, 32), id="int8-float32"),
    pytest.param(torch.bfloat16, Quantization(8, 64), id="int8"),
    pytest.param(torch.bfloat16, Quantization(4, 32), id="int4"),
    pytest.param(torch.bfloat16, Quantization(4, 32, sharing=4), id="int4-shared"),
    pytest.param(torch.bfloat16, FLOAT8, id="fp8"),
]
INPUTS, OUTPUTS = 1024, 70


def part_of(
    context: NativeContext,
    weight: Tensor,
    quantization: Quantization | None,
    rank: int,
    ranks: int,
) -> NativeLinear:
    columns = weight.chunk(ranks, 1)[rank].contiguous()
    if quantization is None or not quantization.is_float:
        return NativeLinear(context, columns, quantization)
    rounded = round_in_parts(weight, quantization)  # the scale of an output is one for all ranks
    part = Rounded(
        rounded.values_OGS.chunk(ranks, 1)[rank], rounded.scales_OG.chunk(ranks, 1)[rank]
    )
    packed = pack_rounded(part, quantization)
    return NativeLinear(context, columns, quantization, packed=packed)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("num_rows", [1, 9, 50])
@pytest.mark.parametrize(("dtype", "quantization"), HELD_AS)
def test_a_product_over_ranks_has_the_bits_of_one(
    context: NativeContext,
    dtype: torch.dtype,
    quantization: Quantization | None,
    num_rows: int,
    ranks: int,
) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(OUTPUTS, INPUTS).to(dtype), torch.randn(num_rows, INPUTS).to(dtype)
    bias, residual = torch.randn(OUTPUTS).to(dtype), torch.randn(num_rows, OUTPUTS).to(dtype)
    whole = NativeLinear(context, weight, quantization)
    expected = [whole(x), whole(x, bias), whole(x, bias, add_to=residual.clone())]

    def work(rank: int, communicator: NativeCommunicator, own: NativeContext) -> list[Tensor]:
        part = part_of(own, weight, quantization, rank, ranks)
        inputs = x.chunk(ranks, 1)[rank]
        communicator.look_up(NativeTable(own, residual), torch.arange(1), range(1))
        return [
            communicator.row_product(part, inputs, None, None),
            communicator.row_product(part, inputs, bias, None),
            communicator.row_product(part, inputs, bias, residual.clone()),
        ]

    for found in on_native_ranks(
        ranks, context.level, work, max_rows=num_rows, hidden_size=OUTPUTS, dtype=dtype
    ):
        for mine, right in zip(found, expected, strict=True):
            assert torch.equal(mine, right)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("is_packed", [True, False])
def test_ranks_share_a_vocabulary(context: NativeContext, ranks: int, is_packed: bool) -> None:
    torch.manual_seed(0)
    weight, hidden = torch.randn(203, 64), torch.randn(5, 64)
    ids = torch.tensor([202, 0, 51, 101, 50])
    expected = NativeLinear(context, weight)(hidden)

    def work(rank: int, communicator: NativeCommunicator, own: NativeContext) -> list[Tensor]:
        part = range(203 * rank // ranks, 203 * (rank + 1) // ranks)
        rows = weight[part.start : part.stop].clone()
        linear = NativeLinear(own, rows)
        table = linear if is_packed else NativeTable(own, rows)
        looked_up = communicator.look_up(table, ids, part)
        logits = communicator.join_logits(linear, hidden, part, 203, lambda some: some.mul_(2))
        return [looked_up, logits.clone()]

    for looked_up, logits in on_native_ranks(
        ranks, context.level, work, max_rows=5, hidden_size=64, vocab_size=203
    ):
        assert torch.equal(looked_up, weight[ids])
        assert torch.equal(logits, expected * 2)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slices_of_experts_have_the_bits_of_whole_ones(
    context: NativeContext, dtype: torch.dtype, ranks: int
) -> None:
    torch.manual_seed(0)
    size, width, num_experts = 64, 128, 5
    gate, up = torch.randn(2, num_experts, width, size).mul_(0.1).to(dtype)
    down = torch.randn(num_experts, size, width).mul_(0.1).to(dtype)
    x, scores = torch.randn(7, size).to(dtype), torch.randn(7, num_experts).to(dtype)

    def experts(own: NativeContext, columns: slice) -> NativeExperts:
        return NativeExperts(
            own,
            [
                NativeLinear(own, torch.cat((some[columns], others[columns])))
                for some, others in zip(gate, up, strict=True)
            ],
            [NativeLinear(own, matrix[:, columns].contiguous()) for matrix in down],
            activation="silu",
            experts_per_token=2,
            renormalize=True,
        )

    expected = experts(context, slice(None))(x, scores, None, x.clone())

    def work(rank: int, communicator: NativeCommunicator, own: NativeContext) -> Tensor:
        share = width // ranks
        mine = experts(own, slice(rank * share, (rank + 1) * share))
        return communicator.mix(mine, x, scores, None, x.clone())

    for found in on_native_ranks(
        ranks, context.level, work, max_rows=14, hidden_size=size, dtype=dtype
    ):
        assert torch.equal(found, expected)
