"""What the ranks of a group do together, as the layers ask for it.

LocalCommunicator is for one rank. CollectiveCommunicator builds everything on a sum and a
concatenation over ranks, which torch.distributed has (torch_communicator.py); its results differ
from those of one rank by rounding. kernels/native/communicator.py is the one that does not.

Shapes: T tokens, D hidden size, V vocabulary; `...` a rank's own part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

Shared = TypeVar("Shared")
Mix = Callable[[Tensor, Tensor, Shared | None, Tensor | None], Tensor]


class Product(Protocol):
    """A kernels.linear.Linear."""

    def __call__(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        *,
        add_to: Tensor | None = None,
        out_dtype: torch.dtype | None = None,
    ) -> Tensor: ...


class Rows(Protocol):
    """A kernels.linear.Table."""

    def rows(self, indices: Tensor) -> Tensor: ...


class Communicator(Protocol):
    """Every rank calls the same methods in the same order, with tensors of the same shapes."""

    def row_product(
        self, product: Product, x: Tensor, bias: Tensor | None, add_to: Tensor | None
    ) -> Tensor:
        """The sum over ranks of each one's product, of its part of the inputs; plus `bias`. With
        `add_to`, that is added to it in place. The same on every rank, as `bias` and `add_to`."""
        ...

    def look_up(self, table: Rows, token_ids_T: Tensor, own: range) -> Tensor:
        """The rows of these tokens, [T, D]; `table` has those of the tokens `own`."""
        ...

    def join_logits(
        self,
        product: Product,
        hidden_TD: Tensor,
        own: range,
        vocab_size: int,
        finish: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Scores in float32, [T, V], complete on rank 0. `product` gives those of the tokens `own`,
        and `finish` changes them in place. They hold until the next call."""
        ...

    def mix(
        self,
        experts: Mix[Shared],
        x_TD: Tensor,
        scores: Tensor,
        shared: Shared | None,
        add_to: Tensor | None,
    ) -> Tensor:
        """What `experts`, of which each rank has a slice, make of the arguments that follow;
        `shared` is the same on every rank."""
        ...


class LocalCommunicator:
    """A group of one rank. In a larger one, tests have it give what a rank has for itself."""

    def row_product(
        self, product: Product, x: Tensor, bias: Tensor | None, add_to: Tensor | None
    ) -> Tensor:
        return product(x, bias, add_to=add_to)

    def look_up(self, table: Rows, token_ids_T: Tensor, own: range) -> Tensor:
        return table.rows(token_ids_T)

    def join_logits(
        self,
        product: Product,
        hidden_TD: Tensor,
        own: range,
        vocab_size: int,
        finish: Callable[[Tensor], Tensor],
    ) -> Tensor:
        return finish(product(hidden_TD, out_dtype=torch.float32))

    def mix(
        self,
        experts: Mix[Shared],
        x_TD: Tensor,
        scores: Tensor,
        shared: Shared | None,
        add_to: Tensor | None,
    ) -> Tensor:
        return experts(x_TD, scores, shared, add_to)


class CollectiveCommunicator(ABC):
    """Ranks that can add up tensors of equal shapes, whatever computes in them. Sums are made in
    float32."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    @abstractmethod
    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum over ranks; may reuse the memory of `x`."""

    def row_product(
        self, product: Product, x: Tensor, bias: Tensor | None, add_to: Tensor | None
    ) -> Tensor:
        out = self.all_reduce(product(x, out_dtype=torch.float32))
        if bias is not None:
            out += bias
        return out.to(x.dtype) if add_to is None else add_to.copy_(out.add_(add_to))

    def look_up(self, table: Rows, token_ids_T: Tensor, own: range) -> Tensor:
        return self.all_reduce(self._own_rows(table, token_ids_T, own))

    def _own_rows(self, table: Rows, token_ids_T: Tensor, own: range) -> Tensor:
        """Those of tokens that are elsewhere are zero."""
        elsewhere_T = (token_ids_T < own.start) | (token_ids_T >= own.stop)
        local_T = (token_ids_T - own.start).masked_fill_(elsewhere_T, 0)
        return table.rows(local_T).masked_fill_(elsewhere_T.unsqueeze(-1), 0)

    def join_logits(
        self,
        product: Product,
        hidden_TD: Tensor,
        own: range,
        vocab_size: int,
        finish: Callable[[Tensor], Tensor],
    ) -> Tensor:
        logits_TV = hidden_TD.new_zeros((hidden_TD.shape[0], vocab_size), dtype=torch.float32)
        logits_TV[:, own.start : own.stop] = finish(product(hidden_TD, out_dtype=torch.float32))
        return self.all_reduce(logits_TV)

    def mix(
        self,
        experts: Mix[Shared],
        x_TD: Tensor,
        scores: Tensor,
        shared: Shared | None,
        add_to: Tensor | None,
    ) -> Tensor:
        part_TD = experts(x_TD, scores, shared if self._rank == 0 else None, None)
        out_TD = self.all_reduce(part_TD.float())
        return out_TD.to(x_TD.dtype) if add_to is None else add_to.copy_(out_TD.add_(add_to))
