from __future__ import annotations

import itertools
from collections import Counter

import pytest
from benchmarks.peers.plan import WORKS, Contestant, Work, demands, parse_contestant, prompts_for

from novacron.bench.rounds import turn_order
from novacron.errors import ConfigError


def test_a_contestant_may_have_options() -> None:
    plain = parse_contestant("llama.cpp")
    assert (plain.name, plain.ours) == ("llama.cpp", False)
    tuned = parse_contestant("novacron:kv_cache_dtype=int8,num_threads=1,enable_prefix_caching=no")
    assert tuned.ours
    assert tuned.options == {
        "kv_cache_dtype": "int8", "num_threads": 1, "enable_prefix_caching": "no",
    }  # fmt: skip
    assert tuned.name.startswith("novacron:kv_cache_dtype=int8,")
    assert parse_contestant("novacron:x=true").options == {"x": True}


@pytest.mark.parametrize("text", ["vllm", "novacron:fast"])
def test_what_is_no_contestant_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=text.split(":")[-1]):
        parse_contestant(text)


def test_turns_interleave_and_nobody_is_first_more_often() -> None:
    names = ("a", "b", "c")
    turns = [tuple(turn_order(names, turn)) for turn in range(6)]
    assert all(sorted(turn) == sorted(names) for turn in turns)
    assert set(Counter(turn[0] for turn in turns).values()) == {2}
    followers = Counter(pair for turn in turns for pair in itertools.pairwise(turn))
    assert set(followers.values()) == {2}


def _prompts(name: str, turn: int) -> list[list[int]]:
    return prompts_for(name, WORKS[name], turn, seed=0, first_token=5, vocab_size=100)


def test_a_prefill_is_new_in_every_turn_and_decoding_starts_alike() -> None:
    assert _prompts("prefill-512", 0) != _prompts("prefill-512", 1)
    assert _prompts("prefill-512", 0) == _prompts("prefill-512", 0)
    assert _prompts("decode-8", 0) == _prompts("decode-8", 1)
    assert [len(prompt) for prompt in _prompts("decode-8", 0)] == [32] * 8
    assert all(5 <= token < 100 for token in _prompts("prefill-512", 0)[0])


def test_demands_are_the_most_of_any_scenario() -> None:
    works = [
        Work("decode", prompt_tokens=10, streams=4, output_tokens=6),
        Work("prefill", prompt_tokens=30),
    ]
    asked = demands(works)
    assert (asked.streams, asked.tokens_per_stream, asked.tokens) == (4, 47, 4 * 32)


def test_names_of_scenarios_tell_their_sizes() -> None:
    assert WORKS["decode-16"].streams == 16
    assert WORKS["prefill-512"].prompt_tokens == 512
    assert WORKS["decode-8k"].prompt_tokens == 8192
    assert Contestant("novacron").name == "novacron"
