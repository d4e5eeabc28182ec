"""Prefixes from below the device, on the bundled model: the tokens are those of computing anew."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from novacron import LLM, SamplingParams
from novacron.demo.tasks import held_out_examples
from novacron.encryption.master_keys import new_master_key
from novacron.errors import ConfigError
from novacron.executor import tiers

GREEDY_ANSWER = SamplingParams(temperature=0.0, max_tokens=24)
GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
NO_TIERS = {"kv_ram_size": 0, "kv_disk_size": 0}


def draw_prompt(seed: int, num_tokens: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(10, 3000) for _ in range(num_tokens)]


def answers(prompts: list[list[int]], **settings: Any) -> tuple[list[tuple[int, ...]], list[int]]:
    """The tokens and the numbers of cached tokens, one prompt after another, of a new engine."""
    llm = LLM(**settings)
    try:
        outputs = [llm.generate(prompt, GREEDY)[0] for prompt in prompts]
    finally:
        llm.close()
    return [o.token_ids for o in outputs], [o.num_cached_tokens for o in outputs]


@pytest.mark.parametrize(
    ("settings", "num_blocks"),
    [
        ({}, 68),
        ({"kv_cache_dtype": "int8/int4"}, 68),
        ({"speculative_method": "ngram"}, 68),
    ],
    ids=str,
)
def test_after_a_restart_a_long_prefix_comes_from_disk(
    tmp_path: Path, settings: dict[str, Any], num_blocks: int
) -> None:
    prompt = draw_prompt(1, num_blocks * 16 + 5)
    on_disk = {"kv_ram_size": 0, "kv_disk_size": 2**30, "kv_disk_path": str(tmp_path), **settings}
    expected, _ = answers([prompt], **NO_TIERS, **settings)
    first, cached = answers([prompt], **on_disk)
    assert (first, cached) == (expected, [0])
    again, cached = answers([prompt], **on_disk)
    assert (again, cached) == (expected, [num_blocks * 16])


def test_other_precisions_find_nothing(tmp_path: Path) -> None:
    prompt = draw_prompt(2, 200)
    on_disk = {"kv_ram_size": 0, "kv_disk_size": 2**30, "kv_disk_path": str(tmp_path)}
    answers([prompt], **on_disk)
    others: list[dict[str, Any]] = [
        {"kv_cache_dtype": "int8"},
        {"quantization": "int8"},
        {"block_size": 32},
        {"kv_disk_compression": "int8"},
        {"kv_disk_compression": "int8", "kv_disk_max_error": 0.01},
        {"kv_ram_compression": "int8"},
    ]
    for other in others:
        assert answers([prompt], **on_disk, **other)[1] == [0]
    assert answers([prompt], **on_disk)[1] == [192]


def test_damaged_blocks_are_computed_again(tmp_path: Path) -> None:
    prompt = draw_prompt(3, 600)
    on_disk = {"kv_ram_size": 0, "kv_disk_size": 2**30, "kv_disk_path": str(tmp_path)}
    expected, _ = answers([prompt], **on_disk)
    [path] = tmp_path.glob("*.kvseg")
    with path.open("r+b") as file:
        file.seek(2**20)  # in the ninth to eleventh block or so
        file.write(b"other bytes")
    again, cached = answers([prompt], **on_disk)
    assert again == expected
    assert 0 < cached[0] < 300
    assert answers([prompt], **on_disk) == (expected, [592]), "stored anew"


def test_what_a_small_device_evicts_comes_back_from_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "_SHARE_OF_CORES", 1.0)  # there is no pause to store in
    prompts = [draw_prompt(seed, 400) for seed in (4, 5, 6)]
    small = {"kv_cache_memory": 6 * 2**20, "max_model_len": 512, "max_num_seqs": 2}  # 64 blocks
    expected, _ = answers(prompts * 2, **NO_TIERS, **small)
    tiered, cached = answers(prompts * 2, kv_ram_size=2**28, kv_disk_size=0, **small)
    assert tiered == expected
    assert cached[:3] == [0, 0, 0]
    assert sum(cached[3:]) > 0


@pytest.mark.parametrize("mode", ["conservative", "adaptive"])
def test_what_was_fetched_ahead_changes_no_token(tmp_path: Path, mode: str) -> None:
    prompts = [draw_prompt(seed, 300) for seed in (7, 8, 9)]
    expected, _ = answers(prompts, **NO_TIERS)
    on_disk = {"kv_ram_size": 2**26, "kv_disk_size": 2**30, "kv_disk_path": str(tmp_path)}
    answers(prompts, **on_disk)
    llm = LLM(**on_disk, kv_prefetch=mode, max_num_seqs=1)  # so the others wait for their turn
    try:
        outputs = llm.generate(prompts, GREEDY)
        buffer = llm._core.stats().kv_tiers[1]
    finally:
        llm.close()
    assert [output.token_ids for output in outputs] == expected
    assert [output.num_cached_tokens for output in outputs] == [288] * 3
    assert buffer.kind == "prefetch"


def test_questions_are_answered_from_int8_as_well(tmp_path: Path) -> None:
    """After a restart prompts come from disk, in half the bytes."""
    examples = held_out_examples("retrieval_256", 12, 3)
    chats = [[message._asdict() for message in example.messages] for example in examples]
    on_disk = {"kv_ram_size": 0, "kv_disk_size": 2**28, "kv_disk_path": str(tmp_path)}
    exact, _ = chat(chats, **NO_TIERS)
    first, cached = chat(chats, kv_disk_compression="int8", **on_disk)
    assert (first, sum(cached)) == (exact, 0)
    again, cached = chat(chats, kv_disk_compression="int8", **on_disk)
    assert again == exact
    assert min(cached) > 128
    assert sum(chat(chats[:1], **on_disk)[1]) == 0, "an exact tier does not find them"


def test_a_ladder_needs_a_measurement(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bench kv-codecs"):
        LLM(kv_tier_profile="ladder", cache_dir=str(tmp_path))


def chat(chats: list[list[dict[str, str]]], **settings: Any) -> tuple[list[str], list[int]]:
    """The answers and the numbers of cached tokens, one after another, of a new engine."""
    llm = LLM(**settings)
    try:
        outputs = [llm.chat([one], GREEDY_ANSWER)[0] for one in chats]
    finally:
        llm.close()
    return [o.text for o in outputs], [o.num_cached_tokens for o in outputs]


def test_an_encrypted_disk_is_found_with_its_key_and_only_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = draw_prompt(9, 400)
    on_disk = {"kv_ram_size": 0, "kv_disk_size": 2**30, "kv_disk_path": str(tmp_path)}
    encrypted = {**on_disk, "encryption_key": "env:MASTER_KEY"}
    with pytest.raises(ConfigError, match="MASTER_KEY is empty"):
        answers([prompt], **encrypted)
    monkeypatch.setenv("MASTER_KEY", new_master_key())
    expected, cached = answers([prompt], **encrypted)
    assert cached == [0]
    assert answers([prompt], **encrypted) == (expected, [384])
    assert answers([prompt], **on_disk) == (expected, [0])
    monkeypatch.setenv("MASTER_KEY", new_master_key())
    with pytest.raises(ConfigError, match="was encrypted with the master key"):
        answers([prompt], **encrypted)
