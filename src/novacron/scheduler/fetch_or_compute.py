"""How much of a prefix to fetch from KV tiers, and how much to compute: costs in, a number out.

Fetching the first blocks and computing the rest is the only order there is, because a block builds
upon those before it. So there is one cut to choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

FREE: Final = None  # of a block: it comes without our doing
_WORTH_FETCHING: Final = 1.05  # computing slows others down, fetching hardly does


@dataclass(frozen=True, slots=True)
class ComputeCost:
    """A step takes `per_step_s`, and `per_token_s` for each of at most `tokens_per_step` tokens."""

    per_step_s: float
    per_token_s: float
    tokens_per_step: int

    def of(self, num_tokens: int, num_more: int) -> float:
        """Seconds that these tokens take if `num_more`, which come after them, are computed anyway:
        the steps of those cost nothing more."""
        num_steps = -(-(num_tokens + num_more) // self.tokens_per_step)
        num_steps -= -(-num_more // self.tokens_per_step)
        return num_steps * self.per_step_s + num_tokens * self.per_token_s


@dataclass(frozen=True, slots=True)
class FetchCost:
    """Of one tier: `latency_s` whatever is fetched, and `per_block_s`."""

    latency_s: float
    per_block_s: float


def choose_cut(
    chain: Sequence[int | None],
    fetch: Mapping[int, FetchCost],
    compute: ComputeCost | None,
    *,
    block_size: int,
    num_more_tokens: int,
) -> int:
    """How many blocks of a chain to fetch; the rest of them are computed, and so are
    `num_more_tokens` that no tier has.

    `chain` names the tier of each block in order, FREE for those that are on their way anyhow.
    Without `compute`, which nobody has measured, all are fetched. The estimated cost never exceeds
    that of computing everything that is not free by more than a twentieth.
    """
    if compute is None:
        return len(chain)
    costs = _costs_of_cuts(chain, fetch, compute, block_size, num_more_tokens)
    limit_s = min(costs.values()) * _WORTH_FETCHING
    return max(cut for cut, cost_s in costs.items() if cost_s <= limit_s)


def _costs_of_cuts(
    chain: Sequence[int | None],
    fetch: Mapping[int, FetchCost],
    compute: ComputeCost,
    block_size: int,
    num_more_tokens: int,
) -> dict[int, float]:
    """Of the cuts between runs of one tier: within a run each block costs the same, and only whole
    steps of computing do not. Tiers are taken to work one after the other."""
    num_of_tier: dict[int, int] = {}
    cut, costs = 0, {}

    def cost_s() -> float:
        num_tokens = (len(chain) - cut) * block_size
        fetching_s = sum(
            fetch[tier].latency_s + count * fetch[tier].per_block_s
            for tier, count in num_of_tier.items()
        )
        return fetching_s + compute.of(num_tokens, num_more_tokens)

    costs[0] = cost_s()
    for tier, run in groupby(chain):
        count = len(list(run))
        cut += count
        if tier is not None:
            num_of_tier[tier] = num_of_tier.get(tier, 0) + count
        costs[cut] = cost_s()
    return costs
