from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from novacron.kernels.native.library import NativeContext
from novacron.kernels.native.linear import NativeLinear
from novacron.kernels.native.ops import NativeGated, NativeRMSNorm
from novacron.kernels.native.program import record
from novacron.kernels.recorded import NotRecordable

MAX_ROWS, SIZE, WIDE = 40, 64, 192


class Network:
    """Some layers that write to each other's memory as soon as they may."""

    def __init__(self, context: NativeContext, num_layers: int = 4) -> None:
        torch.manual_seed(0)
        self.norm, self.weight = NativeRMSNorm(context), torch.rand(SIZE)
        self.up, self.down = (
            [NativeLinear(context, torch.randn(*shape) / 8) for _ in range(num_layers)]
            for shape in ((2 * WIDE, SIZE), (SIZE, WIDE))
        )
        self.gated = NativeGated(context, "silu")

    def __call__(self, x: Tensor) -> Tensor:
        x = self.norm(x, self.weight, 1e-5)
        for up, down in zip(self.up, self.down, strict=True):
            down(self.gated(up(self.norm(x, self.weight, 1e-5))), add_to=x)
        return x


@pytest.fixture
def network(context: NativeContext) -> Network:
    return Network(context)


def test_replays_equal_the_computation_for_any_number_of_rows(
    context: NativeContext, network: Network
) -> None:
    inputs = torch.zeros(MAX_ROWS, SIZE)
    program = record(context, lambda: network(inputs), max_rows=MAX_ROWS)
    for rows in (MAX_ROWS, 1, 7, MAX_ROWS, 33):
        inputs[:rows] = torch.randn(rows, SIZE)
        program.run(rows)
        assert torch.equal(program.result[:rows], network(inputs[:rows]))


def test_recording_computes_nothing_and_leaves_the_context_as_it_was(
    context: NativeContext, network: Network
) -> None:
    inputs = torch.randn(MAX_ROWS, SIZE)
    expected = network(inputs)
    before = inputs.clone()
    program = record(context, lambda: network(inputs), max_rows=MAX_ROWS)
    assert program.result.eq(0).all()
    assert torch.equal(inputs, before)
    assert torch.equal(network(inputs), expected)


def test_buffers_are_used_again(context: NativeContext, network: Network) -> None:
    inputs = torch.zeros(MAX_ROWS, SIZE)
    few, many = (
        record(context, lambda net=net: net(inputs), max_rows=MAX_ROWS)  # type: ignore[misc]
        for net in (Network(context, 2), Network(context, 20))
    )
    assert few.buffer_bytes == many.buffer_bytes
    assert few.buffer_bytes <= 4 * MAX_ROWS * (2 * SIZE + 3 * WIDE)


def test_a_program_keeps_its_buffers(context: NativeContext, network: Network) -> None:
    inputs = torch.randn(MAX_ROWS, SIZE)
    program = record(context, lambda: network(inputs), max_rows=MAX_ROWS)
    result = program.result
    program.run(MAX_ROWS)
    expected = result.clone()
    del program
    gc.collect()
    assert torch.equal(result, expected)


def test_what_torch_would_compute_is_refused(context: NativeContext, network: Network) -> None:
    inputs = torch.randn(MAX_ROWS, SIZE)
    with pytest.raises(NotRecordable, match=r"aten.mul.*computed by PyTorch"):
        record(context, lambda: network(inputs) * 2, max_rows=MAX_ROWS)
    assert torch.equal(network(inputs) * 2, network(inputs).mul(2)), "computes as before"


def test_rows_that_are_not_those_of_the_step_are_refused(
    context: NativeContext, network: Network
) -> None:
    inputs = torch.randn(MAX_ROWS, SIZE)
    with pytest.raises(NotRecordable, match="no size of the step"):
        record(context, lambda: network(inputs[:5]), max_rows=MAX_ROWS)
