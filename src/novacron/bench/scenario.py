"""Scenarios: frozen settings of one benchmark, documented where they are declared.

The fields become options of the command line, keys of scenario files, and a part of the result.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from novacron.errors import ConfigError


def option(default: Any, help: str, *, least: float = 1, repeated: bool = False) -> Any:
    """A documented field of a scenario; a number must be at least `least`. A repeated one is given
    value by value, as often as wanted, where others are lists with commas."""
    metadata = {"help": help, "least": least, "repeated": repeated}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What all scenarios share."""

    seed: int = option(0, "of prompts, arrivals and order", least=0)

    def __post_init__(self) -> None:
        for part in fields(self):
            value, least = getattr(self, part.name), part.metadata["least"]
            values = value if isinstance(value, tuple) else (value,)
            too_small = any(isinstance(one, int | float) and not one >= least for one in values)
            if too_small or (values == () and not part.metadata["repeated"]):
                raise ConfigError(
                    f"--{part.name.replace('_', '-')} is {value!r}: give {least:g} or more."
                )


@dataclass(frozen=True, kw_only=True)
class LatencyScenario(Scenario):
    prompt_tokens: tuple[int, ...] = option((16, 128, 512), "prompt lengths")
    output_tokens: tuple[int, ...] = option((64,), "output lengths")
    repeats: int = option(10, "requests per combination")


@dataclass(frozen=True, kw_only=True)
class ThroughputScenario(Scenario):
    through: Literal["both", "engine", "http"] = option("both", "what to drive")
    num_streams: tuple[int, ...] = option((32,), "requests at once; goals are judged at the most")
    prompt_tokens: int = option(64, "prompt length")
    output_tokens: int = option(256, "output length")
    repeats: int = option(7, "rounds; each drives all contestants once")


@dataclass(frozen=True, kw_only=True)
class ServeScenario(Scenario):
    rates: tuple[float, ...] = option(
        (2.0, 8.0, 16.0), "requests per second, one run each", least=1e-6
    )
    num_requests: int = option(64, "requests per rate")
    num_prefixes: int = option(4, "shared prefixes (system prompts)")
    prefix_tokens: int = option(256, "length of a shared prefix; 0: none", least=0)
    prompt_tokens: int = option(32, "length of what follows the prefix")
    output_tokens: int = option(32, "output length")
    burstiness: float = option(
        1.0, "1: Poisson arrivals; below: burstier; above: more even", least=0.01
    )
    burst_size: int = option(1, "requests that arrive together")
    trace: str = option("", "file of a Mooncake trace (JSONL) to replay; rates are then speed-ups")


@dataclass(frozen=True, kw_only=True)
class CacheScenario(Scenario):
    prefix_tokens: tuple[int, ...] = option((256, 1024, 2048), "lengths of the shared prefix")
    tier_prefix_tokens: tuple[int, ...] = option(
        (2048,), "lengths of prefixes that come from RAM and from disk"
    )
    suffix_tokens: int = option(16, "length of what follows the prefix")
    output_tokens: int = option(16, "output length")
    repeats: int = option(10, "prefixes per length")
    throughput_rounds: int = option(
        30,
        "rounds with and without tiers, of 32 new prompts each, where nothing is reused; 0: none",
        least=0,
    )


@dataclass(frozen=True, kw_only=True)
class AccuracyScenario(Scenario):
    tasks: tuple[str, ...] = option(("all",), "tasks of the bundled model, or all")
    num_examples: int = option(100, "held-out questions per task")
    max_tokens: int = option(96, "longest answer")
    concurrency: int = option(32, "questions at once")
    through: Literal["http", "engine"] = option("http", "what to ask")
    floors: str = option("", "JSON file of the least accuracy per task; below it the run fails")
    against: tuple[str, ...] = option(
        (),
        "setting of a reference, such as dtype=float32 or model=FOLDER: what is measured is "
        "compared with it, in probabilities too; may be repeated; --set and --config do not reach "
        "the reference",
        repeated=True,
    )
    corpus: str = option("", "with --against: text to compare on; empty: chats of the tasks")
    num_documents: int = option(200, "with --against: chats, or windows of the text")
    window: int = option(512, "with --against: tokens of a window of the text", least=2)
    speed_rounds: int = option(5, "with --against: rounds of decoding that are timed", least=0)
    num_streams: int = option(8, "with --against: streams that are timed together")
    output_tokens: int = option(128, "with --against: tokens of each that are timed", least=2)
    least_quality: float = option(
        0.0,
        "with --against: the goal is a quality of so much, its whole interval; 0: none",
        least=0,
    )
    beats_reference: bool = option(
        False,
        "with --against: the goal is an NLL below the reference's, its whole interval",
        least=0,
    )


