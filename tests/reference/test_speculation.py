"""Speculation changes no token of a real model: greedy or sampled, alone or batched, and with
everything that bends the choice of tokens."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from novacron.config.engine import CacheConfig, ModelConfig, SchedulerConfig
from novacron.engine.core import EngineCore
from novacron.engine.structured_output import GrammarCompiler
from novacron.engine.tokenization import Tokenizer
from novacron.executor.inline import InlineExecutor
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.records.output import EngineOutput
from novacron.records.request import Request, SamplingParams, StructuredOutput
from novacron.records.step import PositionLogprobs
from novacron.scheduler.guesser import Drafter
from novacron.scheduler.prompt_lookup import PromptLookup
from novacron.scheduler.scheduler import Scheduler
from novacron.scheduler.speculation import AdaptiveSpeculation
from novacron.testing.clock import FakeClock
from novacron.testing.tiny_models import EOS_TOKEN_ID, VOCAB_SIZE

NUM_NEW = 64
PATIENCE_S = 60.0

SCHEMA = {
    "type": "object",
    "properties": {"names": {"type": "array", "items": {"type": "string"}, "minItems": 3}},
    "required": ["names"],
    "additionalProperties": False,
}

WAYS: Mapping[str, Mapping[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.9},
    "top_k and top_p": {"temperature": 1.3, "top_k": 40, "top_p": 0.9},
    "penalties": {
        "temperature": 0.7,
        "repetition_penalty": 1.3,
        "frequency_penalty": 0.5,
        "presence_penalty": 0.5,
    },
    "logprobs": {"temperature": 0.8, "logprobs": 3},
    "bias": {"temperature": 0.0, "logit_bias": {33: 2.0, 44: 2.0}},
    "min_tokens": {
        "temperature": 0.5,
        "ignore_eos": False,
        "min_tokens": 20,
        "logit_bias": {EOS_TOKEN_ID: 3.0},
    },
    "stop token": {"temperature": 0.9, "stop_token_ids": tuple(range(60, 90)), "min_tokens": 5},
    "grammar": {
        "temperature": 0.8,
        "ignore_eos": False,
        "structured_output": StructuredOutput("json_schema", json.dumps(SCHEMA)),
    },
}


class Memory:
    """Drafts what came out before, but every so manieth guess is another token."""

    def __init__(self, known: Sequence[Sequence[int]], error_period: int) -> None:
        self._known = known
        self._error_period = error_period
        self._num_guesses = 0

    def draft(self, token_ids: Sequence[int], max_drafts: int) -> tuple[int, ...]:
        length = len(token_ids)
        [whole] = [one for one in self._known if list(one[:length]) == list(token_ids)][:1]
        return tuple(map(self._guess, whole[length : length + max_drafts]))

    def _guess(self, token_id: int) -> int:
        self._num_guesses += 1
        return (token_id + (self._num_guesses % self._error_period == 0)) % VOCAB_SIZE


class Engine:
    """A model, loaded anew for each run: ranks hear of a request's end with the step after it, so
    those of a run's last step would stay in them."""

    def __init__(self, folder: Path) -> None:
        self._scheduler_config = SchedulerConfig(max_num_seqs=16, max_num_batched_tokens=512)
        self._tokenizer = Tokenizer.load(folder)
        self._folder = folder

    def run(
        self, requests: Sequence[Request], new_drafter: Callable[[], Drafter] | None = None
    ) -> tuple[dict[str, list[EngineOutput]], EngineCore]:
        executor = InlineExecutor(
            ModelConfig(dtype="float32", device="cpu", num_threads=1),
            CacheConfig(block_size=8, kv_cache_memory=64 * 2**20),
            self._scheduler_config,
            model_path=self._folder,
            progress=lambda phase, fraction: None,
        )
        spec = executor.spec
        kv_cache = KVCacheManager(
            spec.num_blocks,
            spec.block_size,
            model_version=spec.model_version,
            kv_dtype=spec.kv_identity,
        )
        speculation = new_drafter and AdaptiveSpeculation(
            kv_cache,
            new_drafter,
            num_speculative_tokens=5,
            max_num_seqs=16,
            clock=FakeClock(),  # guesses cost no time: as far ahead as they go
        )
        scheduler = Scheduler(
            self._scheduler_config,
            kv_cache,
            max_model_len=spec.max_model_len,
            eos_token_ids=frozenset(spec.eos_token_ids),
            speculation=speculation,
        )
        core = EngineCore(
            executor,
            scheduler,
            lambda: GrammarCompiler(self._tokenizer.json_text, spec.vocab_size, spec.eos_token_ids),
        )
        for request in requests:
            core.add(request)
        outputs: dict[str, list[EngineOutput]] = {one.request_id: [] for one in requests}
        deadline_s = time.monotonic() + PATIENCE_S
        while core.has_work:
            assert time.monotonic() < deadline_s
            for output in core.step():
                assert output.error is None, output.error
                outputs[output.request_id].append(output)
        return outputs, core


