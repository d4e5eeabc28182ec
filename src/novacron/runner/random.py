"""Random numbers by counter: the number for a token depends on (seed, position) and nothing else.

Called by the sampler. There is no state, so a request that is preempted, moved or continued draws
the same numbers again.

Construction: mix(mix(seed) + (position + 1) * GAMMA), that is element `position` of the SplitMix64
sequence that starts at mix(seed); the upper 53 bits become a float64 in [0, 1). All arithmetic is
modulo 2**64.
Source: G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_UINT64_MASK = (1 << 64) - 1
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_FACTOR = np.uint64(0x94D049BB133111EB)


def uniforms(seeds: Sequence[int], positions: Sequence[int]) -> NDArray[np.float64]:
    """One number in [0, 1) for each pair. Seeds are taken modulo 2**64, negative ones included."""
    seeds_R = np.array([seed & _UINT64_MASK for seed in seeds], dtype=np.uint64)
    counters_R = np.array(positions, dtype=np.uint64) + np.uint64(1)
    bits_R = _mix(_mix(seeds_R) + counters_R * _GAMMA)
    return (bits_R >> np.uint64(11)).astype(np.float64) * np.float64(2.0**-53)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64, a bijection that spreads every bit over the word."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST_FACTOR
    values = (values ^ (values >> np.uint64(27))) * _SECOND_FACTOR
    return values ^ (values >> np.uint64(31))
