"""Ranks that are processes: the numbers of one, and no wait for ever when one of them is gone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch

from novacron.engine.llm import LLM
from novacron.errors import ConfigError
from novacron.records.request import SamplingParams
from novacron.testing.reference import Engine
from novacron.testing.server_process import ServerProcess, wait_until
from novacron.testing.tiny_models import make_tiny_model

pytestmark = pytest.mark.usefixtures("needs_native_kernels")

CPU = torch.device("cpu")
PROMPTS = [random.Random(seed).choices(range(5, 380), k=20 * seed) for seed in (1, 2, 5, 3)]
SEEDED = SamplingParams(
    temperature=0.8, max_tokens=20, ignore_eos=True, seed=5, logprobs=3, prompt_logprobs=2
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def pair(folder: Path) -> Iterator[Engine]:
    engine = Engine(folder, CPU, max_num_batched_tokens=48, tensor_parallel_size=2)
    yield engine
    engine.executor.shutdown()


def test_two_processes_answer_as_one(pair: Engine, folder: Path) -> None:
    one = Engine(folder, CPU, max_num_batched_tokens=48)
    assert pair.run(PROMPTS, SEEDED) == one.run(PROMPTS, SEEDED)
    assert pair.executor.spec.model_version == one.executor.spec.model_version
    assert pair.executor.spec.num_parameters == one.executor.spec.num_parameters


@pytest.mark.slow
def test_four_processes_with_experts_in_int8_answer_as_one(tmp_path: Path) -> None:
    folder = make_tiny_model("qwen3_moe", tmp_path, hidden_size=128, moe_intermediate_size=128)
    settings = {"quantization": "int8", "quantization_group_size": 32}
    four = Engine(folder, CPU, dtype="bfloat16", tensor_parallel_size=4, **settings)
    try:
        found = four.run(PROMPTS, SEEDED)
    finally:
        four.executor.shutdown()
    assert found == Engine(folder, CPU, dtype="bfloat16", **settings).run(PROMPTS, SEEDED)


def test_guesses_and_embeddings_are_those_of_one(folder: Path) -> None:
    settings = {"dtype": "float32", "kv_cache_memory": 2**24, "num_threads": 1}
    prompts = [(prompt * 3)[:60] for prompt in PROMPTS]  # so that something can be guessed
    greedy = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
    found = []
    for more in ({}, {"tensor_parallel_size": 2, "speculative_method": "ngram"}):
        llm = LLM(str(folder), kv_ram_size=0, kv_disk_size=0, **settings, **more)
        answers = [output.token_ids for output in llm.generate(prompts, greedy)]
        found.append((answers, llm.embed(prompts)))
        llm.close()
    assert found[0] == found[1]


def test_ranks_that_torch_computes_answer_nearly_as_one(folder: Path) -> None:
    pair = Engine(folder, CPU, kernels="torch", tensor_parallel_size=2)
    try:
        found = pair.greedy(PROMPTS, 12)
    finally:
        pair.executor.shutdown()
    assert found == Engine(folder, CPU, kernels="torch").greedy(PROMPTS, 12)


def test_a_model_that_cannot_be_shared_out_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"32 inputs of .*, but 64 share a scale. Set"):
        Engine(
            folder,
            CPU,
            tensor_parallel_size=2,
            quantization="int8",
            quantization_group_size=64,
        )


@pytest.mark.slow
def test_clients_of_a_server_do_not_see_that_a_rank_is_killed(folder: Path, tmp_path: Path) -> None:
    with ServerProcess(
        str(folder), "-tp", "2", "--num-threads", "1", log_file=tmp_path / "log"
    ) as server:
        server.wait_ready()
        body = {"prompt": "a b c", "max_tokens": 300, "temperature": 0, "ignore_eos": True}
        model = server.get("/v1/models").json()["data"][0]["id"]
        before = server.post("/v1/completions", {"model": model, **body}).json()["choices"]
        workers = server.get("/api/v1/llm/cluster/status").json()["workers"]
        assert [worker["rank"] for worker in workers] == [0, 1]
        rank = psutil.Process(workers[1]["pid"])
        assert "novacron.executor.rank_process" in rank.cmdline()
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(server.post, "/v1/completions", {"model": model, **body})
            rank.kill()
            assert answer.result().json()["choices"] == before

        def pids() -> list[int]:
            workers = server.get("/api/v1/llm/cluster/status").json()["workers"]
            return [worker["pid"] for worker in workers]

        wait_until(lambda: pids()[1] != rank.pid)
        assert pids()[0] == workers[0]["pid"], "the engine is the same process"
        assert server.metric("novacron_ranks_replaced_total") == 1
        last = psutil.Process(pids()[1])
    wait_until(lambda: not last.is_running())
