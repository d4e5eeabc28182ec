"""A step that several ranks compute: rank 0 tells the others what to do, and does it with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from novacron.runner.captured_step import DecoderStep
from novacron.runner.input_batch import StepInput


class Lead(Protocol):
    """Tells the other ranks, without waiting for them. They keep the order."""

    def run_step(self, inputs: StepInput, places: Sequence[int]) -> None:
        """Compute the step, and the logits after `places` if there are any."""
        ...

    def compute_logits(self, places: Sequence[int]) -> None: ...


class LedStep:
    """Implements DecoderStep on rank 0. Logits that are sure to be asked for are announced with the
    step, so that the others need not wait for another word."""

    def __init__(self, own: DecoderStep, lead: Lead) -> None:
        self._own, self._lead = own, lead
        self._announced: list[int] = []

    def hidden(self, inputs: StepInput) -> Tensor:
        self._announced = [place for part in inputs.ending_parts for place in part.chosen_after]
        self._lead.run_step(inputs, self._announced)
        return self._own.hidden(inputs)

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        announced, self._announced = self._announced, []
        if list(places) != announced:
            assert not announced, "the logits that were announced come first"
            self._lead.compute_logits(places)
        return self._own.logits(hidden_TD, places)
