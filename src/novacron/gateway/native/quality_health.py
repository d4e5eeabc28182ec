"""What the watch over quality found, as the health report tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from novacron.engine.client import VariantStatus


@dataclass(frozen=True)
class QualityHealth:
    """`component` is empty where nothing is watched: then it is not known."""

    component: str = ""
    warnings: tuple[str, ...] = ()
    recommendations: tuple[str, ...] = ()


def quality_health(variants: Sequence[VariantStatus]) -> QualityHealth:
    """An alert of a variant that requests have left for a finer one is a warning, too."""
    watched = [one for one in variants if one.stats.watch is not None]
    if not watched:
        return QualityHealth()
    alarmed = [one for one in watched if one.stats.watch and one.stats.watch.is_alarmed]
    if not alarmed:
        return QualityHealth("healthy")
    default = next((one.name for one in variants if one.is_default), "")
    is_served = any(one.name == default for one in alarmed)
    advice = (
        "Name a finer precision in variants, or serve one; see whether the model's files are whole."
    )
    return QualityHealth(
        "degraded",
        tuple(_warning(one, default) for one in alarmed),
        (advice,) if is_served else (),
    )


def _warning(one: VariantStatus, default: str) -> str:
    watch = one.stats.watch
    assert watch is not None
    quality = "" if watch.quality is None else f" (quality {watch.quality:.4f})"
    where = "" if one.name == default else f" New requests go to {default}."
    return f"The watch over quality has an alert for {one.name}{quality}.{where}"
