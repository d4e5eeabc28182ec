"""A stage of which several ranks of one host have a slice of every layer each: what the first of
them does, which speaks for the stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from novacron.kernels.metadata import KVLayer
from novacron.models.decoder import Decoder
from novacron.parallel.handover import Entry, Exit
from novacron.runner.input_batch import InputBatch, StepInput
from novacron.runner.led_step import Lead
from novacron.runner.stage_step import StageStep

Logits = Callable[[Sequence[int]], Tensor]


class LedStageStep(StageStep):
    """Has the others compute with it. What `entry` gives lies where they read it, too.

    When one of them is lost (ConnectionError), the layers are computed again by those there are
    then, from what the stage before has given: other stages see a pause, and nothing else.
    """

    def __init__(
        self,
        decoder: Decoder,
        cache: Sequence[KVLayer],
        batch: InputBatch,
        entry: Entry | None,
        exits: Exit | None,
        lead: Lead,
    ) -> None:
        super().__init__(decoder, cache, batch, entry, exits)
        self._lead = lead

    def _compute_layers(self, inputs: StepInput, taken_TD: Tensor | None) -> Tensor:
        while True:
            try:
                self._lead.run_step(inputs, ())
                return super()._compute_layers(inputs, taken_TD)
            except ConnectionError:
                self._lead.recover()


def led_logits(own: Logits, lead: Lead) -> Logits:
    """Those of the first stage, whose ranks have some columns each. The rows that they are made of
    lie where all ranks read them, so nothing else is computed again when one is lost."""

    def logits(rows: Sequence[int]) -> Tensor:
        while True:
            try:
                lead.compute_logits(rows)
                return own(rows)
            except ConnectionError:
                lead.recover()

    return logits
