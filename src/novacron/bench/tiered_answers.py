"""Questions whose prompts come from a disk tier that an engine before has filled."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from novacron.bench.asking import task_names, verdicts
from novacron.bench.contestants import engine_client
from novacron.bench.scenario import KVCodecsScenario
from novacron.bench.server import own_kv_folder
from novacron.bench.target import LocalEngine, TargetOptions, local_engine
from novacron.config.cache import CacheConfig
from novacron.config.kv_compression import KVLevel
from novacron.demo.examples import Example
from novacron.demo.tasks import held_out_examples
from novacron.engine.process_client import ProcessClient
from novacron.errors import RequestFailed
from novacron.records.request import Request, SamplingParams

_POLL_S = 0.5
_DISK_BYTES = 4 * 2**30
_MOST_ERROR = 1.0  # every block in the level that is measured

Progress = Callable[[str], None]


@dataclass(frozen=True)
class TieredAnswers:
    """Which questions were answered rightly, by task; how much of their prompts a tier brought, and
    what all stored blocks take."""

    verdicts: dict[str, list[bool]]
    share_of_prompts: float
    stored_bytes: int


async def ask_without_tiers(
    options: TargetOptions, scenario: KVCodecsScenario, progress: Progress
) -> dict[str, list[bool]]:
    engine = local_engine(options)
    engine = _with_cache(engine, replace(engine.config.cache, kv_ram_size=0, kv_disk_size=0))
    async with engine_client(engine) as client:
        asker = _Asker(client, engine, scenario.max_tokens)
        return {
            task: await _judge(asker, scenario, task, progress, "without tiers")
            for task in task_names(scenario.tasks)
        }


async def ask_from_tier(
    options: TargetOptions, scenario: KVCodecsScenario, level: KVLevel, progress: Progress
) -> TieredAnswers:
    """One engine reads all prompts, and a new one answers."""
    with own_kv_folder() as folder:
        engine = local_engine(options)
        cache = replace(
            engine.config.cache,
            kv_ram_size=0,
            kv_disk_size=_DISK_BYTES,
            kv_disk_path=folder,
            kv_tier_profile="lossless",
            kv_disk_compression=level,
            kv_disk_max_error=_MOST_ERROR,
        )
        engine = _with_cache(engine, cache)
        names = task_names(scenario.tasks)
        async with engine_client(engine) as client:
            asker = _Asker(client, engine, 1)
            for task in names:  # each fits on the device until it is stored
                await _judge(asker, scenario, task, progress, f"into {level}")
                await _until_stored(asker)
            codec = client.stats.kv_tiers[0].codec
        async with engine_client(engine) as client:
            asker = _Asker(client, engine, scenario.max_tokens)
            found = {
                task: await _judge(asker, scenario, task, progress, f"from {level}")
                for task in names
            }
            brought = client.stats.kv_tiers[0].hit_tokens
            return TieredAnswers(
                found, brought / asker.num_prompt_tokens, codec.encoded_bytes if codec else 0
            )


class _Asker:
    """Asks greedily, and counts the tokens of prompts."""

    def __init__(self, client: ProcessClient, engine: LocalEngine, max_tokens: int) -> None:
        self.client = client
        self._tokenizer = engine.tokenizer()
        self._sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens)
        self._ids = itertools.count()
        self.num_prompt_tokens = 0

    async def ask(self, example: Example) -> str:
        messages = [{"role": one.role, "content": one.content} for one in example.messages]
        return await self.complete(tuple(self._tokenizer.apply_chat_template(messages)))

    async def complete(self, prompt: Sequence[int]) -> str:
        self.num_prompt_tokens += len(prompt)
        request = Request(
            request_id=f"q{next(self._ids)}",
            prompt_token_ids=tuple(prompt),
            sampling=self._sampling,
            arrival_time_s=time.monotonic(),
        )
        pieces = []
        async for output in self.client.generate((request,)):
            if output.error is not None:
                raise RequestFailed(f"A question of the benchmark failed: {output.error}")
            pieces.append(output.text)
        return "".join(pieces)


async def _judge(
    asker: _Asker, scenario: KVCodecsScenario, task: str, progress: Progress, how: str
) -> list[bool]:
    progress(f"{task} {how}")
    examples = held_out_examples(task, scenario.num_examples, scenario.seed)
    return await verdicts(asker.ask, examples, scenario.concurrency)


async def _until_stored(asker: _Asker) -> None:
    """Stores wait for pauses, and figures come with outputs: a short question now and then."""
    stored = -1
    while stored != asker.client.stats.kv_tiers[0].num_stored:
        stored = asker.client.stats.kv_tiers[0].num_stored
        await asyncio.sleep(_POLL_S)
        await asker.complete((1, 2, 3))


def _with_cache(engine: LocalEngine, cache: CacheConfig) -> LocalEngine:
    return replace(engine, config=replace(engine.config, cache=cache))