@dataclass(frozen=True, kw_only=True)
class WatchScenario(Scenario):
    share: float = option(0.05, "share of the answers that is scored", least=1e-6)
    num_requests: int = option(20_000, "requests to the sound model, which must raise no alarm")
    repeats: int = option(1, "runs of the sound model; each learns anew what is usual")
    factor: float = option(1.2, "what the scales of a layer are multiplied with", least=0)
    num_after: int = option(400, "requests within which that is to be noticed")
    trials: int = option(5, "of each layer, after each sound run", least=0)
    matrices: tuple[str, ...] = option(
        (),
        "beginning of the names of further matrices to be made wrong, such as "
        "model.layers.3.mlp.down_proj; may be repeated",
        repeated=True,
    )
    tasks: tuple[str, ...] = option(("all",), "tasks of the bundled model, or all")
    max_tokens: int = option(48, "longest answer")
    temperature: float = option(0.0, "0: greedy", least=0)
    num_streams: int = option(32, "requests at once")
    cost_rounds: int = option(1000, "slices of time with the watch and without; 0: none", least=0)
    cost_slice: float = option(0.1, "seconds of each", least=0.01)


@dataclass(frozen=True, kw_only=True)
class LoadScenario(Scenario):
    precisions: tuple[str, ...] = option(
        ("int8", "int4", "memory_critical"), "levels and profiles to load in"
    )
    repeats: int = option(3, "loads in each, in processes of their own")


@dataclass(frozen=True, kw_only=True)
class KVCodecsScenario(Scenario):
    levels: tuple[str, ...] = option(("int8", "fp8", "int8/int4", "int4"), "what to compress to")
    corpus: str = option("", "text to measure on; empty: chats of the tasks")
    num_documents: int = option(600, "chats, or windows of the text")
    window: int = option(512, "tokens of a window of the text, of which the second half is judged")
    repeats: int = option(7, "times that encoding and decoding are timed")
    tasks: tuple[str, ...] = option(
        ("retrieval_64", "retrieval_128", "retrieval_256", "retrieval_512", "retrieval_1024"),
        "tasks of the bundled model that are asked with prompts from a tier; none: leave that out",
    )
    num_examples: int = option(100, "held-out questions per task")
    max_tokens: int = option(32, "longest answer")
    concurrency: int = option(16, "questions at once")


@dataclass(frozen=True, kw_only=True)
class SiteScenario(Scenario):
    """What is struck, and how it is set up for that."""

    max_tokens: int = option(400, "longest answer", least=4)
    faults: tuple[str, ...] = option(
        ("kill", "stop", "kill twice"),
        "kinds, in turn: kill, stop, kill twice (again while it loads), kill all, kill rank, "
        "stop rank; with --hosts kill host, stop host, cut, partition, slow link; with "
        "--small-disk-mib full disk",
    )
    heartbeat_timeout: float = option(
        2.0, "the setting, in seconds, and link_timeout with it", least=0
    )
    hosts: int = option(0, "engines run on so many hosts, behind links that fail; 0: here", least=0)
    host_threads: int = option(1, "threads of each host's engine")
    small_disk_mib: int = option(
        0,
        "caches lie on a file system of so many MiB, which takes root; 0: on the usual one",
        least=0,
    )
    journal: str = option("", "file to write to as it goes; one that is there is gone on with")


@dataclass(frozen=True, kw_only=True)
class ChaosScenario(SiteScenario):
    num_faults: int = option(50, "faults in all")
    num_streams: int = option(32, "calls at once, of all kinds in turn")
    faults_per_round: int = option(3, "most faults while the calls run once")
    longest_delay: float = option(1.5, "seconds from ready to the next fault, at most", least=0)


@dataclass(frozen=True, kw_only=True)
class AvailabilityScenario(SiteScenario):
    max_tokens: int = option(64, "longest answer", least=4)
    faults: tuple[str, ...] = option(("kill",), "kinds, in turn; as for chaos")
    minutes: float = option(60.0, "how long", least=0.05)
    rate: float = option(2.0, "calls a second, at random moments", least=0.01)
    every_s: float = option(60.0, "seconds from one fault to the next", least=1)
    num_calls: int = option(36, "different calls, of all kinds in turn; each comes again and again")


