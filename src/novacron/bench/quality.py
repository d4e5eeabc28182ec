"""A variant of a model against a reference: quality on a corpus, task accuracy, speed, bytes.

Both are given the same documents, questions and prompts, and every difference is taken pair by
pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from novacron.bench.asking import asking, task_names, verdicts
from novacron.bench.child_process import working_child
from novacron.bench.contestants import BareCore, bare_core
from novacron.bench.corpus import demo_documents, digest, file_documents
from novacron.bench.forced_job import ForcedJob, Loaded, News, Refused, Scored, Variant
from novacron.bench.measurement import Measurement
from novacron.bench.quality_goals import quality_goals
from novacron.bench.quality_rows import COLUMNS, quality_rows, size_rows, speed_row, task_rows
from novacron.bench.result import BenchResult, Row
from novacron.bench.rounds import Batch
from novacron.bench.scenario import AccuracyScenario
from novacron.bench.target import (
    LocalEngine,
    TargetOptions,
    engine_settings,
    local_engine,
    token_prompts,
    with_settings,
)
from novacron.bench.workload import Prompt, make_prompts
from novacron.demo.tasks import held_out_examples
from novacron.errors import ConfigError, EngineDead
from novacron.quality.document import Document, DocumentScores

_CHILD = "novacron.bench.forced_comparison"
_PROMPT_TOKENS = 64  # of what decoding is timed after

Progress = Callable[[str], None]


@dataclass(frozen=True)
class _Side:
    """One of the two that are compared."""

    options: TargetOptions
    engine: LocalEngine

    @property
    def variant(self) -> Variant:
        return Variant(self.engine.config, str(self.engine.model_path))


async def run(
    options: TargetOptions, scenario: AccuracyScenario, progress: Progress
) -> BenchResult:
    """Raises ConfigError."""
    variant = _side(options)
    reference = _side(with_settings(options, scenario.against))
    names = () if scenario.corpus else task_names(scenario.tasks)
    documents = _documents(variant.engine, scenario)
    measurement = Measurement("quality", scenario, _description(reference, variant))
    loaded, scores = await _score(reference, variant, documents, progress)
    rows = list(quality_rows(scores))
    if names:
        asked = [await _ask(side, scenario, names, progress) for side in (reference, variant)]
        rows += task_rows(*asked)
    rows += await _time(reference, variant, scenario, progress)
    rows += size_rows(loaded)
    goals = quality_goals(
        rows,
        least_quality=scenario.least_quality,
        beats_reference=scenario.beats_reference,
    )
    return measurement.finish(
        rows=rows,
        columns=COLUMNS,
        goals=tuple(goals),
        facts={
            "corpus": (scenario.corpus and Path(scenario.corpus).name) or "chats of the tasks",
            "digest of the corpus": digest(documents),
            "documents": sum(bool(one.kl) for one in scores),
            "judged tokens": sum(len(one.kl) for one in scores),
            "reference": msgspec.structs.asdict(loaded.reference),
            "variant": msgspec.structs.asdict(loaded.variant),
        },
    )


def _side(options: TargetOptions) -> _Side:
    return _Side(options, local_engine(options))


def _documents(engine: LocalEngine, scenario: AccuracyScenario) -> tuple[Document, ...]:
    tokenizer = engine.tokenizer()
    if not scenario.corpus:
        tasks = task_names(scenario.tasks)
        return demo_documents(tokenizer, scenario.num_documents, scenario.seed, tasks)
    return file_documents(
        tokenizer, Path(scenario.corpus), window=scenario.window, count=scenario.num_documents
    )


async def _score(
    reference: _Side, variant: _Side, documents: Sequence[Document], progress: Progress
) -> tuple[Loaded, list[DocumentScores]]:
    progress("loading both")
    job = ForcedJob(reference.variant, variant.variant, tuple(documents))
    loaded: Loaded | None = None
    scores: list[DocumentScores] = []
    async with working_child(_CHILD, job, variant.engine) as lines:
        async for line in lines:
            one: News = msgspec.json.decode(line, type=News)
            match one:
                case Refused(reason):
                    raise ConfigError(reason)
                case Loaded():
                    loaded = one
                case Scored(of_document):
                    scores.append(of_document)
                    progress(f"document {len(scores)} of {len(documents)}")
    if loaded is None or len(scores) < len(documents):
        raise EngineDead("The comparison ended before its last document; its error is above.")
    return loaded, scores


async def _ask(
    side: _Side, scenario: AccuracyScenario, names: Sequence[str], progress: Progress
) -> dict[str, list[bool]]:
    """For each task which questions are answered rightly, in their order."""
    found = {}
    async with asking(side.options, replace(scenario, through="engine")) as (ask, _):
        for name in names:
            progress(name)
            examples = held_out_examples(name, scenario.num_examples, scenario.seed)
            found[name] = await verdicts(ask, examples, scenario.concurrency)
    return found


async def _time(
    reference: _Side, variant: _Side, scenario: AccuracyScenario, progress: Progress
) -> list[Row]:
    """Both in every round, each first in turn; the first round is the warm-up."""
    if scenario.speed_rounds == 0:
        return []
    rates: dict[str, list[float]] = {"reference": [], "variant": []}
    async with bare_core(reference.engine) as first, bare_core(variant.engine) as second:
        cores = {"reference": first, "variant": second}
        maker = token_prompts(variant.engine.tokenizer())
        for turn in range(-1, scenario.speed_rounds):
            progress("warm-up" if turn < 0 else f"round {turn + 1} of {scenario.speed_rounds}")
            seed = scenario.seed + turn
            prompts = make_prompts(maker, seed, scenario.num_streams, _PROMPT_TOKENS)
            for name in sorted(cores, reverse=turn % 2 == 1):
                rate = await _decode_rate(cores[name], prompts, scenario.output_tokens)
                if turn >= 0:
                    rates[name].append(rate)
    return [speed_row(rates["reference"], rates["variant"], scenario.num_streams)]


async def _decode_rate(core: BareCore, prompts: Sequence[Prompt], output_tokens: int) -> float:
    """Tokens per second of all streams, once their prompts have been read."""
    batch = Batch(await core.run_batch(prompts, output_tokens), cpu_s=0.0)
    return len(prompts) / batch.median_tpot_s


def _description(reference: _Side, variant: _Side) -> dict[str, object]:
    return {
        name: {"model": side.engine.name, "settings": engine_settings(side.engine.config)}
        for name, side in (("reference", reference), ("variant", variant))
    }
