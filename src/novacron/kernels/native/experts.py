"""A mixture of experts with the native kernels, as one operation.

Shapes: T tokens, D hidden size, E experts, C experts chosen per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Array, pointer
from typing import NamedTuple, cast

from torch import Tensor

from novacron.kernels.experts import SharedExpert
from novacron.kernels.linear import Linear
from novacron.kernels.native.library import (
    ACTIVATIONS,
    DATA_TYPES,
    AddPartialsCall,
    ExpertsCall,
    LinearCall,
    NativeContext,
)
from novacron.kernels.native.linear import NativeLinear
from novacron.kernels.torch_ops import Activation


class RankPartials(NamedTuple):
    """Where one of `num_ranks` leaves its partial sums, with a row for each pair of a token and an
    expert, and how those of all ranks become one. `join` must stay where it is."""

    own_RD: Tensor
    join: AddPartialsCall
    num_ranks: int


class NativeExperts:
    """Implements Experts, with NativeLinears. Adds up in float32 and rounds once."""

    def __init__(
        self,
        context: NativeContext,
        gate_up: Sequence[Linear],
        down: Sequence[Linear],
        *,
        activation: Activation,
        experts_per_token: int,
        renormalize: bool,
    ) -> None:
        self._context = context
        self._linears = cast(tuple[Sequence[NativeLinear], ...], (gate_up, down))  # keeps weights
        self._gate_up, self._down = _products(self._linears[0]), _products(self._linears[1])
        self._own_down: Array[LinearCall] | None = None
        self._experts_per_token = experts_per_token
        self._call = ExpertsCall(
            gate_up=self._gate_up,
            down=self._down,
            ffn_size=self._down[0].inputs,
            num_experts=len(self._down),
            experts_per_token=experts_per_token,
            activation=ACTIVATIONS[activation],
            renormalize=renormalize,
        )

    def __call__(
        self,
        x_TD: Tensor,
        scores_TE: Tensor,
        shared: SharedExpert | None = None,
        add_to: Tensor | None = None,
        *,
        partials: RankPartials | None = None,
    ) -> Tensor:
        """With `partials`, each rank has a slice of every expert."""
        given = (x_TD, scores_TE, *(shared or ()), *(() if add_to is None else (add_to,)))
        assert all(tensor.is_contiguous() and tensor.dtype == x_TD.dtype for tensor in given)
        stream, call = self._context.stream, self._call
        num_tokens, size = x_TD.shape
        num_pairs = num_tokens * self._experts_per_token
        out = stream.empty(x_TD.shape, x_TD.dtype) if add_to is None else add_to
        rows, gate_up, activated = (
            stream.empty((num_pairs, width), x_TD.dtype)
            for width in (size, 2 * call.ffn_size, call.ffn_size)
        )
        call.x, call.router_logits = x_TD.data_ptr(), scores_TE.data_ptr()
        call.shared = call.shared_logits = None
        if shared is not None:
            call.shared = shared.out_TD.data_ptr()
            call.shared_logits = shared.score_T1.data_ptr()
        call.residual = None if add_to is None else add_to.data_ptr()
        call.out = out.data_ptr()
        call.rows_of_pairs, call.gate_up_of_pairs = rows.data_ptr(), gate_up.data_ptr()
        call.activated_of_pairs = activated.data_ptr()
        call.down, call.partials, call.own_partials = self._down, None, None
        if partials is not None:
            if self._own_down is None:
                self._own_down = _products(self._linears[1], partials.num_ranks)
            call.down, call.own_partials = self._own_down, partials.own_RD.data_ptr()
            call.partials = pointer(partials.join)
        call.rows, call.size, call.type = num_tokens, size, DATA_TYPES[x_TD.dtype]
        stream.submit(call)
        return out


def _products(linears: Sequence[NativeLinear], ranks: int = 1) -> Array[LinearCall]:
    calls = (linear.call_between_rows(ranks=ranks) for linear in linears)
    return (LinearCall * len(linears))(*calls)
