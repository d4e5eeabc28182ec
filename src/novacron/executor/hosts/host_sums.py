"""How the slices of a model on several hosts are joined: what adds up between them."""

from __future__ import annotations

from collections.abc import Callable

from novacron.config.scheduler import SchedulerConfig
from novacron.executor.blueprint import Blueprint
from novacron.executor.rank_memory import exchange_size
from novacron.parallel.collectives.choice import ALGORITHMS, in_order
from novacron.parallel.collectives.host_exchange import HostExchange
from novacron.parallel.collectives.link_communicator import LinkCommunicator
from novacron.parallel.messages.tensor_message import Compression
from novacron.parallel.traffic import RankTraffic


def join_hosts(
    own: Blueprint,
    scheduler: SchedulerConfig,
    compression: Compression,
    traffic: RankTraffic,
    see_error: Callable[[float], None] = lambda error: None,
) -> tuple[Blueprint, HostExchange]:
    """The blueprint of a rank that is joined with the others once the exchange has met them. Native
    kernels add in their order, whose bits do not depend on the number of ranks; with those of
    torch, which promise that of nothing, any order will do. `traffic` counts meetings."""
    group, kernels = own.group, own.kernels.ranks
    exchange = HostExchange(
        tuple(ALGORITHMS) if kernels is None else in_order(group.size),
        in_int8=compression is Compression.INT8,
        see_error=see_error,
        traffic=traffic,
    )
    if kernels is None:
        return own.joined_by(LinkCommunicator(group.rank, exchange)), exchange
    size = exchange_size(own, scheduler.max_num_batched_tokens)
    return own.joined_by(kernels.join_hosts(group.rank, group.size, size, exchange)), exchange
