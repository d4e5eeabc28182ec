"""Mixture of experts: a router picks a few feed-forward networks for each token.

Every rank holds a slice of every expert (tensor parallel), so ranks always share the work evenly.

Shapes: T tokens, D hidden size, E experts, C experts chosen per token, F slice of an expert's width
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor, nn

from novacron.kernels.experts import Experts, SharedExpert
from novacron.kernels.linear import Linear
from novacron.kernels.table import Kernels
from novacron.kernels.torch_ops import Activation
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
        self.mix = communicator.mix
        self.make_experts = partial(
            kernels.experts,
            activation=activation,
            experts_per_token=config.experts_per_token,
            renormalize=config.renormalize,
        )
        self._made: tuple[list[Linear], list[Linear], Experts] | None = None
        experts, share = config.num_experts, group.share_of(config.ffn_size)
        self.router = Matrix(experts, hidden_size, "router")
        self.gate_up = tuple(Matrix(2 * share, hidden_size) for _ in range(experts))
        self.down = tuple(Matrix(hidden_size, share, parts=group.size) for _ in range(experts))
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
            )
            self.shared_expert_gate = Matrix(1, hidden_size, "router")

    def forward(self, x_TD: Tensor, add_to: Tensor | None = None) -> Tensor:
        scores_TE = self.router.product(x_TD)
        shared = None
        if self.shared_expert is not None:
            score_T1 = self.shared_expert_gate.product(x_TD)
            shared = SharedExpert(self.shared_expert(x_TD), score_T1)
        return self.mix(self._experts(), x_TD, scores_TE, shared, add_to)

    def _experts(self) -> Experts:
        """Of the products as they are now: they change when weights are finished."""
        gate_up = [matrix.product for matrix in self.gate_up]
        down = [matrix.product for matrix in self.down]
        if self._made is None or self._made[:2] != (gate_up, down):
            self._made = (gate_up, down, self.make_experts(gate_up, down))
        return self._made[2]

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
