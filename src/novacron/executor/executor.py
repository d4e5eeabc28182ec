"""Executor: all ranks of one replica, driven as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from novacron.records.block_moves import BlockNews, BlockOrders, TierKeys
from novacron.records.output import ModelSpec
from novacron.records.step import DraftOutput, ModelRunnerOutput, SchedulerOutput


class BlocksLost(Exception):
    """A rank on another host was lost, and its part of all KV blocks with it: why, as half a
    sentence. All ranks compute together again, another one in its place. Nothing that blocks held
    can be used, steps in flight have no result, and no request is known to ranks any more."""


def tell_nobody(message: str) -> None:
    """The default of `on_loss`: who drives an executor hears of a lost rank at the next step."""


class StepByStep(ABC):
    """The part of an Executor that has one step at a time computed, which takes `execute`."""

    max_steps_in_flight = 1
    _computed: ModelRunnerOutput | None = None

    @abstractmethod
    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput: ...

    def submit(self, scheduler_output: SchedulerOutput) -> None:
        self._computed = self.execute(scheduler_output)

    def collect(self) -> ModelRunnerOutput:
        computed, self._computed = self._computed, None
        assert computed is not None, "nothing was submitted"
        return computed


class Executor(Protocol):
    """Computes what the scheduler decided. Calls come from one thread, one at a time. Those that
    have steps computed, or blocks moved, may raise BlocksLost."""

    @property
    def spec(self) -> ModelSpec:
        """Facts about the loaded model, number of KV blocks included."""
        ...

    def draft(self, scheduler_output: SchedulerOutput) -> DraftOutput:
        """Make the guesses that a decision with `drafting` asks for; `execute` follows with the
        same step."""
        ...

    @property
    def max_steps_in_flight(self) -> int:
        """How many steps may be submitted whose results were not collected."""
        ...

    def submit(self, scheduler_output: SchedulerOutput) -> None:
        """Begin to compute a step, after those before it. An exception means that the replica is
        lost, not only a request."""
        ...

    def collect(self) -> ModelRunnerOutput:
        """The result of the oldest step in flight, as soon as it is there. Raises as `submit`."""
        ...

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        """Both, where no step is in flight."""
        ...

    def move_blocks(self, orders: BlockOrders) -> None:
        """Store blocks in KV tiers and load others, beside the steps. Does not wait for it."""
        ...

    def block_news(self, wait_s: float = 0.0) -> BlockNews | None:
        """What came of `move_blocks` since the last call, and at first what tiers hold already;
        waits up to so long for some."""
        ...

    def blocks_of(self, scope: bytes) -> Sequence[TierKeys]:
        """Blocks of a scope that KV tiers have, also what was put there by others. Raises OSError
        if one of them cannot tell. May take long."""
        ...

    def torn_blocks(self) -> Sequence[TierKeys]:
        """Blocks of which KV tiers of some hosts have their part, and others have not: nobody finds
        them, but they take room."""
        ...

    def shutdown(self) -> None:
        """Free devices and processes. Harmless when called again."""
        ...
