"""What is asked of a server, and when: seeded generators of prompts and arrivals. Pure.

The same arguments give the same workload on every machine, so that two servers, or two commits,
can be asked the same thing.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from novacron.errors import ConfigError

Prompt = tuple[int, ...] | str

_WORDS = tuple(
    "the of and to in is it you that he was for on are with as his they be at one have this from "
    "or had by hot word but what some we can out other were all there when up use your how said "
    "an each she which do their time if will way about many then them write would like so these "
    "her long make thing see him two has look more day could go come did number sound no most "
    "people my over know water than call first who may down side been now find".split()
)
_TRACE_BLOCK_TOKENS = 512  # tokens that one hash id of a Mooncake trace stands for


@dataclass(frozen=True)
class PlannedRequest:
    """One request of an open-loop load: sent `at_s` after its start, whatever happened before."""

    at_s: float
    prompt: Prompt
    max_tokens: int


class PromptMaker:
    """Draws prompts of a wanted length in a server's own terms.

    With `token_ids` to draw from, prompts are token ids and their length is exact. Without, they
    are common English words, one token each in most vocabularies; what a server made of them is
    read from its usage report.
    """

    def __init__(self, token_ids: Sequence[int] = ()) -> None:
        self._token_ids = token_ids

    def draw(self, rng: random.Random, num_tokens: int) -> Prompt:
        if self._token_ids:
            return tuple(rng.choices(self._token_ids, k=num_tokens))
        return " ".join(rng.choices(_WORDS, k=num_tokens))

    def join(self, prefix: Prompt, rest: Prompt) -> Prompt:
        """One prompt that starts with `prefix`, token for token."""
        if isinstance(prefix, str):
            return f"{prefix} {rest}"
        assert not isinstance(rest, str)
        return prefix + rest


def make_prompts(maker: PromptMaker, seed: int, count: int, num_tokens: int) -> list[Prompt]:
    """Prompts that have nothing in common."""
    rng = random.Random(f"prompts/{seed}")
    return [maker.draw(rng, num_tokens) for _ in range(count)]


def shared_prefix_prompts(
    maker: PromptMaker,
    seed: int,
    count: int,
    *,
    num_prefixes: int,
    prefix_tokens: int,
    suffix_tokens: int,
) -> list[Prompt]:
    """Prompts that start with one of a few system prompts and end with a question of their own."""
    rng = random.Random(f"shared/{seed}")
    prefixes = [maker.draw(rng, prefix_tokens) for _ in range(num_prefixes if prefix_tokens else 0)]
    prompts = []
    for _ in range(count):
        suffix = maker.draw(rng, suffix_tokens)
        prompts.append(maker.join(rng.choice(prefixes), suffix) if prefixes else suffix)
    return prompts


def arrivals(
    seed: int, count: int, rate_per_s: float, *, burstiness: float = 1.0, burst_size: int = 1
) -> list[float]:
    """Times of `count` arrivals at a mean rate; the first is at 0.

    Gaps are gamma distributed: burstiness 1 is a Poisson process, below 1 is burstier, above 1
    more even. A burst of `burst_size` requests arrives at once. An infinite rate sends all at 0.
    Source: the burstiness parameter follows vLLM's serving benchmark (Apache-2.0).
    """
    if rate_per_s == float("inf"):
        return [0.0] * count
    rng = random.Random(f"arrivals/{seed}")
    mean_gap_s = burst_size / rate_per_s
    times: list[float] = []
    now_s = 0.0
    while len(times) < count:
        times += [now_s] * min(burst_size, count - len(times))
        now_s += rng.gammavariate(burstiness, mean_gap_s / burstiness)
    return times


def plan(
    prompts: Iterable[Prompt], times: Iterable[float], max_tokens: int
) -> list[PlannedRequest]:
    return [
        PlannedRequest(at_s, prompt, max_tokens)
        for prompt, at_s in zip(prompts, times, strict=True)
    ]


def replay(
    lines: Iterable[str], maker: PromptMaker, seed: int, *, limit: int, speed: float = 1.0
) -> list[PlannedRequest]:
    """The first `limit` requests of a trace in Mooncake's JSONL form.

    Each line gives timestamp (ms), input_length, output_length and hash_ids, which name the blocks
    of 512 tokens of the prompt; prompts that share ids share text. Raises ConfigError.
    """
    blocks: dict[int, Prompt] = {}
    planned = []
    for number, line in enumerate(itertools.islice(_filled(lines), limit), start=1):
        try:
            entry = json.loads(line)
            at_s = entry["timestamp"] / 1000 / speed
            length, max_tokens = int(entry["input_length"]), int(entry["output_length"])
            hash_ids = entry.get("hash_ids", [])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"Line {number} of the trace is no request: {error!r}. A line holds timestamp "
                "(ms), input_length, output_length and hash_ids, as in the Mooncake traces."
            ) from error
        prompt = _trace_prompt(maker, seed, number, length, hash_ids, blocks)
        planned.append(PlannedRequest(at_s, prompt, max(1, max_tokens)))
    return planned


def _filled(lines: Iterable[str]) -> Iterator[str]:
    return (line for line in lines if line.strip())


def _trace_prompt(
    maker: PromptMaker,
    seed: int,
    number: int,
    length: int,
    hash_ids: Sequence[int],
    blocks: dict[int, Prompt],
) -> Prompt:
    """Whole blocks by their id, then tokens of this request alone up to `length`."""
    shared = hash_ids[: length // _TRACE_BLOCK_TOKENS]
    for hash_id in shared:
        if hash_id not in blocks:
            rng = random.Random(f"block/{seed}/{hash_id}")
            blocks[hash_id] = maker.draw(rng, _TRACE_BLOCK_TOKENS)
    own = max(1, length - len(shared) * _TRACE_BLOCK_TOKENS)
    parts = [blocks[hash_id] for hash_id in shared]
    parts.append(maker.draw(random.Random(f"own/{seed}/{number}"), own))
    prompt = parts[0]
    for part in parts[1:]:
        prompt = maker.join(prompt, part)
    return prompt
