"""Steps that go through several stages: rank 0 begins them, and gets them back from the last stage.
Those that are under way when a rank is lost go through all stages again.

Shapes: T tokens of the step, D hidden size, R rows whose logits are wanted, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from torch import Tensor

from novacron.parallel.handover import Entry, HandoverLost
from novacron.runner.input_batch import InputBatch, StepInput
from novacron.runner.stage_step import StageStep
from novacron.runner.step_arrays import StepArrays

_LOST: Final = (ConnectionError, HandoverLost)


class PipelineLead(Protocol):
    """Tells the other ranks, without waiting for them. They keep the order. Raises ConnectionError
    if one of them is gone."""

    def run_first_stage(self, inputs: StepInput, place: int) -> None:
        """Compute the step whose tensors lie in this place: the neighbours of rank 0."""
        ...

    def run_later_stages(self, inputs: StepInput, place: int) -> None:
        """The same: the ranks of the other stages."""
        ...

    def compute_logits(self, places: Sequence[int]) -> None:
        """Those of the first stage: after these rows of the last one's ring."""
        ...

    def recover(self) -> None:
        """Have every rank begin anew, in the place of one that is lost another one. Raises what
        keeps it from that."""
        ...


class PipelinedStep:
    """Implements DecoderStep on rank 0. As many steps may be under way as there are `shared` arrays
    for them. `batch` is the one that steps are prepared in.

    When a rank is lost (ConnectionError, HandoverLost), all steps under way are computed again, in
    their order, by the ranks there are then: each writes the same keys and values to the same
    places, and what it begins with lies in its arrays. One that has come back is left as it is.
    """

    def __init__(
        self,
        own: StageStep,
        logits: Callable[[Sequence[int]], Tensor],
        lead: PipelineLead,
        shared: Sequence[StepArrays],
        end: Entry,
        batch: InputBatch,
    ) -> None:
        self._own, self._logits, self._lead = own, logits, lead
        self._shared, self._end, self._batch = shared, end, batch
        self._counts = [(0, 0, 0)] * len(shared)
        self._free = deque(range(len(shared)))
        self._under_way: deque[int] = deque()
        self._ended = 0

    def begin(self, inputs: StepInput) -> None:
        """Returns when the first stage is done with the step."""
        place = self._free.popleft()
        self._under_way.append(place)
        counts = inputs.num_tokens, inputs.num_requests, inputs.num_blocks
        self._counts[place] = counts
        self._shared[place].first(*counts).copy_from(inputs.arrays)
        try:
            self._send_off(inputs, place)
        except _LOST:
            self._recover()

    def hidden(self, inputs: StepInput) -> Tensor:
        hidden_TD: Tensor | None = None
        while hidden_TD is None:
            try:
                hidden_TD = self._end.take(self._under_way[0], inputs.num_tokens)
            except _LOST:
                self._recover()
        self._ended = self._under_way.popleft()
        self._free.append(self._ended)
        return hidden_TD

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        first_row = self._ended * self._end.ring_KTD.shape[1]
        rows = [first_row + place for place in places]
        while True:
            try:
                self._lead.compute_logits(rows)
                return self._logits(rows)
            except _LOST:
                self._recover()

    def _send_off(self, inputs: StepInput, place: int) -> None:
        self._lead.run_first_stage(inputs, place)
        self._own.compute(inputs, place)
        self._lead.run_later_stages(inputs, place)  # not before: this rank may need their cores

    def _recover(self) -> None:
        while True:
            self._lead.recover()
            try:
                for place in self._under_way:
                    inputs = self._batch.copied_input(self._shared[place], *self._counts[place])
                    self._send_off(inputs, place)
                return
            except _LOST:
                pass
