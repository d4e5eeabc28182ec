"""Stages that are processes: the numbers of one process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from novacron.engine.llm import LLM
from novacron.errors import ConfigError
from novacron.executor import tiers
from novacron.executor.pipeline import PipelineExecutor
from novacron.records.request import SamplingParams
from novacron.testing.cores_over_hosts import OWN_TIERS_OFF, answers, core_of_one
from novacron.testing.reference import Engine
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
def pair(folder: Path) -> Iterator[Engine]:
    engine = Engine(folder, CPU, max_num_batched_tokens=48, pipeline_parallel_size=2)
    yield engine
    engine.executor.shutdown()


def test_two_stages_answer_as_one(pair: Engine, folder: Path) -> None:
    one = Engine(folder, CPU, max_num_batched_tokens=48)
    assert pair.run(PROMPTS, SEEDED) == one.run(PROMPTS, SEEDED)
    assert (one.most_in_flight, pair.most_in_flight) == (1, 2)
    assert pair.executor.spec.model_version == one.executor.spec.model_version
    assert pair.executor.spec.num_parameters == one.executor.spec.num_parameters
    assert pair.executor.spec.weight_bytes == one.executor.spec.weight_bytes
    assert pair.executor.spec.kv_cache_bytes == one.executor.spec.kv_cache_bytes
    assert isinstance(pair.executor, PipelineExecutor)
    stages = pair.executor.rank_stats()
    assert [(rank.rank, rank.stage) for rank in stages] == [(0, 0), (1, 1)]
    assert all(rank.num_steps > 0 for rank in stages)  # the last one's newest may not be told yet
    assert all(rank.sent_bytes > 0 and rank.waited_s > 0 for rank in stages)


def test_prompts_with_a_prefix_in_common_share_its_blocks(pair: Engine) -> None:
    prefix = random.Random(9).choices(range(5, 380), k=64)
    prompts = [[*prefix, *prompt[:10]] for prompt in PROMPTS]
    greedy = [one for prompt in prompts for one in pair.greedy([prompt], 8)]
    assert [one.num_cached_tokens for one in greedy[1:]] == [64] * 3
    again = pair.greedy(prompts, 8)
    assert [one.token_ids for one in again] == [one.token_ids for one in greedy]


def test_tiers_bring_back_what_small_devices_evict_with_two_steps_in_flight(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiers, "_SHARE_OF_CORES", 1.0)  # there is no pause to store in
    prompts = [random.Random(seed).choices(range(5, 380), k=60 + 20 * seed) for seed in range(4)]
    sampling = SamplingParams(temperature=0.8, max_tokens=60, ignore_eos=True, seed=3)
    alone = core_of_one(folder, **OWN_TIERS_OFF)
    expected, _ = answers(alone, prompts, sampling)
    alone.shutdown()
    sizes = {"pipeline_parallel_size": 2, "pipeline_steps_in_flight": 2}
    below: dict[str, Any] = {
        "kv_ram_size": 2**24,
        "kv_disk_size": 2**26,
        "kv_disk_path": str(tmp_path),
    }
    core = core_of_one(folder, sizes, **below, kv_cache_memory=2**18)
    assert answers(core, prompts * 3, sampling, at_once=4)[0] == expected * 3
    stats = core.stats()
    assert stats.num_preemptions > 0
    assert stats.kv_tiers[0].num_loaded > 0
    core.shutdown()
    core = core_of_one(folder, sizes, **below)
    found = answers(core, prompts, sampling)
    assert found == (expected, [(len(prompt) - 1) // 16 * 16 for prompt in prompts])
    core.shutdown()


@pytest.mark.slow
def test_four_stages_that_run_out_of_blocks_answer_as_one(folder: Path) -> None:
    four = Engine(folder, CPU, dtype="bfloat16", num_blocks=24, pipeline_parallel_size=4)
    try:
        found = four.run(PROMPTS, SEEDED)
        assert four.num_preemptions > 0
    finally:
        four.executor.shutdown()
    one = Engine(folder, CPU, dtype="bfloat16").run(PROMPTS, SEEDED)
    assert [answer.token_ids for answer in found] == [answer.token_ids for answer in one]
    assert [answer.logprobs for answer in found] == [answer.logprobs for answer in one]


@pytest.mark.slow
def test_two_stages_of_two_slices_with_experts_answer_as_one(tmp_path: Path) -> None:
    folder = make_tiny_model("qwen3_moe", tmp_path, hidden_size=128, moe_intermediate_size=128)
    settings = {"quantization": "int8", "quantization_group_size": 32, "dtype": "bfloat16"}
    four = Engine(folder, CPU, tensor_parallel_size=2, pipeline_parallel_size=2, **settings)
    try:
        found = four.run(PROMPTS, SEEDED)
    finally:
        four.executor.shutdown()
    assert found == Engine(folder, CPU, **settings).run(PROMPTS, SEEDED)


def test_guesses_and_embeddings_are_those_of_one(folder: Path) -> None:
    settings = {"dtype": "float32", "kv_cache_memory": 2**24, "num_threads": 1}
    prompts = [(prompt * 3)[:60] for prompt in PROMPTS]  # so that something can be guessed
    greedy = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
    found = []
    staged = {"pipeline_parallel_size": 2, "pipeline_steps_in_flight": 2}
    for more in ({}, {"speculative_method": "ngram", **staged}):
        llm = LLM(str(folder), kv_ram_size=0, kv_disk_size=0, **settings, **more)
        answers = [output.token_ids for output in llm.generate(prompts, greedy)]
        found.append((answers, llm.embed(prompts)))
        llm.close()
    assert found[0][0] == found[1][0]
    for one, staged in zip(found[0][1], found[1][1], strict=True):
        assert staged == pytest.approx(one, abs=1e-6)  # other chunks, whose sums are added up


def test_the_bundled_model_answers_as_one() -> None:
    found = []
    for stages in (1, 2):
        llm = LLM(pipeline_parallel_size=stages, num_threads=1, kv_ram_size=0, kv_disk_size=0)
        questions = ("What is the capital of France?", "What is 12 + 30?", "Hello!")
        chats = [[{"role": "user", "content": question}] for question in questions]
        greedy = SamplingParams(temperature=0.0, max_tokens=24)
        found.append([answer.text for answer in llm.chat(chats, greedy)])
        llm.close()
    assert found[0] == found[1]


def test_stages_that_torch_computes_answer_as_one(folder: Path) -> None:
    pair = Engine(folder, CPU, kernels="torch", pipeline_parallel_size=2)
    try:
        found = pair.greedy(PROMPTS, 12)
    finally:
        pair.executor.shutdown()
    assert found == Engine(folder, CPU, kernels="torch").greedy(PROMPTS, 12)


def test_more_stages_than_layers_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="is 6, but the model has 5 layers"):
        Engine(folder, CPU, pipeline_parallel_size=6)
