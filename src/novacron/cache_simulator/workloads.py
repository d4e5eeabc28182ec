"""Made-up traffic: chats, retrieval, agents, a mixture, and two that are hard on caches.

The parameters are guesses at what such traffic looks like, not fits to anybody's logs: lengths and
gaps are log-normal, popularity follows Zipf, sessions arrive at random. The same seed gives the
same trace. Rates make a trace denser or sparser; what a cache sees is the ratio of its size to the
blocks that arrive between two uses.
"""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from novacron.cache_simulator.prompt_chain import PromptChain
from novacron.cache_simulator.trace import Trace, TraceRequest, make_trace
from novacron.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class WorkloadConfig:
    """`num_requests` in all. `load` 2 lets twice as many sessions come in the same time."""

    num_requests: int = 20_000
    block_tokens: int = 256
    seed: int = 0
    load: float = 1.0

    def __post_init__(self) -> None:
        for name in ("num_requests", "block_tokens", "load"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}: give a positive number.")


@dataclass(frozen=True, slots=True)
class _Ask:
    """A request before it is known which of all are kept."""

    at_s: float
    chain: PromptChain
    num_prompt_blocks: int
    prompt_tokens: int
    output_tokens: int
    session: str
    scope: str


class _Zipf:
    """Numbers from 0 on, the first the most likely."""

    def __init__(self, count: int, exponent: float) -> None:
        weights = ((rank + 1) ** -exponent for rank in range(count))
        self._sums = list(itertools.accumulate(weights))

    def draw(self, rng: random.Random) -> int:
        return bisect.bisect(self._sums, rng.random() * self._sums[-1])


def _length(rng: random.Random, median: float, sigma: float, most: int) -> int:
    return max(1, min(most, round(rng.lognormvariate(math.log(median), sigma))))


def _ask(chain: PromptChain, at_s: float, output_tokens: int, session: str, scope: str) -> _Ask:
    """The answer becomes a part of the chain."""
    num_blocks, num_tokens = len(chain.blocks), chain.num_tokens
    chain.add(f"answer {session} {num_tokens}", output_tokens)
    return _Ask(at_s, chain.copy(), num_blocks, num_tokens, output_tokens, session, scope)


def _chat(rng: random.Random, block_tokens: int, load: float) -> Iterator[list[_Ask]]:
    """Sessions, one every 4 s: one of 20 system prompts (Zipf 1, 400 tokens), then turns of 60
    tokens asked and 250 answered (medians). A third of them end after the first turn; the others go
    on with a chance of their own, 0.85 on average. 45 s between turns (median, sigma 1.2)."""
    prompts = _Zipf(20, 1.0)
    lengths = [_length(rng, 400, 0.8, 4000) for _ in range(20)]
    for number, start_s in enumerate(_arrivals(rng, 4.0 / load)):
        session, at_s = f"chat {number}", start_s
        which = prompts.draw(rng)
        chain = PromptChain(block_tokens).add(f"system {which}", lengths[which])
        goes_on = 0.0 if rng.random() < 1 / 3 else rng.betavariate(8.5, 1.5)
        asks: list[_Ask] = []
        for turn in range(60):
            chain.add(f"{session} {turn}", _length(rng, 60, 1.1, 6000))
            asks.append(_ask(chain, at_s, _length(rng, 250, 0.8, 2000), session, "chat"))
            if rng.random() >= goes_on:
                break
            at_s += rng.lognormvariate(math.log(45), 1.2)
        yield asks


def _rag(rng: random.Random, block_tokens: int, load: float) -> Iterator[list[_Ask]]:
    """Questions, one every 2 s, each about 3 of 3,000 documents (Zipf 0.9, 900 tokens) behind one
    instruction (300 tokens). What is popular changes: every hour a tenth of the ranks is dealt
    anew."""
    popularity = _Zipf(3000, 0.9)
    documents = list(range(3000))
    lengths = [_length(rng, 900, 0.6, 8000) for _ in documents]
    next_change_s = 3600.0
    for number, at_s in enumerate(_arrivals(rng, 2.0 / load)):
        while at_s > next_change_s:
            next_change_s += 3600
            for place in rng.sample(range(3000), 150):
                other = rng.randrange(3000)
                documents[place], documents[other] = documents[other], documents[place]
        session = f"rag {number}"
        chain = PromptChain(block_tokens).add("instruction", 300)
        for which in sorted({documents[popularity.draw(rng)] for _ in range(3)}):
            chain.add(f"document {which}", lengths[which])
        chain.add(session, _length(rng, 40, 0.7, 500))
        yield [_ask(chain, at_s, _length(rng, 180, 0.7, 1500), session, "rag")]


