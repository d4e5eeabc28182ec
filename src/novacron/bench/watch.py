"""What the watch over quality is worth: false alarms, errors that it notices, and what it costs.

Requests are answered by an engine, batched, and a share of the answers is scored as in a server.
The sound model comes first: the watch learns from it what is usual, and must raise no alarm. Then
the scales of one layer at a time are made wrong in memory, each time after the same sound answers.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from novacron.bench.asking import task_names
from novacron.bench.child_process import start_child
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column
from novacron.bench.scenario import WatchScenario
from novacron.bench.target import LocalEngine, TargetOptions, engine_settings, local_engine
from novacron.bench.watch_job import (
    News,
    Order,
    Planted,
    Refused,
    Scored,
    ScoredAnswer,
    SliceRates,
    Slices,
    Traffic,
    Watching,
    WatchJob,
)
from novacron.bench.watch_trials import (
    SoundRun,
    Trial,
    case_name,
    cost_goals,
    cost_row,
    figures_by_case,
    goals_of,
    planted_rows,
    sound_row,
)
from novacron.demo.tasks import held_out_examples
from novacron.engine.tokenization import Tokenizer
from novacron.errors import ConfigError, EngineDead
from novacron.quality.drift import DriftDetector

_CHILD = "novacron.bench.watched_engine"
_COST_QUESTIONS = 512  # then from the beginning; no prefix is kept
_REQUESTS_AT_ONCE = 2000  # bounds the queue, and says how far it is

_COLUMNS = (
    Column("requests", "mean"),
    Column("scored", "mean"),
    Column("alarms", "mean"),
    Column("noticed", "mean"),
    Column("noticed_after"),
    Column("shift", "mean"),
    Column("kl", "mean", 4),
    Column("throughput", digits=4),
    Column("low", digits=4),
    Column("high", digits=4),
    Column("busy", "mean"),
)

Progress = Callable[[str], None]
Ask = Callable[[Traffic], Awaitable[tuple[ScoredAnswer, ...]]]
AskCost = Callable[[Slices], Awaitable[SliceRates]]


async def run(options: TargetOptions, scenario: WatchScenario, progress: Progress) -> BenchResult:
    """Raises ConfigError."""
    engine = local_engine(options)
    questions = _Questions(engine.tokenizer(), task_names(scenario.tasks), scenario.seed)
    measurement = Measurement("watch", scenario, _description(engine))
    runs: list[SoundRun] = []
    trials: list[Trial] = []
    rates: SliceRates | None = None
    num_layers = 0
    async with _watched(_watching(engine, scenario)) as (watching, ask, cost):
        num_layers = watching.num_layers
        for number in range(scenario.repeats):
            sound = SoundRun(DriftDetector())
            while sound.num_requests < scenario.num_requests:
                count = min(_REQUESTS_AT_ONCE, scenario.num_requests - sound.num_requests)
                sound.feed(await ask(_traffic(scenario, questions.take(count))), count)
                progress(f"sound run {number + 1}: {sound.num_requests:,} requests")
            _check_learnt(sound)
            runs.append(sound)
            for turn in range(scenario.trials):
                for pattern in _patterns(scenario, num_layers):
                    case = case_name(pattern, scenario.factor)
                    progress(f"{case}, trial {turn + 1} of {scenario.trials}")
                    planted = Planted(pattern, scenario.factor)
                    prompts = questions.take(scenario.num_after)
                    answers = await ask(_traffic(scenario, prompts, planted))
                    _check_scored(answers)
                    trials.append(sound.trial(case, answers))
        if scenario.cost_rounds:
            progress("cost")
            rates = await cost(_slices(scenario, questions))
    rows = planted_rows(trials, scenario.num_after)
    goals = goals_of(runs, rows[:num_layers], scenario.num_after)
    rows = [sound_row(runs), *rows]
    if rates is not None:
        rows.append(cost_row(rates))
        goals += cost_goals(rows[-1])
    return measurement.finish(
        rows=rows,
        columns=_COLUMNS,
        goals=goals,
        facts={"watch": msgspec.structs.asdict(watching), **figures_by_case(runs)},
    )


def _check_learnt(sound: SoundRun) -> None:
    needed = sound.detector.rule.num_usual
    if len(sound.figures) <= needed:
        raise ConfigError(
            f"{len(sound.figures)} answers of the sound model were scored, and the watch learns "
            f"from {needed} what is usual. Give a larger --num-requests or --share."
        )


def _check_scored(answers: Sequence[ScoredAnswer]) -> None:
    if not answers:
        raise ConfigError("No answer was scored in a trial. Give a larger --num-after or --share.")


@dataclass
class _Questions:
    """Held-out questions of all tasks alike, in an order that is drawn; others each time."""

    tokenizer: Tokenizer
    tasks: Sequence[str]
    seed: int
    _taken: int = 0

    def take(self, count: int) -> tuple[tuple[int, ...], ...]:
        self._taken += 1
        seed = self.seed * 1_000_003 + self._taken
        each = -(-count // len(self.tasks))
        examples = [one for task in self.tasks for one in held_out_examples(task, each, seed)]
        chosen = random.Random(seed).sample(examples, count)
        return tuple(
            tuple(self.tokenizer.apply_chat_template([m._asdict() for m in one.messages]))
            for one in chosen
        )


def _patterns(scenario: WatchScenario, num_layers: int) -> tuple[str, ...]:
    """Every layer, then what else is asked for."""
    layers = tuple(f"model.layers.{layer}." for layer in range(num_layers))
    return (*layers, *scenario.matrices)


def _traffic(
    scenario: WatchScenario, prompts: tuple[tuple[int, ...], ...], planted: Planted | None = None
) -> Traffic:
    return Traffic(
        prompts=prompts,
        max_tokens=scenario.max_tokens,
        temperature=scenario.temperature,
        planted=planted,
    )


def _slices(scenario: WatchScenario, questions: _Questions) -> Slices:
    return Slices(
        prompts=questions.take(_COST_QUESTIONS),
        num_streams=scenario.num_streams,
        num_rounds=scenario.cost_rounds,
        slice_s=scenario.cost_slice,
    )


def _watching(engine: LocalEngine, scenario: WatchScenario) -> LocalEngine:
    """No prefix is kept: those of wrong weights would be taken for those of sound ones."""
    config = engine.config
    watch = replace(config.watch, quality_watch=scenario.share)
    cache = replace(config.cache, enable_prefix_caching=False, kv_ram_size=0, kv_disk_size=0)
    scheduler = replace(config.scheduler, max_num_seqs=scenario.num_streams)
    changed = replace(config, watch=watch, cache=cache, scheduler=scheduler)
    return replace(engine, config=changed)


@contextlib.asynccontextmanager
async def _watched(engine: LocalEngine) -> AsyncIterator[tuple[Watching, Ask, AskCost]]:
    """What is watched, and how to ask it for answers and for what scoring them costs."""
    process = await start_child(_CHILD, engine)
    sink, source = process.stdin, process.stdout
    assert sink is not None
    assert source is not None

    async def news_of(message: WatchJob | Order) -> News:
        sink.write(msgspec.json.encode(message) + b"\n")
        await sink.drain()
        line = await source.readline()
        if not line:
            raise EngineDead("The watched engine of the benchmark ended; its error is above.")
        news: News = msgspec.json.decode(line, type=News)
        if isinstance(news, Refused):
            raise ConfigError(news.reason)
        return news

    async def ask(traffic: Traffic) -> tuple[ScoredAnswer, ...]:
        scored = await news_of(traffic)
        assert isinstance(scored, Scored)
        return scored.answers

    async def cost(order: Slices) -> SliceRates:
        rates = await news_of(order)
        assert isinstance(rates, SliceRates)
        return rates

    try:
        watching = await news_of(WatchJob(engine.config, str(engine.model_path)))
        assert isinstance(watching, Watching)
        yield watching, ask, cost
    finally:
        sink.close()
        await process.wait()


def _description(engine: LocalEngine) -> dict[str, object]:
    return {"model": engine.name, "settings": engine_settings(engine.config)}
