"""What kernels offer to ranks that share memory, if they offer anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ExchangeSize:
    """How much ranks exchange in a step at most. `partial_rows`: rows of a product that each of
    them has a part of, one for a token or one for each expert of a token."""

    max_tokens: int
    partial_rows: int
    hidden_size: int
    vocab_size: int
    dtype: torch.dtype


class RankLink(Protocol):
    """A rank's connection to the others."""

    communicator: Any  # a parallel.communicator.Communicator

    @property
    def loss(self) -> str | None:
        """Why the others cannot be reached any more, as half a sentence; None: they can."""
        ...

    def give_up(self) -> None:
        """Have nobody wait for this rank. From any thread."""
        ...


class RankKernels(Protocol):
    def memory(self, size: ExchangeSize, num_ranks: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and dtype of each tensor that the ranks are to share, zero at first."""
        ...

    def join(self, rank: int, num_ranks: int, memory: Mapping[str, Tensor]) -> RankLink: ...
