"""FetchChoice: whether a request waits for its blocks or has them computed, from measured costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from novacron.records.output import TierSpec
from novacron.scheduler.fetch_or_compute import ComputeCost, FetchCost, choose_cut
from novacron.scheduler.linear_times import LinearTimes

# Latency, and bytes per second, that are expected of a tier before it was used.
_EXPECTED: Final[Mapping[str, tuple[float, float]]] = {
    "ram": (0.0005, 1e9),
    "prefetch": (0.0005, 1e9),
    "disk": (0.002, 3e8),
    "redis": (0.002, 3e8),  # rather too quick: what was never tried is never measured
}
_EXPECTED_OF_OTHERS: Final = (0.02, 5e7)
_EXPECTED_BLOCKS: Final = 64
_LEAST_PROMPT_TOKENS: Final = 64  # of a step that tells what prompts cost
_HOPE: Final = 0.98  # each time that a tier is passed over


class FetchChoice(Protocol):
    """Asked for each request whose prefix goes on in a tier, and told what happens."""

    def cut(self, chain: Sequence[int | None], num_more_tokens: int) -> int:
        """How many of these blocks to fetch (see choose_cut)."""
        ...

    def see_load(self, tier: int, num_blocks: int, seconds: float) -> None:
        """So long after it was ordered, a load of so many blocks from one tier had come."""
        ...

    def begin_step(self, num_tokens: int, num_parts: int) -> None:
        """A step of so many tokens, of so many requests, is going to be computed."""
        ...

    def end_step(self) -> None: ...


class AlwaysFetch:
    """Implements FetchChoice."""

    def cut(self, chain: Sequence[int | None], num_more_tokens: int) -> int:
        return len(chain)

    def see_load(self, tier: int, num_blocks: int, seconds: float) -> None:
        pass

    def begin_step(self, num_tokens: int, num_parts: int) -> None:
        pass

    def end_step(self) -> None:
        pass


class MeasuredFetchChoice:
    """Implements FetchChoice with what steps and loads have taken.

    Before a step was computed nothing is known of computing, and everything is fetched: that is a
    start with full tiers. A tier that was not used yet is expected to be slow for its kind.
    """

    def __init__(
        self,
        tiers: Sequence[TierSpec],
        *,
        block_bytes: int,
        block_size: int,
        tokens_per_step: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._block_size = block_size
        self._tokens_per_step = tokens_per_step
        self._clock = clock
        self._loads = [_expected_loads(tier, block_bytes) for tier in tiers]
        self._steps = LinearTimes()
        self._step_tokens = 0
        self._step_began_s = 0.0

    def cut(self, chain: Sequence[int | None], num_more_tokens: int) -> int:
        chosen = choose_cut(
            chain,
            {
                tier: FetchCost(times.latency_s, times.per_piece_s)
                for tier, times in enumerate(self._loads)
            },
            self._compute_cost,
            block_size=self._block_size,
            num_more_tokens=num_more_tokens,
        )
        for tier in {tier for tier in chain[chosen:] if tier is not None}:
            self._loads[tier].hope(_HOPE)
        return chosen

    def see_load(self, tier: int, num_blocks: int, seconds: float) -> None:
        self._loads[tier].observe(num_blocks, seconds)

    def begin_step(self, num_tokens: int, num_parts: int) -> None:
        if num_tokens - num_parts >= _LEAST_PROMPT_TOKENS:
            self._step_tokens = num_tokens
            self._step_began_s = self._clock()

    def end_step(self) -> None:
        if self._step_tokens > 0:
            self._steps.observe(self._step_tokens, self._clock() - self._step_began_s)
            self._step_tokens = 0

    @property
    def _compute_cost(self) -> ComputeCost | None:
        if self._steps.num_samples == 0:
            return None
        return ComputeCost(self._steps.latency_s, self._steps.per_piece_s, self._tokens_per_step)


def _expected_loads(tier: TierSpec, block_bytes: int) -> LinearTimes:
    latency_s, bytes_per_s = _EXPECTED.get(tier.kind, _EXPECTED_OF_OTHERS)
    return LinearTimes(latency_s, block_bytes / bytes_per_s, _EXPECTED_BLOCKS)
