"""Redis and buckets below a model over several hosts: each keeps its part of every block there. A
server next door finds them, and what is wrong, missing or late costs time and no token."""

from __future__ import annotations

import base64
import random
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from novacron.bench.flaky_proxy import FAULTS, flaky_proxy
from novacron.engine.core import EngineCore
from novacron.engine.link.keys import write_key
from novacron.executor import remote_tiers, tiers
from novacron.executor.hosts import meeting_hosts, own_part
from novacron.kv_tiers.circuit_breaker import BreakerConfig
from novacron.records.cache_orders import ClearCache
from novacron.records.request import SamplingParams
from novacron.testing import cores_over_hosts
from novacron.testing.cores_over_hosts import (
    OWN_TIERS_OFF,
    Tokens,
    core_of_one,
    core_over_hosts,
    wait_until_stored,
)
from novacron.testing.rank_hosts import LEADER, RankHost, RankThread
from novacron.testing.redis_server import find_server, running_redis
from novacron.testing.s3_server import has_s3_server, running_s3
from novacron.testing.server_process import wait_until
from novacron.testing.tiny_models import make_tiny_model

pytestmark = pytest.mark.usefixtures("needs_native_kernels")
needs_redis = pytest.mark.skipif(find_server() is None, reason="there is no redis-server")

