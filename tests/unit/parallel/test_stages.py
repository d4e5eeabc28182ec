"""Stages have every layer once, and no cut has a lighter heaviest stage."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.parallel.stages import NoCut, Stage, cut_layers, stages_ending, whole


@st.composite
def models(draw: st.DrawFn) -> tuple[list[int], int, int]:
    """Costs of layers, number of stages, cost of the first one's further work."""
    costs = draw(st.lists(st.integers(0, 9), min_size=1, max_size=9))
    return costs, draw(st.integers(1, len(costs))), draw(st.integers(0, 20))


@given(models())
def test_every_layer_is_in_one_stage_and_every_stage_has_one(
    model: tuple[list[int], int, int],
) -> None:
    costs, num_stages, first_cost = model
    stages = cut_layers(costs, num_stages, first_cost=first_cost)
    assert [layer for stage in stages for layer in stage.layers] == list(range(len(costs)))
    assert all(len(stage.layers) > 0 for stage in stages)
    assert [(stage.index, stage.count) for stage in stages] == [
        (index, num_stages) for index in range(num_stages)
    ]


@given(models())
def test_no_other_cut_is_more_even(model: tuple[list[int], int, int]) -> None:
    costs, num_stages, first_cost = model

    def loads(ranges: list[range]) -> list[int]:
        found = [sum(costs[layer] for layer in layers) for layers in ranges]
        return [found[0] + first_cost, *found[1:]]

    def judged(found: list[int]) -> tuple[int, int]:
        return max(found), sum(load * load for load in found)

    every_cut = [
        [range(start, stop) for start, stop in zip((0, *stops), (*stops, len(costs)), strict=True)]
        for stops in combinations(range(1, len(costs)), num_stages - 1)
    ]
    stages = cut_layers(costs, num_stages, first_cost=first_cost)
    assert judged(loads([stage.layers for stage in stages])) == min(
        judged(loads(cut)) for cut in every_cut
    )


def test_layers_that_do_not_divide_are_spread_by_one() -> None:
    lengths = [len(stage.layers) for stage in cut_layers([1.0] * 126, 8)]
    assert sorted(lengths) == [15] * 2 + [16] * 6


def test_logits_cost_the_first_stage_layers() -> None:
    first, second = cut_layers([1.0] * 22, 2, first_cost=2.0)
    assert (first.layers, second.layers) == (range(10), range(10, 22))


@pytest.mark.parametrize(
    ("stage", "name"),
    [(whole(4), ""), (Stage(1, 2, range(3, 7)), "stage1of2-3-7")],
)
def test_names_tell_stages_apart(stage: Stage, name: str) -> None:
    assert stage.name == name
    assert stage.is_last


@given(models(), st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=9, max_size=9))
def test_no_other_cut_is_quicker_on_hosts_of_these_speeds(
    model: tuple[list[int], int, int], all_speeds: list[float]
) -> None:
    costs, num_stages, first_cost = model
    speeds = all_speeds[:num_stages]

    def peak(stops: tuple[int, ...]) -> float:
        loads = [float(sum(costs[layer] for layer in one.layers)) for one in stages_ending(stops)]
        loads[0] += first_cost
        return max(load / speed for load, speed in zip(loads, speeds, strict=True))

    found = cut_layers(costs, num_stages, first_cost=first_cost, speeds=speeds)
    best = min(
        peak((*stops, len(costs))) for stops in combinations(range(1, len(costs)), num_stages - 1)
    )
    assert peak(tuple(stage.layers.stop for stage in found)) == best


def test_a_host_twice_as_quick_gets_twice_as_many_layers() -> None:
    found = cut_layers([1] * 12, 2, speeds=[1.0, 2.0])
    assert [len(stage.layers) for stage in found] == [4, 8]


def test_no_stage_has_more_than_its_host_has_room_for() -> None:
    found = cut_layers([1] * 12, 3, speeds=[1, 8, 1], most=[12, 5, 12])
    assert sorted(len(stage.layers) for stage in found) == [3, 4, 5]
    assert len(found[1].layers) == 5
    with pytest.raises(NoCut):
        cut_layers([1] * 12, 2, most=[5, 6])
    with pytest.raises(NoCut):
        cut_layers([1, 1], 2, first_cost=5, most=[5, 5])
