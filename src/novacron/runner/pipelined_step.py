"""Steps that go through several stages: rank 0 begins them, and gets them back from the last stage.

Shapes: T tokens of the step, D hidden size, R rows whose logits are wanted, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from novacron.parallel.handover import Entry
from novacron.runner.input_batch import StepInput
from novacron.runner.stage_step import StageStep
from novacron.runner.step_arrays import StepArrays


class PipelineLead(Protocol):
    """Tells the other ranks, without waiting for them. They keep the order."""

    def run_first_stage(self, inputs: StepInput, place: int) -> None:
        """Compute the step whose tensors lie in this place: the neighbours of rank 0."""
        ...

    def run_later_stages(self, inputs: StepInput, place: int) -> None:
        """The same: the ranks of the other stages."""
        ...

    def compute_logits(self, places: Sequence[int]) -> None:
        """Those of the first stage: after these rows of the last one's ring."""
        ...


class PipelinedStep:
    """Implements DecoderStep on rank 0. As many steps may be under way as there are `shared` arrays
    for them."""

    def __init__(
        self,
        own: StageStep,
        logits: Callable[[Sequence[int]], Tensor],
        lead: PipelineLead,
        shared: Sequence[StepArrays],
        end: Entry,
    ) -> None:
        self._own, self._logits, self._lead = own, logits, lead
        self._shared, self._end = shared, end
        self._free = deque(range(len(shared)))
        self._under_way: deque[int] = deque()
        self._ended = 0

    def begin(self, inputs: StepInput) -> None:
        """Returns when the first stage is done with the step. Raises HandoverLost."""
        place = self._free.popleft()
        self._under_way.append(place)
        counts = inputs.num_tokens, inputs.num_requests, inputs.num_blocks
        self._shared[place].first(*counts).copy_from(inputs.arrays)
        self._lead.run_first_stage(inputs, place)
        self._own.compute(inputs, place)
        self._lead.run_later_stages(inputs, place)  # not before: this rank may need their cores

    def hidden(self, inputs: StepInput) -> Tensor:
        """Raises HandoverLost."""
        self._ended = self._under_way.popleft()
        self._free.append(self._ended)
        return self._end.take(self._ended, inputs.num_tokens)

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        first_row = self._ended * self._end.ring_KTD.shape[1]
        rows = [first_row + place for place in places]
        self._lead.compute_logits(rows)
        return self._logits(rows)
