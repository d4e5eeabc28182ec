"""Several ranks together with a draft model, and with several precisions of the model."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from novacron import LLM, SamplingParams
from novacron.executor.multiprocess import MultiprocessExecutor
from novacron.testing.deeper_models import make_deeper_model
from novacron.testing.server_process import ServerProcess, wait_until
from novacron.testing.tiny_models import make_tiny_model

pytestmark = pytest.mark.usefixtures("needs_native_kernels")

PROMPTS = [list(range(5 + seed, 40 + 3 * seed)) for seed in range(4)]
SAMPLED = SamplingParams(temperature=0.7, max_tokens=40, ignore_eos=True, seed=3)


@pytest.mark.slow
def test_a_draft_model_guesses_for_ranks_and_changes_no_token(tmp_path: Path) -> None:
    draft = make_tiny_model("llama", tmp_path / "draft")
    folder = make_deeper_model(draft, tmp_path / "model", num_layers=7, noise=0.02)
    settings = {
        "dtype": "float32", "kv_cache_memory": 2**24, "num_threads": 2,
        "kv_ram_size": 0, "kv_disk_size": 0, "enable_prefix_caching": False,
    }  # fmt: skip
    one = LLM(str(folder), **settings)
    expected = [output.token_ids for output in one.generate(PROMPTS, SAMPLED)]
    one.close()
    guessing = {"speculative_method": "draft", "speculative_model": str(draft)}
    pair = LLM(str(folder), tensor_parallel_size=2, **settings, **guessing)
    try:
        assert pair.spec.draft_model is not None
        assert [output.token_ids for output in pair.generate(PROMPTS, SAMPLED)] == expected
        assert pair._core.stats().num_drafts > 0  # later ones depend on what they are found to cost
        executor = pair._core._executor
        assert isinstance(executor, MultiprocessExecutor)
        os.kill(executor.rank_pids[0], signal.SIGKILL)
        assert [output.token_ids for output in pair.generate(PROMPTS, SAMPLED)] == expected
        assert executor.num_ranks_replaced == 1
    finally:
        pair.close()


@pytest.mark.slow
def test_each_variant_has_stages_of_its_own(tmp_path: Path) -> None:
    common = (
        "--quantization", "int8", "--num-threads", "1", "--kv-cache-memory", "32Mi",
        "--dtype", "float32", "--max-num-seqs", "8", "--variants", "none",
    )  # fmt: skip
    body = {"prompt": "The capital of France", "max_tokens": 8, "temperature": 0, "logprobs": 0}

    def scores(*stages: str) -> dict[str, list[float]]:
        with ServerProcess(*common, *stages, log_file=tmp_path / "log") as server:
            server.wait_ready()
            wait_until(lambda: "variant none is ready beside int8" in server.log())
            [main, *_] = [card["id"] for card in server.get("/v1/models").json()["data"]]
            found = server.get("/api/v1/llm/cluster/workers").json()["workers"]
            assert len(found) == (4 if stages else 2)
            answers = {
                name: server.post("/v1/completions", {**body, "model": f"{main}@{name}"}).json()
                for name in ("int8", "none")
            }
        return {
            name: answer["choices"][0]["logprobs"]["token_logprobs"]
            for name, answer in answers.items()
        }

    whole = scores()
    assert whole["int8"] != whole["none"]
    assert scores("-pp", "2") == whole


@pytest.mark.slow
def test_each_variant_has_ranks_of_its_own(tmp_path: Path) -> None:
    with ServerProcess(
        "--quantization", "int8", "--variants", "none", "-tp", "2", "--num-threads", "1",
        "--kv-cache-memory", "32Mi", "--dtype", "float32", "--max-num-seqs", "8",
        log_file=tmp_path / "log",
    ) as server:  # fmt: skip
        server.wait_ready()
        wait_until(lambda: "variant none is ready beside int8" in server.log())
        [main, *_] = [card["id"] for card in server.get("/v1/models").json()["data"]]
        body = {"prompt": "The capital of France", "max_tokens": 8, "temperature": 0, "logprobs": 0}

        def scores(variant: str) -> list[float]:
            answer = server.post("/v1/completions", {**body, "model": f"{main}@{variant}"})
            found: list[float] = answer.json()["choices"][0]["logprobs"]["token_logprobs"]
            return found

        before = {name: scores(name) for name in ("int8", "none")}
        assert before["int8"] != before["none"]

        def workers() -> dict[str, int]:
            found = server.get("/api/v1/llm/cluster/workers").json()["workers"]
            return {worker["worker_id"]: worker["pid"] for worker in found}

        first = workers()
        assert list(first) == ["int8-rank-0", "int8-rank-1", "none-rank-0", "none-rank-1"]
        os.kill(first["none-rank-1"], signal.SIGKILL)
        assert {name: scores(name) for name in ("int8", "none")} == before
        wait_until(lambda: workers()["none-rank-1"] != first["none-rank-1"])
        last = {**first, "none-rank-1": workers()["none-rank-1"]}
        assert workers() == last
        assert server.metric("novacron_engine_restarts_total") == 0
