"""Who is measured on what. Pure.

A scenario is one thing that every engine does alike; a contestant is an engine with options. All
rounds of a scenario follow each other, and in each round every contestant has its turn.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from novacron.bench.scenario import Scenario, option
from novacron.errors import ConfigError

Precision = Literal["bf16", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = ("bf16", "int8", "int4")
ENGINES = ("novacron", "llama.cpp", "openvino", "transformers")


@dataclass(frozen=True)
class Work:
    """One scenario. `start` is a prompt of a few tokens in a process that starts for it."""

    kind: Literal["decode", "prefill", "start"]
    prompt_tokens: int
    streams: int = 1
    output_tokens: int = 1

    @property
    def tokens_per_stream(self) -> int:
        return self.prompt_tokens + self.output_tokens

    def question(self, prompts: Sequence[list[int]]) -> dict[str, Any]:
        """What an adapter is asked."""
        if self.kind == "decode":
            return {"do": "decode", "prompts": prompts, "num_tokens": self.output_tokens}
        return {"do": "prefill", "prompt": prompts[0]}


WORKS: Mapping[str, Work] = {
    "decode-1": Work("decode", prompt_tokens=32, output_tokens=48),
    "decode-8": Work("decode", prompt_tokens=32, streams=8, output_tokens=32),
    "decode-16": Work("decode", prompt_tokens=32, streams=16, output_tokens=24),
    "decode-64": Work("decode", prompt_tokens=32, streams=64, output_tokens=12),
    "prefill-512": Work("prefill", prompt_tokens=512),
    "decode-8k": Work("decode", prompt_tokens=8192, output_tokens=32),
    "start": Work("start", prompt_tokens=8),
}


@dataclass(frozen=True)
class Contestant:
    """An engine, and settings of its own that make it another contestant of the same engine."""

    engine: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        told = ",".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.engine}:{told}" if told else self.engine

    @property
    def ours(self) -> bool:
        return self.engine == "novacron"


def parse_contestant(text: str) -> Contestant:
    """`ENGINE` or `ENGINE:name=value,...`. Raises ConfigError."""
    engine, _, told = text.partition(":")
    if engine not in ENGINES:
        raise ConfigError(f"'{engine}' is none of the engines {', '.join(ENGINES)}.")
    options = {}
    for part in filter(None, told.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"'{part}' of '{text}' is no option such as kv_cache_dtype=int8.")
        options[name] = _value(value)
    return Contestant(engine, options)


def _value(text: str) -> Any:
    known = {"true": True, "false": False}
    return known.get(text.lower(), int(text) if text.lstrip("-").isdigit() else text)


@dataclass(frozen=True, kw_only=True)
class PeersScenario(Scenario):
    """What was asked of the harness."""

    contestants: tuple[str, ...] = option(ENGINES, "ENGINE or ENGINE:name=value")
    precisions: tuple[str, ...] = option(PRECISIONS, "precisions of the weights")
    scenarios: tuple[str, ...] = option(tuple(WORKS), "what is measured")
    rounds: int = option(5, "turns of every contestant that count, per scenario")
    threads: int = option(2, "threads of every engine")


@dataclass(frozen=True)
class Demands:
    """The most that any scenario asks of an engine at once."""

    streams: int
    tokens_per_stream: int
    tokens: int


def demands(works: Sequence[Work]) -> Demands:
    return Demands(
        streams=max(work.streams for work in works),
        tokens_per_stream=max(work.tokens_per_stream for work in works) + 16,
        tokens=max(work.streams * (work.tokens_per_stream + 16) for work in works),
    )


def prompts_for(
    name: str, work: Work, turn: int, *, seed: int, first_token: int, vocab_size: int
) -> list[list[int]]:
    """Prompts of random ordinary tokens, the same for every contestant of a turn.

    Those of decoding are the same in every turn, because only what follows them is timed; a
    prefill must not find in a cache what it is to compute.
    """
    fresh = turn if work.kind == "prefill" else "same"
    rng = random.Random(f"{seed}/{name}/{fresh}")
    tokens = range(first_token, vocab_size)
    return [rng.choices(tokens, k=work.prompt_tokens) for _ in range(work.streams)]
