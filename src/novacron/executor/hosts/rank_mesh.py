"""How ranks on several hosts come to have a link each to every other one."""

from __future__ import annotations

import math
from functools import partial

from novacron.executor.hosts.orders import Attach, encode
from novacron.executor.hosts.own_part import OwnHost, OwnPart
from novacron.executor.hosts.rank_post import GroupOver, RankPost
from novacron.parallel.collectives.message_ranks import MessageRanks, Receive, Send
from novacron.parallel.messages.links import LinkLost, Received, TensorLink
from novacron.parallel.messages.tensor_message import Priority
from novacron.parallel.traffic import RankTraffic


def meet_others(
    own: OwnPart,
    host: OwnHost,
    post: RankPost,
    links: dict[int, TensorLink],
    traffic: RankTraffic,
) -> MessageRanks:
    """Connect to the ranks above, which `links` gets, and wait for those below. Who waits for
    others afterwards does not hang. Raises GroupOver and LinkLost."""
    rank = own.join.rank
    for other, address in own.load.hosts.items():
        link = host.open_link(address, post.epoch, rank, other, host.on_loss)
        links[other] = link
        link.send(*encode(Attach(), priority=Priority.DATA))
    post.wait_for_neighbours()
    below = range(rank)
    send: dict[int, Send] = {other: partial(post.send_to, other) for other in below}
    receive: dict[int, Receive] = {
        other: _not_computing(host, partial(post.next_partial, other)) for other in below
    }
    for other, link in links.items():
        send[other], receive[other] = link.send, _not_computing(host, link.receive)
    return MessageRanks(rank, send, receive, patience_s=math.inf, traffic=traffic)


def _not_computing(host: OwnHost, receive: Receive) -> Receive:
    def wait(timeout_s: float) -> Received | None:
        host.computing(False)
        try:
            return receive(timeout_s)
        except GroupOver as over:
            raise LinkLost(str(over)) from None
        finally:
            host.computing(True)

    return wait
