"""What executors have in common whose ranks are on several hosts."""

from __future__ import annotations

from collections.abc import Sequence

from novacron.executor.hosts.compression_report import CompressionReport
from novacron.executor.hosts.host_team import HostTeam
from novacron.records.block_moves import BlockNews, BlockOrders, TierKeys
from novacron.records.output import ModelSpec
from novacron.records.step import DraftOutput, SchedulerOutput


class OverHosts:
    """The part of an Executor that does not depend on how the model is shared out. There are no
    draft models and no KV tiers over hosts."""

    _team: HostTeam
    _spec: ModelSpec
    _report: CompressionReport

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    @property
    def worst_compression_error(self) -> float:
        """Relative, of what hosts have sent each other; 0 where nothing is compressed."""
        return self._report.worst

    def draft(self, scheduler_output: SchedulerOutput) -> DraftOutput:
        raise AssertionError("no draft model was loaded")

    def move_blocks(self, orders: BlockOrders) -> None:
        raise AssertionError("there are no KV tiers")

    def block_news(self, wait_s: float = 0.0) -> BlockNews | None:
        return None

    def blocks_of(self, scope: bytes) -> Sequence[TierKeys]:
        return ()

    def shutdown(self) -> None:
        """Let go of the other hosts; this one's tensors go with this object."""
        self._team.close()
