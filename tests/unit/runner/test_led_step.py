"""What rank 0 tells the others: enough, in order, and nothing twice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from novacron.records.request import SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.runner.input_batch import InputBatch, StepInput
from novacron.runner.led_step import LedStep


class Telling:
    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def run_step(self, inputs: StepInput, places: Sequence[int]) -> None:
        size = (inputs.num_tokens, inputs.num_requests, inputs.num_blocks)
        self.told.append(("step", (size, list(places))))

    def compute_logits(self, places: Sequence[int]) -> None:
        self.told.append(("logits", list(places)))


class Own:
    """Says what it was asked for, after the others have been told."""

    def __init__(self, lead: Telling) -> None:
        self._lead = lead

    def hidden(self, inputs: StepInput) -> Tensor:
        self._lead.told.append(("own step", None))
        return torch.zeros(inputs.num_tokens, 2)

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        self._lead.told.append(("own logits", list(places)))
        return torch.zeros(len(places), 3)


def step_of(*parts: tuple[str, int, int]) -> StepInput:
    """Of requests with ten tokens each: name, first token and number of tokens of its part."""
    batch = InputBatch(
        max_num_seqs=4, max_num_tokens=64, max_model_len=32, block_size=8,
        device=torch.device("cpu"),
    )  # fmt: skip
    new = tuple(
        NewRequest(name, tuple(range(10)), 10, SamplingParams(seed=0)) for name, _, _ in parts
    )
    scheduled = tuple(ScheduledTokens(*part, (index, 4)) for index, part in enumerate(parts))
    step = SchedulerOutput(0, new, scheduled, (), ())
    batch.update(step)
    return batch.prepare(step)


def test_logits_after_the_last_tokens_go_with_the_step() -> None:
    lead = Telling()
    step = LedStep(Own(lead), lead)
    inputs = step_of(("whole", 0, 10), ("end", 9, 1), ("beginning", 0, 5))
    hidden = step.hidden(inputs)
    places = [place for part in inputs.ending_parts for place in part.chosen_after]
    step.logits(hidden, places)
    assert sorted(places) == [0, 10]  # single tokens come first
    assert lead.told == [
        ("step", ((16, 3, 2), places)),
        ("own step", None),
        ("own logits", places),
    ]
    step.logits(hidden, range(1, 4))  # of the prompt
    assert lead.told[3:] == [("logits", [1, 2, 3]), ("own logits", [1, 2, 3])]


def test_a_step_that_reaches_no_end_announces_nothing() -> None:
    lead = Telling()
    step = LedStep(Own(lead), lead)
    step.logits(step.hidden(step_of(("beginning", 0, 5))), [2])
    assert lead.told == [
        ("step", ((5, 1, 1), [])),
        ("own step", None),
        ("logits", [2]),
        ("own logits", [2]),
    ]
