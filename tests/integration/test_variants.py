"""Two precisions of the bundled model beside each other, with real engines: who computes what, and
what happens when one of them goes wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from safetensors.torch import load_file, save_file

from novacron.bench.corpus import demo_documents
from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig, WatchConfig
from novacron.config.model import ModelConfig
from novacron.config.server import ServerConfig
from novacron.config.variants import Variant
from novacron.demo import bundled_model_path
from novacron.demo.tasks import TASKS
from novacron.engine.engine_process import EngineProcess
from novacron.engine.llm import LLM
from novacron.engine.process_client import ProcessClient
from novacron.engine.tokenization import Tokenizer
from novacron.engine.variant_engines import variant_engines
from novacron.engine.variants_client import VariantsClient
from novacron.gateway.app import build_app
from novacron.kernels.native.library import NativeContext, NativeUnavailable
from novacron.records.request import Request, SamplingParams
from novacron.testing.server_process import ServerProcess, wait_until

PATIENCE_S = 120.0
CACHE = CacheConfig(kv_cache_memory=32 * 2**20)
PROMPT = "The capital of France is"
SHORT = [task for task in TASKS if not task.startswith("retrieval")]


def needs_native_kernels() -> None:
    try:
        NativeContext(1)
    except NativeUnavailable:
        pytest.skip("no native kernels")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (nothing tells when statistics change)
            await asyncio.sleep(0.02)


def scores(answer: httpx2.Response) -> list[float]:
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["logprobs"]["token_logprobs"]  # type: ignore[no-any-return]


def test_requests_choose_and_the_loss_of_one_variant_leaves_the_other(tmp_path: Path) -> None:
    log_file = tmp_path / "server.log"
    with ServerProcess(
        "--quantization", "int4", "--variants", "none", "--num-threads", "1",
        "--kv-cache-memory", "32Mi", "--dtype", "float32", "--max-num-seqs", "8",
        log_file=log_file,
    ) as server:  # fmt: skip
        server.wait_ready()
        wait_until(lambda: "variant none is ready beside int4" in server.log())
        cards = server.get("/v1/models").json()["data"]
        names = [card["id"] for card in cards]
        main = names[0]
        assert names == [main, f"{main}@int4", f"{main}@none"]
        assert [card["status"]["value"] for card in cards] == ["loaded"] * 3

        body = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0, "logprobs": 0}
        completions = "/v1/completions"
        by_wish = {
            wish: server.post(completions, {**body, **fields})
            for wish, fields in {
                "none at all": {},
                "int4": {"model": f"{main}@int4"},
                "none": {"model": f"{main}@none"},
                "field": {"quantization": "fp32"},
                "nearest": {"quantization": "int8"},
            }.items()
        }
        alone = {
            name: offline_scores(ModelConfig(quantization=name, num_threads=1, dtype="float32"))
            for name in ("int4", "none")
        }
        assert alone["int4"] != alone["none"]
        expected = {"none at all": "int4", "int4": "int4"}
        for wish, answer in by_wish.items():
            variant = expected.get(wish, "none")
            assert scores(answer) == alone[variant], wish
            assert answer.json()["model"] == f"{main}@{variant}"
        assert "warnings" not in by_wish["field"].json()
        assert "'int8' is not loaded" in by_wish["nearest"].json()["warnings"][0]
        refused = server.post(completions, {**body, "model": f"{main}@int8"})
        assert refused.status_code == 404
        assert f"{main}@none" in refused.json()["error"]["message"]

        native = server.post(
            "/api/v1/llm/completions", {"prompt": PROMPT, "quality_preference": "quality"}
        ).json()
        assert native["model_info"]["quantization"] == "none"
        assert native["warnings"] == []
        assert server.metric("novacron_variant_default", variant="int4") == 1
        assert server.metric("novacron_variant_generation_tokens_total", variant="none") > 0

        workers = server.get("/api/v1/llm/cluster/workers").json()["workers"]
        assert [worker["worker_id"] for worker in workers] == ["int4-rank-0", "none-rank-0"]
        kill(workers[1]["pid"])
        wait_until(lambda: server.metric("novacron_engine_restarts_total") == 1)
        assert server.is_ready()
        assert scores(server.post(completions, body)) == alone["int4"]
        ready = {"variant": "none", "state": "ready"}
        wait_until(lambda: server.metric("novacron_variant_state", **ready) == 1)
        again = server.post(completions, {**body, "model": f"{main}@none"})
        assert scores(again) == alone["none"]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def offline_scores(model: ModelConfig) -> list[float]:
    settings: dict[str, Any] = {
        "quantization": model.quantization, "num_threads": 1, "dtype": model.dtype,
        "kv_cache_memory": 32 * 2**20, "max_num_seqs": 8,
    }  # fmt: skip
    sampling = SamplingParams(max_tokens=8, temperature=0.0, logprobs=0)
    [output] = LLM(**settings).generate(PROMPT, sampling)
    return [position.chosen.logprob for position in output.logprobs]


def spoiled(sound: Path, folder: Path) -> Path:
    """The model with one layer's matrices half as large again."""
    shutil.copytree(sound, folder)
    [file] = folder.glob("*.safetensors")
    weights = load_file(file)
    for name, weight in weights.items():
        if name.startswith("model.layers.3.") and weight.dim() == 2:
            weights[name] = (weight.float() * 1.5).to(weight.dtype)
    save_file(weights, file, metadata={"format": "pt"})
    return folder


