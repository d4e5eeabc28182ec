from __future__ import annotations

import pytest
import torch
from torch import Tensor

from novacron.models.layers.embedding import VocabEmbedding
from novacron.parallel.communicator import CollectiveCommunicator
from novacron.parallel.groups import ParallelGroup


class FixedCommunicator(CollectiveCommunicator):
    """Answers with what the test prepared, as if the other ranks had taken part."""

    def __init__(self, rank: int) -> None:
        super().__init__(rank)
        self.seen: list[Tensor] = []

    def all_reduce(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x


@pytest.mark.parametrize("vocab_size", [12, 10, 9, 4])
def test_ranks_share_the_vocabulary(vocab_size: int) -> None:
    torch.manual_seed(0)
    whole = torch.randn(vocab_size, 6)
    ids, hidden = torch.arange(vocab_size).flip(0), torch.randn(3, 6)
    looked_up, logits = [], []
    for rank in range(4):
        communicator = FixedCommunicator(rank)
        layer = VocabEmbedding(vocab_size, 6, ParallelGroup(rank, 4), communicator)
        (slot,) = layer.weight_slots("e")
        slot.target.copy_(whole[slot.index])
        layer(ids)
        layer.logits(hidden, lambda logits: logits)
        looked_up.append(communicator.seen[0])
        logits.append(communicator.seen[1])
    torch.testing.assert_close(sum(looked_up), whole[ids])
    torch.testing.assert_close(sum(logits), hidden @ whole.T)
