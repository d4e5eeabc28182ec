"""Ranks of a pipeline that are killed or stopped, with several steps in flight: other processes
take their places, the others keep theirs, and no token tells of it."""

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
from novacron.executor.pipeline import PipelineExecutor
from novacron.executor.warm_up import warm_up
from novacron.records.request import SamplingParams
from novacron.records.step import ModelRunnerOutput, SchedulerOutput
from novacron.testing.reference import Engine
from novacron.testing.server_process import ServerProcess, wait_until
from novacron.testing.tiny_models import make_tiny_model

pytestmark = pytest.mark.usefixtures("needs_native_kernels")

CPU = torch.device("cpu")
PROMPTS = [random.Random(seed).choices(range(5, 380), k=20 * seed) for seed in (1, 2, 5, 3)]
SEEDED = SamplingParams(
    temperature=0.8, max_tokens=20, ignore_eos=True, seed=5, logprobs=3, prompt_logprobs=2
)
Harm = Callable[[PipelineExecutor], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"), num_hidden_layers=5)


@contextmanager
def stages(folder: Path, size: int, **model: Any) -> Iterator[Engine]:
    engine = Engine(folder, CPU, max_num_batched_tokens=48, pipeline_parallel_size=size, **model)
    try:
        yield engine
    finally:
        engine.executor.shutdown()


def executor_of(engine: Engine) -> PipelineExecutor:
    assert isinstance(engine.executor, PipelineExecutor)
    return engine.executor


def harm(
    engine: Engine,
    *,
    submits: dict[int, Harm] | None = None,
    collects: dict[int, Harm] | None = None,
) -> None:
    """Before steps with these numbers, counted from now, begin, or before their results are waited
    for: then others are in flight with them."""
    executor = executor_of(engine)
    submit, collect = executor.submit, executor.collect
    begun, ended = iter(range(10**6)), iter(range(10**6))

    def harmed_submit(scheduler_output: SchedulerOutput) -> None:
        (submits or {}).get(next(begun), do_nothing)(executor)
        submit(scheduler_output)

    def harmed_collect() -> ModelRunnerOutput:
        (collects or {}).get(next(ended), do_nothing)(executor)
        return collect()

    executor.submit = harmed_submit  # type: ignore[method-assign]
    executor.collect = harmed_collect  # type: ignore[method-assign]


def do_nothing(executor: PipelineExecutor) -> None:
    pass


def send(how: signal.Signals, *places: int) -> Harm:
    def do(executor: PipelineExecutor) -> None:
        for place in places:
            os.kill(executor.rank_pids[place], how)

    return do


def test_a_stage_that_is_killed_is_replaced_and_the_others_stay(folder: Path) -> None:
    expected = Engine(folder, CPU, max_num_batched_tokens=48).run(PROMPTS, SEEDED)
    with stages(folder, 3) as three:
        executor = executor_of(three)
        middle, last = executor.rank_pids
        harm(three, collects={2: send(signal.SIGKILL, 0)})
        assert three.run(PROMPTS, SEEDED) == expected
        assert three.most_in_flight == 3
        assert executor.num_ranks_replaced == 1
        assert executor.rank_pids[0] != middle
        assert executor.rank_pids[1] == last
        assert not psutil.pid_exists(middle)
        assert executor.lost_ranks == ()


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1])
def test_stages_that_end_again_and_again_change_no_token(folder: Path, place: int) -> None:
    expected = Engine(folder, CPU, max_num_batched_tokens=48).run(PROMPTS, SEEDED)
    kill = send(signal.SIGKILL, place)
    with stages(folder, 3) as three:
        harm(three, submits={1: kill, 9: kill}, collects={4: kill, 12: send(signal.SIGKILL, 0, 1)})
        assert three.run(PROMPTS, SEEDED) == expected
        assert executor_of(three).num_ranks_replaced >= 3  # one may be killed twice before it ends


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1])
def test_a_stage_that_hangs_is_killed_and_replaced(folder: Path, place: int) -> None:
    expected = Engine(folder, CPU, max_num_batched_tokens=48).run(PROMPTS, SEEDED)
    with stages(folder, 3, rank_timeout=3.0) as three:
        executor = executor_of(three)
        before = executor.rank_pids
        harm(three, collects={5: send(signal.SIGSTOP, place)})
        assert three.run(PROMPTS, SEEDED) == expected
        after = executor.rank_pids
        assert not psutil.pid_exists(before[place]), "so it cannot come back and write"
        assert after[1 - place] == before[1 - place]


