"""What the parts of a model cost, so that the stages of a pipeline get about the same work."""

from __future__ import annotations

from collections.abc import Sequence

from novacron.models.decoder import Decoder
from novacron.models.layers.matrix import weight_bytes
from novacron.parallel.stages import Stage, cut_layers


def stages_of(
    decoder: Decoder,
    num_stages: int,
    *,
    speeds: Sequence[float] = (),
    room_bytes: Sequence[float] = (),
) -> tuple[Stage, ...]:
    """Of a decoder that has all layers, as many as it is to be cut into; see cut_layers. Raises
    NoCut.

    Costs are bytes of weights, which a step reads once and multiplies with: few tokens take as long
    as reading takes, and many as long as multiplying does. Looking tokens up costs nothing.
    """
    assert decoder.output is not None
    return cut_layers(
        [weight_bytes(layer, decoder.kernels) for layer in decoder.layers],
        num_stages,
        first_cost=weight_bytes(decoder.output, decoder.kernels),
        speeds=speeds,
        most=room_bytes,
    )
