"""HostRowMeeting: ranks on several hosts that compute some rows of a step each.

Every host has all KV blocks. In each layer a rank sends the others what the blocks that it has
written to hold of that layer, as they are, and puts theirs into its own: so blocks are those of one
process everywhere, in whatever precision they are kept. No two ranks write to one block of a step.

Shapes: T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from novacron.kernels.ranks import RankKernels
from novacron.parallel.collectives.point_to_point import PointToPoint
from novacron.parallel.groups import ParallelGroup
from novacron.parallel.traffic import RankTraffic
from novacron.runner.kv_tensors import KVTensors
from novacron.runner.row_shares import blocks_written
from novacron.runner.shared_rows import Shares, put_rows
from novacron.runner.step_arrays import StepArrays

_MESSAGE_BYTES: Final = 2**24  # at most, of whole blocks; or one block


class HostRowMeeting:
    """Implements RowMeeting, once `join` has told the way to the others. Only rank 0 needs
    `hidden_TD`."""

    def __init__(
        self,
        group: ParallelGroup,
        kernels: RankKernels,
        blocks: KVTensors,
        traffic: RankTraffic,
        hidden_TD: Tensor | None = None,
    ) -> None:
        self.unit = blocks.block_size
        self.hidden_TD = torch.empty(0) if hidden_TD is None else hidden_TD
        self.meet = kernels.meeting_by(self._make_layer_equal)
        self._group, self._blocks, self._traffic = group, blocks, traffic
        self._layers = blocks.parts_of_layers
        self._others = [rank for rank in range(group.size) if rank != group.rank]
        self._written: list[Tensor] = []  # blocks, of each rank
        self._layer = 0
        self._ranks: PointToPoint | None = None

    def join(self, ranks: PointToPoint) -> None:
        self._ranks = ranks

    @property
    def ranks(self) -> PointToPoint:
        assert self._ranks is not None, "the ranks have not met yet"
        return self._ranks

    def begin(self, step: StepArrays, shares: Shares) -> None:
        self._layer = 0
        self._written = [
            torch.from_numpy(blocks_written(step.block_tables_RB, pieces, self.unit))
            for pieces in shares
        ]

    def _make_layer_equal(self, num_tokens: int) -> None:
        layer = self._layers[self._layer]
        self._layer += 1
        self._traffic.see_meeting()
        own = layer[self._written[self._group.rank]]
        for other in self._others:
            self.ranks.send(other, own)
        for other in self._others:
            self._receive(other, layer, self._written[other])

    def gather(self, x_TD: Tensor, step: StepArrays, shares: Shares) -> None:
        """Others send theirs to rank 0."""
        self._traffic.see_meeting()
        if self._group.rank:
            self.ranks.send(0, x_TD)
            return
        put_rows(x_TD, shares[0], self.hidden_TD)
        for other in self._others:
            num_rows = sum(piece.num_tokens for piece in shares[other])
            theirs_TD = x_TD.new_empty(num_rows, x_TD.shape[1])
            self.ranks.receive(other, theirs_TD)
            put_rows(theirs_TD, shares[other], self.hidden_TD)

    def send_blocks(self, block_ids: Sequence[int]) -> None:
        """From rank 0, to all others."""
        for some in self._messages(block_ids):
            whole = self._blocks.whole_blocks[some]
            for other in self._others:
                self.ranks.send(other, whole)

    def take_blocks(self, block_ids: Sequence[int]) -> None:
        """The same, on another rank."""
        for some in self._messages(block_ids):
            self._receive(0, self._blocks.whole_blocks, some)

    def _messages(self, block_ids: Sequence[int]) -> Iterator[Tensor]:
        size = max(1, _MESSAGE_BYTES // self._blocks.block_bytes)
        for first in range(0, len(block_ids), size):
            yield torch.tensor(block_ids[first : first + size])

    def _receive(self, source: int, into: Tensor, block_ids: Tensor) -> None:
        theirs = into.new_empty(len(block_ids), into.shape[1])
        self.ranks.receive(source, theirs)
        into[block_ids] = theirs
