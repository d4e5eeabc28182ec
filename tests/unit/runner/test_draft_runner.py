"""The draft model makes the guesses that it is asked for, and reads what it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from novacron.models.decoder import Decoder
from novacron.parallel.groups import SINGLE
from novacron.records.request import SamplingParams
from novacron.records.step import (
    DraftPart,
    ModelRunnerOutput,
    NewRequest,
    ScheduledTokens,
    SchedulerOutput,
    StepResult,
)
from novacron.runner.captured_step import DecoderStep, capture_step
from novacron.runner.draft_runner import DraftRunner
from novacron.runner.input_batch import InputBatch
from novacron.runner.kv_tensors import KVTensors, plain_formats
from novacron.runner.model_runner import ModelRunner
from novacron.testing.reference import load_decoder
from novacron.testing.tiny_models import EOS_TOKEN_ID, VOCAB_SIZE, make_tiny_model

CPU = torch.device("cpu")
BLOCK = 8
PROMPT = [20, 21, 22, 30, 31, 32, 40, 41, 42, 50]
POISON = 7  # the token whose embedding is NaN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def decoder(folder: Path) -> Decoder:
    decoder = load_decoder(folder, CPU, dtype=torch.float32)
    decoder.set_context(128)
    return decoder


def parts_of(decoder: Decoder) -> tuple[DecoderStep, KVTensors, InputBatch]:
    kv_tensors = KVTensors(
        decoder.config,
        SINGLE,
        num_blocks=16,
        block_size=BLOCK,
        formats=plain_formats(decoder.config, torch.float32),
        device=CPU,
    )
    batch = InputBatch(
        max_num_seqs=8, max_num_tokens=64, max_model_len=128, block_size=BLOCK, device=CPU
    )
    return capture_step(decoder, kv_tensors.layers, batch), kv_tensors, batch


def make_runner(decoder: Decoder, vocab_size: int = VOCAB_SIZE) -> DraftRunner:
    return DraftRunner(
        *parts_of(decoder),
        own_vocab_size=VOCAB_SIZE,
        vocab_size=vocab_size,
        eos_token_ids=(EOS_TOKEN_ID,),
    )


def new(request_id: str, token_ids: list[int], **sampling: Any) -> NewRequest:
    params = SamplingParams(**{"seed": 5, "temperature": 0.0, **sampling})
    return NewRequest(request_id, tuple(token_ids), len(token_ids), params)


def first_step(*requests: NewRequest, num_drafts: int) -> SchedulerOutput:
    """All requests whole, with three blocks each, and drafted for."""
    parts = tuple(
        ScheduledTokens(
            one.request_id, 0, len(one.token_ids), tuple(range(place * 3, place * 3 + 3))
        )
        for place, one in enumerate(requests)
    )
    work = tuple(DraftPart(part.request_id, 0, part.num_tokens, num_drafts) for part in parts)
    return SchedulerOutput(1, requests, parts, (), (), drafting=work)


def told_tokens(decoder: Decoder, request: NewRequest, count: int) -> list[int]:
    """What the model itself says, one token after another."""
    runner = ModelRunner(*parts_of(decoder), eos_token_ids=(EOS_TOKEN_ID,))
    length = len(request.token_ids)
    tokens: list[int] = []
    for step in range(count):
        part = ScheduledTokens(request.request_id, 0, length, (3, 1, 2))
        if step > 0:
            part = ScheduledTokens(request.request_id, length + step - 1, 1, ())
        output = SchedulerOutput(step, (request,) * (step == 0), (part,), (), ())
        tokens += runner.execute(output).results[0].token_ids
    return tokens


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"temperature": 1.2, "top_p": 0.9, "logprobs": 2},
    "penalties": {"repetition_penalty": 1.8, "frequency_penalty": 0.5},
    "min_tokens": {"min_tokens": 6, "logit_bias": {EOS_TOKEN_ID: 50.0}},
}


def test_guesses_are_what_it_would_choose_itself(decoder: Decoder) -> None:
    """With each request's own parameters and seed, beside each other."""
    requests = [new(name, PROMPT[place:], **how) for place, (name, how) in enumerate(WAYS.items())]
    output = make_runner(decoder).draft(first_step(*requests, num_drafts=6))
    for request, drafts in zip(requests, output.drafts, strict=True):
        assert list(drafts) == told_tokens(decoder, request, 6), request.request_id
    assert [one.num_tokens for one in output.passes] == [10 + 9 + 8 + 7, 4, 4, 4, 4, 4]
    assert all(one.seconds > 0.0 for one in output.passes)


