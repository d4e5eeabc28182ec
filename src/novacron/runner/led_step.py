"""A step that several ranks compute: rank 0 tells the others what to do, and does it with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from novacron.runner.captured_step import ComputedHere, DecoderStep
from novacron.runner.input_batch import StepInput


class Lead(Protocol):
    """Tells the other ranks, without waiting for them. They keep the order. Raises ConnectionError
    if one of them is gone."""

    def run_step(self, inputs: StepInput, places: Sequence[int]) -> None:
        """Compute the step, and the logits after `places` if there are any."""
        ...

    def compute_logits(self, places: Sequence[int]) -> None: ...

    def recover(self) -> None:
        """Have every rank begin anew, in the place of one that is lost another one."""
        ...


class LedStep(ComputedHere):
    """Implements DecoderStep on rank 0. Logits that are sure to be asked for are announced with the
    step, so that the others need not wait for another word.

    When a rank is lost in the middle (ConnectionError), the step is computed again by the ranks
    there are then: it writes the same keys and values to the same places, and rank 0 holds whatever
    a step begins with.
    """

    def __init__(self, own: DecoderStep, lead: Lead) -> None:
        self._own, self._lead = own, lead
        self._inputs: StepInput | None = None
        self._announced: list[int] = []

    def hidden(self, inputs: StepInput) -> Tensor:
        self._inputs = inputs
        places = [place for part in inputs.ending_parts for place in part.chosen_after]
        while True:
            try:
                return self._hidden(inputs, places)
            except ConnectionError:
                self._lead.recover()

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        assert self._inputs is not None
        while True:
            try:
                return self._logits(hidden_TD, places)
            except ConnectionError:
                self._lead.recover()
                hidden_TD = self._recomputed(self._inputs)

    def _recomputed(self, inputs: StepInput) -> Tensor:
        """Without any logits: which of them have been asked for already makes no difference."""
        while True:
            try:
                return self._hidden(inputs, [])
            except ConnectionError:
                self._lead.recover()

    def _hidden(self, inputs: StepInput, places: list[int]) -> Tensor:
        self._announced = places
        self._lead.run_step(inputs, places)
        return self._own.hidden(inputs)

    def _logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        announced, self._announced = self._announced, []
        if list(places) != announced:
            assert not announced, "the logits that were announced come first"
            self._lead.compute_logits(places)
        return self._own.logits(hidden_TD, places)
