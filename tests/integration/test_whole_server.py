"""One server with everything at once: accounts, tokens, quotas, encryption, policies of tenants, an
audit log, KV tiers and a response cache; and clients of OpenAI's own making."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import jwt
import openai
import pytest
import yaml

from novacron.accounts.data_policy import DataPolicy
from novacron.accounts.database.store import Store
from novacron.accounts.quota import Quota
from novacron.encryption.master_keys import new_master_key
from novacron.gateway.identity.key_format import new_key
from novacron.gateway.identity.key_hash import hash_key
from novacron.testing.server_process import ServerProcess, run_novacron, wait_until

pytestmark = pytest.mark.slow

SECRET = "a secret of more than thirty-two bytes"
MARK = "zebrafish"  # stands in prompts, and nowhere else
PROMPT = f"The {MARK} swims in a long river that nobody has ever seen. " * 12
POLICIES = [  # those of the settings
    {"name": "acme", "record_prompts": True, "retain": {"prompts": "7d"}}
]


@dataclass
class Site:
    server: ServerProcess
    folder: Path
    keys: dict[str, str]
    admin: httpx2.Client

    clients: dict[str, openai.OpenAI] = field(default_factory=dict)

    def client(self, name: str) -> openai.OpenAI:
        if name not in self.clients:
            self.clients[name] = openai.OpenAI(
                base_url=self.server.url + "/v1", api_key=self.keys[name], max_retries=0
            )
        return self.clients[name]

    def complete(self, name: str, prompt: str = PROMPT, **more: Any) -> openai.types.Completion:
        return self.client(name).completions.create(
            model="novacron-demo", prompt=prompt, **{"max_tokens": 8, "temperature": 0.0, **more}
        )


def make_accounts(url: str) -> dict[str, str]:
    """A key for each tenant, and one of a viewer."""
    store, keys = Store(url), {}
    for tenant in ("acme", "clinic", "far", "none", "poor"):
        store.tenants.create(tenant)
        for name, role in ((tenant, "user"), *([("viewer", "viewer")] * (tenant == "acme"))):
            user = f"user-{name}"
            store.users.create(user, tenant_id=tenant, roles=(role,))
            new = new_key()
            store.keys.create(
                prefix=new.prefix, hash=hash_key(new.text), tenant_id=tenant, user_id=user
            )
            keys[name] = new.text
    store.quotas.set("tenant", "acme", Quota(tokens_per_day=10**6, concurrent_requests=100))
    store.quotas.set("user", "user-poor", Quota(tokens_per_day=100))
    store.policies.set("none", DataPolicy(response_cache="off"))
    store.close()
    return keys


def token(tenant: str, role: str) -> str:
    claims = {"tenant_id": tenant, "user_id": "by-token", "role": role, "exp": time.time() + 3600}
    return jwt.encode(claims, SECRET)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    keys = make_accounts(f"sqlite:///{folder}/state/novacron/accounts.db")
    keys |= {"by token": token("acme", "user"), "admin": token("acme", "admin")}
    master = folder / "master.key"
    master.write_text(new_master_key())
    master.chmod(0o600)
    config = folder / "serve.yaml"
    settings = {
        "state_dir": str(folder / "state"),
        "encryption_key": f"file:{master}",
        "jwt_secret": SECRET,
        "region": "eu-central",
        "tenant_policies": POLICIES,
        "kv_disk_path": str(folder / "kv"),
        "kv_disk_size": "64MiB",
        "response_cache": "exact",
        "response_cache_url": f"sqlite:///{folder}/answers.db",
    }
    config.write_text(yaml.safe_dump(settings))
    environment = {"NOVACRON_KV_DISK_SIZE": "64MiB"}
    log_file = folder / "server.log"
    with ServerProcess(
        "--config", str(config), log_file=log_file, environment=environment
    ) as server:
        server.wait_ready()
        headers = {"authorization": f"Bearer {keys['admin']}"}
        with httpx2.Client(base_url=server.url, headers=headers, timeout=60) as admin:
            site = Site(server, folder, keys, admin)
            yield site
            for client in site.clients.values():
                client.close()


def usage(site: Site, tenant: str) -> dict[str, Any]:
    """Sums of a tenant; empty, if there are none."""
    answer = site.admin.get("/api/v1/llm/admin/usage", params={"by": "tenant", "tenant": tenant})
    assert answer.status_code == 200
    rows: list[dict[str, Any]] = answer.json()["usage"]
    return rows[0] if rows else {}


def test_keys_and_tokens_open_what_their_roles_allow(site: Site) -> None:
    for name in ("acme", "by token"):
        assert [one.id for one in site.client(name).models.list()] == ["novacron-demo"]
        assert site.complete(name).usage is not None
    with pytest.raises(openai.PermissionDeniedError):
        site.complete("viewer")
    site.keys["forged"] = jwt.encode({"tenant_id": "acme", "role": "admin"}, "x" * 40)
    with pytest.raises(openai.AuthenticationError):
        site.complete("forged")
    paths = ("/api/v1/llm/admin/tenants", "/api/v1/llm/admin/prompts/acme", "/metrics")
    for path in paths:
        assert site.admin.get(path).status_code == 200
        mine = {"authorization": f"Bearer {site.keys['clinic']}"}
        assert httpx2.get(site.server.url + path, headers=mine).status_code == 403
        assert httpx2.get(site.server.url + path).status_code == 401


def test_calls_are_counted_and_held_to_quotas(site: Site) -> None:
    answer = site.client("poor").completions.with_raw_response.create(
        model="novacron-demo", prompt="Hello", max_tokens=8, temperature=0
    )
    told = answer.parse().usage
    assert told is not None
    assert int(answer.headers["x-ratelimit-limit-tokens"]) == 100
    wait_until(lambda: usage(site, "poor"))
    row = usage(site, "poor")
    assert row["prompt_tokens"] + row["output_tokens"] == told.total_tokens
    with pytest.raises(openai.BadRequestError):  # more than a whole day has
        site.complete("poor", max_tokens=200)
    with pytest.raises(openai.RateLimitError) as refused:
        site.complete("poor", "Hello again", max_tokens=99 - told.total_tokens)
    assert int(refused.value.response.headers["retry-after"]) >= 1


def test_the_same_prompt_of_two_tenants_is_computed_twice(site: Site) -> None:
    """By counts: tokens found in the KV cache, and answers found in the response cache."""
    prompt = "A question that nobody has asked yet. " * 20

    def ask(name: str, max_tokens: int) -> tuple[int, str | None]:
        answer = site.client(name).completions.with_raw_response.create(
            model="novacron-demo", prompt=prompt, max_tokens=max_tokens, temperature=0
        )
        told = answer.parse().usage
        assert told is not None
        details = told.prompt_tokens_details
        cached = 0 if details is None else details.cached_tokens or 0
        return cached, answer.headers.get("x-novacron-cache")

    assert ask("clinic", 8) == (0, "miss")
    assert ask("clinic", 8)[1] == "hit"
    cached, kept = ask("clinic", 9)  # another answer of the same prompt
    assert cached > 64
    assert kept == "miss"
    assert ask("acme", 8) == (0, "miss")
    assert ask("none", 8) == (0, "bypass")


def test_prompts_are_kept_of_those_who_want_it_and_nothing_lies_open(site: Site) -> None:
    for name in ("acme", "clinic"):
        site.complete(name)
    wait_until(lambda: site.admin.get("/api/v1/llm/admin/prompts/acme").json()["records"])
    kept = site.admin.get("/api/v1/llm/admin/prompts/acme").json()["records"]
    assert any(MARK in record["prompts"][0] for record in kept)
    assert site.admin.get("/api/v1/llm/admin/prompts/clinic").json()["records"] == []
    files = [file for file in site.folder.rglob("*") if file.is_file()]
    names = {file.parent.name for file in files} | {file.name for file in files}
    assert {"accounts.db", "answers.db"} <= names
    for file in files:
        assert MARK.encode() not in file.read_bytes(), file


def test_a_tenant_of_elsewhere_is_not_served_here(site: Site) -> None:
    """From the moment on that an administrator says so."""
    site.complete("far", "Hello")
    wait_until(lambda: usage(site, "far"))
    before = usage(site, "far")
    policy = site.admin.put("/api/v1/llm/admin/tenants/far/policy", json={"regions": ["us-east"]})
    assert policy.status_code == 200, policy.text
    with pytest.raises(openai.PermissionDeniedError):
        site.complete("far", "Hello again")
    assert usage(site, "far") == before
    fixed = site.admin.put("/api/v1/llm/admin/tenants/acme/policy", json={})
    assert fixed.status_code == 409, "the settings name it"


def test_what_was_done_stands_in_the_audit_log_and_the_ledger_adds_up(site: Site) -> None:
    """Last, with the server gone."""
    site.complete("acme", "the last one")
    wait_until(lambda: usage(site, "acme"))
    site.server.process.terminate()
    assert site.server.wait_exit() == 0
    state = {"NOVACRON_STATE_DIR": str(site.folder / "state")}
    for command in (("audit", "verify"), ("admin", "verify")):
        done = run_novacron(*command, environment=state)
        assert done.returncode == 0, done.stdout + done.stderr
    told = run_novacron("audit", "export", environment=state).stdout
    for text in ('"kind":"inference"', '"kind":"refused"', "/api/v1/llm/admin/prompts/{tenant}"):
        assert text in told
    assert site.server.log_records("error") == []
    assert MARK not in site.server.log()
