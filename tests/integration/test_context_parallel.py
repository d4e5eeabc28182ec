"""Ranks that share the tokens of prompts out: the numbers of one process, bit for bit."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from novacron import LLM
from novacron.errors import ConfigError
from novacron.executor.multiprocess import MultiprocessExecutor
from novacron.records.request import SamplingParams
from novacron.records.step import ModelRunnerOutput, SchedulerOutput
from novacron.testing.reference import Engine
from novacron.testing.tiny_models import make_tiny_model

pytestmark = pytest.mark.usefixtures("needs_native_kernels")

CPU = torch.device("cpu")
# chunks of 256 and less, some of them with decodes beside them
PROMPTS = [
    random.Random(seed).choices(range(5, 380), k=size)
    for seed, size in ((1, 300), (2, 40), (3, 150), (4, 7))
]
SEEDED = SamplingParams(
    temperature=0.8, max_tokens=12, ignore_eos=True, seed=5, logprobs=3, prompt_logprobs=2
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"))


@contextmanager
def ranks(folder: Path, size: int, **model: Any) -> Iterator[Engine]:
    engine = Engine(folder, CPU, max_num_batched_tokens=256, context_parallel_size=size, **model)
    try:
        yield engine
    finally:
        engine.executor.shutdown()


def executor_of(engine: Engine) -> MultiprocessExecutor:
    assert isinstance(engine.executor, MultiprocessExecutor)
    return engine.executor


def test_two_processes_that_share_rows_answer_as_one_though_one_is_killed(folder: Path) -> None:
    expected = Engine(folder, CPU, max_num_batched_tokens=256).run(PROMPTS, SEEDED)
    with ranks(folder, 2) as pair:
        executor = executor_of(pair)
        execute, [first] = executor.execute, executor.rank_pids

        def harmed(step: SchedulerOutput) -> ModelRunnerOutput:
            if step.step == 1:  # the second of the long ones
                os.kill(first, signal.SIGKILL)
            return execute(step)

        executor.execute = harmed  # type: ignore[method-assign]
        assert pair.run(PROMPTS, SEEDED) == expected
        assert executor.num_ranks_replaced == 1
        leader, other = executor.rank_stats()
        assert leader.num_meetings >= 2 * 4  # three layers and the end, of each long step
        assert other.num_meetings > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "size", "settings"),
    [
        ("gemma2", 2, {"dtype": "bfloat16"}),  # windows, soft caps
        ("gemma3", 4, {}),
        ("mistral", 4, {}),
        ("qwen3_moe", 2, {"quantization": "int8", "quantization_group_size": 32}),
        ("phi3", 3, {"quantization": "int4"}),
    ],
)
def test_families_and_numbers_of_ranks(
    tmp_path: Path, family: str, size: int, settings: dict[str, Any]
) -> None:
    sizes = {"hidden_size": 128, "moe_intermediate_size": 128} if "moe" in family else {}
    folder = make_tiny_model(family, tmp_path, **sizes)
    expected = Engine(folder, CPU, max_num_batched_tokens=256, **settings).run(PROMPTS, SEEDED)
    with ranks(folder, size, **settings) as several:
        assert several.run(PROMPTS, SEEDED) == expected


@pytest.mark.slow
@pytest.mark.parametrize("kv_cache_dtype", ["auto", "int8/int4"])
def test_the_bundled_model_answers_as_one_process(kv_cache_dtype: str) -> None:
    prompts = [random.Random(size).choices(range(10, 3000), k=size) for size in (1500, 90, 700)]
    greedy = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
    fixed = {"kv_cache_memory": 2**26, "kv_ram_size": 0, "kv_disk_size": 0, "num_threads": 2}
    found = []
    for size in (1, 2):
        llm = LLM(context_parallel_size=size, kv_cache_dtype=kv_cache_dtype, **fixed)
        answers = [output.token_ids for output in llm.generate(prompts, greedy)]
        found.append((answers, llm.embed(prompts)))
        llm.close()
    assert found[0] == found[1]


def test_torch_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"stores and attends in one\. Build"):
        Engine(folder, CPU, kernels="torch", context_parallel_size=2)
