"""KV tiers of a model over several hosts: each keeps its part of every block, and a prefix that
comes back gives the tokens of one process that had to compute it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig, RanksApart
from novacron.config.model import ModelConfig
from novacron.engine.build import load_executor
from novacron.engine.core import EngineCore
from novacron.engine.link.keys import write_key
from novacron.errors import ConfigError
from novacron.executor import tiered_blocks, tiers
from novacron.executor.hosts import kept_cut, meeting_hosts, own_part
from novacron.kv_tiers.disk_folder import check, models_in
from novacron.records.cache_orders import ClearCache, ClearedCache, Pin
from novacron.records.request import SamplingParams
from novacron.testing import cores_over_hosts
from novacron.testing.cores_over_hosts import (
    OWN_TIERS_OFF,
    Tokens,
    core_of_one,
    core_over_hosts,
    wait_until_stored,
)
from novacron.testing.rank_hosts import LEADER, RankThread
from novacron.testing.server_process import wait_until
from novacron.testing.tiny_models import make_tiny_model

pytestmark = pytest.mark.usefixtures("needs_native_kernels")

SAMPLING = SamplingParams(temperature=0.8, max_tokens=12, ignore_eos=True, seed=3)
PROMPTS = [random.Random(seed).choices(range(5, 380), k=100 + 30 * seed) for seed in range(3)]
WHOLE_BLOCKS = [(len(prompt) - 1) // 16 * 16 for prompt in PROMPTS]
OWNER = b"an owner"
answers = partial(cores_over_hosts.answers, sampling=SAMPLING)
FAMILIES = [
    ("llama", "tensor_parallel_size", 2),
    pytest.param("gemma2", "pipeline_parallel_size", 2, marks=pytest.mark.slow),
    pytest.param("qwen3_moe", "tensor_parallel_size", 2, marks=pytest.mark.slow),
    pytest.param("qwen2", "tensor_parallel_size", 4, marks=pytest.mark.slow),
    pytest.param("phi3", "pipeline_parallel_size", 3, marks=pytest.mark.slow),
]


@pytest.fixture(autouse=True)
def key(tmp_path: Path) -> None:
    write_key(tmp_path / "key", LEADER)


@pytest.fixture(autouse=True)
def equal_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are cut by what hosts measure, and blocks that were stored with another cut are not
    found again."""
    for module in (meeting_hosts, own_part):
        monkeypatch.setattr(module, "measure_bytes_per_s", lambda: 1e9)


@contextmanager
def over_hosts(
    folder: Path,
    tmp_path: Path,
    way: str,
    num_hosts: int,
    *,
    ranks_to_harm: list[RankThread] | None = None,
    **cache: Any,
) -> Iterator[EngineCore]:
    """This process and others, each with a disk of its own. Those `ranks_to_harm` are added to
    have two lives."""
    num_lives = 1 if ranks_to_harm is None else 2
    ranks = [
        RankThread(folder, num_lives=num_lives, kv_disk_path=str(tmp_path / f"disk {rank}"))
        for rank in range(1, num_hosts)
    ]
    if ranks_to_harm is not None:
        ranks_to_harm += ranks
    disk: dict[str, Any] = {"kv_disk_path": str(tmp_path / "disk 0")}
    with core_over_hosts(folder, tmp_path / "key", way, ranks, **(disk | cache)) as core:
        yield core


def of_one(folder: Path, prompts: list[list[int]]) -> Tokens:
    core = core_of_one(folder, **OWN_TIERS_OFF)
    tokens, _ = answers(core, prompts)
    core.shutdown()
    return tokens


def folder_of(family: str, tmp_path: Path) -> Path:
    return make_tiny_model(family, tmp_path / family, num_hidden_layers=4)


