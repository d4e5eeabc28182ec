"""How ranks of a group exchange tensors. One rank needs nothing: LocalCommunicator."""

from __future__ import annotations

from typing import Protocol

import torch


class Communicator(Protocol):
    """Collectives over the ranks of one ParallelGroup. Every rank calls them in the same order."""

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        """The sum over ranks; may reuse the memory of `x`."""
        ...

    def all_gather(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        """The tensors of all ranks, joined along `dim` in rank order."""
        ...


class LocalCommunicator:
    """A group of one rank."""

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def all_gather(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        return x
