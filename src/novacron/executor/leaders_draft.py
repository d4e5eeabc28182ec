"""LeadersDraft: the draft model of an executor with several ranks, if it is to have one.

Rank 0 computes it, with the threads of all ranks of its host: those have nothing else to do while
it guesses. Guesses are checked by all ranks, as tokens of a step.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.executor.blueprint import Blueprint
from novacron.executor.draft_model import DraftModel
from novacron.executor.memory_plan import ModelShape
from novacron.executor.own_rank import OwnRank
from novacron.executor.placement import threads_of_replica
from novacron.executor.worker import Phases
from novacron.kernels.choice import choose_kernels
from novacron.records.output import DraftModelSpec
from novacron.records.step import DraftOutput, ModelRunnerOutput, SchedulerOutput
from novacron.runner.draft_runner import DraftRunner


class LeadersDraft:
    """For the model that `whole` draws, from the checkpoint in `path`; without, there is none, and
    nothing is done. Methods are called in the order in which they stand here, those below `spec` at
    any time."""

    def __init__(self, whole: Blueprint, path: Path | None, model: ModelConfig) -> None:
        """Raises ModelLoadError."""
        self.blueprint: Blueprint | None = None
        if path is not None:
            num_threads = threads_of_replica(model)
            kernels = choose_kernels(model.kernels, whole.device, whole.dtype, num_threads)
            self.blueprint = replace(whole.of_draft(path), kernels=kernels)
        self._model: DraftModel | None = None
        self._runner: DraftRunner | None = None

    @property
    def shape(self) -> ModelShape | None:
        return None if self.blueprint is None else self.blueprint.shape()

    def load(self, phases: Phases) -> None:
        """Raises ModelLoadError."""
        if self.blueprint is not None:
            with phases.timed("draft_weights"):
                self._model = DraftModel(self.blueprint)

    def stand_beside(self, rank: OwnRank, scheduler: SchedulerConfig) -> None:
        """Guess for the model of this rank, under the same block tables."""
        if self._model is not None:
            self._runner = self._model.make_runner(
                rank.kv_tensors,
                scheduler,
                max_model_len=rank.max_model_len,
                vocab_size=rank.blueprint.config.vocab_size,
                eos_token_ids=rank.blueprint.eos_token_ids,
            )

    @property
    def spec(self) -> DraftModelSpec | None:
        return None if self._model is None else self._model.spec

    def draft(self, step: SchedulerOutput) -> DraftOutput:
        assert self._runner is not None, "no draft model was loaded"
        return self._runner.draft(step)

    def begin(self, step: SchedulerOutput) -> None:
        """It has begun, whether it was drafted for or not."""
        if self._runner is not None:
            self._runner.begin(step)

    def follow(self, step: SchedulerOutput, result: ModelRunnerOutput) -> None:
        """This became of it."""
        if self._runner is not None:
            self._runner.follow(step, result)

    def forget_requests(self) -> None:
        """All of them, and steps that have begun: who plans steps introduces them anew. What of
        their blocks holds KV of the draft model is known there, too."""
        if self._runner is not None:
            self._runner.forget_requests()