def make_request(name: str, num_prompt_tokens: int, **sampling: Any) -> Request:
    prompt = random.Random(name).choices(range(5, VOCAB_SIZE), k=num_prompt_tokens)
    params = {"max_tokens": NUM_NEW, "ignore_eos": True, "seed": len(name), **sampling}
    return Request(
        request_id=name,
        prompt_token_ids=tuple(prompt),
        sampling=SamplingParams(**params),
        arrival_time_s=0.0,
    )


def tokens(outputs: Sequence[EngineOutput]) -> list[int]:
    return [token for output in outputs for token in output.new_token_ids]


def logprobs(outputs: Sequence[EngineOutput]) -> list[PositionLogprobs]:
    return [position for output in outputs for position in output.logprobs]


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_no_token_changes(family: str, checkpoint: Callable[..., Path]) -> None:
    engine = Engine(checkpoint(family))
    requests = [
        make_request(name, num_prompt_tokens, **sampling)
        for num_prompt_tokens, (name, sampling) in enumerate(WAYS.items(), start=11)
    ]
    expected, _ = engine.run(requests)
    known = [[*one.prompt_token_ids, *tokens(expected[one.request_id])] for one in requests]
    batches = [requests, *([one] for one in requests)]
    for error_period, batch in [(3, batches[0]), (10_000, batches[0])] + [(2, b) for b in batches]:
        found, core = engine.run(batch, lambda: Memory(known, error_period))  # noqa: B023
        for request in batch:
            name = request.request_id
            assert tokens(found[name]) == tokens(expected[name]), (name, error_period)
            assert found[name][-1].finish_reason is expected[name][-1].finish_reason
            assert found[name][-1].stop_token_id == expected[name][-1].stop_token_id
            check_logprobs(found[name], expected[name])
        check_counts(core, error_period, found)


def check_logprobs(found: list[EngineOutput], expected: list[EngineOutput]) -> None:
    pairs = zip(logprobs(found), logprobs(expected), strict=True)
    for one, other in pairs:
        assert (one.token_ids, one.rank) == (other.token_ids, other.rank)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def check_counts(
    core: EngineCore, error_period: int, outputs: dict[str, list[EngineOutput]]
) -> None:
    """Every guess was right but those that were made wrong and those behind them."""
    stats = core.stats()
    assert 0 < stats.num_accepted_tokens <= stats.num_draft_tokens
    if error_period == 10_000:
        assert stats.num_accepted_tokens == stats.num_draft_tokens
        longest = max(len(tokens(one)) for one in outputs.values())
        assert core.num_steps < longest / 2
    else:
        assert stats.num_accepted_tokens < stats.num_draft_tokens


def test_prompt_lookup_guesses_a_loop(checkpoint: Callable[..., Path]) -> None:
    """A greedy model with random weights soon repeats itself."""
    engine = Engine(checkpoint("llama"))
    requests = [
        make_request(f"r{index}", 20 + index, temperature=0.0, max_tokens=200) for index in range(3)
    ]
    expected, plain = engine.run(requests)
    found, core = engine.run(requests, lambda: PromptLookup(lookup_min=2, lookup_max=4))
    assert {name: tokens(one) for name, one in found.items()} == {
        name: tokens(one) for name, one in expected.items()
    }
    assert core.stats().num_accepted_tokens > 0
    assert core.num_steps < plain.num_steps
