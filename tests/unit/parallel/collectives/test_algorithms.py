"""Sums over ranks against numpy, and their bits against one sum in the kernels' order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from novacron.parallel.collectives.algorithms import add_as_tree, all_gather
from novacron.parallel.collectives.choice import ALGORITHMS, HybridAllReduce, in_order, measure
from novacron.parallel.collectives.host_exchange import HostExchange
from novacron.parallel.collectives.link_communicator import LinkCommunicator
from novacron.parallel.collectives.point_to_point import PointToPoint
from novacron.parallel.collectives.rounded import rounded_all_reduce
from novacron.parallel.groups import ParallelGroup
from novacron.testing.mailbox_ranks import all_ranks, on_all_ranks

SIZES = st.integers(1, 8)
LENGTHS = st.one_of(st.integers(0, 20), st.sampled_from([64, 255, 1000]))


def parts_of(size: int, length: int, seed: int) -> list[Tensor]:
    """Of very different magnitudes, so that orders of a sum show."""
    draws = np.random.default_rng(seed)
    values = draws.normal(size=(size, length)) * 10.0 ** draws.integers(-6, 7, (size, length))
    return list(torch.from_numpy(values).float())


def assert_near(found: Tensor, parts: list[Tensor]) -> None:
    stacked = np.stack([part.numpy() for part in parts]).astype(np.float64)
    allowed = 1e-6 * np.abs(stacked).sum(0)
    assert bool((np.abs(found.numpy() - stacked.sum(0)) <= allowed).all())


@settings(max_examples=40)
@given(SIZES, LENGTHS, st.sampled_from(sorted(ALGORITHMS)), st.integers(0, 2**32 - 1))
def test_all_ranks_get_the_same_right_sum(size: int, length: int, name: str, seed: int) -> None:
    parts = parts_of(size, length, seed)

    def add_up(ranks: PointToPoint) -> Tensor:
        x = parts[ranks.rank].clone()
        ALGORITHMS[name](ranks, x)
        return x

    found = on_all_ranks(size, add_up)
    assert_near(found[0], parts)
    assert all(torch.equal(one, found[0]) for one in found)
    if name in in_order(size):
        assert torch.equal(found[0], add_as_tree(parts))


def test_the_order_of_neighbours_is_that_of_any_number_of_ranks() -> None:
    """Two ranks that have each added up their half are four that have not."""
    quarters = parts_of(4, 1000, 7)
    halves = [add_as_tree(quarters[:2]), add_as_tree(quarters[2:])]
    assert torch.equal(add_as_tree(halves), add_as_tree(quarters))
    assert not torch.equal(add_as_tree(quarters), sum(quarters[1:], quarters[0]))


def test_a_ring_is_not_in_order() -> None:
    """Which is why it is not among those that keep bits: the test above could fail."""
    parts = parts_of(4, 1000, 3)

    def add_up(ranks: PointToPoint) -> Tensor:
        x = parts[ranks.rank].clone()
        ALGORITHMS["ring"](ranks, x)
        return x

    assert not torch.equal(on_all_ranks(4, add_up)[0], add_as_tree(parts))


@settings(max_examples=20)
@given(SIZES, LENGTHS, st.integers(0, 2**32 - 1))
def test_gathering_gives_everybody_everything(size: int, length: int, seed: int) -> None:
    parts = parts_of(size, length, seed)
    gathered = on_all_ranks(size, lambda ranks: all_gather(ranks, parts[ranks.rank]))
    assert all(torch.equal(one, torch.stack(parts)) for one in gathered)


@pytest.mark.parametrize(
    ("name", "num_messages"), [("ring", 6), ("butterfly", 2), ("gathered", 3), ("scattered", 6)]
)
def test_rounds_are_as_many_as_they_should_be(name: str, num_messages: int) -> None:
    def add_up(ranks: PointToPoint) -> int:
        ALGORITHMS[name](ranks, torch.ones(8))
        return ranks.num_sent  # type: ignore[attr-defined, no-any-return]

    assert on_all_ranks(4, add_up) == [num_messages] * 4


def test_a_hybrid_takes_what_was_quickest_near_the_size() -> None:
    times = {"butterfly": (1.0, 5.0), "ring": (3.0, 2.0)}
    hybrid = HybridAllReduce(times, (2**10, 2**20))
    assert hybrid.chosen == {2**10: "butterfly", 2**20: "ring"}
    sent = {}
    for length in (2**6, 2**12, 2**15):  # the middle is 32 KiB, in between by factors

        def add_up(ranks: PointToPoint, length: int = length) -> int:
            hybrid(ranks, torch.ones(length))
            return ranks.num_sent  # type: ignore[attr-defined, no-any-return]

        sent[length] = on_all_ranks(4, add_up)[0]
    assert sent == {2**6: 2, 2**12: 2, 2**15: 6}


def test_ranks_choose_alike_whatever_each_has_measured() -> None:
    def clock(rank: int) -> list[float]:
        draws = np.random.default_rng(rank)
        return list(np.cumsum(draws.uniform(0.001, 1.0, 10_000)))

    def choose(ranks: PointToPoint) -> dict[int, str]:
        ticks = iter(clock(ranks.rank))
        return measure(ranks, sorted(ALGORITHMS), (64, 256), lambda: next(ticks)).chosen

    found = on_all_ranks(5, choose)
    assert all(one == found[0] for one in found)


def test_a_communicator_sums_products_and_joins_logits() -> None:
    weight = torch.arange(24.0).view(4, 6)

    def row_product(ranks: PointToPoint) -> Tensor:
        columns = ParallelGroup(ranks.rank, 2).slice_of(6)

        def product(x: Tensor, *args: object, **options: object) -> Tensor:
            return x @ weight[:, columns].T

        exchange = HostExchange(tuple(ALGORITHMS))
        exchange.meet(ranks)
        communicator = LinkCommunicator(ranks.rank, exchange)
        x = torch.ones(3, 6)[:, columns]
        return communicator.row_product(product, x, torch.ones(4), None)  # type: ignore[arg-type]

    for found in on_all_ranks(2, row_product):
        assert torch.equal(found, torch.ones(3, 6) @ weight.T + 1)


def test_columns_of_logits_come_together_on_rank_0() -> None:
    logits_TV = torch.arange(3 * 10.0).view(3, 10)

    def collect(ranks: PointToPoint) -> Tensor:
        exchange = HostExchange(in_order(3))
        exchange.meet(ranks)
        own = ParallelGroup(ranks.rank, 3).range_of(10)
        columns = logits_TV[:, own.start : own.stop]
        into = torch.zeros(3, 10) if ranks.rank == 0 else None
        if into is not None:
            into[:, own.start : own.stop] = columns
        exchange.collect_columns(columns, into)
        return columns if into is None else into

    assert torch.equal(on_all_ranks(3, collect)[0], logits_TV)


@settings(max_examples=20)
@given(SIZES, st.integers(1, 9), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_sums_in_int8_are_alike_everywhere_and_tell_their_error(
    size: int, rows: int, columns: int, seed: int
) -> None:
    parts = [part.view(rows, columns) for part in parts_of(size, rows * columns, seed)]

    def add_up(ranks: PointToPoint) -> tuple[Tensor, float]:
        x = parts[ranks.rank].clone()
        return x, rounded_all_reduce(ranks, x)

    found = on_all_ranks(size, add_up)
    assert all(torch.equal(one, found[0][0]) and error == found[0][1] for one, error in found)
    allowed = sum(part.abs().amax(1, keepdim=True) for part in parts) / 127  # half a step, and more
    assert bool(((found[0][0] - sum(parts)).abs() <= allowed).all())
    norms = [float(part.norm()) for part in parts]
    assert 0 <= found[0][1] <= 0.5 * columns**0.5 / 127 + 1e-6 or not any(norms)


def test_one_rank_alone_sends_nothing() -> None:
    [alone] = all_ranks(1)
    for add_up in ALGORITHMS.values():
        x = torch.ones(3)
        add_up(alone, x)
        assert x.tolist() == [1, 1, 1]
    assert alone.num_sent == 0