@pytest.mark.parametrize(("family", "way", "num_hosts"), FAMILIES)
def test_what_hosts_have_stored_on_their_disks_they_find_after_a_restart(
    tmp_path: Path, family: str, way: str, num_hosts: int
) -> None:
    folder = folder_of(family, tmp_path)
    expected = of_one(folder, PROMPTS)
    disk: dict[str, Any] = {"kv_ram_size": 0, "kv_disk_size": 2**26}
    with over_hosts(folder, tmp_path, way, num_hosts, **disk) as core:
        assert answers(core, PROMPTS, at_once=3) == (expected, [0, 0, 0])
        wait_until_stored(core)
        [tier] = core.stats().kv_tiers
        num_blocks = tier.num_blocks
        assert num_blocks >= sum(WHOLE_BLOCKS) // 16  # those of answers, too
        assert tier.num_stored == num_hosts * num_blocks
        assert tier.capacity_bytes == num_hosts * 2**26
    with over_hosts(folder, tmp_path, way, num_hosts, **disk) as core:
        assert answers(core, PROMPTS) == (expected, WHOLE_BLOCKS)
    for path in (tmp_path / "disk 1").glob("*.kvseg"):  # half of each block is gone
        path.unlink()
    with over_hosts(folder, tmp_path, way, num_hosts, **disk) as core:
        assert answers(core, PROMPTS) == (expected, [0, 0, 0])
        wait_until_stored(core)
        assert core.stats().kv_tiers[0].num_blocks == num_blocks


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("tensor_parallel_size", marks=pytest.mark.slow),
        "pipeline_parallel_size",  # with two steps in flight
    ],
)
def test_what_small_devices_evict_comes_back_from_the_ram_of_all_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(tiers, "_SHARE_OF_CORES", 1.0)  # there is no pause to store in
    folder = folder_of("llama", tmp_path)
    ram: dict[str, Any] = {"kv_ram_size": 2**24, "kv_disk_size": 0, "kv_cache_memory": 2**18}
    with over_hosts(folder, tmp_path, way, 2, **ram) as core:
        tokens, cached = answers(core, PROMPTS * 2, at_once=2)
        assert tokens == of_one(folder, PROMPTS) * 2
        assert sum(cached[3:]) > 0
        loaded = sum(tier.num_loaded for tier in core.stats().kv_tiers)
        assert loaded > 0, "from RAM, not from the device"


