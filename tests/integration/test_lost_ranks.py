"""Ranks that are killed or stopped: other processes take their places, and no token tells of it."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.errors import EngineDead
from novacron.executor.multiprocess import MultiprocessExecutor
from novacron.executor.warm_up import warm_up
from novacron.records.request import SamplingParams
from novacron.records.step import ModelRunnerOutput, SchedulerOutput
from novacron.testing.reference import Engine
from novacron.testing.server_process import wait_until
from novacron.testing.tiny_models import make_tiny_model

pytestmark = pytest.mark.usefixtures("needs_native_kernels")

CPU = torch.device("cpu")
PROMPTS = [random.Random(seed).choices(range(5, 380), k=20 * seed) for seed in (1, 2, 5, 3)]
SEEDED = SamplingParams(
    temperature=0.8, max_tokens=20, ignore_eos=True, seed=5, logprobs=3, prompt_logprobs=2
)
Harm = Callable[[MultiprocessExecutor], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"))


@contextmanager
def ranks(folder: Path, size: int, **model: Any) -> Iterator[Engine]:
    engine = Engine(folder, CPU, max_num_batched_tokens=48, tensor_parallel_size=size, **model)
    try:
        yield engine
    finally:
        engine.executor.shutdown()


def executor_of(engine: Engine) -> MultiprocessExecutor:
    assert isinstance(engine.executor, MultiprocessExecutor)
    return engine.executor


def harm_before(engine: Engine, harms: dict[int, Harm]) -> None:
    """Before the steps with these numbers, counted from now."""
    executor, count = executor_of(engine), iter(range(10**6))
    execute = executor.execute

    def harmed(step: SchedulerOutput) -> ModelRunnerOutput:
        number = next(count)
        if number in harms:
            harms[number](executor)
        return execute(step)

    executor.execute = harmed  # type: ignore[method-assign]


def send(how: signal.Signals, *places: int) -> Harm:
    def harm(executor: MultiprocessExecutor) -> None:
        for place in places:
            os.kill(executor.rank_pids[place], how)

    return harm


def test_a_killed_rank_and_its_successor_change_no_token(folder: Path) -> None:
    expected = Engine(folder, CPU, max_num_batched_tokens=48).run(PROMPTS, SEEDED)
    with ranks(folder, 2) as pair:
        first = executor_of(pair).rank_pids
        kill = send(signal.SIGKILL, 0)
        harm_before(pair, {2: kill, 9: kill, 10: kill})  # amid prompts, and among answers
        assert pair.run(PROMPTS, SEEDED) == expected
        executor = executor_of(pair)
        assert executor.num_ranks_replaced >= 3
        assert executor.rank_pids != first
        assert not psutil.pid_exists(first[0])
        leader, other = executor.rank_stats()
        assert (leader.rank, other.rank) == (0, 1)
        assert leader.num_steps == other.num_steps > 10
        assert leader.num_meetings > 2 * leader.num_steps  # tokens, layers, logits
        assert leader.sent_bytes > 0
        assert leader.waited_s > 0
        assert other.num_meetings > 0, "its predecessors' are kept"
        assert executor.lost_ranks == ()


@pytest.mark.slow
def test_a_rank_that_hangs_is_killed_and_replaced(folder: Path) -> None:
    expected = Engine(folder, CPU, max_num_batched_tokens=48).run(PROMPTS, SEEDED)
    with ranks(folder, 2, rank_timeout=3.0) as pair:
        [stopped] = executor_of(pair).rank_pids
        harm_before(pair, {5: send(signal.SIGSTOP, 0)})
        assert pair.run(PROMPTS, SEEDED) == expected
        assert executor_of(pair).num_ranks_replaced >= 1
        assert not psutil.pid_exists(stopped), "so it cannot come back and write"


@pytest.mark.slow
def test_survivors_keep_their_processes_and_weights(tmp_path: Path) -> None:
    folder = make_tiny_model("qwen3_moe", tmp_path, hidden_size=128, moe_intermediate_size=128)
    settings = {"quantization": "int8", "quantization_group_size": 32, "dtype": "bfloat16"}
    one = Engine(folder, CPU, max_num_batched_tokens=48, **settings)
    with ranks(folder, 4, **settings) as four:
        before = executor_of(four).rank_pids
        harm_before(four, {6: send(signal.SIGKILL, 0, 2)})
        assert four.run(PROMPTS, SEEDED) == one.run(PROMPTS, SEEDED)
        after = executor_of(four).rank_pids
        assert after[1] == before[1]
        assert after[0] != before[0]
        assert after[2] != before[2]
        assert executor_of(four).num_ranks_replaced == 2


@pytest.mark.slow
def test_a_short_pause_of_a_rank_is_waited_for(folder: Path) -> None:
    with ranks(folder, 2, rank_timeout=60.0) as pair:
        [pid] = executor_of(pair).rank_pids
        os.kill(pid, signal.SIGSTOP)
        resume = psutil.Process(pid).resume
        harm_before(pair, {1: lambda executor: resume()})
        os.kill(pid, signal.SIGCONT)
        pair.run(PROMPTS, SEEDED)
        assert executor_of(pair).rank_pids == (pid,)


@pytest.mark.slow
def test_an_idle_rank_is_replaced_before_it_is_needed(folder: Path) -> None:
    with ranks(folder, 2) as pair:
        executor = executor_of(pair)
        [first] = executor.rank_pids
        os.kill(first, signal.SIGKILL)
        told: list[tuple[int, ...]] = []
        executor.tell_losses(lambda: told.append(executor.lost_ranks))
        wait_until(lambda: executor.rank_pids != (first,))
        assert executor.lost_ranks == (1,), "it has met with nobody yet"
        executor.restore()
        assert executor.lost_ranks == ()
        assert told[-1] == ()
        one = Engine(folder, CPU, max_num_batched_tokens=48)
        assert pair.run(PROMPTS, SEEDED) == one.run(PROMPTS, SEEDED)


def rank_processes() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children()
        if process.status() != psutil.STATUS_ZOMBIE
        and "novacron.executor.rank_process" in process.cmdline()
    ]


def test_a_rank_that_is_killed_while_it_loads_is_replaced(folder: Path) -> None:
    killed: list[int] = []

    def progress(phase: str, fraction: float) -> None:
        if phase == "weights" and not killed:
            [rank] = rank_processes()
            rank.kill()
            killed.append(rank.pid)

    executor = make_pair(folder, progress=progress)
    try:
        assert killed
        assert executor.rank_pids != tuple(killed)
        assert executor.num_ranks_replaced == 1
    finally:
        executor.shutdown()


@pytest.mark.slow
def test_a_rank_that_ends_again_and_again_is_given_up(folder: Path) -> None:
    losses: list[str] = []
    executor = make_pair(folder, on_loss=losses.append)
    try:
        for _ in range(3):
            last = executor.rank_pids
            os.kill(last[0], signal.SIGKILL)
            wait_until(lambda last=last: executor.rank_pids != last or losses)  # type: ignore[misc]
        wait_until(lambda: losses)
        with pytest.raises(EngineDead, match="as others before it"):
            warm_up(executor, max_model_len=64, block_size=16)
    finally:
        executor.shutdown()
    assert len(losses) == 1
    assert not rank_processes()


def make_pair(
    folder: Path,
    *,
    progress: Callable[[str, float], None] = lambda phase, fraction: None,
    on_loss: Callable[[str], None] = lambda message: None,
) -> MultiprocessExecutor:
    return MultiprocessExecutor(
        ModelConfig(dtype="float32", device="cpu", num_threads=1, tensor_parallel_size=2),
        CacheConfig(kv_cache_memory=2**22, kv_ram_size=0, kv_disk_size=0),
        SchedulerConfig(max_num_seqs=4),
        model_path=folder,
        progress=progress,
        on_loss=on_loss,
    )


@pytest.mark.slow
def test_ranks_that_torch_computes_are_replaced_too(folder: Path) -> None:
    with ranks(folder, 2, kernels="torch", rank_timeout=30.0) as pair:
        expected = pair.greedy(PROMPTS, 12)
        executor = executor_of(pair)
        harm_before(pair, {4: send(signal.SIGKILL, 0)})
        found = pair.greedy(PROMPTS, 12)
        assert [one.token_ids for one in found] == [one.token_ids for one in expected]
        assert executor.num_ranks_replaced == 1
