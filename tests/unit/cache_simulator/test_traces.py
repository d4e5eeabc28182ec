"""Traces: read as written, in both forms, and refused with the line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from novacron.cache_simulator.prompt_chain import PromptChain
from novacron.cache_simulator.trace import read_trace, write_trace
from novacron.cache_simulator.workloads import WORKLOADS, WorkloadConfig, make_workload
from novacron.errors import ConfigError


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_trace_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    trace = make_workload(name, WorkloadConfig(num_requests=200, seed=3))
    write_trace(trace, tmp_path / "trace.jsonl")
    again = read_trace(tmp_path / "trace.jsonl")
    assert again.block_tokens == trace.block_tokens
    for one, other in zip(trace.requests, again.requests, strict=True):
        assert other.arrival_s == pytest.approx(one.arrival_s, abs=1e-4)
        assert (one.blocks, one.num_prompt_blocks) == (other.blocks, other.num_prompt_blocks)
        assert (one.prompt_tokens, one.output_tokens) == (other.prompt_tokens, other.output_tokens)
        assert (one.session, one.scope) == (other.session, other.scope)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_is_the_same_for_the_same_seed_only(name: str) -> None:
    config = WorkloadConfig(num_requests=300, seed=1)
    one = make_workload(name, config)
    assert one == make_workload(name, config)
    if name != "loop":  # the items of which have seeded lengths only
        assert one != make_workload(name, WorkloadConfig(num_requests=300, seed=2))
    arrivals = [request.arrival_s for request in one.requests]
    assert len(arrivals) == 300
    assert all(a < b for a, b in itertools.pairwise(arrivals))


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_first_requests_do_not_depend_on_how_many_follow(name: str) -> None:
    short = make_workload(name, WorkloadConfig(num_requests=100))
    long = make_workload(name, WorkloadConfig(num_requests=400))
    assert short.requests == long.requests[:100]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_block_has_one_parent(name: str) -> None:
    parents: dict[bytes, bytes | None] = {}
    trace = make_workload(name, WorkloadConfig(num_requests=500))
    for request in trace.requests:
        assert request.num_prompt_blocks == request.prompt_tokens // trace.block_tokens
        before = None
        for key in request.blocks:
            assert parents.setdefault(key, before) == before
            before = key


def test_chains_share_full_blocks_of_what_they_share() -> None:
    one = PromptChain(10).add("system", 25)
    other = one.copy().add("a", 20)
    one.add("b", 20)
    assert len(one.blocks) == len(other.blocks) == 4
    assert one.blocks[:2] == other.blocks[:2]
    assert one.blocks[2] != other.blocks[2]  # half of it is another text
    assert PromptChain(10).add("system", 20).blocks == one.blocks[:2]


def test_a_trace_of_mooncake(tmp_path: Path) -> None:
    path = tmp_path / "mooncake.jsonl"
    lines = [
        {"timestamp": 3000, "input_length": 1100, "output_length": 5, "hash_ids": [1, 2, 3]},
        {"timestamp": 3000, "input_length": 1024, "output_length": 5, "hash_ids": [1, 2]},
        {"timestamp": 0, "input_length": 100, "output_length": 5, "hash_ids": [9]},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    trace = read_trace(path)
    assert trace.block_tokens == 512
    assert [len(request.blocks) for request in trace.requests] == [0, 2, 2]  # full ones only
    assert trace.requests[1].blocks == trace.requests[2].blocks
    assert trace.requests[1].arrival_s < trace.requests[2].arrival_s == pytest.approx(3.0)
    assert len(read_trace(path, limit=1).requests) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no requests"),
        ('{"format": "novacron-cache-trace", "version": 1, "block_tokens": 4}', "has no requests"),
        ('{"format": "novacron-cache-trace", "version": 9, "block_tokens": 4}', "version 9"),
        ('{"format": "novacron-cache-trace", "version": 1, "block_tokens": 0}', "positive"),
        ('{"format": "x"}', "line 1 is not the head"),
        ("hello", "line 1 is no request"),
        ('{"timestamp": 1, "input_length": 9}', "line 1 is no request"),
        ('{"timestamp": 1, "input_length": 900, "output_length": 1, "hash_ids": [-1]}', "line 1"),
        (
            '{"timestamp": 1, "input_length": 9, "output_length": 1, "hash_ids": [1, 2]}',
            "line 1 is no request: 2 blocks of 512 tokens are more than 9",
        ),
        (
            '{"format": "novacron-cache-trace", "version": 1, "block_tokens": 4}\n'
            '{"t": 0, "prompt": 7, "output": 1, "blocks": [1, 2]}',
            "line 2 is no request: 2 full blocks are more than 7 tokens",
        ),
    ],
)
def test_what_is_no_trace_is_refused_with_the_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_trace(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_trace(tmp_path / "nothing")
