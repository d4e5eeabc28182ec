"""Ranks that are lost in the middle of a step, at any places of it, any number of times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from novacron.records.request import SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.runner.input_batch import InputBatch, StepInput
from novacron.runner.led_step import LedStep

NUM_TOKENS = 6


class Ranks:
    """Rank 0 and the others as one: each part of a step may fail, as `fails` says, and nothing
    succeeds then before they have begun anew. Computes the tokens' own numbers."""

    def __init__(self, fails: Sequence[bool]) -> None:
        self._fails: Iterator[bool] = iter(fails)
        self._is_lost = False
        self._told: list[object] = []
        self._has_hidden = False
        self.num_recoveries = 0

    def _may_fail(self) -> None:
        if self._is_lost or next(self._fails, False):
            self._is_lost = True
            raise ConnectionError

    def run_step(self, inputs: StepInput, places: Sequence[int]) -> None:
        self._may_fail()
        self._told = ["step", *([tuple(places)] if places else [])]

    def compute_logits(self, places: Sequence[int]) -> None:
        self._may_fail()
        self._told.append(tuple(places))

    def recover(self) -> None:
        assert self._is_lost
        self._is_lost, self._told, self._has_hidden = False, [], False
        self.num_recoveries += 1

    def hidden(self, inputs: StepInput) -> Tensor:
        self._may_fail()
        assert self._told.pop(0) == "step", "the others do what rank 0 does"
        self._has_hidden = True
        return inputs.token_ids_T.clone()

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        self._may_fail()
        assert self._has_hidden, "a new rank has no hidden states of its own"
        assert self._told.pop(0) == tuple(places)
        return hidden_TD[list(places)] * 10


def step_of(token_ids: Sequence[int], num_computed: int) -> StepInput:
    batch = InputBatch(
        max_num_seqs=2, max_num_tokens=16, max_model_len=16, block_size=8,
        device=torch.device("cpu"),
    )  # fmt: skip
    new = NewRequest("r", tuple(token_ids), len(token_ids), SamplingParams(seed=0))
    part = ScheduledTokens("r", 0, num_computed, (0,))
    step = SchedulerOutput(0, (new,), (part,), (), ())
    batch.update(step)
    return batch.prepare(step)


@given(
    fails=st.lists(st.booleans(), max_size=12),
    num_computed=st.integers(1, NUM_TOKENS),
    more_places=st.lists(
        st.lists(st.integers(0, NUM_TOKENS - 1), min_size=1, max_size=3), max_size=3
    ),
)
def test_a_step_gives_what_it_gives_without_losses(
    fails: list[bool], num_computed: int, more_places: list[list[int]]
) -> None:
    token_ids = list(range(5, 5 + NUM_TOKENS))
    inputs = step_of(token_ids, num_computed)
    ranks = Ranks(fails)
    step = LedStep(ranks, ranks)
    hidden = step.hidden(inputs)
    assert hidden.tolist() == token_ids[:num_computed]
    if num_computed == NUM_TOKENS:
        assert step.logits(hidden, [NUM_TOKENS - 1]).tolist() == [token_ids[-1] * 10]
    for places in more_places:
        wanted = [place % num_computed for place in places]
        found = step.logits(hidden, wanted)
        assert found.tolist() == [token_ids[place] * 10 for place in wanted]
    assert ranks.num_recoveries <= sum(fails)
