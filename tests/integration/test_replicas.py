"""Two replicas of the bundled model behind one server: the tokens of one engine, whoever computes
them, and though one of them is killed under them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from novacron.engine.llm import LLM
from novacron.records.request import SamplingParams
from novacron.testing.server_process import PATIENCE_S, ServerProcess, wait_until

STATUS = "/api/v1/llm/cluster/status"
SCALE = "/api/v1/llm/cluster/scale"
NUM_STREAMS = 8
MAX_TOKENS = 300
MOST_ROUNDS = 5
SETTINGS = {"dtype": "float32", "num_threads": 2, "kv_ram_size": 0, "kv_disk_size": 0}


def prompt(number: int) -> str:
    return f"{number}. Tell me all about mountains."


def sampling(number: int) -> dict[str, Any]:
    """Every other one draws tokens."""
    return {
        "max_tokens": MAX_TOKENS,
        "temperature": float(number % 2),
        "seed": 7,
        "ignore_eos": True,
    }


def of_one_engine() -> list[str]:
    llm = LLM(**SETTINGS)
    texts = [""] * NUM_STREAMS
    for kind in (0, 1):
        numbers = range(kind, NUM_STREAMS, 2)
        outputs = llm.generate([prompt(n) for n in numbers], SamplingParams(**sampling(kind)))
        texts[kind::2] = [output.text for output in outputs]
    llm.close()
    return texts


async def streamed(http: httpx2.AsyncClient, number: int, begun: asyncio.Event) -> str:
    body = {"prompt": prompt(number), "stream": True, **sampling(number)}
    text = ""
    async with http.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            data = line.removeprefix("data:").strip()
            if line.startswith("data:") and data != "[DONE]":
                begun.set()
                text += json.loads(data)["choices"][0]["text"]
    return text


async def texts_though(
    url: str, strike: Callable[[httpx2.AsyncClient], Awaitable[object]]
) -> list[str]:
    """Of all streams. `strike` happens once all of them have begun."""
    async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE_S) as http:
        begun = [asyncio.Event() for _ in range(NUM_STREAMS)]
        streams = [
            asyncio.create_task(streamed(http, number, begun[number]))
            for number in range(NUM_STREAMS)
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        await strike(http)
        texts = await asyncio.gather(*streams)
        assert (await http.get("/ready")).status_code == 200
        return texts


def killing(victim: int) -> Callable[[httpx2.AsyncClient], Awaitable[object]]:
    async def kill(http: httpx2.AsyncClient) -> None:
        os.kill(victim, signal.SIGKILL)

    return kill


def scaling(num_replicas: int) -> Callable[[httpx2.AsyncClient], Awaitable[object]]:
    async def scale(http: httpx2.AsyncClient) -> None:
        answer = await http.post(SCALE, json={"replica_count": num_replicas})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["replicas"]) == num_replicas

    return scale


@pytest.mark.slow
def test_their_number_changes_under_streams_that_do_not_notice(tmp_path: Path) -> None:
    expected = of_one_engine()
    with ServerProcess(
        "--data-parallel-size", "2", "--dtype", "float32", "--num-threads", "2",
        "--kv-ram-size", "0", "--kv-disk-size", "0", log_file=tmp_path / "log",
    ) as server:  # fmt: skip
        server.wait_ready()
        ready = {"state": "ready"}
        wait_until(lambda: server.metric("novacron_replica_state", **ready) == 2)
        for rounds, num_replicas in enumerate((1, 3, 2), start=1):
            assert asyncio.run(texts_though(server.url, scaling(num_replicas))) == expected
            assert server.metric("novacron_replica_state", **ready) == num_replicas
            pids = {one["pid"] for one in server.get(STATUS).json()["replicas"]}
            assert len(pids) == num_replicas
            num_tokens = rounds * NUM_STREAMS * MAX_TOKENS  # those of who is gone, too
            assert server.metric("vllm:generation_tokens_total") >= num_tokens
        assert server.metric("novacron_recovery_pause_seconds_count") == 0
        assert server.log_records("error") == []


def test_two_replicas_answer_as_one_though_one_is_killed_under_them(tmp_path: Path) -> None:
    expected = of_one_engine()
    with ServerProcess(
        "--data-parallel-size", "2", "--dtype", "float32", "--num-threads", "2",
        "--kv-ram-size", "0", "--kv-disk-size", "0", log_file=tmp_path / "log",
    ) as server:  # fmt: skip
        server.wait_ready()
        ready = {"state": "ready"}
        wait_until(lambda: server.metric("novacron_replica_state", **ready) == 2)
        first, _ = server.get(STATUS).json()["replicas"]
        num_pauses = num_kills = 0
        while not num_pauses and num_kills < MOST_ROUNDS:  # a stream may end before it is struck
            victim = server.get(STATUS).json()["replicas"][1]["pid"]
            assert asyncio.run(texts_though(server.url, killing(victim))) == expected
            num_kills += 1
            num_pauses = server.metric("novacron_recovery_pause_seconds_count")
            wait_until(lambda: server.metric("novacron_replica_state", **ready) == 2)
        assert num_pauses > 0
        first_now, second_now = server.get(STATUS).json()["replicas"]
        assert (first_now["pid"], first_now["epoch"]) == (first["pid"], 0)
        assert second_now["epoch"] == num_kills
        assert min(sum(one["routed"].values()) for one in (first_now, second_now)) > 0
