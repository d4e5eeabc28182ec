"""HostedSlice: a slice of every layer on a host of its own.

It computes each step with the others, whom it meets in every sum; only rank 0 knows requests.
"""

from __future__ import annotations

import torch

from novacron.executor.hosts.host_sums import join_hosts
from novacron.executor.hosts.orders import ComputeLogits, Meet, RunStep, ToRank
from novacron.executor.hosts.own_part import OwnHost, OwnPart
from novacron.executor.hosts.rank_mesh import meet_others
from novacron.executor.hosts.rank_post import GroupOver, RankPost
from novacron.executor.hosts.step_orders import arrays_of
from novacron.parallel.messages.links import TensorLink
from novacron.parallel.traffic import RankTraffic, Traffic
from novacron.runner.captured_step import capture_step


class HostedSlice:
    """Loaded when made. Raises NovaCronError, and GroupOver."""

    def __init__(self, own: OwnPart, host: OwnHost, post: RankPost) -> None:
        self._own, self._host, self._post = own, host, post
        self.links: dict[int, TensorLink] = {}
        self.traffic = RankTraffic()
        self.others: tuple[Traffic, ...] = ()
        post.expect(own.load.keys, from_leader=True)
        blueprint, self._exchange = join_hosts(
            own.blueprint, own.join.scheduler, own.join.compression, self.traffic
        )
        self.rank = rank = own.load_rank(blueprint, post)
        self._blocks, self._batch = rank.kv_tensors, rank.batch
        self._step = capture_step(rank.decoder, self._blocks.layers, self._batch)
        self._hidden_TD = torch.empty(0)

    @torch.inference_mode()
    def follow(self, order: ToRank, deadline_ns: int) -> None:
        """Raises ConnectionError and GroupOver. Steps are not late before their end: the leader
        waits for that as long as it has said."""
        self._host.computing(True)
        match order:
            case RunStep():
                self._run(order)
            case ComputeLogits(places):
                self._step.logits(self._hidden_TD, places)
            case Meet():
                self._exchange.meet(
                    meet_others(self._own, self._host, self._post, self.links, self.traffic)
                )
            case _:
                raise GroupOver(f"an order {type(order).__name__} came where a step was due")
        self._host.computing(False)

    def close(self) -> None:
        for link in self.links.values():
            link.close()

    def _run(self, order: RunStep) -> None:
        if order.zeroed:
            self._blocks.taint(order.zeroed)
            self._blocks.clean(order.zeroed)
        arrays = arrays_of(order, self._own.cache.block_size)
        counts = order.num_tokens, order.num_requests, arrays.block_tables_RB.shape[1]
        self._hidden_TD = self._step.hidden(self._batch.copied_input(arrays, *counts))
        if order.places:
            self._step.logits(self._hidden_TD, order.places)
