"""Sums and concatenations over ranks, by messages between two of them.

    ring        2 (R - 1) rounds of a part of the tensor: best use of a link's bandwidth
    tree        to rank 0 and back in 2 log2 R rounds of the whole tensor
    butterfly   log2 R rounds of the whole tensor, everybody with everybody: fewest rounds
    gathered    everybody sends everybody the whole tensor, and adds up himself: one round
    scattered   everybody adds up a part of the tensor, which all send him, and sends all the sum:
                two rounds of parts, as few bytes as a ring, where all are linked with each other

All ranks get the same bits. Whether they are also those of any other number of ranks depends on the
order of the sum, for floats do not add up alike in every one. The order of NovaCron's kernels is a
tree over neighbours (`add_as_tree`). Gathered, scattered and tree keep it; butterfly does among 1,
2, 4 or 8 ranks; a ring does not.

Shapes: N values, flat; R ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from novacron.parallel.collectives.point_to_point import PointToPoint
from novacron.parallel.groups import ParallelGroup

AllReduce = Callable[[PointToPoint, Tensor], None]


def add_as_tree(parts: Sequence[Tensor]) -> Tensor:
    """((0 + 1) + (2 + 3)) + ((4 + 5) + ...): neighbours first, then neighbouring sums."""
    sums = list(parts)
    while len(sums) > 1:
        pairs = [one + other for one, other in zip(sums[::2], sums[1::2], strict=False)]
        sums = pairs + sums[2 * len(pairs) :]
    return sums[0]


def ring_all_reduce(ranks: PointToPoint, x_N: Tensor) -> None:
    """Make `x_N` the sum over ranks."""
    parts = _parts(x_N, ranks.size)
    _ring_reduce(ranks, parts)
    _ring_gather(ranks, parts)


def tree_all_reduce(ranks: PointToPoint, x_N: Tensor) -> None:
    """Make `x_N` the sum over ranks."""
    rank, size, distance = ranks.rank, ranks.size, 1
    theirs = torch.empty_like(x_N)
    while distance < size and rank % (2 * distance) == 0:
        if rank + distance < size:
            ranks.receive(rank + distance, theirs)
            x_N += theirs
        distance *= 2
    if rank:
        ranks.send(rank - distance, x_N)
        ranks.receive(rank - distance, x_N)
    while distance > 1:
        distance //= 2
        if rank + distance < size:
            ranks.send(rank + distance, x_N)


def butterfly_all_reduce(ranks: PointToPoint, x_N: Tensor) -> None:
    """Make `x_N` the sum over ranks. Of those beyond a power of two each gives what it has to one
    of the others, and gets the result."""
    rank, size = ranks.rank, ranks.size
    even = 1 << (size.bit_length() - 1)
    theirs = torch.empty_like(x_N)
    if rank >= even:
        ranks.send(rank - even, x_N)
        ranks.receive(rank - even, x_N)
        return
    if rank + even < size:
        ranks.receive(rank + even, theirs)
        x_N += theirs
    distance = 1
    while distance < even:
        ranks.send(rank ^ distance, x_N)
        ranks.receive(rank ^ distance, theirs)
        x_N += theirs  # the same sum there: two floats add up alike either way round
        distance *= 2
    if rank + even < size:
        ranks.send(rank + even, x_N)


def gathered_all_reduce(ranks: PointToPoint, x_N: Tensor) -> None:
    """Make `x_N` the sum over ranks."""
    others = [other for other in range(ranks.size) if other != ranks.rank]
    for other in others:
        ranks.send(other, x_N)
    parts = [x_N] * ranks.size
    for other in others:
        parts[other] = torch.empty_like(x_N)
        ranks.receive(other, parts[other])
    if others:
        x_N.copy_(add_as_tree(parts))


def scattered_all_reduce(ranks: PointToPoint, x_N: Tensor) -> None:
    """Make `x_N` the sum over ranks."""
    parts = _parts(x_N, ranks.size)
    others = [other for other in range(ranks.size) if other != ranks.rank]
    for other in others:
        ranks.send(other, parts[other])
    own = parts[ranks.rank]
    received = [own] * ranks.size
    for other in others:
        received[other] = torch.empty_like(own)
        ranks.receive(other, received[other])
    own.copy_(add_as_tree(received))
    for other in others:
        ranks.send(other, own)
    for other in others:
        ranks.receive(other, parts[other])


def all_gather(ranks: PointToPoint, x_N: Tensor) -> Tensor:
    """What all ranks have, [R, N], each as many values."""
    out_RN = x_N.new_empty(ranks.size, *x_N.shape)
    out_RN[ranks.rank] = x_N
    parts = list(out_RN)
    _ring_gather(ranks, parts, has=ranks.rank)
    return out_RN


def _parts(x_N: Tensor, size: int) -> list[Tensor]:
    assert x_N.dim() == 1
    cuts = [ParallelGroup(rank, size).range_of(x_N.shape[0]) for rank in range(size)]
    return [x_N[cut.start : cut.stop] for cut in cuts]


def _ring_reduce(ranks: PointToPoint, parts: list[Tensor]) -> None:
    """Afterwards this rank has the sum of the part after its own."""
    size, to, source = ranks.size, (ranks.rank + 1) % ranks.size, (ranks.rank - 1) % ranks.size
    last = (ranks.rank + 1) % size
    for back in range(size - 1, 0, -1):
        ranks.send(to, parts[(last + back) % size])
        own = parts[(last + back - 1) % size]
        theirs = torch.empty_like(own)
        ranks.receive(source, theirs)
        own += theirs


def _ring_gather(ranks: PointToPoint, parts: list[Tensor], has: int | None = None) -> None:
    """Fill in all parts, of which this rank has `has`, by default the one after its own."""
    size, to, source = ranks.size, (ranks.rank + 1) % ranks.size, (ranks.rank - 1) % ranks.size
    first = (ranks.rank + 1) % size if has is None else has
    for back in range(size - 1):
        ranks.send(to, parts[(first - back) % size])
        ranks.receive(source, parts[(first - back - 1) % size])
