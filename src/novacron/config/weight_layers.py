"""Which matrices are held in which precision: `quantization_layers`.

An entry is PATTERN=LEVEL, where PATTERN is a glob over the names that matrices have in a Llama
checkpoint, whatever the family: "model.layers.0.*=int8" the first layer, "*.down_proj.weight=int8"
one matrix of each. A star also stands for dots. Where entries overlap, the last one counts.
"""

from __future__ import annotations

from typing import Literal, get_args

from novacron.errors import ConfigError

WeightLevel = Literal["fp32", "fp16", "bf16", "fp8", "int8", "int4"]

_LEVELS: dict[str, WeightLevel] = {
    **{level: level for level in get_args(WeightLevel)},
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "fp8_e4m3": "fp8",
}


def parse_weight_layers(entries: tuple[str, ...]) -> tuple[tuple[str, WeightLevel], ...]:
    """Patterns with their levels, in order. Raises ConfigError if an entry is not one."""
    return tuple(map(_parse, entries))


def _parse(entry: str) -> tuple[str, WeightLevel]:
    pattern, equals, level = (part.strip() for part in entry.rpartition("="))
    if not equals or not pattern or level.lower() not in _LEVELS:
        raise ConfigError(
            f"quantization_layers has '{entry}': give PATTERN=LEVEL, for example "
            f"model.layers.0.*=int8 or *.down_proj.weight=int8. LEVEL is one of "
            f"{', '.join(get_args(WeightLevel))}."
        )
    return pattern, _LEVELS[level.lower()]
