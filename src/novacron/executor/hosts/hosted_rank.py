"""A rank on a host of its own, until the end of its group: the first one that asks."""

from __future__ import annotations

from novacron.errors import NovaCronError
from novacron.executor.blueprint import dims_of
from novacron.executor.hosts.beside_steps import BesideSteps, Part
from novacron.executor.hosts.hosted_rows import HostedRows
from novacron.executor.hosts.hosted_slice import HostedSlice
from novacron.executor.hosts.hosted_stage import HostedStage
from novacron.executor.hosts.hosted_tiers import HostedTiers
from novacron.executor.hosts.orders import PartFailed, PartReady
from novacron.executor.hosts.own_part import OwnHost, OwnPart, agree_on_part
from novacron.executor.hosts.rank_post import GroupOver, RankPost
from novacron.parallel.dims import ParallelDims
from novacron.parallel.handover import HandoverLost


def serve_group(host: OwnHost) -> str:
    """Be a rank of the first group that asks. Why that is over, as half a sentence."""
    post = RankPost(host.listener)
    try:
        join = post.wait_for_group()
        host.begin(join)
        try:
            own = agree_on_part(join, host, post)
            part = _load_part(dims_of(join.model), own, host, post)
        except NovaCronError as error:
            return _failed(post, error)
        tiers = HostedTiers(part.rank, own.model, own.cache, post.tell)
        try:
            post.tell(PartReady(part.rank.digest))
            beside = BesideSteps(part, tiers, post.tell)
            while True:
                found = post.order_within(beside.patience_s)
                if found is None:
                    beside.rest()
                else:
                    order, header = found
                    beside.follow(order, header.deadline_ns)
        except NovaCronError as error:
            return _failed(post, error)
        finally:
            tiers.close()
            part.close()
    except (GroupOver, HandoverLost, ConnectionError) as over:
        return str(over)


def _load_part(dims: ParallelDims, own: OwnPart, host: OwnHost, post: RankPost) -> Part:
    """Raises NovaCronError and GroupOver."""
    if dims.context > 1:
        return HostedRows(own, host, post)
    return (HostedStage if dims.pipeline > 1 else HostedSlice)(own, host, post)


def _failed(post: RankPost, error: NovaCronError) -> str:
    post.tell(PartFailed(type(error).__name__, str(error)))
    return f"it cannot be served: {error}"
