"""VariantSwitch: which of several variants new requests go to, by what the watch over quality says.

Pure: readings in, a decision out. The ladder is the main variant and those that are finer, the
finest last. Below the floor new requests go up to the next finer variant; they come back down once
the one that was left has recovered. It is left at once, and comes back slowly: all answers that the
watch's figure is a mean of must have been scored since, and it must be well above the floor. So a
variant is left at most once in so many of its scored answers, whatever the figures do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from novacron.quality.watch import ANSWERS_IN_FIGURES, FEWEST_FOR_FLOOR, recovery_limit

RECOVERY_ANSWERS = ANSWERS_IN_FIGURES


@dataclass(frozen=True)
class Reading:
    """What is known of one variant of the ladder. `quality` is over the answers scored last."""

    name: str
    is_ready: bool
    quality: float | None = None
    num_scored: int = 0


@dataclass(frozen=True)
class Switch:
    """New requests have gone to `left`, and go to `entered` from now on."""

    left: str
    entered: str
    reason: str


@dataclass
class VariantSwitch:
    """`observe` is given readings of the whole ladder; `choice` is where new requests are to go."""

    floor: float
    main: str
    choice: str = field(init=False)
    _scored_when_left: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.choice = self.main

    @property
    def left(self) -> frozenset[str]:
        """Variants that have lost new requests and have not recovered."""
        return frozenset(self._scored_when_left)

    def observe(self, ladder: Sequence[Reading]) -> Switch | None:
        """Move at most once."""
        names = [reading.name for reading in ladder]
        if self.choice not in names:
            return None
        here = names.index(self.choice)
        for reading in ladder:
            self._notice_restart(reading)
        if self._is_below(ladder[here]):
            finer = [one for one in ladder[here + 1 :] if one.is_ready and self._is_good(one)]
            return self._climb(ladder[here], finer[0]) if finer else None
        coarser = [one for one in ladder[:here] if one.is_ready and self._is_good(one)]
        return self._come_down(ladder[here], coarser[0]) if coarser else None

    def _climb(self, left: Reading, entered: Reading) -> Switch:
        self._scored_when_left[left.name] = left.num_scored
        self._scored_when_left.pop(entered.name, None)
        self.choice = entered.name
        reason = f"its quality is {left.quality:.4f}, below the floor of {self.floor:g}"
        return Switch(left.name, entered.name, reason)

    def _come_down(self, left: Reading, entered: Reading) -> Switch:
        was_left = self._scored_when_left.pop(entered.name, None) is not None
        self.choice = entered.name
        reason = f"{entered.name} is ready"
        if was_left:
            reason = (
                f"{entered.name} has recovered: its quality is {entered.quality:.4f} over "
                f"{RECOVERY_ANSWERS} answers scored since"
            )
        return Switch(left.name, entered.name, reason)

    def _notice_restart(self, reading: Reading) -> None:
        """An engine that was started anew counts from 0, and so do we."""
        if reading.num_scored < self._scored_when_left.get(reading.name, 0):
            self._scored_when_left[reading.name] = 0

    def _is_below(self, one: Reading) -> bool:
        is_known = one.quality is not None and one.num_scored >= FEWEST_FOR_FLOOR
        return is_known and one.quality is not None and one.quality < self.floor

    def _is_good(self, one: Reading) -> bool:
        if one.name in self._scored_when_left:
            return self._has_recovered(one)
        return not self._is_below(one)

    def _has_recovered(self, one: Reading) -> bool:
        since = one.num_scored - self._scored_when_left[one.name]
        is_high = one.quality is not None and one.quality >= recovery_limit(self.floor)
        return is_high and since >= RECOVERY_ANSWERS


def serving(ladder: Sequence[Reading], choice: str) -> str:
    """`choice`, or while that is not ready its nearest neighbour that is, a finer one first; for so
    long only, and without a switch."""
    names = [reading.name for reading in ladder]
    if choice not in names:
        return choice
    here = names.index(choice)
    by_nearness = (*ladder[here:], *reversed(ladder[:here]))
    return next((one.name for one in by_nearness if one.is_ready), choice)
