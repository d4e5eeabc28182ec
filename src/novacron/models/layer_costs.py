"""What the parts of a model cost, so that the stages of a pipeline get about the same work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from novacron.models.decoder import Decoder
from novacron.models.layers.matrix import weight_bytes
from novacron.parallel.stages import Stage, cut_layers


@dataclass(frozen=True)
class LayerCosts:
    """Bytes of weights: of each layer, and what the first stage has beside its layers."""

    layers: tuple[float, ...]
    first: float

    def held(self, stops: Sequence[int]) -> list[float]:
        """By each of the stages that end before these layers."""
        cost = [sum(self.layers[start:stop]) for start, stop in pairwise((0, *stops))]
        return [cost[0] + self.first, *cost[1:]]


def costs_of(decoder: Decoder) -> LayerCosts:
    """Of one that has all layers. Bytes are what a step reads once and multiplies with: few tokens
    take as long as reading takes, and many as long as multiplying does. Looking tokens up costs
    nothing."""
    assert decoder.output is not None
    return LayerCosts(
        tuple(weight_bytes(layer, decoder.kernels) for layer in decoder.layers),
        weight_bytes(decoder.output, decoder.kernels),
    )


def stages_of(
    decoder: Decoder,
    num_stages: int,
    *,
    speeds: Sequence[float] = (),
    room_bytes: Sequence[float] = (),
) -> tuple[Stage, ...]:
    """Of a decoder that has all layers, as many as it is to be cut into; see cut_layers. Raises
    NoCut."""
    costs = costs_of(decoder)
    return cut_layers(
        costs.layers,
        num_stages,
        first_cost=costs.first,
        speeds=speeds,
        most=room_bytes,
    )
