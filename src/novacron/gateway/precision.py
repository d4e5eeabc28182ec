"""The precision that a request asks for, and which loaded variant of the model it gets.

Pure. What is asked for and not loaded is answered by the nearest variant, with a sentence that says
so: by the coarsest that is at least as fine, so that nobody gets less than asked for if there is
more, else by the finest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from novacron.engine.client import EngineState, VariantStatus
from novacron.records.output import ModelSpec

_ANY = ("", "auto", "default")
_NAMES = {
    "fp32": "float32",
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
}
_BITS = {  # of a weight; of a profile those that most weights have
    "float32": 32.0,
    "none": 16.0,
    "float16": 16.0,
    "bfloat16": 16.0,
    "quality_critical": 16.0,
    "int8": 8.0,
    "fp8": 8.0,
    "balanced": 8.0,
    "memory_critical": 4.0,
    "int4": 4.0,
}
_STATES = {
    EngineState.LOADING: "still loading",
    EngineState.READY: "ready",
    EngineState.DRAINING: "ending",
    EngineState.UNLOADED: "unloaded",
    EngineState.DEAD: "out of order",
}
_FINEST = ("quality", "high", "best", "quality_critical")
_COARSEST = ("speed", "low", "fast", "memory_critical")
_MIDDLE = ("balanced", "medium", "normal")


@dataclass(frozen=True)
class PrecisionWish:
    """The fields `quantization` and `quality_preference` of a body, as they came. The first counts
    where both are given. A preference is a word, or a number from 0 (the coarsest loaded variant)
    to 1 (the finest)."""

    quantization: str | None = None
    quality_preference: str | float | None = None


@dataclass(frozen=True)
class VariantChoice:
    """`variant` is a name; `warnings` are what was wished and is not so, a sentence for each."""

    variant: str
    warnings: tuple[str, ...] = ()


NO_WISH = PrecisionWish()


def choose_variant(wish: PrecisionWish, variants: Sequence[VariantStatus]) -> VariantChoice:
    """Among the variants that are ready; where none is, the default one, which says why."""
    default = next((one for one in variants if one.is_default), variants[0])
    ready = sorted(
        ((one, one.spec) for one in variants if one.state is EngineState.READY and one.spec),
        key=lambda pair: pair[1].fineness,
    )
    asked = (wish.quantization or "").strip().lower()
    preferred = wish.quality_preference
    if isinstance(preferred, str):
        preferred = preferred.strip().lower()
    wants_precision, wants_quality = asked not in _ANY, preferred not in (None, *_ANY)
    if not ready or not (wants_precision or wants_quality):
        return VariantChoice(default.name)
    chosen, warnings = default, []
    if wants_precision:
        chosen, is_met = _by_precision(asked, default, ready)
        if not is_met:
            warnings.append(_not_met(wish.quantization, asked, chosen, variants))
    if wants_quality and len(ready) == 1:
        warnings.append(
            f"quality_preference {wish.quality_preference!r} had nothing to choose from: one "
            f"variant of the model is loaded, and the answer was computed in {_described(chosen)}."
        )
    elif wants_quality and wants_precision:
        warnings.append(
            f"quality_preference {wish.quality_preference!r} was not used: quantization "
            f"'{wish.quantization}' is given, too."
        )
    elif wants_quality:
        found = _by_preference(preferred, default, [one for one, _ in ready])
        if found is None:
            warnings.append(
                f"quality_preference {wish.quality_preference!r} is not known: give "
                f"{', '.join((_FINEST[0], _MIDDLE[0], _COARSEST[0]))} or a number from 0 to 1. The "
                f"answer was computed in {_described(chosen)}."
            )
        chosen = found or chosen
    return VariantChoice(chosen.name, tuple(warnings))


_Ready = Sequence[tuple[VariantStatus, ModelSpec]]  # the coarsest first


def _by_precision(asked: str, default: VariantStatus, ready: _Ready) -> tuple[VariantStatus, bool]:
    """The variant, and whether it is what was asked for."""
    exact = [
        one for one, spec in ready if asked == one.name or _NAMES.get(asked, asked) in _held(spec)
    ]
    if exact:
        by_name = [one for one in exact if one.name == asked]
        return (by_name or ([default] if default in exact else exact))[0], True
    bits = _BITS.get(_NAMES.get(asked, asked))
    if bits is None:
        return default, False
    fine_enough = [one for one, spec in ready if _bits(spec) >= bits]
    return (fine_enough[0] if fine_enough else ready[-1][0]), False


def _by_preference(
    preferred: str | float | None, default: VariantStatus, ready: Sequence[VariantStatus]
) -> VariantStatus | None:
    """None for a preference that says nothing. `ready`: the coarsest first."""
    if preferred in _MIDDLE:
        return default
    if preferred in _FINEST:
        return ready[-1]
    if preferred in _COARSEST:
        return ready[0]
    if isinstance(preferred, int | float) and 0 <= preferred <= 1:
        return ready[round(preferred * (len(ready) - 1))]
    return None


def _bits(spec: ModelSpec) -> float:
    """Of a weight, scales included."""
    return 8 * spec.weight_bytes / max(1, spec.num_parameters)


def _held(spec: ModelSpec) -> tuple[str, ...]:
    """The names of the precision of the weights."""
    if spec.quantization == "none":
        return spec.dtype, "none"
    return (spec.quantization.partition(" ")[0].rstrip(":,"),)  # "int8 in groups of 32"


def _not_met(
    wished: str | None, asked: str, got: VariantStatus, variants: Sequence[VariantStatus]
) -> str:
    computed = f"the answer was computed in {_described(got)}"
    named = next((one for one in variants if one.name == asked), None)
    if named is not None:
        return f"quantization '{wished}' is {_STATES[named.state]}: {computed}."
    if _NAMES.get(asked, asked) not in _BITS:
        loaded = ", ".join(one.name for one in variants)
        return (
            f"quantization '{wished}' is not known: {computed}. Loaded are {loaded}; known are "
            f"{', '.join(_BITS)}."
        )
    return (
        f"quantization '{wished}' is not loaded: {computed}. "
        "Start a server with that precision (quantization, variants) to get it."
    )


def _described(variant: VariantStatus) -> str:
    spec = variant.spec
    if spec is None:
        return variant.name
    return spec.dtype if spec.quantization == "none" else spec.quantization
