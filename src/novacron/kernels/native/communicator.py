"""NativeCommunicator: the ranks of a host, which give the bits that a single rank gives.

What ranks exchange, the kernels write straight into memory that all of them share. Each sum over
ranks is one meeting: every rank has written its part, all meet, every rank adds up all parts, in
the order in which one rank adds up the segments of a product. Parts go to two places in turn: who
writes to one of them again has met since with everybody who still read it.

Shapes: T tokens, D hidden size, V vocabulary, R ranks, P rows of partial sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from novacron.kernels.native.exchanges import ExchangeMeeting
from novacron.kernels.native.experts import NativeExperts, RankPartials
from novacron.kernels.native.host_communicator import NativeHostCommunicator
from novacron.kernels.native.library import (
    DATA_TYPES,
    AddPartialsCall,
    MeetCall,
    NativeContext,
)
from novacron.kernels.native.linear import NativeLinear, NativeTable
from novacron.kernels.native.rank_group import RankGroup, group_bytes
from novacron.kernels.native.row_link import NativeRowLink
from novacron.kernels.native.row_products import submit_row_product
from novacron.kernels.ranks import ExchangeSize, HostSums, Met


@dataclass(frozen=True)
class SharedAreas:
    """Memory that the ranks share. T is the most tokens of a step; P has a row for each, or one for
    each pair of a token and an expert."""

    partials_2RPD: Tensor  # float32
    embedded_TD: Tensor
    logits_TV: Tensor  # float32


class NativeCommunicator:
    """Implements Communicator, with what native_kernels makes."""

    def __init__(self, context: NativeContext, group: RankGroup, areas: SharedAreas) -> None:
        assert group.size in (1, 2, 4), "as many segments as a product has are shared out"
        self._context, self._group, self._areas = context, group, areas
        self._turn = 0
        hidden_type = DATA_TYPES[areas.embedded_TD.dtype]
        self._joins = tuple(
            AddPartialsCall(
                group=group.pointer,
                partials=partials_RPD.data_ptr(),
                size=partials_RPD.shape[2],
                rank_stride=partials_RPD.stride(0),
                type=hidden_type,
                ranks=group.size,
                out_stride=partials_RPD.shape[2],
            )
            for partials_RPD in areas.partials_2RPD
        )

    def begin_anew(self) -> None:
        """Take the first place of partial sums next, as every rank does then."""
        self._turn = 0

    def row_product(
        self, product: object, x: Tensor, bias: Tensor | None, add_to: Tensor | None
    ) -> Tensor:
        return submit_row_product(self._context, self._next_partials(), product, x, bias, add_to)

    def look_up(self, table: object, token_ids_T: Tensor, own: range) -> Tensor:
        shared_TD = self._areas.embedded_TD[: token_ids_T.shape[0]]
        cast("NativeLinear | NativeTable", table).rows_into(token_ids_T, shared_TD, own.start)
        out_TD = self._context.stream.empty(shared_TD.shape, shared_TD.dtype)
        self._meet(shared_TD, out_TD)
        return out_TD

    def join_logits(
        self,
        product: object,
        hidden_TD: Tensor,
        own: range,
        vocab_size: int,
        finish: Callable[[Tensor], Tensor],
    ) -> Tensor:
        logits_TV = self._areas.logits_TV[: hidden_TD.shape[0]]
        own_TV = logits_TV[:, own.start : own.stop]
        self._meet(logits_TV)  # rank 0 is done with those before
        cast(NativeLinear, product).into(hidden_TD, own_TV)
        finish(own_TV)
        self._meet(logits_TV)
        return logits_TV

    def mix(
        self,
        experts: object,
        x_TD: Tensor,
        scores: Tensor,
        shared: object,
        add_to: Tensor | None,
    ) -> Tensor:
        mixture = cast(NativeExperts, experts)
        return mixture(x_TD, scores, shared, add_to, partials=self._next_partials())  # type: ignore[arg-type]

    def _next_partials(self) -> RankPartials:
        """Two after each other are not in one place. The first of a step may be where the last one
        of the step before was: looking up its tokens, the ranks have met in between."""
        self._turn = 1 - self._turn
        return RankPartials(
            self._areas.partials_2RPD[self._turn, self._group.rank],
            self._joins[self._turn],
            self._group.size,
        )

    def _meet(self, rows: Tensor, copy: Tensor | None = None) -> None:
        self._context.stream.submit(
            MeetCall(
                group=self._group.pointer,
                source=rows.data_ptr(),
                target=None if copy is None else copy.data_ptr(),
                rows=rows.shape[0],
                row_bytes=rows.stride(0) * rows.itemsize,
            )
        )


class NativeRankLink:
    """Implements RankLink."""

    def __init__(self, communicator: NativeCommunicator, group: RankGroup) -> None:
        self.communicator = communicator
        self._group = group
        self.give_up, self.reset = group.give_up, group.reset

    @property
    def loss(self) -> str | None:
        return self._group.loss

    @property
    def late_rank(self) -> int | None:
        return self._group.late_rank

    def met(self, rank: int) -> Met:
        return self._group.met(rank)

    def begin_anew(self, meeting_point: Path) -> None:
        self._group.begin_anew()
        self.communicator.begin_anew()


@dataclass(frozen=True)
class NativeRanks:
    """Implements RankKernels."""

    context: NativeContext

    def memory(
        self, size: ExchangeSize, num_ranks: int
    ) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        hidden = size.hidden_size
        return {
            "group": ((group_bytes(self.context, num_ranks),), torch.uint8),
            "partials": ((2, num_ranks, size.partial_rows, hidden), torch.float32),
            "embedded": ((size.max_tokens, hidden), size.dtype),
            "logits": ((size.max_tokens, size.vocab_size), torch.float32),
        }

    def meeting_by(self, exchange: Callable[[int], None]) -> ExchangeMeeting:
        return ExchangeMeeting(self.context, exchange)

    def memory_of_rows(self, num_ranks: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        return {"group": ((group_bytes(self.context, num_ranks),), torch.uint8)}

    def join_rows(
        self,
        rank: int,
        num_ranks: int,
        memory: Mapping[str, Tensor],
        patience_s: float,
        num_threads: int,
    ) -> NativeRowLink:
        group = RankGroup(self.context, memory["group"], rank, num_ranks, patience_s=patience_s)
        return NativeRowLink(self.context, group, num_threads)

    def join_hosts(
        self, rank: int, num_ranks: int, size: ExchangeSize, sums: HostSums
    ) -> NativeHostCommunicator:
        return NativeHostCommunicator(self.context, rank, num_ranks, size, sums)

    def join(
        self, rank: int, num_ranks: int, memory: Mapping[str, Tensor], patience_s: float
    ) -> NativeRankLink:
        group = RankGroup(self.context, memory["group"], rank, num_ranks, patience_s=patience_s)
        areas = SharedAreas(memory["partials"], memory["embedded"], memory["logits"])
        return NativeRankLink(NativeCommunicator(self.context, group, areas), group)