@pytest.mark.parametrize(
    ("way", "num_hosts"),
    [
        ("tensor_parallel_size", 2),
        pytest.param("pipeline_parallel_size", 3, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("most_error", [1.0, 1e-6])
def test_parts_are_compressed_as_whole_blocks_are(
    tmp_path: Path, way: str, num_hosts: int, most_error: float
) -> None:
    folder = folder_of("llama", tmp_path)
    disk: dict[str, Any] = {
        "kv_ram_size": 0,
        "kv_disk_size": 2**26,
        "kv_disk_compression": "int8",
        "kv_disk_max_error": most_error,
    }
    expected = []
    for _ in range(2):  # computed, and from a disk where they have lost something
        core = core_of_one(folder, **disk, kv_disk_path=str(tmp_path / "disk of one"))
        expected.append(answers(core, PROMPTS))
        core.shutdown()
    assert [cached for _, cached in expected] == [[0, 0, 0], WHOLE_BLOCKS]
    for time, found in enumerate(expected):
        with over_hosts(folder, tmp_path, way, num_hosts, **disk) as core:
            assert answers(core, PROMPTS) == found
            wait_until_stored(core)
            codec = core.stats().kv_tiers[0].codec
            if time == 0:
                assert codec is not None
                assert codec.num_encoded >= num_hosts * sum(WHOLE_BLOCKS) // 16
                assert codec.worst_error <= most_error
                assert (codec.num_finer == codec.num_encoded) == (most_error < 1), "each its own"


def test_a_profile_asks_rank_0_for_the_measurement_of_the_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(tiered_blocks, "check_profile", lambda cache, path: asked.append(path))
    folder = folder_of("llama", tmp_path)
    ladder: dict[str, Any] = {
        "kv_tier_profile": "ladder",
        "kv_ram_size": 2**24,
        "kv_disk_size": 2**26,
    }
    core_of_one(folder, **ladder, kv_disk_path=str(tmp_path / "disk of one")).shutdown()
    with over_hosts(folder, tmp_path, "pipeline_parallel_size", 2, **ladder) as core:
        assert [tier.kind for tier in core.stats().kv_tiers] == ["ram", "disk"]
    assert len(asked) == 2
    assert asked[0] == asked[1]


@pytest.mark.slow
def test_parts_of_a_scope_are_cleared_where_others_are_gone(tmp_path: Path) -> None:
    folder, way = folder_of("llama", tmp_path), "tensor_parallel_size"
    disk: dict[str, Any] = {"kv_ram_size": 0, "kv_disk_size": 2**26}
    with over_hosts(folder, tmp_path, way, 2, **disk) as core:
        answers(core, PROMPTS[:1], cache_salt="own", cache_scope=OWNER)
        wait_until_stored(core)
    for path in (tmp_path / "disk 0").glob("*.kvseg"):
        path.unlink()
    with over_hosts(folder, tmp_path, way, 2, **disk) as core:
        executor = core._executor
        [left] = executor.blocks_of(OWNER)
        assert len(left.keys) >= WHOLE_BLOCKS[0] // 16
        assert core.stats().kv_tiers[0].num_blocks == 0, "nothing that could be loaded"
        core.ask(ClearCache(scope=OWNER))
        wait_until(lambda: not any(one.keys for one in executor.blocks_of(OWNER)))


def test_parts_are_cleared_whose_others_are_gone(tmp_path: Path) -> None:
    folder, way = folder_of("llama", tmp_path), "tensor_parallel_size"
    disk: dict[str, Any] = {"kv_ram_size": 0, "kv_disk_size": 2**26}
    with over_hosts(folder, tmp_path, way, 2, **disk) as core:
        answers(core, PROMPTS[:1])
        wait_until_stored(core)
        [tier] = core.stats().kv_tiers
        num_blocks = tier.num_blocks
    for path in (tmp_path / "disk 0").glob("*.kvseg"):
        path.unlink()
    [left] = models_in(tmp_path / "disk 1")
    assert left.num_blocks == num_blocks
    assert left.label is not None
    assert left.label.part == "layers 0 to 4, slice 1 of 2"
    assert sum(one.num_sound for one in check(left)) == num_blocks
    with over_hosts(folder, tmp_path, way, 2, **disk) as core:
        assert core.stats().kv_tiers[0].num_blocks == 0, "nothing that could be loaded"
        for dry_run in (True, False):
            cleared = core.ask(ClearCache(dry_run=dry_run))
            assert cleared == ClearedCache({"device": 0, "disk": num_blocks})
        wait_until_stored(core)
        assert core.ask(ClearCache()) == ClearedCache({"device": 0, "disk": 0})
    assert not sum(one.num_blocks for one in models_in(tmp_path / "disk 1"))


def test_pinned_parts_stay_on_all_hosts_and_their_folders_tell(tmp_path: Path) -> None:
    folder, way = folder_of("llama", tmp_path), "tensor_parallel_size"
    disk: dict[str, Any] = {"kv_ram_size": 0, "kv_disk_size": 2**26}
    num_pinned = WHOLE_BLOCKS[0] // 16
    with over_hosts(folder, tmp_path, way, 2, **disk) as core:
        core.ask(Pin("one", tuple(PROMPTS[0][: WHOLE_BLOCKS[0]])))
        answers(core, PROMPTS[:2])
        wait_until_stored(core)
        core.ask(ClearCache())
        wait_until_stored(core)
        assert core.stats().kv_tiers[0].num_blocks == num_pinned
    for host in (0, 1):
        [model] = models_in(tmp_path / f"disk {host}")
        assert (model.num_blocks, model.num_pins) == (num_pinned, 1)
        assert sum(one.num_pinned for one in model.segments) == num_pinned


def test_hosts_whose_speed_was_measured_otherwise_find_their_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, way = folder_of("llama", tmp_path), "pipeline_parallel_size"
    disk: dict[str, Any] = {"kv_ram_size": 0, "kv_disk_size": 2**26}
    with over_hosts(folder, tmp_path, way, 2, **disk) as core:
        expected, _ = answers(core, PROMPTS)
        wait_until_stored(core)
    monkeypatch.setattr(own_part, "measure_bytes_per_s", lambda: 8e9)
    monkeypatch.setattr(kept_cut, "_WORTH_MOVING", 100.0)
    with over_hosts(folder, tmp_path, way, 2, **disk) as core:
        assert answers(core, PROMPTS) == (expected, WHOLE_BLOCKS)
    monkeypatch.setattr(kept_cut, "_WORTH_MOVING", 1.0)
    with over_hosts(folder, tmp_path, way, 2, **disk) as core:
        assert answers(core, PROMPTS) == (expected, [0, 0, 0]), "layers went to the quick host"


def test_a_host_without_room_is_named(tmp_path: Path) -> None:
    folder = folder_of("llama", tmp_path)
    rank = RankThread(folder, kv_ram_size=0)
    config = EngineConfig(
        model=ModelConfig(model=str(folder), num_threads=1, tensor_parallel_size=2),
        cache=CacheConfig(kv_cache_memory=2**22, kv_ram_size=2**24, kv_disk_size=0),
        apart=RanksApart(hosts=(rank.address,), link_key=str(tmp_path / "key")),
    )
    with pytest.raises(ConfigError, match=r"has room for the KV tiers none, and this one for ram"):
        load_executor(config, folder, lambda *_: None)
    rank.join()


@pytest.mark.parametrize("way", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_a_host_that_comes_back_finds_its_parts_on_its_disk(tmp_path: Path, way: str) -> None:
    folder = folder_of("llama", tmp_path)
    expected = of_one(folder, PROMPTS)
    disk = {"kv_ram_size": 0, "kv_disk_size": 2**26}
    ranks: list[RankThread] = []
    with over_hosts(folder, tmp_path, way, 2, ranks_to_harm=ranks, **disk) as core:
        assert answers(core, PROMPTS)[0] == expected
        wait_until_stored(core)
        stored = core.stats()
        ranks[0].fault = ConnectionError("its memory has gone bad")
        found, cached = answers(core, PROMPTS[::-1])
        assert found == expected[::-1]
        assert cached[1:] == WHOLE_BLOCKS[::-1][1:], "the first met with the loss"
        now = core.stats()
        assert now.num_preemptions == 1
        for before, after in zip(stored.kv_tiers, now.kv_tiers, strict=True):
            assert after.num_blocks >= before.num_blocks > 0
            assert after.num_stored >= before.num_stored > 0
            assert after.hit_tokens > before.hit_tokens
