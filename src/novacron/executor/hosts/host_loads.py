"""What each host is told to load, and which others it is linked with. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from novacron.executor.hosts.balance import HostsPlan
from novacron.executor.hosts.orders import Load


def loads_of(plan: HostsPlan, addresses: Sequence[str]) -> list[Load]:
    """For the ranks 1 and following, at these addresses. Stages are linked with those next to them,
    slices with all others; the lower one connects, with a key that the higher one is told."""
    by_rank = dict(enumerate(addresses, 1))

    def linked_with(rank: int) -> list[int]:
        return [one for one in by_rank if not plan.stages or abs(one - rank) == 1]

    return [
        Load(
            stops=tuple(stage.layers.stop for stage in plan.stages),
            num_blocks=plan.num_blocks,
            max_model_len=plan.max_model_len,
            hosts={one: by_rank[one] for one in linked_with(rank) if one > rank},
            keys={one: by_rank[one].partition("@")[0] for one in linked_with(rank) if one < rank},
        )
        for rank in by_rank
    ]