@pytest.mark.slow
@pytest.mark.parametrize("places", [(0,), (1,), (2,), (0, 2)])
def test_slices_of_stages_are_replaced(tmp_path: Path, places: tuple[int, ...]) -> None:
    folder = make_tiny_model("qwen3_moe", tmp_path, hidden_size=128, moe_intermediate_size=128)
    settings: dict[str, Any] = {
        "quantization": "int8",
        "quantization_group_size": 32,
        "dtype": "bfloat16",
    }
    one = Engine(folder, CPU, max_num_batched_tokens=48, **settings)
    with stages(folder, 2, tensor_parallel_size=2, **settings) as four:
        executor = executor_of(four)
        before = executor.rank_pids
        harm(
            four,
            collects={3: send(signal.SIGKILL, *places)},
            submits={11: send(signal.SIGKILL, *places)},
        )
        assert four.run(PROMPTS, SEEDED) == one.run(PROMPTS, SEEDED)
        for place, (was, now) in enumerate(zip(before, executor.rank_pids, strict=True)):
            assert (was == now) == (place not in places)
        assert executor.num_ranks_replaced == 2 * len(places)


@pytest.mark.slow
def test_stages_that_torch_computes_are_replaced_too(folder: Path) -> None:
    settings: dict[str, Any] = {"kernels": "torch", "rank_timeout": 30.0, "tensor_parallel_size": 2}
    with stages(folder, 2, **settings) as four:
        expected = four.greedy(PROMPTS, 12)
        harm(four, collects={4: send(signal.SIGKILL, 1)})
        found = four.greedy(PROMPTS, 12)
        assert [one.token_ids for one in found] == [one.token_ids for one in expected]
        assert executor_of(four).num_ranks_replaced == 1


@pytest.mark.slow
def test_an_idle_stage_is_replaced_before_it_is_needed(folder: Path) -> None:
    with stages(folder, 2) as pair:
        executor = executor_of(pair)
        [first] = executor.rank_pids
        os.kill(first, signal.SIGKILL)
        told: list[tuple[int, ...]] = []
        executor.tell_losses(lambda: told.append(executor.lost_ranks))
        wait_until(lambda: executor.rank_pids != (first,))
        assert executor.lost_ranks == (1,), "it has met with nobody yet"
        executor.restore()
        assert executor.lost_ranks == told[-1] == ()
        one = Engine(folder, CPU, max_num_batched_tokens=48)
        assert pair.run(PROMPTS, SEEDED) == one.run(PROMPTS, SEEDED)


@pytest.mark.slow
def test_a_stage_that_ends_again_and_again_is_given_up(folder: Path) -> None:
    losses: list[str] = []
    executor = PipelineExecutor(
        ModelConfig(dtype="float32", device="cpu", num_threads=1, pipeline_parallel_size=3),
        CacheConfig(kv_cache_memory=2**22, kv_ram_size=0, kv_disk_size=0),
        SchedulerConfig(max_num_seqs=4),
        model_path=folder,
        progress=lambda phase, fraction: None,
        on_loss=losses.append,
    )
    pids = executor.spec.rank_pids
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
    assert not any(map(psutil.pid_exists, (*pids, *executor.rank_pids)))


@pytest.mark.slow
def test_a_server_replaces_a_stage_and_says_so(folder: Path, tmp_path: Path) -> None:
    with ServerProcess(
        str(folder), "-pp", "2", "--num-threads", "1", log_file=tmp_path / "log"
    ) as server:
        server.wait_ready()

        def workers() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = server.get("/api/v1/llm/cluster/status").json()["workers"]
            return found

        body = {"prompt": "a b c", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
        model = server.get("/v1/models").json()["data"][0]["id"]
        before = server.post("/v1/completions", {"model": model, **body}).json()["choices"]
        leader, stage = workers()
        rank = psutil.Process(stage["pid"])
        rank.kill()
        wait_until(lambda: workers()[1]["status"] == "starting")
        after = server.post("/v1/completions", {"model": model, **body}).json()["choices"]
        assert after == before
        wait_until(lambda: [one["status"] for one in workers()] == ["active"] * 2)
        assert workers()[0]["pid"] == leader["pid"]
        assert workers()[1]["pid"] != stage["pid"]
        wait_until(lambda: server.metric("novacron_ranks_replaced_total") == 1)
    wait_until(lambda: not rank.is_running())
