from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from novacron.models.decoder import Decoder
from novacron.parallel.groups import SINGLE
from novacron.records.request import Pooling, SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput, StepResult
from novacron.runner.captured_step import capture_step
from novacron.runner.input_batch import InputBatch
from novacron.runner.kv_tensors import KVTensors, plain_formats
from novacron.runner.model_runner import ModelRunner
from novacron.testing.reference import load_decoder, logits_in_chunks
from novacron.testing.tiny_models import EOS_TOKEN_ID, make_tiny_model

CPU = torch.device("cpu")
BLOCK = 8
POISON = 7  # the token whose embedding is NaN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def decoder(folder: Path) -> Decoder:
    decoder = load_decoder(folder, CPU, dtype=torch.float32)
    decoder.set_context(128)
    return decoder


@pytest.fixture
def run(decoder: Decoder) -> Callable[..., list[StepResult]]:
    """Computes steps; each part is (request id, start, num_tokens, new blocks)."""
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
    step = capture_step(decoder, kv_tensors.layers, batch)
    runner = ModelRunner(step, kv_tensors, batch, eos_token_ids=(EOS_TOKEN_ID,))

    def execute(
        *parts: tuple[str, int, int, tuple[int, ...]],
        new: tuple[NewRequest, ...] = (),
        finished: tuple[str, ...] = (),
        masks: dict[str, tuple[bytes, ...]] | None = None,
    ) -> list[StepResult]:
        scheduled = tuple(ScheduledTokens(*part) for part in parts)
        output = runner.execute(SchedulerOutput(3, new, scheduled, (), finished, masks or {}))
        assert output.step == 3
        assert [result.request_id for result in output.results] == [part[0] for part in parts]
        return list(output.results)

    return execute


def new(
    request_id: str, token_ids: list[int], pooling: Pooling | None = None, **sampling: Any
) -> NewRequest:
    params = SamplingParams(seed=0, temperature=0.0, **sampling)
    return NewRequest(request_id, tuple(token_ids), len(token_ids), params, pooling)


def logits_of(decoder: Decoder, token_ids: list[int]) -> torch.Tensor:
    return logits_in_chunks(decoder, token_ids, [len(token_ids)], max_model_len=128)


PROMPT = [20, 21, 22, 30, 31, 32, 40, 41, 42, 50]


def test_results_keep_the_order_of_the_scheduler(
    run: Callable[..., list[StepResult]], decoder: Decoder
) -> None:
    results = run(
        ("long", 0, 6, (0,)),
        ("short", 0, 1, (1,)),
        ("whole", 0, 10, (2, 3)),
        new=(new("long", PROMPT), new("short", PROMPT[:1]), new("whole", PROMPT)),
    )
    assert results[0] == StepResult("long"), "its prompt is not yet done"
    assert results[1].token_ids == (int(logits_of(decoder, PROMPT[:1])[-1].argmax()),)
    assert results[2].token_ids == (int(logits_of(decoder, PROMPT)[-1].argmax()),)
    (finished,) = run(("long", 6, 4, (4,)), finished=("short", "whole"))
    assert finished.token_ids == results[2].token_ids


def test_a_step_without_parts_only_forgets(run: Callable[..., list[StepResult]]) -> None:
    run(("a", 0, 10, (0, 1)), new=(new("a", PROMPT),))
    assert run(finished=("a",)) == []


