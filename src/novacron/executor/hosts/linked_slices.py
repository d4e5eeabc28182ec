"""LinkedSlicesExecutor: a model of which several hosts have a slice of every layer, this process
the first one.

What MultiprocessExecutor does with memory that ranks share, messages do here; the steps are the
same, and with native kernels every number is. Each host has the KV blocks of its own heads; all
have as many as the one with the least room."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from novacron.executor.blueprint import Blueprint
from novacron.executor.hosts.balance import plan_slices
from novacron.executor.hosts.host_sums import join_hosts
from novacron.executor.hosts.host_team import HostTeam
from novacron.executor.hosts.orders import ComputeLogits, Meet, ToRank
from novacron.executor.hosts.part_blocks import LeadingBlocks
from novacron.executor.hosts.step_orders import order_of
from novacron.executor.hosts.whole_steps import WholeSteps
from novacron.executor.own_rank import OwnRank
from novacron.parallel.collectives.message_ranks import MessageRanks
from novacron.parallel.messages.links import LinkLost
from novacron.runner.captured_step import DecoderStep, capture_step
from novacron.runner.input_batch import StepInput
from novacron.runner.led_step import LedStep

logger = logging.getLogger(__name__)


class LinkedSlicesExecutor(WholeSteps):
    """Implements Executor."""

    _plan = staticmethod(plan_slices)
    _sent_between_hosts = "partial sums"

    def _join(self, own: Blueprint) -> Blueprint:
        joined, self._exchange = join_hosts(
            own, self._scheduler, self._hosts.compression, self._traffic, self._report.see
        )
        return joined

    def _leading_step(self, rank: OwnRank, blocks: LeadingBlocks) -> DecoderStep:
        self._team.tell_all(Meet())
        lines, patience_s = self._team.lines, self._hosts.step_timeout_s or math.inf
        self._exchange.meet(
            MessageRanks(
                0, lines.send_ways(), lines.receive_ways(),
                patience_s=patience_s, traffic=self._traffic,
            )
        )  # fmt: skip
        logger.info("sums over hosts: %s", _described(self._exchange.chosen))
        own = capture_step(rank.decoder, rank.kv_tensors.layers, rank.batch)
        return LedStep(own, _Lead(self._team, blocks))


class _Lead:
    """Implements Lead. What a lost host held cannot be had again: no step can be computed from its
    beginning."""

    def __init__(self, team: HostTeam, blocks: LeadingBlocks) -> None:
        self._team, self._blocks = team, blocks

    def run_step(self, inputs: StepInput, places: Sequence[int]) -> None:
        zeroed = self._blocks.take_zeroed()
        self._tell(order_of(inputs.arrays, zeroed, with_tokens=True, places=places))

    def compute_logits(self, places: Sequence[int]) -> None:
        self._tell(ComputeLogits(tuple(places)))

    def recover(self) -> None:
        raise LinkLost(self._team.loss or "it does not answer")

    def _tell(self, order: ToRank) -> None:
        try:
            self._team.tell_all(order)
        except LinkLost as error:
            raise ConnectionError(str(error)) from None


def _described(chosen: dict[int, str]) -> str:
    return ", ".join(f"{name} near {size // 1024} KiB" for size, name in chosen.items())
