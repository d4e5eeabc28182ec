"""The mixture of experts of the native kernels, against the one in torch and against itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from novacron.kernels.experts import SharedExpert, make_torch_experts
from novacron.kernels.linear import Quantization, TorchLinear
from novacron.kernels.native.experts import NativeExperts
from novacron.kernels.native.library import NativeContext
from novacron.kernels.native.linear import NativeLinear
from novacron.kernels.native.program import record
from novacron.kernels.quantized_linear import TorchQuantizedLinear

SIZE, WIDTH, EXPERTS, CHOSEN = 64, 96, 7, 3
DTYPES = [torch.float32, torch.bfloat16]


def _weights(dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    gate_up = [(torch.randn(2 * WIDTH, SIZE) / 8).to(dtype) for _ in range(EXPERTS)]
    down = [(torch.randn(SIZE, WIDTH) / 8).to(dtype) for _ in range(EXPERTS)]
    return gate_up, down


def _inputs(num_tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, SharedExpert, Tensor]:
    x, scores = torch.randn(num_tokens, SIZE), 2 * torch.randn(num_tokens, EXPERTS)
    shared, score = torch.randn(num_tokens, SIZE), torch.randn(num_tokens, 1)
    residual = torch.randn(num_tokens, SIZE)
    return (
        x.to(dtype),
        scores.to(dtype),
        SharedExpert(shared.to(dtype), score.to(dtype)),
        residual.to(dtype),
    )


def _native(
    context: NativeContext,
    weights: tuple[list[Tensor], list[Tensor]],
    quantization: Quantization | None = None,
    **settings: object,
) -> NativeExperts:
    gate_up, down = ([NativeLinear(context, one, quantization) for one in part] for part in weights)
    options = {"activation": "silu", "experts_per_token": CHOSEN, "renormalize": True} | settings
    return NativeExperts(context, gate_up, down, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("quantization", [None, Quantization(8, 32), Quantization(4, 32)])
@pytest.mark.parametrize("num_tokens", [1, 5, 40])
@pytest.mark.parametrize("renormalize", [True, False])
def test_equals_torch(
    context: NativeContext,
    dtype: torch.dtype,
    quantization: Quantization | None,
    num_tokens: int,
    renormalize: bool,
) -> None:
    torch.manual_seed(num_tokens)
    weights = _weights(dtype)
    x, scores, shared, residual = _inputs(num_tokens, dtype)
    wide = [
        [
            TorchLinear(one.float())
            if quantization is None
            else TorchQuantizedLinear(one.float(), quantization)
            for one in part
        ]
        for part in weights
    ]
    reference = make_torch_experts(
        *wide, activation="silu", experts_per_token=CHOSEN, renormalize=renormalize
    )
    experts = _native(context, weights, quantization, renormalize=renormalize)
    wide_shared = SharedExpert(*(tensor.float() for tensor in shared))
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype is torch.float32 else {"rtol": 0.05, "atol": 0.05}

    alone = reference(x.float(), scores.float())
    torch.testing.assert_close(experts(x, scores).float(), alone, **close)
    everything = reference(x.float(), scores.float(), wide_shared, residual.float())
    out = experts(x, scores, shared, residual)
    assert out is residual
    torch.testing.assert_close(out.float(), everything, **close)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_other_activations(context: NativeContext, activation: str) -> None:
    torch.manual_seed(0)
    weights = _weights(torch.float32)
    x, scores, _, _ = _inputs(9, torch.float32)
    linears = ([TorchLinear(one) for one in part] for part in weights)
    reference = make_torch_experts(
        *linears, activation=activation, experts_per_token=CHOSEN, renormalize=True
    )
    experts = _native(context, weights, activation=activation)
    torch.testing.assert_close(experts(x, scores), reference(x, scores), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_token_alone_gets_the_same_bits(context: NativeContext, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    experts = _native(context, _weights(dtype))
    x, scores, shared, _ = _inputs(60, dtype)
    together = experts(x, scores, shared)
    for token in (0, 17, 59):
        row = slice(token, token + 1)
        alone = experts(x[row], scores[row], SharedExpert(*(part[row] for part in shared)))
        assert torch.equal(alone[0], together[token])


def test_of_equal_scores_the_first_expert_is_chosen(context: NativeContext) -> None:
    torch.manual_seed(0)
    weights = _weights(torch.float32)
    experts = _native(context, weights, experts_per_token=1)
    x = torch.randn(1, SIZE)
    first = _native(context, ([weights[0][0]], [weights[1][0]]), experts_per_token=1)
    scores = torch.full((1, EXPERTS), 0.5)
    assert torch.equal(experts(x, scores), first(x, torch.zeros(1, 1)))


def test_recorded_for_fewer_tokens(context: NativeContext) -> None:
    torch.manual_seed(0)
    experts = _native(context, _weights(torch.float32))
    x, scores, shared, _ = _inputs(24, torch.float32)
    recorded = record(context, lambda: experts(x, scores, shared), max_rows=24)
    for num_tokens in (24, 1, 7):
        rows = slice(num_tokens)
        recorded.run(num_tokens)
        expected = experts(x[rows], scores[rows], SharedExpert(*(part[rows] for part in shared)))
        assert torch.equal(recorded.result[rows], expected)
