"""Replay of a trace against tiers: what would be found where, and what that would save.

A request is one moment: it finds the longest run of its prompt's blocks, each in the fastest tier
that has it; these are marked as used in every tier; then every tier gets what it lacks of the
request, its answer included, as the scheduler offers it. Queues, steps and the time of copies are
not modelled, so hits are an upper bound for requests that overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from novacron.cache_simulator.ahead import Ahead
from novacron.cache_simulator.compression import FIGURES, Level
from novacron.cache_simulator.tier_model import SimulatedTier
from novacron.cache_simulator.trace import Trace, TraceRequest
from novacron.errors import ConfigError
from novacron.kv_tiers.eviction.choice import PolicyConfig, make_policy
from novacron.kv_tiers.eviction.policy import EvictionCounts
from novacron.records.block_moves import BlockOrigin


@dataclass(frozen=True, kw_only=True)
class TierConfig:
    """A tier to try. `bytes_per_s` is what its bytes come with, which are fewer where it
    compresses."""

    kind: str
    capacity_bytes: int
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    bytes_per_s: float
    level: Level = "raw"

    def blocks(self, block_bytes: int) -> int:
        """How many it holds."""
        return int(self.capacity_bytes * FIGURES[self.level].ratio // block_bytes)

    def load_s(self, num_bytes: int) -> float:
        """Of so many bytes of whole blocks."""
        figures = FIGURES[self.level]
        return num_bytes / figures.ratio / self.bytes_per_s + num_bytes / figures.whole_bytes_per_s


@dataclass(frozen=True, kw_only=True)
class PrefetchConfig:
    """A buffer between RAM and disk for blocks of sessions that are due."""

    buffer_bytes: int
    bytes_per_s: float = 256 * 2**20  # that are fetched
    load_bytes_per_s: float = 8e9  # from the buffer


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of the model that is served: what a token's KV takes, and computing it."""

    bytes_per_token: int = 131_072  # a model of 8 B parameters with 8 KV heads, in bfloat16
    prefill_tokens_per_s: float = 5_000.0

    def __post_init__(self) -> None:
        for name in ("bytes_per_token", "prefill_tokens_per_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}: give a positive number.")


@dataclass(frozen=True, kw_only=True)
class TierOutcome:
    """What became of one tier. `hit_rate` is the share of prompt tokens that came from it."""

    kind: str
    policy: str
    capacity_blocks: int
    num_blocks: int
    hit_tokens: int
    hit_rate: float
    stored_bytes: int
    loaded_bytes: int
    counts: EvictionCounts


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`saved_s` is the mean time to the first token that a request is spared. `prefetch_used` is
    the share of the blocks fetched ahead that were used; None where none were."""

    num_requests: int
    prompt_tokens: int
    hit_rate: float
    saved_s: float
    tiers: tuple[TierOutcome, ...]
    prefetch_used: float | None = None


def replay(
    trace: Trace,
    tiers: Sequence[TierConfig],
    costs: Costs,
    prefetch: PrefetchConfig | None = None,
) -> Outcome:
    """Fastest tier first. Raises ConfigError if one cannot hold a block. Prefetch is from tiers of
    kind disk into a buffer that is as fast as RAM."""
    block_bytes = trace.block_tokens * costs.bytes_per_token
    models = []
    for tier in tiers:
        num_blocks = tier.blocks(block_bytes)
        if num_blocks < 1:
            raise ConfigError(
                f"The tier {tier.kind} has {tier.capacity_bytes} bytes, but a block of "
                f"{trace.block_tokens} tokens takes {block_bytes}. Give it more, or leave it out."
            )
        models.append(SimulatedTier(num_blocks, make_policy(tier.policy, num_blocks)))
    ahead = None if prefetch is None else _ahead(prefetch, tiers, models, block_bytes)
    hits = run(trace, models, ahead)
    outcome = _outcome(trace, tiers, models, hits, costs)
    if prefetch is None or ahead is None or not ahead.num_fetched:
        return outcome
    quicker_s = sum(
        count * (config.load_s(block_bytes) - block_bytes / prefetch.load_bytes_per_s)
        for config, count in zip(tiers, hits.ahead, strict=True)
    )
    return replace(
        outcome,
        saved_s=outcome.saved_s + quicker_s / len(trace.requests),
        prefetch_used=ahead.num_used / ahead.num_fetched,
    )


def _ahead(
    prefetch: PrefetchConfig,
    tiers: Sequence[TierConfig],
    models: Sequence[SimulatedTier],
    block_bytes: int,
) -> Ahead | None:
    """None if the buffer cannot hold a block, or nothing is slower than it."""
    num_blocks = prefetch.buffer_bytes // block_bytes
    is_slow = [tier.kind == "disk" for tier in tiers]
    if num_blocks < 1 or not any(is_slow):
        return None
    return Ahead(
        num_blocks,
        prefetch.bytes_per_s / block_bytes,
        [model for model, slow in zip(models, is_slow, strict=True) if not slow],
        [model for model, slow in zip(models, is_slow, strict=True) if slow],
    )


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Blocks, of each tier; `ahead` are those among `found` that were in the buffer by then."""

    found: tuple[int, ...]
    stored: tuple[int, ...]
    ahead: tuple[int, ...] = ()


