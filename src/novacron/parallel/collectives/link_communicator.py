"""LinkCommunicator: ranks on different hosts that share the layers, whatever computes in them.

Shapes: T tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from novacron.parallel.collectives.host_exchange import HostExchange
from novacron.parallel.communicator import CollectiveCommunicator, Product, Rows


class LinkCommunicator(CollectiveCommunicator):
    """Implements Communicator. Raises ConnectionError if a rank is lost."""

    def __init__(self, rank: int, exchange: HostExchange) -> None:
        super().__init__(rank)
        self._exchange = exchange

    def all_reduce(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        self._exchange.add_up(x)
        return x

    def look_up(self, table: Rows, token_ids_T: Tensor, own: range) -> Tensor:
        x_TD = self._own_rows(table, token_ids_T, own)
        self._exchange.join(x_TD)
        return x_TD

    def join_logits(
        self,
        product: Product,
        hidden_TD: Tensor,
        own: range,
        vocab_size: int,
        finish: Callable[[Tensor], Tensor],
    ) -> Tensor:
        own_TV = finish(product(hidden_TD, out_dtype=torch.float32)).contiguous()
        if self._rank:
            self._exchange.collect_columns(own_TV, None)
            return own_TV
        logits_TV = own_TV.new_empty(own_TV.shape[0], vocab_size)
        logits_TV[:, own.start : own.stop] = own_TV
        self._exchange.collect_columns(own_TV, logits_TV)
        return logits_TV
