"""HostedSlice: a slice of every layer on a host of its own.

It computes each step with the others, whom it meets in every sum; only rank 0 knows requests.
"""

from __future__ import annotations

import math
from functools import partial

import torch

from novacron.executor.hosts.host_sums import join_hosts
from novacron.executor.hosts.orders import Attach, ComputeLogits, Meet, RunStep, ToRank, encode
from novacron.executor.hosts.own_part import OwnHost, OwnPart
from novacron.executor.hosts.rank_post import GroupOver, RankPost
from novacron.executor.hosts.step_orders import arrays_of
from novacron.parallel.collectives.message_ranks import MessageRanks, Receive, Send
from novacron.parallel.messages.links import LinkLost, Received, TensorLink
from novacron.parallel.messages.tensor_message import Priority
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
                self._meet_others()
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

    def _meet_others(self) -> None:
        """Connect to the ranks above, and wait for those below."""
        rank, post = self._own.join.rank, self._post
        for other, address in self._own.load.hosts.items():
            link = self._host.open_link(address, post.epoch, rank, other, self._host.on_loss)
            self.links[other] = link
            link.send(*encode(Attach(), priority=Priority.DATA))
        post.wait_for_neighbours()
        below = range(rank)
        send: dict[int, Send] = {other: partial(post.send_to, other) for other in below}
        receive: dict[int, Receive] = {
            other: self._waiting(partial(post.next_partial, other)) for other in below
        }
        for other, link in self.links.items():
            send[other], receive[other] = link.send, self._waiting(link.receive)
        ranks = MessageRanks(rank, send, receive, patience_s=math.inf, traffic=self.traffic)
        self._exchange.meet(ranks)

    def _waiting(self, receive: Receive) -> Receive:
        """Who waits for others does not hang."""

        def wait(timeout_s: float) -> Received | None:
            self._host.computing(False)
            try:
                return receive(timeout_s)
            except GroupOver as over:
                raise LinkLost(str(over)) from None
            finally:
                self._host.computing(True)

        return wait
