"""AllowedTiers: in which KV tiers the blocks of a request may be, by the regions of both. Pure.

Asked before a block goes to a tier, and before one comes from there. A tier that does not say where
it is is in no region.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from novacron.config.privacy import may_be_in
from novacron.kv_tiers.tier_index import EVERYWHERE
from novacron.records.output import TierSpec

_MOST_REMEMBERED: Final = 1024


class AllowedTiers:
    """Of tiers by their place."""

    def __init__(self, tiers: Sequence[TierSpec]) -> None:
        self._regions = tuple(spec.region for spec in tiers)
        self._masks: dict[tuple[str, ...], int] = {}

    def of(self, regions: tuple[str, ...]) -> int:
        """A bit for each tier."""
        if not regions:
            return EVERYWHERE
        mask = self._masks.get(regions)
        if mask is None:
            mask = sum(
                1 << place
                for place, region in enumerate(self._regions)
                if may_be_in(region, regions)
            )
            if len(self._masks) < _MOST_REMEMBERED:
                self._masks[regions] = mask
        return mask

    def only(self, tiers: Iterable[int], regions: tuple[str, ...]) -> tuple[int, ...]:
        """Those of `tiers` that are allowed."""
        mask = self.of(regions)
        return tuple(tier for tier in tiers if mask >> tier & 1)
