"""Learning-rate schedule and the order in which context lengths enter training."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

WARM_UP_STEPS: Final = 60
DECAY_FRACTION: Final = 0.35
ADVANCE_BELOW_LOSS: Final = 0.35
_AVERAGED_STEPS: Final = 20
_COMPLETE_WEIGHTS: Final = (2, 4, 3, 1)


@dataclass
class RateSchedule:
    """Factor of the rates: warm-up, constant, linear decay to zero at `total_steps`."""

    total_steps: int
    decay_start: int

    @classmethod
    def of_length(cls, total_steps: int) -> RateSchedule:
        return cls(total_steps, round(total_steps * (1 - DECAY_FRACTION)))

    @classmethod
    def ending(cls, step: int, steps: int, factor: float) -> RateSchedule:
        """A schedule that falls in a straight line from `factor` at `step` to zero."""
        total = step + steps
        return cls(total, round(total - steps / factor))

    def factor(self, step: int) -> float:
        warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
        if step < self.decay_start:
            return warm_up
        decay = (self.total_steps - step) / (self.total_steps - self.decay_start)
        return max(0.0, warm_up * decay)


@dataclass
class Curriculum:
    """Which row lengths the retrieval batches use.

    Starts with the shortest and admits the next length when the running loss of the longest
    admitted one is low.
    """

    num_lengths: int
    admitted: int = 1
    average_loss: float = 10.0

    @property
    def complete(self) -> bool:
        return self.admitted == self.num_lengths

    def choose(self, rng: Random) -> int:
        """Index of a length: the newest half of the time, else any admitted one.

        Once all are admitted, the middle ones come most often.
        """
        if self.complete:
            return rng.choices(range(self.num_lengths), _COMPLETE_WEIGHTS)[0]
        return self.admitted - 1 if rng.random() < 0.5 else rng.randrange(self.admitted)

    def observe(self, chosen: int, loss: float) -> None:
        if chosen != self.admitted - 1:
            return
        self.average_loss += (loss - self.average_loss) / _AVERAGED_STEPS
        if self.average_loss < ADVANCE_BELOW_LOSS and not self.complete:
            self.admitted += 1
            self.average_loss = 10.0
