"""HostedRows: all of a model on a host of its own, for some rows of each long step.

It computes them together with the others, whom it meets in every layer; only rank 0 knows requests,
and short steps are its alone.
"""

from __future__ import annotations

import torch

from novacron.executor.hosts.orders import Meet, RunStep, ToRank
from novacron.executor.hosts.own_part import OwnHost, OwnPart
from novacron.executor.hosts.rank_mesh import meet_others
from novacron.executor.hosts.rank_post import GroupOver, RankPost
from novacron.executor.hosts.row_meeting import HostRowMeeting
from novacron.executor.hosts.step_orders import arrays_of
from novacron.executor.row_memory import kernels_for_rows
from novacron.parallel.messages.links import TensorLink
from novacron.parallel.traffic import RankTraffic, Traffic
from novacron.runner.shared_rows import RowShare


class HostedRows:
    """Loaded when made. Raises NovaCronError, and GroupOver."""

    def __init__(self, own: OwnPart, host: OwnHost, post: RankPost) -> None:
        self._own, self._host, self._post = own, host, post
        self.links: dict[int, TensorLink] = {}
        self.traffic = RankTraffic()
        self.others: tuple[Traffic, ...] = ()
        post.expect(own.load.keys, from_leader=True)
        group = own.blueprint.rows_group
        kernels = kernels_for_rows(own.blueprint, group.size)
        self.rank = rank = own.load_rank(own.blueprint, post)
        self._blocks = rank.kv_tensors
        self._meeting = HostRowMeeting(group, kernels, self._blocks, self.traffic)
        self._share = RowShare(rank.decoder, self._blocks.layers, rank.batch, group, self._meeting)

    @torch.inference_mode()
    def follow(self, order: ToRank, deadline_ns: int) -> None:
        """Raises ConnectionError and GroupOver. Steps are not late before their end: the leader
        waits for that as long as it has said."""
        self._host.computing(True)
        match order:
            case RunStep():
                self._run(order)
            case Meet():
                self._meeting.join(
                    meet_others(self._own, self._host, self._post, self.links, self.traffic)
                )
            case _:
                raise GroupOver(f"an order {type(order).__name__} came where a step was due")
        self._host.computing(False)

    def close(self) -> None:
        for link in self.links.values():
            link.close()

    def _run(self, order: RunStep) -> None:
        self._blocks.taint(order.zeroed)
        self._blocks.clean(order.zeroed)
        self._meeting.take_blocks(order.filled)
        self._share.compute(arrays_of(order, self._own.cache.block_size))
