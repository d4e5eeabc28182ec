from __future__ import annotations

import itertools
import json
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.bench.workload import (
    PromptMaker,
    arrivals,
    make_prompts,
    plan,
    replay,
    shared_prefix_prompts,
)
from novacron.errors import ConfigError

TOKENS = PromptMaker(range(10, 50))
TEXT = PromptMaker()


@given(st.integers(1, 200), st.integers(0, 5))
def test_token_prompts_have_the_length_asked_for(num_tokens: int, seed: int) -> None:
    [prompt] = make_prompts(TOKENS, seed, 1, num_tokens)
    assert len(prompt) == num_tokens
    assert all(10 <= int(token) < 50 for token in prompt)


def test_text_prompts_have_a_word_per_token() -> None:
    [prompt] = make_prompts(TEXT, 0, 1, 12)
    assert isinstance(prompt, str)
    assert len(prompt.split()) == 12


def test_the_same_seed_gives_the_same_prompts_and_another_does_not() -> None:
    assert make_prompts(TOKENS, 1, 3, 20) == make_prompts(TOKENS, 1, 3, 20)
    assert make_prompts(TOKENS, 1, 3, 20) != make_prompts(TOKENS, 2, 3, 20)


@pytest.mark.parametrize("maker", [TOKENS, TEXT])
def test_shared_prompts_start_with_one_of_a_few_prefixes(maker: PromptMaker) -> None:
    prompts = shared_prefix_prompts(maker, 0, 40, num_prefixes=3, prefix_tokens=32, suffix_tokens=8)
    pieces = [prompt.split() if isinstance(prompt, str) else list(prompt) for prompt in prompts]
    assert {len(piece) for piece in pieces} == {40}
    assert len({tuple(piece[:32]) for piece in pieces}) == 3
    assert len({tuple(piece[32:]) for piece in pieces}) == 40


def test_without_a_prefix_nothing_is_shared() -> None:
    prompts = shared_prefix_prompts(TOKENS, 0, 5, num_prefixes=3, prefix_tokens=0, suffix_tokens=8)
    assert [len(prompt) for prompt in prompts] == [8] * 5


def test_poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() -> None:
    times = arrivals(0, 4000, 10.0)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert times[0] == 0
    assert statistics.mean(gaps) == pytest.approx(0.1, rel=0.06)
    assert statistics.stdev(gaps) == pytest.approx(0.1, rel=0.08)


def test_high_burstiness_value_means_even_arrivals() -> None:
    times = arrivals(0, 1000, 10.0, burstiness=100)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert statistics.stdev(gaps) < 0.02


def test_bursts_arrive_together_at_the_same_mean_rate() -> None:
    times = arrivals(0, 4000, 10.0, burst_size=8)
    assert len(times) == 4000
    assert times[0:8] == [0.0] * 8
    assert times[8] > 0
    assert 4000 / times[-1] == pytest.approx(10, rel=0.15)


def test_an_infinite_rate_sends_everything_at_once() -> None:
    assert arrivals(0, 3, float("inf")) == [0, 0, 0]


def test_a_plan_pairs_prompts_and_times() -> None:
    first, second = plan(["a", "b"], [0.0, 1.5], 7)
    assert (first.prompt, first.at_s, second.at_s, second.max_tokens) == ("a", 0.0, 1.5, 7)


def _line(timestamp: int, length: int, ids: list[int]) -> str:
    entry = {"timestamp": timestamp, "input_length": length, "output_length": 9, "hash_ids": ids}
    return json.dumps(entry)


def test_a_trace_shares_blocks_by_their_ids() -> None:
    lines = [_line(0, 1030, [1, 2, 3]), "", _line(500, 1100, [1, 2, 4]), _line(900, 20, [5])]
    first, second, third = replay(lines, TOKENS, 0, limit=9, speed=2.0)
    assert [len(r.prompt) for r in (first, second, third)] == [1030, 1100, 20]
    assert first.prompt[:1024] == second.prompt[:1024]
    assert first.prompt[1024:1030] != second.prompt[1024:1030]
    assert (second.at_s, second.max_tokens) == (0.25, 9)


def test_a_trace_is_cut_at_the_limit() -> None:
    assert len(replay([_line(n, 8, [n]) for n in range(9)], TOKENS, 0, limit=4)) == 4


@pytest.mark.parametrize("line", ["{", "[]", '{"timestamp": 1}', '{"timestamp": "x"}'])
def test_a_bad_trace_line_is_named(line: str) -> None:
    with pytest.raises(ConfigError, match="Line 1 of the trace"):
        replay([line], TOKENS, 0, limit=1)


def test_join_keeps_the_prefix() -> None:
    rng = random.Random(0)
    prefix, rest = TOKENS.draw(rng, 4), TOKENS.draw(rng, 3)
    assert TOKENS.join(prefix, rest)[:4] == prefix
    assert TEXT.join("a b", "c") == "a b c"
