"""Hosts that share the tokens of prompts out, behind real, encrypted links: the numbers of one
process, bit for bit, and only long steps between them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig, RanksApart
from novacron.config.model import ModelConfig
from novacron.engine.core import EngineCore
from novacron.engine.core_process import build_core, load_executor
from novacron.engine.link.keys import write_key
from novacron.errors import ConfigError
from novacron.executor import tiers
from novacron.executor.hosts.linked_rows import LinkedRowsExecutor
from novacron.records.request import Request, SamplingParams
from novacron.testing.cores_over_hosts import wait_until_stored
from novacron.testing.rank_hosts import LEADER, RankThread, hosts_at
from novacron.testing.reference import Engine
from novacron.testing.server_process import wait_until
from novacron.testing.tiny_models import make_tiny_model

pytestmark = pytest.mark.usefixtures("needs_native_kernels")

CPU = torch.device("cpu")
# chunks of 256 and less, some of them with decodes beside them
PROMPTS = [
    random.Random(seed).choices(range(5, 380), k=size)
    for seed, size in ((1, 300), (2, 40), (3, 150), (4, 7))
]
SEEDED = SamplingParams(
    temperature=0.8, max_tokens=12, ignore_eos=True, seed=5, logprobs=3, prompt_logprobs=2
)
TOKENS_BETWEEN = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"))


@contextmanager
def over_hosts(folder: Path, ranks: list[RankThread], **settings: Any) -> Iterator[Engine]:
    engine = Engine(
        folder,
        CPU,
        executor=partial(LinkedRowsExecutor, hosts=hosts_at(*(rank.address for rank in ranks))),
        model=str(folder),
        max_num_batched_tokens=TOKENS_BETWEEN,
        context_parallel_size=len(ranks) + 1,
        **settings,
    )
    try:
        yield engine
    finally:
        engine.executor.shutdown()
        for rank in ranks:
            rank.join()


def alone(folder: Path, **settings: Any) -> Engine:
    return Engine(folder, CPU, max_num_batched_tokens=TOKENS_BETWEEN, **settings)


def executor_of(engine: Engine) -> LinkedRowsExecutor:
    assert isinstance(engine.executor, LinkedRowsExecutor)
    return engine.executor


def test_two_hosts_answer_as_one_process(folder: Path) -> None:
    one = alone(folder)
    with over_hosts(folder, [RankThread(folder)]) as pair:
        assert pair.run(PROMPTS, SEEDED) == one.run(PROMPTS, SEEDED)
        spec = pair.executor.spec
        for fact in (
            "model_version", "num_parameters", "weight_bytes", "kv_cache_bytes", "num_blocks",
            "max_model_len", "kv_identity",
        ):  # fmt: skip
            assert getattr(spec, fact) == getattr(one.executor.spec, fact), fact
        assert spec.context_parallel_size == 2
        executor = executor_of(pair)
        wait_until(lambda: len({one.num_meetings for one in executor.rank_stats()}) == 1)
        ours, theirs = executor.rank_stats()
        assert theirs.num_steps == 2, "those of 256 tokens and what follows"
        assert ours.num_steps > 10
        assert theirs.num_meetings == (3 + 1) * theirs.num_steps  # three layers and the end


def test_what_short_steps_and_hits_in_the_cache_left_is_there_for_long_ones(folder: Path) -> None:
    """A conversation: each turn begins with what both hosts, and rank 0 alone, computed before."""
    one = alone(folder)
    greedy = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True, seed=0)
    with over_hosts(folder, [RankThread(folder)]) as pair:
        prompt = PROMPTS[2][:100]  # too short to be shared
        for turn in range(3):
            expected, found = one.run([prompt], greedy), pair.run([prompt], greedy)
            assert found == expected
            assert turn == 0 or found[0].num_cached_tokens >= 100
            prompt = [*prompt, *found[0].token_ids]
            prompt += random.Random(turn).choices(range(5, 380), k=130)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "size", "settings"),
    [
        ("gemma2", 2, {"dtype": "bfloat16"}),  # windows, soft caps
        ("gemma3", 3, {}),
        ("mistral", 4, {}),
        ("qwen3_moe", 2, {"quantization": "int8", "quantization_group_size": 32}),
        ("phi3", 3, {"quantization": "int4"}),
    ],
)
def test_families_and_numbers_of_hosts(
    tmp_path: Path, family: str, size: int, settings: dict[str, Any]
) -> None:
    sizes = {"hidden_size": 128, "moe_intermediate_size": 128} if "moe" in family else {}
    folder = make_tiny_model(family, tmp_path, **sizes)
    expected = alone(folder, **settings).run(PROMPTS, SEEDED)
    ranks = [RankThread(folder) for _ in range(size - 1)]
    with over_hosts(folder, ranks, **settings) as several:
        assert several.run(PROMPTS, SEEDED) == expected


@pytest.mark.parametrize("num_others", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_host_that_leaves_is_replaced(folder: Path, num_others: int) -> None:
    ranks = [RankThread(folder, num_lives=2) for _ in range(num_others)]
    expected = alone(folder).run(PROMPTS, SEEDED)
    with over_hosts(folder, ranks) as several:
        executor = executor_of(several)
        ranks[-1].fault = ConnectionError("its memory has gone bad")
        assert several.greedy([PROMPTS[3]], 8), "nobody else is asked"
        assert executor.num_ranks_replaced == 0
        assert several.run(PROMPTS, SEEDED) == expected
        assert executor.num_ranks_replaced == num_others
        assert several.run(PROMPTS, SEEDED) == expected, "what it has cached, others have got"


@pytest.fixture
def key(tmp_path: Path) -> None:
    write_key(tmp_path / "key", LEADER)


@contextmanager
def core_of(
    folder: Path, tmp_path: Path, ranks: list[RankThread], **cache: Any
) -> Iterator[EngineCore]:
    """As a server has it; alone without ranks."""
    hosts = tuple(rank.address for rank in ranks)
    config = EngineConfig(
        model=ModelConfig(
            model=str(folder), dtype="float32", num_threads=1, context_parallel_size=1 + len(ranks)
        ),
        cache=CacheConfig(**cache),
        apart=RanksApart(hosts=hosts, link_key=str(tmp_path / "key") if hosts else ""),
    )
    core = build_core(config, load_executor(config, folder, lambda *_: None), folder)
    try:
        yield core
    finally:
        core.shutdown()
        for rank in ranks:
            rank.join()


def results(
    core: EngineCore, prompts: list[list[int]], sampling: SamplingParams, **more: Any
) -> list[tuple[list[int], Any]]:
    """Tokens and embedding of each prompt, all of them at once."""
    found: dict[str, tuple[list[int], Any]] = {}
    for number, prompt in enumerate(prompts):
        found[str(number)] = ([], None)
        core.add(
            Request(
                request_id=str(number),
                prompt_token_ids=tuple(prompt),
                sampling=sampling,
                arrival_time_s=float(number),
                **more,
            )
        )
    running = set(found)
    while running:
        for output in core.step():
            tokens, embedding = found[output.request_id]
            found[output.request_id] = (
                [*tokens, *output.new_token_ids], output.embedding or embedding
            )  # fmt: skip
            if output.finish_reason is not None:
                running.discard(output.request_id)
    return list(found.values())


NO_TIERS = {"kv_cache_memory": 2**22, "kv_ram_size": 0, "kv_disk_size": 0}


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    "kv_cache_dtype", ["int8/int4", pytest.param("bfloat16", marks=pytest.mark.slow)]
)
def test_blocks_of_any_precision_and_embeddings_are_those_of_one(
    folder: Path, tmp_path: Path, kv_cache_dtype: str
) -> None:
    found = []
    for ranks in ([], [RankThread(folder)]):
        cache = {**NO_TIERS, "kv_cache_dtype": kv_cache_dtype}
        with core_of(folder, tmp_path, ranks, **cache) as core:
            answers = results(core, PROMPTS * 2, SamplingParams(max_tokens=8, seed=3))
            vectors = results(core, PROMPTS, SamplingParams(), pooling="mean")
            assert all(vector for _, vector in vectors)
            found.append((answers, vectors))
    assert found[0] == found[1]


@pytest.mark.usefixtures("key")
def test_what_comes_from_tiers_of_this_host_others_get(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiers, "_SHARE_OF_CORES", 1.0)  # there is no pause to store in
    sampling = SamplingParams(temperature=0.8, max_tokens=8, ignore_eos=True, seed=3)
    first = [random.Random(seed).choices(range(5, 380), k=200) for seed in range(3)]
    more = random.Random(9).choices(range(5, 380), k=150)
    longer = [[*prompt, *more] for prompt in first]
    ram = {"kv_ram_size": 2**24, "kv_disk_size": 0, "kv_cache_memory": 2**19}
    with core_of(folder, tmp_path, [], **NO_TIERS) as one:
        expected = [
            [results(one, [prompt], sampling) for prompt in prompts] for prompts in (first, longer)
        ]
    with core_of(folder, tmp_path, [RankThread(folder)], **ram) as core:
        found = []
        for prompts in (first, longer):
            found.append([results(core, [prompt], sampling) for prompt in prompts])
            wait_until_stored(core)
        assert found == expected
        assert sum(tier.num_loaded for tier in core.stats().kv_tiers) > 0


@pytest.mark.usefixtures("key")
def test_tiers_that_compress_are_those_of_one_process(folder: Path, tmp_path: Path) -> None:
    greedy = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True, seed=3)
    found = []
    for num_others in (0, 1):
        disk = {
            "kv_ram_size": 0,
            "kv_disk_size": 2**26,
            "kv_disk_compression": "int8",
            "kv_disk_max_error": 1.0,
            "kv_disk_path": str(tmp_path / f"disk beside {num_others}"),
        }
        for _ in range(2):  # computed, and from a disk where they have lost something
            ranks = [RankThread(folder) for _ in range(num_others)]
            with core_of(folder, tmp_path, ranks, **disk) as core:
                found.append(results(core, PROMPTS, greedy))
                wait_until_stored(core)
                tier = core.stats().kv_tiers[0]
                assert tier.codec is not None
                assert tier.codec.num_encoded + tier.num_loaded > 0
    assert found[2:] == found[:2]


def test_torch_is_refused(folder: Path) -> None:
    rank = RankThread(folder, kernels="torch")
    with (
        pytest.raises(ConfigError, match=r"stores and attends in one\. Build"),
        over_hosts(folder, [rank], kernels="torch"),
    ):
        pass
    rank.join()
