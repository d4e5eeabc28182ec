from __future__ import annotations

import random

import pytest
import torch

from novacron.records.request import SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.runner.input_batch import InputBatch

BLOCK = 4


@pytest.fixture
def batch() -> InputBatch:
    return InputBatch(
        max_num_seqs=4,
        max_num_tokens=16,
        max_model_len=32,
        block_size=BLOCK,
        device=torch.device("cpu"),
    )


def new(request_id: str, *token_ids: int, num_prompt: int | None = None) -> NewRequest:
    num_prompt = len(token_ids) if num_prompt is None else num_prompt
    return NewRequest(request_id, token_ids, num_prompt, SamplingParams(seed=0))


def step(
    *parts: ScheduledTokens,
    new: tuple[NewRequest, ...] = (),
    preempted: tuple[str, ...] = (),
    finished: tuple[str, ...] = (),
) -> SchedulerOutput:
    return SchedulerOutput(1, new, parts, preempted, finished)


def test_one_step_of_chunks_and_decodes(batch: InputBatch) -> None:
    first = step(
        ScheduledTokens("a", 0, 6, (5, 2)),
        ScheduledTokens("b", 0, 2, (7,)),
        new=(new("a", 10, 11, 12, 13, 14, 15), new("b", 20, 21)),
    )
    batch.update(first)
    parts = batch.prepare(first).parts
    parts[0].request.output_token_ids.append(16)
    parts[1].request.output_token_ids.append(22)

    second = step(
        ScheduledTokens("c", 4, 3, (1, 3)),
        ScheduledTokens("b", 2, 1, ()),
        ScheduledTokens("a", 6, 1, ()),
        new=(new("c", 30, 31, 32, 33, 34, 35, 36, 37),),
    )
    assert batch.update(second) == [3], "block 1 is a prefix of c that was cached"
    inputs = batch.prepare(second)
    assert [part.scheduled.request_id for part in inputs.parts] == ["a", "b", "c"]
    assert inputs.token_ids_T.tolist() == [16, 22, 34, 35, 36]
    assert inputs.positions_T.tolist() == [6, 2, 4, 5, 6]
    attention = inputs.attention
    assert attention.num_decodes == 2
    assert attention.lengths_R.tolist() == [7, 3, 7]
    assert attention.block_tables_RB.tolist() == [[5, 2], [7, 7], [1, 3]]
    assert attention.slots_T.tolist() == [2 * 4 + 2, 7 * 4 + 2, 3 * 4, 3 * 4 + 1, 3 * 4 + 2]
    assert [part.reaches_end for part in inputs.parts] == [True, True, False]
    assert [list(part.chosen_after) for part in inputs.parts] == [[0], [1], [4]]


def test_drafts_follow_the_known_tokens(batch: InputBatch) -> None:
    request = NewRequest("a", (1, 2, 3), 3, SamplingParams(seed=0))
    part = ScheduledTokens("a", 0, 5, (3, 1), (8, 9))
    step = SchedulerOutput(1, (request,), (part,), (), ())
    batch.update(step)
    inputs = batch.prepare(step)
    assert inputs.token_ids_T.tolist() == [1, 2, 3, 8, 9]
    assert inputs.parts[0].reaches_end
    assert list(inputs.parts[0].chosen_after) == [2, 3, 4]
    assert inputs.parts[0].request.num_tokens == 3, "nothing is known yet"


def test_a_resumed_request_computes_prompt_and_output_alike(batch: InputBatch) -> None:
    resumed = step(ScheduledTokens("a", 1, 4, (0, 1)), new=(new("a", 1, 2, 3, 4, 5, num_prompt=3),))
    batch.update(resumed)
    inputs = batch.prepare(resumed)
    assert inputs.token_ids_T.tolist() == [2, 3, 4, 5]
    assert inputs.parts[0].request.output_token_ids == [4, 5]
    assert inputs.parts[0].reaches_end


@pytest.mark.parametrize("how", ["preempted", "finished"])
def test_places_of_requests_that_left_are_used_again(batch: InputBatch, how: str) -> None:
    for round_number in range(12):
        name = str(round_number)
        leaving: dict[str, tuple[str, ...]] = {how: (str(round_number - 1),)}
        batch.update(
            step(ScheduledTokens(name, 0, 1, (round_number,)), new=(new(name, 1),), **leaving)
        )


def test_a_request_may_be_preempted_and_come_back_in_one_step(batch: InputBatch) -> None:
    batch.update(step(ScheduledTokens("a", 0, 2, (3,)), new=(new("a", 1, 2),)))
    back = step(ScheduledTokens("a", 0, 2, (4,)), new=(new("a", 1, 2),), preempted=("a",))
    assert batch.update(back) == [4]
    assert batch.prepare(back).attention.slots_T.tolist() == [16, 17]


def test_tokens_in_any_range() -> None:
    batch = InputBatch(
        max_num_seqs=1,
        max_num_tokens=16,
        max_model_len=32,
        block_size=BLOCK,
        device=torch.device("cpu"),
    )
    ids = random.Random(0).choices(range(100), k=12)
    only = step(ScheduledTokens("a", 0, 12, (0, 1, 2)), new=(new("a", *ids, num_prompt=5),))
    batch.update(only)
    request = batch.prepare(only).parts[0].request
    for start in range(13):
        for stop in range(start, 13):
            assert list(request.token_ids(start, stop)) == ids[start:stop]
