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
        self.router = _parameter(experts, hidden_size)
        self.gate_up_E2FD = _parameter(experts, 2 * share, hidden_size)
        self.down_EDF = _parameter(experts, hidden_size, share)
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
            self.shared_expert_gate = _parameter(1, hidden_size)

    def forward(self, x_TD: Tensor) -> Tensor:
        shares_TC, experts_TC = self._route(x_TD)
        out_TD = (self._run_experts(x_TD, experts_TC) * shares_TC.unsqueeze(-1)).sum(1)
        if self.shared_expert is not None:
            gate_T1 = torch.sigmoid(F.linear(x_TD, self.shared_expert_gate))
            out_TD += gate_T1 * self.shared_expert(x_TD)
        return self.all_reduce(out_TD)

    def _route(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        chances_TE = F.linear(x_TD, self.router).softmax(-1, dtype=torch.float32)
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
            F.linear(self.activate_and_mul(F.linear(part, gate_up)), down)
            for part, gate_up, down in zip(inputs, self.gate_up_E2FD, self.down_EDF, strict=True)
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
            gate_up, down = self.gate_up_E2FD.data[expert], self.down_EDF.data[expert]
            name, shape = f"{prefix}.experts.{expert}", (ffn_size, hidden_size)
            rows = (self.columns, everything)
            yield WeightSlot(f"{name}.gate_proj.weight", gate_up[:share], shape, rows)
            yield WeightSlot(f"{name}.up_proj.weight", gate_up[share:], shape, rows)
            yield WeightSlot(
                f"{name}.down_proj.weight", down, shape[::-1], (everything, self.columns)
            )
        if self.shared_expert is not None:
            yield from self.shared_expert.weight_slots(f"{prefix}.shared_expert")
            yield _whole(f"{prefix}.shared_expert_gate.weight", self.shared_expert_gate)


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape), requires_grad=False)


def _whole(name: str, parameter: nn.Parameter) -> WeightSlot:
    return WeightSlot(
        name, parameter.data, tuple(parameter.shape), (slice(None),) * parameter.dim()
    )
