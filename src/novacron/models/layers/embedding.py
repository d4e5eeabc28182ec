"""Token embeddings and output logits, split over ranks by vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
        self.own = group.range_of(vocab_size)
        self.hidden_size = hidden_size
        self.matrix = Matrix(len(self.own), hidden_size, role)

    def forward(self, token_ids: Tensor) -> Tensor:
        return self.communicator.look_up(self.matrix.table, token_ids, self.own)

    def logits(self, hidden: Tensor, finish: Callable[[Tensor], Tensor]) -> Tensor:
        """Scores of all tokens in float32, complete on rank 0; `finish` changes those of a rank in
        place."""
        return self.communicator.join_logits(
            self.matrix.product, hidden, self.own, self.vocab_size, finish
        )

    def weight_slots(self, prefix: str) -> Iterator[WeightSlot]:
        target = self.matrix.weight.data
        shape = (self.vocab_size, self.hidden_size)
        index = (slice(self.own.start, self.own.stop), slice(None))
        yield WeightSlot(f"{prefix}.weight", target, shape, index, matrix=self.matrix)
