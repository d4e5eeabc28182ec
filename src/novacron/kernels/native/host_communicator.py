"""NativeHostCommunicator: ranks on several hosts, which give the bits that a single rank gives.

Kernels write this rank's partial sums to memory of its own; from amid a program, Python has them
added up with those of the others, in the order in which one rank adds up the segments of a product.
Bias, residual and rounding are the kernels' again.

Shapes: T tokens, D hidden size, V vocabulary, P rows of partial sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from novacron.kernels.native.exchanges import guarded
from novacron.kernels.native.experts import NativeExperts, RankPartials
from novacron.kernels.native.library import (
    DATA_TYPES,
    AddPartialsCall,
    MeetCall,
    NativeContext,
)
from novacron.kernels.native.linear import NativeLinear, NativeTable
from novacron.kernels.native.row_products import submit_row_product
from novacron.kernels.pages import zero_pages
from novacron.kernels.ranks import ExchangeSize, HostSums


class NativeHostCommunicator:
    """Implements Communicator, with what native_kernels makes. `sums` is used in steps only."""

    def __init__(
        self, context: NativeContext, rank: int, num_ranks: int, size: ExchangeSize, sums: HostSums
    ) -> None:
        assert num_ranks in (1, 2, 4), "as many segments as a product has are shared out"
        self._context, self._rank, self._sums = context, rank, sums
        hidden = size.hidden_size
        self._own_PD = zero_pages((size.partial_rows, hidden), torch.float32)
        self._embedded_TD = zero_pages((size.max_tokens, hidden), size.dtype)
        # of the whole vocabulary on rank 0, which has its own columns in their place
        self._logits: Tensor | None = None
        self._size = size
        self._token_ids_T = torch.empty(0, dtype=torch.int64)
        self._own_tokens = range(0)
        self._add_up = guarded(lambda rows: sums.add_up(self._own_PD[:rows]))
        self._join_rows = guarded(self._join_embedded)
        self._collect = guarded(self._collect_logits)
        join = AddPartialsCall(
            exchange=self._add_up,
            partials=self._own_PD.data_ptr(),
            size=hidden,
            rank_stride=0,
            type=DATA_TYPES[size.dtype],
            ranks=1,
            out_stride=hidden,
        )
        self._partials = RankPartials(self._own_PD, join, num_ranks)

    def row_product(
        self, product: object, x: Tensor, bias: Tensor | None, add_to: Tensor | None
    ) -> Tensor:
        return submit_row_product(self._context, self._partials, product, x, bias, add_to)

    def look_up(self, table: object, token_ids_T: Tensor, own: range) -> Tensor:
        self._token_ids_T, self._own_tokens = token_ids_T, own
        embedded_TD = self._embedded_TD[: token_ids_T.shape[0]]
        cast("NativeLinear | NativeTable", table).rows_into(token_ids_T, embedded_TD, own.start)
        out_TD = self._context.stream.empty(embedded_TD.shape, embedded_TD.dtype)
        self._meet(self._join_rows, embedded_TD, out_TD)
        return out_TD

    def _join_embedded(self, rows: int) -> None:
        ids_T = self._token_ids_T[:rows]
        elsewhere_T = (ids_T < self._own_tokens.start) | (ids_T >= self._own_tokens.stop)
        embedded_TD = self._embedded_TD[:rows]
        embedded_TD.masked_fill_(elsewhere_T.unsqueeze(1), 0)
        self._sums.join(embedded_TD)

    def join_logits(
        self,
        product: object,
        hidden_TD: Tensor,
        own: range,
        vocab_size: int,
        finish: Callable[[Tensor], Tensor],
    ) -> Tensor:
        width = vocab_size if self._rank == 0 else len(own)
        if self._logits is None:
            self._logits = zero_pages((self._size.max_tokens, width), torch.float32)
        logits_TV = self._logits[: hidden_TD.shape[0]]
        own_TV = logits_TV[:, own.start : own.stop] if self._rank == 0 else logits_TV
        cast(NativeLinear, product).into(hidden_TD, own_TV)
        finish(own_TV)
        self._meet(self._collect, logits_TV)
        return logits_TV

    def _collect_logits(self, rows: int) -> None:
        assert self._logits is not None
        logits_TV = self._logits[:rows]
        self._sums.collect_columns(logits_TV, logits_TV if self._rank == 0 else None)

    def mix(
        self,
        experts: object,
        x_TD: Tensor,
        scores: Tensor,
        shared: object,
        add_to: Tensor | None,
    ) -> Tensor:
        mixture = cast(NativeExperts, experts)
        return mixture(x_TD, scores, shared, add_to, partials=self._partials)  # type: ignore[arg-type]

    def _meet(self, exchange: Any, rows: Tensor, copy: Tensor | None = None) -> None:
        self._context.stream.submit(
            MeetCall(
                exchange=exchange,
                source=rows.data_ptr(),
                target=None if copy is None else copy.data_ptr(),
                rows=rows.shape[0],
                row_bytes=rows.stride(0) * rows.itemsize,
            )
        )