@pytest.mark.slow
async def test_new_requests_leave_a_variant_whose_weights_went_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    needs_native_kernels()
    sound = bundled_model_path()
    folders = {"int8": spoiled(sound, tmp_path / "spoiled"), "none": sound}
    planted = partial(EngineProcess, module="novacron.testing.planted_engine")
    config = EngineConfig(
        model=ModelConfig(
            model=str(sound), quantization="int8", variants=("none",), device="cpu",
            num_threads=1, cache_dir=str(tmp_path), served_model_name=("demo",),
        ),
        cache=CACHE,
        watch=WatchConfig(quality_watch=1.0, quality_floor=0.97),
    )  # fmt: skip

    def make_client(variant: EngineConfig) -> ProcessClient:
        folder = folders[variant.model.quantization]
        return ProcessClient(variant, folder, make_process=planted)

    client = VariantsClient(variant_engines(config, Variant("int8")), make_client, config.watch)
    await client.start()
    await asyncio.wait_for(client.wait_ready(), PATIENCE_S)
    await until(lambda: all(one.spec for one in client.variants))
    app = build_app(client, ServerConfig(), model_names=("demo",))
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost")
    documents = list(demo_documents(Tokenizer.load(sound), 24, 11, SHORT))

    async def ask() -> str:
        body = {"prompt": "Hello", "max_tokens": 4}
        return (await http.post("/v1/completions", json=body)).json()["model"]  # type: ignore[no-any-return]

    assert await ask() == "demo@int8"
    requests = tuple(
        Request(
            request_id=f"r{number}",
            prompt_token_ids=document.token_ids[: document.first_scored],
            sampling=SamplingParams(max_tokens=32, temperature=1.0, seed=number),
            arrival_time_s=time.monotonic(),
        )
        for number, document in enumerate(documents)
    )
    async for _ in client.generate(requests):
        pass
    await until(lambda: default_of(client) == "none")
    assert await ask() == "demo@none"
    assert "new requests go to none instead of int8: its quality is 0." in caplog.text
    int8, none = client.variants
    assert (int8.num_left, none.num_left) == (1, 0)
    assert int8.stats.watch is not None
    assert int8.stats.watch.quality is not None
    assert int8.stats.watch.quality < 0.97
    before = int8.stats.watch.num_scored

    def goes_on() -> bool:
        watch = client.variants[0].stats.watch
        return watch is not None and watch.num_scored > before

    await until(goes_on)  # it scores what the other has answered just now
    metrics = (await http.get("/metrics")).text
    assert 'novacron_variant_switches_total{model_name="demo",variant="int8"} 1.0' in metrics
    assert 'llm_quality_score{model_name="demo",variant="int8"} 0.' in metrics
    await http.aclose()
    await client.close()


def default_of(client: VariantsClient) -> str:
    return next(one.name for one in client.variants if one.is_default)
