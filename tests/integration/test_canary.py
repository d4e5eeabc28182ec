"""A real engine is tried while it is idle, and nobody's figures tell of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from novacron.testing.server_process import ServerProcess, wait_until

pytestmark = pytest.mark.slow


def test_an_idle_engine_is_tried_and_nobody_pays_for_it(tmp_path: Path) -> None:
    with ServerProcess(
        "--num-threads", "1", "--canary-interval", "500ms", log_file=tmp_path / "log"
    ) as server:
        server.wait_ready()

        def canary() -> dict[str, Any]:
            [replica] = server.get("/api/v1/llm/cluster/status").json()["replicas"]
            found: dict[str, Any] = replica["canary"]
            return found

        wait_until(lambda: canary()["passed"] >= 3)
        assert canary()["status"] == "passed"
        for name in (
            "vllm:prompt_tokens_total", "vllm:generation_tokens_total",
            "vllm:prefix_cache_queries_total", "vllm:e2e_request_latency_seconds_count",
        ):  # fmt: skip
            assert server.metric(name) == 0, name
        assert server.metric("novacron_kv_blocks", kind="cached") == 0
        server.engine.kill()
        wait_until(lambda: server.metric("novacron_engine_restarts_total") == 1)
        before = canary()["passed"]
        wait_until(lambda: server.is_ready() and canary()["passed"] > before)
        assert server.metric("novacron_canary_results_total", result="wrong") == 0
        assert server.metric("novacron_canary_results_total", result="missing") == 0
