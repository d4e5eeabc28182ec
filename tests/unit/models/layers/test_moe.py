from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from novacron.kernels.table import TORCH_KERNELS
from novacron.models.decoder_config import MoeConfig
from novacron.models.layers.moe import MixtureOfExperts
from novacron.parallel.communicator import LocalCommunicator
from novacron.parallel.groups import SINGLE, ParallelGroup

HIDDEN, EXPERTS, CHOSEN, WIDTH, SHARED = 6, 5, 2, 8, 12


def make(group: ParallelGroup, weights: dict[str, Tensor], **settings: object) -> MixtureOfExperts:
    config = MoeConfig(
        num_experts=EXPERTS,
        experts_per_token=CHOSEN,
        ffn_size=WIDTH,
        **settings,  # type: ignore[arg-type]
    )
    layer = MixtureOfExperts(HIDDEN, config, "silu", group, LocalCommunicator(), TORCH_KERNELS)
    for slot in layer.weight_slots("m"):
        whole = weights.setdefault(slot.name, torch.randn(slot.shape))
        slot.target.copy_(whole[slot.index])
    return layer


def by_hand(x: Tensor, weights: dict[str, Tensor], *, renormalize: bool, shared: bool) -> Tensor:
    def run(name: str, token: Tensor) -> Tensor:
        gate, up, down = (
            weights[f"m.{name}.{part}_proj.weight"] for part in ("gate", "up", "down")
        )
        return down @ (F.silu(gate @ token) * (up @ token))

    rows = []
    for token in x:
        chances = torch.softmax(weights["m.gate.weight"] @ token, 0)
        best = chances.topk(CHOSEN)
        shares = best.values / best.values.sum() if renormalize else best.values
        row = sum(
            share * run(f"experts.{expert}", token)
            for share, expert in zip(shares, best.indices.tolist(), strict=True)
        )
        if shared:
            gate = torch.sigmoid(weights["m.shared_expert_gate.weight"] @ token)
            row = row + gate * run("shared_expert", token)
        rows.append(row)
    return torch.stack(rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("shared", [0, SHARED])
def test_equals_the_sum_written_out(renormalize: bool, shared: int) -> None:
    torch.manual_seed(0)
    weights: dict[str, Tensor] = {}
    layer = make(SINGLE, weights, renormalize=renormalize, shared_ffn_size=shared)
    x = torch.randn(7, HIDDEN)
    expected = by_hand(x, weights, renormalize=renormalize, shared=bool(shared))
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(sum(
        make(ParallelGroup(rank, 4), weights, renormalize=renormalize, shared_ffn_size=shared)(x)
        for rank in range(4)
    ), expected)  # fmt: skip


def test_a_token_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(0)
    layer = make(SINGLE, {}, renormalize=True)
    x = torch.randn(9, HIDDEN)
    together = layer(x)
    for index in range(9):
        torch.testing.assert_close(layer(x[index : index + 1])[0], together[index])
