"""What rank 0 tells the other stages, and where it finds what they have made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from novacron.errors import EngineDead
from novacron.parallel.handover import HandoverLost, Receiver, Sender
from novacron.records.request import SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.runner.input_batch import InputBatch, StepInput
from novacron.runner.pipelined_step import PipelinedStep
from novacron.runner.step_arrays import StepArrays

SIZES = {"max_num_seqs": 4, "max_num_tokens": 16, "max_model_len": 32, "block_size": 8}
NUM_STEPS = 2


class Told:
    """The lead, the own stage, and the logits: all note what they are asked for. `losses` of them
    lose a rank meanwhile."""

    def __init__(self) -> None:
        self.log: list[tuple[str, object]] = []
        self.seen: list[list[int]] = []  # tokens that the own stage was given
        self.losses: list[str] = []
        self.recover_with: Callable[[], None] = lambda: None

    def lose(self, where: str) -> None:
        if self.losses and self.losses[0] == where:
            self.losses.pop(0)
            raise HandoverLost(where)

    def recover(self) -> None:
        self.log.append(("recover", None))
        self.recover_with()

    def run_first_stage(self, inputs: StepInput, place: int) -> None:
        self.log.append(("first stage", place))

    def run_later_stages(self, inputs: StepInput, place: int) -> None:
        self.log.append(("later stages", place))

    def compute_logits(self, places: Sequence[int]) -> None:
        self.log.append(("logits", list(places)))

    def compute(self, inputs: StepInput, place: int) -> None:
        self.log.append(("own", place))
        self.seen.append(inputs.arrays.token_ids_T.tolist())
        self.lose("own")

    def logits(self, rows: Sequence[int]) -> Tensor:
        self.log.append(("own logits", list(rows)))
        self.lose("logits")
        return torch.zeros(len(rows), 3)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def new_batch() -> InputBatch:
    return InputBatch(**SIZES, device=torch.device("cpu"))


def shared_arrays() -> list[StepArrays]:
    shapes = StepArrays.shapes(**SIZES)
    return [
        StepArrays(**{name: np.zeros(shape, np.int64) for name, shape in shapes.items()})
        for _ in range(NUM_STEPS)
    ]


def inputs_of(first_token: int, count: int) -> StepInput:
    batch = new_batch()
    tokens = tuple(range(first_token, first_token + count))
    new = NewRequest("r", tokens, count, SamplingParams(seed=0))
    part = ScheduledTokens("r", 0, count, tuple(range(4)))
    step = SchedulerOutput(0, (new,), (part,), (), ())
    batch.update(step)
    return batch.prepare(step)


def test_steps_lie_in_places_of_their_own_until_they_have_ended(pipe: tuple[int, int]) -> None:
    told, ring_KTD = Told(), torch.zeros(NUM_STEPS, SIZES["max_num_tokens"], 2)
    shared = shared_arrays()
    last = Sender(ring_KTD, [pipe[1]])
    end = Receiver(ring_KTD, pipe[0])
    step = PipelinedStep(told, told.logits, told, shared, end, new_batch())  # type: ignore[arg-type]
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


class LossyEnd:
    """What the last stage hands over; lost as often as `told` says."""

    def __init__(self, told: Told) -> None:
        self.ring_KTD = torch.zeros(NUM_STEPS, SIZES["max_num_tokens"], 2)
        self._told = told

    def take(self, place: int, num_tokens: int) -> Tensor:
        self._told.lose("end")
        return self.ring_KTD[place, :num_tokens]


def lossy(*losses: str) -> tuple[Told, PipelinedStep]:
    told = Told()
    told.losses = list(losses)
    return told, PipelinedStep(
        told, told.logits, told, shared_arrays(), LossyEnd(told), new_batch()  # type: ignore[arg-type]
    )  # fmt: skip


def test_all_steps_under_way_are_computed_again_in_their_order() -> None:
    told, step = lossy("end")
    first, second = inputs_of(10, 5), inputs_of(70, 3)
    step.begin(first)
    step.begin(second)
    told.log.clear()
    told.seen.clear()
    assert step.hidden(first).shape == (5, 2)
    assert told.log == [
        ("recover", None),
        ("first stage", 0), ("own", 0), ("later stages", 0),
        ("first stage", 1), ("own", 1), ("later stages", 1),
    ]  # fmt: skip
    assert told.seen == [[10, 11, 12, 13, 14], [70, 71, 72]]
    told.log.clear()
    assert step.hidden(second).shape == (3, 2)
    assert told.log == []


def test_a_loss_while_steps_are_computed_again_is_a_loss_like_any_other() -> None:
    told, step = lossy("own", "own")
    step.begin(inputs_of(10, 5))
    assert told.seen == [[10, 11, 12, 13, 14]] * 3
    assert [word for word, _ in told.log].count("recover") == 2
    assert told.log[-1] == ("later stages", 0)


def test_logits_are_asked_for_again_of_a_step_that_has_come_back() -> None:
    told, step = lossy("logits")
    first, second = inputs_of(10, 5), inputs_of(70, 3)
    step.begin(first)
    step.begin(second)
    step.hidden(first)
    told.log.clear()
    assert step.logits(torch.empty(0), [4]).shape == (1, 3)
    assert told.log == [
        ("logits", [4]), ("own logits", [4]), ("recover", None),
        ("first stage", 1), ("own", 1), ("later stages", 1),
        ("logits", [4]), ("own logits", [4]),
    ]  # fmt: skip


def test_what_cannot_be_made_whole_again_is_not_tried_again() -> None:
    told, step = lossy("end")

    def give_up() -> None:
        raise EngineDead("for good")

    told.recover_with = give_up
    first = inputs_of(10, 5)
    step.begin(first)
    with pytest.raises(EngineDead, match="for good"):
        step.hidden(first)