SAMPLING = SamplingParams(temperature=0.8, max_tokens=8, ignore_eos=True, seed=3)
PROMPTS = [random.Random(seed).choices(range(5, 380), k=100 + 30 * seed) for seed in range(3)]
WHOLE_BLOCKS = [(len(prompt) - 1) // 16 * 16 for prompt in PROMPTS]
NONE = [0] * len(PROMPTS)
OWNER = b"an owner"
QUICK = BreakerConfig(failures=2, first_rest_s=0.01, longest_rest_s=0.05)
answers = partial(cores_over_hosts.answers, sampling=SAMPLING)


@pytest.fixture(autouse=True)
def equal_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (meeting_hosts, own_part):
        monkeypatch.setattr(module, "measure_bytes_per_s", lambda: 1e9)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    write_key(path, LEADER)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"), num_hidden_layers=4)


@pytest.fixture(scope="module")
def expected(folder: Path) -> Tokens:
    core = core_of_one(folder, **OWN_TIERS_OFF)
    tokens, _ = answers(core, PROMPTS)
    core.shutdown()
    return tokens


def in_redis(url: str, deadline_s: float) -> dict[str, Any]:
    own = {"kv_redis_url": url, "kv_redis_deadline": deadline_s, "kv_redis_prefix": "ours"}
    return own | OWN_TIERS_OFF


def parts_in(client: redis.Redis) -> dict[bytes, list[bytes]]:
    """Names of records, by the identity of their part."""
    found: dict[bytes, list[bytes]] = {}
    for name in client.scan_iter("ours:*"):
        identity, _, record = name.removeprefix(b"ours:").partition(b":")
        if len(record) == 32:
            found.setdefault(identity, []).append(name)
    return found


@needs_redis
@pytest.mark.slow
def test_another_server_with_the_same_cut_finds_what_processes_on_hosts_have_stored(
    folder: Path, key: Path, expected: Tokens
) -> None:
    with running_redis() as socket, redis.Redis(unix_socket_path=str(socket)) as client:
        cache = in_redis(f"unix://{socket}", deadline_s=20.0)
        sliced = partial(core_over_hosts, folder, key, "tensor_parallel_size")
        with sliced([RankHost()], **cache) as core:
            assert answers(core, PROMPTS) == (expected, NONE)
            wait_until_stored(core)
        parts = parts_in(client)
        assert len(parts) == 2, "each host has a name of its own"
        mine, other = parts.values()
        assert len(mine) == len(other) >= sum(WHOLE_BLOCKS) // 16
        with sliced([RankHost()], **cache) as core:
            assert answers(core, PROMPTS) == (expected, WHOLE_BLOCKS)
            [tier] = core.stats().kv_tiers
            assert tier.num_loaded == 2 * sum(WHOLE_BLOCKS) // 16
            assert tier.num_missing == tier.num_mismatches == 0
        client.delete(*other)
        with sliced([RankHost()], **cache) as core:
            assert answers(core, PROMPTS[:1]) == (expected[:1], [0]), "half of each is gone"
            wait_until_stored(core)
            for name in mine:  # what lies there is not what was put
                record = bytearray(client.get(name) or b"")
                record[-1] ^= 1
                client.set(name, bytes(record))
        with sliced([RankHost()], **cache) as core:
            assert answers(core, PROMPTS) == (expected, NONE)
            assert core.stats().kv_tiers[0].num_mismatches > 0


@needs_redis
@pytest.mark.parametrize("more", [{}, {"encryption_key": "env:MASTER_KEY"}], ids=["open", "sealed"])
def test_a_prefix_is_found_that_another_server_stores_while_both_run(
    folder: Path,
    key: Path,
    expected: Tokens,
    more: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MASTER_KEY", base64.b64encode(bytes(32)).decode())
    monkeypatch.setattr(tiers, "_SHARE_OF_CORES", 1.0)
    with running_redis() as socket, redis.Redis(unix_socket_path=str(socket)) as client:
        cache = in_redis(f"unix://{socket}", deadline_s=20.0) | more
        staged = partial(core_over_hosts, folder, key, "pipeline_parallel_size")
        with (
            staged([RankThread(folder)], **cache) as first,
            staged([RankThread(folder)], **cache) as second,
        ):
            assert answers(second, PROMPTS[:1]) == (expected[:1], [0]), "it has looked, in vain"
            assert answers(first, PROMPTS[1:]) == (expected[1:], NONE[1:])
            wait_until_stored(first)
            assert answers(second, PROMPTS[1:]) == (expected[1:], WHOLE_BLOCKS[1:])
            [one, other] = parts_in(client).values()
            client.delete(*other)  # both still think that it is there
            assert answers(first, PROMPTS[:1]) == (expected[:1], [0])
            assert len(one) > 0


@needs_redis
def test_a_bad_way_of_one_host_changes_no_token_and_fails_no_request(
    folder: Path, key: Path, expected: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiers, "_SHARE_OF_CORES", 1.0)
    monkeypatch.setattr(remote_tiers, "_BREAKER", QUICK)
    with running_redis() as server, flaky_proxy(server) as way:
        cache = in_redis(f"unix://{server}", deadline_s=0.05)
        cache["kv_cache_memory"] = 2**18  # prompts push each other out
        ranks = [RankThread(folder, kv_redis_url=f"redis://127.0.0.1:{way.port}")]
        with core_over_hosts(folder, key, "pipeline_parallel_size", ranks, **cache) as core:
            ask_until_cached(core, expected)
            for fault in (*FAULTS, "refuse"):
                way.fault, way.chance = fault, 0.5
                if fault == "refuse":
                    way.cut_all()
                assert answers(core, PROMPTS)[0] == expected, fault
            assert way.num_faults > 0
            way.fault = "none"
            way.cut_all()
            ask_until_cached(core, expected)


def ask_until_cached(core: EngineCore, expected: Tokens) -> None:
    """A tier that is well gives prefixes back."""
    for _ in range(100):
        tokens, cached = answers(core, PROMPTS)
        assert tokens == expected
        if sum(cached) > sum(WHOLE_BLOCKS) // 2:
            return
    raise AssertionError("nothing ever came back")


@pytest.mark.skipif(not has_s3_server(), reason="moto is not installed")
@pytest.mark.slow
def test_a_bucket_brings_the_parts_of_all_hosts_to_another_site(
    folder: Path, key: Path, expected: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_s3() as url:
        urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT")).close()
        for name, value in {
            "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "hush",
            "AWS_REGION": "us-east-1",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)  # which processes on "other hosts" inherit
        cache: dict[str, Any] = {
            "kv_object_url": "s3://bucket/kv",
            "kv_object_deadline": 20.0,
        } | OWN_TIERS_OFF
        sliced = partial(core_over_hosts, folder, key, "tensor_parallel_size")
        with sliced([RankHost()], **cache) as core:
            assert answers(core, PROMPTS, cache_scope=OWNER) == (expected, NONE)
            wait_until_stored(core)
        with sliced([RankHost()], **cache) as core:
            wait_until(lambda: _num_known(core) >= sum(WHOLE_BLOCKS) // 16)
            assert answers(core, PROMPTS, cache_scope=OWNER) == (expected, WHOLE_BLOCKS)
            core.ask(ClearCache(scope=OWNER))
            wait_until(lambda: not any(one.keys for one in core._executor.blocks_of(OWNER)))


def _num_known(core: EngineCore) -> int:
    core.take_block_news()  # the listing is beside the requests
    return core.stats().kv_tiers[0].num_blocks
