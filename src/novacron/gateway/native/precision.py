"""The precision that a native request asks for, and what it gets.

One variant of the model is loaded, so the nearest to what was asked for is always that one. The
reply says so where it is another than the one that was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from novacron.records.output import ModelSpec

_ANY = ("", "auto", "default")
_NAMES = {
    "fp32": "float32",
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    "none": "none",
}


@dataclass(frozen=True)
class PrecisionWish:
    """The fields `quantization` and `quality_preference` of a body, as they came."""

    quantization: str | None = None
    quality_preference: str | float | None = None

    def warnings(self, spec: ModelSpec) -> tuple[str, ...]:
        """What was wished and is not what is loaded, a sentence for each."""
        return tuple(filter(None, (self._about_quantization(spec), self._about_quality(spec))))

    def _about_quantization(self, spec: ModelSpec) -> str | None:
        asked = (self.quantization or "").strip().lower()
        if asked in _ANY or _NAMES.get(asked, asked) in _loaded(spec):
            return None
        return (
            f"quantization '{self.quantization}' is not loaded: the answer was computed in "
            f"{_described(spec)}. Start a server with that precision to get it."
        )

    def _about_quality(self, spec: ModelSpec) -> str | None:
        asked = self.quality_preference
        if asked is None or (isinstance(asked, str) and asked.strip().lower() in _ANY):
            return None
        return (
            f"quality_preference {asked!r} had nothing to choose from: one variant of the model is "
            f"loaded, and the answer was computed in {_described(spec)}."
        )


def _loaded(spec: ModelSpec) -> tuple[str, ...]:
    """The names of the precision of the weights."""
    if spec.quantization == "none":
        return spec.dtype, "none"
    return (spec.quantization.partition(" ")[0],)  # "int8 in groups of 32"


def _described(spec: ModelSpec) -> str:
    return spec.dtype if spec.quantization == "none" else spec.quantization
