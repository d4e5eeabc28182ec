"""A shadow finds what a tier with its order would find."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from novacron.cache_simulator.replay import run
from novacron.cache_simulator.tier_model import SimulatedTier
from novacron.cache_simulator.workloads import WorkloadConfig, make_workload
from novacron.kv_tiers.eviction.arc import ArcOrder
from novacron.kv_tiers.eviction.chained import ChainedPolicy
from novacron.kv_tiers.eviction.lfu import LfuOrder
from novacron.kv_tiers.eviction.lru import LruOrder
from novacron.kv_tiers.eviction.policy import Block, LeafOrder
from novacron.kv_tiers.eviction.shadow import ShadowTier
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockOrigin
from novacron.testing.kv_records import key_of

Blocks = list[tuple[BlockHash, BlockOrigin]]


def chain(keys: list[BlockHash]) -> Blocks:
    return [(key, BlockOrigin(keys[n - 1] if n else None, n)) for n, key in enumerate(keys)]


@pytest.mark.parametrize("make", [LruOrder, LfuOrder, lambda: ArcOrder(60)])
def test_it_finds_as_much_as_a_tier_of_its_size(make: Callable[[], LeafOrder]) -> None:
    trace = make_workload("mixed", WorkloadConfig(num_requests=400, seed=7))
    # As many are remembered as a shadow remembers: ARC looks at them.
    tier = SimulatedTier(60, ChainedPolicy(make(), num_tombstones=120))
    shadow = ShadowTier(60, make())
    found = [shadow.see(chain(list(one.blocks)), one.arrival_s) for one in trace.requests]
    assert sum(found) == run(trace, [tier]).found[0] > 0


class NewestGoes(LruOrder):
    def enter(self, block: Block, now_s: float) -> None:
        self._heap.put(block, -block.used_s)


def test_what_builds_on_a_block_that_was_refused_is_not_stored_either() -> None:
    old, new, other = ([key_of(10 * n + i) for i in range(3)] for n in range(3))
    shadow = ShadowTier(3, NewestGoes())
    shadow.see(chain(old), 1.0)
    both = sorted(chain(new) + chain(other), key=lambda one: one[1].depth)
    assert shadow.see(both, 2.0) == 0
    assert shadow.see(both, 3.0) == 0
    assert shadow.see(chain(old), 4.0) == 3
