"""KV tiers below several ranks: a block is the same one however many ranks have computed it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet

from novacron import LLM, SamplingParams
from novacron.executor import tiers
from novacron.testing.tiny_models import make_tiny_model

pytestmark = pytest.mark.usefixtures("needs_native_kernels")

GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
NO_TIERS = {"kv_ram_size": 0, "kv_disk_size": 0}
PROMPTS = [random.Random(seed).choices(range(5, 380), k=100 + 30 * seed) for seed in range(3)]
WHOLE_BLOCKS = [(len(prompt) - 1) // 16 * 16 for prompt in PROMPTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two key-value heads, so that four ranks have each of them twice."""
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"))


def answers(
    folder: Path, prompts: list[list[int]], **settings: Any
) -> tuple[list[tuple[int, ...]], list[int]]:
    """The tokens and the numbers of cached tokens, one prompt after another, of a new engine."""
    fixed = {"dtype": "float32", "kv_cache_memory": 2**22, "num_threads": 1}
    llm = LLM(str(folder), **{**fixed, **settings})
    try:
        outputs = [llm.generate(prompt, GREEDY)[0] for prompt in prompts]
    finally:
        llm.close()
    return [o.token_ids for o in outputs], [o.num_cached_tokens for o in outputs]


def _every_way(settings: dict[str, Any]) -> list[ParameterSet]:
    ways = ((1, (2, 4)), (4, (2, 1)))
    return [pytest.param(*way, settings, marks=pytest.mark.slow) for way in ways]


@pytest.mark.parametrize(
    ("writer", "readers", "settings"),
    [
        (2, (1,), {}),
        *_every_way({}),
        *_every_way({"kv_cache_dtype": "int8/int4"}),
        *_every_way({"kv_disk_compression": "int8"}),
    ],
    ids=str,
)
def test_what_any_number_of_ranks_has_stored_any_other_finds(
    folder: Path, writer: int, readers: tuple[int, ...], settings: dict[str, Any], tmp_path: Path
) -> None:
    disk = {
        "kv_ram_size": 0, "kv_disk_size": 2**28, "kv_disk_path": str(tmp_path), **settings,
    }  # fmt: skip
    first, cached = answers(folder, PROMPTS, tensor_parallel_size=writer, **disk)
    assert cached == [0, 0, 0]
    if "kv_disk_compression" not in settings:  # which changes what is computed from a hit
        assert first == answers(folder, PROMPTS, **NO_TIERS, **settings)[0]
    found = [answers(folder, PROMPTS, tensor_parallel_size=ranks, **disk) for ranks in readers]
    assert [hits for _, hits in found] == [WHOLE_BLOCKS] * len(readers)
    assert all(tokens == found[0][0] for tokens, _ in found)
    if "kv_disk_compression" not in settings:
        assert found[0][0] == first


@pytest.mark.slow
def test_ranks_compute_damaged_blocks_again(folder: Path, tmp_path: Path) -> None:
    disk = {"kv_ram_size": 0, "kv_disk_size": 2**28, "kv_disk_path": str(tmp_path)}
    expected, _ = answers(folder, PROMPTS[:1], tensor_parallel_size=2, **disk)
    [path] = tmp_path.glob("*.kvseg")
    content = bytearray(path.read_bytes())
    end = len(content.rstrip(b"\0"))  # a segment is as long as it may become
    later = slice(end // 2, end)
    content[later] = bytes(byte ^ 1 for byte in content[later])
    path.write_bytes(content)
    again, cached = answers(folder, PROMPTS[:1], tensor_parallel_size=2, **disk)
    assert again == expected
    assert cached[0] < WHOLE_BLOCKS[0]
    found = answers(folder, PROMPTS[:1], tensor_parallel_size=2, **disk)
    assert found == (expected, [WHOLE_BLOCKS[0]]), "stored anew"


@pytest.mark.slow
def test_what_a_small_device_evicts_comes_back_to_all_ranks_from_ram(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiers, "_SHARE_OF_CORES", 1.0)  # there is no pause to store in
    small = {"kv_cache_memory": 20 * 16 * 768, "max_model_len": 256, "max_num_seqs": 1}
    expected, _ = answers(folder, PROMPTS * 2, **NO_TIERS, **small)
    ram = {"kv_ram_size": 2**24, "kv_disk_size": 0}
    tiered, cached = answers(folder, PROMPTS * 2, tensor_parallel_size=2, **ram, **small)
    assert tiered == expected
    assert cached[:3] == [0, 0, 0]
    assert sum(cached[3:]) > 0
