"""Stages that are processes: the numbers of one process, and no wait for ever when one is gone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from novacron.kernels.native.library import NativeUnavailable, native_levels
from novacron.records.request import SamplingParams
from novacron.testing.reference import Engine
from novacron.testing.tiny_models import make_tiny_model

CPU = torch.device("cpu")
PROMPTS = [random.Random(seed).choices(range(5, 380), k=20 * seed) for seed in (1, 2, 5, 3)]
SEEDED = SamplingParams(
    temperature=0.8, max_tokens=20, ignore_eos=True, seed=5, logprobs=3, prompt_logprobs=2
)


@pytest.fixture(autouse=True, scope="module")
def needs_native_kernels() -> None:
    try:
        native_levels()
    except NativeUnavailable:
        pytest.skip("no native kernels")


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
    assert pair.executor.spec.model_version == one.executor.spec.model_version
    assert pair.executor.spec.num_parameters == one.executor.spec.num_parameters
    assert pair.executor.spec.weight_bytes == one.executor.spec.weight_bytes
    assert pair.executor.spec.kv_cache_bytes == one.executor.spec.kv_cache_bytes
