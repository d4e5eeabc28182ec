"""How a rank other than 0 computes what it is told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from novacron.executor.rank_messages import RunStage, RunStep
from novacron.runner.captured_step import DecoderStep
from novacron.runner.input_batch import InputBatch
from novacron.runner.stage_step import StageStep
from novacron.runner.step_arrays import StepArrays


class FollowedSteps:
    """Of a model that has one stage: rank 0 prepares steps in the arrays of `batch`."""

    def __init__(self, own: DecoderStep, batch: InputBatch) -> None:
        self._own, self._batch = own, batch
        self._hidden_TD = torch.empty(0)

    def run(self, step: RunStep | RunStage) -> None:
        assert isinstance(step, RunStep)
        inputs = self._batch.given_input(step.num_tokens, step.num_requests, step.num_blocks)
        self._hidden_TD = self._own.hidden(inputs)
        if step.places:
            self.logits(step.places)

    def logits(self, places: Sequence[int]) -> None:
        self._own.logits(self._hidden_TD, places)


class FollowedStages:
    """Of one that has several: rank 0 leaves each step that is in flight in arrays of its own."""

    def __init__(
        self,
        own: StageStep,
        batch: InputBatch,
        steps: Sequence[StepArrays],
        logits: Callable[[Sequence[int]], Tensor],
    ) -> None:
        self._own, self._batch, self._steps = own, batch, steps
        self.logits = logits

    def run(self, step: RunStep | RunStage) -> None:
        """Raises HandoverLost."""
        assert isinstance(step, RunStage)
        counts = step.num_tokens, step.num_requests, step.num_blocks
        inputs = self._batch.copied_input(self._steps[step.place], *counts)
        self._own.compute(inputs, step.place)