def test_masks_and_min_tokens(run: Callable[..., list[StepResult]], decoder: Decoder) -> None:
    allowed = {33, 44}
    bits = bytearray(decoder.config.vocab_size // 8)
    for token_id in allowed:
        bits[token_id // 8] |= 1 << token_id % 8
    (masked,) = run(("a", 0, 10, (0, 1)), new=(new("a", PROMPT),), masks={"a": (bytes(bits),)})
    assert masked.token_ids[0] in allowed

    favourite = {EOS_TOKEN_ID: 100.0, 99: 90.0}
    for min_tokens, expected in ((0, EOS_TOKEN_ID), (2, 99)):
        name = f"min{min_tokens}"
        request = new(name, PROMPT, logit_bias=favourite, min_tokens=min_tokens)
        (result,) = run((name, 0, 10, (2, 3)), new=(request,))
        assert result.token_ids == (expected,)
        run(finished=(name,))
    request = new("stop", PROMPT, logit_bias=favourite, min_tokens=2, stop_token_ids=(99,))
    (result,) = run(("stop", 0, 10, (2, 3)), new=(request,))
    assert result.token_ids[0] not in favourite


def test_logprobs_of_the_prompt_in_chunks(
    run: Callable[..., list[StepResult]], decoder: Decoder
) -> None:
    expected = torch.log_softmax(logits_of(decoder, PROMPT), -1)
    request = new("a", PROMPT, prompt_logprobs=2, logprobs=1)
    (first,) = run(("a", 0, 4, (0,)), new=(request,))
    (last,) = run(("a", 4, 6, (1,)))
    found = first.prompt_logprobs + last.prompt_logprobs
    assert (len(first.prompt_logprobs), len(found)) == (4, len(PROMPT) - 1)
    for position, logprobs in enumerate(found):
        assert logprobs.token_ids[0] == PROMPT[position + 1]
        assert len(logprobs.token_ids) == 3
        wanted = float(expected[position, PROMPT[position + 1]])
        assert math.isclose(logprobs.logprobs[0], wanted, abs_tol=1e-4)
    assert last.logprobs[0].token_ids[0] == last.token_ids[0] == int(expected[-1].argmax())
    (decoded,) = run(("a", 10, 1, ()))
    assert decoded.prompt_logprobs == ()


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_embeddings_whole_and_in_chunks(
    pooling: Pooling, run: Callable[..., list[StepResult]]
) -> None:
    (whole,) = run(("a", 0, 10, (0, 1)), new=(new("a", PROMPT, pooling),))
    assert whole.embedding is not None
    assert whole.token_ids == ()
    assert math.isclose(math.hypot(*whole.embedding), 1.0, rel_tol=1e-5)
    assert run(("b", 0, 7, (2,)), new=(new("b", PROMPT, pooling),)) == [StepResult("b")]
    (chunked,) = run(("b", 7, 3, (3,)))
    assert chunked.embedding is not None
    torch.testing.assert_close(torch.tensor(chunked.embedding), torch.tensor(whole.embedding))


def test_a_request_that_is_not_finite_fails_alone(
    run: Callable[..., list[StepResult]], decoder: Decoder
) -> None:
    decoder.embedding.matrix.weight.data[POISON] = torch.nan
    good, bad = PROMPT, [*PROMPT[:-1], POISON]
    expected = int(logits_of(decoder, good)[-1].argmax())
    results = run(
        ("bad", 0, 10, (0, 1)),
        ("good", 0, 10, (2, 3)),
        ("probed", 0, 10, (4, 5)),
        ("pooled", 0, 10, (6, 7)),
        new=(
            new("bad", bad),
            new("good", good),
            new("probed", bad, prompt_logprobs=1),
            new("pooled", bad, "mean"),
        ),
    )
    assert [result.error is None for result in results] == [False, True, False, False]
    assert results[1].token_ids == (expected,)
    assert all(not results[index].token_ids for index in (0, 2, 3))

    # The blocks of the failed ones serve others as if nothing had been.
    again = run(
        ("next", 0, 10, (1, 0)),
        ("after", 0, 10, (7, 4)),
        new=(new("next", good), new("after", good)),
        finished=("bad", "probed", "pooled"),
    )
    assert [result.token_ids for result in again] == [(expected,)] * 2
    (decoded,) = run(("next", 10, 1, ()))
    assert decoded.token_ids == (int(logits_of(decoder, [*good, expected])[-1].argmax()),)


def decode(run: Callable[..., list[StepResult]], name: str, count: int) -> list[StepResult]:
    """`count` tokens after PROMPT, one in a step."""
    results = run((name, 0, 10, (0, 1)), new=(new(name, PROMPT, logprobs=1),))
    for place in range(10, 9 + count):
        results += run((name, place, 1, (2,) if place == 16 else ()))
    return results


def test_drafts_bring_the_tokens_of_single_steps(run: Callable[..., list[StepResult]]) -> None:
    single = decode(run, "single", 8)
    tokens = [result.token_ids[0] for result in single]
    wrong = (tokens[4] + 1) % 384
    request = new("a", PROMPT, logprobs=1)
    (first,) = run(("a", 0, 12, (3, 4), tuple(tokens[:2])), new=(request,))
    (second,) = run(("a", 12, 4, (), (tokens[3], wrong, tokens[5])))
    (third,) = run(("a", 14, 3, (5,), (wrong, wrong)))
    assert first.token_ids == tuple(tokens[:3]), "all right: the token after them as well"
    assert second.token_ids == tuple(tokens[3:5]), "up to the wrong one"
    assert third.token_ids == (tokens[5],), "all wrong"
    found = first.logprobs + second.logprobs + third.logprobs
    for one, result in zip(found, single, strict=False):
        assert one.token_ids == result.logprobs[0].token_ids
        assert one.logprobs == pytest.approx(result.logprobs[0].logprobs, abs=1e-4)
