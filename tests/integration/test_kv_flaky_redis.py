"""An engine whose Redis server is slow, cut off, half there or wrong: the same tokens, no error."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence

import pytest

from novacron import LLM, SamplingParams
from novacron.bench.flaky_proxy import FAULTS, FlakyProxy, flaky_proxy
from novacron.executor import remote_tiers, tiers
from novacron.kv_tiers.circuit_breaker import BreakerConfig
from novacron.testing.redis_server import find_server, running_redis

pytestmark = pytest.mark.skipif(find_server() is None, reason="there is no redis-server")

GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
SMALL = {"kv_cache_memory": 6 * 2**20, "max_model_len": 512, "max_num_seqs": 2}  # 64 blocks
ONLY_REDIS = {"kv_ram_size": 0, "kv_disk_size": 0, "kv_redis_deadline": 0.05}
QUICK = BreakerConfig(failures=2, first_rest_s=0.01, longest_rest_s=0.05)


def draw_prompt(seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(10, 3000) for _ in range(400)]


PROMPTS = [draw_prompt(seed) for seed in range(4)]
Tokens = list[tuple[int, ...]]


def ask(llm: LLM, prompts: Sequence[list[int]]) -> tuple[Tokens, int]:
    """The tokens, and how many of the prompts' were not computed. A request that fails raises."""
    outputs = [llm.generate(prompt, GREEDY)[0] for prompt in prompts]
    assert {output.finish_reason for output in outputs} == {"length"}
    return [output.token_ids for output in outputs], sum(o.num_cached_tokens for o in outputs)


@pytest.fixture(scope="module")
def expected() -> Tokens:
    llm = LLM(kv_ram_size=0, kv_disk_size=0, **SMALL)
    try:
        return ask(llm, PROMPTS)[0]
    finally:
        llm.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyProxy]:
    """Before a server; the engine stores at once, and tries again soon after an error."""
    monkeypatch.setattr(tiers, "_SHARE_OF_CORES", 1.0)
    monkeypatch.setattr(remote_tiers, "_BREAKER", QUICK)
    with running_redis() as server, flaky_proxy(server) as proxy:
        yield proxy


def open_engine(proxy: FlakyProxy) -> LLM:
    url = f"redis://127.0.0.1:{proxy.port}"
    return LLM(kv_redis_url=url, **(SMALL | ONLY_REDIS))  # type: ignore[arg-type]


def ask_until_cached(llm: LLM, expected: Tokens) -> None:
    """A tier that is well gives prefixes back."""
    for _ in range(100):
        tokens, num_cached = ask(llm, PROMPTS)
        assert tokens == expected
        if num_cached > 400:
            return
        time.sleep(0.02)
    raise AssertionError("nothing ever came back")


rounds = pytest.mark.parametrize("rounds", [3, 60], ids=str)


@pytest.mark.slow
@rounds
def test_whatever_happens_on_the_way_tokens_are_right_and_no_request_fails(
    proxy: FlakyProxy, expected: Tokens, rounds: int
) -> None:
    llm = open_engine(proxy)
    try:
        ask_until_cached(llm, expected)
        for turn in range(rounds):
            for fault in (*FAULTS, "refuse"):
                proxy.fault, proxy.chance = fault, (0.1, 0.5, 1.0)[turn % 3]
                if fault == "refuse":
                    proxy.cut_all()
                assert ask(llm, PROMPTS)[0] == expected, fault
        assert proxy.num_faults > rounds
        proxy.fault = "none"
        proxy.cut_all()
        ask_until_cached(llm, expected)
    finally:
        llm.close()


@pytest.mark.slow
def test_an_engine_starts_and_answers_without_its_server(
    proxy: FlakyProxy, expected: Tokens
) -> None:
    proxy.fault = "refuse"
    llm = open_engine(proxy)
    try:
        assert ask(llm, PROMPTS) == (expected, 0)
        proxy.fault = "none"
        ask_until_cached(llm, expected)
    finally:
        llm.close()


@pytest.mark.slow
def test_wrong_bytes_in_every_answer_are_never_taken_for_a_block(
    proxy: FlakyProxy, expected: Tokens
) -> None:
    llm = open_engine(proxy)
    try:
        ask_until_cached(llm, expected)
        proxy.fault, proxy.chance = "garbage", 1.0
        for _ in range(3):
            assert ask(llm, PROMPTS)[0] == expected
        assert proxy.num_faults > 3
    finally:
        llm.close()
