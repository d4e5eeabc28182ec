"""Engine cores whose ranks are on several "hosts" of one machine, for tests, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig, RanksApart
from novacron.config.model import ModelConfig
from novacron.engine.build import build_core, load_executor
from novacron.engine.core import EngineCore
from novacron.records.request import Request, SamplingParams
from novacron.testing.rank_hosts import RankHost, RankThread

OWN_TIERS_OFF: Final[dict[str, Any]] = {"kv_ram_size": 0, "kv_disk_size": 0}

Tokens = list[tuple[int, ...]]


@contextmanager
def core_over_hosts(
    folder: Path, key: Path, way: str, ranks: Sequence[RankThread | RankHost], **cache: Any
) -> Iterator[EngineCore]:
    """This process and these ranks. `way`: the size that tells how many, `key`: a file with
    LEADER's."""
    with ExitStack() as hosts:
        for rank in ranks:
            hosts.enter_context(rank)
        size: dict[str, Any] = {way: 1 + len(ranks)}
        config = EngineConfig(
            model=ModelConfig(model=str(folder), dtype="float32", num_threads=1, **size),
            cache=CacheConfig(**{"kv_cache_memory": 2**22} | cache),
            apart=RanksApart(hosts=tuple(rank.address for rank in ranks), link_key=str(key)),
        )
        core = _core_of(config, folder)
        hosts.callback(core.shutdown)
        yield core


def core_of_one(
    folder: Path, sizes: Mapping[str, Any] = MappingProxyType({}), **cache: Any
) -> EngineCore:
    """On this host alone, of one process or as `sizes` say."""
    config = EngineConfig(
        model=ModelConfig(model=str(folder), dtype="float32", num_threads=1, **sizes),
        cache=CacheConfig(**{"kv_cache_memory": 2**22} | cache),
    )
    return _core_of(config, folder)


def _core_of(config: EngineConfig, folder: Path) -> EngineCore:
    return build_core(config, load_executor(config, folder, lambda *_: None), folder)


def answers(
    core: EngineCore,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingParams,
    at_once: int = 1,
    **owned: Any,
) -> tuple[Tokens, list[int]]:
    """Tokens and numbers of cached tokens, so many prompts at once. A request that fails raises."""
    tokens: dict[str, tuple[int, ...]] = {}
    cached: dict[str, int] = {}
    names = [str(number) for number in range(len(prompts))]
    for first in range(0, len(prompts), at_once):
        running = set(names[first : first + at_once])
        for name in sorted(running):
            core.add(
                Request(
                    request_id=name,
                    prompt_token_ids=tuple(prompts[int(name)]),
                    sampling=sampling,
                    arrival_time_s=0.0,
                    **owned,
                )
            )
        while running:
            for output in core.step():
                name = output.request_id
                assert not output.error, output.error
                tokens[name] = tokens.get(name, ()) + tuple(output.new_token_ids)
                cached[name] = max(cached.get(name, 0), output.num_cached_tokens)
                if output.finish_reason is not None:
                    running.discard(name)
    return [tokens[name] for name in names], [cached[name] for name in names]


def wait_until_stored(core: EngineCore) -> None:
    while core.awaits_block_news:
        core.take_block_news()
