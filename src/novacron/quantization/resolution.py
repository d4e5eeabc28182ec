"""What a machine makes of a level that it is asked for.

Nothing is lost in silence: a level that cannot be had becomes one that is at least as fine, and
the reason is given, for `novacron quantize --explain` and the log.
"""

from __future__ import annotations

from dataclasses import dataclass

from novacron.quantization.levels import ROUNDED, Level


@dataclass(frozen=True)
class Holdings:
    """What a machine can hold weights in. `computed` is the precision of activations, and of every
    weight that is not rounded: a product's operands share it. `stored` is the checkpoint's."""

    computed: Level
    stored: Level
    rounded: frozenset[Level] = ROUNDED


@dataclass(frozen=True)
class Resolved:
    """`reason` is empty where the level is the one that was asked for."""

    level: Level
    reason: str = ""


def resolve(wanted: Level | None, holdings: Holdings) -> Resolved:
    """The level that a matrix or a norm is held in."""
    computed = holdings.computed
    if wanted is None or wanted == computed:
        return Resolved(computed)
    if wanted in ROUNDED:
        if wanted in holdings.rounded:
            return Resolved(wanted)
        return Resolved(computed, f"the kernels here have no {wanted}")
    if _represents(computed, holdings.stored):
        if _represents(wanted, computed) and holdings.stored == computed:
            return Resolved(computed, f"as in the checkpoint: {wanted} would add nothing")
        return Resolved(
            computed, f"what computes here takes {computed}, which holds every stored value"
        )
    return Resolved(
        computed, f"dtype makes it {computed}, coarser than the checkpoint's {holdings.stored}"
    )


def _represents(level: Level, values: Level) -> bool:
    """Whether every number of the level `values` is one of `level`."""
    return level in (values, "fp32")
