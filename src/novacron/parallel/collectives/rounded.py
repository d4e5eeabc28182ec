"""Sums over ranks whose parts travel in int8: for slow links, where answers may change a little.

Every rank rounds its part once, each row to 255 steps of one scale, and adds up what all of them
have sent, in the kernels' order; its own part as the others see it, so that all get the same bits.

Shapes: T rows, D values of each; B bytes of a rounded part.
"""

from __future__ import annotations

from torch import Tensor

from novacron.parallel.collectives.algorithms import add_as_tree
from novacron.parallel.collectives.point_to_point import PointToPoint
from novacron.parallel.messages.activation_codec import round_rows, widen_rows


def rounded_all_reduce(ranks: PointToPoint, x_TD: Tensor) -> float:
    """Make `x_TD` about the sum over ranks. Returns the worst relative error of a part."""
    own_B = round_rows(x_TD)
    others = [other for other in range(ranks.size) if other != ranks.rank]
    for other in others:
        ranks.send(other, own_B)
    parts = [x_TD] * ranks.size
    error = widen_rows(own_B, x_TD)
    for other in others:
        theirs_B = own_B.new_empty(own_B.shape)
        ranks.receive(other, theirs_B)
        parts[other] = x_TD.new_empty(x_TD.shape)
        error = max(error, widen_rows(theirs_B, parts[other]))
    x_TD.copy_(add_as_tree(parts))
    return error
