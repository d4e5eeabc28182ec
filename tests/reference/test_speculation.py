"""Speculation changes no token of a real model: greedy or sampled, alone or batched, and with
everything that bends the choice of tokens."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.engine.core import EngineCore
from novacron.engine.structured_output import GrammarCompiler
from novacron.engine.tokenization import Tokenizer
from novacron.executor.inline import InlineExecutor
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.records.output import EngineOutput
from novacron.records.request import Request, SamplingParams, StructuredOutput
from novacron.records.step import DraftOutput, DraftPart, PositionLogprobs
from novacron.scheduler.adaptive_speculation import AdaptiveSpeculation
from novacron.scheduler.cache_desk import CacheDesk
from novacron.scheduler.draft_speculation import DraftModelSpeculation
from novacron.scheduler.guesser import Drafter
from novacron.scheduler.prompt_lookup import PromptLookup
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.scheduler import Scheduler
from novacron.scheduler.sessions import Sessions
from novacron.scheduler.speculation import NoSpeculation, Speculation
from novacron.testing.clock import FakeClock
from novacron.testing.deeper_models import make_deeper_model
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

    def __init__(
        self,
        folder: Path,
        *,
        draft_path: Path | None = None,
        num_blocks: int = 256,
        max_num_batched_tokens: int = 512,
    ) -> None:
        self._scheduler_config = SchedulerConfig(
            max_num_seqs=16, max_num_batched_tokens=max_num_batched_tokens
        )
        self._tokenizer = Tokenizer.load(folder)
        self._folder = folder
        self._draft_path = draft_path
        self._num_blocks = num_blocks

    def run(
        self, requests: Sequence[Request], new_drafter: Callable[[], Drafter] | None = None
    ) -> tuple[dict[str, list[EngineOutput]], EngineCore]:
        """Together; speculated upon if there is a drafter, or else a draft model."""
        executor = InlineExecutor(
            ModelConfig(dtype="float32", device="cpu", num_threads=1),
            CacheConfig(block_size=8, kv_cache_memory=64 * 2**20),
            self._scheduler_config,
            model_path=self._folder,
            draft_path=self._draft_path,
            progress=lambda phase, fraction: None,
        )
        spec = executor.spec
        kv_cache = KVCacheManager(
            min(self._num_blocks, spec.num_blocks),
            spec.block_size,
            model_version=spec.model_version,
            kv_dtype=spec.kv_identity,
        )
        scheduler = Scheduler(
            self._scheduler_config,
            kv_cache,
            max_model_len=spec.max_model_len,
            eos_token_ids=frozenset(spec.eos_token_ids),
            speculation=self._speculation(kv_cache, new_drafter),
        )
        core = EngineCore(
            executor,
            scheduler,
            lambda: GrammarCompiler(self._tokenizer.json_text, spec.vocab_size, spec.eos_token_ids),
            CacheDesk(kv_cache, None, Sessions()),
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

    def _speculation(
        self, kv_cache: KVCacheManager, new_drafter: Callable[[], Drafter] | None
    ) -> Speculation:
        """As far ahead as it goes: guesses cost no time."""
        size, clock = {"num_speculative_tokens": 5, "max_num_seqs": 16}, FakeClock()
        if new_drafter is not None:
            return AdaptiveSpeculation(kv_cache, new_drafter, **size, clock=clock)
        if self._draft_path is not None:
            return _Untimed(kv_cache, **size, context_length=512, clock=clock)
        return NoSpeculation()


class _Untimed(DraftModelSpeculation):
    """Takes no note of how long the draft model took."""

    def see_drafts(
        self, drafting: Sequence[DraftPart], states: Sequence[RequestState], drafted: DraftOutput
    ) -> None:
        super().see_drafts(drafting, states, msgspec.structs.replace(drafted, passes=()))


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
        check_same(found, expected)
        check_counts(core, error_period, found)


def check_same(
    found: Mapping[str, list[EngineOutput]], expected: Mapping[str, list[EngineOutput]]
) -> None:
    for name, outputs in found.items():
        assert tokens(outputs) == tokens(expected[name]), name
        assert outputs[-1].finish_reason is expected[name][-1].finish_reason
        assert outputs[-1].stop_token_id == expected[name][-1].stop_token_id
        check_logprobs(outputs, expected[name])


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


@pytest.fixture(scope="module")
def pair(
    checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[float], tuple[Path, Path]]:
    """Makes a model and its draft model, which differ by so much noise on the weights."""

    def make(noise: float) -> tuple[Path, Path]:
        draft = checkpoint("llama")
        folder = tmp_path_factory.mktemp("deeper")
        return make_deeper_model(draft, folder, num_layers=7, noise=noise), draft

    return make


def all_ways() -> list[Request]:
    return [
        make_request(name, num_prompt_tokens, **sampling)
        for num_prompt_tokens, (name, sampling) in enumerate(WAYS.items(), start=11)
    ]


@pytest.mark.parametrize("noise", [0.0, 0.05, 1.0])
def test_a_draft_model_changes_no_token(
    noise: float, pair: Callable[[float], tuple[Path, Path]]
) -> None:
    folder, draft_path = pair(noise)
    expected, _ = Engine(folder).run(all_ways())
    found, core = Engine(folder, draft_path=draft_path).run(all_ways())
    check_same(found, expected)
    stats = core.stats()
    assert stats.num_draft_tokens > 0
    share = stats.num_accepted_tokens / stats.num_draft_tokens
    if noise == 0.0:
        assert share > 0.9, "all but what the grammar makes of it: drawn tokens, too"
        assert stats.num_accepted_tokens > stats.generation_tokens / 2
    elif noise == 0.05:
        assert 0.1 < share < 0.9
    else:
        assert share < 0.3


@pytest.mark.parametrize(
    "limits",
    [{"num_blocks": 40}, {"max_num_batched_tokens": 17}],
    ids=["preempted", "chunked"],
)
def test_a_draft_model_keeps_up_with_whatever_happens(
    limits: dict[str, int], pair: Callable[[float], tuple[Path, Path]]
) -> None:
    """Blocks that run out, prompts in parts, and prefixes that requests share."""
    folder, draft_path = pair(0.05)
    requests = [
        msgspec.structs.replace(
            make_request("a shared beginning", 60 + 8 * (index % 3), temperature=0.7),
            request_id=str(index),
        )
        for index in range(7)
    ]
    requests = [
        msgspec.structs.replace(one, sampling=one.sampling.for_copy(index))
        for index, one in enumerate(requests)
    ]
    expected, _ = Engine(folder).run(requests)
    found, core = Engine(folder, draft_path=draft_path, **limits).run(requests)
    check_same(found, expected)
    stats = core.stats()
    assert stats.num_accepted_tokens > 0
    assert stats.prefix_hits_tokens > 0
    if "num_blocks" in limits:
        assert stats.num_preemptions > 0


@pytest.mark.parametrize("num_more_tokens", [-64, 64])
def test_padding_of_the_vocabulary_may_differ(
    num_more_tokens: int, checkpoint: Callable[..., Path]
) -> None:
    """Models of one family do that. What only one of them has is never guessed."""
    draft_path = checkpoint("qwen3", vocab_size=VOCAB_SIZE + num_more_tokens)
    folder = checkpoint("llama")
    expected, _ = Engine(folder).run(all_ways())
    found, core = Engine(folder, draft_path=draft_path).run(all_ways())
    check_same(found, expected)
    assert core.stats().num_draft_tokens > 0
