"""Who is linked with whom, and who is told which key."""

from __future__ import annotations

from novacron.executor.hosts.balance import HostsPlan
from novacron.executor.hosts.host_loads import loads_of
from novacron.parallel.stages import Stage, stages_ending

ADDRESSES = ("k1@one:1", "k2@two:2", "k3@three:3")


def plan(stages: tuple[Stage, ...]) -> HostsPlan:
    return HostsPlan(stages=stages, hosts=(), num_blocks=5, max_model_len=64, block_bytes=0)


def test_stages_are_linked_with_those_next_to_them() -> None:
    one, two, three = loads_of(plan(stages_ending((1, 2, 3, 4))), ADDRESSES)
    assert (one.hosts, one.keys) == ({2: "k2@two:2"}, {})
    assert (two.hosts, two.keys) == ({3: "k3@three:3"}, {1: "k1"})
    assert (three.hosts, three.keys) == ({}, {2: "k2"})
    assert one.stops == (1, 2, 3, 4)


def test_slices_are_linked_with_all_others_once() -> None:
    one, two, three = loads_of(plan(()), ADDRESSES)
    assert (one.hosts, one.keys) == ({2: "k2@two:2", 3: "k3@three:3"}, {})
    assert (two.hosts, two.keys) == ({3: "k3@three:3"}, {1: "k1"})
    assert (three.hosts, three.keys) == ({}, {1: "k1", 2: "k2"})
    assert one.stops == ()
