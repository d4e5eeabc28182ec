"""Stages on several hosts, of which each has the slices of its stage: real processes on each, real
links between them, and the numbers of one process, whichever of them is lost."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from novacron.executor.hosts.linked_pipeline import LinkedPipelineExecutor
from novacron.executor.hosts.stage_ranks import StageOfSlices
from novacron.records.request import SamplingParams
from novacron.testing.rank_hosts import RankThread, hosts_at
from novacron.testing.reference import Engine, Generation
from novacron.testing.server_process import wait_until
from novacron.testing.tiny_models import make_tiny_model

pytestmark = pytest.mark.usefixtures("needs_native_kernels")

CPU = torch.device("cpu")
PROMPTS = [random.Random(seed).choices(range(5, 380), k=20 * seed) for seed in (1, 2, 5, 3)]
SEEDED = SamplingParams(
    temperature=0.8, max_tokens=20, ignore_eos=True, seed=5, logprobs=3, prompt_logprobs=2
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"), num_hidden_layers=5)


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[Generation]:
    return Engine(folder, CPU, max_num_batched_tokens=48).run(PROMPTS, SEEDED)


@pytest.fixture(scope="module")
def rank(folder: Path) -> RankThread:
    return RankThread(folder)


def four_ranks(folder: Path, rank: RankThread) -> Engine:
    return Engine(
        folder,
        CPU,
        max_num_batched_tokens=48,
        executor=partial(LinkedPipelineExecutor, hosts=hosts_at(rank.address)),
        model=str(folder),
        tensor_parallel_size=2,
        pipeline_parallel_size=2,
    )


@pytest.fixture(scope="module")
def four(folder: Path, rank: RankThread) -> Iterator[Engine]:
    """Ranks: two slices of each of two stages."""
    engine = four_ranks(folder, rank)
    yield engine
    engine.executor.shutdown()
    rank.join()
    assert "has ended it" in rank.reason


def executor_of(engine: Engine) -> LinkedPipelineExecutor:
    assert isinstance(engine.executor, LinkedPipelineExecutor)
    return engine.executor


def pids_of_slices() -> set[int]:
    """Of the second rank of each host: this process is the first of both."""
    return {
        child.pid
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE
        and "novacron.executor.rank_process" in child.cmdline()
    }


def test_two_hosts_of_two_ranks_answer_as_one_process(
    four: Engine, folder: Path, expected: list[Generation]
) -> None:
    assert len(pids_of_slices()) == 2
    assert four.run(PROMPTS, SEEDED) == expected
    assert four.most_in_flight == 2
    one = Engine(folder, CPU, max_num_batched_tokens=48).executor.spec
    for fact in (
        "model_version", "num_parameters", "kv_cache_bytes", "num_blocks", "max_model_len",
        "kv_identity",
    ):  # fmt: skip
        assert getattr(four.executor.spec, fact) == getattr(one, fact), fact


def test_each_rank_is_told_of(four: Engine) -> None:
    executor = executor_of(four)
    four.greedy(PROMPTS, 8)
    wait_until(lambda: len({one.num_steps for one in executor.rank_stats()}) == 1)
    ranks = executor.rank_stats()
    assert [(one.rank, one.stage) for one in ranks] == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert all(one.num_meetings > 2 * one.num_steps for one in ranks)
    assert [(one.rank, one.peer) for one in executor.rank_links()] == [(0, 2)]
    assert len(executor.spec.rank_hosts) == 3


def test_a_slice_that_is_killed_is_replaced_on_its_host(
    four: Engine, expected: list[Generation]
) -> None:
    stage, before = executor_of(four)._stage, pids_of_slices()
    assert isinstance(stage, StageOfSlices)
    num_replaced = stage.num_replaced
    for pid in before:  # that of either host
        os.kill(pid, signal.SIGKILL)
        assert four.run(PROMPTS, SEEDED) == expected
    wait_until(lambda: len(pids_of_slices()) == 2)
    assert not before & pids_of_slices()
    assert stage.num_replaced == num_replaced + 1
    assert executor_of(four).num_ranks_replaced == stage.num_replaced


def test_an_idle_stage_has_a_lost_slice_replaced(four: Engine, expected: list[Generation]) -> None:
    executor = executor_of(four)
    stage = executor._stage
    assert isinstance(stage, StageOfSlices)
    [lost], num_replaced = stage.pids, stage.num_replaced
    os.kill(lost, signal.SIGKILL)
    wait_until(lambda: executor.lost_ranks == (1,))
    executor.restore()
    assert executor.lost_ranks == ()
    assert stage.num_replaced == num_replaced + 1
    assert four.run(PROMPTS, SEEDED) == expected


@pytest.mark.slow
def test_a_lost_host_leaves_the_slices_of_the_others_as_they_are(
    folder: Path, expected: list[Generation]
) -> None:
    before = pids_of_slices()
    with RankThread(folder, num_lives=2) as rank:
        engine = four_ranks(folder, rank)
        executor = executor_of(engine)
        try:
            stage = executor._stage
            assert isinstance(stage, StageOfSlices)
            own = stage.pids
            assert engine.run(PROMPTS, SEEDED) == expected
            rank.fault = ConnectionError("it is pulled out")
            assert engine.run(PROMPTS, SEEDED) == expected
            assert (stage.pids, stage.num_replaced) == (own, 0)
            assert executor.num_ranks_replaced == 2  # both of the other host
            assert executor.lost_ranks == ()
            wait_until(lambda: len(pids_of_slices() - before) == 2)
        finally:
            executor.shutdown()
