"""HostedStage: a stage of a pipeline on a host of its own.

It takes hidden states over from the stage before, and sends what it makes of them to the next one.
"""

from __future__ import annotations

import torch

from novacron.executor.hosts.hops import HopEntry, HopExit, Send
from novacron.executor.hosts.orders import RunStep, ToRank
from novacron.executor.hosts.own_part import OwnHost, OwnPart
from novacron.executor.hosts.rank_post import GroupOver, RankPost
from novacron.executor.hosts.stage_ranks import stage_ranks
from novacron.executor.hosts.step_orders import arrays_of
from novacron.parallel.messages.links import Received, TensorLink
from novacron.parallel.messages.tensor_message import NO_DEADLINE
from novacron.parallel.traffic import RankTraffic, Traffic


class HostedStage:
    """Loaded when made. Raises NovaCronError, and GroupOver."""

    def __init__(self, own: OwnPart, host: OwnHost, post: RankPost) -> None:
        self._host, self._deadline_ns = host, NO_DEADLINE
        self.links: dict[int, TensorLink] = {}
        self.traffic = RankTraffic()
        load, blueprint = own.load, own.blueprint
        post.expect(load.keys, from_leader=not load.keys)
        self._ranks = ranks = stage_ranks(
            blueprint,
            own.model,
            own.cache,
            own.join.scheduler,
            load,
            num_places=1,
            on_loss=host.on_loss,
            resting=lambda begins: host.computing(not begins),
        )
        try:
            self.rank = rank = own.load_stage(ranks, post)
        except BaseException:
            ranks.close()
            raise
        self._blocks, self._batch = rank.kv_tensors, rank.batch
        self._block_size, stage = own.cache.block_size, blueprint.stage

        def next_forward() -> Received:
            host.computing(False)
            received = post.next_forward()
            host.computing(True)
            return received

        entry = HopEntry(ranks.ring_KTD, next_forward, self.traffic)
        exits = HopExit(
            self._send_on(own, post),
            0 if stage.is_last else stage.layers.stop,
            own.join.compression,
            lambda: self._deadline_ns,
            self.traffic,
            lambda: entry.error,
        )
        self._step = ranks.step(rank, entry, exits)

    def _send_on(self, own: OwnPart, post: RankPost) -> Send:
        rank = own.join.rank
        if not own.load.hosts:
            return post.hand_back
        address = own.load.hosts[rank + 1]
        link = self._host.open_link(address, post.epoch, rank, rank + 1, self._host.on_loss)
        self.links[rank + 1] = link
        return link.send

    @property
    def others(self) -> tuple[Traffic, ...]:
        return self._ranks.others

    def close(self) -> None:
        self._ranks.close()
        for link in self.links.values():
            link.close()

    def follow(self, order: ToRank, deadline_ns: int) -> None:
        """Raises HandoverLost and GroupOver."""
        if not isinstance(order, RunStep):
            raise GroupOver(f"an order {type(order).__name__} came where a step was due")
        self._host.computing(True)
        self._deadline_ns = deadline_ns
        if order.zeroed:
            self._blocks.taint(order.zeroed)
            self._blocks.clean(order.zeroed)
        arrays = arrays_of(order, self._block_size)
        counts = order.num_tokens, order.num_requests, arrays.block_tables_RB.shape[1]
        with torch.inference_mode():
            self._step.compute(self._batch.copied_input(arrays, *counts), 0)
        self._ranks.see_step(self.traffic)
        self._host.computing(False)
