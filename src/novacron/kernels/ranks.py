"""What kernels offer to ranks that share memory, if they offer anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

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


class Met(NamedTuple):
    """Totals of what a rank did with the others: sums and concatenations, bytes that it gave them,
    and how long it waited for them."""

    num_meetings: int = 0
    sent_bytes: int = 0
    waited_ns: int = 0


class RankLink(Protocol):
    """A rank's connection to the others. What they do together raises a ConnectionError once one of
    them is lost, on every rank, until all have begun anew."""

    communicator: Any  # a parallel.communicator.Communicator

    @property
    def loss(self) -> str | None:
        """Why the others cannot be reached any more, as half a sentence; None: they can."""
        ...

    @property
    def late_rank(self) -> int | None:
        """Who is to blame, if it is known to be a rank that hangs."""
        ...

    def met(self, rank: int) -> Met:
        """What any rank has exchanged; zero where nothing counts."""
        ...

    def give_up(self) -> None:
        """Have nobody wait for this rank. From any thread."""
        ...

    def begin_anew(self, meeting_point: Path) -> None:
        """Be ready for a group of the same ranks, of which some may be new processes."""
        ...

    def reset(self) -> None:
        """Make the group whole, once all ranks have begun anew: for one of them."""
        ...


class RankKernels(Protocol):
    def memory(self, size: ExchangeSize, num_ranks: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and dtype of each tensor that the ranks are to share, zero at first."""
        ...

    def join(
        self, rank: int, num_ranks: int, memory: Mapping[str, Tensor], patience_s: float
    ) -> RankLink:
        """`patience_s`: how long another rank may be late."""
        ...