def _agent(rng: random.Random, block_tokens: int, load: float) -> Iterator[list[_Ask]]:
    """Tasks, one every 20 s: one of 8 agents (instructions with tools, 3,000 tokens), 12 steps
    (median) that add 500 tokens each, 6 s apart (median, sigma 1). Before one step in ten a person
    is asked, which takes minutes; one task in five hands a part to another agent, whose chain
    starts anew and whose result comes back."""
    agents = _Zipf(8, 0.8)
    lengths = [_length(rng, 3000, 0.5, 12000) for _ in range(8)]
    for number, at_s in enumerate(_arrivals(rng, 20.0 / load)):
        asks: list[_Ask] = []
        parts = 2 if rng.random() < 0.2 else 1
        for part in range(parts):
            which = agents.draw(rng)
            session = f"agent {number} {part}"
            chain = PromptChain(block_tokens).add(f"tools {which}", lengths[which])
            chain.add(f"{session} task", _length(rng, 300, 0.8, 5000))
            for step in range(_length(rng, 12, 0.7, 80)):
                asks.append(_ask(chain, at_s, _length(rng, 120, 0.7, 1500), session, "agent"))
                chain.add(f"{session} {step}", _length(rng, 500, 1.0, 8000))
                gap = (240, 1.0) if rng.random() < 0.1 else (6, 1.0)
                at_s += rng.lognormvariate(math.log(gap[0]), gap[1])
        yield asks


def _batch(rng: random.Random, block_tokens: int, load: float) -> Iterator[list[_Ask]]:
    """Runs over data, one every 10 minutes: 150 prompts of 2,500 tokens (median), one a second.
    Nothing of them ever comes back."""
    for number, start_s in enumerate(_arrivals(rng, 600.0 / load)):
        asks: list[_Ask] = []
        for item in range(150):
            session = f"batch {number} {item}"
            chain = PromptChain(block_tokens).add(session, _length(rng, 2500, 0.6, 20000))
            asks.append(_ask(chain, start_s + item, 50, session, "batch"))
        yield asks


def _loop(rng: random.Random, block_tokens: int, load: float) -> Iterator[list[_Ask]]:
    """The same 400 prompts of 2,500 tokens (median) over and over, in order, one every 2 s: an
    evaluation that is run again and again. What was used longest ago comes next."""
    lengths = [_length(rng, 2500, 0.6, 20000) for _ in range(400)]
    for number in itertools.count():
        item = number % 400
        chain = PromptChain(block_tokens).add(f"item {item}", lengths[item])
        yield [_ask(chain, number * 2.0 / load, 20, f"loop {item}", "loop")]


def _arrivals(rng: random.Random, mean_gap_s: float) -> Iterator[float]:
    at_s = 0.0
    while True:
        at_s += rng.expovariate(1 / mean_gap_s)
        yield at_s


_Source = Callable[[random.Random, int, float], Iterator[list[_Ask]]]

WORKLOADS: Final[Mapping[str, tuple[_Source, ...]]] = {
    "chat": (_chat,),
    "rag": (_rag,),
    "agent": (_agent,),
    "mixed": (_chat, _rag, _agent, _batch),
    "scan": (_chat, _batch),
    "loop": (_loop,),
}


def make_workload(name: str, config: WorkloadConfig) -> Trace:
    """A trace of the workload of this name. Raises ConfigError if there is none."""
    if name not in WORKLOADS:
        raise ConfigError(f"There is no workload '{name}'; there are {', '.join(WORKLOADS)}.")
    sources = [
        source(random.Random(f"{config.seed} {source.__name__}"), config.block_tokens, config.load)
        for source in WORKLOADS[name]
    ]
    return make_trace(config.block_tokens, map(_request, _first(sources, config.num_requests)))


def _first(sources: list[Iterator[list[_Ask]]], count: int) -> list[_Ask]:
    """The requests of all sources that come first. A session's first one comes after those of the
    sessions before it, so a source is asked until it is past what is kept."""
    heads = [next(source) for source in sources]
    asks: list[_Ask] = []
    while True:
        index = min(range(len(heads)), key=lambda index: heads[index][0].at_s)
        if len(asks) >= count and len(asks) % 64 == 0:
            asks.sort(key=lambda ask: ask.at_s)
            if asks[count - 1].at_s <= heads[index][0].at_s:
                return asks[:count]
        asks += heads[index]
        heads[index] = next(sources[index])


def _request(ask: _Ask) -> TraceRequest:
    return TraceRequest(
        ask.at_s,
        ask.prompt_tokens,
        ask.output_tokens,
        ask.chain.blocks,
        ask.num_prompt_blocks,
        ask.session.encode(),
        ask.scope.encode(),
    )
