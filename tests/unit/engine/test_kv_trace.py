"""Requests of an engine become a trace that the simulator reads, and that tells no text."""

from __future__ import annotations

from pathlib import Path

import pytest

from novacron.cache_simulator.replay import Costs, TierConfig, replay
from novacron.cache_simulator.trace import read_trace
from novacron.config.scheduler import SchedulerConfig
from novacron.engine.kv_trace import KVTrace
from novacron.errors import ConfigError
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.records.request import Request, SamplingParams
from novacron.scheduler.scheduler import Scheduler
from novacron.testing.fake_executor import FakeExecutor, fake_spec

BLOCK_SIZE = 4
SYSTEM = tuple(range(1, 13))  # three blocks


def make_request(name: str, prompt: tuple[int, ...], at_s: float, session: bytes = b"") -> Request:
    return Request(
        request_id=name,
        prompt_token_ids=prompt,
        sampling=SamplingParams(max_tokens=5, ignore_eos=True, seed=0),
        arrival_time_s=at_s,
        session=session,
        cache_scope=b"tenant-a",
    )


def run(path: Path, *requests: Request) -> KVTrace:
    spec = fake_spec(num_blocks=60, block_size=BLOCK_SIZE, max_model_len=80)
    kv_cache = KVCacheManager(
        num_blocks=spec.num_blocks,
        block_size=BLOCK_SIZE,
        model_version=spec.model_version,
        kv_dtype=spec.kv_identity,
        enable_prefix_caching=True,
    )
    trace = KVTrace(path, BLOCK_SIZE)
    scheduler = Scheduler(
        SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64),
        kv_cache,
        max_model_len=spec.max_model_len,
        eos_token_ids=frozenset(),
        see_end=trace.see_end,
    )
    executor = FakeExecutor(spec)
    for request in requests:
        scheduler.add(request)
        while scheduler.has_work:
            decision = scheduler.schedule()
            scheduler.update(decision, executor.execute(decision))
    return trace


def test_what_was_shared_is_found_again_by_a_replay(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    first = make_request("a", (*SYSTEM, 20, 21, 22), 50.0, b"chat-one")
    second = make_request("b", (*SYSTEM, 30, 31, 32), 53.5)
    run(path, first, second).close()
    trace = read_trace(path)
    one, other = trace.requests
    assert trace.block_tokens == BLOCK_SIZE
    assert (one.arrival_s, other.arrival_s) == (0.0, 3.5)
    assert (one.prompt_tokens, one.output_tokens, one.num_prompt_blocks) == (15, 5, 3)
    assert one.blocks[:3] == other.blocks[:3]
    assert one.blocks[3:] != other.blocks[3:]
    assert one.session != b""
    assert (other.session, one.scope) == (b"", other.scope)
    tiers = [TierConfig(kind="ram", capacity_bytes=4000, bytes_per_s=1e9)]
    outcome = replay(trace, tiers, Costs(bytes_per_token=1))
    assert outcome.hit_rate == 12 / 30


def test_two_files_have_nothing_in_common_and_no_names(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    request = make_request("a", (*SYSTEM, 20), 50.0, b"chat-one")
    run(path, request)
    again = run(path, request)
    assert again.path == tmp_path / "own.jsonl.1"
    [one], [other] = read_trace(path).requests, read_trace(again.path).requests
    assert not set(one.blocks) & set(other.blocks)
    assert one.session != other.session
    assert b"chat-one" not in path.read_bytes()
    assert b"tenant" not in path.read_bytes()


def test_it_ends_when_it_is_large_enough(tmp_path: Path) -> None:
    trace = KVTrace(tmp_path / "own.jsonl", BLOCK_SIZE, most_bytes=100)
    before = trace.path.stat().st_size
    trace._write(b"x" * 60)
    assert trace._left_bytes <= 0
    assert trace.path.stat().st_size == before + 61


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kv_trace is .*nowhere.*cannot be written"):
        KVTrace(tmp_path / "nowhere" / "own.jsonl", BLOCK_SIZE)
