"""Which layers each stage of a pipeline holds: neighbours, about the same work for every stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import TypeVar

OfLayer = TypeVar("OfLayer")


@dataclass(frozen=True)
class Stage:
    """Stage `index` of `count`, with some of the layers. The first one has what stands at both ends
    as well: it looks tokens up, and gives the logits."""

    index: int
    count: int
    layers: range

    @property
    def is_first(self) -> bool:
        return self.index == 0

    @property
    def is_last(self) -> bool:
        return self.index == self.count - 1

    def of(self, all_layers: Sequence[OfLayer]) -> tuple[OfLayer, ...]:
        """Of what there is one of for each layer of the model, those of this stage."""
        return tuple(all_layers[layer] for layer in self.layers)

    @property
    def name(self) -> str:
        """Empty for that which has all layers."""
        if self.count == 1:
            return ""
        return f"stage{self.index}of{self.count}-{self.layers.start}-{self.layers.stop}"


def whole(num_layers: int) -> Stage:
    """The only stage of a model that is not cut."""
    return Stage(0, 1, range(num_layers))


class NoCut(Exception):
    """No stage may have as much as some stage would have to."""


def cut_layers(
    costs: Sequence[float],
    num_stages: int,
    *,
    first_cost: float = 0.0,
    speeds: Sequence[float] = (),
    most: Sequence[float] = (),
) -> tuple[Stage, ...]:
    """Stages of at least one layer each, which have every layer once, in order. The longest time of
    a stage is the least possible, and among such cuts the times differ least (in squares).

    `costs` are those of the layers, not negative, at least as many as stages; `first_cost` is what
    the first stage has beside its layers. A stage takes its cost divided by its speed, where they
    are not equal, and has room for no more than a cost of `most`, where that is limited: raises
    NoCut.
    """
    num_layers = len(costs)
    assert 1 <= num_stages <= num_layers
    sums = [0.0, *accumulate(costs)]
    paces = tuple(speeds) or (1.0,) * num_stages
    limits = tuple(most) or (math.inf,) * num_stages
    assert len(paces) == len(limits) == num_stages

    def cost(stage: int, start: int, stop: int) -> float:
        held = sums[stop] - sums[start] + (first_cost if stage == 0 else 0.0)
        return held / paces[stage] if held <= limits[stage] else math.inf

    @cache
    def least_peak(stage: int, start: int) -> float:
        """Of the stages from this one on, which have the layers from `start` on."""
        if stage == num_stages - 1:
            return cost(stage, start, num_layers)
        return min(
            max(cost(stage, start, stop), least_peak(stage + 1, stop))
            for stop in _stops(start, num_layers, num_stages - stage - 1)
        )

    peak = least_peak(0, 0)
    if peak == math.inf:
        raise NoCut

    @cache
    def best(stage: int, start: int) -> tuple[float, tuple[int, ...]] | None:
        """Least sum of squares, and where its stages end; None: not without a higher peak."""
        if stage == num_stages - 1:
            last = cost(stage, start, num_layers)
            return (last * last, (num_layers,)) if last <= peak else None
        found: list[tuple[float, tuple[int, ...]]] = []
        for stop in _stops(start, num_layers, num_stages - stage - 1):
            own = cost(stage, start, stop)
            rest = best(stage + 1, stop) if own <= peak else None
            if rest is not None:
                found.append((own * own + rest[0], (stop, *rest[1])))
        return min(found, default=None)

    chosen = best(0, 0)
    assert chosen is not None
    return stages_ending(chosen[1])


def _stops(start: int, num_layers: int, num_after: int) -> range:
    """Where a stage may end, so that each of those after it gets a layer."""
    return range(start + 1, num_layers - num_after + 1)


def stages_ending(stops: Sequence[int]) -> tuple[Stage, ...]:
    """Those that end before these layers."""
    return tuple(
        Stage(index, len(stops), range(start, stop))
        for index, (start, stop) in enumerate(zip((0, *stops), stops, strict=False))
    )
