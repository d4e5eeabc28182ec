"""Pins, warming, tenants and clearing on a real server, whose disk tier a second one finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2

from novacron.gateway.identity.configured_keys import tenant_of
from novacron.testing.server_process import PATIENCE_S, ServerProcess, StartServer, wait_until

BASE = "/api/v1/llm/cache"
TEXT = "The key of the red house is 4711. The key of the blue house is 1234. " * 12
KEYS = ("sk-operator", "sk-one", "sk-two")


def call(
    server: ServerProcess, method: str, path: str, key: int, body: object = None, **params: Any
) -> dict[str, Any]:
    answer = httpx2.request(
        method,
        server.url + path,
        json=body,
        params=params,
        headers={"x-api-key": KEYS[key]},
        timeout=PATIENCE_S,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def cached_tokens(server: ServerProcess, key: int, **fields: object) -> int:
    body = {"prompt": TEXT + "And?", "max_tokens": 1, "temperature": 0, **fields}
    usage = call(server, "POST", "/v1/completions", key, body)["usage"]
    return usage["prompt_tokens_details"]["cached_tokens"]


def wait_for_stores(server: ServerProcess, num_blocks: int) -> None:
    """Of an idle engine, which tells of what its tiers did without another request."""

    def are_stored() -> bool:
        [disk] = call(server, "GET", f"{BASE}/status", 0)["tiers"]
        return disk["num_blocks"] >= num_blocks

    wait_until(are_stored)


def test_a_pin_outlives_the_server_and_tenants_share_what_is_public_only(
    start_server: StartServer, tmp_path: Path
) -> None:
    arguments = (
        "--kv-ram-size", "0", "--kv-disk-size", "64Mi", "--kv-disk-path", str(tmp_path),
        "--api-key", ",".join(KEYS),
    )  # fmt: skip
    first = start_server(*arguments)
    wait_until(lambda: "ready: http" in first.log())
    first.url = first.log().split("ready: ")[1].split(" ")[0]
    wait_until(lambda: httpx2.get(first.url + "/ready").status_code == 200)

    warmed = call(first, "POST", f"{BASE}/warm", 1, {"prompt": TEXT})
    num_blocks = warmed["num_tokens"] // 16
    assert (warmed["cached_tokens"], num_blocks > 10) == (0, True)
    wait_for_stores(first, num_blocks)
    assert cached_tokens(first, 1) == num_blocks * 16
    assert cached_tokens(first, 2) == 0, "another tenant's"
    pinned = call(
        first, "POST", f"{BASE}/pin", 0,
        {"prompt": TEXT, "name": "houses", "cache_scope": "public"},
    )  # fmt: skip
    assert pinned["warmed"]["cached_tokens"] == 0
    assert cached_tokens(first, 2) == cached_tokens(first, 1) == num_blocks * 16
    sessions = call(first, "GET", f"{BASE}/status", 0)["sessions"]
    assert sessions["turns"] == 0
    assert cached_tokens(first, 2, session_id="s") == cached_tokens(first, 2, session_id="s")
    assert call(first, "GET", f"{BASE}/status", 0)["sessions"]["hit_rate"] > 0.9
    wait_for_stores(first, 2 * num_blocks)
    first.process.terminate()
    assert first.wait_exit() == 0

    second = start_server(*arguments)
    wait_until(lambda: "ready: http" in second.log())
    second.url = second.log().split("ready: ")[1].split(" ")[0]
    wait_until(lambda: httpx2.get(second.url + "/ready").status_code == 200)
    [pin] = call(second, "GET", f"{BASE}/pins", 2)["pins"]
    assert (pin["name"], pin["public"], pin["stored_blocks"]) == (
        "houses", True, {"disk": num_blocks}
    )  # fmt: skip
    of_one = call(second, "DELETE", BASE, 0, tenant=tenant_of(KEYS[1]))["blocks"]
    assert of_one["disk"] >= num_blocks, "what this process only found"
    wait_until(
        lambda: not call(
            second, "DELETE", BASE, 0, tenant=tenant_of(KEYS[1]), dry_run=True
        )["blocks"]["disk"]
    )  # fmt: skip
    cleared = call(second, "DELETE", BASE, 0)["blocks"]
    assert cleared["disk"] >= num_blocks, "the tenant's own"
    assert cached_tokens(second, 1) == cached_tokens(second, 2) == num_blocks * 16
    call(second, "DELETE", BASE, 0, unpin=True)
    assert cached_tokens(second, 2) == 0
    assert list(tmp_path.glob("pins-*")) == []
