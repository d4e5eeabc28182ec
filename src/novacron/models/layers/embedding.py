"""Token embeddings and output logits, split over ranks by vocabulary.

The vocabulary is padded so that every rank holds as many rows; the padding is never looked up and
its logits are cut off.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from novacron.models.layers.matrix import Matrix, Role
from novacron.models.weight_slots import WeightSlot
from novacron.parallel.communicator import Communicator
from novacron.parallel.groups import ParallelGroup


class VocabEmbedding(nn.Module):
    """The rows of this rank's tokens. Serves as input embedding ("lookup"), or as output matrix,
    which is the embedding too if they are tied."""

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        group: ParallelGroup,
        communicator: Communicator,
        *,
        role: Role = "output",
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.communicator = communicator
        self.is_split = group.size > 1
        share = -(-vocab_size // group.size)
        self.first = min(group.rank * share, vocab_size)
        self.last = min(self.first + share, vocab_size)
        self.hidden_size = hidden_size
        self.matrix = Matrix(share, hidden_size, role)

    def forward(self, token_ids: Tensor) -> Tensor:
        if not self.is_split:
            return self.matrix.table.rows(token_ids)
        elsewhere = (token_ids < self.first) | (token_ids >= self.last)
        local = (token_ids - self.first).masked_fill_(elsewhere, 0)
        rows = self.matrix.table.rows(local).masked_fill_(elsewhere.unsqueeze(-1), 0)
        return self.communicator.all_reduce(rows)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of all tokens in float32, complete on every rank."""
        local = self.matrix.product(hidden, out_dtype=torch.float32)
        if not self.is_split:
            return local
        return self.communicator.all_gather(local, dim=-1)[..., : self.vocab_size]

    def weight_slots(self, prefix: str) -> Iterator[WeightSlot]:
        target = self.matrix.weight.data[: self.last - self.first]
        shape = (self.vocab_size, self.hidden_size)
        index = (slice(self.first, self.last), slice(None))
        yield WeightSlot(f"{prefix}.weight", target, shape, index, matrix=self.matrix)