def run(trace: Trace, tiers: Sequence[SimulatedTier], ahead: Ahead | None = None) -> Hits:
    found, stored, early = [0] * len(tiers), [0] * len(tiers), [0] * len(tiers)
    for request in trace.requests:
        if ahead is not None:
            ahead.advance(request.arrival_s)
        num_found = _look_up(request, tiers, found, ahead, early)
        if ahead is not None:
            ahead.see(request)
        now_s = request.arrival_s
        for key in request.blocks[:num_found][::-1]:
            for tier in tiers:
                if key in tier.held:
                    tier.policy.touch(key, now_s)
        for index, tier in enumerate(tiers):
            stored[index] += _store(request, tier)
    return Hits(found=tuple(found), stored=tuple(stored), ahead=tuple(early))


def _look_up(
    request: TraceRequest,
    tiers: Sequence[SimulatedTier],
    found: list[int],
    ahead: Ahead | None,
    early: list[int],
) -> int:
    """How many blocks the prompt starts with; the last of its tokens is computed in any case."""
    num_usable = request.num_prompt_blocks
    for place, key in enumerate(request.blocks[:num_usable]):
        for index, tier in enumerate(tiers):
            if key in tier.held:
                found[index] += 1
                if ahead is not None and index > 0:
                    early[index] += ahead.has(key, request.arrival_s)
                break
        else:
            return place
    return num_usable


def _store(request: TraceRequest, tier: SimulatedTier) -> int:
    """What the tier lacks, up to a block that it does not keep. How many that were."""
    count, parent = 0, None
    for depth, key in enumerate(request.blocks):
        if key not in tier.held:
            origin = BlockOrigin(parent, depth, request.session, request.scope)
            if not tier.store(key, origin, request.arrival_s):
                break
            count += 1
        parent = key
    return count


def _outcome(
    trace: Trace,
    configs: Sequence[TierConfig],
    models: Sequence[SimulatedTier],
    hits: Hits,
    costs: Costs,
) -> Outcome:
    prompt_tokens = sum(request.prompt_tokens for request in trace.requests)
    block_bytes = trace.block_tokens * costs.bytes_per_token
    saved_s = 0.0
    outcomes: list[TierOutcome] = []
    for config, model, found, stored in zip(configs, models, hits.found, hits.stored, strict=True):
        tokens = found * trace.block_tokens
        saved_s += tokens / costs.prefill_tokens_per_s - config.load_s(found * block_bytes)
        outcomes.append(
            TierOutcome(
                kind=config.kind,
                policy=config.policy.name,
                capacity_blocks=config.blocks(block_bytes),
                num_blocks=len(model.held),
                hit_tokens=tokens,
                hit_rate=tokens / prompt_tokens,
                stored_bytes=stored * block_bytes,
                loaded_bytes=found * block_bytes,
                counts=model.policy.counts,
            )
        )
    return Outcome(
        num_requests=len(trace.requests),
        prompt_tokens=prompt_tokens,
        hit_rate=sum(one.hit_rate for one in outcomes),
        saved_s=saved_s / len(trace.requests),
        tiers=tuple(outcomes),
    )
