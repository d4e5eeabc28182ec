"""One stage's part of each step, as a rank computes it.

Shapes: T tokens of the step, D hidden size, N rows of hidden states of all steps under way, R rows
whose logits are wanted, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from novacron.kernels.metadata import KVLayer
from novacron.kernels.recorded import NotRecordable
from novacron.models.decoder import Decoder
from novacron.parallel.handover import Entry, Exit
from novacron.runner.captured_step import (
    CapturedLayers,
    CapturedLogits,
    EagerLayers,
    say_why_not,
)
from novacron.runner.input_batch import InputBatch, StepInput


class StageStep:
    """Takes over what the stage before has made of a step, if there is one, computes this one's
    layers, and hands the result on, if this rank speaks for its stage.

    Steps are told apart by `place`: where each of those under way lies in the rings.
    """

    def __init__(
        self,
        decoder: Decoder,
        cache: Sequence[KVLayer],
        batch: InputBatch,
        entry: Entry | None,
        exits: Exit | None,
    ) -> None:
        self._entry, self._exits = entry, exits
        self._given_TD: Tensor | None = None
        if entry is not None:
            self._given_TD = torch.empty_like(entry.ring_KTD[0])
        self._layers = _layers_of(decoder, cache, batch, self._given_TD)

    @torch.inference_mode()
    def compute(self, inputs: StepInput, place: int) -> None:
        """Raises HandoverLost."""
        taken_TD = None
        if self._entry is not None:
            taken_TD = self._entry.take(place, inputs.num_tokens)
        x_TD = self._compute_layers(inputs, taken_TD)
        if self._exits is not None:
            self._exits.hand_over(place, x_TD)

    def _compute_layers(self, inputs: StepInput, taken_TD: Tensor | None) -> Tensor:
        if taken_TD is not None and self._given_TD is not None:
            self._given_TD[: inputs.num_tokens].copy_(taken_TD)
        return self._layers(inputs)


def _layers_of(
    decoder: Decoder, cache: Sequence[KVLayer], batch: InputBatch, given_TD: Tensor | None
) -> Callable[[StepInput], Tensor]:
    try:
        with torch.inference_mode():
            return CapturedLayers(decoder, cache, batch, given_TD)
    except NotRecordable as reason:
        say_why_not(reason)
        return EagerLayers(decoder, cache, given_TD)


def logits_of(
    decoder: Decoder, ring_KTD: Tensor, max_rows: int
) -> Callable[[Sequence[int]], Tensor]:
    """For the first stage: scores, [R, V], after rows of what the last one leaves in its ring,
    whose rows are counted through."""
    hidden_ND = ring_KTD.flatten(0, 1)
    try:
        with torch.inference_mode():
            return CapturedLogits(decoder, hidden_ND, max_rows)
    except NotRecordable:
        return lambda rows: decoder.logits(hidden_ND[torch.tensor(rows)])
