"""What a stage of several slices keeps of blocks on its host's disk, a stage of one rank finds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig, RanksApart
from novacron.config.model import ModelConfig
from novacron.engine.build import build_core, load_executor
from novacron.engine.core import EngineCore
from novacron.engine.link.keys import write_key
from novacron.executor.hosts import meeting_hosts, own_part
from novacron.records.request import Request, SamplingParams
from novacron.testing.rank_hosts import LEADER, RankThread
from novacron.testing.tiny_models import make_tiny_model

pytestmark = pytest.mark.usefixtures("needs_native_kernels")

PROMPT = tuple(random.Random(1).choices(range(5, 380), k=150))
SAMPLING = SamplingParams(temperature=0.8, max_tokens=12, ignore_eos=True, seed=3)
WHOLE_BLOCKS = (len(PROMPT) - 1) // 16 * 16


@contextmanager
def core_of(folder: Path, tmp_path: Path, slices: int) -> Iterator[EngineCore]:
    rank = RankThread(folder, kv_disk_path=str(tmp_path / "disk 1"))
    config = EngineConfig(
        model=ModelConfig(
            model=str(folder),
            dtype="float32",
            num_threads=1,
            pipeline_parallel_size=2,
            tensor_parallel_size=slices,
        ),
        cache=CacheConfig(
            kv_cache_memory=2**22,
            kv_ram_size=0,
            kv_disk_size=2**26,
            kv_disk_path=str(tmp_path / "disk 0"),
        ),
        apart=RanksApart(hosts=(rank.address,), link_key=str(tmp_path / "key")),
    )
    core = build_core(config, load_executor(config, folder, lambda *_: None), folder)
    try:
        yield core
    finally:
        core.shutdown()
        rank.join()


def answer(core: EngineCore) -> tuple[tuple[int, ...], int]:
    """Tokens, and how many of the prompt's were cached."""
    core.add(
        Request(request_id="0", prompt_token_ids=PROMPT, sampling=SAMPLING, arrival_time_s=0.0)
    )
    tokens: tuple[int, ...] = ()
    cached = 0
    while core.has_work:
        for output in core.step():
            tokens += tuple(output.new_token_ids)
            cached = max(cached, output.num_cached_tokens)
    while core.awaits_block_news:
        core.take_block_news()
    return tokens, cached


def test_another_number_of_slices_finds_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (meeting_hosts, own_part):  # layers are cut by what hosts measure
        monkeypatch.setattr(module, "measure_bytes_per_s", lambda: 1e9)
    write_key(tmp_path / "key", LEADER)
    folder = make_tiny_model("llama", tmp_path / "llama", num_hidden_layers=4)
    with core_of(folder, tmp_path, slices=2) as core:
        tokens, cached = answer(core)
        assert cached == 0
    for slices in (1, 2):
        with core_of(folder, tmp_path, slices) as core:
            assert answer(core) == (tokens, WHOLE_BLOCKS)
