"""A server on a disk that gets full: caches do without, accounts and audit fail closed, and all is
well again when there is room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from novacron.bench.small_disk import SmallDisk, small_disk
from novacron.errors import ConfigError
from novacron.testing.server_process import PATIENCE_S, ServerProcess, wait_until

pytestmark = pytest.mark.slow

KEY = {"authorization": "Bearer a-key-of-this-test"}
AUDIT = "/api/v1/llm/admin/audit"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        with small_disk(tmp_path / "disk", 32 * 2**20) as one:
            yield one
    except ConfigError:
        pytest.skip("no file system can be mounted here")


def answer(server: ServerProcess, subject: str) -> str:
    response = httpx2.post(
        f"{server.url}/v1/completions",
        json={"prompt": f"Tell me about {subject}. " * 30, "max_tokens": 24, "temperature": 0},
        headers=KEY,
        timeout=PATIENCE_S,
    )
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["text"]
    return text


def test_requests_do_not_fail_because_a_cache_cannot_grow(disk: SmallDisk, tmp_path: Path) -> None:
    subjects = ("mountains", "rivers", "bees", "trains")
    arguments = ("--num-threads", "1", "--kv-ram-size", "0", "--kv-disk-size")
    with ServerProcess(*arguments, "0", log_file=tmp_path / "log") as server:
        server.wait_ready()
        expected = [answer(server, subject) for subject in subjects]
    with ServerProcess(
        *arguments, "1Gi", "--kv-disk-path", str(disk.folder / "kv"), "--cache-dir",
        str(disk.folder), log_file=tmp_path / "log-2", environment={"NOVACRON_KV_DISK_SIZE": "1Gi"},
    ) as server:  # fmt: skip
        server.wait_ready()
        assert answer(server, subjects[0]) == expected[0]
        disk.fill()
        assert [answer(server, subject) for subject in subjects] == expected
        server.engine.kill()  # the next one finds no room at its start
        assert [answer(server, subject) for subject in subjects] == expected
        disk.empty()
        assert [answer(server, subject) for subject in subjects] == expected
        assert server.metric("novacron_request_errors_total") == 0


def test_administration_fails_closed_where_the_audit_log_is_full(
    disk: SmallDisk, tmp_path: Path
) -> None:
    with ServerProcess(
        "--num-threads", "1", "--api-key", "a-key-of-this-test", "--audit-log",
        str(disk.folder / "audit"), log_file=tmp_path / "log",
    ) as server:  # fmt: skip
        wait_until(lambda: "ready: http" in server.log())
        server.url = server.log().partition("ready: ")[2].split()[0]
        wait_until(server.is_ready)

        def administer() -> httpx2.Response:
            return httpx2.get(f"{server.url}{AUDIT}", headers=KEY, timeout=PATIENCE_S)

        assert administer().status_code == 200
        before = answer(server, "mountains")
        disk.fill()
        refused = administer()
        assert refused.status_code == 503
        assert "audit_unavailable" in refused.text
        assert answer(server, "mountains") == before, "inference goes on"
        disk.empty()
        wait_until(lambda: administer().status_code == 200)
