"""A mixture of experts in plain torch: the reference that the native one is tested against.

Shapes: T tokens, D hidden size, E experts, C experts chosen per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from novacron.kernels.linear import Linear
from novacron.kernels.torch_ops import ACTIVATE_AND_MUL, Activation


class SharedExpert(NamedTuple):
    """What the expert that all tokens share makes of them, and the score of its share."""

    out_TD: Tensor
    score_T1: Tensor


class Experts(Protocol):
    """The feed-forward networks of one layer, which a router shares out."""

    def __call__(
        self,
        x_TD: Tensor,
        scores_TE: Tensor,
        shared: SharedExpert | None = None,
        add_to: Tensor | None = None,
    ) -> Tensor:
        """The sum of each token's experts, those with the highest scores, each times its share; and
        of the shared expert times the sigmoid of its score. With `add_to`, all that is added to
        that tensor, in place, and it is returned."""
        ...


class MakeExperts(Protocol):
    def __call__(
        self,
        gate_up: Sequence[Linear],
        down: Sequence[Linear],
        *,
        activation: Activation,
        experts_per_token: int,
        renormalize: bool,
    ) -> Experts:
        """`renormalize`: the shares of a token's experts are made to add up to one. Otherwise they
        are the chances that the softmax over all experts gives."""
        ...


@dataclass(frozen=True, eq=False)
class TorchExperts:
    """The weights of a token's experts are added in the router's order, whatever else is in the
    step."""

    gate_up: Sequence[Linear]
    down: Sequence[Linear]
    activation: Activation
    experts_per_token: int
    renormalize: bool

    def __call__(
        self,
        x_TD: Tensor,
        scores_TE: Tensor,
        shared: SharedExpert | None = None,
        add_to: Tensor | None = None,
    ) -> Tensor:
        shares_TC, experts_TC = self._choose(scores_TE, x_TD.dtype)
        out_TD = (self._run(x_TD, experts_TC) * shares_TC.unsqueeze(-1)).sum(1)
        if shared is not None:
            out_TD += _share_of(shared) * shared.out_TD
        return out_TD if add_to is None else add_to.add_(out_TD)

    def _choose(self, scores_TE: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        chances_TE = scores_TE.softmax(-1, dtype=torch.float32)
        shares_TC, experts_TC = chances_TE.topk(self.experts_per_token, dim=-1)
        if self.renormalize:
            shares_TC /= shares_TC.sum(-1, keepdim=True)
        return shares_TC.to(dtype), experts_TC

    def _run(self, x_TD: Tensor, experts_TC: Tensor) -> Tensor:
        """What each chosen expert makes of its token, [T, C, D].

        Sorts the (token, expert) pairs by expert, so that each expert is one product over its
        tokens. The counts come to the host: on a GPU one wait per layer.
        """
        num_tokens, chosen = experts_TC.shape
        order = experts_TC.flatten().argsort(stable=True)
        counts = torch.bincount(experts_TC.flatten(), minlength=len(self.gate_up)).tolist()
        inputs = torch.split_with_sizes(x_TD[order // chosen], counts)
        activate_and_mul = ACTIVATE_AND_MUL[self.activation]
        outputs = [
            down(activate_and_mul(gate_up(part)))
            for part, gate_up, down in zip(inputs, self.gate_up, self.down, strict=True)
            if part.shape[0]
        ]
        sorted_outputs = torch.cat(outputs)
        unsorted = torch.empty_like(sorted_outputs).index_copy_(0, order, sorted_outputs)
        return unsorted.view(num_tokens, chosen, -1)


def make_torch_experts(
    gate_up: Sequence[Linear],
    down: Sequence[Linear],
    *,
    activation: Activation,
    experts_per_token: int,
    renormalize: bool,
) -> TorchExperts:
    return TorchExperts(gate_up, down, activation, experts_per_token, renormalize)


def _share_of(shared: SharedExpert) -> Tensor:
    """The sigmoid of the score, [T, 1], written as the softmax of the score and zero: torch rounds
    a sigmoid differently in the last few elements of a tensor, so that a token's would depend on
    how many there are in the step."""
    return F.pad(shared.score_T1, (0, 1)).softmax(-1)[:, :1]
