"""novacron bench cache-choice: what choosing between fetching and computing a prefix loses.

Each prefix lies in one tier and is asked for in three ways, in turns: computed whatever it costs,
fetched whatever it costs, and as the scheduler chooses. Regret is the time to the first token of
the choice over that of the better of the other two, less one; what we promise is that it is never
above a tenth of computing.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Final

import msgspec

from novacron.bench.cache_choice_job import MODES, ChoiceJob, Trial
from novacron.bench.child_process import working_child
from novacron.bench.measurement import Measurement
from novacron.bench.own_redis import has_redis, redis_settings
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, milliseconds, row
from novacron.bench.scenario import Scenario, option
from novacron.bench.server import own_kv_folder
from novacron.bench.statistics import percentile
from novacron.bench.target import LocalEngine, TargetOptions, local_engine, token_prompts
from novacron.engine.engine_arguments import EngineArguments
from novacron.errors import ConfigError, EngineDead

_KINDS: Final = ("ram", "disk", "redis", "object")
_WORST: Final = 1.10  # of computing, which is the promise
_TIER_BYTES: Final = 2**30


@dataclass(frozen=True, kw_only=True)
class CacheChoiceScenario(Scenario):
    prefix_tokens: tuple[int, ...] = option((64, 128, 256, 512, 1024, 2048), "prefix lengths")
    suffix_tokens: int = option(16, "what follows the prefix, new each time")
    tiers: tuple[str, ...] = option(_KINDS, "kinds of tiers; object is a folder")
    prefixes: int = option(3, "different prefixes of each length")
    repeats: int = option(5, "turns of the three ways with each prefix")


async def run(
    options: TargetOptions, scenario: CacheChoiceScenario, progress: Callable[[str], None]
) -> BenchResult:
    if unknown := set(scenario.tiers) - set(_KINDS):
        raise ConfigError(f"There is no tier {', '.join(unknown)}; there are {', '.join(_KINDS)}.")
    engine = local_engine(options)
    measurement = Measurement("cache-choice", scenario, {"model": engine.name})
    rows: list[Row] = []
    for kind in scenario.tiers:
        if not _can_have(kind, engine):
            progress(f"{kind}: left out, what it needs is not installed")
            continue
        for trial in await _trials(engine, scenario, kind, progress):
            rows.append(_row(kind, trial))
    columns = (
        *(Column(mode) for mode in MODES),
        Column("fetched_share", "mean"),
        Column("of_computing"),
        Column("regret"),
    )
    return measurement.finish(rows=rows, columns=columns, goals=goals_of(rows))


async def _trials(
    engine: LocalEngine,
    scenario: CacheChoiceScenario,
    kind: str,
    progress: Callable[[str], None],
) -> list[Trial]:
    """One for each length: those of all its prefixes together."""
    maker, rng = token_prompts(engine.tokenizer()), random.Random(f"{kind}/{scenario.seed}")
    lengths = [length for _ in range(scenario.prefixes) for length in scenario.prefix_tokens]
    num_suffixes = 1 + scenario.repeats * len(MODES)

    def draw(count: int) -> tuple[int, ...]:
        ids = maker.draw(rng, count)
        return tuple(ids) if not isinstance(ids, str) else ()

    prompts = tuple(
        (draw(length), tuple(draw(scenario.suffix_tokens) for _ in range(num_suffixes)))
        for length in lengths
    )
    found: dict[int, list[Trial]] = {}
    with _settings(kind, engine) as settings:
        config = replace(engine.config, cache=replace(engine.config.cache, **settings))
        arguments = EngineArguments(
            config=config, model_path=str(engine.model_path), inbox="", outbox=""
        )
        module = "novacron.bench.cache_choice_trials"
        async with working_child(module, ChoiceJob(arguments, prompts), engine) as lines:
            for length in lengths:
                progress(f"{kind}: {length} tokens")
                line = await lines.readline()
                if not line:
                    raise EngineDead("The engine of the benchmark died; its error is above.")
                found.setdefault(length, []).append(msgspec.json.decode(line, type=Trial))
    return [_joined(trials) for trials in found.values()]


@contextlib.contextmanager
def _settings(kind: str, engine: LocalEngine) -> Iterator[dict[str, Any]]:
    """Of an engine with this tier alone."""
    none: dict[str, Any] = {"kv_ram_size": 0, "kv_disk_size": 0, "kv_redis_url": ""}
    none |= {"kv_object_url": "", "kv_prefetch": "off"}
    if kind == "ram":
        yield none | {"kv_ram_size": _TIER_BYTES}
    elif kind == "redis":
        with redis_settings(engine.plan.environment) as settings:
            yield none | {name.lower(): value for name, value in settings.items()}
    else:
        with own_kv_folder() as folder:
            own = {"kv_disk_size": _TIER_BYTES, "kv_disk_path": folder}
            yield none | (own if kind == "disk" else {"kv_object_url": f"file://{folder}"})


def _can_have(kind: str, engine: LocalEngine) -> bool:
    if kind == "redis":
        return has_redis(engine.plan.environment) and find_spec("redis") is not None
    return kind != "object" or find_spec("obstore") is not None


def _joined(trials: list[Trial]) -> Trial:
    return Trial(
        trials[0].prefix_tokens,
        tuple(
            tuple(seconds for trial in trials for seconds in trial.first_token_s[mode])
            for mode in range(len(MODES))
        ),
        tuple(count for trial in trials for count in trial.num_fetched),
        tuple(count for trial in trials for count in trial.num_there),
    )


def _row(kind: str, trial: Trial) -> Row:
    compute, fetch, chosen = trial.first_token_s
    best_s = min(percentile(compute, 50), percentile(fetch, 50))
    shares = [
        fetched / there if there else 0.0
        for fetched, there in zip(trial.num_fetched, trial.num_there, strict=True)
    ]
    return row(
        {"tier": kind, "prefix": trial.prefix_tokens},
        compute=milliseconds(compute),
        fetch=milliseconds(fetch),
        chosen=milliseconds(chosen),
        fetched_share=metric("", "neither", shares),
        of_computing=metric("", "lower", [a / b for a, b in zip(chosen, compute, strict=True)]),
        regret=metric("", "lower", [seconds / best_s - 1 for seconds in chosen]),
    )


def goals_of(rows: list[Row]) -> list[Goal]:
    """For each tier the worst of its lengths, by medians of turns beside each other."""
    worst: dict[str, float] = {}
    for one in rows:
        kind, share = str(one.labels["tier"]), one.metrics["of_computing"].summary.p50
        worst[kind] = max(worst.get(kind, 0.0), share)
    return [
        Goal(
            name=f"{kind}: first token of the choice, of computing, at the worst length",
            limit=_WORST,
            better="lower",
            value=share,
        )
        for kind, share in worst.items()
    ]
