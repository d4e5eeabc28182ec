"""What kernels offer to ranks that share memory, if they offer anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from novacron.kernels.recorded import Record


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


class RankBond(Protocol):
    """A rank's connection to the others. What they do together raises a ConnectionError once one of
    them is lost, on every rank, until all have begun anew."""

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


class RankLink(RankBond, Protocol):
    """Of ranks that have a slice of each layer."""

    communicator: Any  # a parallel.communicator.Communicator


class RowLink(RankBond, Protocol):
    """Of ranks of a host that have all layers, and compute some rows of a step each."""

    @property
    def record(self) -> Record:
        """For what ranks compute at the same time, each with its share of threads."""
        ...

    def meet(self, num_tokens: int) -> None:
        """All ranks have done what comes before, for a step of so many tokens of this rank."""
        ...


class HostSums(Protocol):
    """What ranks on several hosts do together. All call the same methods in the same order. Raises
    ConnectionError once one of them is lost."""

    def add_up(self, x_TD: Tensor) -> None:
        """Make each rank's partial sums, without gaps, the sums over ranks."""
        ...

    def join(self, x_TD: Tensor) -> None:
        """The same for what one rank has, and the others have zeros for."""
        ...

    def collect_columns(self, own_TV: Tensor, logits_TV: Tensor | None) -> None:
        """Have the columns of all ranks in `logits_TV` of rank 0."""
        ...


class RankKernels(Protocol):
    def join_hosts(
        self, rank: int, num_ranks: int, size: ExchangeSize, sums: HostSums
    ) -> Any:  # a parallel.communicator.Communicator
        """For ranks that share no memory. `sums` adds in the order of neighbours, as a tree; it is
        used in steps only."""
        ...

    def memory(self, size: ExchangeSize, num_ranks: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and dtype of each tensor that the ranks are to share, zero at first."""
        ...

    def join(
        self, rank: int, num_ranks: int, memory: Mapping[str, Tensor], patience_s: float
    ) -> RankLink:
        """`patience_s`: how long another rank may be late."""
        ...

    def meeting_by(self, exchange: Callable[[int], None]) -> Callable[[int], None]:
        """An AttentionMetadata.meet for ranks that share no memory: amid each step, `exchange` is
        called in every layer, with the number of this rank's tokens."""
        ...

    def memory_of_rows(self, num_ranks: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """The same as `memory` for ranks that share rows out, beside hidden states."""
        ...

    def join_rows(
        self,
        rank: int,
        num_ranks: int,
        memory: Mapping[str, Tensor],
        patience_s: float,
        num_threads: int,
    ) -> RowLink:
        """`num_threads`: of this rank while all compute at once."""
        ...
