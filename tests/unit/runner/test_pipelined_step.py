"""What rank 0 tells the other stages, and where it finds what they have made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from novacron.parallel.handover import Receiver, Sender
from novacron.records.request import SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.runner.input_batch import InputBatch, StepInput
from novacron.runner.pipelined_step import PipelinedStep
from novacron.runner.step_arrays import StepArrays

SIZES = {"max_num_seqs": 4, "max_num_tokens": 16, "max_model_len": 32, "block_size": 8}
NUM_STEPS = 2


class Told:
    """The lead, the own stage, and the logits: all note what they are asked for."""

    def __init__(self) -> None:
        self.log: list[tuple[str, object]] = []

    def run_first_stage(self, inputs: StepInput, place: int) -> None:
        self.log.append(("first stage", place))

    def run_later_stages(self, inputs: StepInput, place: int) -> None:
        self.log.append(("later stages", place))

    def compute_logits(self, places: Sequence[int]) -> None:
        self.log.append(("logits", list(places)))

    def compute(self, inputs: StepInput, place: int) -> None:
        self.log.append(("own", place))

    def logits(self, rows: Sequence[int]) -> Tensor:
        self.log.append(("own logits", list(rows)))
        return torch.zeros(len(rows), 3)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def inputs_of(first_token: int, count: int) -> StepInput:
    batch = InputBatch(**SIZES, device=torch.device("cpu"))
    tokens = tuple(range(first_token, first_token + count))
    new = NewRequest("r", tokens, count, SamplingParams(seed=0))
    part = ScheduledTokens("r", 0, count, tuple(range(4)))
    step = SchedulerOutput(0, (new,), (part,), (), ())
    batch.update(step)
    return batch.prepare(step)


def test_steps_lie_in_places_of_their_own_until_they_have_ended(pipe: tuple[int, int]) -> None:
    told, ring_KTD = Told(), torch.zeros(NUM_STEPS, SIZES["max_num_tokens"], 2)
    shared = [
        StepArrays(**{n: np.zeros(s, np.int64) for n, s in StepArrays.shapes(**SIZES).items()})
        for _ in range(NUM_STEPS)
    ]
    last = Sender(ring_KTD, [pipe[1]])
    step = PipelinedStep(told, told.logits, told, shared, Receiver(ring_KTD, pipe[0]))  # type: ignore[arg-type]
    first, second = inputs_of(10, 5), inputs_of(70, 3)
    step.begin(first)
    step.begin(second)
    assert told.log == [
        ("first stage", 0), ("own", 0), ("later stages", 0),
        ("first stage", 1), ("own", 1), ("later stages", 1),
    ]  # fmt: skip
    assert shared[0].token_ids_T[:5].tolist() == [10, 11, 12, 13, 14]
    assert shared[1].token_ids_T[:3].tolist() == [70, 71, 72]
    assert shared[1].lengths_R[:1].tolist() == [3]
    last.hand_over(0, torch.full((5, 2), 0.5))
    last.hand_over(1, torch.full((3, 2), 0.7))
    told.log.clear()
    assert step.hidden(first).tolist() == torch.full((5, 2), 0.5).tolist()
    assert step.logits(torch.empty(0), [4]).shape == (1, 3)
    step.begin(inputs_of(20, 2))
    assert step.hidden(second).tolist() == torch.full((3, 2), 0.7).tolist()
    step.logits(torch.empty(0), [0, 2])
    assert told.log == [
        ("logits", [4]), ("own logits", [4]),
        ("first stage", 0), ("own", 0), ("later stages", 0),
        ("logits", [16, 18]), ("own logits", [16, 18]),
    ]  # fmt: skip
