"""KV blocks compressed for tiers: bytes, errors, speed; and what comes of it for the tokens after.

Two ways. Documents whose prefix went through a level, token by token against exact blocks. And
questions to an engine that has its prompts from a disk tier of an engine before it, against one
without tiers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import msgspec

from novacron.bench.child_process import working_child
from novacron.bench.corpus import demo_documents, digest, file_documents
from novacron.bench.forced_job import Refused, Variant
from novacron.bench.kv_codec_job import CodecJob, CodecNews, Kept, LevelMeasured
from novacron.bench.kv_codec_rows import COLUMNS, accuracy_row, goals_of, level_row
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult
from novacron.bench.scenario import KVCodecsScenario
from novacron.bench.target import LocalEngine, TargetOptions, engine_settings, local_engine
from novacron.bench.tiered_answers import ask_from_tier, ask_without_tiers
from novacron.config.kv_compression import KVLevel
from novacron.errors import ConfigError, EngineDead
from novacron.quality.document import Document

_CHILD = "novacron.bench.kv_codec_study"
_LEVELS = tuple(level for level in get_args(KVLevel) if level != "raw")
_NONE = ("none",)

Progress = Callable[[str], None]


async def run(
    options: TargetOptions, scenario: KVCodecsScenario, progress: Progress
) -> BenchResult:
    """Raises ConfigError."""
    levels = _check_levels(scenario.levels)
    engine = local_engine(options)
    documents = _documents(engine, scenario)
    description: dict[str, Any] = {
        "model": engine.name,
        "settings": engine_settings(engine.config),
    }
    measurement = Measurement("kv-codecs", scenario, description)
    progress("the likeliest tokens after compressed blocks")
    measured, kept = await _study(engine, documents, levels, scenario.repeats, progress)
    rows = [level_row(one) for one in measured]
    facts: dict[str, Any] = {
        "corpus": (scenario.corpus and Path(scenario.corpus).name) or "chats of the tasks",
        "digest of the corpus": digest(documents),
        "documents": len(documents),
        "blocks that went through": len(measured[0].key_errors),
        "measurement for kv_tier_profile": Path(kept).name,
    }
    if scenario.tasks != _NONE and not scenario.corpus:
        exact = await ask_without_tiers(options, scenario, progress)
        for level in levels:
            answers = await ask_from_tier(options, scenario, level, progress)
            rows.append(accuracy_row(level, exact, answers))
    return measurement.finish(rows=rows, columns=COLUMNS, goals=goals_of(rows), facts=facts)


def _check_levels(names: Sequence[str]) -> tuple[KVLevel, ...]:
    unknown = [name for name in names if name not in _LEVELS]
    if unknown:
        raise ConfigError(
            f"There is no level {', '.join(unknown)} to compress to; there are "
            f"{', '.join(_LEVELS)}."
        )
    return cast(tuple[KVLevel, ...], tuple(names))


def _documents(engine: LocalEngine, scenario: KVCodecsScenario) -> tuple[Document, ...]:
    """Each has at least one full block before what is judged. Raises ConfigError if there is
    none."""
    tokenizer = engine.tokenizer()
    if scenario.corpus:
        windows = file_documents(
            tokenizer,
            Path(scenario.corpus),
            window=scenario.window,
            count=scenario.num_documents,
        )
        found = tuple(Document(one.token_ids, (len(one.token_ids) + 1) // 2) for one in windows)
    else:
        found = demo_documents(tokenizer, scenario.num_documents, scenario.seed)
    block_size = engine.config.cache.block_size
    usable = tuple(one for one in found if one.first_scored > block_size and one.num_scored > 0)
    if not usable:
        raise ConfigError(
            f"No document has a full block of {block_size} tokens before what is judged: give a "
            "longer text, or a larger --window."
        )
    return usable


async def _study(
    engine: LocalEngine,
    documents: tuple[Document, ...],
    levels: tuple[KVLevel, ...],
    repeats: int,
    progress: Progress,
) -> tuple[list[LevelMeasured], str]:
    """Of each level, and the file that keeps it."""
    job = CodecJob(Variant(engine.config, str(engine.model_path)), documents, levels, repeats)
    measured: list[LevelMeasured] = []
    async with working_child(_CHILD, job, engine) as lines:
        async for line in lines:
            one: CodecNews = msgspec.json.decode(line, type=CodecNews)
            match one:
                case Refused(reason):
                    raise ConfigError(reason)
                case LevelMeasured():
                    measured.append(one)
                    progress(f"{one.level} is measured")
                case Kept(path):
                    return measured, path
    raise EngineDead("The study of KV codecs ended before its last level; its error is above.")
