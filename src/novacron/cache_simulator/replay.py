"""Replay of a trace against tiers: what would be found where, and what that would save.

A request is one moment: it finds the longest run of its prompt's blocks, each in the fastest tier
that has it; these are marked as used in every tier; then every tier gets what it lacks of the
request, its answer included, as the scheduler offers it. Queues, steps and the time of copies are
not modelled, so hits are an upper bound for requests that overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from novacron.cache_simulator.tier_model import SimulatedTier
from novacron.cache_simulator.trace import Trace, TraceRequest
from novacron.errors import ConfigError
from novacron.kv_tiers.eviction.choice import PolicyConfig, make_policy
from novacron.kv_tiers.eviction.policy import EvictionCounts
from novacron.records.block_moves import BlockOrigin


@dataclass(frozen=True, kw_only=True)
class TierConfig:
    """A tier to try. `bytes_per_s` is what blocks come from it with."""

    kind: str
    capacity_bytes: int
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    bytes_per_s: float


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
    """`saved_s` is the mean time to the first token that a request is spared."""

    num_requests: int
    prompt_tokens: int
    hit_rate: float
    saved_s: float
    tiers: tuple[TierOutcome, ...]


def replay(trace: Trace, tiers: Sequence[TierConfig], costs: Costs) -> Outcome:
    """Fastest tier first. Raises ConfigError if one cannot hold a block."""
    block_bytes = trace.block_tokens * costs.bytes_per_token
    models = []
    for tier in tiers:
        num_blocks = tier.capacity_bytes // block_bytes
        if num_blocks < 1:
            raise ConfigError(
                f"The tier {tier.kind} has {tier.capacity_bytes} bytes, but a block of "
                f"{trace.block_tokens} tokens takes {block_bytes}. Give it more, or leave it out."
            )
        models.append(SimulatedTier(num_blocks, make_policy(tier.policy, num_blocks)))
    hits = run(trace, models)
    return _outcome(trace, tiers, models, hits, costs)


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Blocks, of each tier."""

    found: tuple[int, ...]
    stored: tuple[int, ...]


def run(trace: Trace, tiers: Sequence[SimulatedTier]) -> Hits:
    found, stored = [0] * len(tiers), [0] * len(tiers)
    for request in trace.requests:
        num_found = _look_up(request, tiers, found)
        now_s = request.arrival_s
        for key in request.blocks[:num_found][::-1]:
            for tier in tiers:
                if key in tier.held:
                    tier.policy.touch(key, now_s)
        for index, tier in enumerate(tiers):
            stored[index] += _store(request, tier)
    return Hits(found=tuple(found), stored=tuple(stored))


def _look_up(request: TraceRequest, tiers: Sequence[SimulatedTier], found: list[int]) -> int:
    """How many blocks the prompt starts with; the last of its tokens is computed in any case."""
    num_usable = request.num_prompt_blocks
    for place, key in enumerate(request.blocks[:num_usable]):
        for index, tier in enumerate(tiers):
            if key in tier.held:
                found[index] += 1
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
        saved_s += tokens / costs.prefill_tokens_per_s - found * block_bytes / config.bytes_per_s
        outcomes.append(
            TierOutcome(
                kind=config.kind,
                policy=config.policy.name,
                capacity_blocks=config.capacity_bytes // block_bytes,
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
