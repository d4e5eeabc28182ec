"""Mixture of experts: a router picks a few feed-forward networks for each token.

Every rank holds a slice of every expert (tensor parallel), so ranks always share the work evenly.

Shapes: T tokens, D hidden size, E experts, C experts chosen per token, F slice of an expert's width
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from novacron.kernels.table import Activation, Kernels
from novacron.models.decoder_config import MoeConfig
from novacron.models.layers.feed_forward import FeedForward
from novacron.models.layers.matrix import Matrix
from novacron.models.weight_slots import WeightSlot
from novacron.parallel.communicator import Communicator
from novacron.parallel.groups import ParallelGroup


class MixtureOfExperts(nn.Module):
    """Weighted sum of the chosen experts, plus a gated shared expert where the model has one.

    The weights of a token's experts are added in the router's order, whatever else is in the step.
    """

    def __init__(
        self,
        hidden_size: int,
        config: MoeConfig,
        activation: Activation,
        group: ParallelGroup,
        communicator: Communicator,
        kernels: Kernels,
    ) -> None:
        super().__init__()
        self.config = config
        self.columns = group.slice_of(config.ffn_size)
        self.all_reduce = communicator.all_reduce
        self.activate_and_mul = kernels.activate_and_mul[activation]
        experts, share = config.num_experts, group.share_of(config.ffn_size)
        self.router = Matrix(experts, hidden_size, "router")
        self.gate_up = tuple(Matrix(2 * share, hidden_size) for _ in range(experts))
        self.down = tuple(Matrix(hidden_size, share) for _ in range(experts))
        self.registered_experts = nn.ModuleList((*self.gate_up, *self.down))
        self.shared_expert: FeedForward | None = None
        if config.shared_ffn_size:
            self.shared_expert = FeedForward(
                hidden_size,
                config.shared_ffn_size,
                activation,
                group,
                communicator,
                kernels,
                reduce=False,
            )
            self.shared_expert_gate = Matrix(1, hidden_size, "router")

    def forward(self, x_TD: Tensor, add_to: Tensor | None = None) -> Tensor:
        shares_TC, experts_TC = self._route(x_TD)
        out_TD = (self._run_experts(x_TD, experts_TC) * shares_TC.unsqueeze(-1)).sum(1)
        if self.shared_expert is not None:
            out_TD += self._shared_expert_share(x_TD) * self.shared_expert(x_TD)
        out_TD = self.all_reduce(out_TD)
        return out_TD if add_to is None else add_to.add_(out_TD)

    def _shared_expert_share(self, x_TD: Tensor) -> Tensor:
        """The sigmoid of the gate, [T, 1], written as the softmax of the gate and zero: torch
        rounds a sigmoid differently in the last few elements of a tensor, so that a token's would
        depend on how many there are in the step."""
        return F.pad(self.shared_expert_gate.product(x_TD), (0, 1)).softmax(-1)[:, :1]

    def _route(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        chances_TE = self.router.product(x_TD).softmax(-1, dtype=torch.float32)
        shares_TC, experts_TC = chances_TE.topk(self.config.experts_per_token, dim=-1)
        if self.config.renormalize:
            shares_TC /= shares_TC.sum(-1, keepdim=True)
        return shares_TC.to(x_TD.dtype), experts_TC

    def _run_experts(self, x_TD: Tensor, experts_TC: Tensor) -> Tensor:
        """What each chosen expert makes of its token, [T, C, D].

        Sorts the (token, expert) pairs by expert, so that each expert is one product over its
        tokens. The counts come to the host: on a GPU one wait per layer.
        """
        num_tokens, chosen = experts_TC.shape
        order = experts_TC.flatten().argsort(stable=True)
        counts = torch.bincount(experts_TC.flatten(), minlength=self.config.num_experts).tolist()
        inputs = torch.split_with_sizes(x_TD[order // chosen], counts)
        outputs = [
            down.product(self.activate_and_mul(gate_up.product(part)))
            for part, gate_up, down in zip(inputs, self.gate_up, self.down, strict=True)
            if part.shape[0]
        ]
        sorted_outputs = torch.cat(outputs)
        unsorted = torch.empty_like(sorted_outputs).index_copy_(0, order, sorted_outputs)
        return unsorted.view(num_tokens, chosen, -1)

    def weight_slots(self, prefix: str) -> Iterator[WeightSlot]:
        experts, hidden_size = self.router.shape
        everything, ffn_size = slice(None), self.config.ffn_size
        share = self.columns.stop - self.columns.start
        yield _whole(f"{prefix}.gate.weight", self.router)
        for expert in range(experts):
            gate_up, down = self.gate_up[expert], self.down[expert]
            gate, up = gate_up.weight.data[:share], gate_up.weight.data[share:]
            name, shape = f"{prefix}.experts.{expert}", (ffn_size, hidden_size)
            rows = (self.columns, everything)
            yield WeightSlot(f"{name}.gate_proj.weight", gate, shape, rows, matrix=gate_up)
            yield WeightSlot(f"{name}.up_proj.weight", up, shape, rows, matrix=gate_up)
            columns = (everything, self.columns)
            yield WeightSlot(
                f"{name}.down_proj.weight", down.weight.data, shape[::-1], columns, matrix=down
            )
        if self.shared_expert is not None:
            yield from self.shared_expert.weight_slots(f"{prefix}.shared_expert")
            yield _whole(f"{prefix}.shared_expert_gate.weight", self.shared_expert_gate)


def _whole(name: str, matrix: Matrix) -> WeightSlot:
    weight = matrix.weight.data
    everything = slice(None)
    return WeightSlot(name, weight, matrix.shape, (everything, everything), matrix=matrix)
