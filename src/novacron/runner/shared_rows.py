"""Steps of which several ranks compute some rows each, all of them with the whole model.

They share the KV blocks: in every layer, each stores the keys and values of its rows, all meet, and
each attends with its rows to whatever there is. A row's numbers depend on nothing but what it
attends to, so they are those of one rank, bit for bit.

Shapes: T tokens of the step, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from novacron.kernels.metadata import KVLayer
from novacron.kernels.ranks import RowLink
from novacron.kernels.recorded import NotRecordable
from novacron.models.decoder import Decoder
from novacron.parallel.groups import ParallelGroup
from novacron.runner.captured_step import (
    CapturedLayers,
    ComputedHere,
    DecoderStep,
    EagerLayers,
    say_why_not,
)
from novacron.runner.input_batch import InputBatch, StepInput
from novacron.runner.led_step import Lead
from novacron.runner.row_shares import share_rows, take_share
from novacron.runner.stage_step import logits_of

_WORTH_SHARING: Final = 64  # tokens for each rank: fewer are read weights for, and little else


class RowShare:
    """What one rank of the `group` computes of steps that are shared. All of them leave the hidden
    states of their rows in `hidden_TD`, memory that they share. `batch` is of this rank's rows
    alone, up to two for each part of a request."""

    def __init__(
        self,
        decoder: Decoder,
        cache: Sequence[KVLayer],
        batch: InputBatch,
        hidden_TD: Tensor,
        group: ParallelGroup,
        link: RowLink,
    ) -> None:
        self.hidden_TD = hidden_TD
        self._batch, self._group, self._meet = batch, group, link.meet
        self._layers: Callable[[StepInput], Tensor]
        try:
            with torch.inference_mode():
                self._layers = CapturedLayers(decoder, cache, batch, record=link.record)
        except NotRecordable as reason:
            say_why_not(reason)
            self._layers = EagerLayers(decoder, cache)

    def compute(self, step: StepInput) -> None:
        """Returns when all ranks have computed theirs. Raises ConnectionError."""
        pieces = share_rows(step.arrays.rows_R3, self._group.size)[self._group.rank]
        own = take_share(step.arrays, pieces, self._batch.block_size)
        counts = len(own.token_ids_T), len(pieces), step.num_blocks
        x_TD = self._layers(self._batch.copied_input(own, *counts))
        for piece, (first, _, num_tokens) in zip(pieces, own.rows_R3.tolist(), strict=True):
            place = slice(piece.first_token, piece.first_token + num_tokens)
            self.hidden_TD[place] = x_TD[first : first + num_tokens]
        self._meet(step.num_tokens)


class OwnRows(ComputedHere):
    """Implements DecoderStep on rank 0, of shared steps."""

    def __init__(self, decoder: Decoder, share: RowShare, max_tokens: int) -> None:
        self._share = share
        self._logits = logits_of(decoder, share.hidden_TD.unsqueeze(0), max_tokens)

    def hidden(self, inputs: StepInput) -> Tensor:
        self._share.compute(inputs)
        return self._share.hidden_TD[: inputs.num_tokens]

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        return self._logits(places)


class SharedRowsStep(ComputedHere):
    """Implements DecoderStep on rank 0: `shared` has steps that are worth it, `alone` all
    others."""

    def __init__(self, alone: DecoderStep, shared: DecoderStep, num_ranks: int) -> None:
        self._alone, self._shared = alone, shared
        self._fewest_tokens = _WORTH_SHARING * num_ranks
        self._last = alone

    def hidden(self, inputs: StepInput) -> Tensor:
        self._last = self._shared if inputs.num_tokens >= self._fewest_tokens else self._alone
        return self._last.hidden(inputs)

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        return self._last.logits(hidden_TD, places)


class RowLead:
    """Implements Lead: rank 0 makes all logits itself."""

    def __init__(self, team: Lead) -> None:
        self._team = team
        self.recover = team.recover

    def run_step(self, inputs: StepInput, places: Sequence[int]) -> None:
        self._team.run_step(inputs, ())

    def compute_logits(self, places: Sequence[int]) -> None:
        pass
