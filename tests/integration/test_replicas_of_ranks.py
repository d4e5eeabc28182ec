"""Replicas that are several ranks each, and ranks in both directions: the tokens of one process,
though a rank of them is killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from tests.integration.test_replicas import NUM_STREAMS, SETTINGS, of_one_engine, streamed

from novacron import LLM, SamplingParams
from novacron.testing.server_process import PATIENCE_S, ServerProcess, wait_until

pytestmark = pytest.mark.slow

GREEDY = {"temperature": 0.0, "max_tokens": 12, "ignore_eos": True}


def workers(server: ServerProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get("/api/v1/llm/cluster/status").json()["workers"]
    return found


async def texts_while_one_is_killed(server: ServerProcess, pid: int) -> list[str]:
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        begun = [asyncio.Event() for _ in range(NUM_STREAMS)]
        streams = [
            asyncio.create_task(streamed(http, number, begun[number]))
            for number in range(NUM_STREAMS)
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        os.kill(pid, signal.SIGKILL)
        return await asyncio.gather(*streams)


@pytest.mark.parametrize(
    ("sizes", "num_workers"),
    [
        (("-dp", "2", "-pp", "2"), 4),
        (("-dp", "2", "-tp", "2"), 4),
        (("-tp", "2", "-pp", "2"), 4),
        (("-dp", "2", "-tp", "2", "-pp", "2"), 8),
    ],
)
def test_a_killed_rank_changes_no_token(
    sizes: tuple[str, ...], num_workers: int, tmp_path: Path
) -> None:
    expected = of_one_engine()
    with ServerProcess(
        *sizes, "--dtype", "float32", "--num-threads", "2", "--kv-ram-size", "0",
        log_file=tmp_path / "log",
    ) as server:  # fmt: skip
        server.wait_ready()

        def is_whole() -> bool:
            found = workers(server)
            return len(found) == num_workers and all(one["status"] == "active" for one in found)

        wait_until(is_whole)
        victim = next(one for one in workers(server) if one["rank"] == 1)["pid"]
        assert asyncio.run(texts_while_one_is_killed(server, victim)) == expected
        assert not psutil.pid_exists(victim)
        wait_until(is_whole)
        assert victim not in [one["pid"] for one in workers(server)]
        replicas = server.get("/api/v1/llm/cluster/status").json()["replicas"]
        assert all(rank["steps"] > 0 for rank in replicas[0]["ranks"])
        assert server.metric("novacron_rank_waited_seconds_total") > 0


async def completed(server: ServerProcess, prompts: list[list[int]]) -> list[str]:
    """All at once."""
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
        answers = await asyncio.gather(
            *(http.post("/v1/completions", json={"prompt": prompt, **GREEDY}) for prompt in prompts)
        )
    return [answer.json()["choices"][0]["text"] for answer in answers]


def test_replicas_whose_ranks_share_rows_answer_as_one_process(tmp_path: Path) -> None:
    """Prompts are long enough for a rank to have rows of its own."""
    prompts = [random.Random(seed).choices(range(300, 2000), k=400) for seed in range(4)]
    llm = LLM(**SETTINGS)
    expected = [one.text for one in llm.generate(prompts, SamplingParams(**GREEDY))]
    llm.close()
    with ServerProcess(
        "-dp", "2", "-cp", "2", "--dtype", "float32", "--num-threads", "2", "--kv-ram-size", "0",
        log_file=tmp_path / "log",
    ) as server:  # fmt: skip
        server.wait_ready()
        wait_until(lambda: sum(one["status"] == "active" for one in workers(server)) == 4)
        assert asyncio.run(completed(server, prompts)) == expected
        replicas = server.get("/api/v1/llm/cluster/status").json()["replicas"]
        assert all(rank["meetings"] > 0 for one in replicas for rank in one["ranks"])
