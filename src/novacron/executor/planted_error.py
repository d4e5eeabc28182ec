"""A known error in weights that serve, to see whether it is noticed (novacron bench watch).

The scales are changed where they lie, so that all that computes with them does so with the wrong
ones: steps that were captured, and passes that score answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from novacron.errors import ConfigError
from novacron.kernels.native.rounded_packing import scales_in
from novacron.models.decoder import Decoder


@contextmanager
def wrong_scales(decoder: Decoder, pattern: str, factor: float) -> Iterator[int]:
    """The scales of all matrices whose names begin with `pattern` times `factor`, until the end.
    Gives the number of matrices. Raises ConfigError where there is none that can be changed."""
    found = list(_scales(decoder, pattern))
    if not found:
        raise ConfigError(
            f"No matrix '{pattern}...' has scales of its own to be made wrong: that needs native "
            "kernels on a CPU, and weights that are rounded (--set quantization=int8)."
        )
    sound = [scales.clone() for scales in found]
    for scales in found:
        scales.mul_(factor)
    try:
        yield len(found)
    finally:
        for scales, before in zip(found, sound, strict=True):
            scales.copy_(before)


def _scales(decoder: Decoder, pattern: str) -> Iterator[Tensor]:
    if decoder.kernels.linear_of_packed is None:  # others hold weights in other forms
        return
    for matrix in decoder.matrices:
        packed, quantization = matrix.packed, matrix.quantization
        is_meant = any(name.startswith(pattern) for name in matrix.names)
        if is_meant and packed is not None and quantization is not None:
            yield scales_in(packed, matrix.shape, quantization)