def test_each_request_gets_as_many_as_it_wants(decoder: Decoder) -> None:
    requests = [new(str(place), PROMPT) for place in range(3)]
    step = first_step(*requests, num_drafts=1)
    work = tuple(
        DraftPart(one.request_id, 0, 10 if count else 4, count)
        for one, count in zip(step.drafting, (3, 0, 1), strict=True)
    )
    step = SchedulerOutput(1, step.new_requests, step.scheduled, (), (), drafting=work)
    output = make_runner(decoder).draft(step)
    assert [len(drafts) for drafts in output.drafts] == [3, 0, 1]
    assert output.drafts[0][:1] == output.drafts[2]
    assert [one.num_tokens for one in output.passes] == [24, 1, 1]


def test_it_goes_on_from_what_it_has_seen(decoder: Decoder) -> None:
    """After a step that took some guesses and another token instead of the rest."""
    request = new("r", PROMPT)
    runner = make_runner(decoder)
    first = first_step(request, num_drafts=3)
    [drafts] = runner.draft(first).drafts
    other = (drafts[1] + 1) % VOCAB_SIZE
    runner.follow(first, ModelRunnerOutput(1, (StepResult("r", (drafts[0], other)),)))
    part = ScheduledTokens("r", 11, 1, ())
    second = SchedulerOutput(2, (), (part,), (), (), drafting=(DraftPart("r", 11, 1, 4),))
    [found] = runner.draft(second).drafts
    whole = new("r", [*PROMPT, drafts[0], other])
    assert list(found) == told_tokens(decoder, whole, 4)


def test_steps_without_drafting_are_followed(decoder: Decoder) -> None:
    """Requests come, get tokens and go; one that comes later takes over the blocks."""
    runner = make_runner(decoder)
    gone = first_step(new("gone", PROMPT), num_drafts=1)
    plain = SchedulerOutput(1, gone.new_requests, gone.scheduled, (), ())
    runner.follow(plain, ModelRunnerOutput(1, (StepResult("gone", (8,)),)))
    request = new("r", PROMPT[:5])
    part = ScheduledTokens("r", 0, 5, (2, 1, 0))
    step = SchedulerOutput(
        2, (request,), (part,), (), ("gone",), drafting=(DraftPart("r", 0, 5, 3),)
    )
    [drafts] = runner.draft(step).drafts
    assert list(drafts) == told_tokens(decoder, request, 3)


@pytest.mark.parametrize("vocab_size", [VOCAB_SIZE - 100, VOCAB_SIZE + 100])
def test_tokens_that_only_one_model_has_are_not_guessed(decoder: Decoder, vocab_size: int) -> None:
    requests = [new(str(seed), PROMPT, temperature=50.0, seed=seed) for seed in range(5)]
    requests.append(new("odd", [*PROMPT[:-1], vocab_size - 1]))
    output = make_runner(decoder, vocab_size).draft(first_step(*requests[-5:], num_drafts=6))
    drafts = [token for one in output.drafts for token in one]
    assert len(drafts) == 30
    assert max(drafts) < min(vocab_size, VOCAB_SIZE)


def test_numbers_that_are_not_finite_end_the_guesses_of_one_request_only(folder: Path) -> None:
    decoder = load_decoder(folder, CPU, dtype=torch.float32)
    decoder.set_context(128)
    decoder.embedding.matrix.weight.data[POISON] = torch.nan
    runner = make_runner(decoder)
    bad, good = new("bad", [*PROMPT[:-1], POISON]), new("good", PROMPT)
    step = first_step(bad, good, num_drafts=2)
    output = runner.draft(step)
    assert [len(drafts) for drafts in output.drafts] == [0, 2]
    results = (StepResult("bad", error="not finite"), StepResult("good", (8,)))
    runner.follow(step, ModelRunnerOutput(1, results))
    request = new("heir", PROMPT)  # to the first one's blocks, which must not show
    part = ScheduledTokens("heir", 0, 10, (0, 1, 2))
    work = (DraftPart("heir", 0, 10, 2),)
    parts = (part, ScheduledTokens("good", 10, 1, ()))
    heir = SchedulerOutput(2, (request,), parts, (), ("bad",), drafting=work)
    [drafts] = runner.draft(heir).drafts
    assert drafts == output.drafts[1]
