"""Executor: all ranks of one replica, driven as one."""

from __future__ import annotations

from typing import Protocol

from novacron.records.block_moves import BlockNews, BlockOrders
from novacron.records.output import ModelSpec
from novacron.records.step import DraftOutput, ModelRunnerOutput, SchedulerOutput


class Executor(Protocol):
    """Computes what the scheduler decided. Calls come from one thread, one at a time."""

    @property
    def spec(self) -> ModelSpec:
        """Facts about the loaded model, number of KV blocks included."""
        ...

    def draft(self, scheduler_output: SchedulerOutput) -> DraftOutput:
        """Make the guesses that a decision with `drafting` asks for; `execute` follows with the
        same step."""
        ...

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        """Compute one step. An exception means that the replica is lost, not only a request."""
        ...

    def move_blocks(self, orders: BlockOrders) -> None:
        """Store blocks in KV tiers and load others, beside the steps. Does not wait for it."""
        ...

    def block_news(self, wait_s: float = 0.0) -> BlockNews | None:
        """What came of `move_blocks` since the last call, and at first what tiers hold already;
        waits up to so long for some."""
        ...

    def shutdown(self) -> None:
        """Free devices and processes. Harmless when called again."""
        ...