@dataclass(frozen=True, kw_only=True)
class FairnessScenario(Scenario):
    num_tenants: int = option(4, "API keys; the second is the loud one", least=3)
    factor: int = option(20, "times as many streams as a quiet tenant that the loud one has")
    num_streams: int = option(
        24, "streams at once of each other tenant, where shares are measured: more than its seats"
    )
    seconds: float = option(12.0, "that shares are measured for", least=0.1)
    share_prompt_tokens: int = option(128, "prompt length there")
    prompt_tokens: int = option(512, "prompt length where first tokens are timed, and of the load")
    output_tokens: int = option(64, "output length of the load")
    quiet_output_tokens: int = option(8, "output length where first tokens are timed")
    num_requests: int = option(200, "first tokens timed in a round")
    rounds: int = option(3, "alone, then beside a load")
    pause: float = option(0.02, "seconds between these requests, on average", least=0)
    settling: float = option(2.0, "seconds from the start of a load until it counts", least=0)


@dataclass(frozen=True, kw_only=True)
class GuardsScenario(Scenario):
    repeats: int = option(40, "rounds; each asks a question of every task")
    tasks: tuple[str, ...] = option(
        ("small_talk", "novacron", "addition_large", "json_make", "sort"),
        "tasks of the bundled model to ask for",
    )
    max_tokens: int = option(64, "longest answer")
    chunkings: int = option(100_000, "texts that are cut into pieces at random", least=0)


@dataclass(frozen=True, kw_only=True)
class RanksScenario(Scenario):
    ranks: int = option(2, "processes that compute together", least=2)
    ways: tuple[str, ...] = option(
        ("rows", "slices", "linked slices"),
        "what to compare with one process: rows (context_parallel_size), slices "
        "(tensor_parallel_size), stages (pipeline_parallel_size), and linked rows, linked slices "
        "and linked stages, whose ranks are reached over encrypted links on loopback, as on other "
        "hosts",
    )
    prompt_tokens: tuple[int, ...] = option((1024, 4096), "prompt lengths")
    output_tokens: int = option(17, "output length", least=2)
    repeats: int = option(8, "rounds; each asks all engines once")


@dataclass(frozen=True, kw_only=True)
class StartupScenario(Scenario):
    repeats: int = option(5, "starts that count; one more comes first to warm the page cache")


@dataclass(frozen=True, kw_only=True)
class SpeculationScenario(Scenario):
    methods: tuple[str, ...] = option(("ngram",), "what to compare with off: ngram, draft")
    draft_model: str = option("", "folder of the draft model; empty: the bundled one")
    num_streams: tuple[int, ...] = option((1, 4, 16), "questions at once; goals are for the most")
    num_questions: int = option(4, "questions that each stream asks, one after another")
    tasks: tuple[str, ...] = option(
        ("small_talk", "novacron", "addition_large", "json_make", "json_read", "sort"),
        "tasks of the bundled model to ask for; these have answers of more than a few words",
    )
    output_tokens: int = option(128, "longest answer")
    temperature: float = option(0.0, "0: greedy", least=0)
    repeats: int = option(7, "rounds; each asks all methods once")


@dataclass(frozen=True, kw_only=True)
class ResourcesScenario(Scenario):
    idle_seconds: float = option(5.0, "how long to watch the idle server", least=0.1)
    num_streams: int = option(32, "requests at once")
    prompt_tokens: int = option(64, "prompt length")
    output_tokens: int = option(128, "output length")
    repeats: int = option(3, "batches")


S = TypeVar("S", bound=Scenario)


def read_scenarios(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a scenario file (TOML): one per benchmark, its keys the scenario's fields."""
    try:
        tables = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no scenario file: {error}.") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: '{name}' stands outside of a table such as [latency].")
    return tables


def make_scenario(kind: type[S], values: Mapping[str, Any]) -> S:
    """A scenario from the values of a table or of options. Raises ConfigError."""
    known = {part.name for part in fields(kind)}
    named = {name.replace("-", "_"): value for name, value in values.items()}
    if unknown := named.keys() - known:
        raise ConfigError(
            f"There is no {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}."
        )
    given: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in named.items()}
    return kind(**given)
