"""A real server with accounts: keys, quotas, and a ledger that outlives it."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from novacron.testing.server_process import ServerProcess, run_novacron, wait_until

CHAT = {"messages": [{"role": "user", "content": "What is 1 + 1?"}], "max_tokens": 8}


@pytest.mark.slow
def test_what_was_used_and_reserved_outlives_the_server(tmp_path: Path) -> None:
    environment = {"NOVACRON_STATE_DIR": str(tmp_path)}

    def admin(*arguments: str) -> str:
        done = run_novacron("admin", *arguments, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    admin("tenant", "add", "acme")
    key = admin("key", "add", "--tenant", "acme")
    headers = {"authorization": f"Bearer {key}"}

    def chat(server: ServerProcess, **more: object) -> httpx2.Response:
        url = server.url + "/v1/chat/completions"
        return httpx2.post(url, json={**CHAT, **more}, headers=headers, timeout=60)

    with ServerProcess(log_file=tmp_path / "first.log", environment=environment) as server:
        server.wait_ready()
        assert server.post("/v1/chat/completions", CHAT).status_code == 401
        told = chat(server).json()["usage"]

        def used() -> list[dict[str, object]]:
            rows: list[dict[str, object]] = json.loads(admin("usage", "--format", "json"))
            return rows

        wait_until(used)
        [row] = used()
        assert row["output_tokens"] == told["completion_tokens"]
        server.process.kill()
    admin("quota", "set", "tenant", "acme", "--concurrent-requests", "0")
    with ServerProcess(log_file=tmp_path / "second.log", environment=environment) as server:
        server.wait_ready()
        refused = chat(server)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
    assert used() == [row]
    assert "no differences" in admin("verify")
