"""Tuning: settings of the tiers that would have served a trace better, by trying on a replay.

Random search with successive halving: many candidates are replayed on the first part of the trace,
the better half of them on twice as much, and so on, until a few are replayed on all of it. The
settings in effect are among them to the end. Nothing here touches a server: the result is a
proposal, and only if it is ahead by a margin.

Source: successive halving (Jamieson and Talwalkar, 2016).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from novacron.cache_simulator.compression import FIGURES, Level
from novacron.cache_simulator.replay import Costs, Outcome, PrefetchConfig, TierConfig, replay
from novacron.cache_simulator.trace import Trace
from novacron.errors import ConfigError
from novacron.kv_tiers.eviction.choice import PolicyConfig, PolicyName
from novacron.kv_tiers.eviction.cost import CostConfig
from novacron.kv_tiers.eviction.score import Weights

_FEWEST_REQUESTS: Final = 200  # of a part that says anything
_SEARCHED: Final[tuple[PolicyName, ...]] = ("lru", "lfu", "arc", "cost", "ttl", "learned")
_TTLS_S: Final = (300, 900, 1800, 3600, 3 * 3600, 12 * 3600, 24 * 3600)
_PREFETCH_SHARE: Final = 8  # of RAM, one part in so many is the buffer, as the server's is
_TRY_PREFETCH: Final = 0.3
_LEAST_SHARE: Final = 0.25  # of what a tier may take
_AS_GOOD: Final = 0.002  # of the best score
_WEIGHTS: Final = ("temporal", "frequency", "prediction", "recompute", "context")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a proposal keeps to: bytes at most, by tier, and what must be ahead to be proposed."""

    ram_bytes: int
    disk_bytes: int
    levels: tuple[Level, ...] = ("raw",)  # that the model is known to bear
    margin: float = 0.02  # of the score
    target_hit_rate: float = 1.0  # end early if it is reached

    def __post_init__(self) -> None:
        if self.ram_bytes < 0 or self.disk_bytes < 0 or self.ram_bytes + self.disk_bytes == 0:
            raise ConfigError("There is nothing to tune: give --ram, --disk or both.")
        for name in ("margin", "target_hit_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}: give a fraction.")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A candidate. 0 bytes: the tier is off. With prefetch an eighth of RAM is its buffer."""

    ram_bytes: int
    disk_bytes: int
    policy: PolicyConfig
    ram_level: Level = "raw"
    disk_level: Level = "raw"
    prefetch: bool = False

    @property
    def prefetch_bytes(self) -> int:
        return self.ram_bytes // _PREFETCH_SHARE if self.prefetch and self.disk_bytes else 0

    def tiers(self, ram_bytes_per_s: float, disk_bytes_per_s: float) -> list[TierConfig]:
        """Both have the policy, as the server's do."""
        of_ram = self.ram_bytes - self.prefetch_bytes
        both: tuple[tuple[str, int, float, Level], ...] = (
            ("ram", of_ram, ram_bytes_per_s, self.ram_level),
            ("disk", self.disk_bytes, disk_bytes_per_s, self.disk_level),
        )
        return [
            TierConfig(
                kind=kind, capacity_bytes=size, policy=self.policy, bytes_per_s=speed, level=level
            )
            for kind, size, speed, level in both
            if size > 0
        ]


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What was tried. `proposed` is None if nothing is ahead of `current` by the margin."""

    current: Settings
    current_outcome: Outcome
    best: Settings
    best_outcome: Outcome
    proposed: Settings | None
    gain: float  # of the best over the current score
    num_replays: int
    ended_early: bool


Replay = Callable[[Trace, Settings], Outcome]


def tune(
    trace: Trace,
    current: Settings,
    limits: Limits,
    *,
    costs: Costs,
    ram_bytes_per_s: float = 8e9,
    disk_bytes_per_s: float = 1e9,
    budget: int = 32,
    seed: int = 0,
) -> Tuned:
    """`budget` candidates at the start. The same seed gives the same result. Raises ConfigError."""
    if budget < 2:
        raise ConfigError(f"The budget is {budget}: give 2 candidates or more.")
    check_limits(current, limits)
    block_bytes = trace.block_tokens * costs.bytes_per_token
    rng = random.Random(seed)
    candidates = [current, *_first_candidates(current, limits)]
    while len(candidates) < budget:
        candidates.append(_draw(rng, limits, block_bytes))
    candidates = [
        one for one in dict.fromkeys(candidates[:budget]) if is_usable(one, limits, block_bytes)
    ]
    if current not in candidates:
        raise ConfigError("The current tiers cannot hold a block of the trace: give them more.")

    def try_on(part: Trace, settings: Settings) -> Outcome:
        prefetch = None
        if settings.prefetch_bytes:
            prefetch = PrefetchConfig(
                buffer_bytes=settings.prefetch_bytes, load_bytes_per_s=ram_bytes_per_s
            )
        return replay(part, settings.tiers(ram_bytes_per_s, disk_bytes_per_s), costs, prefetch)

    return _halve(trace, candidates, current, limits, try_on)


def score(outcome: Outcome) -> float:
    """Seconds to the first token that a request is spared, on average."""
    return outcome.saved_s


def check_limits(settings: Settings, limits: Limits) -> None:
    """Raises ConfigError if the settings in effect take more than the limits allow."""
    for name in ("ram_bytes", "disk_bytes"):
        taken, most = getattr(settings, name), getattr(limits, name)
        if taken > most:
            raise ConfigError(
                f"The current settings have {name} {taken}, above the limit of {most}. "
                "Raise the limit, or give the current sizes with --current-ram, --current-disk."
            )


def is_usable(settings: Settings, limits: Limits, block_bytes: int) -> bool:
    """Whether it keeps to the limits, and no tier is too small for a block."""
    within = settings.ram_bytes <= limits.ram_bytes and settings.disk_bytes <= limits.disk_bytes
    is_known = {settings.ram_level, settings.disk_level} <= {"raw", *limits.levels}
    sizes = (settings.ram_bytes - settings.prefetch_bytes, settings.disk_bytes)
    fits = all(size == 0 or size >= block_bytes for size in sizes)
    return within and is_known and any(sizes) and fits


def _halve(
    trace: Trace,
    candidates: Sequence[Settings],
    current: Settings,
    limits: Limits,
    try_on: Replay,
) -> Tuned:
    num_rounds = max(1, (len(candidates) - 1).bit_length())
    num_replays = 0
    left = list(candidates)
    outcomes: dict[Settings, Outcome] = {}
    ended_early = False
    for round_left in range(num_rounds - 1, -1, -1):
        count = max(_FEWEST_REQUESTS, len(trace.requests) >> round_left)
        part = replace(trace, requests=trace.requests[:count])
        outcomes = {one: try_on(part, one) for one in left}
        num_replays += len(left)
        left.sort(key=lambda one: score(outcomes[one]), reverse=True)
        is_whole = len(part.requests) == len(trace.requests)
        reached = outcomes[left[0]].hit_rate >= limits.target_hit_rate
        if is_whole or reached:
            ended_early = reached and round_left > 0
            break
        kept = left[: max(1, (len(left) + 1) // 2)]
        left = kept if current in kept else [*kept, current]
    if ended_early:
        outcomes = {one: try_on(trace, one) for one in dict.fromkeys((left[0], current))}
        num_replays += len(outcomes)
    best = _smallest_of_best(left, outcomes)
    gain = score(outcomes[best]) - score(outcomes[current])
    is_ahead = gain > limits.margin * max(abs(score(outcomes[current])), 1e-9)
    return Tuned(
        current=current,
        current_outcome=outcomes[current],
        best=best,
        best_outcome=outcomes[best],
        proposed=best if is_ahead else None,
        gain=gain,
        num_replays=num_replays,
        ended_early=ended_early,
    )


def _smallest_of_best(left: Sequence[Settings], outcomes: Mapping[Settings, Outcome]) -> Settings:
    """Of those as good as the first, the one that takes the fewest bytes."""
    highest = score(outcomes[left[0]])
    good = [
        one
        for one in left
        if one in outcomes and score(outcomes[one]) >= highest - _AS_GOOD * abs(highest)
    ]
    return min(good, key=lambda one: one.ram_bytes + one.disk_bytes)


def _first_candidates(current: Settings, limits: Limits) -> list[Settings]:
    """The limits themselves, and the current sizes with each policy."""
    full = replace(current, ram_bytes=limits.ram_bytes, disk_bytes=limits.disk_bytes)
    policies = [PolicyConfig(name=name) for name in _SEARCHED]
    coarsest = max(limits.levels, key=lambda level: FIGURES[level].ratio)
    others = [replace(full, prefetch=True)] if full.ram_bytes and full.disk_bytes else []
    if coarsest != "raw":
        others.append(replace(full, ram_level=coarsest, disk_level=coarsest))
    return [full, *(replace(full, policy=policy) for policy in policies), *others]


def _draw(rng: random.Random, limits: Limits, block_bytes: int) -> Settings:
    name = rng.choice(_SEARCHED)
    policy = PolicyConfig(name=name)
    if name == "cost":
        weights = Weights(size=0.0, **{key: round(rng.random(), 2) for key in _WEIGHTS})
        policy = replace(policy, cost=CostConfig(weights=weights))
    elif name == "ttl":
        policy = replace(policy, ttl_s=float(rng.choice(_TTLS_S)))
    return Settings(
        ram_bytes=_draw_size(rng, limits.ram_bytes, block_bytes),
        disk_bytes=_draw_size(rng, limits.disk_bytes, block_bytes),
        policy=policy,
        ram_level=rng.choice(limits.levels),
        disk_level=rng.choice(limits.levels),
        prefetch=rng.random() < _TRY_PREFETCH,
    )


def _draw_size(rng: random.Random, most: int, block_bytes: int) -> int:
    """All that it may have, or less, in whole blocks."""
    if most == 0 or rng.random() < 0.5:
        return most
    return max(block_bytes, int(most * rng.uniform(_LEAST_SHARE, 1.0)) // block_bytes * block_bytes)
