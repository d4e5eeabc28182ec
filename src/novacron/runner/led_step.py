"""A step that several ranks compute: rank 0 tells the others what to do, and does it with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from torch import Tensor

from novacron.runner.captured_step import ComputedHere, DecoderStep
from novacron.runner.input_batch import StepInput
from novacron.runner.kv_tensors import KVTensors


class Lead(Protocol):
    """Tells the other ranks, without waiting for them. They keep the order."""

    def run_step(self, inputs: StepInput, places: Sequence[int]) -> None:
        """Compute the step, and the logits after `places` if there are any."""
        ...

    def compute_logits(self, places: Sequence[int]) -> None: ...


class LedStep(ComputedHere):
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


class BlockLead(Protocol):
    def zero_blocks(self, block_ids: Collection[int]) -> None:
        """On every rank, in the order of what it is told."""
        ...


class LedBlocks:
    """Implements TaintedBlocks on rank 0: what it zeroes, all ranks zero."""

    def __init__(self, own: KVTensors, lead: BlockLead) -> None:
        self._own, self._lead = own, lead

    def taint(self, block_ids: Iterable[int]) -> None:
        self._own.taint(block_ids)

    def clean(self, block_ids: Iterable[int]) -> None:
        zeroed = self._own.clean(block_ids)
        if zeroed:
            self._lead.zero_blocks(zeroed)
