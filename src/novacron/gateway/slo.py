"""Service-level objectives that a request names: how soon its tokens are wanted. Pure."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

SloClass = Literal["interactive", "standard", "batch"]


class Objectives(NamedTuple):
    """Seconds to the first token, and from token to token; 0: not said."""

    ttft_s: float = 0.0
    tpot_s: float = 0.0


SLO_CLASSES: Final[dict[SloClass, Objectives]] = {
    "interactive": Objectives(0.5, 0.05),
    "standard": Objectives(5.0, 0.2),
    "batch": Objectives(300.0, 0.0),
}


def objectives_of(
    slo_class: SloClass | None, ttft_s: float | None, tpot_s: float | None
) -> Objectives:
    """Those of the class, with what is said in seconds in their place."""
    named = SLO_CLASSES[slo_class] if slo_class else Objectives()
    return Objectives(
        named.ttft_s if ttft_s is None else ttft_s, named.tpot_s if tpot_s is None else tpot_s
    )
