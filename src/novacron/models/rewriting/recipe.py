"""How a folder was made by `novacron quantize`, as its config.json tells: the settings with which
it is served as it was rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from novacron.models.hf_config import HFConfig

SECTION = "novacron_quantization"


@dataclass(frozen=True)
class Recipe:
    """The settings quantization, quantization_layers and quantization_group_size, and the method
    that chose the numbers."""

    quantization: str
    layers: tuple[str, ...]
    group_size: int | None
    method: str

    def as_json(self) -> Mapping[str, object]:
        return {
            "quantization": self.quantization,
            "quantization_layers": list(self.layers),
            "quantization_group_size": self.group_size,
            "method": self.method,
        }


def read_recipe(config: HFConfig) -> Recipe | None:
    """None for a folder that was made otherwise. Raises ModelLoadError."""
    if not config.has(SECTION):
        return None
    section = config.section(SECTION)
    return Recipe(
        section.text("quantization"),
        section.texts("quantization_layers"),
        section.optional_integer("quantization_group_size"),
        section.text("method", "rtn"),
    )
