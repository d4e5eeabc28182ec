"""LinkedRowsExecutor: long prompts of which several hosts compute some tokens each, this process
the first one. Every host has the whole model, and all KV blocks.

What MultiprocessExecutor does with blocks that ranks share, messages do here. Short steps are this
process's alone: others hear nothing of them, and get the blocks that these have written to before
the next long step that reads them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.executor.blueprint import Blueprint
from novacron.executor.hosts.balance import plan_rows
from novacron.executor.hosts.host_team import HostTeam
from novacron.executor.hosts.leading_tiers import LeadingTiers
from novacron.executor.hosts.orders import Meet
from novacron.executor.hosts.part_blocks import LeadingBlocks
from novacron.executor.hosts.row_meeting import HostRowMeeting
from novacron.executor.hosts.stale_blocks import StaleBlocks
from novacron.executor.hosts.step_orders import order_of
from novacron.executor.hosts.whole_steps import WholeSteps
from novacron.executor.own_rank import OwnRank
from novacron.executor.row_memory import kernels_for_rows
from novacron.executor.tiered_blocks import TieredBlocks
from novacron.parallel.collectives.message_ranks import MessageRanks
from novacron.parallel.messages.links import LinkLost
from novacron.runner.captured_step import ComputedHere, DecoderStep, capture_step
from novacron.runner.input_batch import StepInput
from novacron.runner.led_step import LedStep
from novacron.runner.shared_rows import OwnRows, RowShare, SharedRowsStep


class LinkedRowsExecutor(WholeSteps):
    """Implements Executor."""

    _plan = staticmethod(plan_rows)
    _sent_between_hosts = "KV blocks"

    _stale: StaleBlocks | None = None

    def _join(self, own: Blueprint) -> Blueprint:
        return own

    def _leading_step(self, rank: OwnRank, blocks: LeadingBlocks) -> DecoderStep:
        blueprint, batch, kv_tensors = rank.blueprint, rank.batch, rank.kv_tensors
        group = blueprint.rows_group
        hidden = (batch.max_num_tokens, blueprint.config.hidden_size)
        meeting = HostRowMeeting(
            group, kernels_for_rows(blueprint, group.size), kv_tensors, self._traffic,
            torch.zeros(hidden, dtype=blueprint.dtype),
        )  # fmt: skip
        if self._stale is None:
            self._stale = StaleBlocks(kv_tensors.num_blocks, kv_tensors.block_size)
        else:  # other ranks than before, which have none
            self._stale.see_filled(range(kv_tensors.num_blocks))
        self._team.tell_all(Meet())
        lines, patience_s = self._team.lines, self._hosts.step_timeout_s or math.inf
        meeting.join(
            MessageRanks(
                0, lines.send_ways(), lines.receive_ways(),
                patience_s=patience_s, traffic=self._traffic,
            )
        )  # fmt: skip
        share = RowShare(rank.decoder, kv_tensors.layers, batch, group, meeting)
        lead = _Lead(self._team, blocks, self._stale, meeting)
        return SharedRowsStep(
            _Alone(capture_step(rank.decoder, kv_tensors.layers, batch), self._stale),
            LedStep(OwnRows(rank.decoder, share, batch.max_num_tokens), lead),
            share.is_worth,
        )

    def _open_tiers(
        self,
        rank: OwnRank,
        blocks: LeadingBlocks,
        kv_identity: str,
        block_bytes: int,
        model: ModelConfig,
        cache: CacheConfig,
    ) -> LeadingTiers:
        assert self._stale is not None
        return LeadingTiers(TieredBlocks(rank, kv_identity, model, cache), self._stale)


class _Alone(ComputedHere):
    """Implements DecoderStep: steps of which other hosts hear nothing."""

    def __init__(self, own: DecoderStep, stale: StaleBlocks) -> None:
        self._own, self._stale = own, stale

    def hidden(self, inputs: StepInput) -> Tensor:
        self._stale.see_step(inputs.arrays)
        return self._own.hidden(inputs)

    def logits(self, hidden_TD: Tensor, places: Sequence[int]) -> Tensor:
        return self._own.logits(hidden_TD, places)


class _Lead:
    """Implements Lead. No step is computed again from its beginning by others than began it; rank 0
    makes all logits itself."""

    def __init__(
        self, team: HostTeam, blocks: LeadingBlocks, stale: StaleBlocks, meeting: HostRowMeeting
    ) -> None:
        self._team, self._blocks, self._stale = team, blocks, stale
        self._meeting = meeting

    def run_step(self, inputs: StepInput, places: Sequence[int]) -> None:
        zeroed, filled = self._blocks.take_zeroed(), self._stale.take_read(inputs.arrays)
        order = order_of(inputs.arrays, zeroed, with_tokens=True, filled=filled)
        try:
            self._team.tell_all(order)
        except LinkLost as error:
            raise ConnectionError(str(error)) from None
        self._meeting.send_blocks(filled)

    def compute_logits(self, places: Sequence[int]) -> None:
        pass

    def recover(self) -> None:
        raise LinkLost(self._team.loss or "it does not answer")
